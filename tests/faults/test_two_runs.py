"""Two workers on one unit, a worker that wakes up too late, two runs on one corpus: on disk and on S3."""

from __future__ import annotations

import threading
import time

import pytest

from manifests.commits import Attempt, read_commit
from manifests.corpus import Corpus
from manifests.store import Store
from pipeline.assembly import make_works
from pipeline.build import build
from pipeline.engines import InlineEngine
from pipeline.units import read_planned
from pipeline.watch import Watch
from pipeline.works import do


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    """``place(name)``: the URI of a new corpus."""
    if request.param == "disk":
        return lambda name: str(tmp_path / name)
    bucket = request.getfixturevalue("s3").bucket()
    return lambda name: f"{bucket}/{name}"


def test_two_workers_on_one_unit_commit_it_once(place, recordings, light, monkeypatch):
    """Both do the whole work before either commits: a barrier stands in front of the commit."""
    out = place("one")
    build([str(recordings / "tone.flac")], out, light(segmenters={"vad": {"kind": "silero"}}, annotators={}))
    recipe = light(segmenters={"vad": {"kind": "silero", "onset": 0.7}}, annotators={})
    work, unit = make_works(recipe)[1], read_planned(Store(out))[0]
    barrier, rows = threading.Barrier(2), []

    class Together(Attempt):
        def commit(self):
            barrier.wait()
            return super().commit()

    monkeypatch.setattr("pipeline.works.Attempt", Together)
    threads = [threading.Thread(target=lambda: rows.append(do(work, Store(out), unit, Watch()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(rows) == 2
    store = Store(out)
    commit = read_commit(store, work.output, work.fingerprint, unit.unit_id)
    # The loser removed what it wrote and nothing else.
    assert sorted(store.objects(f"spans/vad/{work.fingerprint}")) == [commit.objects["spans"].path]
    assert store.objects(f"failures/vad/{work.fingerprint}") == [commit.objects["failures"].path]


def test_a_zombie_that_wakes_up_after_the_commit_changes_nothing(place, recordings, light):
    out = place("zombie")
    recipe = light(annotators={})
    build([str(recordings / "conversation.wav")], out, recipe)
    store, work = Store(out), make_works(recipe)[1]
    unit = read_planned(store)[0]
    before = {path: store.read(path) for path in store.objects("")}
    # The zombie had done all its work on another machine, and only now comes to write and to commit.
    zombie = Attempt(store, work.output, work.fingerprint, unit.unit_id, dict(work.reads))
    work.run(store, unit, zombie, Watch())
    assert not zombie.commit()
    assert {path: store.read(path) for path in store.objects("")} == before
    # One that starts only now does not even begin.
    assert do(work, store, unit, Watch()) is None


def test_two_builds_at_once_make_the_corpus_of_one(place, recordings, light, tmp_path, assert_equal_corpora):
    """Same sources, same recipe, same moment: every unit is planned once and committed once."""
    alone, shared_corpus = str(tmp_path / "alone"), place("both")
    build([str(recordings)], alone, light())
    results, errors = [], []

    def run():
        try:
            results.append(build([str(recordings)], shared_corpus, light(), Slow()))
        except Exception as error:
            errors.append(error)

    class Slow(InlineEngine):
        def run(self, *arguments):
            time.sleep(0.2)  # let the other one plan
            super().run(*arguments)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert not errors
    assert [result.num_clips for result in results] == [Corpus.open(alone).clips().num_rows] * 2
    assert_equal_corpora(shared_corpus, alone)
