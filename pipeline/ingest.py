"""Inputs to stored recordings: decode, check, store as FLAC pieces, tell what was lost.

A bad input becomes a quarantine row; the unit still commits. Audio is stored at its own rate (at most 48 kHz) and its
own level: only amplitudes past full scale, which FLAC cannot hold, are halved until they fit, and the factor is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import soxr

from annotators.bandwidth import LongTermSpectrum
from manifests.audio import PIECE_S, encode_flac, piece_name
from manifests.errors import AudioRefused
from manifests.ids import digest_blocks, recording_id
from manifests.recipes import RecipeModel
from manifests.tars import TarWriter
from manifests.tombstones import NONE as NO_TOMBSTONES
from manifests.tombstones import Tombstones
from pipeline.decode import Decoder, Probe, open_audio
from pipeline.inputs import Input
from pipeline.opening import open_input

VERSION = "3"
READ_BYTES = 1 << 20
SPOOL_BYTES = 64 << 20  # larger files are decoded from a temporary file on disk
MAX_STORED_RATE_HZ = 48_000
SILENCE_DBFS = -120.0


class StoreConfig(RecipeModel):
    """How audio is stored: at its own rate up to 48 kHz, or all of it at 16 kHz."""

    sample_rate: Literal["native", 16000] = "native"

    def stored_rate_hz(self, source_rate_hz: int) -> int:
        return 16_000 if self.sample_rate == 16000 else min(source_rate_hz, MAX_STORED_RATE_HZ)


# Two channels whose correlation is at least this say the same thing: one of them is heard (stereo of one microphone).
SAME_CHANNEL_CORRELATION = 0.98

# Correlations that tell one signal dealt out over channels (``_Facts.is_interleaved``): on 60 clips of speech dealt out over
# eight channels they find nine in ten, over two one in two; no stereo file has the second.
MIN_ONWARD, MIN_BEYOND_OWN, MAX_UNLIKE = 0.3, 0.1, 0.1


@dataclass(frozen=True)
class Ingested:
    """What one input became: its INPUTS row, its RECORDINGS row (None when refused) and quarantine rows."""

    input_row: dict[str, Any]
    recording_row: dict[str, Any] | None
    quarantine_rows: list[dict[str, Any]]


class Stored(NamedTuple):
    """What every input of a stored recording's bytes is told: what was lost of it, and who made it by its own mark."""

    complaint: str | None
    synthesizer: str | None


def ingest(
    item: Input, config: StoreConfig, tar: TarWriter, stored: dict[bytes, Stored], tombstones: Tombstones = NO_TOMBSTONES
) -> Ingested:
    """Decode one input into ``tar`` unless its bytes are there already, or were taken down.

    ``stored`` maps the recordings that ``tar`` holds to what their files told, and grows by this one.
    Raises OSError for faults of the store (transient: the unit is tried again); a bad input never raises.
    """
    row = None
    if item.input_id in tombstones.inputs:
        return _taken_down(item, tombstones.takedown_of(item.input_id))
    if named := tombstones.naming(item.uri, item.source, item.facts.get("speaker_label")):
        return _taken_down(item, named[0])
    try:
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            # All bytes first, then the decoder: it takes a connection that breaks for the end of the audio.
            identity = recording_id(digest_blocks(_copied(item, spool)))
            if identity in tombstones.recordings or identity in tombstones.cuts:
                return _taken_down(item, tombstones.takedown_of(identity))
            if identity not in stored:
                row = _store_recording(spool, identity, config, tar)
                stored[identity] = Stored(row.pop("complaint"), row.pop("synthesizer"))
    except FileNotFoundError:
        return _refused(item, AudioRefused("gone", "listed, but gone when it was opened; list the source again"))
    except (PermissionError, IsADirectoryError) as error:
        return _refused(
            item, AudioRefused("not_readable", f"cannot be opened: {error.strerror}; mend its rights and list it again")
        )
    except AudioRefused as refusal:
        return _refused(item, refusal)
    except MemoryError:
        return poisoned(item, "out_of_memory")
    known = stored[identity]
    input_row = _input_row(item, identity, "stored" if known.complaint is None else "partial")
    # A mark in the file cannot be taken back by a manifest that says nothing.
    input_row["synthesizer"] = item.facts.get("synthesizer") or known.synthesizer
    if known.complaint is None:
        return Ingested(input_row, row, [])
    quarantine = _quarantine_row(item, "decode", "truncated", known.complaint, "partial")
    return Ingested(input_row, row, [quarantine])


def _copied(item: Input, spool: IO[bytes]) -> Iterator[bytes]:
    """The input's blocks, each written to ``spool`` as it passes."""
    with open_input(item) as file:
        while block := file.read(READ_BYTES):
            spool.write(block)
            yield block


def _store_recording(file: Any, identity: bytes, config: StoreConfig, tar: TarWriter) -> dict[str, Any]:
    """The RECORDINGS row of a decoded file, its pieces appended to ``tar`` as they come; none stay when it is refused."""
    scale, num_members = 1.0, len(tar.members)
    try:
        while True:
            file.seek(0)
            decoder = open_audio(file)
            facts = _Facts(decoder.probe)
            pieces = _Pieces(identity, decoder, config, tar)
            for block in decoder.blocks():
                facts.add(block)
                pieces.add(block * np.float32(scale))
            pieces.finish()
            # One pass is enough unless amplitudes pass full scale; a power of two keeps every bit of the mantissa.
            fitting = 1.0 if facts.peak <= 1.0 else 2.0 ** -np.ceil(np.log2(facts.peak))
            if fitting == scale:
                return _checked_row(identity, decoder, facts, pieces, scale)
            scale = float(fitting)
            tar.undo(num_members)
    except BaseException:
        tar.undo(num_members)
        raise


def _checked_row(identity: bytes, decoder: Decoder, facts: _Facts, pieces: _Pieces, scale: float) -> dict[str, Any]:
    if not facts.num_samples and decoder.error:
        raise AudioRefused("undecodable", f"header is read, but nothing decodes: {decoder.error}; fetch it again")
    if not facts.num_samples:
        raise AudioRefused("no_samples", "a valid file of 0 samples; nothing to store")
    return _recording_row(identity, decoder, facts, pieces, scale)


def _recording_row(identity: bytes, decoder: Decoder, facts: _Facts, pieces: _Pieces, scale: float) -> dict[str, Any]:
    probe = decoder.probe
    lost = (probe.declared_num_samples or 0) - facts.num_samples
    is_truncated = decoder.error is not None or lost > probe.slack_samples
    declared = "?" if probe.declared_num_samples is None else f"{probe.declared_num_samples / probe.sample_rate_hz:.3f}"
    because = f" ({decoder.error})" if decoder.error else ""
    return {
        "recording_id": identity,
        "num_samples": pieces.num_samples,
        "sample_rate_hz": pieces.rate_hz,
        "num_channels": probe.num_channels,
        "heard_channels": facts.heard_channels(),
        "source_sample_rate_hz": probe.sample_rate_hz,
        "codec": probe.codec,
        "container": probe.container,
        "stored_bits": probe.bits,
        "stored_scale": scale,
        "peak": float(facts.peak),
        "rms_dbfs": facts.rms_dbfs(),
        "bandwidth_hz": facts.spectrum.bandwidth_hz(),
        "declared_num_samples": probe.declared_num_samples,
        "is_truncated": is_truncated,
        "is_interleaved": facts.is_interleaved(),
        "synthesizer": probe.synthesizer,
        "complaint": None
        if not is_truncated
        else f"{facts.num_samples / probe.sample_rate_hz:.3f} s decoded of {declared} s declared{because}; the part is kept",
    }


class _Facts:
    """Peak, level, spectrum and likeness of channels, gathered block by block."""

    def __init__(self, probe: Probe) -> None:
        self.num_samples = 0
        self.peak = 0.0
        self.spectrum = LongTermSpectrum(probe.sample_rate_hz)
        self._gram = np.zeros((probe.num_channels, probe.num_channels))
        self._next = np.zeros(2)  # products of the last and of the first channel with the first one, a sample later

    def add(self, block: np.ndarray) -> None:
        """Raises AudioRefused on NaN or infinity: repairing would invent audio."""
        if not np.isfinite(block).all():
            count = int((~np.isfinite(block)).sum())
            raise AudioRefused("non_finite_samples", f"{count} NaN or infinite samples in one block; decode the original again")
        self.num_samples += len(block)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        wide = block.astype(np.float64)
        self._gram += wide.T @ wide
        self._next += wide[1:, 0] @ wide[:-1, [-1, 0]]
        self.spectrum.add(block)

    def rms_dbfs(self) -> float:
        power = float(np.trace(self._gram)) / max(1, self.num_samples * len(self._gram))
        return max(SILENCE_DBFS, 10.0 * float(np.log10(power))) if power > 0 else SILENCE_DBFS

    def heard_channels(self) -> list[int]:
        """Channels that are neither digital silence nor like an earlier heard one; ``[0]`` when all are silent."""
        heard: list[int] = []
        for channel, energy in enumerate(np.diag(self._gram)):
            likeness = (self._gram[channel, other] / np.sqrt(energy * self._gram[other, other]) for other in heard)
            if energy > 0 and all(abs(value) < SAME_CHANNEL_CORRELATION for value in likeness):
                heard.append(channel)
        return heard or [0]

    def is_interleaved(self) -> bool:
        """Whether the last channel runs on into the first one a sample later as each channel does into the next.

        So do the samples of one signal that a wrong header deals out over channels, and no channels of their own.
        """
        levels = np.sqrt(np.diag(self._gram))
        if len(levels) == 1 or not levels.all():
            return False
        onward, own = self._next / (levels[[-1, 0]] * levels[0])
        beside = np.diag(self._gram, 1) / (levels[:-1] * levels[1:])
        likeness = np.abs(beside - onward).max()
        return bool(onward >= MIN_ONWARD and onward - own >= MIN_BEYOND_OWN and likeness <= MAX_UNLIKE)


class _Pieces:
    """Cuts blocks into pieces of 60 s and encodes them into ``tar``, resampling where the stored rate is another."""

    def __init__(self, identity: bytes, decoder: Decoder, config: StoreConfig, tar: TarWriter) -> None:
        probe = decoder.probe
        self.rate_hz = config.stored_rate_hz(probe.sample_rate_hz)
        self.num_samples = 0
        self._tar = tar
        self._identity, self._bits = identity, probe.bits
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._piece = 0
        self._resampler = (
            None
            if self.rate_hz == probe.sample_rate_hz
            else soxr.ResampleStream(probe.sample_rate_hz, self.rate_hz, probe.num_channels, dtype="float32", quality="HQ")
        )

    def add(self, block: np.ndarray, *, last: bool = False) -> None:
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=last).reshape(-1, block.shape[1])
        self._waiting.append(block)
        self._num_waiting += len(block)
        piece_samples = PIECE_S * self.rate_hz
        while self._num_waiting >= piece_samples:
            held = np.concatenate(self._waiting)
            self._encode(held[:piece_samples])
            self._waiting, self._num_waiting = [held[piece_samples:]], self._num_waiting - piece_samples

    def finish(self) -> None:
        if not self._waiting:
            return
        if self._resampler is not None:
            self.add(np.zeros((0, self._waiting[0].shape[1]), dtype=np.float32), last=True)
        if self._num_waiting:
            self._encode(np.concatenate(self._waiting))

    def _encode(self, audio: np.ndarray) -> None:
        """One piece of every channel: rounded to the stored depth by ourselves, since libsndfile scales by 2^15 - 1."""
        full_scale = 1 << (self._bits - 1)
        whole = np.clip(np.rint(audio.astype(np.float64) * full_scale), -full_scale, full_scale - 1).astype(np.int32)
        samples = whole.astype(np.int16) if self._bits == 16 else whole << 8
        for channel, name in self._names(audio.shape[1]):
            self._tar.add(name, encode_flac(samples[:, channel], self.rate_hz, self._bits))
        self._piece += 1
        self.num_samples += len(audio)

    def _names(self, num_channels: int) -> Iterator[tuple[int, str]]:
        return ((channel, piece_name(self._identity, channel, self._piece)) for channel in range(num_channels))


def poisoned(item: Input, reason: str) -> Ingested:
    """An input that takes down whoever decodes it: crashed, timed_out, out_of_memory."""
    return _refused(item, AudioRefused(reason, f"the decoder was taken down ({reason}); fetch it again, or convert it"))


def _taken_down(item: Input, takedown: bytes) -> Ingested:
    """An input that must not come in; of what its source says of it nothing is kept. Who publishes it makes it a tombstone."""
    bare = replace(item, facts={"source": item.source})
    refusal = AudioRefused("taken_down", "it was taken down (`stepwell manifest show --table table:takedowns`)")
    made = _refused(bare, refusal)
    return replace(made, quarantine_rows=[{**row, "takedown_id": takedown} for row in made.quarantine_rows])


def _refused(item: Input, refusal: AudioRefused) -> Ingested:
    stage = {
        "no_bytes": "open",
        "gone": "open",
        "not_readable": "open",
        "broken_container": "open",
        "taken_down": "check",
        "non_finite_samples": "check",
        "no_samples": "decode",
        "undecodable": "decode",
        "crashed": "decode",
        "timed_out": "decode",
        "out_of_memory": "decode",
    }.get(refusal.reason, "probe")
    quarantine = _quarantine_row(item, stage, refusal.reason, str(refusal), "refused")
    return Ingested(_input_row(item, None, "refused"), None, [quarantine])


def _quarantine_row(item: Input, stage: str, reason: str, message: str, outcome: str) -> dict[str, Any]:
    return {
        "input_id": item.input_id, "uri": item.uri, "stage": stage, "reason": reason, "message": message, "outcome": outcome,
    }  # fmt: skip


def _input_row(item: Input, identity: bytes | None, outcome: str) -> dict[str, Any]:
    row = {
        "input_id": item.input_id,
        "uri": item.uri,
        "num_bytes": item.num_bytes,
        "version": item.version,
        "outcome": outcome,
        "recording_id": identity,
    }
    return {**row, **item.facts, "source": item.source}
