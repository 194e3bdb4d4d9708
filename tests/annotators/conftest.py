"""Small checkpoints that really know something: trained once a machine, in minutes, and kept in pytest's cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained_below(pytestconfig: pytest.Config) -> Path:
    """The folder of trained checkpoints. Whoever asks for one of them is slow: the first time it is trained."""
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("transformers")
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("checkpoints")


@pytest.fixture(scope="session")
def trained_whisper(trained_below: Path) -> Path:
    """Whisper of a dozen English and German words: ``transformers`` and, for whisperx, ``ctranslate2``."""
    pytest.importorskip("whisperx")
    from tests.checkpoints.trained import trained

    return trained("whisper", trained_below)


@pytest.fixture(scope="session")
def trained_letters(trained_below: Path) -> str:
    """wav2vec2 with a CTC head over the letters of the same words: a recogniser, and an aligner."""
    from tests.checkpoints.trained import trained

    return str(trained("letters", trained_below))


@pytest.fixture(scope="session")
def trained_sexes(trained_below: Path) -> str:
    """wav2vec2 that tells ``female`` from ``male`` speakers."""
    from tests.checkpoints.trained import trained

    return str(trained("sexes", trained_below))
