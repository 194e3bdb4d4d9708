"""Signs of life: who is at work in a corpus, and how long a run still takes."""

from __future__ import annotations

import os
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import MismatchError
from manifests.store import Store
from pipeline.heartbeat import SUMMED, Heartbeat, PartProgress, heartbeat_path, notice, others, read_heartbeats
from pipeline.processes import peak_rss_bytes, peaks_below


def write(store: Store, run_id: str, **changes: object) -> None:
    beat = Heartbeat(run_id, [PartProgress("ingest", 3)])
    for name, value in changes.items():
        setattr(beat, name, value)
    store.replace(heartbeat_path(run_id), beat.to_bytes())


def test_others_are_runs_of_other_processes_that_gave_a_sign_of_life(tmp_path):
    store, now = Store(str(tmp_path)), time.time()
    write(store, "ours")
    write(store, "elsewhere", host="far", started_at_s=now - 100)
    write(store, "beside-us", pid=os.getpid() + 1)
    write(store, "silent", host="far", updated_at_s=now - 61)
    write(store, "ended", host="far", state="done")
    assert [beat.run_id for beat in others(store)] == ["elsewhere", "beside-us"]
    assert read_heartbeats(store)[0].run_id == "elsewhere"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"run_id": "a", "parts": [1]}', "é".encode("latin-1")])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, content):
    store = Store(str(tmp_path))
    store.replace(heartbeat_path("torn"), content)
    with pytest.raises(MismatchError, match=r"^runs/torn/heartbeat\.json is damaged \(.*\); nothing rests on it, remove it$"):
        read_heartbeats(store)


def test_the_notice_names_run_host_pid_and_hour():
    beat = Heartbeat("r7", [], host="far", pid=12, started_at_s=0.0)
    said = notice(beat)
    assert said.startswith("another build (run r7 on far pid 12, started ")
    assert said.endswith("is working in this corpus: both are safe, units are committed once")


@given(
    shares=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    rate_s=st.floats(0.01, 100),
    num_workers=st.integers(1, 64),
    has_bytes=st.booleans(),
)
def test_time_left_is_exact_where_work_is_even(shares, rate_s, num_workers, has_bytes):
    """Parts at different shares of ten units, each unit ``rate_s`` of a worker, all workers busy."""
    parts = []
    for number, done in enumerate(shares):
        part = PartProgress(str(number), 10, num_input_bytes=70 if has_bytes else 0)
        part.num_done, part.num_input_bytes_done, part.wall_s = done, 7 * done, done * rate_s * (number + 1)
        parts.append(part)
    spent_s = sum(part.wall_s for part in parts)
    beat = Heartbeat("r", parts, started_at_s=1000.0, updated_at_s=1000.0 + spent_s / num_workers)
    left_s = sum((10 - done) * rate_s * (number + 1) for number, done in enumerate(shares)) / num_workers
    assert beat.eta_s == pytest.approx(left_s, rel=1e-5, abs=1e-6)


def test_time_left_is_unknown_before_every_part_has_done_a_unit():
    part = PartProgress("ingest", 10)
    assert Heartbeat("r", [part]).eta_s is None
    part.num_done, part.wall_s = 1, 1.0
    assert Heartbeat("r", [part, PartProgress("nothing to do", 0)]).eta_s is not None
    assert Heartbeat("r", [part, PartProgress("waits", 1)]).eta_s is None


def test_units_of_another_run_say_nothing_of_what_a_unit_takes():
    part = PartProgress("ingest", 8, 800)
    part.found(100)
    beat = Heartbeat("r", [part], started_at_s=1000.0, updated_at_s=1010.0)
    assert beat.eta_s is None
    part.add({**dict.fromkeys(SUMMED, 0), "wall_s": 10.0, "peak_rss_bytes": 1}, 100)
    part.found(200)
    assert (part.done_share, part.worked_share) == (0.5, 0.125)
    assert beat.eta_s == pytest.approx(40.0)  # four times the bytes that took ten seconds


def test_peaks_are_those_of_living_processes_below(tmp_path):
    held = 64 << 20
    read, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        block = bytearray(held)
        block[::4096] = b"1" * len(block[::4096])
        os.write(write_end, b"1")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(read, 1)
        peaks = peaks_below()
        _, peak = peaks[f"{socket.gethostname()}:{child}"]
        assert peak >= held
        assert f"{socket.gethostname()}:{os.getpid()}" not in peaks
        assert peak_rss_bytes() > 1 << 20
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
