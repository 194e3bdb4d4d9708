"""What an export writes: a row a clip of a corpus or a document of a pack, with its licence, and where rows come from.

Every format writes the same facts (FACTS) and the columns that the caller chose besides; null is what nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from manifests.audio import encode_flac
from manifests.contracts import Audio
from manifests.schema import field as column
from manifests.schema import required

WORD = pa.struct(
    [
        column("word", pa.string(), "the word as recognised"),
        column("start_s", pa.float64(), "first second, relative to the start of the clip"),
        column("end_s", pa.float64(), "last second, relative to the start of the clip"),
        column("confidence", pa.float32(), "the recogniser's posterior of the word, 0 to 1; null where it gives none"),
    ]
)
FACTS = pa.schema(
    [
        required("id", pa.string(), "clip id (hex), or the key of a document that is no clip"),
        column("text", pa.string(), "transcript or plain text"),
        column("text_source", pa.string(), "source (came with the input) or the name of the layer that guessed it"),
        column("words", pa.list_(WORD), "words that have a time, of the layer that gave the text"),
        column("language", pa.string(), "ISO 639-1"),
        column("speaker", pa.string(), "speaker, as far as the corpus or pack tells speakers apart"),
        column("source", pa.string(), "unit of licence and consent that the recording belongs to"),
        column("licence", pa.string(), "SPDX id or text that came with the source; null where nobody states one"),
        column(
            "consent", pa.string(), "of those who speak: granted | not_needed | unknown; null where nobody said; never withheld"
        ),
        column("attribution", pa.string(), "whom to name, and how, as the source says"),
        column("synthesizer", pa.string(), "what made the speech; null = not known to be synthetic"),
        column("recording_id", pa.string(), "recording (hex) that the clip is a span of"),
        column("channel", pa.int16(), "channel of the recording"),
        column("start_s", pa.float64(), "first second of the clip, relative to the start of the recording"),
        column("duration_s", pa.float64(), "seconds of audio"),
        column("num_samples", pa.int64(), "samples of the exported audio"),
        column("sample_rate_hz", pa.int32(), "rate of the exported audio"),
    ]
)
WORD_RATE_HZ = 16_000  # that layers count words in


@dataclass(frozen=True)
class ExportRow:
    """One row on its way out: the schema's columns, and the audio where there is some.

    ``members`` are those of a pack's document as they stand in its shard (suffix -> data); of a clip of a corpus, none.
    """

    facts: dict[str, Any]
    flac: bytes | None
    members: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What is written, and done again after an interruption, as a whole."""

    number: int
    split: str
    place: Any  # what the reader knows it by


class RowReader(Protocol):
    """A corpus or a pack as rows, part by part; in memory is one row's audio and the facts of a part. Threads may share one."""

    @property
    def identity(self) -> dict[str, Any]:
        """JSON that changes whenever the rows may."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """FACTS, then the chosen columns."""
        ...

    def parts(self) -> Sequence[Part]:
        """In order; their numbers count from 0."""
        ...

    def rows(self, part: Part, *, with_audio: bool) -> Iterator[ExportRow]: ...


def words_in_seconds(words: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """A layer's words, which count samples at WORD_RATE_HZ, as WORD rows."""
    if words is None:
        return None
    return [
        {
            "word": word["word"],
            "start_s": word["start_sample"] / WORD_RATE_HZ,
            "end_s": word["end_sample"] / WORD_RATE_HZ,
            "confidence": word.get("confidence"),
        }
        for word in words
    ]


def exact_flac(audio: Audio, sample_rate_hz: int, bits: int) -> bytes:
    """FLAC of float32 [S] audio that was decoded from ``bits`` a sample: the same samples again.

    Not the floats themselves: libsndfile scales those by 2^15 - 1, and decodes by 2^15.
    """
    full = 1 << (bits - 1)
    whole = np.clip(np.rint(audio.astype(np.float64) * full), -full, full - 1).astype(np.int32)
    return encode_flac(whole << (32 - bits), sample_rate_hz, bits)
