"""One pass: every slice is counted once, whatever runs it."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from manifests.errors import RequestError
from manifests.fold import FAN_IN, SLICES_A_TASK, fold
from manifests.rows import Slice


class Numbers:
    """The numbers up to ``num_slices * 10``, in slices of ten; picklable."""

    uri, table = "memory://numbers", "numbers"
    schema = pa.schema([("value", pa.int64()), ("unread", pa.int64())])

    def __init__(self, num_slices: int) -> None:
        self.slices = [Slice((), start * 10, start * 10 + 10) for start in range(num_slices)]

    def read(self, part: Slice, columns: list[str]) -> pa.Table:
        assert columns == ["value"]
        if part.start == 990:
            raise RequestError("slice 99 cannot be read")
        return pa.table({"value": range(part.start, part.stop)})


class Seen:
    """Every value in the order it was counted."""

    columns = ("value",)

    def __init__(self) -> None:
        self.values: list[int] = []

    def add(self, table: pa.Table) -> None:
        self.values += table["value"].to_pylist()

    def merge(self, other: Seen) -> None:
        self.values += other.values


class Total:
    columns = ("value",)

    def __init__(self) -> None:
        self.total = 0

    def add(self, table: pa.Table) -> None:
        self.total += pc.sum(table["value"]).as_py()

    def merge(self, other: Total) -> None:
        self.total += other.total


@pytest.fixture(scope="module")
def scheduler():
    """Address of a scheduler with two workers in this process."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("num_slices", [0, 1, SLICES_A_TASK, SLICES_A_TASK + 1, SLICES_A_TASK * FAN_IN + 1, 98])
def test_every_row_is_counted_once_in_order(num_slices):
    given = [Seen(), Total()]
    seen, total = fold(Numbers(num_slices), given)
    assert seen.values == list(range(num_slices * 10))
    assert total.total == sum(seen.values)
    assert given[0].values == []


def test_a_cluster_gives_the_same(scheduler):
    assert fold(Numbers(98), [Seen()], scheduler)[0].values == list(range(980))


def test_what_cannot_be_read_is_told_as_it_is(scheduler):
    for address in (None, scheduler):
        with pytest.raises(RequestError, match="slice 99 cannot be read"):
            fold(Numbers(100), [Seen()], address)


def test_a_scheduler_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("manifests.fold.ANSWER_WITHIN_S", 0.5)
    with pytest.raises(RequestError, match=r"scheduler 'tcp://127.0.0.1:1' does not answer .*; start one with `dask scheduler`"):
        fold(Numbers(1), [Seen()], "tcp://127.0.0.1:1")


def test_progress_is_told(capsys):
    fold(Numbers(SLICES_A_TASK * 3), [Seen()], title="audit")
    assert "audit: 3/3 parts" in capsys.readouterr().err
