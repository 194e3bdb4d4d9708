"""Drawing a sample: deterministic, in proportion, with long files in it, in units of one size class."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import RequestError
from pipeline.inputs import Input
from pipeline.sample import AT_LEAST, draw, sample_size
from pipeline.units import UnitsConfig

SIZES = st.lists(st.integers(0, 10**9), min_size=1, max_size=200)


@given(sizes=SIZES, wanted=st.integers(1, 100), seed=st.integers(0, 9))
def test_classes_hold_every_input_once_and_draws_are_theirs(sizes, wanted, seed):
    inputs = [Input(f"f{number}", size, "") for number, size in enumerate(sizes)]
    classes = draw(inputs, min(wanted, len(inputs)), UnitsConfig(), seed)
    assert sum(size.num_inputs for size in classes) == len(inputs)
    assert sum(size.num_bytes for size in classes) == sum(sizes)
    drawn = [item.uri for size in classes for unit in size.units for item in unit.inputs]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) <= {item.uri for item in inputs}
    ids = [unit.unit_id for size in classes for unit in size.units]
    assert ids == sorted(ids)
    for size in classes:
        assert size.num_drawn >= min(AT_LEAST, size.num_inputs)
        assert size.num_drawn <= size.num_inputs
    for smaller, larger in itertools.pairwise(classes):
        below = max(item.num_bytes for unit in smaller.units for item in unit.inputs)
        assert below <= min(item.num_bytes for unit in larger.units for item in unit.inputs)
    assert draw(list(reversed(inputs)), min(wanted, len(inputs)), UnitsConfig(), seed) == classes


def test_a_few_long_files_among_many_short_ones_are_drawn():
    inputs = [Input(f"short{n}", 100_000 + n, "") for n in range(10_000)] + [
        Input(f"long{n}", 500_000_000, "") for n in range(10)
    ]
    classes = draw(inputs, 100, UnitsConfig())
    drawn = [item for size in classes for unit in size.units for item in unit.inputs]
    assert any(item.uri.startswith("long") for item in drawn)
    # Not all of them: the sample stays a sample.
    assert sum(item.num_bytes for item in drawn) < 0.8 * sum(item.num_bytes for item in inputs)
    assert len(drawn) <= 120


def test_another_seed_draws_others():
    inputs = [Input(f"f{n}", 1000, "") for n in range(1000)]
    assert draw(inputs, 20, UnitsConfig(), 0) != draw(inputs, 20, UnitsConfig(), 1)


@pytest.mark.parametrize(("asked", "drawn"), [("0.1%", 5), ("100%", 5000), ("20", 20), ("0.001%", 1), ("9000", 5000)])
def test_sizes(asked, drawn):
    assert sample_size(asked, 5000) == drawn


@pytest.mark.parametrize("asked", ["0", "0%", "101%", "-3", "some", "1.5", "nan%"])
def test_wrong_sizes(asked):
    with pytest.raises(RequestError, match="neither a share"):
        sample_size(asked, 5000)
