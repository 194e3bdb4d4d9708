"""Packs: read back by plain webdataset and by our reader, deterministic, with the funnel and the lineage."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from manifests.corpus import Corpus
from manifests.errors import MismatchError, RequestError
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from manifests.store import Store, json_bytes
from pipeline.build import annotate, build
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from pipeline.shipped_speech import AISHELL_TEXTS, utterances_folder, write_manifest
from tokenization.build import build_tokenizer
from tokenization.codes import CodesConfig
from tokenization.recipe import TokenizerRecipe

TOKENIZER = """
name: tiny
text: {kind: bpe, vocab_size: 300, text_from: [source]}
codec: {kind: fsq, training: {steps: 2, batch_s: 5.0, text_from: [source], num_threads: 1}}
"""


def recipe(**changes) -> PackRecipe:
    fields = {"name": "t", "text_from": ["source"], "tags_from": ["style"], "codes_from": "codes", **changes}
    return decode_recipe(PackRecipe, yaml.safe_dump(fields), "t")


@pytest.fixture(scope="module")
def made(light, tmp_path_factory):
    """(corpus, tokenizer, pack) of the shipped speech: two utterances have a transcript, the conversation has none."""
    folder = tmp_path_factory.mktemp("packed")
    corpus, tokenizer, out = (str(folder / name) for name in ("corpus", "tokenizer", "pack"))
    build([write_manifest(str(folder / "sources.jsonl"))], corpus, light())
    build_tokenizer(corpus, tokenizer, decode_recipe(TokenizerRecipe, TOKENIZER, "tiny"))
    annotate(corpus, {"codes": CodesConfig(kind="codes", tokenizer=tokenizer)})
    pack(corpus, out, recipe(), tokenizer)
    return corpus, tokenizer, out


def test_plain_webdataset_reads_it(made):
    import webdataset

    shards = [f"{made[2]}/{path}" for path in Store(made[2]).objects("shards") if path.endswith(".tar")]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    assert len(samples) == 2
    for sample in samples:
        facts = json.loads(sample["json"])
        audio, rate = soundfile.read(io.BytesIO(sample["0.flac"]))
        codes = np.load(io.BytesIO(sample["0.codes.npy"]))
        (turn,) = facts["turns"]
        (clip,) = turn["clips"]
        assert sample["__key__"] == clip["clip_id"]
        assert turn["text"] in AISHELL_TEXTS.values()
        assert turn["licence"] == "Apache-2.0"
        assert clip["tags"]["style"].keys() >= {"pitch_level", "rate_level"}
        assert rate == 16_000
        assert codes.dtype == np.uint16
        assert abs(len(codes) - len(audio) / 640) <= 1


def test_our_reader_gives_the_same_by_key(made):
    corpus, _, out = made
    opened = Pack.open(out)
    rows = opened.documents("train").to_pylist()
    clips = {clip["clip_id"]: clip for clip in Corpus.open(corpus).clips().to_pylist()}
    reader = Corpus.open(corpus).audio()
    for row in rows:
        (turn,), (told,) = opened.read(row["shard"], row["key"]).turns, row["turns"]
        clip = clips[told["clips"][0]["clip_id"]]
        place = (clip["recording_id"], clip["channel"], clip["sample_rate_hz"], clip["start_sample"], clip["end_sample"])
        np.testing.assert_array_equal(turn.audio, reader.read(*place))  # 16 kHz in, 16 kHz out: bit for bit
        assert (len(turn.audio), len(turn.codes)) == (told["num_samples"], told["num_codes"])
        assert (row["num_samples"], row["num_codes"]) == (told["num_samples"], told["num_codes"])
        assert row["tasks"] == ["asr", "tts", "text"]
        assert row["num_text_tokens"] > 0


def test_the_head_says_what_it_was_made_of(made):
    corpus, _, out = made
    head = Pack.open(out).head
    layers = Corpus.open(corpus).layers()
    assert head["lineage"]["layers"] == layers
    assert head["codec_fingerprint"]
    assert head["vocabulary_hash"]
    funnel = {(row["step"], row["reason"]): row["num"] for row in head["funnel"]}
    total = Corpus.open(corpus).clips().num_rows
    assert funnel == {("clips", None): total, ("dropped", "no_text"): total - 2, ("packed", None): 2}
    assert head["counts"]["train"]["num_documents"] == 2


def test_the_same_pack_is_made_byte_for_byte_and_found_again(made, tmp_path):
    corpus, tokenizer, out = made
    again = pack(corpus, str(tmp_path / "again"), recipe(), tokenizer)
    assert again.is_new
    left, right = Store(out), Store(str(tmp_path / "again"))
    assert {path: left.read(path) for path in left.objects("")} == {path: right.read(path) for path in right.objects("")}
    assert not [path for path in right.objects("") if path.startswith("packing")]
    assert not pack(corpus, out, recipe(), tokenizer).is_new
    with pytest.raises(RequestError, match="holds another pack"):
        pack(corpus, out, recipe(seed=1), tokenizer)


def test_tasks_can_run_anywhere_in_any_order_and_parts_be_of_any_size(made, tmp_path, monkeypatch):
    corpus, tokenizer, out = made

    def elsewhere(function, items, done):
        """What crosses to another process, last task first."""
        results = []
        for item in reversed(items):
            result = pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item)))
            results.insert(0, pickle.loads(pickle.dumps(result)))
            done(result)
        return results

    monkeypatch.setattr("pipeline.facts.MAX_TASKS", 2)
    pack(corpus, str(tmp_path / "elsewhere"), recipe(), tokenizer, elsewhere)
    left, right = Store(out), Store(str(tmp_path / "elsewhere"))
    assert {path: left.read(path) for path in left.objects("")} == {path: right.read(path) for path in right.objects("")}


def test_filters_drop_with_a_reason_and_shards_are_cut_at_their_size(made, tmp_path):
    corpus, tokenizer, _ = made
    filters = [{"column": "clip.duration_s", "min": 3.6}, {"column": "prosody.pitch_hz", "max": 1000.0}]
    result = pack(corpus, str(tmp_path / "pack"), recipe(filters=filters, require_text=False, shard_bytes=1000), tokenizer)
    dropped = {row["reason"]: row["num"] for row in result.funnel if row["step"] == "dropped"}
    clips = Corpus.open(corpus).clips().to_pylist()
    short = sum((c["end_sample"] - c["start_sample"]) / c["sample_rate_hz"] < 3.6 for c in clips)
    assert dropped == ({"clip.duration_s<3.6": short} if short else {})
    shards = [path for path in Store(result.pack_uri).objects("shards") if path.endswith(".tar")]
    assert len(shards) == result.num_documents["train"] == len(clips) - short


def test_splits_keep_speakers_apart(made, tmp_path):
    corpus, tokenizer, _ = made
    result = pack(corpus, str(tmp_path / "pack"), recipe(splits={"train": 0.5, "validation": 0.5}), tokenizer)
    opened = Pack.open(result.pack_uri)
    speakers = [set(opened.documents(split)["speaker"].to_pylist()) for split in opened.splits]
    assert not speakers[0] & speakers[1]
    assert sum(result.num_documents.values()) == 2


def test_what_is_asked_for_must_be_there(made, tmp_path):
    corpus, tokenizer, _ = made
    out = str(tmp_path / "pack")
    with pytest.raises(RequestError, match=r"names layers \['dnsmos'\]"):
        pack(corpus, out, recipe(filters=[{"column": "dnsmos.dnsmos_ovrl", "min": 2.5}]), tokenizer)
    with pytest.raises(RequestError, match=r"filter column 'signal\.loud' does not exist"):
        pack(corpus, out, recipe(filters=[{"column": "signal.loud", "min": 2.5}]), tokenizer)
    with pytest.raises(RequestError, match="text_from names layer 'style', which has no text"):
        pack(corpus, out, recipe(text_from=["source", "style"]), tokenizer)
    with pytest.raises(RequestError, match="give the tokenizer"):
        pack(corpus, out, recipe())
    other = str(tmp_path / "other")
    build_tokenizer(corpus, other, decode_recipe(TokenizerRecipe, TOKENIZER.replace("steps: 2", "steps: 3"), "tiny"))
    with pytest.raises(MismatchError, match="made by another codec"):
        pack(corpus, out, recipe(), other)
    assert not Store(out).exists()


def test_plain_text_becomes_a_pack_by_the_same_verb(made, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "one\u2028two"}\n{"text": "三四", "language": "zh"}\n')
    result = pack(
        str(texts), str(tmp_path / "pack"), recipe(documents=[{"kind": "text"}], codes_from=None, tags_from=[]), made[1]
    )
    opened = Pack.open(result.pack_uri)
    rows = sorted(opened.documents("train").to_pylist(), key=lambda row: row["turns"][0]["text"])
    assert [(row["kind"], row["turns"][0]["text"], row["tasks"]) for row in rows] == [
        ("text", "one\u2028two", ["text"]),
        ("text", "三四", ["text"]),
    ]
    assert [turn.text for turn in opened.read(rows[0]["shard"], rows[0]["key"]).turns] == ["one\u2028two"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"txt": "one"}', "line 3 has no string `text`"),
        ('{"text": null}', "line 3 has no string `text`"),
        ('{"text": ', "line 3 is not JSON"),
        pytest.param("[" * 100_000, "line 3 is not JSON", id="deep"),
    ],
)
def test_a_row_without_text_is_named_and_leaves_nothing_behind(tmp_path, line, message):
    texts, out = tmp_path / "texts.jsonl", Store(str(tmp_path / "pack"))
    texts.write_text('{"text": "one"}\n\n' + line + "\n")
    with pytest.raises(RequestError, match=message):
        pack(str(texts), out.uri, recipe(documents=[{"kind": "text"}], codes_from=None, tags_from=[]))
    assert out.objects("") == []


def test_a_place_that_holds_something_else_is_not_touched(made, tmp_path):
    corpus, tokenizer, _ = made
    store = Store(str(tmp_path / "pack"))
    store.write("shards/train-000009.tar", b"left over")
    with pytest.raises(RequestError, match=r"1 objects of something else, the first 'shards/train-000009\.tar'"):
        pack(corpus, store.uri, recipe(), tokenizer)
    assert store.objects("") == ["shards/train-000009.tar"]
    store.remove("shards/train-000009.tar")
    Store(f"{store.uri}/packing").create("claim.json", json_bytes({"pack_id": "beef" * 8, "groups": {}}))
    with pytest.raises(RequestError, match=r"the beginning of another pack \(beefbeefbeef\)"):
        pack(corpus, store.uri, recipe(), tokenizer)


def test_other_facts_are_another_pack(light, tmp_path):
    shutil.copy(Path(utterances_folder()) / "BAC009S0764W0121.wav", tmp_path / "a.wav")
    sources, plain = tmp_path / "sources.jsonl", recipe(codes_from=None)
    packs = []
    for name, text in (("one", "wrong"), ("two", "right"), ("again", "right")):
        sources.write_text(json.dumps({"path": "a.wav", "text": text}))
        build([str(sources)], str(tmp_path / name), light())
        packs.append(pack(str(tmp_path / name), str(tmp_path / f"{name}-pack"), plain).pack_id)
    assert packs[0] != packs[1] == packs[2]
    with pytest.raises(RequestError, match="holds another pack"):
        pack(str(tmp_path / "two"), str(tmp_path / "one-pack"), plain)


def test_facts_of_equal_bytes_are_put_together_and_licences_must_agree(light, tmp_path):
    audio = Path(utterances_folder()) / "BAC009S0764W0121.wav"
    for name in ("a.wav", "b.wav", "c.wav"):
        shutil.copy(audio, tmp_path / name)
    rows = [{"path": "a.wav"}, {"path": "b.wav", "text": "hello", "licence": "MIT"}]
    sources = tmp_path / "sources.jsonl"
    sources.write_text("\n".join(json.dumps(row) for row in rows))
    corpus = str(tmp_path / "corpus")
    build([str(sources)], corpus, light())
    plain = recipe(codes_from=None)
    result = pack(corpus, str(tmp_path / "pack"), plain)
    (row,) = Pack.open(result.pack_uri).documents("train").to_pylist()
    assert [turn["text"] for turn in row["turns"]] == ["hello"]
    sources.write_text(json.dumps({"path": "c.wav", "licence": "CC-BY-4.0"}))
    build([str(sources)], corpus, light())
    with pytest.raises(RequestError, match="the same bytes under licences 'MIT' and"):
        pack(corpus, str(tmp_path / "other"), plain)
