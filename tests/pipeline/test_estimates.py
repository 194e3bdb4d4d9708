"""Scaling a sample up: exact where it must be, and intervals that hold the truth about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.estimates import totals
from pipeline.inputs import Input
from pipeline.sample import draw
from pipeline.units import UnitsConfig

INPUTS = st.lists(st.integers(1, 10**6), min_size=1, max_size=60)


def source(sizes: list[int]) -> list[Input]:
    return [Input(f"f{number}", size, "") for number, size in enumerate(sizes)]


@given(sizes=INPUTS, wanted=st.integers(1, 60), rate=st.floats(0.001, 10), fixed=st.floats(0, 5), num_units=st.integers(1, 100))
def test_what_grows_with_bytes_and_units_is_exact(sizes, wanted, rate, fixed, num_units):
    inputs = source(sizes)
    classes = draw(inputs, min(wanted, len(inputs)), UnitsConfig())
    facts = {unit.unit_id: {"cpu_s": fixed + rate * unit.num_bytes} for size in classes for unit in size.units}
    found = totals(classes, facts, {"cpu_s": fixed}, num_units).of("cpu_s")
    truth = fixed * num_units + rate * sum(sizes)
    assert found.value == pytest.approx(truth, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((truth, truth), rel=1e-6)


@given(sizes=INPUTS, seed=st.integers(0, 99))
def test_a_sample_of_everything_leaves_nothing_to_chance(sizes, seed):
    inputs, chance = source(sizes), np.random.default_rng(seed)
    classes = draw(inputs, len(inputs), UnitsConfig())
    facts = {u.unit_id: {"h": chance.exponential(), "n": chance.integers(5)} for size in classes for u in size.units}
    found = totals(classes, facts, {}, 7, ["n"])
    assert all(size.is_whole for size in classes)
    for name in ("h", "n"):
        truth = sum(unit[name] for unit in facts.values())
        estimate = found.of(name)
        assert (estimate.low, estimate.value, estimate.high) == pytest.approx((truth, truth, truth))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Eighty draws of 60 of 2000 inputs whose cost a byte varies by half: 90 % intervals, a few too narrow."""
    chance = np.random.default_rng(5)
    sizes = [int(size) for size in chance.lognormal(12, 1, 2000)]
    inputs = source(sizes)
    cost = {item.uri: item.num_bytes * chance.lognormal(0, 0.5) for item in inputs}
    truth, held = sum(cost.values()), 0
    for seed in range(80):
        classes = draw(inputs, 60, UnitsConfig(), seed)
        facts = {u.unit_id: {"cpu_s": sum(cost[item.uri] for item in u.inputs)} for size in classes for u in size.units}
        found = totals(classes, facts, {}, 10).of("cpu_s")
        held += found.low <= truth <= found.high
        assert found.value == pytest.approx(truth, rel=0.5)
    assert 0.75 <= held / 80 <= 0.98


def test_quantities_together_have_an_interval_of_their_own():
    """What moves against each other adds up to something steady."""
    inputs = source([100] * 40)
    classes = draw(inputs, 20, UnitsConfig())
    facts = {unit.unit_id: {"a": number % 2, "b": 1 - number % 2} for size in classes for number, unit in enumerate(size.units)}
    found = totals(classes, facts, {}, 1)
    assert found.of("a").low < found.of("a").high
    assert found.of("a", "b").low == pytest.approx(found.of("a", "b").high)
