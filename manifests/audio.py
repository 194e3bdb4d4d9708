"""Stored audio: FLAC pieces of 60 s, one channel each, found through the tar's index; and the one resampler.

A recording's channel is stored as ``<recording_id hex>.<channel>.<piece>.flac``; piece ``p`` holds the samples
``[60 p rate, 60 (p + 1) rate)``. Everything else about audio (clips, what models hear) is a slice of these.
"""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Iterable

import numpy as np
import soundfile
import soxr

from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.errors import ContractError
from manifests.store import Store
from manifests.tars import Member, read_index, read_member

PIECE_S = 60
HEARD_VERSION = "2"  # rises when HeardAudio gives other samples for the same audio: part of what spans are made from
SUBTYPES = {16: "PCM_16", 24: "PCM_24"}


def piece_name(recording_id: bytes, channel: int, piece: int) -> str:
    return f"{recording_id.hex()}.{channel}.{piece}.flac"


def encode_flac(audio: Audio, sample_rate_hz: int, bits: int = 16) -> bytes:
    """FLAC bytes of float32 or int32 ``[S]`` audio (int32: full range, as soundfile reads it)."""
    sink = io.BytesIO()
    soundfile.write(sink, audio, sample_rate_hz, format="FLAC", subtype=SUBTYPES[bits])
    return sink.getvalue()


def decode_flac(data: bytes) -> tuple[Audio, int]:
    """(float32 ``[S]``, rate in Hz)."""
    audio, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    return audio, int(rate)


def resample(audio: Audio, from_rate_hz: int, to_rate_hz: int) -> Audio:
    """Float32 ``[S * to / from, rounded]`` by soxr HQ; the same array when the rates are equal."""
    if from_rate_hz == to_rate_hz or len(audio) == 0:
        return audio
    return np.ascontiguousarray(soxr.resample(audio, from_rate_hz, to_rate_hz, quality="HQ"), dtype=np.float32)


class AudioReader:
    """Reads spans of stored recordings out of a set of audio tars; keeps the last decoded pieces.

    ``tars`` are paths of audio tars in ``store``. The index of a tar is read once; pieces are fetched by range. Of the
    recordings in ``hidden`` (hex ids) nothing is found.
    """

    def __init__(self, store: Store, tars: Iterable[str], cached_pieces: int = 4, hidden: Collection[str] = frozenset()) -> None:
        self.store = store
        self._where: dict[str, tuple[str, Member]] = {}
        for tar in tars:
            for member in read_index(store, tar):
                if member.name.partition(".")[0] not in hidden:
                    self._where.setdefault(member.name, (tar, member))
        self._cached_pieces = cached_pieces
        self._cache: dict[str, Audio] = {}

    def read(self, recording_id: bytes, channel: int, sample_rate_hz: int, start_sample: int, end_sample: int) -> Audio:
        """Float32 ``[end_sample - start_sample]`` at the stored rate. Raises ContractError when samples are missing."""
        piece_samples = PIECE_S * sample_rate_hz
        parts = []
        for piece in range(start_sample // piece_samples, max(start_sample, end_sample - 1) // piece_samples + 1):
            audio, base = self._piece(piece_name(recording_id, channel, piece)), piece * piece_samples
            parts.append(audio[max(0, start_sample - base) : end_sample - base])
        audio = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(audio) != end_sample - start_sample:
            raise ContractError(
                f"recording {recording_id.hex()} channel {channel}: samples {start_sample}..{end_sample} asked, "
                f"{len(audio)} stored; run `stepwell corpus fsck`"
            )
        return audio

    def _piece(self, name: str) -> Audio:
        if name not in self._cache:
            if name not in self._where:
                raise ContractError(f"piece {name!r} is in no audio tar of this snapshot; run `stepwell corpus fsck`")
            while len(self._cache) >= self._cached_pieces:
                self._cache.pop(next(iter(self._cache)))
            self._cache[name] = decode_flac(read_member(self.store, *self._where[name]))[0]
        return self._cache[name]


class HeardAudio:
    """A stored channel at MODEL_RATE_HZ, read and resampled when it is sliced: a day costs no more memory than a minute.

    What a slice holds does not depend on how the channel is sliced: each piece of 60 s is resampled by itself, with a
    second of its neighbours on both sides, so that the filter never meets an edge inside the recording.
    """

    def __init__(self, reader: AudioReader, recording_id: bytes, channel: int, sample_rate_hz: int, num_samples: int) -> None:
        self._reader, self._recording, self._channel = reader, recording_id, channel
        self._rate_hz, self._num_stored = sample_rate_hz, num_samples
        self._num_samples = round(num_samples * MODEL_RATE_HZ / sample_rate_hz)
        self._held: tuple[int, Audio] = (-1, np.zeros(0, np.float32))
        self.read_cpu_s = 0.0  # spent on reading and resampling so far

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, wanted: slice) -> Audio:
        """Float32 of ``[start:stop]``, step 1."""
        start, stop, step = wanted.indices(self._num_samples)
        if step != 1:
            raise ValueError(f"audio is sliced with a step of {step}; only 1 is taken")
        if start >= stop:
            return np.zeros(0, np.float32)
        size = PIECE_S * MODEL_RATE_HZ
        parts = []
        for piece in range(start // size, (stop - 1) // size + 1):
            base = piece * size
            parts.append(self._piece(piece)[max(0, start - base) : stop - base])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _piece(self, piece: int) -> Audio:
        if self._held[0] != piece:
            began = time.process_time()
            rate = self._rate_hz
            margin_s = 0 if rate == MODEL_RATE_HZ else 1
            first = max(0, (piece * PIECE_S - margin_s) * rate)
            last = min(self._num_stored, ((piece + 1) * PIECE_S + margin_s) * rate)
            audio = resample(self._reader.read(self._recording, self._channel, rate, first, last), rate, MODEL_RATE_HZ)
            skip = piece * PIECE_S * MODEL_RATE_HZ - first // rate * MODEL_RATE_HZ
            length = min(PIECE_S * MODEL_RATE_HZ, self._num_samples - piece * PIECE_S * MODEL_RATE_HZ)
            self._held = (piece, audio[skip : skip + length])
            self.read_cpu_s += time.process_time() - began
        return self._held[1]
