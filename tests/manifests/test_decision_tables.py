"""Decision tables: one counts when a snapshot names it, and only if nothing else was decided meanwhile."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from manifests.corpus import Corpus
from manifests.decision_tables import DecisionTable, Draft, parse_decision_table
from manifests.errors import ContractError, RequestError
from manifests.schema import ID, required
from manifests.snapshots import Snapshot, clips_output
from manifests.store import Store, json_bytes

TWINS = pa.schema([required("clip_id", ID, "clip"), required("num_twins", pa.int64(), "clips that sound like it")])
GROUPS = pa.schema([required("size", pa.int64(), "clips of the group")])


@pytest.fixture
def corpus(tiny_corpus: str, tmp_path: Path) -> Corpus:
    """A copy of it."""
    return Corpus.open(shutil.copytree(tiny_corpus, str(tmp_path / "copy")))


def draft(corpus: Corpus, num_twins: int = 0, **changes) -> Draft:
    """A table ``twins`` of every unit, not published yet."""
    clips = clips_output(corpus.clip_set)
    reads, number = {clips: corpus.fingerprint(clips)}, corpus.snapshot.number
    head = DecisionTable("twins", f"{num_twins:016x}", number, reads, {"least": 2}, shadowed=corpus.snapshot.shadowed)
    made = Draft(corpus.store, replace(head, **changes))
    for view in corpus.views():
        ids = view.clips(["clip_id"])["clip_id"]
        made.append("clips", view.unit_id, pa.table([ids, pa.repeat(num_twins, len(ids))], schema=TWINS), TWINS)
    made.put("groups", [pa.table({"size": [size]}, schema=GROUPS) for size in (3, 2)], GROUPS)
    return made


def test_what_is_published_is_read_by_role_and_by_unit(corpus):
    published = draft(corpus, 7).publish(None)
    assert published is not None
    assert published.number == corpus.snapshot.number + 1
    found = Corpus.open(corpus.store.uri)
    head = found.decision_table("twins")
    assert (head.roles, head.parameters, head.snapshot) == (["clips", "groups"], {"least": 2}, corpus.snapshot.number)
    assert found.decisions("twins")["clip_id"] == found.clips()["clip_id"]
    assert found.decisions("twins", "clips", ["num_twins"]).column_names == ["num_twins"]
    assert found.decisions("twins", "groups")["size"].to_pylist() == [3, 2]
    for view in found.views():
        assert view.decisions("twins", "clips")["clip_id"] == view.clips()["clip_id"]
    assert published.outputs == corpus.snapshot.outputs
    assert corpus.snapshot.tables == {}  # who reads by the snapshot before sees what it saw


def test_the_schema_says_what_the_columns_are(corpus):
    draft(corpus).publish(None)
    schema = Corpus.open(corpus.store.uri).decisions("twins").schema
    assert schema.field("num_twins").metadata[b"description"] == b"clips that sound like it"


def test_of_two_the_second_is_refused_and_leaves_nothing(corpus):
    first, second = draft(corpus, 1), draft(corpus, 2)
    assert first.publish(None) is not None
    there = corpus.store.objects("")
    assert second.publish(None) is None
    left = [path for path in corpus.store.objects("") if path not in there]
    assert [path for path in left if "0000000000000002" in path] == []
    assert Corpus.open(corpus.store.uri).decision_table("twins").fingerprint == f"{1:016x}"


def test_a_table_takes_the_place_of_the_one_it_was_made_from(corpus):
    before = draft(corpus, 1).publish(None)
    assert before is not None
    after = draft(Corpus.open(corpus.store.uri), 2, parent=f"{1:016x}").publish(before.tables["twins"])
    assert after is not None
    assert Corpus.open(corpus.store.uri).decision_table("twins").parent == f"{1:016x}"
    assert Corpus.open(corpus.store.uri, before.number).decision_table("twins").fingerprint == f"{1:016x}"


def test_two_tables_stand_beside_one_another(corpus):
    draft(corpus).publish(None)
    draft(corpus, name="takedowns").publish(None)
    assert sorted(Corpus.open(corpus.store.uri).snapshot.tables) == ["takedowns", "twins"]


def test_a_discarded_draft_leaves_nothing(corpus):
    made = draft(corpus)
    made.discard()
    assert corpus.store.objects("tables") == []


def test_what_was_collected_meanwhile_is_not_published(corpus):
    made = draft(corpus)
    (path,) = corpus.store.objects("tables")  # the whole tables are written at once, those of units with the head
    corpus.store.remove(path)
    with pytest.raises(FileNotFoundError, match="was collected before the table was published"):
        made.publish(None)
    assert Corpus.open(corpus.store.uri).snapshot.tables == {}


def test_a_table_with_other_columns_breaks_the_contract(corpus):
    with pytest.raises(ContractError, match="twins/clips of unit u: columns missing"):
        draft(corpus).append("clips", "u", pa.table({"clip": [1]}), TWINS)


def test_a_table_of_units_says_which_clips_its_rows_are_of(corpus):
    """By position alone nobody could leave out a clip that is taken down after the table was made."""
    with pytest.raises(ContractError, match=r"twins/sizes: columns \['size'\] lack clip_id"):
        draft(corpus).append("sizes", "u", pa.table({"size": [3]}, schema=GROUPS), GROUPS)


@pytest.mark.parametrize("change", ["shadowed", "clip set", "unit"])
def test_rows_of_other_clips_are_not_handed_out(change, corpus):
    published = draft(corpus).publish(None)
    assert published is not None
    unit = published.units[0]
    changed = {
        "shadowed": {"shadowed": {**published.shadowed, unit: ["00" * 16]}},
        "clip set": {"current": {**published.current, clips_output(corpus.clip_set): "f" * 16}},
        "unit": {"units": [*published.units, "zz"]},
    }[change]
    head = Corpus.open(corpus.store.uri).decision_table("twins")
    snapshot = replace(published, **changed)
    assert head.find("clips", "zz" if change == "unit" else unit, snapshot) is None
    assert head.find("clips", unit, published) is not None


def test_what_is_not_there_is_said(corpus):
    with pytest.raises(RequestError, match=r"has no decision table 'twins' \(tables: none\)"):
        corpus.decisions("twins")
    draft(corpus).publish(None)
    found = Corpus.open(corpus.store.uri)
    with pytest.raises(RequestError, match=r"\(tables: twins\)"):
        found.decision_table("others")
    with pytest.raises(RequestError, match="has no 'pairs'; it has clips, groups"):
        found.decisions("twins", "pairs")


def test_a_snapshot_from_before_there_were_tables_is_read(corpus):
    row = corpus.snapshot.to_json()
    del row["tables"]
    assert Snapshot.from_json(row).tables == {}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", json_bytes({"wholes": {}, "parts": [{}]})])
def test_what_is_no_head_is_told_so(data):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        parse_decision_table(data)


def test_a_remote_store_serves_as_well(s3, corpus):
    """A draft on S3: the snapshot before is all that it needs."""
    store = Store(f"{s3.bucket()}/corpus")
    store.write(Snapshot.path(0), json_bytes(replace(corpus.snapshot, number=0).to_json()))
    head = DecisionTable("twins", "f" * 16, 0, {}, {})
    made = Draft(store, head)
    made.put("groups", [pa.table({"size": [1]}, schema=GROUPS)], GROUPS)
    published = made.publish(None)
    assert published is not None
    assert (published.number, list(published.tables)) == (1, ["twins"])
    assert parse_decision_table(store.read(published.tables["twins"])).wholes["groups"].num_rows == 1
