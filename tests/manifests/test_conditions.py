"""Conditions mean what SQL means by them, and say where they cannot be read."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.conditions import parse_condition
from manifests.errors import RequestError
from manifests.sql_tables import sql_names
from tests.manifests.made_rows import MadeRows, made_clips

CLIPS = made_clips(60)
ROWS = MadeRows(CLIPS)
ID = CLIPS["clip.clip_id"][3].as_py().hex()


def taken(condition: str) -> list[int]:
    """Numbers of the rows for which it is true."""
    mask = parse_condition(condition, ROWS).mask(CLIPS)
    return [i for i, value in enumerate(mask.to_pylist()) if value]


@pytest.fixture(scope="module")
def database():
    """The same rows in DuckDB."""
    with duckdb.connect() as connection:
        names = {full: name for name, full in sql_names(ROWS).items()}
        table = CLIPS.rename_columns([names[full] for full in CLIPS.column_names])
        connection.register("clips", table.append_column("row", pa.array(range(CLIPS.num_rows))))
        yield connection


numbers = st.one_of(st.integers(-5, 40), st.sampled_from([0.5, 12.25, 19.75, 3e1]))
languages = st.sampled_from(["'zh'", "'en'", "'fr'"])
tests = st.one_of(
    st.builds(
        lambda column, sign, value: f"{column} {sign} {value}",
        st.sampled_from(["duration_s", "snr_db", "num_peaks"]),
        st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="]),
        numbers,
    ),
    st.builds(
        lambda low, high, word: f"snr_db {word} {low} and {high}", numbers, numbers, st.sampled_from(["between", "not between"])
    ),
    st.builds(lambda values: f"language in ({', '.join(values)})", st.lists(languages, min_size=1, max_size=3)),
    st.builds(lambda value: f"language not in ({value})", languages),
    st.sampled_from(["text is null", "text is not null", "language = 'zh'", "is_truncated = true", "text like 'said _'"]),
)
conditions = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds(lambda a, b, word: f"({a} {word} {b})", inner, inner, st.sampled_from(["and", "or", "AND", "Or"])),
        st.builds(lambda a: f"not ({a})", inner),
        st.builds(lambda a, b, c: f"({a} or {b} and {c})", inner, inner, inner),
    ),
    max_leaves=8,
)


@given(conditions)
def test_a_condition_takes_the_rows_that_sql_takes(database, condition):
    expected = database.execute(f"SELECT row FROM clips WHERE {condition} ORDER BY row").fetchall()
    assert taken(condition) == [row for (row,) in expected]


def test_words_need_no_quotes_and_ids_are_hexadecimal():
    assert taken("language = zh") == taken("language = 'zh'") == taken('"clip.language" == zh')
    assert taken(f"clip_id = {ID}") == [3]
    assert taken("asr.text = 'heard 5'") == [5]


def test_only_the_named_columns_are_read():
    condition = parse_condition("snr_db < 3 and (language = zh or snr_db > 8)", ROWS)
    assert list(condition.columns) == ["signal.snr_db", "clip.language"]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("snr_db <", "expected a number, a text in '…' or a word at character 9, and it ends"),
        ("snr_db", "expected a comparison, 'between', 'in', 'like', 'is', 'not' at character 7, and it ends"),
        ("(snr_db < 3", r"expected '\)' at character 12, and it ends"),
        ("snr_db < 3 language = zh", "expected 'and', 'or' or the end at character 12, and there is 'language'"),
        ("snr_db ? 3", "at character 8, and there is '?'"),
        ("snr_db between 3 or 4", "expected 'and' at character 18, and there is 'or'"),
        ("language = 3", "column 'clip.language' holds text .*; '3' at character 12 of 'language = 3' is not one"),
        ("snr_db = loud", "column 'signal.snr_db' holds numbers; 'loud'"),
        ("is_truncated = 1", "holds true or false; '1'"),
        ("clip_id = abc", "holds ids .32 hexadecimal digits.; 'abc'"),
        ("snr_db like 3", "like is for text"),
        ("snr < 3", "column 'snr' is not in the clips of .*did you mean"),
        ("", "expected the name of a column at character 1, and it ends"),
        ("text = 'no end", 'at character 8, and there is "\'"'),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(condition, message):
    with pytest.raises(RequestError, match=message):
        parse_condition(condition, ROWS, "--where")
