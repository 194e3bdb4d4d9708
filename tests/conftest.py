"""What every test folder shares: thread counts and the material beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before any test imports numpy or torch: their pools read these once. Telemetry stays off (DESIGN section 5).
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OTEL_SDK_DISABLED"] = "true"
os.environ["PYANNOTE_METRICS_ENABLED"] = "0"

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the checkout (testdata, speech); skips where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("test material is not here: no folder `shared` beside the checkout")
    return folder
