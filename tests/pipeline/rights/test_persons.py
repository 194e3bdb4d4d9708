"""Takedown of a person whom speaker linking found: spans of shared recordings, whole ones of its own, its row and its aliases."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from manifests.compacted import CompactedPart
from manifests.corpus import Corpus
from manifests.decision_rows import DecisionRows
from manifests.decision_tables import DecisionTable, Draft
from manifests.schema import CLIP_SPEAKERS, SPEAKER_ALIASES, SPEAKERS
from manifests.snapshots import clips_output
from manifests.store import Store
from pipeline.build import build
from pipeline.compact import compact
from pipeline.fsck import check
from pipeline.rights.matching import Rule
from pipeline.rights.proof import prove
from pipeline.rights.rewriting import rewrite
from pipeline.rights.takedown import take_down
from pipeline.speaker_ids import clip_speakers

RECIPE = {"clip_set": {"turns": None, "max_s": 2.0}, "units": {"max_inputs": 2}, "annotators": {"signal": {"kind": "signal"}}}
ANN, BOB, OLD_ANN = b"a" * 16, b"b" * 16, b"o" * 16
TALK = "conversation.wav"


def link(uri: str) -> None:
    """The table that speaker linking would write: Ann has the utterances and every other clip of the conversation, Bob the others."""
    corpus = Corpus.open(uri)
    clips = clips_output(corpus.clip_set)
    reads, snapshot = {clips: corpus.fingerprint(clips)}, corpus.snapshot
    draft = Draft(corpus.store, DecisionTable("speaker_id", "f" * 16, snapshot.number, reads, {}, None, snapshot.shadowed))
    talk = recording(uri, TALK)
    for view in corpus.views():
        rows = view.clips(["clip_id", "recording_id"]).to_pylist()
        ids = [(BOB if number % 2 else OLD_ANN) if row["recording_id"] == talk else ANN for number, row in enumerate(rows)]
        columns = [[row["clip_id"] for row in rows], pa.array(ids, pa.binary(16)), pa.array([0.9] * len(rows), pa.float32())]
        draft.append("clips", view.unit_id, pa.table(columns, schema=CLIP_SPEAKERS), CLIP_SPEAKERS)
    person = {name: 0 if pa.types.is_integer(SPEAKERS.field(name).type) else 0.0 for name in SPEAKERS.names[1:-1]}
    people = [{"speaker_id": who, **person, "centroid": [1.0, 2.0]} for who in (ANN, BOB)]
    draft.put("speakers", [pa.Table.from_pylist(people, schema=SPEAKERS)], SPEAKERS)
    alias = {"alias": OLD_ANN, "speaker_id": ANN, "since_snapshot": 0}
    draft.put("aliases", [pa.Table.from_pylist([alias], schema=SPEAKER_ALIASES)], SPEAKER_ALIASES)
    assert draft.publish(None) is not None


def recording(uri: str, name: str) -> bytes:
    rows = Corpus.open(uri).inputs().to_pylist()
    return next(row["recording_id"] for row in rows if row["uri"].endswith(name))


@pytest.fixture(scope="module")
def made(recordings, light, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("persons")
    names = sorted(path.name for path in recordings.glob("BAC*.wav"))
    rows = [{"uri": str(recordings / name)} for name in (*names, TALK, "tone.flac")]
    manifest, out = folder / "m.jsonl", str(folder / "corpus")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build([str(manifest)], out, light(**RECIPE))
    link(out)
    return out


@pytest.fixture
def corpus(made, tmp_path) -> str:
    return shutil.copytree(made, str(tmp_path / "corpus"))


@pytest.mark.parametrize("is_compacted", [False, True])
@pytest.mark.parametrize("asked", [ANN, OLD_ANN])
def test_a_person_goes_with_its_clips_and_the_others_keep_theirs(corpus, asked, is_compacted):
    if is_compacted:
        compact(corpus, grace_s=0)
    talk, before = recording(corpus, TALK), Corpus.open(corpus)
    clips = [row for row in before.clips().to_pylist() if row["recording_id"] == talk]
    of_bob = [row for view in before.views() for row, who in said_by(view) if who == BOB]
    done = take_down(corpus, [Rule.parse("speaker", asked.hex())], "asked to")
    assert done.num_recordings == 2  # nobody else was found in the utterances
    assert done.num_clips == before.clips().num_rows - len(of_bob)
    for _ in range(2):
        after = Corpus.open(corpus)
        assert after.clips().to_pylist() == of_bob
        assert after.recordings()["recording_id"].to_pylist().count(talk) == 1
        for role, column in (("clips", "speaker_id"), ("speakers", "speaker_id"), ("aliases", "alias")):
            rows = DecisionRows(after, "speaker_id", role)
            shown = [who for part in rows.slices for who in rows.read(part, [column])[column].to_pylist()]
            assert shown == after.decisions("speaker_id", role, [column])[column].to_pylist()
            assert set(shown) <= {BOB}
        assert [who for view in after.views() for who in clip_speakers(view)] == [BOB] * len(of_bob)
        assert after.layer("signal")["clip_id"].to_pylist() == [row["clip_id"] for row in of_bob]
        assert check(corpus, grace_s=0).faults == []
        rewrite(corpus)
    left = Corpus.open(corpus)
    assert left.decisions("speaker_id", "speakers")["speaker_id"].to_pylist() == [BOB]
    assert left.decisions("speaker_id", "aliases").num_rows == 0
    assert left.decisions("speaker_id", "clips")["clip_id"].to_pylist() == [row["clip_id"] for row in of_bob]
    for row in clips:
        sound = left.audio().read(talk, 0, row["sample_rate_hz"], row["start_sample"], row["end_sample"])
        assert np.any(sound) == (row in of_bob)
    assert prove(left, []).num_findings == 0
    parts: list[CompactedPart] = left.decision_table("speaker_id").parts
    assert {unit for part in parts for unit in part.units} == set(left.snapshot.units)
    assert Store(corpus).objects("tables/speaker_id") == sorted(
        [left.snapshot.tables["speaker_id"], *(fact.path for fact in left.decision_table("speaker_id").objects)]
    )


def test_copies_with_other_bytes_are_named_and_the_table_is_to_be_made_again(corpus):
    opened = Corpus.open(corpus)
    schema = pa.schema([pa.field("clip_id", pa.binary(16), nullable=False), pa.field("group_id", pa.binary(16))])
    first, second = (recording(corpus, f"BAC009S0764W012{n}.wav") for n in (1, 2))
    clips = [row for row in opened.clips().to_pylist() if row["recording_id"] in (first, second)]
    group = clips[0]["clip_id"]  # of what goes: the copies must not keep its name
    clips_of = clips_output(opened.clip_set)
    reads, snapshot = {clips_of: opened.fingerprint(clips_of)}, opened.snapshot
    draft = Draft(opened.store, DecisionTable("duplicates", "d" * 16, snapshot.number, reads, {}, None, snapshot.shadowed))
    for view in opened.views():
        rows = [(row["clip_id"], group if row in clips else None) for row in view.clips().to_pylist()]
        draft.append("clips", view.unit_id, pa.table(list(map(list, zip(*rows, strict=True))), schema=schema), schema)
    draft.publish(None)
    done = take_down(corpus, [Rule.parse("recording", first.hex())], "r")
    assert done.copies == sorted(row["clip_id"].hex() for row in clips if row["recording_id"] == second)
    assert any("are copies of it and stay" in line for line in done.lines())
    assert rewrite(corpus).tables == ["duplicates", "speaker_id"]
    left = Corpus.open(corpus)
    assert left.decisions("duplicates", "clips")["group_id"].null_count == left.clips().num_rows
    assert prove(left, []).num_findings == 0


def test_a_table_of_copies_that_knows_no_unit_of_today_names_none(corpus):
    opened = Corpus.open(corpus)
    schema = pa.schema([pa.field("clip_id", pa.binary(16), nullable=False), pa.field("group_id", pa.binary(16))])
    draft = Draft(opened.store, DecisionTable("duplicates", "d" * 16, opened.snapshot.number, {}, {}))
    draft.append("clips", "000099-00000000", schema.empty_table(), schema)
    draft.publish(None)
    gone = recording(corpus, "BAC009S0764W0121.wav")
    assert take_down(corpus, [Rule.parse("recording", gone.hex())], "r").copies == []


def said_by(view):
    return zip(view.clips().to_pylist(), clip_speakers(view), strict=True)
