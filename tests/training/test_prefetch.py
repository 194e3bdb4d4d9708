from __future__ import annotations

import collections
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch

from manifests.errors import WorkError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training.data import Batching, DocumentReader, StageData, stage_data
from training.documents import read_split
from training.examples import ExampleMaker
from training.layouts import Layouts
from training.prefetch import Prefetcher
from training.prompts import Prompts
from training.recipe import LossWeights, Task, TrainingRecipe


class Counted:
    """Data whose steps are numbers; ``action`` is done while each is worked out."""

    def __init__(self, action: Callable[[int], None] = lambda _: None) -> None:
        self.action, self.done = action, 0

    def next_step(self) -> Any:
        self.action(self.done + 1)
        self.done += 1
        return self.done

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.done = state["done"]


def take(data: Prefetcher) -> Any:
    """The next of ``Counted``'s steps."""
    return data.next_step()


def prefetching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert is_so()


def assert_same(one: Any, other: Any) -> None:
    """Every tensor of two batches the same bit for bit, and all else equal."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, list | tuple):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    else:
        assert one == other


@pytest.fixture
def make_data(chord_pack: Any, demo_recipe: TrainingRecipe) -> Callable[[int], StageData]:
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts())
    split = read_split(pack, "train", layouts, list(Task), demo_recipe.longest_sequence)

    def make(stage: int) -> StageData:
        reader, maker = DocumentReader(pack, 1 << 20), ExampleMaker(layouts, LossWeights())
        return stage_data(split, reader, maker, demo_recipe, demo_recipe.stages[stage], Batching(num_mels=40, pad_id=1))

    return make


@pytest.fixture(params=[1, 2])
def torch_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("stage", range(4))  # ctc, text and repeat, asr, tts and asr
def test_steps_and_the_states_behind_them_are_those_of_the_data(
    make_data: Callable[[int], StageData], stage: int, torch_threads: int
) -> None:
    plain, states = make_data(stage), []
    with Prefetcher(make_data(stage), 6, ahead=3) as data:
        assert data.state_dict() == plain.state_dict()
        for _ in range(6):
            assert_same(data.next_step(), plain.next_step())
            assert data.state_dict() == plain.state_dict()
            states.append(json.dumps(data.state_dict()))
    # Whatever the thread had worked out when the run was stopped is worked out again.
    for done in (1, 4):
        resumed, whole = make_data(stage), make_data(stage)
        resumed.load_state_dict(json.loads(states[done - 1]))
        whole.load_state_dict(json.loads(states[done - 1]))
        with Prefetcher(resumed, 6 - done) as data:
            for _ in range(6 - done):
                assert_same(data.next_step(), whole.next_step())
            assert json.dumps(data.state_dict()) == states[-1]


def test_the_thread_computes_with_the_threads_of_the_run(torch_threads: int) -> None:
    found = list[int]()
    with Prefetcher(Counted(lambda _: found.append(torch.get_num_threads())), 1) as data:
        data.next_step()
    assert found == [torch_threads]
    assert torch.get_num_threads() == torch_threads


def test_so_many_steps_ahead_and_none_behind_the_last() -> None:
    counted = Counted()
    with Prefetcher(counted, 5, ahead=2) as data:
        for taken in range(5):
            wait_until(lambda ahead=taken + 2: counted.done >= min(5, ahead))  # type: ignore[misc]
            time.sleep(0.01)  # a step too many would be worked out now
            assert counted.done == min(5, taken + 2)
            assert data.state_dict() == {"done": taken}
            assert take(data) == taken + 1
    assert counted.done == 5
    assert data.state_dict() == {"done": 5}


def test_an_error_is_raised_at_its_step_and_the_state_is_the_one_before() -> None:
    def fail(step: int) -> None:
        if step == 3:
            raise WorkError("shard 7 cannot be read")

    with Prefetcher(Counted(fail), 9, ahead=4) as data:
        assert [take(data), take(data)] == [1, 2]
        with pytest.raises(WorkError, match="shard 7"):
            data.next_step()
    assert data.state_dict() == {"done": 2}
    assert not prefetching_threads()


@pytest.mark.parametrize("num_steps", [0, 9])
def test_no_thread_is_left_behind_a_stage_or_an_error_in_it(num_steps: int) -> None:
    with pytest.raises(ZeroDivisionError), Prefetcher(Counted(), num_steps):
        _ = 1 / 0
    assert not prefetching_threads()
    with Prefetcher(Counted(), num_steps) as data:
        assert [take(data) for _ in range(num_steps)] == list(range(1, num_steps + 1))
    assert not prefetching_threads()


def test_ctrl_c_while_waiting_ends_the_wait_and_the_thread() -> None:
    begun = threading.Event()

    def interrupt(step: int) -> None:
        if step == 2:
            main = threading.main_thread().ident
            assert main is not None
            begun.wait()
            signal.pthread_kill(main, signal.SIGINT)

    counted, before = Counted(interrupt), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Prefetcher(counted, 9, ahead=3) as data:
            data.next_step()
            begun.set()
            with pytest.raises(KeyboardInterrupt):
                collections.deque(iter(data.next_step, None), maxlen=0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not prefetching_threads()
    assert counted.done < 9


def test_what_lies_ahead_may_be_worked_out_again_and_more_may_follow() -> None:
    worked: list[int] = []
    with Prefetcher(Counted(worked.append), 4, ahead=2) as data:
        assert take(data) == 1
        wait_until(lambda: worked == [1, 2, 3])
        data.work_out_again(num_more=3)
        assert data.state_dict() == {"done": 1}
        assert [take(data) for _ in range(6)] == [2, 3, 4, 5, 6, 7]
        assert worked == [1, 2, 3, 2, 3, 4, 5, 6, 7]


def test_an_error_ahead_is_forgotten_where_it_does_not_come_again() -> None:
    tries = collections.Counter[int]()

    def fail_once(step: int) -> None:
        tries[step] += 1
        if step == 2 and tries[step] == 1:
            raise WorkError("gone")

    with Prefetcher(Counted(fail_once), 3) as data:
        assert take(data) == 1
        wait_until(lambda: tries[2] > 0)
        data.work_out_again()
        assert [take(data), take(data)] == [2, 3]
