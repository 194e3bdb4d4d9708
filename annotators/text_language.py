"""The language of a text by py3langid: naive Bayes over byte n-grams (Lui and Baldwin, ACL 2012), its model inside the wheel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from annotators.weights import packaged_model, packaged_path
from manifests.contracts import ModelFact

# What Whisper writes (ISO 639-1, and Cantonese), as far as the model knows it. Its other languages take short texts away from
# their neighbours: with Wu among them, a Chinese name of a restaurant or a row of Chinese digits is Wu.
LANGUAGES = (
    "af", "am", "ar", "as", "az", "be", "bg", "bn", "br", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "eu",
    "fa", "fi", "fo", "fr", "gl", "gu", "ha", "he", "hi", "hr", "ht", "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "km",
    "kn", "ko", "la", "lb", "ln", "lo", "lt", "lv", "mg", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "nl", "nn", "no",
    "oc", "pa", "pl", "ps", "pt", "ro", "ru", "sa", "si", "sk", "sl", "sn", "so", "sq", "sr", "sv", "sw", "ta", "te", "tg",
    "th", "tk", "tl", "tr", "tt", "uk", "ur", "uz", "vi", "yo", "yue", "zh",
)  # fmt: skip
# One written language under two codes, where recognisers and this model may choose differently.
SAME = {"nn": "no", "nb": "no", "yue": "zh", "wuu": "zh", "cmn": "zh"}


class Guess(NamedTuple):
    """``prob``: posterior among the languages asked for. It is close to 1 on a whole sentence and says little on a word."""

    language: str
    prob: float


class LanguageModel:
    """The model, restricted to some languages."""

    def __init__(self, languages: Sequence[str] = LANGUAGES) -> None:
        """Raises ModelUnavailable where py3langid is not installed, ValueError for a language that it does not know."""
        packaged_path("py3langid")
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._identifier.set_languages(languages)

    def guess(self, text: str) -> Guess:
        """The likeliest of the languages, however short the text is."""
        language, prob = self._identifier.classify(text)
        return Guess(str(language), float(prob))


def model_fact() -> ModelFact:
    """Facts of the model file. Raises ModelUnavailable where py3langid is not installed."""
    return packaged_model("BSD-3-Clause", "py3langid", "data")


def letter_bytes(text: str) -> int:
    """UTF-8 bytes of the letters: what the model has to go by. A Chinese character has three, a Latin letter one or two."""
    return sum(len(c.encode()) for c in text if c.isalpha())


def written_language(code: str) -> str:
    """One code for all that may stand for the same written language."""
    return SAME.get(code, code)
