"""fsck: every kind of fault that the layout allows is found by its name, and none that is not there; repair mends them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pyarrow as pa
import pytest

from manifests.commits import Commit, ObjectFact, list_commits, read_commit
from manifests.compacted import read_compaction
from manifests.corpus import Corpus
from manifests.errors import RequestError, WorkError
from manifests.ids import digest_bytes
from manifests.snapshots import INGEST, Snapshot, latest_snapshot_number, read_snapshot
from manifests.store import Store, json_bytes, table_bytes
from manifests.tars import TarWriter, index_bytes, parse_index, read_member
from pipeline.build import build
from pipeline.compact import compact
from pipeline.faults import REMEDIES
from pipeline.fsck import check
from pipeline.garbage import collect
from pipeline.repair import repair

REFUSAL = {"input_id": bytes(16), "uri": "u", "stage": "s", "reason": "r", "message": "m", "outcome": "refused"}
RECIPE = {"units": {"max_inputs": 1}, "clip_set": {"turns": None, "max_s": 2.0}}  # several clips a unit


class Damage:
    """A corpus to be damaged; ``commit`` and ``table`` are those of its first unit with clips."""

    def __init__(self, uri: str) -> None:
        self.store, self.uri = Store(uri), uri
        corpus = Corpus.open(uri)
        self.snapshot = corpus.snapshot
        self.unit = next(view.unit_id for view in corpus.views() if view.clips().num_rows > 1)

    def commit(self, kind: str) -> Commit:
        """The unit's commit of the first output of that kind, or of the named layer."""
        output = next(o for o in self.snapshot.outputs if o.split("/")[0] == kind or o.endswith(f"/{kind}"))
        found = read_commit(self.store, output, self.snapshot.current[output], self.unit)
        assert found is not None
        return found

    def write_commit(self, commit: Commit) -> None:
        self.store.replace(commit.path, json_bytes(asdict(commit)))

    def put(self, commit: Commit, **objects: bytes) -> None:
        """Give a commit's roles other bytes, as a writer with a fault would have committed them."""
        facts = dict(commit.objects)
        for role, data in objects.items():
            path = facts[role].path
            self.store.replace(path, data)
            facts[role] = ObjectFact(path, len(data), digest_bytes(data).hex(), facts[role].num_rows)
        self.write_commit(replace(commit, objects=facts))

    def put_rows(self, kind: str, role: str, change) -> None:
        """Change the rows of a table (a list of dicts) and commit what comes of it."""
        commit = self.commit(kind)
        table = self.store.read_table(commit.objects[role].path)
        rows = change(table.to_pylist())
        fact = replace(commit.objects[role], num_rows=len(rows))
        made = pa.Table.from_pylist(rows, schema=table.schema)
        self.put(replace(commit, objects={**commit.objects, role: fact}), **{role: table_bytes(made)})

    def put_tar(self, change) -> None:
        """Change the (name, data) members of the unit's tar and commit tar and index."""
        commit = self.commit(INGEST)
        tar = commit.objects["audio"].path
        members = parse_index(self.store.read(f"{tar}.idx"))
        writer = TarWriter()
        for name, data in change([(m.name, read_member(self.store, tar, m)) for m in members]):
            writer.add(name, data)
        data, index = writer.close()
        self.put(commit, audio=data, audio_index=index)

    def flip(self, path: str, at: int | None = None) -> None:
        data = bytearray(self.store.read(path))
        data[len(data) // 2 if at is None else at] ^= 1
        self.store.replace(path, bytes(data))

    def cut(self, path: str) -> None:
        data = self.store.read(path)
        self.store.replace(path, data[: len(data) * 2 // 3])

    def put_snapshot(self, **changed: object) -> None:
        snapshot = replace(self.snapshot, **changed)
        self.store.replace(Snapshot.path(snapshot.number), json_bytes(snapshot.to_json()))

    def put_json(self, path: str, change) -> None:
        row = json.loads(self.store.read(path))
        change(row)
        self.store.replace(path, json_bytes(row))


def first(rows, **changed):
    return [{**rows[0], **changed}, *rows[1:]]


def duplicate_unit(d):
    for (output, mark), units in list_commits(d.store).items():
        if d.unit in units:
            commit = read_commit(d.store, output, mark, d.unit)
            d.write_commit(replace(commit, unit="000099-deadbeef"))


def stale_index(d):
    path = f"{d.commit(INGEST).objects['audio'].path}.idx"
    d.store.replace(path, index_bytes([m._replace(name=f"x{m.name}") for m in parse_index(d.store.read(path))]))


def index_of_another_tar(d):
    commit = d.commit(INGEST)
    members = parse_index(d.store.read(commit.objects["audio_index"].path))
    d.put(commit, audio_index=index_bytes([m._replace(num_bytes=m.num_bytes - 1) for m in members]))


def checkpoint(d):
    commit = d.commit("layers")
    d.store.write(f"checkpoints/{commit.output}/{commit.fingerprint}/{commit.unit}/0-1.parquet", b"")


def another_unit(d, commit):
    return next(u for u in d.snapshot.units if u != commit.unit)


def unknown(rows):
    return first(rows, recording_id=bytes(16))


def reversed_piece(members):
    (name, data), *others = members
    return [(name, data[:21] + bytes([data[21] ^ 1]) + data[22:]), *others]  # in the number of samples


FAULTS = {
    # Audio.
    "truncated tar": (lambda d: d.cut(d.commit(INGEST).objects["audio"].path), {"object_size"}),
    "flipped byte in a tar": (lambda d: d.flip(d.commit(INGEST).objects["audio"].path), {"object_digest"}),
    "flipped byte in a tar's header": (lambda d: d.flip(d.commit(INGEST).objects["audio"].path, 3), {"object_digest"}),
    "missing tar": (lambda d: d.store.remove(d.commit(INGEST).objects["audio"].path), {"object_missing"}),
    "missing index": (lambda d: d.store.remove(d.commit(INGEST).objects["audio_index"].path), {"index_missing"}),
    "stale index": (stale_index, {"index_wrong"}),
    "truncated index": (lambda d: d.cut(d.commit(INGEST).objects["audio_index"].path), {"index_wrong"}),
    "index of another tar, committed": (index_of_another_tar, {"tar_member"}),
    "piece missing": (lambda d: d.put_tar(lambda members: members[:-1]), {"piece_missing"}),
    "piece of a recording that is not there": (
        lambda d: d.put_tar(lambda members: [*members, ("0" * 32 + ".0.0.flac", members[0][1])]),
        {"piece_unknown"},
    ),
    "piece of another length": (lambda d: d.put_tar(reversed_piece), {"piece_wrong"}),
    "piece that is no audio": (lambda d: d.put_tar(lambda m: [(m[0][0], b"RIFF" + m[0][1][4:]), *m[1:]]), {"piece_wrong"}),
    # Tables.
    "missing layer part": (lambda d: d.store.remove(d.commit("signal").objects["layer"].path), {"object_missing"}),
    "missing clip part": (lambda d: d.store.remove(d.commit("clips").objects["clips"].path), {"object_missing"}),
    "flipped byte in a table": (lambda d: d.flip(d.commit("clips").objects["clips"].path), {"object_digest"}),
    "flipped byte in recordings": (lambda d: d.flip(d.commit(INGEST).objects["recordings"].path), {"object_digest"}),
    "truncated table": (lambda d: d.cut(d.commit("spans").objects["spans"].path), {"object_size"}),
    "no Parquet, committed": (lambda d: d.put(d.commit("style"), layer=b"PAR1 and nothing else PAR1"), {"table_unreadable"}),
    "another schema, committed": (
        lambda d: d.put(d.commit("spans"), spans=table_bytes(pa.table({"start": [1]}))),
        {"table_schema"},
    ),
    "a layer without its keys": (
        lambda d: d.put(
            d.commit("style"), layer=table_bytes(d.store.read_table(d.commit("style").objects["layer"].path).drop(["status"]))
        ),
        {"table_schema"},
    ),
    "layer rows in another order": (lambda d: d.put_rows("signal", "layer", lambda rows: rows[::-1]), {"layer_misaligned"}),
    "layer with a row too few": (lambda d: d.put_rows("prosody", "layer", lambda rows: rows[:-1]), {"layer_misaligned"}),
    "status of its own": (lambda d: d.put_rows("style", "layer", lambda rows: first(rows, status="fine")), {"layer_status"}),
    "span outside": (lambda d: d.put_rows("spans", "spans", lambda rows: first(rows, end_sample=1 << 40)), {"span_outside"}),
    "span of no length": (
        lambda d: d.put_rows("spans", "spans", lambda rows: first(rows, end_sample=rows[0]["start_sample"])),
        {"span_outside"},
    ),
    "clip of an unknown recording": (lambda d: d.put_rows("clips", "clips", unknown), {"recording_unknown"}),
    "clip of another place": (
        lambda d: d.put_rows("clips", "clips", lambda rows: first(rows, start_sample=rows[0]["start_sample"] + 1)),
        {"clip_id_wrong"},
    ),
    "clip twice": (lambda d: d.put_rows("clips", "clips", lambda rows: [rows[0], *rows]), {"row_twice", "layer_misaligned"}),
    "input of an unknown recording": (
        lambda d: d.put_rows(INGEST, "inputs", unknown),
        {"input_recording_unknown", "recording_without_input", "holdings_wrong"},
    ),
    "inputs that are not the plan's": (
        lambda d: d.put_rows(INGEST, "inputs", lambda rows: first(rows, input_id=bytes(16))),
        {"inputs_unplanned", "holdings_wrong"},
    ),
    "refusal of an unknown input": (
        lambda d: d.put_rows(
            INGEST,
            "quarantine",
            lambda rows: [REFUSAL],
        ),
        {"quarantine_input_unknown"},
    ),
    # Commits.
    "half-written commit": (lambda d: d.cut(d.commit("clips").path), {"commit_unreadable"}),
    "half-written commit of ingest": (lambda d: d.cut(d.commit(INGEST).path), {"commit_unreadable"}),
    "empty commit": (lambda d: d.store.replace(d.commit("style").path, b""), {"commit_unreadable"}),
    "flipped byte in a commit": (
        lambda d: d.put_json(d.commit("style").path, lambda row: row["objects"]["layer"].update(digest="0" * 32)),
        {"object_digest"},
    ),
    "commit that names a wrong size": (
        lambda d: d.put_json(d.commit("style").path, lambda row: row["objects"]["layer"].update(num_bytes=7)),
        {"object_size"},
    ),
    "commit that names wrong rows": (
        lambda d: d.put_json(d.commit("style").path, lambda row: row["objects"]["layer"].update(num_rows=7)),
        {"table_rows"},
    ),
    "commit of another unit": (
        lambda d: d.put_json(d.commit("style").path, lambda row: row.update(unit=another_unit(d, d.commit("style")))),
        {"commit_misplaced"},
    ),
    "commit without its table": (
        lambda d: d.put_json(d.commit("spans").path, lambda row: row["objects"].pop("failures")),
        {"commit_incomplete"},
    ),
    "commit gone that others read": (
        lambda d: d.store.remove(d.commit("spans").path),
        {"commit_reads_missing", "snapshot_names_missing_commit", "orphan"},
    ),
    "duplicate unit": (duplicate_unit, {"commit_unknown_unit"}),
    # Snapshots and plans.
    "flipped byte in a snapshot": (lambda d: d.flip(Snapshot.path(0), 0), {"snapshot_unreadable"}),
    "half a snapshot": (lambda d: d.cut(Snapshot.path(0)), {"snapshot_unreadable"}),
    "snapshot naming a missing commit": (
        lambda d: d.store.remove(d.commit("style").path),
        {"snapshot_names_missing_commit", "orphan"},
    ),
    "a snapshot's number left out": (
        lambda d: d.store.write(Snapshot.path(2), json_bytes(replace(d.snapshot, number=2).to_json())),
        {"snapshot_gap"},
    ),
    "snapshot that shadows what is not twice": (
        lambda d: d.put_snapshot(shadowed={d.unit: ["00" * 16]}),
        {"snapshot_owners"},
    ),
    "missing holdings": (lambda d: d.store.remove(d.snapshot.holdings[0]), {"holdings_wrong"}),
    "flipped byte in holdings": (lambda d: d.flip(d.snapshot.holdings[0], 100), {"holdings_wrong"}),
    "flipped byte in a plan": (lambda d: d.flip("plans/000000.json", 0), {"plan_unreadable"}),
    "a plan's input changed": (
        lambda d: d.put_json("plans/000000.json", lambda row: row["units"][0]["inputs"][0].update(num_bytes=1)),
        {"plan_wrong"},
    ),
    "a unit in two plans": (lambda d: d.store.write("plans/000001.json", d.store.read("plans/000000.json")), {"unit_twice"}),
    # What nothing names.
    "orphan table": (lambda d: d.store.write("layers/x/y/f/000000-0-dead.parquet", b"PAR1"), {"orphan"}),
    "orphan tar": (lambda d: d.store.write("audio/000000-0-dead.tar", b""), {"orphan"}),
    "orphan holdings": (lambda d: d.store.write("holdings/dead.parquet", b""), {"orphan"}),
    "draft of a commit": (lambda d: d.store.write("commits/ingest/f/u.json.ab12.draft", b"{"), {"draft"}),
    "probe of a killed build": (lambda d: d.store.write(".probe-ab12", b"1"), {"draft"}),
    "checkpoint of a unit that is done": (checkpoint, {"checkpoint"}),
}


def in_part(role):
    return lambda d: next(
        part.path for path in _compactions(d) for part in read_compaction(d.store, path).parts if part.role == role
    )


def _compactions(d):
    return [path for made in d.snapshot.compacted.values() for path in made.values()]


def swap_row_groups(d):
    path = next(path for output, made in d.snapshot.compacted.items() for path in made.values() if output == INGEST)

    def swap(row):
        part = next(part for part in row["parts"] if part["role"] == "quarantine")
        part["row_groups"] = part["row_groups"][1:] + part["row_groups"][:1]

    d.put_json(path, swap)


COMPACTED_FAULTS = {
    "flipped byte in a part": (lambda d: d.flip(in_part("layer")(d)), {"part_digest"}),
    "truncated part": (lambda d: d.cut(in_part("clips")(d)), {"part_size"}),
    "missing part of recordings": (lambda d: d.store.remove(in_part("recordings")(d)), {"part_missing"}),
    "row groups of other units": (swap_row_groups, {"part_rows"}),
    "half a compaction": (lambda d: d.cut(d.snapshot.compacted[INGEST][d.snapshot.current[INGEST]]), {"compaction_unreadable"}),
    "missing compaction": (
        lambda d: d.store.remove(d.snapshot.compacted[INGEST][d.snapshot.current[INGEST]]),
        {"compaction_unreadable"},
    ),
    "unreadable snapshot over parts": (lambda d: d.cut(Snapshot.path(d.snapshot.number)), {"snapshot_unreadable"}),
    "no snapshot over parts": (lambda d: d.store.remove(Snapshot.path(d.snapshot.number)), {"snapshot_missing"}),
    "orphan part": (lambda d: d.store.write("compacted/ingest/f/dead.parquet", b""), {"orphan"}),
}


@pytest.fixture(scope="module")
def clean(recordings, light, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("clean") / "corpus")
    build([str(recordings)], out, light(**RECIPE))
    return out


@pytest.fixture(scope="module")
def clean_compacted(clean, tmp_path_factory):
    out = shutil.copytree(clean, str(tmp_path_factory.mktemp("compacted") / "corpus"))
    compact(out, grace_s=0)
    return out


def codes(uri, **options):
    return {fault.code for fault in check(uri, **{"grace_s": 0, **options}).faults}


@pytest.mark.parametrize("fast", [False, True])
def test_a_clean_corpus_has_no_faults(clean, clean_compacted, fast):
    for uri in (clean, clean_compacted):
        found = check(uri, fast=fast, grace_s=0)
        assert not found.faults, [fault.line() for fault in found.faults]
        assert found.num_units == 5
        assert found.audio_s == pytest.approx(
            sum(r["num_samples"] / r["sample_rate_hz"] for r in Corpus.open(uri).recordings().to_pylist())
        )


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_by_its_name_and_none_is_invented(name, clean, tmp_path):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    inject, expected = FAULTS[name]
    inject(Damage(uri))
    assert codes(uri) == expected


@pytest.mark.parametrize("name", COMPACTED_FAULTS)
def test_faults_of_compacted_parts_are_found_too(name, clean_compacted, tmp_path):
    uri = shutil.copytree(clean_compacted, str(tmp_path / "corpus"))
    inject, expected = COMPACTED_FAULTS[name]
    inject(Damage(uri))
    assert codes(uri) == expected


def test_no_code_is_without_a_fault_that_shows_it():
    shown = {code for _, expected in [*FAULTS.values(), *COMPACTED_FAULTS.values()] for code in expected}
    assert set(REMEDIES) - shown == {"head_unreadable", "unit_unplanned", "decision_unreadable", "decision_object"}  # elsewhere


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


@pytest.mark.parametrize("kind", ["corpus.json", "snapshots", "compacted", "commits"])
@pytest.mark.parametrize("damage", [b'{"units": [', b"[]", b"{}"])
def test_who_meets_damage_is_told_to_run_fsck(kind, damage, clean_compacted, tmp_path):
    uri = shutil.copytree(clean_compacted, str(tmp_path / "corpus"))
    store = Store(uri)
    for path in [kind] if kind == "corpus.json" else store.objects(kind):
        if path.endswith(".json"):
            store.replace(path, damage)
    before = store.details()
    with pytest.raises(WorkError, match=rf"'{kind}.* cannot be read .*; run `stepwell corpus fsck"):
        Corpus.open(uri).audio() if kind == "commits" else Corpus.open(uri).clips()
    if kind != "corpus.json":
        with pytest.raises(WorkError, match="run `stepwell corpus fsck"):
            collect(store, 0)
    assert store.details() == before


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
def test_nothing_is_invented_beside_a_build_and_a_compaction(recordings, light, tmp_path):
    uri, files = str(tmp_path / "corpus"), sorted(str(path) for path in recordings.iterdir())
    build(files[:1], uri, light(**RECIPE))
    is_done, found = threading.Event(), []

    def inspect():
        while not is_done.is_set():
            found.append(check(uri, grace_s=3600))

    thread = threading.Thread(target=inspect)
    thread.start()
    try:
        for count in range(2, len(files) + 1):
            build(files[:count], uri, light(**RECIPE))
            compact(uri, grace_s=3600)
    finally:
        is_done.set()
        thread.join()
    assert len(found) > 3
    assert [fault.line() for findings in found for fault in findings.faults] == []


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


@pytest.mark.slow
def test_the_command_names_faults_and_says_so_in_its_exit_code(clean, tmp_path):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))

    def fsck(*options):
        command = [sys.executable, "-m", "stepwell", "corpus", "fsck", uri, "--grace-hours", "0", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert fsck().returncode == 0
    Damage(uri).store.write("audio/000000-0-dead.tar", b"")
    found = fsck("--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["faults"][0]["code"] == "orphan"
    mended = fsck("--repair")
    assert mended.returncode == 0, mended.stderr
    assert "1 objects removed" in mended.stdout
    assert fsck("--fast").stdout.splitlines()[-1] == "no faults"
