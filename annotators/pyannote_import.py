"""How pyannote.audio is imported here: without telemetry and without talk of codecs that are not used."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_pyannote() -> Iterator[None]:
    """Import pyannote.audio, or anything that imports it (whisperx does), and load its checkpoints inside this block."""
    # Telemetry is on by default, and its exporter can crash Ray workers.
    os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
    os.environ["OTEL_SDK_DISABLED"] = "true"
    logging.getLogger("lightning.pytorch.utilities.migration.utils").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # It decodes no files here, and FFmpeg is not needed on the machine.
        warnings.filterwarnings("ignore", message=r"\s*torchcodec is not installed correctly", category=UserWarning)
        yield
