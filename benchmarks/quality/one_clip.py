"""One clip through one part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from annotators.integrity import IntegrityConfig
from annotators.prosody import ProsodyConfig
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch

PLAIN = {"is_interleaved": False, "bandwidth_hz": 7900.0, "source_sample_rate_hz": MODEL_RATE_HZ}  # a recording like any other


def annotated(config: Any, audio: Audio, rate: int = MODEL_RATE_HZ, layers: dict[str, pa.Table] | None = None) -> dict[str, Any]:
    """The one row of a part that hears this audio."""
    return dict(config.build().annotate(batch_of(audio, rate, layers)).to_pylist()[0])


def integrity(audio: Audio, recording: dict[str, Any] | None = None) -> dict[str, Any]:
    """The integrity row of 16 kHz audio, of a plain recording by default."""
    prosody = ProsodyConfig().build().annotate(batch_of(audio))
    layers = {"prosody": prosody, "recording": pa.Table.from_pylist([recording or PLAIN])}
    return annotated(IntegrityConfig(), audio, layers=layers)


def batch_of(audio: Audio, rate: int = MODEL_RATE_HZ, layers: dict[str, pa.Table] | None = None) -> ClipBatch:
    clips = pa.table({"clip_id": pa.array([bytes(16)], pa.binary(16))})
    return ClipBatch(clips, [np.asarray(audio, np.float32)], [rate], layers or {})
