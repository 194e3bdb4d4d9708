"""What every test folder shares: thread counts, the material beside the checkout, the one Ray cluster."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Address of the one local cluster of this session: two CPUs, a temporary folder of its own."""
    import ray

    # Ray puts sockets below the folder; their paths may have 107 characters, so it must be short.
    folder = tempfile.mkdtemp(prefix="sw", dir="/tmp")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _temp_dir=folder,
        object_store_memory=256 << 20,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    yield str(ray.get_runtime_context().gcs_address)
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
