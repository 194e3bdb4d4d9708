"""Identity of content: which clips hold the same samples, and which the same recording in another form.

Columns that deduplication and decontamination can compare across corpora; ``annotators.acoustic_fingerprint`` has the rule.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa

from annotators.acoustic_fingerprint import acoustic_fingerprint, num_audible
from manifests.contracts import Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.ids import digest_blocks
from manifests.lineage import fingerprint
from manifests.schema import ID, field

ADDS = pa.schema(
    [
        field(
            "pcm_hash",
            ID,
            "digest of the rate and the samples as 16-bit integers, as they are: equal whatever the container or lossless codec; "
            "null for digital silence",
        ),
        field(
            "acoustic_fingerprint",
            pa.list_(pa.uint32()),
            "Haitsma-Kalker sub-fingerprints every 24 ms, 0 where the clip is too quiet to compare; null where no frame can be",
        ),
        field("audible_frames", pa.int32(), "frames of the fingerprint that can be compared"),
    ]
)


class ContentConfig(AnnotatorConfigBase):
    """Identity of content. Nothing can be set: columns can be compared across corpora only where all are made alike."""

    kind: Literal["content"] = "content"

    def build(self) -> Content:
        return Content(self)


class Content:
    """Annotator: exact hash and acoustic fingerprint of a clip; abstains on digital silence and on no samples."""

    name = "content"
    version = "1"
    hears = Hearing.NATIVE
    reads: tuple[str, ...] = ()
    adds = ADDS
    batch_tolerance = 0.0
    models: tuple[ModelFact, ...] = ()
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: ContentConfig) -> None:
        self.config = config

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity())

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        rows = [_row(audio, rate) for audio, rate in zip(batch.audio, batch.sample_rates_hz, strict=True)]
        return batch.table(rows, self.adds)


def _row(audio_S: Audio, sample_rate_hz: int) -> dict[str, Any] | None:
    samples_S = sixteen_bit_samples(audio_S)
    if not samples_S.any():
        return None
    values_F = acoustic_fingerprint(audio_S, sample_rate_hz)
    audible = num_audible(values_F)
    return {
        "pcm_hash": digest_blocks([f"{sample_rate_hz}:".encode(), samples_S.tobytes()]),
        "acoustic_fingerprint": values_F.tolist() if audible else None,
        "audible_frames": audible,
    }


def sixteen_bit_samples(audio_S: Audio) -> np.ndarray:
    """Little-endian int16 ``[S]``: exactly what a 16-bit file held, and deeper audio rounded to it."""
    return np.clip(np.rint(audio_S.astype(np.float64) * 32768.0), -32768, 32767).astype("<i2")
