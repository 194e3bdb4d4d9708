"""When audio counts as silent: too quiet to ask a network about."""

from __future__ import annotations

import numpy as np

from manifests.contracts import Audio

SILENT_PEAK = 1e-4  # -80 dBFS


def is_silent(audio_S: Audio) -> bool:
    """No sample of ``[S]`` reaches -80 dBFS. Networks hear words and voices in digital silence with confidence 1."""
    return float(np.abs(audio_S).max(initial=0.0)) < SILENT_PEAK
