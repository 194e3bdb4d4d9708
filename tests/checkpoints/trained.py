"""The trained checkpoints by name, trained once a machine: what they follow from is in the name of their folder."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from manifests.ids import digest_json
from tests.checkpoints.wav2vec2 import train_letters, train_sexes
from tests.checkpoints.whisper import train_whisper

TRAINERS: dict[str, Callable[[Path], None]] = {"whisper": train_whisper, "letters": train_letters, "sexes": train_sexes}
PACKAGES = ("ctranslate2", "espeakng-loader", "numpy", "soxr", "torch", "transformers")
SOURCES = Path(__file__).parent


def trained(name: str, below: Path) -> Path:
    """The folder of a checkpoint below ``below``, where it is trained unless it is there already."""
    folder = below / f"{name}-{_identity()}"
    with FileLock(below / f"{folder.name}.lock"):  # two test runs at once: the second waits for what the first trains
        if not folder.exists():
            making = Path(tempfile.mkdtemp(dir=below))
            try:
                TRAINERS[name](making)
                os.replace(making, folder)  # whole or not at all: a training that is stopped leaves nothing that is found
            except BaseException:
                shutil.rmtree(making)
                raise
    return folder


def _identity() -> str:
    """Digest of the code that trains, the voices that speak, and the libraries that compute."""
    import annotators.espeak_voice

    sources = [*sorted(SOURCES.glob("*.py")), Path(annotators.espeak_voice.__file__)]
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return digest_json([versions, *(path.read_text() for path in sources)])[:12]
