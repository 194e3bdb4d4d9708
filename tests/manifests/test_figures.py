from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.corpus import Corpus
from manifests.figures import CURVE_POINTS, MAX_BINS, corpus_figures, cost_figures, curve, histogram, read_rows
from manifests.store import Store

values = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=50)


@given(values)
def test_every_value_is_in_one_bin(found: list[float]) -> None:
    made = histogram(found, "t")
    assert sum(made["counts"]) == made["num"] == len(found)
    assert 1 <= len(made["counts"]) <= MAX_BINS
    assert len(made["edges"]) == len(made["counts"]) + 1
    assert made["edges"][0] <= min(found) <= made["p50"] <= max(found) <= made["edges"][-1]


def test_no_values_no_bins() -> None:
    assert histogram([], "t", num_null=3) == {"title": "t", "num": 0, "num_null": 3, "edges": [], "counts": []}


@given(st.lists(st.floats(0, 100), max_size=500))
def test_a_curve_keeps_its_mean_and_few_points(losses: list[float]) -> None:
    points = curve(list(enumerate(losses)))
    assert len(points) == min(len(losses), CURVE_POINTS)
    if losses and len(losses) % CURVE_POINTS == 0:
        assert math.isclose(sum(v for _, v in points) / len(points), sum(losses) / len(losses), abs_tol=1e-6)


def test_hours_and_reasons_of_a_corpus(tiny_corpus: str) -> None:
    made = corpus_figures(Corpus.open(tiny_corpus), "vad")
    assert made["inputs"] == {"num": 5, "stored": 4, "partial": 0, "refused": 1}
    assert made["hours"]["recordings"] == pytest.approx(138 / 3600)
    assert made["hours"]["speech"] == pytest.approx((3 + 4 + 10 + 2 + 1 + 1.5) / 3600)
    assert made["quarantine"] == [{"reason": "not_audio", "outcome": "refused", "num": 1, "example": "not audio"}]
    assert [group["column"] for group in made["tags"]] == ["pitch_level", "rate_level", "loudness_level"]
    assert sum(row["num"] for row in made["tags"][0]["tags"]) == made["num_clips"] == 6
    assert {score["column"] for score in made["scores"]} >= {"dnsmos.dnsmos_ovrl", "signal.snr_db", "asr.confidence"}


def test_without_vad_speech_is_not_known(tiny_corpus: str) -> None:
    assert corpus_figures(Corpus.open(tiny_corpus), "other")["hours"]["speech"] is None


def test_costs_come_from_the_ledgers(tiny_corpus: str) -> None:
    made = cost_figures(Corpus.open(tiny_corpus), [{"step": "build", "wall_s": 2.5}, {"step": "train", "wall_s": 1.0}])
    assert (made["num_runs"], made["cpu_s"], made["wall_s"]) == (1, 4.5, 3.5)
    assert made["model_share"] == pytest.approx(2 / 3)
    assert made["parts"][0]["audio_s_per_cpu_s"] == pytest.approx(134 / 1.5)


def test_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_rows(Store(str(tmp_path)), "metrics.jsonl") == [{"step": 1}, {"step": 2}]
    assert read_rows(Store(str(tmp_path)), "none.jsonl") == []
