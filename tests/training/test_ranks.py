from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest
import torch

from manifests.errors import RequestError
from training.ranks import ALONE, Ranks, joined

SPEAK = """
import json, torch
from training.ranks import joined
torch.set_num_threads(1)
with joined() as ranks:
    given = torch.arange(3.0) + ranks.rank
    total = ranks.sum(given)
    ranks.barrier()
    print(json.dumps([ranks.rank, ranks.world, ranks.is_first, total.tolist(), total is given, ranks.gather({"rank": ranks.rank})]))
"""


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """As torchrun sets it."""
    named = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in named.items()}}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_ranks_sum_and_gather_in_their_order() -> None:
    port = free_port()
    started = [
        subprocess.Popen([sys.executable, "-c", SPEAK], env=environment(rank, 2, port), stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    assert told == [[rank, 2, rank == 0, [1.0, 3.0, 5.0], True, [{"rank": 0}, {"rank": 1}]] for rank in range(2)]


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
