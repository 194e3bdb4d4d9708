from __future__ import annotations

import json
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import RequestError
from manifests.recipes import decode_recipe
from training.spikes import SIGMA, Action, Cause, SpikeRecipe, SpikeWatch, Verdict

SMALL = SpikeRecipe(window=16)


def noisy(num_steps: int, seed: int = 0) -> list[tuple[float, float]]:
    """Losses that fall as they do when a model learns, with norms that scatter by factors."""
    rng = random.Random(seed)
    return [
        (1.0 + 6.0 * math.exp(-step / 60) + rng.gauss(0, 0.1), 2.0 * math.exp(rng.gauss(0, 0.4))) for step in range(num_steps)
    ]


def watched(steps: list[tuple[float, float]], recipe: SpikeRecipe = SMALL) -> SpikeWatch:
    watch = SpikeWatch(recipe)
    for loss, norm in steps:
        assert watch.judge(loss, norm, {}).verdict is Verdict.STEP
    return watch


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_that_falls_with_noise_rings_nowhere(seed: int) -> None:
    assert watched(noisy(600, seed)).num_spikes == 0


def test_a_flat_curve_rings_at_no_trifle() -> None:
    """The deviation of equal losses is zero; the floor keeps a rounding error from being a spike."""
    watch = watched([(0.001, 1e-4)] * 16)
    assert watch.judge(0.15, 8e-4, {}).verdict is Verdict.STEP
    assert watch.judge(0.3, 1e-4, {}).cause is Cause.LOSS


@pytest.mark.parametrize(
    ("loss", "norm", "cause"),
    [
        (9.0, 2.0, Cause.LOSS),
        (1.0, 900.0, Cause.GRADIENT),
        (math.nan, math.nan, Cause.LOSS_NOT_FINITE),
        (math.inf, 2.0, Cause.LOSS_NOT_FINITE),
        (1.0, math.inf, Cause.GRADIENT_NOT_FINITE),
    ],
)
def test_spikes_ring_with_their_cause(loss: float, norm: float, cause: Cause) -> None:
    watch = watched(noisy(300))
    found = watch.judge(loss, norm, {})
    assert (found.verdict, found.cause, watch.num_spikes) == (Verdict.SKIP, cause, 1)
    assert watch.rings(loss, norm)
    assert not watch.rings(1.0, 2.0)


def test_what_falls_is_no_spike() -> None:
    assert watched(noisy(300)).judge(0.0, 0.0, {}).cause is None


def test_before_the_window_is_full_only_what_is_not_finite_rings() -> None:
    watch = watched([(1.0, 1.0)] * 15)
    assert watch.judge(50.0, 1.0, {}).verdict is Verdict.STEP
    assert SpikeWatch(SMALL).judge(math.nan, 1.0, {}).cause is Cause.LOSS_NOT_FINITE


def test_the_score_is_the_robust_one() -> None:
    losses = [1.0, 1.5, 1.7, 2.0, 2.1, 2.9, 3.0, 7.0] * 2
    watch = watched([(loss, 1.0) for loss in losses])
    middle = statistics.median(losses)
    deviation = SIGMA * statistics.median(abs(loss - middle) for loss in losses)
    assert watch.score(9.0, 1.0)[0] == pytest.approx((9.0 - middle) / deviation)


def test_a_spike_is_not_what_the_next_step_is_compared_with() -> None:
    watch = watched(noisy(300))
    before = watch.usual("loss")
    watch.judge(50.0, 2.0, {})
    assert watch.usual("loss") == before


def test_patience_counts_skips_one_after_the_other() -> None:
    watch = watched(noisy(300), SpikeRecipe(window=16, patience=2))
    verdicts = [watch.judge(loss, 2.0, {}).verdict for loss in (50.0, 50.0, 1.0, 50.0, math.nan, 50.0)]
    assert verdicts == ["skip", "skip", "step", "skip", "skip", "stop"]


def test_patience_counts_rollbacks_to_one_checkpoint() -> None:
    watch = watched(noisy(300), SpikeRecipe(window=16, patience=1, action=Action.ROLL_BACK))
    verdicts = []
    for loss in (50.0, 1.0, 50.0):
        verdicts.append(watch.judge(loss, 2.0, {}).verdict)
    assert verdicts == ["roll_back", "step", "stop"]
    watch.checkpointed()
    assert watch.judge(50.0, 2.0, {}).verdict is Verdict.ROLL_BACK


def test_no_action_but_to_stop() -> None:
    assert watched(noisy(300), SpikeRecipe(window=16, action=Action.STOP)).judge(50.0, 2.0, {}).verdict is Verdict.STOP


@given(st.integers(0, 120), st.lists(st.sampled_from([0.0, 30.0, math.nan]), max_size=6))
def test_a_watch_goes_on_from_any_step_as_if_it_had_not_stopped(stop: int, spikes: list[float]) -> None:
    steps = noisy(120)
    for place, loss in enumerate(spikes):
        steps[40 + 10 * place] = (loss, 2.0)
    recipe = SpikeRecipe(window=16, patience=6)
    whole, first, second = SpikeWatch(recipe), SpikeWatch(recipe), SpikeWatch(recipe)
    expected = [repr(whole.judge(*step, {})) for step in steps]
    found = [repr(first.judge(*step, {})) for step in steps[:stop]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found += [repr(second.judge(*step, {})) for step in steps[stop:]]
    assert found == expected
    assert second.state_dict() == whole.state_dict()


def test_another_stage_begins_anew_and_keeps_what_was_left_out() -> None:
    watch = watched(noisy(300))
    watch.leave_out(["b", "a", "b"])
    watch.leave_out(["a", "c"])
    watch.judge(math.nan, 1.0, {})
    watch.begin_stage()
    assert watch.judge(50.0, 900.0, {}).verdict is Verdict.STEP
    assert (list(watch.left_out), watch.num_spikes) == (["b", "a", "c"], 1)


def test_a_rollback_forgets_what_was_usual_since_and_nothing_else() -> None:
    watch = watched(noisy(100))
    at_checkpoint = watch.state_dict()
    for loss, norm in noisy(300)[100:]:
        watch.judge(loss, norm, {})
    watch.judge(math.nan, 1.0, {})
    watch.leave_out(["a"])
    watch.roll_back(at_checkpoint)
    state = watch.state_dict()
    assert state["accepted"] == at_checkpoint["accepted"]
    assert (state["num_spikes"], state["left_out"], state["in_a_row"]) == (1, ["a"], 1)


def test_usual_values_are_of_the_steps_that_had_the_column() -> None:
    watch = SpikeWatch(SMALL)
    for step in range(4):
        watch.judge(1.0, 1.0, {"loss_text": float(step)} if step else {})
    assert watch.usual("loss_text") == 2.0
    assert watch.usual("loss_audio_code") is None


@pytest.mark.parametrize(("key", "value"), [("action", "ignore"), ("window", 7), ("threshold", 0), ("patience", -1), ("warm", 3)])
def test_a_recipe_that_cannot_be_meant_is_refused(key: str, value: object) -> None:
    with pytest.raises(RequestError, match=key):
        decode_recipe(SpikeRecipe, json.dumps({key: value}), "spikes")
