"""What a person sees: bars, times and sizes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import console
from manifests.console import Progress, aligned, bar, duration, fitting, hours, money, number, volume


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (5 * 3600 + 299, "5 h 04 min"), (200_000, "2 d 07 h")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("num_bytes", "said"), [(512, "512 B"), (3.4 * 2**20, "3.4 MiB"), (700 * 2**30, "700 GiB"), (2**50, "1 PiB")]
)
def test_volumes(num_bytes, said):
    assert volume(num_bytes) == said


def test_hours_and_money():
    assert [hours(value) for value in (0, 1e6, 1.5, 0.5, 0.001)] == ["0 h", "1,000,000 h", "1.5 h", "30 min", "3.6 s"]
    assert [money(value, "EUR") for value in (0, 0.001, 1.274, 39_682.1)] == ["0.00 EUR", "<0.01 EUR", "1.27 EUR", "39,682 EUR"]


def test_numbers():
    assert [number(value) for value in (None, 0.12345, 12.34, 1_234_567.8)] == ["-", "0.123", "12.3", "1,234,568"]


@given(total=st.integers(1, 10**9), done_share=st.floats(0, 1))
def test_a_bar_is_full_only_when_all_is_done(total, done_share):
    done = min(total, int(total * done_share))
    drawn = bar(done, total)
    assert len(drawn) == 20
    assert ("░" in drawn) == (done < total)


def test_columns_line_up():
    assert aligned([["part", "hours"], ["ingest", "7"]]) == ["part    hours", "ingest      7"]


def test_time_left_goes_by_weight_where_it_is_known(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with Progress(io.StringIO()) as bars:
        task = bars.task("asr", 4, "units", total_weight=100.0)
        assert task.eta_s is None
        clock[0] += 20
        task.advance(weight=10.0)  # a quarter of the units, a tenth of the bytes
        assert task.eta_s == pytest.approx(180.0)
        assert task.line() == "asr: 1/4 units, ETA 3 min 00 s"
        task.advance(3, weight=90.0)
        assert task.eta == ""


def test_what_was_done_before_does_not_make_the_rest_look_short(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with Progress(io.StringIO()) as bars:
        task = bars.task("train", 1000, "steps")
        task.go_on(900)
        assert task.eta_s is None
        clock[0] += 20
        task.advance(2, details=("loss 1.0", "text 2.0"))
        assert task.eta_s == pytest.approx(980.0)
        assert task.line() == "train: 902/1000 steps, ETA 16 min 20 s, loss 1.0, text 2.0"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_the_time_left():
    stream = Terminal()
    with Progress(stream) as bars:
        bars.task("asr", 4, "units").advance(note="0.5 h")
    assert "1/4" in stream.getvalue()
    assert "ETA" in stream.getvalue()


@pytest.mark.parametrize("columns", [40, 80])
def test_a_line_below_the_bars_has_as_many_details_as_fit(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    with Progress(stream) as bars:
        bars.task("train", 4, "steps").advance(details=["loss [1]", "a" * 20, "b" * 20])
    lines = stream.getvalue().splitlines()
    assert any("loss [1]  " + "a" * 20 in line for line in lines)
    assert any("b" * 20 in line for line in lines) == (columns == 80)


def test_cells_are_kept_from_the_first_on():
    assert [fitting(["aa", "bbbb", "c"], width) for width in (1, 2, 7, 8, 10, 11)] == [
        "",
        "aa",
        "aa",
        "aa  bbbb",
        "aa  bbbb",
        "aa  bbbb  c",
    ]


def test_bars_that_are_not_shown_print_nothing(monkeypatch):
    for stream in (Terminal(), io.StringIO()):
        with Progress(stream, is_shown=False) as bars:
            bars.task("train", 1, "steps").advance()
        assert stream.getvalue() == ""
