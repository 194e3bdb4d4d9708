"""A voice of eSpeak NG: formant synthesis in over a hundred languages, with the time of every word.

The library and its data come inside the wheel ``espeakng-loader``; no binary of the system is needed. The library is
GPL-3.0-or-later: it is loaded at run time, nothing of it is part of this project, and the speech it makes is its user's.

The library keeps its state in process-global variables, is not thread safe, and even after ``espeak_Terminate`` says a
text a few samples longer or shorter than before, by what it said last. So every utterance loads a copy of the library of
its own and unloads it: equal text gives equal bits, and threads do not meet. That costs about 7 ms an utterance.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from annotators.weights import packaged_model, packaged_path
from manifests.contracts import ModelFact, Resources, SpokenWord, SynthesisedSpeech
from manifests.errors import ModelUnavailable, WorkError
from manifests.lineage import fingerprint
from manifests.recipes import RecipeModel

LICENCE = "GPL-3.0-or-later"
# Of the library's C API (speak_lib.h, espeak_ng.h).
SYNCHRONOUS, PHONEME_EVENTS, DONT_EXIT = 2, 1, 1 << 15
UTF8, END_PAUSE = 1, 0x1000
LIST_END, WORD_EVENT, PHONEME_EVENT = 0, 1, 7
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4
LANGUAGES = {"cmn": "zh", "nb": "no"}  # the library's name -> ISO 639-1, where it is not the first part of the name


class EspeakConfig(RecipeModel):
    """A voice of eSpeak NG. Variants change the speaker: m1 to m8 and f1 to f5 are men and women, and there are more."""

    kind: Literal["espeak"] = "espeak"
    voice: str = Field(
        default="en-us", pattern=r"^[a-z][a-z0-9-]*$", description="language of eSpeak NG: en-us, de, es, cmn, ..."
    )
    variant: str | None = Field(
        default=None, pattern=r"^[\w ]+$", description="speaker, as a file in the data's voices/!v is named"
    )
    rate_wpm: int = Field(default=175, ge=80, le=450, description="words a minute")
    pitch: int = Field(default=50, ge=0, le=99, description="base pitch, 50 = the variant's own")
    range: int = Field(default=50, ge=0, le=99, description="how far the pitch moves, 0 = monotone")

    def build(self) -> EspeakVoice:
        return EspeakVoice(self)


class _Event(ctypes.Structure):
    """espeak_EVENT; ``id`` is a union of which only the phoneme's name is read here."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


class Event(NamedTuple):
    """One event of the library: a word begins, or a phoneme does."""

    is_word: bool
    character: int  # of the text, from 0
    sample: int
    phoneme: str


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class EspeakVoice:
    """Synthesiser: 22,050 Hz, with word times from the library's own events."""

    name = "espeak"
    version = "1"
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=256 << 20)

    def __init__(self, config: EspeakConfig) -> None:
        self.config = config
        self._library_version: str | None = None

    @property
    def language(self) -> str:
        first = self.config.voice.split("-")[0]
        return LANGUAGES.get(first, first)

    @property
    def label(self) -> str:
        self.setup()
        return f"espeak-ng {self._library_version} ({self._voice})"

    @property
    def models(self) -> tuple[ModelFact, ...]:
        library = os.path.basename(_library_path())
        return tuple(packaged_model(LICENCE, "espeakng_loader", part) for part in (library, "espeak-ng-data"))

    def fingerprint(self) -> str:
        weights = "+".join(model.digest for model in self.models)
        return fingerprint(self.name, self.version, self.config.model_dump(mode="json"), weights)

    def setup(self) -> None:
        if self._library_version is None:
            with self._library() as (library, _):
                library.espeak_Info.restype = ctypes.c_char_p
                self._library_version = library.espeak_Info(None).decode()

    def synthesise(self, text: str) -> SynthesisedSpeech:
        if not text.strip() or "\0" in text:
            raise WorkError(f"text {text!r} cannot be said: it is empty or holds a NUL character; give words")
        blocks: list[np.ndarray] = []
        events: list[Event] = []

        def receive(samples: Any, num_samples: int, raised: Any) -> int:
            if samples and num_samples > 0:
                blocks.append(np.ctypeslib.as_array(samples, (num_samples,)).copy())
            events.extend(_read(raised))
            return 0

        with self._library() as (library, rate_hz):
            callback = _CALLBACK(receive)
            library.espeak_SetSynthCallback(callback)
            spoken = text.encode() + b"\0"
            library.espeak_Synth(spoken, ctypes.c_size_t(len(spoken)), 0, 1, 0, UTF8 | END_PAUSE, None, None)
            library.espeak_Synchronize()
        if not blocks or not any(event.is_word for event in events):
            raise WorkError(f"text {text!r} has nothing that voice {self._voice!r} can say; give words of its language")
        audio_S = np.concatenate(blocks).astype(np.float32) / 32_768
        return SynthesisedSpeech(audio_S, rate_hz, _words(text, events, len(audio_S)))

    @property
    def _voice(self) -> str:
        return f"{self.config.voice}+{self.config.variant}" if self.config.variant else self.config.voice

    @contextmanager
    def _library(self) -> Iterator[tuple[ctypes.CDLL, int]]:
        """A copy of the library, as fresh as in a new process and with the voice set, and its sample rate.

        Raises ModelUnavailable where the wheel is not installed, and for voices that it does not have.
        """
        path, data = _library_path(), packaged_path("espeakng_loader", "espeak-ng-data")
        # The library takes a variant that does not exist without a word, and speaks as if none was given.
        if self.config.variant and not os.path.exists(os.path.join(data, "voices", "!v", self.config.variant)):
            known = ", ".join(sorted(os.listdir(os.path.join(data, "voices", "!v"))))
            raise ModelUnavailable(f"espeak variant {self.config.variant!r} does not exist; there are {known}")
        with tempfile.NamedTemporaryFile(suffix=os.path.splitext(path)[1]) as copy:
            shutil.copyfile(path, copy.name)
            try:
                library = ctypes.CDLL(copy.name)
            except OSError as error:
                raise ModelUnavailable(f"espeak-ng does not load: {error}; install `espeakng-loader` again") from error
            try:
                rate_hz = library.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(data), PHONEME_EVENTS | DONT_EXIT)
                if rate_hz <= 0:
                    raise ModelUnavailable(f"espeak-ng does not read its data in {data!r}; install `espeakng-loader` again")
                library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # breath and whisper are noise; the default seed is the time
                if library.espeak_SetVoiceByName(self._voice.encode()):
                    raise ModelUnavailable(f"espeak has no voice {self.config.voice!r}; give one as `en-us`, `de` or `cmn`")
                settings = {RATE: self.config.rate_wpm, VOLUME: 100, PITCH: self.config.pitch, RANGE: self.config.range}
                for parameter, value in settings.items():
                    library.espeak_SetParameter(parameter, value, 0)
                yield library, rate_hz
            finally:
                library.espeak_Terminate()
                _unload(library)


def _library_path() -> str:
    packaged_path("espeakng_loader")  # a missing package is told with its remedy
    import espeakng_loader

    return str(espeakng_loader.get_library_path())


def _unload(library: ctypes.CDLL) -> None:
    import _ctypes

    _ctypes.dlclose(library._handle)


def _read(raised: Any) -> Iterator[Event]:
    """The word and phoneme events of a list that the library hands over."""
    number = 0
    while raised[number].type != LIST_END:
        event = raised[number]
        if event.type in (WORD_EVENT, PHONEME_EVENT):
            name = event.id.decode(errors="replace") if event.type == PHONEME_EVENT else ""
            yield Event(event.type == WORD_EVENT, event.text_position - 1, event.sample, name)
        number += 1


def _words(text: str, events: list[Event], num_samples: int) -> tuple[SpokenWord, ...]:
    """Words of the text as people write them, timed by the library's events.

    A word begins where the library says so, and ends where the next one begins or a pause does. Numbers and
    contractions, which the library says as several words, are one; Chinese and Japanese words are as it cuts them.
    """
    starts: dict[int, int] = {}  # character at which a written word begins -> sample
    for event in events:
        if event.is_word:
            starts.setdefault(_beginning(text, event.character), event.sample)
    characters = sorted(starts)
    words = []
    for character, following in itertools.pairwise([*characters, len(text)]):
        word = _without_edges(text[character:following].split()[0]) if text[character:following].strip() else ""
        first = starts[character]
        stops = [event.sample for event in events if event.sample > first and _is_pause(event)]
        last = min([*stops, starts.get(following, num_samples)])
        if word and last > first:
            words.append(SpokenWord(word, first, last))
    return tuple(words)


def _beginning(text: str, character: int) -> int:
    """Where the written word around a character begins: at the character itself in scripts that have no spaces."""
    while character > 0 and not text[character - 1].isspace() and not _is_wide(text[character]):
        character -= 1
    return character


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _is_pause(event: Event) -> bool:
    """``_:`` and ``_`` are pauses; ``_|`` only keeps two sounds apart."""
    return event.phoneme.startswith("_") and event.phoneme != "_|"


def _without_edges(word: str) -> str:
    """The word without punctuation around it."""
    inner = [number for number, character in enumerate(word) if unicodedata.category(character)[0] in "LNMS"]
    return word[inner[0] : inner[-1] + 1] if inner else ""
