"""Stored audio: FLAC pieces of 60 s, one channel each, found through the tar's index; and the one resampler.

A recording's channel is stored as ``<recording_id hex>.<channel>.<piece>.flac``; piece ``p`` holds the samples
``[60 p rate, 60 (p + 1) rate)``. Everything else about audio (clips, what models hear) is a slice of these.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import soundfile
import soxr

from manifests.contracts import Audio
from manifests.errors import ContractError
from manifests.store import Store
from manifests.tars import Member, read_index, read_member

PIECE_S = 60
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

    ``tars`` are paths of audio tars in ``store``. The index of a tar is read once; pieces are fetched by range.
    """

    def __init__(self, store: Store, tars: Iterable[str], cached_pieces: int = 4) -> None:
        self.store = store
        self._where: dict[str, tuple[str, Member]] = {}
        for tar in tars:
            for member in read_index(store, tar):
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
