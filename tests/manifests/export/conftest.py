"""A pack of the tiny corpus, as ``corpus pack`` makes it, and what every format must bring out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.corpus import Corpus
from pipeline.pack import pack
from pipeline.recipe import PackRecipe


@pytest.fixture(scope="session")
def packed(tiny_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a pack of the tiny corpus in two splits."""
    out = str(tmp_path_factory.mktemp("packed") / "pack")
    recipe = PackRecipe(name="tiny", splits={"train": 0.5, "test": 0.5}, tags_from=["style"], sample_rate_hz=8000)
    assert set(pack(tiny_corpus, out, recipe).num_documents.values()) == {1, 5}
    return out


@pytest.fixture(scope="session")
def clips(tiny_corpus: str) -> dict[str, np.ndarray]:
    """Clip id (hex) -> its stored samples, int16."""
    corpus = Corpus.open(tiny_corpus)
    reader = corpus.audio()
    found = {}
    for clip in corpus.clips().to_pylist():
        place = (clip[name] for name in ("recording_id", "channel", "sample_rate_hz", "start_sample", "end_sample"))
        found[clip["clip_id"].hex()] = np.rint(reader.read(*place) * 32768).astype(np.int16)
    return found


@pytest.fixture(params=["tiny_corpus", "packed"])
def source_uri(request: pytest.FixtureRequest) -> str:
    """A corpus, then a pack: the clips are the same."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "export")
