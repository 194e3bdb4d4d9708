from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from pipeline.build import build
from pipeline.pack import pack
from pipeline.recipe import BuildRecipe, PackRecipe
from training.encoder_recipe import TagHead
from training.tags import UNKNOWN, tag_numbers

ANNOTATORS = ("prosody", "signal", "style", "rhythm", "paralinguistics", "caption")


@pytest.fixture(scope="module")
def corpus(
    recordings: Path, light: Callable[..., BuildRecipe], tiny_classifier: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The small recordings with every layer of paralinguistics and a classifier of events."""
    uri = str(tmp_path_factory.mktemp("paralinguistics") / "corpus")
    # Trained to tell tones from noise: which of the two it takes speech for does not matter here.
    sounds = {"Pure tone": "bell", "White noise": "noise"}
    event = {"kind": "audio_classifier", "dimension": "event", "model": tiny_classifier, "labels": sounds}
    annotators = {name: {"kind": name} for name in ANNOTATORS} | {"event": event}
    annotators["paralinguistics"] = {"kind": "paralinguistics", "classifiers": {"event": ["event"]}}
    build([str(recordings)], uri, light(units={"max_inputs": 10}, annotators=annotators))
    return uri


def test_a_build_puts_classifiers_and_measurements_into_tags_and_sentences(corpus: str, tiny_classifier: str) -> None:
    opened = Corpus.open(corpus)
    tags, captions = opened.layer("paralinguistics").to_pylist(), opened.layer("caption").to_pylist()
    assert {row["status"] for row in [*tags, *captions]} == {"ok"}
    for row, caption in zip(tags, captions, strict=True):
        assert row["vocal_activity"]["value"] == "speech"
        assert row["event"]["value"] in ("bell", "noise")
        assert row["event"]["source"] == tiny_classifier
        assert row["emotion"] is None
        assert f"with {'a bell' if row['event']['value'] == 'bell' else 'noise'} in the background" in caption["caption_en"]
        assert caption["caption_zh"].endswith("背景中有铃声。" if row["event"]["value"] == "bell" else "背景中有噪声。")
    part = opened.part(f"layers/{opened.clip_set}/event")
    assert part is not None
    assert [model.name for model in part.models] == [tiny_classifier]


def test_tags_and_sentences_go_into_packs(corpus: str, tmp_path: Path) -> None:
    import tarfile

    recipe = (
        "name: tagged\nrequire_text: false\ntext_from: [source]\ntags_from: [paralinguistics, caption]\ncaptions_from: caption"
    )
    pack([corpus], str(tmp_path / "pack"), decode_recipe(PackRecipe, recipe, "tagged"))
    opened = Pack.open(str(tmp_path / "pack"))
    assert opened.head["lineage"]
    (shard,) = (tmp_path / "pack" / "shards").glob("*.tar")
    with tarfile.open(shard) as tar:
        facts = [json.load(tar.extractfile(name)) for name in tar.getnames() if name.endswith(".json")]  # type: ignore[arg-type]
    assert facts
    for row in facts:
        (turn,) = row["turns"]
        (clip,) = turn["clips"]
        assert clip["tags"]["paralinguistics"]["pitch"]["source"] == "style"
        assert clip["tags"]["caption"]["caption_en"] == turn["caption_en"]
    rows = opened.documents("train").to_pylist()
    captions = {turn["caption_zh"] for row in rows for turn in row["turns"]}
    assert captions == {row["turns"][0]["caption_zh"] for row in facts}
    assert None not in captions
    assert all("captioning" in row["tasks"] for row in rows)
    # And the trainer's tag heads find them there.
    heads = {"event": TagHead(labels=("bell", "noise")), "pitch": TagHead(labels=("low", "mid", "high"))}
    numbers = set()
    for row in rows:
        document = opened.read(row["shard"], row["key"])
        told = document.turns[0].facts["clips"][0]["tags"]["paralinguistics"]
        found = tag_numbers(document, heads)
        for number, (name, head) in zip(found, heads.items(), strict=True):
            assert told[name]["value"] == (None if number == UNKNOWN else head.labels[number])
        numbers |= set(found)
    assert numbers - {UNKNOWN}
    wrong = decode_recipe(PackRecipe, recipe.replace("captions_from: caption", "captions_from: style"), "tagged")
    with pytest.raises(RequestError, match="captions_from names layer 'style', which has no captions"):
        pack([corpus], str(tmp_path / "wrong"), wrong)
