"""SQL over slices: what DuckDB says of the whole table, of the columns that the statement needs, and nothing else."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from manifests.errors import RequestError
from manifests.query import query, query_to
from manifests.sql_tables import sql_names
from tests.manifests.made_rows import MadeRows, made_clips

CLIPS = made_clips(300)


@pytest.fixture
def rows() -> MadeRows:
    return MadeRows(CLIPS, 37)


def test_bare_names_mean_what_they_mean_elsewhere_and_full_names_need_no_quotes(rows):
    names = sql_names(rows)
    assert (names["text"], names["asr.text"], names["snr_db"]) == ("input.text", "asr.text", "signal.snr_db")
    found = query(
        {"clips": rows}, "SELECT '你好' AS x, asr.text, clip.duration_s FROM clips WHERE asr.text LIKE 'heard 2%' LIMIT 1", 5
    )
    assert found.table.to_pylist() == [{"x": "你好", "asr.text": "heard 2", "duration_s": CLIPS["clip.duration_s"][2].as_py()}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT source, count(*) AS n, sum(duration_s) AS s FROM clips GROUP BY 1 ORDER BY 1",
        "SELECT language, num_peaks, max(snr_db) FROM clips WHERE duration_s > 4 GROUP BY ALL ORDER BY ALL",
        "WITH loud AS (SELECT clip_id, snr_db FROM clips WHERE snr_db > 22) SELECT count(*), avg(b.duration_s) FROM loud JOIN clips b USING (clip_id)",
        "SELECT count(*) FROM clips a JOIN clips b ON a.num_peaks = b.num_peaks AND a.clip_id < b.clip_id",
        "SELECT count(*) FROM clips",
        "SELECT max(clip_id) = unhex('') FROM clips WHERE clip_id > unhex('80')",
        "SELECT clip_id, row_number() OVER (ORDER BY duration_s) FROM clips WHERE language IN ('zh', 'de') ORDER BY 2",
    ],
)
def test_the_answer_is_that_of_the_whole_table(rows, sql):
    with duckdb.connect() as connection:
        names = {full: name for name, full in sql_names(rows).items()}
        connection.register("clips", CLIPS.rename_columns([names[full] for full in CLIPS.column_names]))
        expected = connection.sql(sql).fetchall()
    found = query({"clips": rows}, sql, 1000).table
    assert [tuple(row.values()) for row in found.to_pylist()] == [pytest.approx(row) for row in expected]


def test_only_the_columns_that_the_statement_needs_are_read(rows):
    query({"clips": rows}, "SELECT sum(duration_s) FROM clips WHERE signal.snr_db > 3 OR language = 'zh'", 1)
    assert rows.read_columns == {"clip.duration_s", "signal.snr_db", "clip.language"}


def test_the_first_rows_are_shown_and_that_there_are_more(rows):
    found = query({"clips": rows}, "SELECT clip_id FROM clips", 10)
    assert (found.table.num_rows, found.has_more) == (10, True)
    found = query({"clips": rows}, "SELECT clip_id FROM clips LIMIT 10", 10)
    assert (found.table.num_rows, found.has_more) == (10, False)


def test_all_rows_go_to_a_file(rows, tmp_path):
    tables = {"clips": rows}
    assert query_to(tables, "SELECT clip_id, snr_db FROM clips", str(tmp_path / "all.parquet")) == 300
    assert pq.read_table(tmp_path / "all.parquet")["snr_db"].to_pylist() == CLIPS["signal.snr_db"].to_pylist()
    assert query_to(tables, "SELECT language, duration_s FROM clips", str(tmp_path / "new" / "all.csv")) == 300
    assert pa.csv.read_csv(tmp_path / "new" / "all.csv").num_rows == 300


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT snr FROM clips", 'Referenced column "snr" not found.*snr_db'),
        ("SELECT * FROM words", "Table with name words does not exist.*the tables are clips"),
        ("SELECT FROM", "syntax error.*write one SELECT"),
        ("SELECT 1; SELECT 2", "2 statements; write one SELECT"),
        ("DROP TABLE clips", "write one SELECT"),
        ("SET threads = 9", "write one SELECT"),
        ("SELECT * FROM read_csv('/etc/hostname')", "file system operations are disabled"),
        ("SELECT * FROM '/etc/hostname.csv'", "disabled|does not exist"),
        ("SELECT sum(language) FROM clips", "No function matches"),
        ("SELECT 1 / duration_s::INTEGER FROM clips WHERE language::INTEGER = 3", "Could not convert"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(rows, tmp_path, sql, message):
    with pytest.raises(RequestError, match=message) as refused:
        query_to({"clips": rows}, sql, str(tmp_path / "out.parquet"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_of_another_kind_is_refused(rows, tmp_path):
    with pytest.raises(RequestError, match=r"ends in neither .parquet nor .csv"):
        query_to({"clips": rows}, "SELECT 1", str(tmp_path / "out.xlsx"))
    with pytest.raises(RequestError, match=r"'clip_id' cannot be written as CSV; .*hex\(clip_id\)"):
        query_to({"clips": rows}, "SELECT clip_id FROM clips", str(tmp_path / "out.csv"))
    assert not list(tmp_path.iterdir())
