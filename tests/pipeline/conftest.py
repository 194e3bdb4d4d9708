"""Small real recordings and small real recipes: parts that need no heavy model, on speech that ships with the wheels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import yaml

from manifests.commits import list_commits, read_commit
from manifests.corpus import Corpus
from manifests.recipes import decode_recipe
from manifests.store import Store
from pipeline.recipe import BuildRecipe
from pipeline.shipped_speech import conversation_path, utterances_folder

RECIPE = """
name: light
units: {max_inputs: 1}
segmenters: {vad: {kind: silero}}
clip_set: {turns: null}
annotators: {signal: {kind: signal}, prosody: {kind: prosody}, style: {kind: style}}
"""


@pytest.fixture(scope="session")
def light() -> Callable[..., BuildRecipe]:
    """``light(**changes)``: a recipe without diarization and ASR, with some fields replaced."""
    return lambda **changes: decode_recipe(BuildRecipe, yaml.safe_dump({**yaml.safe_load(RECIPE), **changes}), "light")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings: two utterances, ten seconds of conversation at 8 kHz, a tone; and a file that is not audio."""
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("BAC009S0764W0121.wav", "BAC009S0764W0122.wav"):
        shutil.copy(Path(utterances_folder()) / name, folder)
    audio, rate = soundfile.read(conversation_path(), dtype="float32")
    soundfile.write(folder / "conversation.wav", audio[: 20 * rate : rate // 8000][-80_000:], 8000)
    soundfile.write(folder / "tone.flac", 0.1 * np.sin(np.arange(32_000) * 0.3), 16_000)
    (folder / "broken.wav").write_bytes(b"not audio at all")
    return folder


def _tables(uri: str) -> dict[str, pa.Table]:
    """Every table of a corpus' newest snapshot."""
    corpus = Corpus.open(uri)
    found = {
        "inputs": corpus.inputs(),
        "recordings": corpus.recordings(),
        "quarantine": corpus.quarantine(),
        "clips": corpus.clips(),
    }
    segmenters = [output.removeprefix("spans/") for output in corpus.snapshot.current if output.startswith("spans/")]
    return {
        **found,
        **{name: corpus.spans(name) for name in segmenters},
        **{f"layer {name}": corpus.layer(name) for name in corpus.layers()},
    }


def _committed_bytes(uri: str) -> dict[tuple[str, str, str, str], str]:
    """(output, fingerprint, unit, role) -> digest of the committed object."""
    store = Store(uri)
    found = {}
    for (output, fingerprint), units in list_commits(store).items():
        for unit in units:
            commit = read_commit(store, output, fingerprint, unit)
            assert commit is not None
            found |= {(output, fingerprint, unit, role): fact.digest for role, fact in commit.objects.items()}
    return found


def _assert_equal(left: str, right: str) -> None:
    assert _committed_bytes(left) == _committed_bytes(right)
    ours, theirs = _tables(left), _tables(right)
    assert ours.keys() == theirs.keys()
    for name, table in ours.items():
        assert table.equals(theirs[name]), name


@pytest.fixture(scope="session")
def assert_equal_corpora() -> Callable[[str, str], None]:
    """Same commits with the same bytes, and the same rows in the same order."""
    return _assert_equal


@pytest.fixture(scope="session")
def rows_of() -> Callable[[str], dict[str, Any]]:
    """Every row of the newest snapshot's tables, by table."""
    return lambda uri: {name: table.to_pylist() for name, table in _tables(uri).items()}
