"""The arithmetic of the comparison's report; the comparison itself is a benchmark."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.recipe import BuildRecipe


@pytest.fixture
def sequential(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module: benchmarks import each other by name, as scripts of one folder do."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import sequential

    return sequential


def row(file: str = "a", start: int = 0, end: int = 10, text: str | None = "x", scores: Any = (1.0, 2.0)) -> dict[str, Any]:
    return {"file": file, "start_sample": start, "end_sample": end, "text": text, "scores": scores and list(scores)}


def test_shares_add_up_to_the_time_of_all_cpus(sequential: ModuleType) -> None:
    build = {
        "wall_s": 60.0,
        "cpu_s": 95.0,  # of the workers' ledger
        "driver_cpu_s": 2.0,
        "parts": {"asr": {"model_cpu_s": 50.0}, "dnsmos": {"model_cpu_s": 40.0}},
        "processes": [{"cpu_s": 97.0}, {"cpu_s": 3.0}],
    }
    found = sequential.shares(build, alone_cpu_s=100.0, num_cpus=2)
    assert found["outside_share"] == pytest.approx(0.10)
    assert found["outside_share_of_ledger"] == pytest.approx(5 / 95)
    assert found["wall_ratio"] == pytest.approx(1.2)
    whole = sum(found[name] for name in ("models_s", "parts_outside_models_s", "driver_s", "engine_s", "idle_s"))
    assert whole == pytest.approx(2 * 60.0)


def test_difference_counts_each_kind_apart(sequential: ModuleType) -> None:
    reference = [row(), row(start=20, end=30), row(start=40, end=50), row("b", scores=None), row("b", 20, 30)]
    rows = [
        row(scores=(1.0, 2.0005)),
        row(start=20, end=30, text="y"),
        row(start=41, end=50),
        row("b"),
        row("b", 20, 30, scores=(1, 3)),
    ]
    assert sequential.difference(reference, rows) == {
        "num_reference": 5,
        "num_rows": 5,
        "num_edges": 4,
        "num_text": 3,
        "num_scored": 3,
        "num_score": 2,
        "num_scored_by_one": 1,
        "max_score_distance": pytest.approx(1.0),
    }


def test_no_gate_is_left_and_no_part_that_only_a_gate_reads(sequential: ModuleType) -> None:
    from manifests.recipes import load_recipe

    shipped = load_recipe(BuildRecipe, "pipeline", "offline")
    assert any(config.when for config in shipped.segmenters.values())
    recipe = sequential.ungated(shipped)
    assert list(recipe.segmenters) == ["vad", "diarization"]
    assert not any(config.when for config in [*recipe.segmenters.values(), *recipe.annotators.values()])
    assert recipe.annotators.keys() == shipped.annotators.keys()


def test_a_call_in_its_own_process_is_seen_with_its_cpu_time(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    from own_process import in_own_process

    result, costs = in_own_process(sum, range(60_000_000))
    assert result == sum(range(60_000_000))
    assert max(cost.cpu_s for cost in costs) > 0.2
    assert all(cost.peak_rss_bytes > 0 for cost in costs)
