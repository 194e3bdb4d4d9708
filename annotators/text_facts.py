"""Facts about the text of one ASR layer: language, script, rates, loops, known hallucinations, normal and spoken form, and
speech that it leaves out. Reads, hears nothing.

The text's log probability is in the ASR layer itself (``avg_logprob``). Facts that need words of their own (word rate,
longest word) are null in languages that write none apart.
"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from annotators.hallucinations import find_hallucination, phrases_digest
from annotators.scripts import main_script, script_counts
from annotators.spoken_form import spoken_form
from annotators.text_language import LANGUAGES, LanguageModel, letter_bytes, model_fact, written_language
from annotators.text_measures import compression_ratio, longest_repeat, repeated_ngram_ratio, unique_ratio
from annotators.text_normal import normalised, table_versions
from annotators.text_tokens import CHARACTER_LANGUAGES, keys, tokens
from manifests.contracts import MODEL_RATE_HZ, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field
from manifests.spans import Span, intersect, merge, rescale, total

MIN_RATE_S = 0.1  # speech under this has no rate

ADDS = pa.schema(
    [
        field("text_language", pa.string(), "ISO 639-1 guessed from the text; null where it is too short or the guess unsure"),
        field("text_language_prob", pa.float32(), "posterior of the best guess, also where it is too unsure to be made"),
        field("language_agrees", pa.bool_(), "whether the ASR's language (from audio) is that of its text; null without either"),
        field("script", pa.string(), "ISO 15924 of most letters (Hans and Hant told apart, Jpan with kana); null without one"),
        field("num_scripts", pa.int16(), "scripts that the letters are of: 2 for Chinese with English inside"),
        field(
            "minor_script_share", pa.float32(), "share of letters that are of another script than the most; null without letters"
        ),
        field("char_rate_hz", pa.float32(), "letters and digits a second of speech; null under 0.1 s of speech"),
        field("word_rate_hz", pa.float32(), "words a second of speech; null in languages without spaces between words"),
        field("num_tokens", pa.int32(), "words, or characters in languages without agreed words"),
        field(
            "repeated_ngram_ratio", pa.float32(), "share of tokens in n-grams that occur more than once (ngram, character_ngram)"
        ),
        field("longest_repeat", pa.int32(), "times that one n-gram of up to 10 tokens stands in a row; 1: nothing is repeated"),
        field("compression_ratio", pa.float32(), "bytes of the text over bytes after zlib, as in Whisper (2.4: looping)"),
        field("unique_word_ratio", pa.float32(), "different tokens over all tokens; null without tokens"),
        field("longest_word_chars", pa.int16(), "characters of the longest word; null in languages without spaces"),
        field("hallucination", pa.string(), "listed phrase that makes the text suspicious; null: none"),
        field("hallucination_kind", pa.string(), "credits | closings | fillers: the part of the list that it is from"),
        field("hallucination_share", pa.float32(), "share of tokens that lie in listed phrases that count; 0: none counts"),
        field("normalised_text", pa.string(), "the text in its language's normal form (annotators.text_normal)"),
        field(
            "spoken_text",
            pa.string(),
            "the text as read aloud: numbers, dates, money in words; null in languages without rules, "
            "and for numbers without a name",
        ),
        field(
            "uncovered_speech_s",
            pa.float32(),
            "seconds in which VAD heard speech and no word with a time stands within tolerance_s; null where words have no times",
        ),
        field("uncovered_speech_share", pa.float32(), "uncovered_speech_s over all speech; null without speech"),
    ]
)


class TextConfig(AnnotatorConfigBase):
    """Text facts of the layer ``asr``. Both limits on the language are as benchmarks/quality/text.py fits them to all it has."""

    kind: Literal["text"] = "text"
    asr: str = Field(default="asr", description="layer whose text, language and words are described")
    languages: tuple[str, ...] = Field(default=LANGUAGES, min_length=2, description="what the text may be in; fewer is surer")
    min_letter_bytes: int = Field(
        default=4,
        ge=1,
        description="text with fewer UTF-8 bytes of letters (2 Chinese characters, 4 English letters) gets no language",
    )
    min_language_prob: float = Field(default=0.35, ge=0, le=1, description="a guess below this posterior is not made")
    ngram: int = Field(default=3, ge=1, description="tokens of the n-grams of repeated_ngram_ratio")
    character_ngram: int = Field(default=6, ge=1, description="likewise, where tokens are characters")
    longest_ngram: int = Field(default=10, ge=1, description="longest unit that longest_repeat looks for")
    hallucination_share: float = Field(default=0.5, gt=0, le=1, description="share of the text from which closings count")
    little_speech_s: float = Field(default=0.5, ge=0, description="below this much speech, fillers count")
    tolerance_s: float = Field(
        default=0.25, ge=0, description="how far from a word speech is covered: edges of VAD and of words differ by that much"
    )

    @model_validator(mode="after")
    def _known_languages(self) -> TextConfig:
        if unknown := sorted(set(self.languages) - set(LANGUAGES)):
            raise ValueError(f"languages has {unknown[0]!r}, which is not known; known are {', '.join(LANGUAGES)}")
        return self

    def build(self) -> TextFacts:
        return TextFacts(self)


class TextFacts:
    """Annotator: facts about the text of a clip; abstains on the row where the ASR gave no text (an empty one is a text)."""

    name = "text"
    version = "2"
    hears = Hearing.NOTHING
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=768 << 20)

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self._language_model: LanguageModel | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.config.asr, "clip")

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (model_fact(),)

    def fingerprint(self) -> str:
        tables = table_versions("num2words") | {"phrases": phrases_digest()}
        return fingerprint(self.name, self.version, {**self.config.identity(), "tables": tables}, model_fact().digest)

    def setup(self) -> None:
        if self._language_model is None:
            self._language_model = LanguageModel(self.config.languages)

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        columns = ("text", "language", "words")
        heard = batch.layers[self.config.asr].select(columns).to_pylist()
        clips = batch.layers["clip"].select(("sample_rate_hz", "speech_spans")).to_pylist()
        return batch.table([self._facts(row, _speech(clip)) for row, clip in zip(heard, clips, strict=True)], self.adds)

    def _facts(self, heard: dict[str, Any], speech: list[Span]) -> dict[str, Any] | None:
        text, language = heard["text"], heard["language"]
        if text is None:
            return None
        speech_s = total(speech) / MODEL_RATE_HZ
        facts = self._language_facts(text, language)
        # The ASR heard the audio; where it says nothing, the text is all there is.
        language = language or facts["text_language"]
        return (
            facts
            | _script_facts(text)
            | self._measures(text, language, speech_s)
            | self._hallucination(text, speech_s)
            | {"normalised_text": normalised(text, language), "spoken_text": spoken_form(text, language)}
            | self._coverage(text, heard["words"], speech)
        )

    def _language_facts(self, text: str, language: str | None) -> dict[str, Any]:
        assert self._language_model is not None
        if letter_bytes(text) < self.config.min_letter_bytes:
            return {"text_language": None, "text_language_prob": None, "language_agrees": None}
        guess = self._language_model.guess(text)
        guessed = guess.language if guess.prob >= self.config.min_language_prob else None
        agrees = written_language(language) == written_language(guessed) if language and guessed else None
        return {"text_language": guessed, "text_language_prob": guess.prob, "language_agrees": agrees}

    def _measures(self, text: str, language: str | None, speech_s: float) -> dict[str, Any]:
        words = keys(tokens(text, language))
        has_words = language not in CHARACTER_LANGUAGES
        has_rate = speech_s >= MIN_RATE_S
        ngram = self.config.ngram if has_words else self.config.character_ngram
        return {
            "char_rate_hz": sum(map(str.isalnum, text)) / speech_s if has_rate else None,
            "word_rate_hz": len(words) / speech_s if has_rate and has_words else None,
            "num_tokens": len(words),
            "repeated_ngram_ratio": repeated_ngram_ratio(words, ngram),
            "longest_repeat": longest_repeat(words, self.config.longest_ngram),
            "compression_ratio": compression_ratio(text),
            "unique_word_ratio": unique_ratio(words),
            "longest_word_chars": max(map(len, words)) if words and has_words else None,
        }

    def _hallucination(self, text: str, speech_s: float) -> dict[str, Any]:
        match = find_hallucination(text, speech_s, self.config.hallucination_share, self.config.little_speech_s)
        if match is None:
            return {"hallucination": None, "hallucination_kind": None, "hallucination_share": 0.0}
        return {
            "hallucination": match.phrase.phrase,
            "hallucination_kind": match.phrase.kind,
            "hallucination_share": match.share,
        }

    def _coverage(self, text: str, words: list[dict[str, Any]] | None, speech: list[Span]) -> dict[str, Any]:
        if words is None and text.strip():  # there is text, and nobody knows where
            return {"uncovered_speech_s": None, "uncovered_speech_share": None}
        reach = round(self.config.tolerance_s * MODEL_RATE_HZ)
        covered = merge(Span(word["start_sample"] - reach, word["end_sample"] + reach) for word in words or ())
        uncovered = total(speech) - total(intersect(speech, covered))
        return {
            "uncovered_speech_s": uncovered / MODEL_RATE_HZ,
            "uncovered_speech_share": uncovered / total(speech) if speech else None,
        }


def _speech(clip: dict[str, Any]) -> list[Span]:
    """Where VAD heard speech, at MODEL_RATE_HZ relative to the start of the clip; flat."""
    spans = (Span(span["start_sample"], span["end_sample"]) for span in clip["speech_spans"])
    return merge(rescale(span, clip["sample_rate_hz"], MODEL_RATE_HZ) for span in spans)


def _script_facts(text: str) -> dict[str, Any]:
    counts = script_counts(text)
    most = max(counts.values(), default=0)
    return {
        "script": main_script(text, counts),
        "num_scripts": len(counts),
        "minor_script_share": 1.0 - most / counts.total() if most else None,
    }
