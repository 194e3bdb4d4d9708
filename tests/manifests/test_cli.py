from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from manifests.cli import app
from manifests.errors import RequestError

runner = CliRunner()


def run(*words: str) -> str:
    result = runner.invoke(app, ["show", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_corpus_is_told_in_lines_and_in_json(tiny_corpus: str) -> None:
    lines = run(tiny_corpus)
    assert "5 inputs: 1 refused, 0 kept in part" in lines
    assert "layers/turns/asr" in lines
    value = json.loads(run(tiny_corpus, "--json"))
    assert (value["num_recordings"], value["num_clips"], value["num_units"]) == (3, 6, 2)
    assert value["recording_hours"] == pytest.approx((130 + 4 + 4) / 3600)
    assert value["units_done"]["layers/turns/asr"] == 2
    assert len(value["outputs"]["spans/vad"]) == 16


@pytest.mark.parametrize(
    ("table", "num_rows"),
    [("clips", 6), ("recordings", 3), ("inputs", 5), ("quarantine", 1), ("spans:vad", 6), ("layer:asr", 6)],
)
def test_rows_of_every_table_are_shown(tiny_corpus: str, table: str, num_rows: int) -> None:
    value = json.loads(run(tiny_corpus, "--table", table, "--rows", "2", "--json"))
    assert value["num_rows"] == num_rows
    assert len(value["rows"]) == min(2, num_rows)
    assert run(tiny_corpus, "--table", table).startswith(f"{table}: {num_rows} rows")


def test_ids_are_shown_as_hex(tiny_corpus: str) -> None:
    row = json.loads(run(tiny_corpus, "--table", "clips", "--rows", "1", "--json"))["rows"][0]
    assert bytes.fromhex(row["clip_id"])


def test_a_pack_is_told(tiny_pack: str) -> None:
    lines = run(tiny_pack)
    assert "2 documents" in lines
    assert "dropped (no_text) 4" in lines
    value = json.loads(run(tiny_pack, "--json"))
    assert (value["pack_id"], value["num_documents"]) == ("p0", 2)
    assert json.loads(run(tiny_pack, "--table", "train", "--json"))["num_rows"] == 2


def test_an_unknown_table_is_refused_with_those_there_are(tiny_corpus: str) -> None:
    with pytest.raises(RequestError, match=r"'words' is not one of inputs, .*spans:vad, layer:asr"):
        run(tiny_corpus, "--table", "words")
    with pytest.raises(RequestError, match=r"'layer:words' is not one of inputs, .*layer:asr"):
        run(tiny_corpus, "--table", "layer:words")
    with pytest.raises(RequestError, match="no corpus at"):
        run(tiny_corpus + "-none")


def test_help_has_an_example() -> None:
    assert "Example: stepwell manifest show" in runner.invoke(app, ["show", "--help"]).stdout
