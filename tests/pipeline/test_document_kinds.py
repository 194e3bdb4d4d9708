"""Documents of several turns, out of a small corpus of synthetic speech: dialogues on two channels, monologues, translations."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
import yaml

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.export.work import export
from manifests.pack_rows import PackRows
from manifests.packs import Document, Pack
from manifests.provenance import lineage
from manifests.recipes import decode_recipe
from manifests.store import Store
from pipeline.build import annotate, build
from pipeline.pack import pack, write_pack
from pipeline.recipe import PackRecipe, VoicesRecipe
from pipeline.rights.matching import Rule
from pipeline.rights.pack_takedown import rewrite_pack
from pipeline.rights.takedown import take_down
from pipeline.synthesis import synthesise
from tests.pipeline.test_pack import TOKENIZER
from tokenization.build import build_tokenizer
from tokenization.codes import CodesConfig
from tokenization.recipe import TokenizerRecipe

pytest.importorskip("espeakng_loader")
VOICES = VoicesRecipe.model_validate(
    {
        "name": "t",
        "licence": "CC0-1.0",
        "one_channel_a_role": True,
        "voices": {
            "ann": {"kind": "espeak", "voice": "en-us", "variant": "f2"},
            "bob": {"kind": "espeak", "voice": "en-us", "variant": "m3"},
            "cem": {"kind": "espeak", "voice": "de", "variant": "m1"},
        },
    }
)
RECIPE = {"annotators": {"asr": {"kind": "pocketsphinx"}}, "clip_set": {"turns": None, "max_pause_s": 0.6}}
ASKED = ("What time is it in London now?", "Where do you want to go today?")
ANSWERED = ("Ten minutes past three.", "I want to go to the museum.")
CAT, BOOK = "Die Katze schläft auf dem Sofa.", "Ich lese ein Buch. Es ist sehr gut."
MONOLOGUE = ["One two three four five.", "Six seven eight nine ten.", "Eleven twelve thirteen."]
ALL = [{"kind": "pair", "directions": ["en>de", "de>en"]}, {"kind": "conversation"}, {"kind": "continuation"}, {"kind": "clip"}]


def dialogue() -> dict[str, Any]:
    turns = [(role, text) for exchange in zip(ASKED, ANSWERED, strict=True) for role, text in zip("ab", exchange, strict=True)]
    return {"language": "en", "turns": [{"role": role, "text": text} for role, text in turns]}


def said(folder: Path) -> str:
    """A manifest: a dialogue; three sentences with a second of silence between; a pair of inputs; a sentence with its translation."""
    rows = [
        dialogue(),
        {"language": "en", "turns": [{"role": "a", "voice": "bob", "text": text} for text in MONOLOGUE]},
        {"language": "en", "voice": "ann", "text": "Good morning, how are you?"},
        {"language": "de", "voice": "cem", "text": "Guten Morgen, wie geht es Ihnen?"},
        {"language": "en", "voice": "ann", "text": "The cat sleeps on the sofa."},
        {
            "language": "en",
            "turns": [{"role": "a", "voice": "ann", "text": text} for text in ("I read a book.", "It is very good.")],
        },
    ]
    facts: list[dict[str, Any]] = [
        {},
        {},
        {"pair_id": "p1"},
        {"pair_id": "p1"},
        {"translation": CAT, "translation_language": "de"},
        {"translation": BOOK, "translation_language": "de"},
    ]
    (folder / "texts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = VOICES.model_copy(update={"gap_s": 1.0})
    synthesise(str(folder / "texts.jsonl"), str(folder / "said"), recipe)
    lines = [json.loads(line) for line in (folder / "said" / "manifest.jsonl").read_text().splitlines()]
    with open(folder / "said" / "pairs.jsonl", "w", encoding="utf-8") as file:
        for line, more in zip(lines, facts, strict=True):
            file.write(f"{json.dumps({**line, 'source': 'made', **more})}\n")
    return str(folder / "said" / "pairs.jsonl")


@dataclass(frozen=True)
class Made:
    """URIs, and the folder that all of them lie in."""

    folder: Path
    corpus: str
    tokenizer: str
    pack: str


def recipe(**changes: Any) -> PackRecipe:
    fields = {"name": "t", "text_from": ["source", "asr"], "codes_from": "codes", "documents": ALL, **changes}
    return decode_recipe(PackRecipe, yaml.safe_dump(fields), "t")


@pytest.fixture(scope="module")
def made(light, tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("kinds")
    corpus, tokenizer, out = (str(folder / name) for name in ("corpus", "tokenizer", "pack"))
    build([said(folder)], corpus, light(**RECIPE, units={"max_inputs": 2}))
    build_tokenizer(corpus, tokenizer, decode_recipe(TokenizerRecipe, TOKENIZER, "tiny"))
    annotate(corpus, {"codes": CodesConfig(kind="codes", tokenizer=tokenizer)})
    pack(corpus, out, recipe(), tokenizer)
    return Made(folder, corpus, tokenizer, out)


def documents(uri: str) -> list[tuple[dict[str, Any], Document]]:
    """(row, document) of all splits."""
    opened = Pack.open(uri)
    rows = [row for split in opened.splits for row in opened.documents(split).to_pylist()]
    return [(row, opened.read(row["shard"], row["key"])) for row in rows]


def of_kind(uri: str, kind: str) -> list[tuple[dict[str, Any], Document]]:
    return [(row, document) for row, document in documents(uri) if row["kind"] == kind]


def funnel(uri: str) -> dict[Any, int]:
    return {row["reason"] or row["step"]: row["num"] for row in Pack.open(uri).head["funnel"]}


def test_rows_and_members_say_the_same_turn_by_turn(made):
    found = documents(made.pack)
    assert {row["kind"] for row, _ in found} == {"pair", "conversation", "continuation"}
    for row, document in found:
        assert document.relation == row["relation"] == document.facts["relation"]
        assert len(document.turns) == len(row["turns"])
        for turn, told in zip(document.turns, row["turns"], strict=True):
            assert (turn.text, turn.language, turn.role, turn.speaker) == tuple(
                told[n] for n in ("text", "language", "role", "speaker_label")
            )
            assert told["num_samples"] == (None if turn.audio is None else len(turn.audio))
            assert told["num_codes"] == (None if turn.codes is None else len(turn.codes))
            assert [clip["clip_id"].hex() for clip in told["clips"]] == [clip["clip_id"] for clip in turn.facts["clips"]]
            assert sum(clip["num_samples"] for clip in told["clips"]) == (told["num_samples"] or 0)
            assert (told["num_text_tokens"] is None) == (turn.text is None)
        sums = {name: [turn[name] for turn in row["turns"] if turn[name] is not None] for name in ("num_samples", "num_codes")}
        assert {name: sum(values) for name, values in sums.items()} == {name: row[name] for name in sums}


def test_plain_webdataset_reads_every_turn(made):
    import webdataset

    shard = f"{made.pack}/shards/train-000000.tar"
    samples = {sample["__key__"]: sample for sample in webdataset.WebDataset(shard, shardshuffle=False, empty_check=False)}
    for row, document in documents(made.pack):
        sample = samples.pop(row["key"])
        assert json.loads(sample["json"]) == document.facts
        heard = [number for number, turn in enumerate(document.turns) if turn.audio is not None]
        assert sorted(name for name in sample if name.endswith(".flac")) == [f"{number}.flac" for number in heard]
    assert not samples


def test_a_dialogue_is_a_conversation_of_its_channels(made):
    ((row, document),) = of_kind(made.pack, "conversation")
    assert (row["tasks"], row["relation"]) == (["conversation"], "reply")
    assert [turn.role for turn in document.turns] == ["human", "assistant", "human", "assistant"]
    assert [turn.speaker for turn in document.turns] == ["channel 0", "channel 1"] * 2
    assert all(turn.text and turn.facts["text_source"] == "asr" for turn in document.turns)
    # In order of time, each turn the samples of its clips.
    starts = [turn.facts["clips"][0]["start_sample"] for turn in document.turns]
    assert starts == sorted(starts)
    reader = Corpus.open(made.corpus).audio()
    for turn in document.turns:
        for clip in turn.facts["clips"]:
            stored = reader.read(
                bytes.fromhex(turn.facts["recording_id"]),
                *(clip[n] for n in ("channel", "sample_rate_hz", "start_sample", "end_sample")),
            )
            assert len(stored) / clip["sample_rate_hz"] == pytest.approx(len(turn.audio) / 16_000, abs=1e-3)


def test_sentences_in_a_row_are_a_continuation(made):
    ((row, document),) = of_kind(made.pack, "continuation")
    assert (row["tasks"], row["relation"]) == (["continuation_text", "continuation"], "continuation")
    assert len(document.turns) == 3
    assert {turn.role for turn in document.turns} == {None}
    assert len({turn.facts["uri"] for turn in document.turns}) == 1


def ways(found: list[tuple[dict[str, Any], Document]]) -> dict[tuple[str | None, ...], tuple[dict[str, Any], Document]]:
    """By the languages of the turns."""
    return {tuple(turn.language for turn in document.turns): (row, document) for row, document in found}


def test_pairs_go_in_the_directions_that_were_asked_for(made):
    pairs = of_kind(made.pack, "pair")
    assert {row["relation"] for row, _ in pairs} == {"translation"}
    linked = ways([(row, d) for row, d in pairs if all(turn.audio is not None for turn in d.turns)])
    assert linked.keys() == {("en", "de"), ("de", "en")}
    for row, document in linked.values():
        assert row["tasks"] == ["s2tt", "t2st", "s2st"]
        assert len({turn.facts["recording_id"] for turn in document.turns}) == 2
        assert row["language"] is None
    assert linked["en", "de"][1].turns[1].text == "Guten Morgen, wie geht es Ihnen?"
    for said, translation, num_clips in (("The cat sleeps on the sofa.", CAT, 1), ("I read a book. It is very good.", BOOK, 2)):
        told = ways([(row, d) for row, d in pairs if translation in {turn.text for turn in d.turns}])
        heard, read = told["en", "de"], told["de", "en"]
        assert (heard[0]["tasks"], read[0]["tasks"]) == (["s2tt"], ["t2st"])
        # A turn of several clips is the whole recording, and its text is the source's.
        assert [turn.text for turn in heard[1].turns] == [said, translation]
        assert [len(turn["clips"]) for turn in heard[0]["turns"]] == [num_clips, 0]
        assert read[1].turns[0].audio is read[1].turns[0].codes is None


def test_a_direction_that_nobody_asked_for_is_not_made(made, tmp_path):
    one_way = str(tmp_path / "one-way")
    pack(made.corpus, one_way, recipe(documents=[{"kind": "pair", "directions": ["en>de"]}]), made.tokenizer)
    assert [[turn.language for turn in document.turns] for _, document in documents(one_way)] == [["en", "de"]] * 3
    assert (
        funnel(one_way)["no_document"] == funnel(one_way)["clips"] - 5
    )  # two clips of a linked pair, one and two of translations


def test_a_recording_that_lost_a_clip_makes_no_pair(made, tmp_path):
    (book,) = [d for _, d in of_kind(made.pack, "pair") if [turn.text for turn in d.turns][1] == BOOK]
    shorter, longer = sorted(_length(clip) for clip in book.turns[0].facts["clips"])
    filters = [{"column": "clip.duration_s", "min": (shorter + longer) / 2}]
    out = str(tmp_path / "pack")
    pack(made.corpus, out, recipe(filters=filters), made.tokenizer)
    assert BOOK not in {turn.text for _, document in documents(out) for turn in document.turns}


def test_every_clip_counts_once_and_serves_one_kind_unless_it_is_shared(made, tmp_path):
    held = {row["key"]: row for row, _ in documents(made.pack)}
    clips = [c["clip_id"] for row in held.values() if row["kind"] != "pair" for turn in row["turns"] for c in turn["clips"]]
    assert len(clips) == len({*clips})
    total = Corpus.open(made.corpus).clips().num_rows
    assert (funnel(made.pack)["clips"], funnel(made.pack)["packed"]) == (total, total)
    shared = str(tmp_path / "shared")
    kinds = [*ALL[:2], {"kind": "continuation", "max_gap_s": 20}, ALL[3]]
    pack(made.corpus, shared, recipe(share_clips=True, documents=kinds), made.tokenizer)
    assert (funnel(shared)["clips"], funnel(shared)["packed"]) == (total, total)
    assert Pack.open(shared).head["funnel"] == Pack.open(made.pack).head["funnel"]
    found = [row["kind"] for row, _ in documents(shared)]
    assert (found.count("clip"), found.count("conversation"), found.count("continuation")) == (total, 1, 4)
    with pytest.raises(RequestError, match="kind 'clip' takes every clip; let it stand last"):
        recipe(documents=[{"kind": "clip"}, {"kind": "continuation"}])


def test_a_clip_that_a_filter_leaves_out_ends_what_it_was_in(made, tmp_path):
    ((_, document),) = of_kind(made.pack, "conversation")
    # The shortest clip of the second turn or the third: what is left has two turns at most.
    inner = min((clip for turn in document.turns[1:3] for clip in turn.facts["clips"]), key=_length)
    out = str(tmp_path / "pack")
    kinds = [{"kind": "conversation"}, {"kind": "continuation"}]
    pack(
        made.corpus,
        out,
        recipe(documents=kinds, filters=[{"column": "clip.duration_s", "min": _length(inner) + 0.001}]),
        made.tokenizer,
    )
    found = [clip for _, document in documents(out) for turn in document.turns for clip in turn.facts["clips"]]
    assert all(_length(clip) > _length(inner) for clip in found)
    assert all(len(document.turns) == 2 for _, document in of_kind(out, "conversation"))
    told = funnel(out)
    assert told.pop("packed") == len(found)
    assert told.pop("clips") == len(found) + sum(told.values())
    assert told["no_document"] > 0


def _length(clip: dict[str, Any]) -> float:
    return float((clip["end_sample"] - clip["start_sample"]) / clip["sample_rate_hz"])


@pytest.mark.slow
def test_neither_units_nor_where_they_are_packed_nor_an_interruption_shows(made, light, tmp_path, monkeypatch):
    kept, packed = Store(made.pack), {}
    whole = {path: kept.read(path) for path in kept.objects("")}

    def elsewhere(function, items, done):
        """What crosses to another process, last task first."""
        results = [pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item))) for item in reversed(items)]
        return [*reversed(results)]

    pack(made.corpus, str(tmp_path / "elsewhere"), recipe(), made.tokenizer, elsewhere)
    packed["elsewhere"] = Store(str(tmp_path / "elsewhere"))
    monkeypatch.setattr("pipeline.facts.MAX_TASKS", 1)
    pack(made.corpus, str(tmp_path / "one"), recipe(), made.tokenizer)
    packed["in one part"] = Store(str(tmp_path / "one"))
    monkeypatch.setattr("pipeline.pack.write_pack", partial(write_pack, spill_bytes=1))  # a spill ends behind every document
    pack(made.corpus, str(tmp_path / "spills"), recipe(), made.tokenizer)
    packed["document by document"] = Store(str(tmp_path / "spills"))
    for store in packed.values():
        assert {path: store.read(path) for path in store.objects("")} == whole
    monkeypatch.undo()
    # Other units hold the same inputs in other company: the same documents, under another id.
    other = str(tmp_path / "other")
    build([str(made.folder / "said" / "pairs.jsonl")], other, light(**RECIPE, units={"max_inputs": 5}))
    annotate(other, {"codes": CodesConfig(kind="codes", tokenizer=made.tokenizer)})
    pack(other, str(tmp_path / "of-other"), recipe(), made.tokenizer)
    of_other = Store(str(tmp_path / "of-other"))
    assert of_other.read("manifest/train.parquet") == whole["manifest/train.parquet"]
    assert of_other.read("shards/train-000000.tar") == whole["shards/train-000000.tar"]


def test_splits_keep_both_sides_of_a_pair_together(made, tmp_path):
    for seed in range(3):
        splits = {f"s{n}": 0.25 for n in range(4)}
        out = str(tmp_path / str(seed))
        pack(made.corpus, out, recipe(seed=seed, splits=splits), made.tokenizer)
        opened, split_of = Pack.open(out), dict[bytes, set[str]]()
        for split in opened.splits:
            for row in opened.documents(split).to_pylist():
                for turn in row["turns"]:
                    split_of.setdefault(turn["recording_id"] or b"text", set()).add(split)
        assert all(len(found) == 1 for recording, found in split_of.items() if recording != b"text")


def test_a_document_with_a_turn_that_was_taken_down_goes_whole(made, tmp_path):
    corpus, out = (shutil.copytree(uri, tmp_path / name) for uri, name in ((made.corpus, "corpus"), (made.pack, "pack")))
    ((row, document),) = of_kind(str(out), "conversation")
    gone = document.turns[1].facts["clips"][0]
    result = take_down(str(corpus), [Rule.parse("clip", gone["clip_id"])], "asked to", [str(out)])
    assert [found["num_documents"] for found in result.packs] == [1]
    with pytest.raises(RequestError, match="was taken down"):
        Pack.open(str(out)).read(row["shard"], row["key"])
    before = funnel(str(out))
    assert rewrite_pack(str(out)) == 1
    assert row["key"] not in {left["key"] for left, _ in documents(str(out))}
    num_clips = sum(len(turn["clips"]) for turn in row["turns"])
    assert funnel(str(out))["taken_down_later"] == num_clips
    assert funnel(str(out))["packed"] == before["packed"] - num_clips
    left = PackRows(Pack.open(str(out)))
    assert sum(left.read(part, []).num_rows for part in left.slices) == len(documents(str(out)))
    # What was said beside it is no more than left out: it may come again.
    corpus_now = Corpus.open(str(corpus))
    audio = corpus_now.tombstones.rows.filter(pc.equal(corpus_now.tombstones.rows["kind"], "audio")).num_rows
    assert audio <= 2  # the turn's member, and the piece that the clip lay in
    # What is packed from now on has no such conversation.
    after = str(tmp_path / "after")
    pack(str(corpus), after, recipe(), made.tokenizer)
    assert gone["clip_id"] not in json.dumps([facts.facts["turns"] for _, facts in documents(after)])
    assert funnel(after)["taken_down"] == 1


def test_lineage_leads_to_and_from_every_turn(made):
    opened, corpus = Pack.open(made.pack), Corpus.open(made.corpus)
    ((row, document),) = of_kind(made.pack, "conversation")
    for turn in row["turns"]:
        found = lineage(corpus, turn["clips"][0]["clip_id"].hex(), [opened])
        assert found["packs"][0]["splits"]["train"]["first"] == [row["key"]]
    found = lineage(corpus, row["key"], [opened])
    assert found["kind"] == "document"
    assert found["clips"]["num_rows"] == sum(len(turn["clips"]) for turn in row["turns"])
    assert {told["recording_id"] for told in found["recordings"]["first"]} == {document.turns[0].facts["recording_id"]}
    assert found["inputs"]["first"][0]["source"] == "made"


def test_exports_have_a_row_a_turn_and_energon_whole_documents(made, tmp_path):
    export(made.pack, "jsonl", str(tmp_path / "lines"), columns=["kind", "relation", "role"])
    rows = [json.loads(line) for line in (tmp_path / "lines" / "train.jsonl").read_text().splitlines()]
    found = documents(made.pack)
    assert len(rows) == sum(len(document.turns) for _, document in found)
    ((row, document),) = of_kind(made.pack, "conversation")
    own = [line for line in rows if line["id"].startswith(row["key"])]
    assert [line["id"] for line in own] == [f"{row['key']}-{number}" for number in range(4)]
    assert [line["text"] for line in own] == [turn.text for turn in document.turns]
    assert [line["role"] for line in own] == ["human", "assistant"] * 2
    assert all((tmp_path / "lines" / line["audio"]).exists() for line in own)
    silent = [line for line in rows if "audio" not in line]
    assert sorted(line["text"] for line in silent) == [CAT, CAT, BOOK, BOOK]
    export(made.pack, "energon", str(tmp_path / "energon"))
    (shard,) = (tmp_path / "energon" / "shards").glob("*.tar")
    assert shard.read_bytes() == Store(made.pack).read("shards/train-000000.tar")


def test_three_recordings_are_no_pair(made, light, tmp_path):
    lines = [json.loads(line) for line in (made.folder / "said" / "pairs.jsonl").read_text().splitlines()]
    rows = [{"uri": str(made.folder / "said" / line["uri"]), "source": "made", "pair_id": "p1"} for line in lines[2:5]]
    (tmp_path / "three.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    build([str(tmp_path / "three.jsonl")], str(tmp_path / "corpus"), light(annotators={}))
    with pytest.raises(RequestError, match="pair_id 'made:p1' is that of 3 recordings"):
        pack(str(tmp_path / "corpus"), str(tmp_path / "pack"), recipe(codes_from=None, text_from=["source"]))
