"""Units: bounded, complete, in order, and the same when a plan is replayed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manifests.store import Store
from pipeline.sources import Input
from pipeline.units import UnitsConfig, claim_plan, cut_units, plan_units, read_planned, read_plans

inputs = st.lists(st.integers(0, 500), max_size=40).map(lambda sizes: [Input(f"u{i:03d}", n, "1") for i, n in enumerate(sizes)])


@given(items=inputs, max_inputs=st.integers(1, 7), max_bytes=st.integers(1, 800))
def test_units_keep_order_and_bounds(items, max_inputs, max_bytes):
    units = cut_units(items, UnitsConfig(max_inputs=max_inputs, max_bytes=max_bytes))
    assert [item for unit in units for item in unit.inputs] == items
    for unit in units:
        assert 1 <= len(unit.inputs) <= max_inputs
        assert unit.num_bytes <= max_bytes or len(unit.inputs) == 1
    assert [unit.unit_id for unit in units] == sorted(unit.unit_id for unit in units)


def test_a_plan_is_replayed_and_new_inputs_make_new_units(tmp_path):
    store, config = Store(str(tmp_path)), UnitsConfig(max_inputs=2)
    first = [Input(f"a{i}", 1, "1", {"text": "hello"}) for i in range(3)]
    claimed = claim_plan(store, read_plans(store), lambda planned: plan_units(planned, first, config))
    planned = read_planned(store)
    assert planned == claimed
    assert [len(unit.inputs) for unit in planned] == [2, 1]
    assert planned[0].inputs[0].facts == {"text": "hello"}
    assert plan_units(planned, first, config) == []

    changed = Input("a0", 2, "2")  # the same place with new content is a new input
    new = plan_units(planned, [changed, *first], config)
    assert [unit.inputs for unit in new] == [(changed,)]
    assert new[0].unit_id.startswith("000002-")


def test_of_two_runs_that_plan_at_once_the_second_plans_again(tmp_path):
    store, config = Store(str(tmp_path)), UnitsConfig(max_inputs=2)
    items = [Input(f"a{i}", 1, "1") for i in range(5)]
    calls = []

    def plan(planned):
        calls.append(len(planned))
        if len(calls) == 1:  # another run plans the first three in between
            claim_plan(store, read_plans(store), lambda there: plan_units(there, items[:3], config))
        return plan_units(planned, items, config)

    units = claim_plan(store, read_plans(store), plan)
    assert calls == [0, 2]
    assert [item for unit in units for item in unit.inputs] == items
    assert claim_plan(store, read_plans(store), lambda planned: plan_units(planned, items, config)) == units


def test_what_is_taken_again_makes_new_units(tmp_path):
    config = UnitsConfig(max_inputs=2)
    items = [Input(f"a{i}", 1, "1") for i in range(3)]
    planned = plan_units([], items, config)
    assert [unit.inputs for unit in plan_units(planned, items, config, items[1:2])] == [(items[1],)]
