"""Every kind of damage that the layout of a corpus allows, and the codes by which fsck knows it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pyarrow as pa

from manifests.commits import Commit, ObjectFact, list_commits, read_commit
from manifests.compacted import read_compaction
from manifests.corpus import Corpus
from manifests.ids import digest_bytes
from manifests.parts import PartFacts
from manifests.snapshots import INGEST, Snapshot
from manifests.store import Store, json_bytes, table_bytes
from manifests.tars import TarWriter, index_bytes, parse_index, read_member
from pipeline.fsck import check

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

    def facts(self, kind: str) -> str:
        """Path of what made the output, as ``commit`` finds it."""
        commit = self.commit(kind)
        return PartFacts.path(commit.output, commit.fingerprint)

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
    # What made the outputs.
    "half the facts of a part": (lambda d: d.cut(d.facts("prosody")), {"facts_unreadable"}),
    "facts of a part that are none": (lambda d: d.store.replace(d.facts("spans"), b"[]"), {"facts_unreadable"}),
    "a model without its digest": (
        lambda d: d.put_json(d.facts("spans"), lambda row: row["models"][0].pop("digest")),
        {"facts_unreadable"},
    ),
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


def codes(uri, **options):
    return {fault.code for fault in check(uri, **{"grace_s": 0, **options}).faults}
