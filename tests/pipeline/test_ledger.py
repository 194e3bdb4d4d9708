"""The ledger while a run works, after it ended, and after it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from manifests.schema import LEDGER
from manifests.store import Store
from pipeline import ledger as module
from pipeline.heartbeat import others, read_heartbeat
from pipeline.ledger import RunLedger, read_ledger


def row(part: str = "ingest", unit: str = "000000-aa", **changes: object) -> dict[str, object]:
    """A LEDGER row: a minute of audio in two seconds."""
    base = {
        "part": part,
        "unit": unit,
        "worker": "there:7",
        "started_at_s": 1e9,
        "audio_s": 60.0,
        "wall_s": 2.0,
        "cpu_s": 1.5,
        **dict.fromkeys(("gated_audio_s", "carried_audio_s", "gpu_s", "setup_s"), 0.0),
        "model_cpu_s": 1.0,
        "num_rows": 4,
        "num_errors": 1,
        "num_bytes": 100,
        "peak_rss_bytes": 5 << 20,
    }
    return {name: {**base, **changes}.get(name) for name in LEDGER.names}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "corpus"))


@pytest.fixture
def _at_once(monkeypatch):
    """Every event writes: what 5 s and 30 s do in a run."""
    monkeypatch.setattr(module, "BEAT_EVERY_S", 0.0)
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0.0)


@pytest.mark.usefixtures("_at_once")
def test_rows_and_progress_are_there_while_the_run_works(store):
    with RunLedger(
        store, "r", {"ingest": 3, "spans/vad": 3}, unit_bytes={"a": 10, "b": 30}, total_bytes={"ingest": 50}
    ) as ledger:
        ledger.add(row(unit="a"))
        ledger.tick(num_in_flight=2, workers={"signal": 2}, num_cpus=2)
        assert read_ledger(store, "r")["unit"].to_pylist() == ["a"]
        ledger.add(row(unit="b", peak_rss_bytes=9 << 20))
        beat = read_heartbeat(store, "r")
        assert read_ledger(store, "r")["unit"].to_pylist() == ["a", "b"]
        part = beat.parts[0]
        assert (beat.state, beat.num_in_flight, beat.workers, beat.num_cpus) == ("running", 2, {"signal": 2}, 2)
        assert (part.num_done, part.num_units, part.audio_s, part.num_errors) == (2, 3, 120.0, 2)
        assert part.done_share == 40 / 50
        assert beat.processes["there:7"] == ("worker", 9 << 20)
        assert beat.processes[f"{beat.host}:{os.getpid()}"][0] == "driver"
        assert beat.eta_s is None  # the VAD has not finished a unit: nobody knows what it takes
    assert (read_heartbeat(store, "r").state, read_heartbeat(store, "r").num_in_flight) == ("done", 0)
    assert read_ledger(store, "r").num_rows == 2
    assert [path.split("/")[-1] for path in store.objects("runs")] == ["heartbeat.json", "ledger.parquet"]


def test_nothing_is_written_before_it_is_due(store):
    with RunLedger(store, "r", {"ingest": 3}) as ledger:
        began = store.read("runs/r/heartbeat.json")
        ledger.add(row())
        ledger.tick(num_in_flight=1)
        assert store.read("runs/r/heartbeat.json") == began
        assert read_ledger(store, "r").num_rows == 0


@pytest.mark.parametrize(("error", "state"), [(ValueError("a\nbad  one"), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_how_a_run_ended_is_kept_with_the_reason(store, error, state):
    def run():
        with RunLedger(store, "r", {"ingest": 3}) as ledger:
            ledger.add(row())
            raise error

    with pytest.raises(type(error)):
        run()
    beat = read_heartbeat(store, "r")
    assert (beat.state, beat.reason) == (state, "a bad one" if state == "failed" else "")
    assert read_ledger(store, "r").num_rows == 1


@pytest.mark.usefixtures("_at_once")
def test_a_store_that_is_away_for_a_moment_costs_no_row(store):
    """The folder of the run cannot be entered for some events; the run goes on, and its rows come later."""
    folder = store.root + "/runs"
    with RunLedger(store, "r", {"ingest": 3}) as ledger:
        os.rename(folder, folder + "-away")
        with open(folder, "w"):
            ledger.add(row(unit="a"))
            ledger.add(row(unit="b"))
        os.unlink(folder)
        os.rename(folder + "-away", folder)
        ledger.add(row(unit="c"))
        assert read_ledger(store, "r")["unit"].to_pylist() == ["a", "b", "c"]


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("after", ["objects", "read", "read_all"])
def test_a_run_that_ends_while_its_ledger_is_read_hides_no_row(store, after):
    """The run ends just behind the reader's first listing, or its first read."""
    ledger = RunLedger(store, "r", {"ingest": 2})
    ledger.__enter__()
    ledger.add(row(unit="a"))
    ledger.add(row(unit="b"))
    reader, has_ended = Store(store.uri), []
    plain = getattr(reader, after)

    def ends_behind(path):
        try:
            return plain(path)
        finally:
            if not has_ended:
                has_ended.append(True)
                ledger.__exit__(None, None, None)

    setattr(reader, after, ends_behind)
    assert read_ledger(reader, "r")["unit"].to_pylist() == ["a", "b"]
    assert has_ended


@pytest.mark.usefixtures("_at_once")
def test_a_run_that_fails_with_its_store_says_its_own_error(store, capsys):
    def run():
        with RunLedger(store, "r", {"ingest": 3}) as ledger:
            os.rename(store.root, store.root + "-gone")
            with open(store.root, "w"):
                ledger.add(row())
            raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        run()
    assert "ledger of run r could not be finished" in capsys.readouterr().err


KILLED = """
import sys, time
from tests_ledger_row import row
from manifests.store import Store
from pipeline import ledger as module
module.BEAT_EVERY_S = module.WRITE_EVERY_S = 0.0
with module.RunLedger(Store(sys.argv[1]), "killed", {"ingest": 9}) as ledger:
    for number in range(3):
        ledger.add(row(unit=str(number)))
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_leaves_its_rows_and_its_last_sign_of_life(store, tmp_path):
    (tmp_path / "tests_ledger_row.py").write_text(f"def row(**changes):\n    return {{**{row()!r}, **changes}}\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, store.uri], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert [(beat.run_id, beat.pid) for beat in others(store)] == [("killed", process.pid)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert read_ledger(store, "killed")["unit"].to_pylist() == ["0", "1", "2"]
    beat = read_heartbeat(store, "killed")
    assert (beat.state, beat.parts[0].num_done) == ("running", 3)
    assert others(store, time.time() + 61) == []


def test_a_heartbeat_is_plain_json(store):
    with RunLedger(store, "r", {"ingest": 1}) as ledger:
        ledger.add(row())
    facts = json.loads(store.read("runs/r/heartbeat.json"))
    assert facts["state"] == "done"
    assert facts["parts"][0]["num_done"] == 1


@pytest.mark.usefixtures("_at_once")
def test_a_ledger_in_an_object_store(s3):
    store = Store(f"{s3.bucket()}/corpus")
    with RunLedger(store, "r", {"ingest": 3}) as ledger:
        ledger.add(row(unit="a"))
        ledger.add(row(unit="b"))
        assert read_heartbeat(store, "r").parts[0].num_done == 2
        assert read_ledger(store, "r")["unit"].to_pylist() == ["a", "b"]
    assert read_heartbeat(store, "r").state == "done"
    assert read_ledger(store, "r")["unit"].to_pylist() == ["a", "b"]
    assert [path.split("/")[-1] for path in store.objects("runs")] == ["heartbeat.json", "ledger.parquet"]
