"""Rights of whole sources from a file: they reach the inputs, never against what a row says; who may enter a pack."""

from __future__ import annotations

import json

import pytest
import yaml

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from pipeline.build import build
from pipeline.inputs import Input
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from pipeline.rights.source_rights import RightsFile
from pipeline.sources import list_inputs

RIGHTS = {"sources": {"talks": {"licence": "CC-BY-4.0", "consent": "granted"}, "calls/*": {"consent": "withheld"}}}


def rights_file(tmp_path, value) -> RightsFile:
    path = tmp_path / "rights.yaml"
    path.write_text(yaml.safe_dump(value))
    return RightsFile.read(str(path))


def test_a_source_gets_what_the_file_says_and_keeps_what_its_rows_say(tmp_path, capsys):
    rights = rights_file(tmp_path, {"sources": {**RIGHTS["sources"], "nobody": {"terms": "none"}}})
    inputs = [
        Input("a.wav", 1, "1", {"source": "talks", "licence": "CC-BY-4.0", "text": "hello"}),
        Input("b.wav", 1, "1", {"source": "calls/2024"}),
        Input("c.wav", 1, "1", {"source": "other"}),
    ]
    talk, call, other = (item.facts for item in rights.applied(inputs))
    assert (talk["licence"], talk["consent"], talk["text"]) == ("CC-BY-4.0", "granted", "hello")
    assert talk["facts_from"] == "rights file (consent of talks)"
    assert call == {"source": "calls/2024", "consent": "withheld", "facts_from": "rights file (consent of calls/*)"}
    assert other == {"source": "other"}
    assert "no input is of source 'nobody'" in capsys.readouterr().err


def test_a_row_that_says_otherwise_is_refused_by_its_address(tmp_path):
    rights = rights_file(tmp_path, RIGHTS)
    with pytest.raises(RequestError, match=r"'a\.wav'.*licence 'MIT', the rights file 'CC-BY-4\.0' for source 'talks'"):
        rights.applied([Input("a.wav", 1, "1", {"source": "talks", "licence": "MIT"})])


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"sources": {"a": {"consent": "yes"}}}, r"sources\.a\.consent"),
        ({"sources": {"a": {"license": "MIT"}}}, r"key 'sources\.a\.license' is unknown"),
        ({"sources": {"a": {}}}, "nothing is said"),
        ({"sources": {}}, "sources"),
    ],
)
def test_a_file_that_nobody_could_act_on_is_refused_by_its_key(value, match, tmp_path):
    with pytest.raises(RequestError, match=match):
        rights_file(tmp_path, value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RequestError, match="cannot be read"):
        RightsFile.read(str(tmp_path / "none.yaml"))


def test_a_consent_outside_the_closed_set_is_refused_by_its_row(tmp_path, recordings):
    manifest = tmp_path / "m.jsonl"
    rows = [{"uri": str(recordings / "tone.flac"), "consent": consent} for consent in ("granted", "maybe")]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RequestError, match=r"m\.jsonl' line 2: consent 'maybe' is not one of withheld, unknown, granted"):
        list_inputs([str(manifest)])


def test_facts_of_rights_reach_the_corpus_and_decide_who_enters_a_pack(tmp_path, recordings, light):
    first, second = sorted(recordings.glob("BAC*.wav"))
    said = [
        {"uri": str(first), "source": "talks", "text": "one"},
        {"uri": str(second), "source": "calls/2024", "text": "two"},
        {"uri": str(recordings / "conversation.wav"), "source": "other", "text": "three", "origin_uri": "https://example.org/o"},
    ]
    manifest, corpus = tmp_path / "m.jsonl", str(tmp_path / "corpus")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in said))
    build([str(manifest)], corpus, light(annotators={}), rights=rights_file(tmp_path, RIGHTS))
    inputs = {row["source"]: row for row in Corpus.open(corpus).inputs().to_pylist()}
    assert [inputs[name]["consent"] for name in ("talks", "calls/2024", "other")] == ["granted", "withheld", None]
    assert inputs["other"]["origin_uri"] == "https://example.org/o"

    def packed(name: str, **changes) -> tuple[set[str], set[str]]:
        recipe = decode_recipe(PackRecipe, yaml.safe_dump({"name": "t", "text_from": ["source"], **changes}), "t")
        made = pack(corpus, str(tmp_path / name), recipe)
        sources = {
            Pack.open(made.pack_uri).read(row["shard"], row["key"]).turns[0].facts["source"] for row in documents(made.pack_uri)
        }
        return sources, {row["reason"] for row in made.funnel if row["reason"]}

    assert packed("any", require_text=False) == ({"talks", "other"}, {"consent_withheld"})
    assert packed("consent", require_text=False, require_consent=True) == ({"talks"}, {"consent_withheld", "no_consent"})
    assert packed("licence", require_text=False, licences=["CC-BY-4.0"]) == ({"talks"}, {"consent_withheld", "no_licence"})
    assert packed("spelt", require_text=False, licences=["cc by 4.0"])[0] == {"talks"}
    assert packed("other", require_text=False, licences=["MIT"])[1] == {"consent_withheld", "no_licence", "licence_not_allowed"}


def documents(uri: str) -> list[dict]:
    return Pack.open(uri).documents("train").to_pylist()
