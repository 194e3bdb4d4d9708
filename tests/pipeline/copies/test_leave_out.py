"""Packs without what decision tables leave out, and the verbs."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml
from typer.testing import CliRunner

import stepwell
from manifests.audit.work import audit_uri
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from pipeline.build import build
from pipeline.copies.dedup import dedup
from pipeline.copies.recipe import DedupConfig
from pipeline.pack import pack
from pipeline.recipe import PackRecipe


def recipe(**changes) -> PackRecipe:
    fields = {"name": "t", "text_from": ["source"], "require_text": False, "leave_out": ["duplicates"], **changes}
    return decode_recipe(PackRecipe, yaml.safe_dump(fields), "t")


@pytest.fixture(scope="module")
def deduplicated(corpus, tmp_path_factory):
    uri = shutil.copytree(corpus, str(tmp_path_factory.mktemp("leave-out") / "corpus"))
    return uri, dedup(uri, DedupConfig())


def test_a_pack_leaves_out_what_the_table_says_and_its_funnel_why(deduplicated, tmp_path):
    uri, result = deduplicated
    packed = pack(uri, str(tmp_path / "pack"), recipe(include_audio=False))
    dropped = {row["reason"]: row["num"] for row in packed.funnel if row["step"] == "dropped"}
    assert dropped == {f"duplicates.{reason}": num for reason, num in result.left_out.items()}
    rows = Corpus.open(uri).decisions("duplicates", "clips").to_pylist()
    stays = {row["clip_id"].hex() for row in rows if row["drop_reason"] is None}
    head = Pack.open(str(tmp_path / "pack"))
    assert set(head.documents("train")["key"].to_pylist()) == stays
    assert head.head["lineage"]["tables"] == {"duplicates": result.fingerprint}


def test_an_audit_tells_beforehand_what_the_pack_leaves_out(deduplicated, tmp_path):
    strict = recipe(include_audio=False, require_text=True, filters=[{"column": "clip.duration_s", "min": 5.0}])
    packed = pack(deduplicated[0], str(tmp_path / "pack"), strict)
    dropped = {row["reason"]: row["num"] for row in packed.funnel if row["step"] == "dropped"}
    (tmp_path / "pack.yaml").write_text(strict.model_dump_json())
    funnel = audit_uri(deduplicated[0], filters=str(tmp_path / "pack.yaml")).funnel
    assert [step["filter"] for step in funnel["steps"]] == ["duplicates.drop_reason", "no_text", "clip.duration_s<5"]
    copies = sum(num for reason, num in dropped.items() if reason.startswith("duplicates."))
    expected = [copies, dropped["no_text"], dropped["clip.duration_s<5"]]
    assert [step["dropped_clips"] for step in funnel["steps"]] == expected
    assert min(expected) > 0
    assert funnel["kept_clips"] == Pack.open(str(tmp_path / "pack")).documents("train").num_rows


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["contamination"],
            r"has no decision table 'contamination' \(tables: duplicates\); run `stepwell manifest decontaminate",
        ),
        (["duplicates", "copies"], "'copies'"),
    ],
)
def test_a_table_that_is_not_there_is_refused(deduplicated, tmp_path, names, message):
    with pytest.raises(RequestError, match=message):
        pack(deduplicated[0], str(tmp_path / "pack"), recipe(leave_out=names))
    assert not (tmp_path / "pack").exists()


def test_a_table_that_does_not_know_every_unit_is_refused(deduplicated, planted, recipe_of_build, tmp_path):
    uri = shutil.copytree(deduplicated[0], str(tmp_path / "corpus"))
    build([str(planted.folder / "ad.mp3")], uri, recipe_of_build)
    with pytest.raises(RequestError, match=r"'duplicates' lacks 1 of \d+ units; run `stepwell manifest dedup"):
        pack(uri, str(tmp_path / "pack"), recipe())


@pytest.fixture
def recipe_of_build(request):
    return request.getfixturevalue("recipe")


def test_the_verbs_answer_people_and_machines(deduplicated, corpus, tmp_path):
    uri, result = deduplicated
    runner = CliRunner()

    def answer(*arguments):
        return runner.invoke(stepwell.app, ["manifest", *arguments], catch_exceptions=False)

    told = answer("dedup", uri)
    assert told.exit_code == 0
    assert "was there already" in told.stdout
    assert "leave_out: [duplicates]" in told.stdout
    assert json.loads(answer("dedup", uri, "--json").stdout)["left_out"] == result.left_out
    with pytest.raises(RequestError, match="--by 'close'"):
        answer("dedup", uri, "--by", "close")
    with pytest.raises(RequestError, match="--least-share 2"):
        answer("dedup", uri, "--least-share", "2")
    # A corpus is its own registry: everything is contaminated.
    copied, proof = shutil.copytree(corpus, str(tmp_path / "corpus")), str(tmp_path / "proof.json")
    found = json.loads(answer("decontaminate", copied, "--registry", corpus, "--proof", proof, "--json").stdout)
    assert sum(found["contaminated"]["made"].values()) == found["num_clips"]
    assert f"proof {proof} holds" in answer("decontaminate", copied, "--check", proof).stdout
    dedup(copied, DedupConfig(content_layer="content"))
    assert answer("decontaminate", copied, "--check", proof).exit_code == 0  # another table says nothing of it
    changed = answer("decontaminate", copied, "--registry", corpus, "--by", "near")
    assert changed.exit_code == 0
    broken = answer("decontaminate", copied, "--check", proof)
    assert broken.exit_code == 1
    assert "proved was" in broken.stdout
