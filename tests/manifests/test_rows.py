"""Rows slice by slice say what the whole tables say, each fact joined to the right clip."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from manifests.corpus import Corpus
from manifests.decision_tables import DecisionTable, Draft
from manifests.errors import RequestError
from manifests.open_rows import all_rows, corpus_rows, open_rows, table_names
from manifests.pack_rows import PackRows
from manifests.packs import Pack
from manifests.rows import Rows, resolve
from manifests.schema import CLIP_SPEAKERS, DOCUMENTS, SPEAKER_ALIASES
from manifests.snapshots import clips_output, publish_snapshot
from pipeline.compact import compact
from tests.manifests.conftest import recording_bytes


@pytest.fixture
def corpus(tiny_corpus: str, tmp_path: Path) -> Corpus:
    """A copy of it."""
    return Corpus.open(shutil.copytree(tiny_corpus, str(tmp_path / "copy")))


def whole(rows: Rows, *columns: str) -> pa.Table:
    names = list(columns or rows.schema.names)
    return pa.concat_tables([rows.read(part, names) for part in rows.slices])


def republished(corpus: Corpus, **changed: object) -> Corpus:
    """The corpus with another snapshot."""
    assert publish_snapshot(corpus.store, replace(corpus.snapshot, number=corpus.snapshot.number + 1, **changed))
    return Corpus.open(corpus.store.uri)


def check_against_tables(corpus: Corpus) -> None:
    table = whole(corpus_rows(corpus))
    assert table.schema.equals(corpus_rows(corpus).schema)
    clips = corpus.clips()
    for name in clips.column_names:
        assert table[f"clip.{name}"].to_pylist() == clips[name].to_pylist()
    for layer in corpus.layers():
        rows = corpus.layer(layer)
        for name in set(rows.column_names) - {"clip_id"}:
            assert table[f"{layer}.{name}"].to_pylist() == rows[name].to_pylist()
    recordings = {row["recording_id"]: row for row in corpus.recordings().to_pylist()}
    for row in table.to_pylist():
        of_recording = {name.partition(".")[2]: value for name, value in row.items() if name.startswith("recording.")}
        assert of_recording.items() <= recordings[row["clip.recording_id"]].items()


def test_every_column_is_that_of_the_whole_tables(corpus):
    check_against_tables(corpus)


def test_so_it_is_after_a_compaction(corpus):
    before = whole(corpus_rows(corpus))
    assert compact(corpus.store.uri, grace_s=0).num_parts
    compacted = Corpus.open(corpus.store.uri)
    check_against_tables(compacted)
    assert whole(corpus_rows(compacted)) == before


def test_facts_of_inputs_go_to_the_clips_of_their_recording(corpus):
    table = whole(corpus_rows(corpus), "clip.recording_id", "input.text", "input.language", "input.uri", "clip.unit")
    told = {row["clip.recording_id"]: row for row in table.to_pylist()}
    note, other, talk = (told[recording_bytes(name)] for name in ("note", "other", "talk"))
    assert (note["input.text"], note["input.language"]) == ("Well, hello", "en")
    assert note["input.uri"].endswith("/note.wav")  # the first of its two inputs in plan order
    assert note["clip.unit"] == talk["clip.unit"] == "u0"
    assert (other["input.language"], other["clip.unit"]) == ("zh", "u1")


def test_what_another_unit_alone_knows_counts_too(corpus):
    # u1 owns the note now, and u0, whose input comes first, holds a copy of it.
    moved = republished(corpus, shadowed={"u0": [recording_bytes("note").hex()]})
    table = whole(corpus_rows(moved), "clip.recording_id", "input.uri", "clip.unit")
    note = next(row for row in table.to_pylist() if row["clip.recording_id"] == recording_bytes("note"))
    assert (note["clip.unit"], note["input.uri"].rpartition("/")[2]) == ("u1", "note.wav")
    assert table.num_rows == 6


def test_a_layer_that_lacks_a_unit_has_nulls_there(corpus):
    name = "layers/turns/asr"
    outputs = {**corpus.snapshot.outputs, name: {corpus.fingerprint(name): ["u0"]}}
    table = whole(corpus_rows(republished(corpus, outputs=outputs)), "clip.unit", "asr.status", "asr.text").to_pylist()
    assert {(row["clip.unit"], row["asr.status"]) for row in table} == {("u0", "ok"), ("u1", None)}
    assert all((row["asr.text"] is None) == (row["clip.unit"] == "u1") for row in table)


def test_derived_columns(corpus):
    row = whole(corpus_rows(corpus), "clip.duration_s", "clip.speech_share", "clip.overlap_share", "clip.longest_pause_s").slice(
        0, 1
    )
    assert row.to_pylist() == [
        {"clip.duration_s": 3.0, "clip.speech_share": 1.0, "clip.overlap_share": 0.0, "clip.longest_pause_s": 0.0}
    ]


FIRST, SECOND = b"1" * 16, b"2" * 16


@pytest.fixture
def linked(corpus):
    """The corpus with the decision table ``speaker_id``, in which FIRST has been SECOND."""
    clips = clips_output(corpus.clip_set)
    head = DecisionTable("speaker_id", "f" * 16, 0, {clips: corpus.fingerprint(clips)}, {}, shadowed=corpus.snapshot.shadowed)
    draft = Draft(corpus.store, head)
    for view in corpus.views():
        ids = view.clips(["clip_id"])["clip_id"]
        people = [FIRST, SECOND, *[None] * len(ids)][: len(ids)]
        columns = [ids.combine_chunks(), pa.array(people, pa.binary(16)), pa.nulls(len(ids), pa.float32())]
        draft.append("clips", view.unit_id, pa.table(columns, schema=CLIP_SPEAKERS), CLIP_SPEAKERS)
    alias = [{"alias": SECOND, "speaker_id": FIRST, "since_snapshot": 0}]
    draft.put("aliases", [pa.Table.from_pylist(alias, SPEAKER_ALIASES)], SPEAKER_ALIASES)
    assert draft.publish(None)
    return Corpus.open(corpus.store.uri)


def test_a_speaker_is_the_person_that_counts_now(linked):
    rows, now = corpus_rows(linked), FIRST.hex()
    assert whole(rows, "clip.speaker")["clip.speaker"].to_pylist() == [now, now, None, None, now, now]
    assert whole(rows, "speaker_id.speaker_id")["speaker_id.speaker_id"].to_pylist()[1] == SECOND


def test_every_table_is_opened_by_the_name_it_is_listed_by(linked):
    names = table_names(linked)
    assert {"clips", "inputs", "spans:vad", "failures:vad", "table:speaker_id/clips", "table:speaker_id/aliases"} <= {*names}
    for name in names:
        rows = open_rows(linked.store.uri, name)
        assert rows.table == name
        assert whole(rows).schema.names == rows.schema.names
    assert open_rows(linked.store.uri, "table:speaker_id").table == "table:speaker_id/clips"
    assert {*all_rows(linked.store.uri)} >= {"clips", "spans_vad", "speaker_id_clips", "speaker_id_aliases"}


@pytest.mark.parametrize("table", ["recordings", "inputs", "quarantine", "spans:vad"])
def test_other_tables(corpus, table):
    rows = corpus_rows(corpus, table)
    kind, _, name = table.partition(":")
    expected = corpus.spans(name) if name else getattr(corpus, kind)()
    assert whole(rows) == expected
    assert whole(rows, expected.column_names[0]).num_columns == 1


def test_rows_travel_to_other_processes(corpus, tiny_pack):
    for rows in (corpus_rows(corpus), corpus_rows(corpus, "inputs"), open_rows(tiny_pack)):
        assert whole(pickle.loads(pickle.dumps(rows))) == whole(rows)


def test_documents_of_a_pack(tiny_pack):
    rows = open_rows(tiny_pack)
    table = whole(rows)
    assert table.select(DOCUMENTS.names) == Pack.open(tiny_pack).documents("train")
    assert table["text"].to_pylist() == ["hello", "hello"]
    assert table["num_turns"].to_pylist() == [1, 1]
    assert table["split"].to_pylist() == ["train", "train"]
    assert table["duration_s"].to_pylist() == [0.1, None]
    with pytest.raises(RequestError, match=r"no split 'test'; it has \['train'\]"):
        PackRows(Pack.open(tiny_pack), "test")


def test_no_columns_still_count(corpus, tiny_pack):
    for rows, expected in ((corpus_rows(corpus), 6), (corpus_rows(corpus, "inputs"), 5), (open_rows(tiny_pack), 2)):
        assert sum(rows.read(part, []).num_rows for part in rows.slices) == expected


def test_a_corpus_without_units(corpus):
    empty = republished(corpus, units=[], outputs={}, shadowed={})
    assert list(corpus_rows(empty).slices) == []


@pytest.mark.parametrize(
    ("name", "full"),
    [("snr_db", "signal.snr_db"), ("language", "clip.language"), ("licence", "input.licence"), ("asr.text", "asr.text")],
)
def test_a_bare_name_means_one_column(corpus, name, full):
    assert resolve(corpus_rows(corpus), name) == full


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("status", r"could be asr\.status, dnsmos\.status, signal\.status, style\.status; write which"),
        ("snr", r"column 'snr' is not in the clips of '.*'; did you mean snr_db"),
        ("zzzzzz", r"it has clip\.clip_id, "),
    ],
)
def test_an_unknown_column_is_refused(corpus, name, said):
    with pytest.raises(RequestError, match=said):
        resolve(corpus_rows(corpus), name)


def test_an_unknown_table_is_refused(corpus):
    with pytest.raises(RequestError, match="table 'clip' is not one of clips, recordings, inputs, quarantine, spans:diarization"):
        corpus_rows(corpus, "clip")
    with pytest.raises(RequestError, match="table 'spans:none' is not one of"):
        corpus_rows(corpus, "spans:none")
