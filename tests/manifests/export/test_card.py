from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soundfile
from huggingface_hub import DatasetCard
from typer.testing import CliRunner

from manifests.cli import app
from manifests.contracts import ModelFact
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.export.card import front_matter, write_card
from manifests.export.card_facts import CardFacts, Group, corpus_facts
from manifests.export.card_limits import limits
from manifests.export.work import export
from manifests.packs import Pack, TakenDocuments, write_taken
from manifests.parts import PartFacts
from manifests.snapshots import publish_snapshot
from manifests.store import Store, json_bytes

mlcroissant = pytest.importorskip("mlcroissant")


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "card")


def page(out: str) -> DatasetCard:
    """README.md as the hub's own client reads it; it raises where the head is not YAML that it knows."""
    return DatasetCard.load(f"{out}/README.md")


def table(card: DatasetCard, heading: str) -> list[list[str]]:
    """Rows of the table below a heading, without the head of the table."""
    below = card.text.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def croissant_of(out: str) -> Any:
    """croissant.json, loaded and validated by `mlcroissant`: errors raise, and what it recommends is left over."""
    loaded = mlcroissant.Dataset(f"{out}/croissant.json")
    recommended = {"citeAs", "datePublished", "license", "version"}
    unexpected = [
        w for w in loaded.metadata.ctx.issues.warnings if not any(f'{name}" is recommended' in w for name in recommended)
    ]
    assert unexpected == []
    return loaded


def told(record: dict[str, Any]) -> dict[str, Any]:
    """A record without the name of its set before each field, text as text."""
    plain = {key.rpartition("/")[2]: value for key, value in record.items()}
    return {key: value.decode() if isinstance(value, bytes) and key != "audio" else value for key, value in plain.items()}


def test_the_card_of_a_corpus_is_what_its_rows_say(tiny_corpus: str, out: str) -> None:
    write_card(tiny_corpus, out, name="Tiny talk")
    card = page(out)
    assert card.data.to_dict() == {
        "pretty_name": "Tiny talk",
        "language": ["en", "zh"],
        "license": ["unknown"],
        "size_categories": ["n<1K"],
        "task_categories": ["automatic-speech-recognition"],
        "annotations_creators": ["found", "machine-generated"],
        "multilinguality": ["multilingual"],
        "tags": ["speech"],
    }
    assert table(card, "### By language") == [["en", "4", "0.00528", "88.4%"], ["zh", "2", "0.000694", "11.6%"]]
    assert table(card, "### By licence") == [["*not known*", "6", "0.00597", "100.0%"]]
    assert table(card, "### By speaker") == [["*not known*", "6", "0.00597", "100.0%"]]
    assert ["asr", "100.0%", "0.0%", "0.0%", "0.0%", "0.0%"] in table(card, "### Abstentions")
    assert "6 clips, 21.5 s of audio" in card.text
    assert "3 (50.0%) of the clips are of recordings whose source has no transcript." in card.text
    assert "No recipe is stored with it." in card.text
    assert "### By consent" in card.text
    assert "### By attribution" not in card.text  # nobody states any


def test_a_layer_that_no_unit_has_yet_is_no_fact(tiny_corpus: str, out: str, tmp_path: Path) -> None:
    corpus = Corpus.open(shutil.copytree(tiny_corpus, str(tmp_path / "corpus")))
    current = {**corpus.snapshot.current, "layers/turns/emotion": "f0"}
    publish_snapshot(corpus.store, replace(corpus.snapshot, number=1, current=current))
    write_card(corpus.store.uri, out)
    assert [row[0] for row in table(page(out), "### Abstentions")] == ["asr", "dnsmos", "signal", "style"]


def test_the_recipe_is_that_of_the_build_also_where_layers_were_added_since(tiny_corpus: str, out: str, tmp_path: Path) -> None:
    corpus = Corpus.open(shutil.copytree(tiny_corpus, str(tmp_path / "corpus")))
    corpus.store.write("runs/r1/recipe.json", json_bytes({"name": "offline", "store": {"sample_rate": "native"}}))
    corpus.store.write("runs/r2/recipe.json", json_bytes({"layers": {"emotion": {"kind": "emotion"}}}))  # as annotate has it
    write_card(corpus.store.uri, out)
    assert "name: offline" in page(out).text


def test_models_and_their_licences_are_named(tiny_corpus: str, out: str, tmp_path: Path) -> None:
    corpus = Corpus.open(shutil.copytree(tiny_corpus, str(tmp_path / "corpus")))
    models = (ModelFact("acme/ear|large", "abc123", "00", "apache-2.0"), ModelFact("acme/old", None, "01", None))
    PartFacts("whisper", "3", models, {}).write(corpus.store, "layers/turns/asr", corpus.fingerprint("layers/turns/asr"))
    write_card(corpus.store.uri, out)
    assert [row[:5] for row in table(page(out), "## How the labels were made")] == [
        ["layers/turns/asr", "whisper 3", "acme/ear\\", "large", "abc123"],  # escaped: Markdown reads one cell
        ["layers/turns/asr", "whisper 3", "acme/old", "not stated", "not stated"],
    ]
    assert json.loads(Path(out, "croissant.json").read_text())["rai:machineAnnotationTools"] == [
        "acme/ear|large at abc123",
        "acme/old",
    ]


def test_the_card_of_a_pack_has_its_splits_funnel_and_recipe(tiny_corpus: str, packed: str, out: str) -> None:
    write_card(packed, out, corpus_uri=tiny_corpus)
    card = page(out)
    assert sorted(row[:2] for row in table(card, "### By split")) == sorted(
        [split, str(Pack.open(packed).documents(split).num_rows)] for split in ("train", "test")
    )
    assert table(card, "### By source") == [["test", "6", "0.00597", "100.0%"]]
    assert table(card, "## What was left out")[0] == ["clips", "", "6", "0.00597"]
    assert [row[0] for row in table(card, "### By speaker")] == ["the most heard", "all 3"]
    assert card.data.task_categories == ["automatic-speech-recognition", "text-generation"]
    assert "5 (83.3%) of the texts were guessed by `asr`" in card.text
    assert "name: tiny" in card.text.split("```yaml")[1]


def test_croissant_leads_to_the_documents_of_a_pack(packed: str, out: str) -> None:
    write_card(packed, out)
    loaded = croissant_of(out)
    pack = Pack.open(packed)
    assert {record_set.name for record_set in loaded.metadata.record_sets} == {"documents_train", "documents_test"}
    for split in pack.splits:
        records = [told(record) for record in loaded.records(f"documents_{split}")]
        documents = pack.documents(split).to_pylist()
        assert [record["key"] for record in records] == [document["key"] for document in documents]
        assert [record["num_samples"] for record in records] == [document["num_samples"] for document in documents]
        assert [record["tasks"] for record in records] == [[b"asr", b"text"]] * len(documents)


def test_croissant_does_not_lead_to_documents_that_were_taken_down(packed: str, out: str, tmp_path: Path) -> None:
    pack = Pack.open(shutil.copytree(packed, str(tmp_path / "pack")))
    key = pack.documents("test")["key"][0].as_py()
    write_taken(pack.store, [TakenDocuments(["t0"], "asked to", "2026-11-26T12:00:00Z", pack.pack_id, [key])])
    write_card(pack.store.uri, out)
    assert croissant_of(out).metadata.record_sets == []
    assert "5 documents" in page(out).text


def test_a_card_in_an_export_keeps_its_files_and_leads_to_its_audio(
    tiny_corpus: str, clips: dict[str, np.ndarray], out: str, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    export(tiny_corpus, "datasets", out, where="language = 'en'")
    write_card(tiny_corpus, out)
    card = page(out)
    assert "lie 4 of these rows (train: 4), where `language = 'en'`" in card.text
    assert card.data.configs[0]["data_files"] == [{"split": "train", "path": "data/train/*.parquet"}]
    assert datasets.load_dataset(out, cache_dir=str(tmp_path / "cache"))["train"].num_rows == 4
    loaded = croissant_of(out)
    assert "Beside this file lie 4 of these rows" in loaded.metadata.description
    records = [told(record) for record in loaded.records("rows")]
    assert len(records) == 4
    for record in records:
        assert record["split"] == "train"
        audio, _ = soundfile.read(io.BytesIO(record["audio"]), dtype="int16")
        np.testing.assert_array_equal(audio, clips[record["id"]])


def test_the_card_of_a_corpus_describes_and_does_not_lead_to_hidden_rows(tiny_corpus: str, out: str) -> None:
    write_card(tiny_corpus, out)
    loaded = croissant_of(out)
    assert loaded.metadata.record_sets == []
    assert "`stepwell manifest export`" in loaded.metadata.description
    assert loaded.metadata.in_language == ["en", "zh"]


def test_plots_are_small_pictures_and_the_same_again(packed: str, tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    for out in (first, second):
        write_card(packed, out, name="x")
    for name in ("hours-by-language.png", "lengths.png", "funnel.png"):
        data = Path(first, "plots", name).read_bytes()
        assert Path(second, "plots", name).read_bytes() == data
        assert len(data) < 60_000
        picture = matplotlib.image.imread(io.BytesIO(data))
        assert picture.shape[1] == 768
        assert 0.02 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.6  # there is something on it


def test_licences_are_told_with_what_they_allow(tiny_corpus: str) -> None:
    groups = [Group("CC-BY-NC-4.0", 3, 2.0), Group("Our own terms", 2, 1.0), Group(None, 1, 1.0)]
    facts = corpus_facts(Corpus.open(tiny_corpus))
    facts = replace(facts, groups={**facts.groups, "licence": groups, "language": [Group("en", 6, 4.0)]})
    front = front_matter(facts, "x")
    assert front["license"] == ["cc-by-nc-4.0", "other", "unknown"]
    assert front["license_details"] == "Our own terms"
    assert front["multilinguality"] == ["monolingual"]
    assert "1 h (25.0%) of the audio states no licence." in limits(facts)


def test_a_card_of_nothing_known_says_so(tiny_corpus: str) -> None:
    unknown = {fact: [Group(None, 5, 1.0)] for fact in ("language", "source", "licence", "consent", "speaker", "synthesizer")}
    facts = CardFacts(kind="corpus", uri="x", origin={}, version=None, groups=unknown, lengths=[0] * 12, num_transcribed=0)
    assert front_matter(facts, "x") == {
        "pretty_name": "x",
        "license": ["unknown"],
        "size_categories": ["n<1K"],
        "annotations_creators": ["no-annotation"],
        "tags": ["speech"],
    }
    assert sum("1 h (100.0%)" in line for line in limits(facts)) == 5


def test_a_readme_that_no_card_wrote_stays(tiny_corpus: str, out: str) -> None:
    Store(out).write("README.md", b"# Mine\n")
    with pytest.raises(RequestError, match=r"holds a README.md that no card wrote"):
        write_card(tiny_corpus, out)
    assert Path(out, "README.md").read_bytes() == b"# Mine\n"
    assert Store(out).objects("") == ["README.md"]


def test_a_card_goes_over_the_one_before(tiny_corpus: str, out: str) -> None:
    write_card(tiny_corpus, out, name="First")
    write_card(tiny_corpus, out, name="Second")
    assert page(out).data.pretty_name == "Second"


def test_wrong_requests(tiny_corpus: str, packed: str, tiny_pack: str, out: str) -> None:
    with pytest.raises(RequestError, match="--corpus goes with a pack"):
        write_card(tiny_corpus, out, corpus_uri=tiny_corpus)
    with pytest.raises(RequestError, match="is a pack and has none; leave it out"):
        write_card(packed, out, snapshot=0)
    with pytest.raises(RequestError, match="the pack was made from None; give that one"):
        write_card(tiny_pack, out, corpus_uri=tiny_corpus)
    export(packed, "jsonl", out)
    with pytest.raises(RequestError, match=r"export at .* is of"):
        write_card(tiny_corpus, out)


def test_documents_without_audio_have_no_hours(tiny_pack: str, out: str) -> None:
    write_card(tiny_pack, out)
    assert table(page(out), "### By split") == [["train", "2", "2.78e-05", "100.0%"]]
    assert "The models behind the labels are not told by a pack alone" in page(out).text


def test_the_verb(packed: str, out: str) -> None:
    done = CliRunner().invoke(app, ["card", packed, "--out", out, "--json"])
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert value["num_rows"] == 6
    assert set(value["files"]) == set(Store(out).objects(""))
    assert CliRunner().invoke(app, ["card", "--help"]).output.count("Example: stepwell manifest card") == 1
