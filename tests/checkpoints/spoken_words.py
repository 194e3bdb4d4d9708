"""Phrases of a dozen words, six English and six German, said by eSpeak voices, with the time of every word.

Voices, rates and pitches are drawn from a seed. HELD_OUT_SPEAKERS are for tests: no training phrase is said by them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotators.espeak_voice import EspeakConfig
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio, SpokenWord

WORDS = {
    "en": ("red", "seven", "window", "paper", "yellow", "orange"),
    "de": ("grün", "fünf", "schule", "wasser", "katze", "morgen"),
}
VOICES = {"en": "en-us", "de": "de"}
# Men and women by their names; and others, without whom what is learnt is these eleven voices.
SEXED_SPEAKERS = ("m1", "m2", "m3", "m4", "m5", "m6", "m8", "f1", "f2", "f4", "f5")
OTHER_SPEAKERS = (
    *("adam", "Alex", "Alicia", "Andrea", "Andy", "anika", "Annie", "antonio", "belinda", "benjamin", "boris", "caleb", "david"),
    *("edward", "Gene", "Henrique", "Hugo", "ian", "Jacky", "john", "Lee", "linda", "Marco", "Mario", "max", "Michael", "miguel"),
    *("norbert", "pablo", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis", "victor", "zac"),
)
SPEAKERS = (*SEXED_SPEAKERS, *SEXED_SPEAKERS, *OTHER_SPEAKERS)
HELD_OUT_SPEAKERS = ("m7", "f3")
MAX_WORDS = 5
PAUSE_SHARE = 0.25  # of the gaps between words: a comma, so a pause of about 0.15 s


@dataclass(frozen=True)
class Phrase:
    """One to MAX_WORDS different words of one language by one speaker."""

    text: str
    language: str
    speaker: str  # variant of eSpeak
    audio: Audio  # float32 [S] at MODEL_RATE_HZ
    words: tuple[SpokenWord, ...]  # at MODEL_RATE_HZ

    @property
    def sex(self) -> str:
        """Of the speakers m1 to m8 and f1 to f5."""
        return "female" if self.speaker.startswith("f") else "male"


def phrases(count: int, seed: int, speakers: Sequence[str] = SPEAKERS) -> list[Phrase]:
    """So many phrases, languages in turn; the same for the same seed."""
    draw = random.Random(seed)
    return [_phrase(("en", "de")[number % 2], draw.choice(speakers), draw) for number in range(count)]


def _phrase(language: str, speaker: str, draw: random.Random) -> Phrase:
    words = draw.sample(WORDS[language], draw.randint(1, MAX_WORDS))
    spoken = " ".join(f"{word}," if draw.random() < PAUSE_SHARE else word for word in words).rstrip(",")
    voice = EspeakConfig(
        voice=VOICES[language],
        variant=speaker,
        rate_wpm=draw.randint(120, 210),
        pitch=draw.randint(35, 65),
        range=draw.randint(30, 70),
    )
    speech = voice.build().synthesise(spoken)
    lead = np.zeros(draw.randint(0, MODEL_RATE_HZ // 2), np.float32)
    audio_S = np.concatenate([lead, resample(speech.audio, speech.sample_rate_hz, MODEL_RATE_HZ)])
    hiss = np.random.default_rng(draw.getrandbits(32)).standard_normal(len(audio_S)) * 10 ** draw.uniform(-4.0, -2.5)
    step = MODEL_RATE_HZ / speech.sample_rate_hz
    times = tuple(
        SpokenWord(word.word, len(lead) + round(word.start_sample * step), len(lead) + round(word.end_sample * step))
        for word in speech.words or ()
    )
    assert [word.word for word in times] == words, (times, words)
    loudness = np.float32(10 ** draw.uniform(-1.0, 0.0))
    return Phrase(" ".join(words), language, speaker, (audio_S * loudness + hiss).astype(np.float32), times)
