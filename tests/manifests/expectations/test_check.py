"""A file of rules against a corpus: verdicts, the rows that are to blame, exit codes, and a cluster."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from manifests.cli import app
from manifests.errors import RequestError
from manifests.expectations.check import Expectations, check, has_failed
from tests.manifests.made_rows import MadeRows, made_clips

CLIPS = made_clips(120)
RULES = """
rules:
  - snr_db p05 >= 10
  - {rule: null share of asr.text <= 0.02, where: language = en, name: transcripts}
  - every: dnsmos_ovrl between 1 and 2.6
  - {rule: hours >= 10, severity: warning}
"""


def expected(*rules: object) -> Expectations:
    return Expectations.model_validate({"rules": list(rules)})


def outcomes(*rules: object, slice_rows: int = 7) -> list[str]:
    found = check(MadeRows(CLIPS, slice_rows), expected(*rules))
    return [outcome.verdict for outcome in found]


def run(uri: str, rules: str, folder: Path, *words: str) -> tuple[int, str]:
    (folder / "rules.yaml").write_text(rules)
    result = CliRunner().invoke(app, ["expect", uri, "--rules", str(folder / "rules.yaml"), *words])
    if isinstance(result.exception, RequestError):
        raise result.exception
    return result.exit_code, result.stdout


def test_yes_and_no_count_as_one_and_zero():
    truncated = CLIPS["recording.is_truncated"].to_pylist()
    for rule, num in (("is_truncated max <= 0", sum(truncated)), ("is_truncated min >= 1", truncated.count(False))):
        (outcome,) = check(MadeRows(CLIPS), expected(rule))
        assert (outcome.verdict, outcome.num_rows) == ("fails", num)
    assert outcomes("is_truncated p05 = 0", "is_truncated median >= 1") == ["holds", "fails"]


@pytest.mark.parametrize("slice_rows", [1, 7, 1000])
def test_failing_rows_are_named_and_counted(slice_rows):
    ids = [key.hex() for key in CLIPS["clip.clip_id"].to_pylist()]
    snr = CLIPS["signal.snr_db"].to_pylist()
    low = [key for key, value in zip(ids, snr, strict=True) if value is not None and value < 15]
    rules = [
        "every: snr_db >= 15",
        "snr_db p05 >= 15",
        "count of snr_db < 15 = 0",
        "min of snr_db >= 15",
        "share of snr_db < 15 <= 0.01",
    ]
    for outcome in check(MadeRows(CLIPS, slice_rows), expected(*rules)):
        assert (outcome.verdict, outcome.num_rows, outcome.rows) == ("fails", len(low), low[:5]), outcome.rule
    rules = ["null share of snr_db = 0", "share of snr_db is not null = 1", "every: snr_db is not null"]
    missing = [key for key, value in zip(ids, snr, strict=True) if value is None]
    for outcome in check(MadeRows(CLIPS, slice_rows), expected(*rules)):
        assert (outcome.verdict, outcome.num_rows, outcome.rows) == ("fails", len(missing), missing[:5]), outcome.rule


def test_nulls_are_abstentions_and_fail_no_row():
    assert outcomes("every: snr_db between -100 and 100", "every: snr_db > -100 or asr.text = x") == ["holds", "holds"]


def test_an_infinite_value_keeps_no_bound_and_one_that_is_no_number_is_none():
    table = pa.table({"clip.clip_id": list("abcde"), "signal.snr_db": [math.nan, 5.0, math.inf, 7.0, None]})
    rules = ["max of snr_db <= 9", "p99 of snr_db <= 9", "mean of snr_db <= 9", "min of snr_db >= 5"]
    found = [(outcome.verdict, outcome.rows) for outcome in check(MadeRows(table), expected(*rules))]
    assert found == [("fails", ["c"]), ("fails", ["c"]), ("fails", []), ("holds", [])]
    both = pa.table({"clip.clip_id": list("ab"), "signal.snr_db": [math.inf, -math.inf]})
    (torn,) = check(MadeRows(both), expected("mean of snr_db <= 9"))
    assert (torn.verdict, torn.line()) == ("undecided", "UNDECIDED mean of snr_db <= 9; it is nan")


def test_of_no_rows_nothing_holds_but_counts_and_every():
    scope = {"where": "language = fr"}
    rules = (
        {"rule": "mean of snr_db > 0", **scope},
        {"rule": "share of snr_db > 0 >= 0", **scope},
        {"rule": "count = 0", **scope},
    )
    assert outcomes(*rules, {"every": "snr_db > 900", **scope}) == ["fails", "fails", "holds", "holds"]
    only = check(MadeRows(CLIPS), expected(rules[0]))[0]
    assert "nothing to measure" in only.line()


def test_a_warning_does_not_fail_and_an_undecided_rule_does():
    found = check(MadeRows(CLIPS), expected({"rule": "count = 3", "severity": "warning"}))
    assert not has_failed(found)
    assert found[0].line().startswith("warning (fails) count = 3; it is 120")


def test_the_verb_says_which_rules_fail_and_why(tiny_corpus, tmp_path):
    code, lines = run(tiny_corpus, RULES, tmp_path, "--junit", str(tmp_path / "out.xml"))
    assert code == 1
    first, second, third, fourth = lines.splitlines()
    assert first == "ok        snr_db p05 >= 10; it is 10"
    assert second.startswith("ok        transcripts: null share of asr.text")
    assert third.startswith("FAILED    every dnsmos_ovrl between 1 and 2.6; 3 rows: ")
    assert fourth.startswith("warning (fails) hours >= 10")
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
    assert [[child.tag for child in case] for case in suite] == [[], [], ["failure"], ["skipped"]]
    code, value = run(tiny_corpus, "rules: [count = 6, snr_db max <= 25]", tmp_path, "--json")
    assert code == 0
    assert [row["verdict"] for row in json.loads(value)["rules"]] == ["holds", "holds"]


def test_other_tables_and_packs_have_rules_too(tiny_corpus, tiny_pack, tmp_path):
    assert run(tiny_corpus, "{table: recordings, rules: [hours > 0.03, max of peak <= 1]}", tmp_path)[0] == 0
    code, lines = run(tiny_corpus, "{table: inputs, rules: ['every: outcome = stored']}", tmp_path)
    assert (code, "1 row" in lines) == (1, True)
    assert run(tiny_pack, "rules: [count = 2, share of kind = clip = 0.5]", tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("rules: [snr p05 > 1]", "'snr' is not in the clips"),
        ("rules: [snr_db p05 >]", "rule 'snr_db p05 >': expected a number at character 13"),
        ("rules: [{rule: count = 1, every: snr_db > 1}]", "a rule has either 'rule' or 'every'"),
        ("rules: [{rule: count = 1, sevrity: error}]", "key 'rules.0.sevrity' is unknown"),
        ("rules: [{rule: mean of snr_db where language = zh > 1, where: source = x}]", "has a scope of its own"),
        ("rules: [{rule: count = 1, where: language}]", "where 'language': expected a comparison"),
        ("rules: []", "at least 1 item"),
        ("table: words\nrules: [count = 1]", "table 'words' is not one of"),
        ("rules: [", "is not YAML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tiny_corpus, tmp_path, rules, message):
    with pytest.raises(RequestError, match=message):
        run(tiny_corpus, rules, tmp_path, "--junit", str(tmp_path / "out.xml"))
    assert not (tmp_path / "out.xml").exists()


def test_a_file_that_is_not_there_is_refused(tiny_corpus):
    result = CliRunner().invoke(app, ["expect", tiny_corpus, "--rules", "none.yaml"])
    assert "'none.yaml' does not exist" in str(result.exception)


def test_a_cluster_finds_the_same(tiny_corpus):
    from distributed import Client, LocalCluster

    from manifests.open_rows import open_rows

    expectations = Expectations(
        rules=["snr_db p05 >= 10", "distinct clip_id = 6", "every: dnsmos_ovrl <= 2.6", "mean of duration_s > 3"]
    )
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster, Client(cluster):
        there = check(open_rows(tiny_corpus), expectations, cluster.scheduler_address)
    assert there == check(open_rows(tiny_corpus), expectations)
