"""What training blames, left out by the next pack: by clip, counted by reason, and nothing of another corpus."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from typer.testing import CliRunner

import stepwell
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from manifests.snapshots import clips_output
from manifests.spikes import SPIKES, BlamedDocument, Spike, append_spike, keep_spikes, read_spikes
from pipeline.pack import pack
from pipeline.recipe import PackRecipe


def recipe(**changes) -> PackRecipe:
    fields = {"name": "t", "text_from": ["source"], "require_text": False, "include_audio": False, **changes}
    return decode_recipe(PackRecipe, yaml.safe_dump(fields), "t")


def spike(cause: str, documents: list[BlamedDocument], corpus: Corpus | None) -> Spike:
    """A row as a run on a pack of the corpus writes it."""
    return Spike(
        stage="tts",
        step=7,
        global_step=7,
        cause=cause,
        action="skip",
        loss=None,
        loss_z=None,
        grad_norm=None,
        grad_z=None,
        num_documents=9,
        documents=documents,
        pack_id="p",
        corpus_id=corpus and corpus.corpus_id,
        clips_fingerprint=corpus and corpus.fingerprint(clips_output(corpus.clip_set)),
    )


def blamed(key: str, clip_ids: list[str]) -> BlamedDocument:
    return BlamedDocument(key, "train-000000.tar", None, 1.0, None, clip_ids, ["00" * 16])


@pytest.fixture
def run(clean, tmp_path):
    """A run's folder whose rows blame the first two clips of a corpus, the first of them twice, and three that are not in it."""
    corpus = Corpus.open(clean)
    first, second = (clip.hex() for clip in corpus.clips().column("clip_id").to_pylist()[:2])
    for cause, keys in [
        ("loss_not_finite", [first]),
        ("loss", [first]),
        ("loss", ["ab" * 16]),
        ("gradient", [second, "cd" * 16]),
    ]:
        append_spike(str(tmp_path), spike(cause, [blamed(keys[0], keys)], corpus))
    append_spike(str(tmp_path), spike("loss", [], corpus))
    return tmp_path


def test_the_next_pack_does_without_them_and_its_funnel_says_why(clean, run, tmp_path):
    whole = pack(clean, str(tmp_path / "whole"), recipe())
    without = pack(clean, str(tmp_path / "without"), recipe(), leave_out=[str(run / SPIKES)])
    keys = [set(Pack.open(result.pack_uri).documents("train")["key"].to_pylist()) for result in (whole, without)]
    assert keys[0] - keys[1] == {clip.hex() for clip in Corpus.open(clean).clips().column("clip_id").to_pylist()[:2]}
    assert keys[1] < keys[0]
    dropped = {row["reason"]: row["num"] for row in without.funnel if row["step"] == "dropped"}
    assert dropped == {"spikes.loss_not_finite": 1, "spikes.gradient": 1}
    assert "  dropped for spikes.gradient: 1 clip, " in "\n".join(without.lines())
    assert whole.pack_id != without.pack_id
    named = Pack.open(without.pack_uri).head["recipe"]["leave_out_named"]
    assert sorted(named.values()) == ["spikes.gradient", "spikes.gradient", "spikes.loss", "spikes.loss_not_finite"]
    assert not pack(clean, str(tmp_path / "without"), recipe(leave_out_named=named)).is_new  # the recipe alone says it too


def test_the_command_takes_files_of_several_runs(clean, run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    third = Corpus.open(clean).clips().column("clip_id")[2].as_py().hex()
    append_spike(str(other), spike("loss", [blamed(third, [third])], Corpus.open(clean)))
    (tmp_path / "pack.yaml").write_text(recipe().model_dump_json())
    inputs = ["corpus", "pack", clean, "--out", str(tmp_path / "pack"), "--recipe", str(tmp_path / "pack.yaml"), "--json"]
    files = ["--leave-out", str(run / SPIKES), "--leave-out", str(other / SPIKES)]
    told = CliRunner().invoke(stepwell.app, [*inputs, *files], catch_exceptions=False)
    assert sum(row["num"] for row in json.loads(told.stdout)["funnel"] if row["step"] == "dropped") == 3


def test_documents_of_plain_text_are_known_by_their_keys(tmp_path):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": f"line {n}"}) for n in range(5)))
    text = decode_recipe(PackRecipe, yaml.safe_dump({"name": "t", "documents": [{"kind": "text"}], "text_from": ["source"]}), "t")
    source = str(tmp_path / "texts.jsonl")
    whole = Pack.open(pack(source, str(tmp_path / "whole"), text).pack_uri).documents("train")["key"].to_pylist()
    append_spike(str(tmp_path), spike("loss", [blamed(whole[3], [])], None))
    without = pack(source, str(tmp_path / "without"), text, leave_out=[str(tmp_path / SPIKES)])
    assert set(whole) - {whole[3]} == set(Pack.open(without.pack_uri).documents("train")["key"].to_pylist())
    assert {row["reason"]: row["num"] for row in without.funnel if row["reason"]} == {"spikes.loss": 1}


@pytest.mark.parametrize("change", ["folder", "line_chars", "other text", "recipe"])
def test_keys_of_plain_text_that_are_not_found_are_refused(tmp_path, change):
    """They move with the sources' common folder and with line_chars; a pack without them would be the same pack as before."""
    for name, words in (("a", "one"), ("b/more", "two")):
        path = tmp_path / "texts" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{words} and line {n}\n" for n in range(6)))

    def request(line_chars: int = 1, **changes) -> PackRecipe:
        fields = {"name": "t", "documents": [{"kind": "text", "line_chars": line_chars}], "text_from": ["source"], **changes}
        return decode_recipe(PackRecipe, yaml.safe_dump(fields), "t")

    (tmp_path / "other.txt").write_text("another\n")
    source, file, out = str(tmp_path / "texts/*.txt"), str(tmp_path / SPIKES), tmp_path / "without"
    keys = Pack.open(pack(source, str(tmp_path / "whole"), request()).pack_uri).documents("train")["key"].to_pylist()
    append_spike(str(tmp_path), spike("loss", [blamed(key, []) for key in keys[:2]], None))
    assert pack(source, str(out), request(), leave_out=[file]).num_documents["train"] == len(keys) - 2
    sources, asked, files, num = {
        "folder": ([source, str(tmp_path / "other.txt")], request(), [file], "0 of 2"),  # the folder above is common to both
        "line_chars": ([source], request(line_chars=40), [file], "0 of 2"),
        "other text": ([str(tmp_path / "texts/b/more.txt")], request(), [file], "0 of 2"),
        "recipe": ([source], request(leave_out_named={"ab": "by hand"}), [file], "2 of 3"),
    }[change]
    with pytest.raises(RequestError, match=f"{num} keys of plain text found; .* or leave the names out$"):
        pack(sources, str(tmp_path / "again"), asked, leave_out=files)
    assert not list(tmp_path.glob("again/**/*.*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"corpus_id": "0" * 8},
            r"is of a run on corpus 00000000, and this is corpus \w+; give the file of a run on a pack of the",
        ),
        ({"corpus_id": None}, "is of a run on plain text, and this is corpus"),
        ({"clips_fingerprint": "old"}, "names clips of clip set old, and the corpus has .* by now; name them in"),
        ({"format_version": 9}, "has format 9; this version reads 1"),
    ],
)
def test_a_file_of_another_source_is_refused(clean, tmp_path, changes, message):
    append_spike(str(tmp_path), replace(spike("loss", [], Corpus.open(clean)), **changes))
    with pytest.raises(RequestError, match=message):
        pack(clean, str(tmp_path / "pack"), recipe(), leave_out=[str(tmp_path / SPIKES)])
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize("content", ['{"loss": 1.0}', "no JSON", "[]", b"\xff\xfe"])
def test_a_file_that_is_none_is_refused(clean, tmp_path, content):
    (tmp_path / SPIKES).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RequestError, match=r"line 1 is no row of a run's spikes\.jsonl .*; give the spikes\.jsonl of a run"):
        pack(clean, str(tmp_path / "pack"), recipe(), leave_out=[str(tmp_path / SPIKES)])
    with pytest.raises(RequestError, match="does not exist"):
        pack(clean, str(tmp_path / "pack"), recipe(), leave_out=[str(tmp_path / "absent.jsonl")])


def test_rows_of_a_part_of_the_run_that_was_lost_go(run):
    before = list(read_spikes(str(run / SPIKES)))
    keep_spikes(str(run), 2)
    assert list(read_spikes(str(run / SPIKES))) == before[:2]
    keep_spikes(str(run / "nowhere"), 2)
