"""An input that crashes, hangs or eats all memory takes down neither the job nor its neighbours, and is named."""

from __future__ import annotations

import time

import pytest

from manifests.commits import commit_path
from manifests.corpus import Corpus
from manifests.errors import WorkError
from manifests.store import Store
from pipeline.assembly import make_works
from pipeline.build import build
from pipeline.engines import InlineEngine, LocalEngine
from pipeline.keeper import MAX_DEATHS
from pipeline.units import read_planned
from pipeline.watch import Watch
from pipeline.works import do

pytestmark = pytest.mark.slow  # children that hang, die and are started again: some 100 s in all

REASONS = {"crash": "crashed", "kill": "crashed", "hang": "timed_out", "eat": "out_of_memory", "raise": "ValueError"}


@pytest.mark.parametrize("how", REASONS)
def test_a_clip_that_takes_its_model_down_is_an_error_row_and_its_neighbours_are_whole(
    how, poisoned_folder, poisoned_recipe, tmp_path
):
    out = str(tmp_path / "corpus")
    result = build([str(poisoned_folder)], out, poisoned_recipe("annotator", how), LocalEngine())
    layer = Corpus.open(out).layer("heard").to_pylist()
    assert [row["status"] for row in layer] == ["ok", "ok", "ok", "error", "ok", "ok", "ok"]
    assert layer[3]["error"].startswith(REASONS[how])
    assert [row["num_heard"] for row in layer if row["status"] == "ok"] == [32_000] * 6
    again = build([str(poisoned_folder)], out, poisoned_recipe("annotator", how), LocalEngine())
    assert (again.run_id, again.snapshot) == (None, result.snapshot)


@pytest.mark.parametrize("segmenter", ["Segmenter", "ManySegmenter"])
@pytest.mark.parametrize("how", ["crash", "hang", "eat", "raise"])
def test_a_recording_that_takes_a_segmenter_down_is_a_failure_row(segmenter, how, poisoned_folder, poisoned_recipe, tmp_path):
    out = str(tmp_path / "corpus")
    build([str(poisoned_folder)], out, poisoned_recipe("segmenter", how, segmenter=segmenter), LocalEngine())
    corpus = Corpus.open(out)
    failures = corpus.failures("vad").to_pylist()
    assert [row["reason"] for row in failures] == [{**REASONS, "raise": "error"}[how]]
    assert corpus.recordings().num_rows == 7
    assert corpus.clips().num_rows == 6
    assert failures[0]["recording_id"] not in corpus.clips()["recording_id"].to_pylist()


def test_a_model_that_dies_once_costs_no_row(poisoned_folder, poisoned_recipe, tmp_path):
    recipe = poisoned_recipe("annotator", "kill", flag=str(tmp_path / "died"))
    build([str(poisoned_folder)], str(tmp_path / "corpus"), recipe, LocalEngine())
    assert (tmp_path / "died").exists()
    assert set(Corpus.open(str(tmp_path / "corpus")).layer("heard")["status"].to_pylist()) == {"ok"}


def test_what_is_found_does_not_depend_on_the_batches(poisoned_folder, poisoned_recipe, tmp_path):
    layers = []
    for batch_audio_s in (2.0, 5.0, 300.0):
        out = str(tmp_path / f"corpus-{batch_audio_s}")
        recipe = poisoned_recipe("annotator", "crash", batch_audio_s=batch_audio_s)
        build([str(poisoned_folder)], out, recipe, LocalEngine())
        layers.append(Corpus.open(out).layer("heard"))
    assert layers[0].equals(layers[1])
    assert layers[0].equals(layers[2])


def test_a_part_that_fails_everywhere_stops_the_job_and_says_why(poisoned_folder, poisoned_recipe, tmp_path):
    recipe = poisoned_recipe("annotator", "raise", limits={"min_rows": 5, "max_error_share": 0.1})
    with pytest.raises(WorkError, match=r"1 of 7 rows failed, over the error budget of 10%.*ValueError: no such sound"):
        build([str(poisoned_folder)], str(tmp_path / "corpus"), recipe, InlineEngine())


def test_a_decoder_that_dies_makes_a_quarantine_row_that_can_be_retried(poisoned_folder, poisoned_recipe, tmp_path, monkeypatch):
    """The decoder is broken from outside, as a bad libsndfile would be: in the child, by a module that Python loads first."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pipeline.ingest as ingest, os\n"
        "real = ingest.open_audio\n"
        "def fragile(file):\n"
        "    head = file.read(4000)[2000:]\n"
        "    file.seek(0)\n"
        "    if max(head[1::2], default=0) >= 127 and min(head[1::2]) <= 128:\n"
        "        os.abort() if b'\\xff\\x7f' * 20 in head else None\n"
        "    return real(file)\n"
        "ingest.open_audio = fragile\n"
    )
    out, recipe = str(tmp_path / "corpus"), poisoned_recipe("segmenter", "0")
    with monkeypatch.context() as broken:
        broken.syspath_prepend(str(tmp_path))
        result = build([str(poisoned_folder)], out, recipe, LocalEngine())
    quarantine = Corpus.open(out).quarantine().to_pylist()
    assert [(row["reason"], row["uri"].rsplit("/", 1)[1]) for row in quarantine] == [("crashed", "r3.wav")]
    assert (result.num_refused, result.num_recordings) == (1, 6)
    assert build([str(poisoned_folder)], out, recipe, LocalEngine(), retry_quarantined=["not_audio"]).run_id is None
    mended = build([str(poisoned_folder)], out, recipe, LocalEngine(), retry_quarantined=["crashed"])
    assert (mended.num_inputs, mended.num_refused, mended.num_recordings, mended.num_clips) == (7, 0, 7, 7)
    assert Corpus.open(out).quarantine().num_rows == 0
    assert len(Store(out).objects("plans")) == 2


def test_a_part_that_kills_on_everything_stops_the_job_and_says_why(poisoned_folder, poisoned_recipe, tmp_path):
    """Each poisoned clip costs a search of several processes: a unit of thousands of them would never end."""
    recipe = poisoned_recipe("annotator", "crash", limits={"max_poison": 2}, spares=False)
    with pytest.raises(WorkError, match=r"heard on unit \S+: 3 of its inputs took the process down, .* a unit may hold 2\. Mend"):
        build([str(poisoned_folder)], str(tmp_path / "corpus"), recipe, LocalEngine())


def test_a_connection_that_the_store_resets_is_tried_again_and_is_no_death(poisoned_folder, poisoned_recipe, tmp_path):
    """More often than a child may die: the last of four attempts goes well, and the corpus is whole."""
    recipe = poisoned_recipe("segmenter", "reset")
    (tmp_path / "resets").write_text("")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RESETS", str(tmp_path / "resets"))
        build([str(poisoned_folder)], str(tmp_path / "corpus"), recipe, LocalEngine())
    assert len((tmp_path / "resets").read_text()) == MAX_DEATHS
    assert Corpus.open(str(tmp_path / "corpus")).clips().num_rows == 7


def test_a_hang_is_told_from_a_crash_while_the_keeper_is_busy(poisoned_folder, poisoned_recipe, tmp_path, monkeypatch):
    """Ticks take most of the time limit, as on a slow store: what began meanwhile is heard of late."""
    monkeypatch.setattr("pipeline.ledger.RunLedger.tick", lambda *_, **__: time.sleep(0.4))
    monkeypatch.setattr("pipeline.keeper.TICK_S", 0.02)
    out = str(tmp_path / "corpus")
    build([str(poisoned_folder)], out, poisoned_recipe("annotator", "hang", limits={"timeout_s": 0.6}), LocalEngine())
    assert Corpus.open(out).layer("heard")["error"][3].as_py().startswith("timed_out")


@pytest.mark.parametrize("part", ["ingest", "spans/vad", "layers"])
def test_a_probe_writes_nothing(part, poisoned_folder, poisoned_recipe, tmp_path, monkeypatch):
    """A process that is killed while it looks for poison leaves nothing behind."""
    out, recipe = str(tmp_path / "corpus"), poisoned_recipe("annotator", "0")
    build([str(poisoned_folder)], out, recipe)
    store = Store(out)
    work = next(work for work in make_works(recipe) if work.output.startswith(part))
    unit = read_planned(store)[0]
    store.remove(commit_path(work.output, work.fingerprint, unit.unit_id))
    written = []
    monkeypatch.setattr(Store, "write", lambda _, path, data: written.append(path))
    assert do(work, store, unit, Watch(only=range(2, 4))) is None
    assert not written


def test_a_segmenter_that_fails_on_too_many_channels_stops_the_job(poisoned_folder, poisoned_recipe, tmp_path):
    """However many spans it finds elsewhere: channels are counted, not spans."""
    recipe = poisoned_recipe("segmenter", "raise", limits={"min_rows": 7, "max_error_share": 0.1})
    with pytest.raises(WorkError, match=r"spans/vad: 1 of 7 rows failed"):
        build([str(poisoned_folder)], str(tmp_path / "corpus"), recipe, InlineEngine())
