"""Back from an example to its sources and what made it, forwards from a recording or a source to packs and checkpoints."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manifests.cli import app
from manifests.contracts import ModelFact
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.packs import FORMAT_VERSION, Pack, TakenDocuments, write_taken
from manifests.parts import PartFacts
from manifests.provenance import lineage, packs_below
from manifests.schema import DOCUMENTS, table_of
from manifests.snapshots import publish_snapshot
from manifests.store import Store, json_bytes, table_bytes
from tests.manifests.conftest import recording_bytes

TALK, NOTE = (recording_bytes(name).hex() for name in ("talk", "note"))
ASR = "layers/turns/asr"


@pytest.fixture
def corpus(tiny_corpus: str, tmp_path: Path) -> Corpus:
    """A copy, with the recipe of its run and the facts of its ASR."""
    corpus = Corpus.open(shutil.copytree(tiny_corpus, str(tmp_path / "corpus")))
    recipe = {
        "segmenters": {"vad": {"kind": "silero", "onset": 0.5}},
        "annotators": {"asr": {"kind": "whisper", "beam": 5}},
        "store": {"sample_rate": "native"},
    }
    corpus.store.write("runs/r0/recipe.json", json_bytes(recipe))
    facts = PartFacts("whisper", "3", (ModelFact("openai/whisper-small", "r1", None, "MIT"),), {"clips/turns": "f0"})
    facts.write(corpus.store, ASR, corpus.fingerprint(ASR))
    return corpus


def packed(corpus: Corpus, uri: str, clips: list[int], layers: dict[str, str] | None = None) -> Pack:
    """A pack of some of the corpus's clips."""
    rows = []
    for clip in corpus.clips().take(clips).to_pylist():
        samples = 2 * (clip["end_sample"] - clip["start_sample"])
        row = {
            "key": clip["clip_id"].hex(),
            "shard": "train-000000.tar",
            "offset": 0,
            "num_bytes": 1,
            "kind": "clip",
            "tasks": ["asr"],
            "num_samples": samples,
        }
        held = [{"clip_id": clip["clip_id"], "num_samples": samples}]
        rows.append({**row, "turns": [{"num_samples": samples, "recording_id": clip["recording_id"], "clips": held}]})
    store = Store(uri)
    store.write("manifest/train.parquet", table_bytes(table_of(rows, DOCUMENTS)))
    told = {"corpus_id": corpus.corpus_id, "snapshot": 0, "layers": layers or corpus.layers()}
    head = {
        "format_version": FORMAT_VERSION,
        "pack_id": f"id of {uri}",
        "splits": ["train"],
        "sample_rate_hz": 16_000,
        "lineage": told,
    }
    store.write("pack.json", json_bytes(head))
    return Pack.open(uri)


def test_an_example_leads_back_to_its_recording_inputs_models_and_parameters(corpus, tmp_path):
    pack = packed(corpus, str(tmp_path / "pack"), [3])
    key = pack.documents("train")["key"][0].as_py()
    found = lineage(corpus, key, [pack])
    assert (found["kind"], found["clip"]["recording_id"], found["clip"]["unit"]) == ("clip", NOTE, "u0")
    assert (found["clip"]["start_sample"], found["clip"]["end_sample"]) == (4_000, 20_000)
    # Both inputs of its bytes: that of its own unit, and the copy that came with another.
    assert [row["uri"] for row in found["inputs"]["first"]] == ["memory://in/note.wav", "memory://in/copy-of-note.wav"]
    assert found["inputs"]["first"][0]["source"] == "test"
    asr = next(row for row in found["outputs"] if row["output"] == ASR)
    assert asr["part"] == {"name": "whisper", "version": "3"}
    assert asr["models"] == [{"name": "openai/whisper-small", "revision": "r1", "digest": None, "licence": "MIT"}]
    assert (asr["run"], asr["parameters"], asr["status"]) == ("r0", {"kind": "whisper", "beam": 5}, "ok")
    parameters = {row["output"]: row["parameters"] for row in found["outputs"]}
    assert parameters["spans/vad"] == {"kind": "silero", "onset": 0.5}
    assert parameters["ingest"] == {"sample_rate": "native"}
    assert parameters["layers/turns/style"] is None  # no ledger says which run made it
    assert [row["output"].split("/")[0] for row in found["outputs"]] == ["ingest", "spans", "spans", "clips", *["layers"] * 4]
    assert found["packs"][0]["splits"]["train"]["first"] == [key]


def test_an_output_that_this_version_does_not_know_comes_last(corpus):
    snapshot = corpus.snapshot
    outputs = {**snapshot.outputs, "dreams/vivid": {"d0": list(snapshot.units)}}
    known = {**snapshot.current, "dreams/vivid": "d0"}
    assert publish_snapshot(corpus.store, replace(snapshot, number=snapshot.number + 1, outputs=outputs, current=known))
    found = lineage(Corpus.open(corpus.store.uri), corpus.clips()["clip_id"][3].as_py().hex())
    assert [row["output"] for row in found["outputs"]][-1] == "dreams/vivid"
    assert len(found["outputs"]) == len(known)


def test_ledgers_are_closed_again(corpus, monkeypatch):
    opened = []
    monkeypatch.setattr(Store, "open", lambda store, path, real=Store.open: opened.append(real(store, path)) or opened[-1])
    lineage(corpus, TALK)
    ledgers = [file for file in opened if "ledger" in str(file.name)]
    assert ledgers
    assert all(file.closed for file in ledgers)


def test_files_of_one_model_are_one_line(corpus):
    files = tuple(ModelFact("dnsmos", "1.0", digest, "MIT") for digest in ("aa", "bb"))
    PartFacts("dnsmos", "1", files, {}).write(corpus.store, "layers/turns/style", corpus.fingerprint("layers/turns/style"))
    lines = CliRunner().invoke(app, ["lineage", corpus.store.uri, TALK]).stdout.splitlines()
    assert sum("model dnsmos at 1.0, licence MIT" in line for line in lines) == 1
    shown = CliRunner().invoke(app, ["show", corpus.store.uri]).stdout.splitlines()
    assert sum("model dnsmos at 1.0, licence MIT" in line for line in shown) == 1


def test_a_recording_leads_forward_to_its_clips_and_packs(corpus, tmp_path):
    packs = [packed(corpus, str(tmp_path / "packs" / "a"), [0, 1, 4]), packed(corpus, str(tmp_path / "packs" / "b"), [4, 5])]
    found = lineage(corpus, TALK, packs)
    assert (found["kind"], found["clips"]["num_rows"], found["clips"]["hours"]) == ("recording", 3, pytest.approx(17 / 3600))
    assert [(pack["uri"], pack["num_rows"], pack["hours"]) for pack in found["packs"]] == [
        (packs[0].store.uri, 2, pytest.approx(7 / 3600))
    ]
    assert found["packs"][0]["is_of_corpus"]
    assert found["packs"][0]["other_layers"] == {}
    assert lineage(corpus, NOTE, packs)["packs"] == []
    assert [pack.store.uri for pack in packs_below(str(tmp_path / "packs"))] == [pack.store.uri for pack in packs]


def test_a_pack_says_which_of_its_layers_were_made_anew_since(corpus, tmp_path):
    pack = packed(corpus, str(tmp_path / "pack"), [0], {**corpus.layers(), "asr": "old"})
    assert lineage(corpus, TALK, [pack])["packs"][0]["other_layers"] == {"asr": "old"}


def test_a_source_and_an_input_lead_forward_too(corpus, tmp_path):
    pack = packed(corpus, str(tmp_path / "pack"), [0, 3, 4])
    found = lineage(corpus, "source:test", [pack], limit=2)
    assert (found["inputs"]["num"], found["recordings"]["num"], found["clips"]["num_rows"]) == (5, 3, 6)
    assert len(found["recordings"]["first"]) == len(found["clips"]["first"]) == 2
    assert found["packs"][0]["num_rows"] == 3
    by_uri = lineage(corpus, "memory://in/other.wav")
    assert (by_uri["kind"], by_uri["clips"]["num_rows"]) == ("input", 2)
    assert lineage(corpus, by_uri["inputs"]["first"][0]["input_id"])["recordings"] == by_uri["recordings"]
    refused = lineage(corpus, "memory://in/bad.wav")
    assert (refused["recordings"]["num"], refused["clips"]["num_rows"], refused["outputs"]) == (0, 0, [])


def test_checkpoints_that_were_trained_on_its_packs_are_named(corpus, tmp_path):
    pack, run = packed(corpus, str(tmp_path / "pack"), [0]), Store(str(tmp_path / "run"))
    for name, pack_id in (("00-align", pack.pack_id), ("01-other", "another")):
        state = {"stage": "align", "step": 3, "global_step": 3, "identity": {"pack_id": pack_id}}
        run.write(f"checkpoints/{name}/state.json", json_bytes(state))
    assert [row["name"] for row in lineage(corpus, TALK, [pack], [run.uri])["checkpoints"]] == ["00-align"]
    assert lineage(corpus, NOTE, [pack], [run.uri])["checkpoints"] == []


def test_a_checkpoint_that_was_trained_before_a_takedown_of_other_documents_is_named(corpus, tmp_path):
    before, run = packed(corpus, str(tmp_path / "pack"), [0, 3]), Store(str(tmp_path / "run"))
    state = {"stage": "align", "step": 3, "global_step": 3, "identity": {"pack_id": before.pack_id}}
    run.write("checkpoints/00-align/state.json", json_bytes(state))
    clips = corpus.clips().to_pylist()
    assert clips[0]["recording_id"] != clips[3]["recording_id"]
    taken = TakenDocuments(["t"], "asked", "2026-01-01T00:00:00Z", before.pack_id, [clips[3]["clip_id"].hex()])
    write_taken(before.store, [taken])
    pack = Pack.open(before.store.uri)
    assert pack.pack_id != before.pack_id
    asked = clips[0]["recording_id"].hex()
    assert [row["name"] for row in lineage(corpus, asked, [pack], [run.uri])["checkpoints"]] == ["00-align"]


def test_the_verb_draws_a_tree(corpus, tmp_path):
    pack = packed(corpus, str(tmp_path / "pack"), [3])
    key = pack.documents("train")["key"][0].as_py()
    lines = (
        CliRunner()
        .invoke(app, ["lineage", corpus.store.uri, key, "--pack", str(tmp_path / "pack")], catch_exceptions=False)
        .stdout
    )
    assert "├─ span: 0.50 to 2.50 s of channel 0 (2.00 s), language en" in lines
    assert "│  ├─ memory://in/note.wav: source test, language en, outcome stored, licence not stated" in lines
    assert "model openai/whisper-small at r1, licence MIT" in lines
    assert 'parameters {"kind": "whisper", "beam": 5}' in lines or 'parameters {"beam": 5, "kind": "whisper"}' in lines
    assert "split train: 1 document, 2 s" in lines
    value = json.loads(CliRunner().invoke(app, ["lineage", corpus.store.uri, "source:test", "--json"]).stdout)
    assert value["recordings"]["num"] == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("0" * 32, "is not the id of a clip, a recording or an input, or the key of a document"),
        ("memory://in/none.wav", "is not the URI of an input"),
        ("source:none", "no input .* is of 'source:none'"),
    ],
)
def test_what_is_not_there_is_refused(corpus, asked, message):
    with pytest.raises(RequestError, match=message):
        lineage(corpus, asked)


def test_a_folder_without_packs_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no pack at or below"):
        packs_below(str(tmp_path))


def test_what_was_taken_down_is_not_found(corpus):
    hidden = replace(corpus.snapshot, number=1, taken_recordings={"u0": [TALK]})
    assert publish_snapshot(corpus.store, hidden)
    with pytest.raises(RequestError, match="is not the id"):
        lineage(Corpus.open(corpus.store.uri), TALK)
