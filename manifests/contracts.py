"""What a part must be: the protocols that engines run and tests check.

A *segmenter* hears a channel of a recording and returns spans. An *annotator* gets clips and returns columns; it never
drops or reorders rows. An *audio codec* turns audio into codes and back. A *synthesiser* turns text into speech. All are
light to construct and to pickle; ``setup`` loads the weights, once per process, and raises ModelUnavailable with the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from manifests.errors import ContractError
from manifests.schema import layer_schema
from manifests.spans import Span

MODEL_RATE_HZ = 16_000
Audio = np.ndarray  # float32 [S], one channel, 1.0 = full scale


# What an annotator may read besides layers: the clip set's own columns of the clip (CLIPS), the recording's row (RECORDINGS).
FACTS = ("clip", "recording")


class Hearing(StrEnum):
    """What audio an annotator gets with its clips."""

    NOTHING = "nothing"
    MODEL = "16 kHz"
    NATIVE = "stored rate"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one worker of a part needs; ``batch_audio_s`` bounds the audio that it gets at once.

    Parts of one ``pool`` share worker processes: models that are cheap to hold live together, a GPU model alone.
    """

    pool: str = "signal"
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int = 1 << 30
    batch_audio_s: float = 300.0


class AudioSlices(Protocol):
    """Audio that is read when it is sliced; a NumPy array is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, wanted: slice, /) -> Audio: ...


@dataclass(frozen=True)
class ChannelAudio:
    """One channel of a recording as the models hear it.

    A recording may last a day: take slices of ``audio`` and let them go. ``audio[:]`` holds all of it.
    """

    recording_id: bytes
    channel: int
    audio: AudioSlices  # [S] at MODEL_RATE_HZ


@dataclass(frozen=True)
class HeardSpan:
    """A span at MODEL_RATE_HZ, relative to the start of the recording, as a segmenter returns it."""

    span: Span
    speaker_label: str | None = None
    speech_prob: float | None = None


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one unit in row order: the rows, what the annotator hears of each, and the layers that it reads."""

    clips: pa.Table  # CLIPS
    audio: Sequence[Audio] = ()  # [num_clips], empty when the annotator hears nothing
    sample_rates_hz: Sequence[int] = ()  # [num_clips]
    # Name -> rows of the same clips, of each that the annotator reads; ``recording`` holds RECORDINGS rows.
    layers: Mapping[str, pa.Table] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.clips.num_rows)

    def slice(self, start: int, length: int) -> ClipBatch:
        """The rows ``[start, start + length)`` with their audio and layers."""
        stop = start + length
        return ClipBatch(
            self.clips.slice(start, length),
            self.audio[start:stop],
            self.sample_rates_hz[start:stop],
            {name: table.slice(start, length) for name, table in self.layers.items()},
        )

    def table(self, rows: Sequence[Mapping[str, Any] | None], adds: pa.Schema) -> pa.Table:
        """The layer rows for a batch: values as given, ``None`` where the annotator abstains on the whole row."""
        if len(rows) != len(self):
            raise ContractError(f"annotator returned {len(rows)} rows for {len(self)} clips; return one a clip, in order")
        ids = self.clips.column("clip_id").to_pylist()
        filled = [
            {"clip_id": clip, "status": "abstained" if row is None else "ok", "error": None, **(row or {})}
            for clip, row in zip(ids, rows, strict=True)
        ]
        return pa.Table.from_pylist(filled, schema=layer_schema(adds))


@dataclass(frozen=True)
class ModelFact:
    """Weights that a part runs: what an auditor must know of them."""

    name: str  # hub id, folder, or package
    revision: str | None  # commit of a hub id, version of a package; None for a folder
    digest: str  # hex, over the files
    licence: str | None  # SPDX id or the model card's word; None where nobody says


@runtime_checkable
class Part(Protocol):
    """What segmenters, annotators, codecs and synthesisers share."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str:
        """Rises when the part's own code changes what it returns; part of the fingerprint."""
        ...

    @property
    def resources(self) -> Resources: ...
    @property
    def models(self) -> tuple[ModelFact, ...]:
        """The weights that it runs, none where it computes without; kept beside its output. Raises as ``fingerprint`` does."""
        ...

    def fingerprint(self) -> str:
        """``lineage.fingerprint`` of the part, without what it reads (the engine adds that).

        It is asked before any audio is read: raises ModelUnavailable where weights are missing, damaged, or of a kind
        that the part cannot run.
        """
        ...

    def setup(self) -> None:
        """Load the weights. Idempotent. Raises ModelUnavailable."""
        ...


@runtime_checkable
class Segmenter(Part, Protocol):
    """Spans over one channel of a recording."""

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        """Spans sorted by start, each within ``[0, S]``; turns of different labels may overlap. Empty audio: no spans."""
        ...


@runtime_checkable
class ManyChannelSegmenter(Segmenter, Protocol):
    """A segmenter that hears many channels at once."""

    def segment_many(self, channels: Sequence[ChannelAudio]) -> list[list[HeardSpan]]:
        """What ``segment`` returns of each channel, to the bit, in order.

        May raise on a channel that it cannot handle: the engine then runs the channels one by one. A group holds at most
        ``resources.batch_audio_s`` of audio, or one channel.
        """
        ...


@runtime_checkable
class Annotator(Part, Protocol):
    """Columns about clips."""

    @property
    def hears(self) -> Hearing: ...
    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the layers that it gets in ``ClipBatch.layers``, and of FACTS.

        Whoever reads ``clip`` depends on what the clip set's segmenters heard inside the clip (speech_spans,
        overlap_spans, speaker_label): its rows belong to that clip set and are not carried over to another. An annotator
        that does not may use the edges of ``ClipBatch.clips`` alone.
        """
        ...

    @property
    def adds(self) -> pa.Schema: ...
    @property
    def batch_tolerance(self) -> float:
        """How far a floating value of a clip may move with what else is in its batch, absolute; 0.0: not by a bit.

        Other values do not move, short of a tie that such a difference decides.
        """
        ...

    def annotate(self, batch: ClipBatch) -> pa.Table:
        """``layer_schema(adds)`` rows, one a clip, in order.

        May raise on a clip that it cannot handle: the engine then runs the clips one by one and writes an error row
        for the one that fails. Values must not depend on what else is in the batch beyond ``batch_tolerance``.
        """
        ...


@runtime_checkable
class FittedAnnotator(Annotator, Protocol):
    """An annotator whose weights were fitted on layers: another layer of the same name would mean something else to it."""

    @property
    def fitted_on(self) -> Mapping[str, str]:
        """Layer that it reads -> fingerprint of the one that it was fitted on; a build with another one is refused."""
        ...


@runtime_checkable
class AudioCodec(Part, Protocol):
    """Audio to codes and back."""

    @property
    def frame_rate_hz(self) -> float: ...
    @property
    def num_codes(self) -> int: ...
    @property
    def sample_rate_hz(self) -> int:
        """Rate of the audio that ``encode`` takes and ``decode`` returns."""
        ...

    def expected_frames(self, num_samples: int) -> int:
        """Codes for that many samples: every encoded item satisfies ``len(codes) == expected_frames(S)``."""
        ...

    def encode(self, audio: Sequence[Audio]) -> list[np.ndarray]:
        """Codes of each item, uint16 ``[frames]``; items do not influence each other."""
        ...

    def decode(self, codes: np.ndarray) -> Audio:
        """Audio float32 ``[S]`` for uint16 codes ``[frames]``."""
        ...


@dataclass(frozen=True)
class SpokenWord:
    """One word of synthesised speech; samples at the speech's own rate, relative to its start."""

    word: str
    start_sample: int
    end_sample: int  # one past the last


@dataclass(frozen=True)
class SynthesisedSpeech:
    """What a synthesiser said."""

    audio: Audio  # float32 [S]
    sample_rate_hz: int
    words: tuple[SpokenWord, ...] | None  # in order; None where the synthesiser does not know its word times


@runtime_checkable
class Synthesiser(Part, Protocol):
    """One voice: text to speech. What it says is synthetic, and is marked so wherever it goes (INPUTS.synthesizer)."""

    @property
    def language(self) -> str:
        """ISO 639-1 of what it speaks."""
        ...

    @property
    def label(self) -> str:
        """Engine, version and voice in one line, e.g. ``espeak-ng 1.52.0 (en-us+f3)``; known after ``setup``."""
        ...

    def synthesise(self, text: str) -> SynthesisedSpeech:
        """The text as speech: the same bits for the same text, whatever was said before. Raises WorkError on text it cannot say."""
        ...


def check_codes(codes: np.ndarray, num_samples: int, codec: AudioCodec) -> np.ndarray:
    """The codes, if they have the length and range that the codec states.

    Raises ContractError: a codec that loses frames silently (s3tokenizer near 52 s and 78 s) must not pass.
    """
    expected = codec.expected_frames(num_samples)
    if len(codes) != expected:
        raise ContractError(
            f"codec {codec.name!r}: {len(codes)} codes for {num_samples} samples; it states {expected} at "
            f"{codec.frame_rate_hz} frames a second. Cut the audio shorter or mend the codec"
        )
    if len(codes) and int(codes.max()) >= codec.num_codes:
        raise ContractError(f"codec {codec.name!r}: code {int(codes.max())}; codes must be below {codec.num_codes}")
    return codes
