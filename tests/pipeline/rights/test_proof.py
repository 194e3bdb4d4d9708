"""The proof: it finds what is left wherever it lies, and nothing once all was rewritten; versions of a bucket are named."""

from __future__ import annotations

import json
import shutil

import fsspec
import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner

import stepwell
from manifests.corpus import Corpus
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from manifests.store import Store
from manifests.tars import read_index, read_member
from pipeline.build import build
from pipeline.compact import compact
from pipeline.fsck import check
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from pipeline.rights.matching import Rule
from pipeline.rights.pack_takedown import rewrite_pack
from pipeline.rights.proof import prove
from pipeline.rights.rewriting import rewrite
from pipeline.rights.takedown import take_down

RECIPE = {"clip_set": {"turns": None, "max_s": 2.0}, "units": {"max_inputs": 2}, "annotators": {"signal": {"kind": "signal"}}}
ANN, BOB = "BAC009S0764W0121.wav", "BAC009S0764W0122.wav"
SHARED_WORDS = "a sentence that both of them read"


@pytest.fixture(scope="module")
def manifest(recordings, tmp_path_factory) -> str:
    said = [
        {"uri": str(recordings / ANN), "source": "talks", "speaker_label": "Ann", "text": SHARED_WORDS},
        {"uri": str(recordings / BOB), "source": "talks", "speaker_label": "Bob", "text": SHARED_WORDS},
        {"uri": str(recordings / "tone.flac"), "source": "tones"},
    ]
    path = tmp_path_factory.mktemp("proof") / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    return str(path)


@pytest.fixture(scope="module")
def made(manifest, light, tmp_path_factory) -> tuple[str, str]:
    """(corpus, pack)."""
    folder = tmp_path_factory.mktemp("proof-corpus")
    corpus, packed = str(folder / "corpus"), str(folder / "pack")
    build([manifest], corpus, light(**RECIPE))
    pack(corpus, packed, recipe())
    return corpus, packed


def recipe() -> PackRecipe:
    return decode_recipe(PackRecipe, yaml.safe_dump({"name": "t", "text_from": ["source"], "require_text": False}), "t")


@pytest.fixture
def both(made, tmp_path) -> tuple[str, str]:
    return tuple(shutil.copytree(uri, str(tmp_path / uri.rsplit("/", 1)[1])) for uri in made)


def findings(proof) -> dict[str, set[str]]:
    """By the folder of a store: what was found."""
    found: dict[str, set[str]] = {}
    for store in proof.value["stores"]:
        for row in store["findings"]:
            found.setdefault(row["path"].split("/")[0], set()).add(row["what"])
    return found


def test_before_the_rewriting_every_kind_of_trace_is_found_and_after_it_none(both):
    corpus, packed = both
    take_down(corpus, [Rule.parse("speaker", "Ann")], "asked to", [packed])
    before = findings(prove(Corpus.open(corpus), [packed]))
    assert {"recording id", "input id", "uri", "speaker"} <= before["inputs"]
    assert "recording id" in before["recordings"]
    assert {"audio", "recording id"} <= before["audio"]
    assert {"clip id", "recording id"} <= before["clips"]
    assert before["layers"] == {"clip id"}
    assert {"uri", "speaker"} <= before["plans"]
    assert {"audio", "clip id", "recording id", "uri", "speaker"} <= before["shards"]
    assert {"clip id", "recording id", "speaker"} <= before["manifest"]
    assert "clip id" in before["takedowns.json"]
    rewrite(corpus)
    rewrite_pack(packed)
    proof = prove(Corpus.open(corpus), [packed])
    assert (proof.num_findings, findings(proof)) == (0, {})
    written = json.loads(Store(corpus).read(proof.path))
    assert written == proof.value
    assert written["searched"]["num"]["recording"] == 1
    scanned = {row["path"] for row in written["stores"][0]["objects"]}
    assert scanned == {p for p in Store(corpus).objects("") if not p.startswith(("tables/takedowns/", "proofs/"))}
    assert written["stores"][0]["same_words"]  # Bob read the same sentence
    assert check(corpus, grace_s=0).faults == []


def test_what_somebody_put_back_is_found_by_its_bytes_and_by_its_text(both):
    corpus, packed = both
    store, opened = Store(corpus), Corpus.open(corpus)
    row = next(row for row in opened.inputs().to_pylist() if row["speaker_label"] == "Ann")
    tar = next(path for view in opened.views() for path in view.audio_tars())
    piece = next(m for m in read_index(store, tar) if m.name.startswith(row["recording_id"].hex()))
    data = read_member(store, tar, piece)
    take_down(corpus, [Rule.parse("recording", row["recording_id"].hex())], "r", [packed])
    rewrite(corpus)
    rewrite_pack(packed)
    store.write("notes/kept.flac", data)
    store.write("notes/kept.txt", f"see {row['recording_id'].hex()}.wav".encode())
    store.write("notes/kept.json", json.dumps({"who": [{"uri": row["uri"]}]}).encode())
    store.write("notes/said.json", json.dumps(f"cannot decode '{row['uri']}': torn").encode())
    store.write("notes/torn.parquet", b"PAR1")
    proof = prove(Corpus.open(corpus), [])
    assert {(f["path"], f["what"]) for f in proof.value["stores"][0]["findings"]} == {
        ("notes/kept.flac", "audio"),
        ("notes/kept.txt", "recording id"),
        ("notes/kept.json", "uri"),
        ("notes/said.json", "uri"),
        ("notes/torn.parquet", "cannot be read (ArrowInvalid)"),
    }


def test_a_minute_of_silence_is_nobody_s(recordings, light, tmp_path):
    """The second piece of both recordings is digital silence: the same bytes, of which one recording has to go."""
    for name in (ANN, BOB):
        spoken, rate = soundfile.read(recordings / name, dtype="int16")
        soundfile.write(tmp_path / name, np.concatenate([spoken, np.zeros(125 * rate - len(spoken), np.int16)]), rate)
    corpus = str(tmp_path / "corpus")
    build([str(tmp_path / ANN), str(tmp_path / BOB)], corpus, light(**{**RECIPE, "annotators": {}}))
    take_down(corpus, [Rule.parse("uri_pattern", f"*{ANN}")], "r")
    rewrite(corpus)
    pieces = [m for view in Corpus.open(corpus).views() for tar in view.audio_tars() for m in read_index(Store(corpus), tar)]
    assert len(pieces) == 3
    assert prove(Corpus.open(corpus), []).num_findings == 0


def test_the_verb_does_it_all_and_a_finding_is_exit_code_1(both):
    corpus, packed = both
    runner = CliRunner()
    asked = ["manifest", "takedown", corpus, "--speaker", "Ann", "--reason", "asked to", "--pack", packed]
    only_proof = runner.invoke(stepwell.app, [*asked, "--prove"])
    assert only_proof.exit_code == 1
    assert "finding" in only_proof.stdout
    whole = runner.invoke(stepwell.app, [*asked, "--rewrite", "--prove", "--json"])
    assert whole.exit_code == 0
    value = json.loads(whole.stdout)
    assert value["proof"]["num_findings"] == 0
    assert value["rewritten"]["num_documents"][packed] == value["takedown"]["packs"][0]["num_before"] > 0
    again = runner.invoke(stepwell.app, ["manifest", "takedown", corpus, "--prove"])
    assert again.exit_code == 0
    assert "0 findings" in again.stdout


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ([], "nothing to take down"),
        (["--speaker", "Ann"], "needs its --reason"),
        (["--speaker", "Ann", "--reason", "r", "--dry-run", "--prove"], "--dry-run writes nothing"),
        (["--speaker", "Nobody", "--reason", "r"], "takes nothing"),
        (["--speaker", "Ann", "--reason", "r", "--pack", "nowhere"], "no pack at 'nowhere'"),
        (["--speaker", "Ann", "--reason", "r", "--run", "nowhere"], "no run at 'nowhere'"),
    ],
)
def test_a_request_that_is_wrong_changes_nothing(options, match, both):
    corpus, _ = both
    before = Store(corpus).details().keys()
    with pytest.raises(Exception, match=match):
        CliRunner().invoke(stepwell.app, ["manifest", "takedown", corpus, *options], catch_exceptions=False)
    assert Store(corpus).details().keys() == before


@pytest.mark.slow
def test_on_s3_versions_of_what_was_removed_are_named(s3, manifest, light):
    bucket = s3.bucket()
    fsspec.filesystem("s3").call_s3(
        "put_bucket_versioning", Bucket=bucket.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"}
    )
    corpus, packed = f"{bucket}/corpus", f"{bucket}/pack"
    build([manifest], corpus, light(**RECIPE))
    compact(corpus, grace_s=0)
    pack(corpus, packed, recipe())
    gone = next(row for row in Corpus.open(corpus).inputs().to_pylist() if row["speaker_label"] == "Ann")["recording_id"]
    tars = {path for view in Corpus.open(corpus).views() for path in view.audio_tars()}
    take_down(corpus, [Rule.parse("speaker", "Ann")], "r", [packed])
    rewrite(corpus)
    rewrite_pack(packed)
    assert gone not in Corpus.open(corpus).recordings()["recording_id"].to_pylist()
    assert check(corpus, grace_s=0).faults == []
    proof = prove(Corpus.open(corpus), [packed])
    assert proof.num_findings == 0
    in_corpus, in_pack = (store["versions"] for store in proof.value["stores"])
    removed = tars - set(Store(corpus).objects("audio"))
    assert removed
    assert {f"corpus/{path}" for path in removed} <= {row["key"] for row in in_corpus["held"]}
    assert any(row["key"].startswith("pack/shards/") for row in in_pack["held"])
    assert any("still keeps versions" in line for line in proof.lines())
    assert Pack.open(packed).documents("train").num_rows > 0


def test_a_bucket_without_versions_says_so(s3, manifest, light):
    corpus = f"{s3.bucket()}/corpus"
    build([manifest], corpus, light(**RECIPE))
    take_down(corpus, [Rule.parse("speaker", "Ann")], "r")
    rewrite(corpus)
    proof = prove(Corpus.open(corpus), [])
    assert proof.num_findings == 0
    assert proof.value["stores"][0]["versions"] == {"held": [], "note": "the bucket keeps no version but the live ones"}
