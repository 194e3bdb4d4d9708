from __future__ import annotations

import shutil

import pytest

from pipeline.build import build
from pipeline.compact import compact
from tests.pipeline.damage import RECIPE


@pytest.fixture(scope="session")
def clean(recordings, light, tmp_path_factory):
    """A corpus of five units to copy and damage."""
    out = str(tmp_path_factory.mktemp("clean") / "corpus")
    build([str(recordings)], out, light(**RECIPE))
    return out


@pytest.fixture(scope="session")
def clean_compacted(clean, tmp_path_factory):
    """The same, compacted."""
    out = shutil.copytree(clean, str(tmp_path_factory.mktemp("compacted") / "corpus"))
    compact(out, grace_s=0)
    return out
