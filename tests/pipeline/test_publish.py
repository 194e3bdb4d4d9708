"""Publishing: what it reads, and what loses to what."""

from __future__ import annotations

import shutil

import pytest

from manifests.commits import read_commit
from manifests.corpus import Corpus
from manifests.snapshots import INGEST, Snapshot, latest_snapshot_number, publish_snapshot, read_snapshot
from manifests.store import Store
from pipeline.build import build
from pipeline.publish import assemble, publish


@pytest.fixture
def corpus(recordings, light, tmp_path):
    """A corpus of six units of which snapshot 0 has the first four; the last holds a recording of the first again."""
    folder, out = shutil.copytree(recordings, tmp_path / "in"), str(tmp_path / "corpus")
    shutil.copy(folder / "BAC009S0764W0121.wav", folder / "z.wav")
    build([str(folder)], out, light(annotators={}))
    store = Store(out)
    whole = read_snapshot(store, 0)
    store.remove(Snapshot.path(0))
    assert publish_snapshot(store, assemble(store, 0, None, whole.units[:4], whole.current, whole.clip_set, {}, {}))
    return Corpus.open(out), whole


def test_units_that_a_snapshot_holds_are_not_read_again(corpus):
    before, whole = corpus
    for unit in before.snapshot.units:
        commit = read_commit(before.store, INGEST, before.fingerprint(INGEST), unit)
        before.store.remove(commit.objects["inputs"].path)
    made = publish(before.store, whole.units, whole.current, whole.clip_set)
    assert len(made.holdings) == 2
    assert made.shadowed == whole.shadowed
    assert list(made.shadowed) == [whole.units[-1]]
    assert publish(before.store, whole.units, whole.current, whole.clip_set) == made


def test_who_loses_the_number_rebases_on_the_winner_and_leaves_nothing(corpus, monkeypatch):
    before, whole = corpus
    store = before.store
    create, raced = store.create, []

    def create_second(path, data):
        if path == Snapshot.path(1) and not raced:
            raced.append(publish(Store(store.uri), whole.units[:5], whole.current, whole.clip_set))
        return create(path, data)

    monkeypatch.setattr(store, "create", create_second)
    made = publish(store, whole.units[5:], whole.current, whole.clip_set)
    assert (raced[0].number, made.number, latest_snapshot_number(store)) == (1, 2, 2)
    assert made.units == whole.units
    assert made.shadowed == whole.shadowed
    assert set(store.objects("holdings")) - {*whole.holdings} == {*made.holdings}
    assert made.holdings[:-1] == raced[0].holdings
