"""The whole audit over made corpora: planted defects are all found, sums agree, clusters and slices change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from benchmarks.made_manifests import make_corpus
from benchmarks.made_plan import DEFECTS, Plan, planted_at
from manifests import unit_rows
from manifests.audit.figures import AuditFigures, audit, parse_figures
from manifests.audit.plan import plan_audit
from manifests.audit.recipe import AuditRecipe, Group, Threshold
from manifests.audit.work import audit_uri, lines_of, rows_at, with_filters
from manifests.cli import app
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.open_rows import corpus_rows
from manifests.recipes import decode_recipe, load_recipe
from manifests.rows import Slice

RECIPE = load_recipe(AuditRecipe, "manifests", "audit")
NUM_CLIPS, CAP_H = 4_000, 0.3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a corpus of 20 units, every fourth with a row of each defect."""
    uri = str(tmp_path_factory.mktemp("made") / "corpus")
    make_corpus(uri, Plan(NUM_CLIPS, unit_clips=200, clips_a_recording=5, plant_every=4, lacking=0.1), num_processes=1)
    return uri


@pytest.fixture(scope="module")
def figures(made: str) -> AuditFigures:
    return audit(rows_at(made), RECIPE)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_planted_row_is_found_and_no_other(figures, made, defect):
    found = [rule for rule in figures.rules if rule["rule"] == defect]
    assert sum(rule["num_clips"] for rule in found) == 5
    rows = [row for rule in found for row in rule["first"]]
    corpus = Corpus.open(made)
    planted = [corpus.snapshot.units[number] for number in range(0, 20, 4)]
    assert [row["unit"] for row in rows] == planted
    ids = corpus.clips()["clip_id"].to_pylist()
    place = planted_at()[defect]
    assert [row["clip_id"] for row in rows] == [ids[200 * number + place].hex() for number in range(0, 20, 4)]
    assert all(row["uri"].startswith("s3://speech/") and row["end_s"] - row["start_s"] < 31 for row in rows)


def test_rules_that_nothing_breaks_find_nothing(figures):
    clean = [rule for rule in figures.rules if rule["rule"] not in (*DEFECTS, "licence_missing")]
    assert len(clean) >= 4
    assert {rule["num_clips"] for rule in clean} == {0}
    assert {rule["num_checked"] for rule in figures.rules} == {NUM_CLIPS}


def test_sums_of_every_group_are_those_of_the_corpus(figures, made):
    corpus = Corpus.open(made)
    clips = corpus.clips()
    seconds = pc.divide(pc.cast(pc.subtract(clips["end_sample"], clips["start_sample"]), "float64"), clips["sample_rate_hz"])
    clip_h = pc.sum(pc.max_element_wise(seconds, 0.0)).as_py() / 3600
    assert figures.totals["num_clips"] == NUM_CLIPS
    assert figures.totals["clip_h"] == pytest.approx(clip_h)
    assert figures.totals["num_recordings"] == corpus.recordings().num_rows
    assert figures.totals["num_inputs"] == corpus.inputs().num_rows
    assert figures.groups
    for group in figures.groups:
        rows = [*group["rows"], *([group["rest"]] if group["rest"] else [])]
        assert sum(row["num_clips"] for row in rows) == NUM_CLIPS
        assert sum(row["clip_h"] for row in rows) == pytest.approx(clip_h)
        assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_licences_that_nobody_stated_are_counted_by_clip(figures, made):
    licence = corpus_rows(Corpus.open(made))
    nulls = sum(licence.read(part, ["input.licence"])["input.licence"].null_count for part in licence.slices)
    assert next(rule for rule in figures.rules if rule["rule"] == "licence_missing")["num_clips"] == nulls > 0


def test_gaps_of_layers_are_told_by_status(figures, made):
    corpus = Corpus.open(made)
    by_layer = {layer["layer"]: layer for layer in figures.layers}
    statuses = corpus.layer("dnsmos")["status"].to_pylist()
    for status in ("ok", "error", "gated"):
        assert by_layer["dnsmos"]["statuses"].get(status, {"num_clips": 0})["num_clips"] == statuses.count(status)
    assert by_layer["style"]["statuses"]["not_made"]["num_clips"] == 2 * 200
    assert by_layer["asr"]["errors"] == [
        {"code": "out_of_memory", "num_clips": corpus.layer("asr")["status"].to_pylist().count("error")}
    ]
    assert by_layer["dnsmos"]["models"] == [{"name": "dnsmos", "revision": "2", "licence": "MIT"}]


def test_speakers_above_the_cap_are_named(made):
    found = audit(rows_at(made), RECIPE.model_copy(update={"speaker_cap_h": CAP_H})).speakers
    rows = corpus_rows(Corpus.open(made))
    hours: dict[str | None, float] = {}
    for part in rows.slices:
        table = rows.read(part, ["clip.speaker", "clip.duration_s"])
        for speaker, seconds in zip(table["clip.speaker"].to_pylist(), table["clip.duration_s"].to_pylist(), strict=True):
            hours[speaker] = hours.get(speaker, 0.0) + max(0.0, seconds) / 3600
    unknown = hours.pop(None)
    over = {speaker: value for speaker, value in hours.items() if value > CAP_H}
    assert over
    assert {row["speaker"]: row["clip_h"] for row in found["over_cap"]} == pytest.approx(over)
    assert found["num_over_cap"] == len(over)
    assert found["beyond_cap_h"] == pytest.approx(sum(over.values()) - CAP_H * len(over))
    assert found["num_speakers"] == len(hours)
    assert found["unknown"]["clip_h"] == pytest.approx(unknown)


def test_slices_and_threads_change_nothing(made, figures, monkeypatch):
    monkeypatch.setattr(unit_rows, "SLICE_ROWS", 450)
    again = audit(rows_at(made), RECIPE)
    assert len(rows_at(made).slices) > 8
    assert _without_sketches(again) == _without_sketches(figures)


def test_a_cluster_gives_the_same(made, figures, monkeypatch, scheduler):
    monkeypatch.setattr(unit_rows, "SLICE_ROWS", 450)
    assert _without_sketches(audit(rows_at(made), RECIPE, scheduler)) == _without_sketches(figures)


def _without_sketches(made: AuditFigures) -> object:
    """The figures as they are compared: sums of floats to nine digits, without what a sketch estimates."""
    row = made.to_json()
    for distribution in row["distributions"]:
        del distribution["quantiles"]
    return _rounded({**row, "distinct": None})


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def test_the_earlier_model_is_a_drift(made):
    corpus = Corpus.open(made)
    found = audit(corpus_rows(corpus), RECIPE).drift["rows"]
    models = {row["column"]: row for row in found if row["kind"] == "model"}
    assert set(models) == {f"dnsmos.dnsmos_{part}" for part in ("sig", "bak", "ovrl", "p808")}
    assert models["dnsmos.dnsmos_ovrl"]["shift_std"] > 0.3
    assert models["dnsmos.dnsmos_sig"]["distance"] == 0


def test_figures_are_json_and_come_back(figures, made, tmp_path):
    written = audit_uri(made, figures=str(tmp_path / "figures"))
    data = (tmp_path / "figures/audit.json").read_bytes()
    json.loads(data, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    assert _without_sketches(parse_figures(data, "audit.json")) == _without_sketches(written)
    groups = pq.read_table(tmp_path / "figures/groups.parquet").to_pylist()
    sources = {row["key"][0]: row["clip_h"] for row in groups if row["group"] == "source"}
    assert sources == pytest.approx({row["key"][0]: row["clip_h"] for row in figures.groups[1]["rows"]})
    assert (tmp_path / "figures/funnel_what_ifs.parquet").exists()


def test_an_audit_against_itself_shows_no_drift_between_runs(made, tmp_path):
    audit_uri(made, figures=str(tmp_path))
    again = audit_uri(made, against=str(tmp_path / "audit.json"))
    runs = [row for row in again.drift["rows"] if row["kind"] == "run"]
    assert len(runs) == len(again.distributions)
    assert not any(row["is_drift"] or row["distance"] for row in runs)


def test_units_without_clips_add_nothing(made):
    rows = rows_at(made)
    tally = plan_audit(rows, RECIPE).tally
    tally.add(rows.read(rows.slices[0], tally.columns).slice(0, 0))
    assert tally.totals.num_clips == 0
    assert [group.rows().num_rows for group in tally.groups.values()] == [0] * len(tally.groups)
    assert {spread.figures()["mean"] for spread in tally.spreads} == {None}


def test_what_a_corpus_does_not_have_is_left_out_and_said(tiny_corpus):
    found = audit_uri(tiny_corpus)
    assert {"what": "distribution", "name": "prosody.pitch_hz", "why": "there is no prosody.pitch_hz"} in found.left_out
    assert found.totals["num_clips"] == Corpus.open(tiny_corpus).clips().num_rows
    assert any("left out" in line for line in lines_of(found))


def test_a_pack_is_audited_by_the_same_recipe(tiny_pack):
    found = audit_uri(tiny_pack)
    assert found.about["table"] == "documents"
    assert found.totals["num_clips"] == 2
    assert found.totals["clip_h"] == pytest.approx(0.1 / 3600)
    assert next(group for group in found.groups if group["name"] == "language")["num_groups"] >= 1
    assert found.totals["speech_h"] is None
    assert lines_of(found)[0] == f"{tiny_pack}: 2 documents, 0.1 s"
    assert found.holdings is None


def test_distinct_lists_are_refused_before_a_row_is_read(made):
    recipe = RECIPE.model_copy(update={"distinct": ["clip.speech_spans"]})
    with pytest.raises(RequestError, match=r"column 'clip.speech_spans' holds list<.*, whose values are not counted"):
        plan_audit(corpus_rows(Corpus.open(made)), recipe)


def test_a_pack_has_no_time(made):
    """Its shards are shuffled: parts of it would be splits under another name."""
    corpus, documents = corpus_rows(Corpus.open(made)), corpus_rows(Corpus.open(made))
    documents.table, documents.slices = "documents", [Slice((split,)) for split in ("train", "train", "test")]
    periods = [plan_audit(rows, RECIPE).tally.periods for rows in (corpus, documents)]
    assert [len(found.edges) if found else None for found in periods] == [9, 0]


def test_the_funnel_takes_a_pack_recipe_s_filters(made, tmp_path):
    path = tmp_path / "pack.yaml"
    path.write_text("name: speech\nfilters: [{column: dnsmos.dnsmos_ovrl, min: 3.0}]\nsplits: {train: 1.0}\n")
    found = audit_uri(made, filters=str(path)).funnel
    assert found["filters"] == ["no_text", "dnsmos.dnsmos_ovrl<3"]
    scores = Corpus.open(made).layer("dnsmos")["dnsmos_ovrl"]
    assert found["alone"][1]["dropped_clips"] == pc.sum(pc.less(scores, 3.0)).as_py()


def test_the_filters_of_a_shipped_pack_recipe_go_by_its_name(made):
    asked = with_filters(RECIPE, "speech")
    assert (asked.require_text, asked.text_from, asked.codes_from) == (True, ["source", "asr"], "codes")
    with pytest.raises(RequestError, match=r"recipe 'speach' is unknown; names are speech; a file ends in \.yaml"):
        with_filters(RECIPE, "speach")


def test_documents_of_a_pack_have_the_text_that_they_were_packed_with(tiny_pack):
    funnel = audit(rows_at(tiny_pack), RECIPE.model_copy(update={"require_text": True, "filters": []})).funnel
    assert (funnel["all_clips"], funnel["kept_clips"]) == (2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filters: [{column: dnsmos, min: 1}]", "filters.0.column"),
        ("[1, 2]", "it must be a mapping"),
        ("filters: [", "is not YAML"),
    ],
)
def test_a_pack_recipe_that_is_wrong_is_refused(tmp_path, text, message):
    path = tmp_path / "pack.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=message):
        with_filters(RECIPE, str(path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"filters": [Threshold(column="asr.text", min=1)]}, r"'asr\.text' holds string, and is asked for numbers"),
        ({"outliers": ["asr.language"]}, r"'asr\.language' holds string, and is asked for numbers"),
        ({"groups": [Group(name="spans", columns=["clip.speech_spans"])]}, r"'clip\.speech_spans' holds list.* grouped by"),
        ({"filters": [Threshold(column="signal.snr_db", min=1)] * 17}, "at most 16"),
    ],
)
def test_a_recipe_that_does_not_fit_the_columns_is_refused(made, changed, message):
    with pytest.raises(RequestError, match=message):
        audit(rows_at(made), RECIPE.model_copy(update=changed))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("groups: [{name: a, columns: [x.y]}, {name: a, columns: [x.z]}]", "two groups are named 'a'"),
        ("groups: [{name: a, columns: [quality]}]", "'quality', which is no band"),
        ("bands: [{name: a, column: x.y, edges: [2, 1]}]", "must rise"),
        ("distributions: [{column: x.y, title: t, low: 1, high: 1}]", "is not below high"),
        ("speaker_cap_s: 1", "'speaker_cap_s' is unknown"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(text, message):
    with pytest.raises(RequestError, match=message):
        decode_recipe(AuditRecipe, f"name: mine\n{text}", "mine.yaml")


def test_bad_requests_are_one_line_and_exit_code_2(made, tmp_path):
    (tmp_path / "old.json").write_text('{"format_version": 0}')
    (tmp_path / "none.json").write_text("[]")
    for arguments, message in (
        ([str(tmp_path / "nothing")], "no corpus at"),
        ([made, "--recipe", "none"], "recipe 'none' is unknown"),
        ([made, "--against", str(tmp_path / "gone.json")], "does not exist"),
        ([made, "--against", str(tmp_path / "old.json")], "have format 0"),
        ([made, "--against", str(tmp_path / "none.json")], "holds no figures of an audit"),
        ([made, "--split", "train"], "names a split of a pack"),
        ([made, "--filters", str(tmp_path / "gone.yaml")], "does not exist"),
    ):
        result = CliRunner().invoke(app, ["audit", *arguments])
        assert isinstance(result.exception, RequestError), result.output
        assert message in str(result.exception)


def test_the_verb_prints_lines_or_json(made):
    lines = CliRunner().invoke(app, ["audit", made])
    assert "impossible rows" in lines.output
    assert "hours by language" in lines.output
    as_json = CliRunner().invoke(app, ["audit", made, "--json"])
    assert json.loads(as_json.stdout)["totals"]["num_clips"] == NUM_CLIPS
