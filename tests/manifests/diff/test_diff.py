"""Snapshots, corpora and packs against each other: what differs, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from manifests.cli import app
from manifests.commits import Attempt
from manifests.contracts import ModelFact
from manifests.corpus import Corpus
from manifests.diff.diff import diff, open_side
from manifests.diff.rows import SideBySide
from manifests.errors import RequestError
from manifests.parts import PartFacts
from manifests.snapshots import layer_output, publish_snapshot
from manifests.store import Store, json_bytes
from pipeline.compact import compact
from tests.manifests.conftest import recording_bytes

ASR = layer_output("turns", "asr")


@pytest.fixture
def corpus(tiny_corpus: str, tmp_path: Path) -> Corpus:
    """A copy of it."""
    return Corpus.open(shutil.copytree(tiny_corpus, str(tmp_path / "copy")))


def published(corpus: Corpus, **changed: object) -> Corpus:
    """The corpus with another snapshot."""
    assert publish_snapshot(corpus.store, replace(corpus.snapshot, number=corpus.snapshot.number + 1, **changed))
    return Corpus.open(corpus.store.uri)


def relabelled(corpus: Corpus, units: list[str], heard: Callable[[str], str]) -> Corpus:
    """With an ASR layer of another fingerprint."""
    snapshot, mark = corpus.snapshot, "f" * 16
    for unit in units:
        rows = corpus.tables.read(ASR, snapshot.current[ASR], unit, "layer")
        texts = pa.array([heard(text) for text in rows["text"].to_pylist()])
        attempt = Attempt(corpus.store, ASR, mark, unit)
        attempt.put_table(
            "layer", "layers/other", rows.set_column(rows.column_names.index("text"), rows.schema.field("text"), texts)
        )
        assert attempt.commit()
    old = snapshot.current[ASR]
    PartFacts("whisper", "1", (ModelFact("small", "r1", None, "MIT"),), {}).write(corpus.store, ASR, old)
    PartFacts("whisper", "2", (ModelFact("large", "r2", None, "MIT"),), {}).write(corpus.store, ASR, mark)
    outputs = {**snapshot.outputs, ASR: {**snapshot.outputs[ASR], mark: units}}
    return published(corpus, outputs=outputs, current={**snapshot.current, ASR: mark})


def test_a_new_layer_is_compared_side_by_side_and_explained(corpus, monkeypatch):
    now = relabelled(corpus, ["u0", "u1"], lambda text: text.replace("jello", "hello"))
    read = []
    monkeypatch.setattr(
        SideBySide, "read", lambda self, part, columns, read_=SideBySide.read: read.append(part) or read_(self, part, columns)
    )
    found = diff(corpus, now)
    assert read
    assert found["columns"] == [{"column": "asr.text", "num_rows": 2, "hours": pytest.approx(5 / 3600)}]
    assert (found["changed"]["num_rows"], found["added"]["num_rows"], found["removed"]["num_rows"]) == (2, 0, 0)
    assert found["num_unchanged"] == 4
    assert found["reasons"] == [
        f"{ASR}: {corpus.snapshot.current[ASR]}, then {'f' * 16}: version 1, then 2; models small@r1, then large@r2"
    ]


def test_a_layer_that_is_done_of_more_units_has_changed_there(corpus):
    half = {ASR: {corpus.snapshot.current[ASR]: ["u0"]}}
    before = published(corpus, outputs={**corpus.snapshot.outputs, **half})
    found = diff(before, corpus)
    assert {row["column"]: row["num_rows"] for row in found["columns"]} == {"asr.status": 2, "asr.text": 2, "asr.confidence": 2}
    assert f"{ASR}: done of 1 units, then of 2" in found["reasons"]


def test_units_that_come_and_go_are_rows_that_come_and_go(corpus):
    short = {output: {mark: ["u0"] for mark in made} for output, made in corpus.snapshot.outputs.items()}
    first = published(corpus, units=["u0"], outputs=short, shadowed={})
    found = diff(first, corpus)
    assert found["added"] == {"num_rows": 2, "hours": pytest.approx(2.5 / 3600)}
    assert {
        "column": "clip.language",
        "kind": "added",
        "from": None,
        "to": "zh",
        "num_rows": 2,
        "hours": pytest.approx(2.5 / 3600),
    } in found["moved"]
    assert "units: 1 only in B, 0 only in A" in found["reasons"]
    assert diff(corpus, first)["removed"] == found["added"]
    inputs = diff(first, corpus, "inputs")
    assert (inputs["added"], inputs["num_unchanged"]) == ({"num_rows": 3, "hours": None}, 2)
    assert diff(first, corpus, "recordings")["added"]["num_rows"] == 1


def test_what_was_taken_down_is_gone_and_said_to_be(corpus):
    now = published(corpus, taken_recordings={"u0": [recording_bytes("talk").hex()]})
    found = diff(corpus, now)
    assert found["removed"]["num_rows"] == 3
    assert found["num_unchanged"] == 3
    assert "taken down: 1 recordings more, 0 fewer" in found["reasons"]


def test_a_compaction_changes_nothing(corpus):
    assert compact(corpus.store.uri, grace_s=0).num_parts
    found = diff(corpus, Corpus.open(corpus.store.uri))
    assert [found[kind]["num_rows"] for kind in ("added", "removed", "changed")] == [0, 0, 0]
    assert (found["num_unchanged"], found["reasons"]) == (6, [])


def test_two_corpora_are_matched_by_clip(corpus, tiny_corpus):
    now = relabelled(corpus, ["u0", "u1"], lambda text: text.upper())
    found = diff(Corpus.open(tiny_corpus), now)
    assert [row["column"] for row in found["columns"]] == ["asr.text"]
    assert found["changed"]["num_rows"] == 6
    assert diff(Corpus.open(tiny_corpus), now, columns=["signal.snr_db"])["changed"]["num_rows"] == 0


def test_packs_differ_by_document_recipe_and_funnel(tiny_pack, tmp_path):
    other = Store(shutil.copytree(tiny_pack, str(tmp_path / "other")))
    head = json.loads(other.read("pack.json"))
    head |= {"pack_id": "p1", "recipe": {"filters": [{"column": "signal.snr_db", "min": 5.0}]}}
    head["funnel"][1] |= {"num": 5, "hours": 0.005}
    other.replace("pack.json", json_bytes(head))
    first = Store(tiny_pack)
    first.replace(
        "pack.json",
        json_bytes({**json.loads(first.read("pack.json")), "recipe": {"filters": [{"column": "signal.snr_db", "min": 3.0}]}}),
    )
    found = diff(open_side(tiny_pack), open_side(other.uri))
    assert found["num_unchanged"] == 2
    assert found["reasons"] == ["recipe.filters.0.min: 3.0, then 5.0"]
    assert found["funnel"] == [
        {"step": "dropped", "reason": "no_text", "num_a": 4, "hours_a": 0.004, "num_b": 5, "hours_b": 0.005}
    ]


def test_the_verb_takes_snapshots_behind_an_at(corpus):
    relabelled(corpus, ["u0", "u1"], lambda text: text.upper())
    uri = corpus.store.uri
    result = CliRunner().invoke(app, ["diff", f"{uri}@0", uri, "--columns", "asr.text,snr_db"], catch_exceptions=False)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"A  {uri} (snapshot 0): 6 rows, 21.5 s"
    assert lines[4].startswith("changed: 6 rows, 21.5 s: ")
    assert "asr.text" in result.stdout
    assert "version 1, then 2" in result.stdout
    value = json.loads(CliRunner().invoke(app, ["diff", f"{uri}@0", f"{uri}@1", "--json"]).stdout)
    assert (value["a"]["snapshot"], value["b"]["snapshot"], value["changed"]["num_rows"]) == (0, 1, 6)


def test_what_cannot_be_compared_is_refused(corpus, tiny_pack):
    with pytest.raises(RequestError, match="compare two corpora or two packs"):
        diff(corpus, open_side(tiny_pack))
    with pytest.raises(RequestError, match=r"table 'spans:vad' has no key .*; compare clips, recordings, inputs"):
        diff(corpus, corpus, "spans:vad")
    with pytest.raises(RequestError, match="'snr' is not in the clips"):
        diff(corpus, corpus, columns=["snr"])
    with pytest.raises(RequestError, match="has no snapshot 7"):
        open_side(f"{corpus.store.uri}@7")
