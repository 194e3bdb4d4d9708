"""Rules are read as they are written, mean what numpy says, and errors say where."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import RequestError
from manifests.expectations.rules import parse_rule
from tests.manifests.made_rows import MadeRows, made_clips

CLIPS = made_clips(300)
ROWS = MadeRows(CLIPS)
SNR = CLIPS["signal.snr_db"].drop_null().to_numpy().astype(float)
HOURS = CLIPS["clip.duration_s"].to_numpy() / 3600
IS_ZH = np.array([language == "zh" for language in CLIPS["clip.language"].to_pylist()])


def measured(text: str, table: pa.Table = CLIPS) -> float | None:
    """The value that the rule finds, in two parts that are merged."""
    first, second = parse_rule(text, ROWS).measure, parse_rule(text, ROWS).measure
    first.add(table.slice(0, table.num_rows // 3))
    second.add(table.slice(table.num_rows // 3))
    first.merge(second)
    return first.value


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ("count", 300),
        ("count of language = zh", IS_ZH.sum()),
        ("count where not language = zh", sum(language in ("en", "de") for language in CLIPS["clip.language"].to_pylist())),
        ("hours", HOURS.sum()),
        ("hours of language = zh", HOURS[IS_ZH].sum()),
        ("share of language = zh", IS_ZH.mean()),
        ("share of hours of language = zh", HOURS[IS_ZH].sum() / HOURS.sum()),
        ("null share of asr.text", CLIPS["asr.text"].null_count / 300),
        ("mean of snr_db", SNR.mean()),
        ("snr_db min", SNR.min()),
        ("max of snr_db", SNR.max()),
        ("duration_s sum", HOURS.sum() * 3600),
        ("p05 of snr_db", np.percentile(SNR, 5, method="inverted_cdf")),
        ("snr_db p99.9", np.percentile(SNR, 99.9, method="inverted_cdf")),
        ("median of snr_db", np.percentile(SNR, 50, method="inverted_cdf")),
        ("distinct source", 2),
        ("distinct of clip_id", 300),
        ("max of is_truncated", 1),
    ],
)
def test_measures_are_what_they_are_called(measure, value):
    assert measured(f"{measure} >= 0") == pytest.approx(value)


def test_a_scope_and_a_condition_may_end_before_the_test():
    rule = parse_rule("snr_db p05 where language = zh and duration_s between 1 and 5 between 2 and 9", ROWS)
    assert rule.where is not None
    assert (rule.requirement.sign, rule.requirement.numbers) == ("between", (2.0, 9.0))
    assert parse_rule("count where duration_s > 30 == 0", ROWS).requirement.numbers == (0.0,)
    assert parse_rule('"signal.snr_db" max < 90', ROWS).measure.columns == ("signal.snr_db",)


@given(
    values=st.lists(st.integers(-3, 3) | st.sampled_from([math.inf, -math.inf]), min_size=1, max_size=40),
    share=st.sampled_from(["p05", "p10", "p25", "median", "p90", "p99.9"]),
    bound=st.integers(-3, 3),
    sign=st.sampled_from(["<", "<=", "=", "!=", ">", ">="]),
)
def test_the_verdict_on_a_quantile_is_exact(values, share, bound, sign):
    rule = parse_rule(f"{share} of snr_db {sign} {bound}", ROWS)
    rule.measure.add(pa.table({"signal.snr_db": pa.array([*map(float, values), math.nan, None], pa.float32())}))
    q = {"median": 50.0}.get(share) or float(share[1:])
    true = np.percentile(values, q, method="inverted_cdf")
    expected = {
        "<": true < bound,
        "<=": true <= bound,
        "=": true == bound,
        "!=": true != bound,
        ">": true > bound,
        ">=": true >= bound,
    }
    assert rule.requirement.holds(rule.measure) == expected[sign]


def test_it_is_exact_where_the_sketch_is_not():
    random = np.random.default_rng(1)
    values = random.normal(0, 1, 400_000)
    true = float(np.percentile(values, 5, method="inverted_cdf"))
    table = pa.table({"clip.duration_s": values})
    for bound, holds in ((true, True), (math.nextafter(true, 9), False)):
        rule = parse_rule(f"p05 of duration_s >= {bound!r}", ROWS)
        rule.measure.add(table)
        assert rule.requirement.holds(rule.measure) is holds
        assert rule.measure.error.startswith("rank within 0.")
        rank = pc.sum(pc.less_equal(table["clip.duration_s"], rule.measure.value)).as_py() / len(values)
        assert abs(rank - 0.05) < 0.005


def test_a_distinct_count_near_the_bound_is_not_decided():
    table = pa.table({"input.source": [f"s{i}" for i in range(100_000)]})
    measures = {bound: parse_rule(f"distinct source >= {bound}", ROWS) for bound in (90_000, 100_000, 110_000)}
    for rule in measures.values():
        rule.measure.add(table)
    assert [rule.requirement.holds(rule.measure) for rule in measures.values()] == [True, None, False]
    assert measures[100_000].measure.value == pytest.approx(100_000, rel=0.02)
    assert "between" in measures[100_000].measure.error
    few = parse_rule("distinct source = 300", ROWS)
    few.measure.add(table.slice(0, 300))
    assert few.requirement.holds(few.measure) is True


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("snr_db p05", "expected a comparison with a number, or 'between' at character 11, and it ends"),
        ("snr_db p05 >= high", "expected a number at character 15, and there is 'high'"),
        ("snr_db p500 >= 1", "expected a percentile .p05., median, mean, min, max, sum at character 8, and there is 'p500'"),
        ("snr_db >= 1", "at character 8, and there is '>='"),
        ("share of language <= 0.5", "column 'clip.language' holds text"),
        ("share language = zh <= 0.5", "expected 'of' at character 7"),
        ("null share asr.text <= 1", "expected 'of' at character 12"),
        ("p05 of language > 1", "column 'clip.language' holds string; p05 is of numbers"),
        ("snr p05 > 1", "column 'snr' is not in the clips of .*did you mean"),
        ("snr_db p05 between 9 and 2", "nothing is between 9 and 2; write the smaller number first"),
        ("count == 3 or more", "expected the end at character 12, and there is 'or'"),
        ("every: snr_db between 1", "expected 'and' at character 24, and it ends"),
        ("snr_db p05 between 3 and", "expected a number at character 25, and it ends"),
        ("", "expected a measure .count, hours, .* at character 1, and it ends"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(rule, message):
    with pytest.raises(RequestError, match=message):
        parse_rule(rule, ROWS)


def test_lists_are_not_counted_as_distinct_values():
    rows = MadeRows(pa.table({"asr.words": [[{"word": "a"}]]}))
    with pytest.raises(RequestError, match=r"column 'asr.words' holds list<.*; distinct is of single values"):
        parse_rule("distinct asr.words < 9", rows)


def test_rows_without_a_length_have_no_hours():
    with pytest.raises(RequestError, match="the inputs have no length; count rows instead"):
        parse_rule("hours > 3", MadeRows(pa.table({"uri": ["a"]}), name="inputs"))


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["snr_db", "p05", "share", "of", "(", "and", "3", "<", "zh", "'", "every"]), max_size=8).map(
        " ".join
    )
)
def test_whatever_is_written_is_a_rule_or_an_error_of_the_request(text):
    with suppress(RequestError):
        parse_rule(text, ROWS)
