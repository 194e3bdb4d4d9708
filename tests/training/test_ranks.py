from __future__ import annotations

import json
import os
from typing import Any

import pytest
import torch

from manifests.errors import RequestError
from tests.training.launched import Launched, environment
from training.ranks import ALONE, Ranks, joined

SPEAK = """
import json, torch
from training.ranks import joined
torch.set_num_threads(1)
with joined() as ranks:
    given = torch.arange(3.0) + ranks.rank
    total = ranks.sum(given)
    ranks.barrier()
    gathered = ranks.gather({"rank": ranks.rank})
    if not ranks.is_first:
        print("only the first prints")
print(json.dumps([ranks.rank, ranks.world, ranks.is_first, total.tolist(), total is given, gathered]))
"""
# In a thread beside one that speaks too: what one rank fails at, all know.
AGREE = """
import json, os, threading
from training.ranks import joined
def work():
    if ranks.rank == 1:
        raise OSError(28, os.strerror(28))
    return ranks.rank
def speak():
    told.append(apart.agree(lambda: apart.rank))
    try:
        apart.agree(work)
    except OSError as error:
        told.append(error.strerror)
told = []
with joined() as ranks, ranks.apart() as apart:
    beside = threading.Thread(target=speak)
    beside.start()
    seen = [ranks.gather(n) for n in range(50)]
    beside.join()
print(json.dumps([told, seen == [[n, n] for n in range(50)]]))
"""


def told_by_two(program: str) -> list[Any]:
    """What each of two ranks prints."""
    return [json.loads(printed) for printed in Launched(["-c", program], 2).outputs(120.0)]


@pytest.mark.slow
def test_ranks_sum_and_gather_in_their_order() -> None:
    assert told_by_two(SPEAK) == [[rank, 2, rank == 0, [1.0, 3.0, 5.0], True, [{"rank": 0}, {"rank": 1}]] for rank in range(2)]


@pytest.mark.slow
def test_what_one_rank_fails_at_is_raised_on_all() -> None:
    assert told_by_two(AGREE) == 2 * [[[[0, 1], "No space left on device"], True]]


def test_alone_every_verb_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment(0, 1, 0).keys() - os.environ.keys():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as ranks:
        assert ranks == Ranks(0, 1, ranks.device)
        assert not torch.distributed.is_initialized()
    given = torch.ones(2)
    assert ALONE.sum(given) is given
    assert ALONE.gather("x") == ["x"]
    assert ALONE.agree(lambda: "x") == ["x"]
    with pytest.raises(ZeroDivisionError):
        ALONE.agree(lambda: 1 // 0)
    with ALONE.apart() as apart:
        assert apart is ALONE
    ALONE.barrier()
    assert ALONE.is_first


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"MASTER_PORT": None}, "WORLD_SIZE is set and MASTER_PORT not"),
        ({"RANK": "2"}, "must be whole numbers, RANK below WORLD_SIZE"),
        ({"WORLD_SIZE": "two"}, "must be whole numbers"),
    ],
)
def test_variables_of_a_launcher_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch, changes: Any, said: str) -> None:
    for name, value in {**environment(0, 2, 1), **changes}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=said), joined():
        pass
