from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manifests.cli import app
from manifests.errors import RequestError

runner = CliRunner()


def run(*words: str, verb: str = "show") -> str:
    result = runner.invoke(app, [verb, *words], catch_exceptions=False)
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
    assert run(tiny_corpus, "--table", table).startswith(f"{table}: {num_rows} row")


def test_ids_are_shown_as_hex(tiny_corpus: str) -> None:
    row = json.loads(run(tiny_corpus, "--table", "clips", "--rows", "1", "--json"))["rows"][0]
    assert bytes.fromhex(row["clip.clip_id"])


def test_a_pack_is_told(tiny_pack: str) -> None:
    lines = run(tiny_pack)
    assert "2 documents" in lines
    assert "dropped (no_text) 4" in lines
    value = json.loads(run(tiny_pack, "--json"))
    assert (value["pack_id"], value["num_documents"]) == ("p0", 2)
    assert json.loads(run(tiny_pack, "--table", "train", "--json"))["num_rows"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["show", "{pack}", "--snapshot", "3"],
        ["show", "{pack}", "--table", "train", "--snapshot", "3"],
        ["query", "{pack}", "SELECT count(*) FROM documents", "--snapshot", "3"],
        ["diff", "{pack}@3", "{pack}"],
        ["audit", "{pack}", "--snapshot", "3"],
        ["expect", "{pack}", "--rules", "{rules}", "--snapshot", "3"],
        ["export", "{pack}", "--to", "jsonl", "--out", "{out}", "--snapshot", "3"],
    ],
)
def test_a_snapshot_is_of_no_pack(tiny_pack: str, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "rules.yaml").write_text("rules: [count = 2]")
    places = {"pack": tiny_pack, "rules": str(tmp_path / "rules.yaml"), "out": str(tmp_path / "out")}
    result = runner.invoke(app, [word.format(**places) for word in words])
    assert isinstance(result.exception, RequestError)  # exit code 2
    assert str(result.exception) == f"snapshot 3 is asked of {tiny_pack!r}, which is a pack and has none; leave it out"


def test_an_unknown_table_is_refused_with_those_there_are(tiny_corpus: str) -> None:
    with pytest.raises(RequestError, match=r"'words' is not one of clips, .*spans:vad, .*layer:asr"):
        run(tiny_corpus, "--table", "words")
    with pytest.raises(RequestError, match=r"'layer:words' is not one of clips, .*layer:asr"):
        run(tiny_corpus, "--table", "layer:words")
    with pytest.raises(RequestError, match="no corpus at"):
        run(tiny_corpus + "-none")


def test_rows_are_filtered_projected_and_sorted(tiny_corpus: str) -> None:
    words = (
        tiny_corpus,
        "--where",
        "language = en and snr_db >= 10",
        "--columns",
        "asr.text,duration_s",
        "--sort",
        "-duration_s",
    )
    value = json.loads(run(*words, "--rows", "2", "--json"))
    assert (value["num_rows"], value["hours"]) == (4, pytest.approx(19 / 3600))
    assert [row["clip.duration_s"] for row in value["rows"]] == [10.0, 4.0]
    lines = run(*words).splitlines()
    assert lines[0] == "clips: 4 rows, 19 s"
    assert lines[1].split() == ["asr.text", "clip.duration_s"]
    assert len(lines) == 6


def test_groups_have_rows_and_hours(tiny_corpus: str) -> None:
    value = json.loads(run(tiny_corpus, "--group-by", "language", "--json"))
    assert value["rows"] == [
        {"clip.language": "en", "rows": 4, "hours": pytest.approx(19 / 3600)},
        {"clip.language": "zh", "rows": 2, "hours": pytest.approx(2.5 / 3600)},
    ]
    assert json.loads(run(tiny_corpus, "--group-by", "language", "--sort", "rows", "--json"))["rows"][0]["clip.language"] == "zh"


def test_a_layer_shows_its_own_columns(tiny_corpus: str) -> None:
    value = json.loads(run(tiny_corpus, "--table", "layer:asr", "--json"))
    assert value["columns"] == ["clip.clip_id", "asr.status", "asr.error", "asr.text", "asr.confidence"]


def test_sql_is_asked_of_corpora_and_packs(tiny_corpus: str, tiny_pack: str, tmp_path: Path) -> None:
    sql = "SELECT language, sum(duration_s) AS s FROM clips GROUP BY 1 ORDER BY 1"
    value = json.loads(run(tiny_corpus, sql, "--json", verb="query"))
    assert value["rows"] == [{"language": "en", "s": 19.0}, {"language": "zh", "s": 2.5}]
    joined = "SELECT count(*) AS n FROM spans_vad JOIN recordings USING (recording_id)"
    assert json.loads(run(tiny_corpus, joined, "--json", verb="query"))["rows"] == [{"n": 6}]
    assert "1 row: " in run(tiny_pack, "SELECT count(*) FROM documents", "--out", str(tmp_path / "n.csv"), verb="query")


def test_requests_that_make_no_sense_are_refused(tiny_corpus: str) -> None:
    with pytest.raises(RequestError, match=r"--where 'snr_db <': expected a number"):
        run(tiny_corpus, "--where", "snr_db <")
    with pytest.raises(RequestError, match=r"'snr' is not in the clips.*snr_db"):
        run(tiny_corpus, "--columns", "snr")
    with pytest.raises(RequestError, match=r"exclude each other"):
        run(tiny_corpus, "--columns", "text", "--group-by", "text")
    with pytest.raises(RequestError, match=r"groups can be sorted by clip.language, rows, hours"):
        run(tiny_corpus, "--group-by", "language", "--sort", "snr_db")
    with pytest.raises(RequestError, match="has an empty name"):
        run(tiny_corpus, "--columns", "text,,language")


@pytest.mark.parametrize("verb", ["show", "query"])
def test_help_has_an_example(verb: str) -> None:
    assert f"Example: stepwell manifest {verb}" in runner.invoke(app, [verb, "--help"]).stdout


def test_json_holds_every_value_that_sql_gives(tiny_corpus: str) -> None:
    sql = "SELECT 'nan'::FLOAT AS n, DATE '2026-11-26' AS d, 1.50::DECIMAL(4, 2) AS e, clip_id, [1.5] AS l, sum(channel) OVER () AS s FROM clips LIMIT 1"
    row = json.loads(run(tiny_corpus, sql, "--json", verb="query"))["rows"][0]
    assert (row["n"], row["d"], row["e"], len(row["clip_id"]), row["l"], row["s"]) == ("nan", "2026-11-26", 1.5, 32, [1.5], 0)
