"""fsck --repair: what is broken is done again by the next build, nothing else is, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from manifests.commits import list_commits
from manifests.compacted import read_compaction
from manifests.corpus import Corpus
from manifests.errors import RequestError, WorkError
from manifests.snapshots import INGEST, latest_snapshot_number, read_snapshot
from manifests.store import Store
from pipeline.build import build
from pipeline.compact import compact
from pipeline.fsck import check
from pipeline.repair import repair
from tests.pipeline.damage import COMPACTED_FAULTS, FAULTS, RECIPE, Damage, codes, in_part

# Its inputs are planned as another unit, and the one that they were is superseded: in a test of its own, below.
OF_ITS_OWN = "a plan's input changed"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in [*FAULTS, *COMPACTED_FAULTS] if name != OF_ITS_OWN])
def test_repair_and_a_build_give_the_clean_corpus_back(
    name, clean, clean_compacted, tmp_path, recordings, light, assert_equal_corpora
):
    source, faults = (clean, FAULTS) if name in FAULTS else (clean_compacted, COMPACTED_FAULTS)
    uri = shutil.copytree(source, str(tmp_path / "corpus"))
    damage = Damage(uri)
    faults[name][0](damage)
    before = {(*key, unit) for key, units in list_commits(damage.store).items() for unit in units}
    done = repair(check(uri, grace_s=0), grace_s=0)
    assert done.num_left == 0
    left = {(*key, unit) for key, units in list_commits(damage.store).items() for unit in units}
    assert set(done.scheduled) == before - left
    assert codes(uri) <= {"unit_unplanned"}
    if name in FAULTS:
        assert {unit for _, _, unit in done.scheduled} <= {damage.unit, "000099-deadbeef"}
    result = build([str(recordings)], uri, light(**RECIPE))
    assert result.num_tasks_done == len([key for key in done.scheduled if key[2] != "000099-deadbeef"]) + (
        1 if "naming a missing" in name or "gone that others" in name else 0
    )
    assert codes(uri) == set()
    assert_equal_corpora(uri, clean)


def test_what_made_an_output_is_written_anew_where_it_was_damaged(clean, tmp_path, recordings, light):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    damage = Damage(uri)
    output, before = damage.commit("prosody").output, Corpus.open(uri).part(damage.commit("prosody").output)
    damage.cut(damage.facts("prosody"))
    with pytest.raises(WorkError, match="run `stepwell corpus fsck"):
        Corpus.open(uri).part(output)
    done = repair(check(uri, grace_s=0), grace_s=0)
    assert (done.num_to_restate, done.scheduled, done.num_left) == (1, [], 0)
    assert Corpus.open(uri).part(output) is None
    assert build([str(recordings)], uri, light(**RECIPE)).num_tasks_done == 0
    assert Corpus.open(uri).part(output) == before
    assert before.models


def test_only_what_is_broken_and_what_reads_it_is_done_again(clean, tmp_path):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    damage = Damage(uri)
    damage.put_rows("prosody", "layer", lambda rows: rows[::-1])
    done = repair(check(uri, grace_s=0), grace_s=0)
    assert {(output.rsplit("/", 1)[1], unit) for output, _, unit in done.scheduled} == {
        ("prosody", damage.unit),
        ("style", damage.unit),  # it reads prosody
    }


def test_repair_respects_the_grace(clean, tmp_path):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    store = Store(uri)
    store.write("audio/000000-0-dead.tar", b"")
    assert codes(uri, grace_s=3600) == set()
    assert repair(check(uri, grace_s=3600), grace_s=3600).removed.num_objects == 0
    old_s = time.time() - 7200
    os.utime(os.path.join(uri, "audio/000000-0-dead.tar"), (old_s, old_s))
    assert codes(uri, grace_s=3600) == {"orphan"}
    assert repair(check(uri, grace_s=3600), grace_s=3600).removed.num_objects == 1
    assert codes(uri, grace_s=0) == set()


def test_the_head_of_a_corpus_needs_a_person(clean, tmp_path):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    Store(uri).replace("corpus.json", b"{")
    assert codes(uri) == {"head_unreadable"}
    assert repair(check(uri, grace_s=0), grace_s=0).num_left == 1
    with pytest.raises(RequestError, match="no corpus at"):
        check(str(tmp_path / "nowhere"))


def test_a_lost_plan_takes_no_data_with_it(clean, tmp_path, recordings, light, assert_equal_corpora):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    Store(uri).remove("plans/000000.json")
    assert codes(uri) == {"unit_unplanned"}
    done = repair(check(uri, grace_s=0), grace_s=0)
    assert (done.num_left, done.scheduled) == (5, [])
    result = build([str(recordings)], uri, light(**RECIPE))
    assert result.num_tasks_done == 0
    assert codes(uri) == set()
    assert_equal_corpora(uri, clean)


def test_a_unit_whose_plan_was_damaged_is_planned_anew(clean, tmp_path, recordings, light, rows_of):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    FAULTS[OF_ITS_OWN][0](Damage(uri))
    assert repair(check(uri, grace_s=0), grace_s=0).scheduled == []
    assert build([str(recordings)], uri, light(**RECIPE)).num_tasks_done == 6
    assert codes(uri) == {"unit_unplanned"}
    assert repair(check(uri, grace_s=0), grace_s=0).num_left == 0
    assert codes(uri) == set()
    assert {n: sorted(r, key=str) for n, r in rows_of(uri).items()} == {n: sorted(r, key=str) for n, r in rows_of(clean).items()}


def test_units_whose_plan_was_lost_go_once_others_took_their_inputs(clean, tmp_path, recordings, light, rows_of):
    uri, files = str(tmp_path / "corpus"), sorted(str(path) for path in recordings.iterdir())
    build(files[:2], uri, light(**RECIPE))
    build(files, uri, light(**RECIPE))
    Store(uri).remove("plans/000000.json")
    assert codes(uri) == {"unit_unplanned"}
    build(files, uri, light(**RECIPE))
    assert len(Corpus.open(uri).snapshot.superseded) == 2
    found = check(uri, grace_s=0)
    assert {fault.code for fault in found.faults} == {"unit_unplanned"}
    assert repair(found, grace_s=0).num_left == 0
    assert codes(uri) == set()
    assert Corpus.open(uri).snapshot.superseded == {}
    assert {n: sorted(r, key=str) for n, r in rows_of(uri).items()} == {n: sorted(r, key=str) for n, r in rows_of(clean).items()}


def test_a_damaged_table_that_a_part_replaced_breaks_nothing(clean, tmp_path, assert_equal_corpora):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    damage = Damage(uri)
    compact(uri, grace_s=3600)
    damage.flip(damage.commit("clips").objects["clips"].path)
    found = check(uri, grace_s=0)
    assert {fault.code for fault in found.faults} == {"object_digest"}
    assert repair(found, grace_s=0).scheduled == []
    assert codes(uri) == set()
    assert_equal_corpora(uri, clean)


def test_a_damaged_part_costs_nothing_while_its_tables_are_there(clean, tmp_path, assert_equal_corpora):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    compact(uri, grace_s=3600)
    damage = Damage(uri)
    damage.flip(in_part("clips")(damage))
    assert codes(uri) == {"part_digest"}
    assert repair(check(uri, grace_s=0), grace_s=0).scheduled == []
    assert codes(uri) == set()
    assert_equal_corpora(uri, clean)
    assert read_snapshot(Store(uri), latest_snapshot_number(Store(uri))).compacted.keys() == damage.snapshot.compacted.keys() - {
        output for output in damage.snapshot.compacted if output.startswith("clips/")
    }


def test_units_published_and_compacted_between_check_and_repair_stay(recordings, light, tmp_path):
    uri, files = str(tmp_path / "corpus"), sorted(str(path) for path in recordings.iterdir())
    build(files[1:3], uri, light(**RECIPE))
    damage = Damage(uri)
    damage.store.remove(damage.commit(INGEST).objects["audio"].path)
    found = check(uri, grace_s=0)
    build(files, uri, light(**RECIPE))
    compact(uri, grace_s=3600)
    published = Corpus.open(uri).snapshot
    assert {unit for _, _, unit in repair(found, grace_s=3600).scheduled} == {damage.unit}
    mended = Corpus.open(uri).snapshot
    assert mended.units == [unit for unit in published.units if unit != damage.unit]
    assert mended.current == published.current
    assert mended.compacted.keys() == published.compacted.keys()
    assert codes(uri, grace_s=3600) == set()
    build(files, uri, light(**RECIPE))
    assert Corpus.open(uri).snapshot.units == published.units
    assert codes(uri, grace_s=3600) == set()


def test_a_repair_that_was_cut_off_goes_on(
    clean, clean_compacted, tmp_path, monkeypatch, recordings, light, assert_equal_corpora
):
    uri = shutil.copytree(clean_compacted, str(tmp_path / "corpus"))
    damage = Damage(uri)
    damage.flip(in_part("clips")(damage))
    found = check(uri, grace_s=0)

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.repair._republish", cut_off)
        with pytest.raises(KeyboardInterrupt):
            repair(found, grace_s=0)
    repair(check(uri, grace_s=0), grace_s=0)
    committed = list_commits(damage.store)
    for output, made in Corpus.open(uri).snapshot.compacted.items():
        for mark, path in made.items():
            held = {unit for part in read_compaction(damage.store, path).parts for unit in part.units}
            assert held <= set(committed.get((output, mark), ()))
    build([str(recordings)], uri, light(**RECIPE))
    assert codes(uri) == set()
    assert_equal_corpora(uri, clean)


@pytest.mark.slow
def test_fsck_and_repair_on_s3(s3, recordings, light):
    uri = f"{s3.bucket()}/corpus"
    recipe = light(**RECIPE, annotators={"signal": {"kind": "signal"}})
    build([str(recordings)], uri, recipe)
    assert codes(uri) == set()
    damage = Damage(uri)
    damage.store.remove(damage.commit(INGEST).objects["audio_index"].path)
    damage.flip(damage.commit("signal").objects["layer"].path)
    assert codes(uri) == {"index_missing", "object_digest"}
    assert [unit for _, _, unit in repair(check(uri, grace_s=0), grace_s=0).scheduled] == [damage.unit]
    assert build([str(recordings)], uri, recipe).num_tasks_done == 1
    compact(uri, grace_s=0)
    assert codes(uri) == set()
