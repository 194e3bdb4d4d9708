"""``corpus status``: running, silent and past runs, units of each output, and fast on a large corpus."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manifests.errors import RequestError
from manifests.snapshots import FORMAT_VERSION
from manifests.store import Store, json_bytes
from pipeline import status as module
from pipeline.cli import app
from pipeline.heartbeat import Heartbeat, PartProgress, heartbeat_path
from pipeline.sources import Input
from pipeline.status import lines, read_status
from pipeline.units import Unit, claim_plan, read_plans


def beat(run_id: str, **facts: object) -> Heartbeat:
    part = PartProgress("spans/vad", 4)
    part.num_done, part.audio_s, part.wall_s, part.num_errors, part.peak_rss_bytes = 1, 1800.0, 50.0, 2, 3 << 20
    now = time.time()
    made = Heartbeat(run_id, [part], host="far", pid=12, started_at_s=now - 100, updated_at_s=now)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def corpus(tmp_path) -> Store:
    """Four units planned, three of them committed by the VAD."""
    store = Store(str(tmp_path / "corpus"))
    store.create("corpus.json", json_bytes({"format_version": FORMAT_VERSION, "corpus_id": "00", "sample_rate": "native"}))
    claim_plan(store, read_plans(store), lambda _: [Unit(f"{number:06d}-aa", (Input("a", number, ""),)) for number in range(4)])
    for number in range(3):
        store.create(f"commits/spans/vad/ff/{number:06d}-aa.json", b"{}")
    return store


def put(store: Store, made: Heartbeat) -> None:
    store.replace(heartbeat_path(made.run_id), made.to_bytes())


def test_a_run_at_work(corpus):
    put(corpus, beat("r1", num_in_flight=2, num_cpus=2, workers={"signal": 2, "asr": 1}))
    said = "\n".join(lines(read_status(corpus.uri)))
    assert "4 units planned" in said
    assert "3/4" in said
    assert "run r1 on far pid 12: at work for 1 min 40 s, 1 task done, 2 in flight, 2 CPUs, workers asr 1, signal 2" in said
    assert "about 5 min 00 s left" in said  # one of four units in 100 s
    assert "1/4" in said
    assert said.splitlines()[-1].split() == ["spans/vad", "█████░░░░░░░░░░░░░░░", "1/4", "30", "min", "18", "2", "3", "MiB"]


def test_a_silent_run_is_said_to_be_dead_and_what_to_do(corpus):
    put(corpus, beat("r1", updated_at_s=time.time() - 180))
    said = "\n".join(lines(read_status(corpus.uri)))
    assert "no sign of life for 3 min 00 s: dead or cut off; run the same command to go on" in said
    assert "left" not in said


def test_runs_that_ended_say_how(corpus):
    now = time.time()
    put(corpus, beat("r1", state="failed", reason="asr failed 3 times", started_at_s=now - 500, updated_at_s=now - 440))
    put(corpus, beat("r2", state="done"))
    said = lines(read_status(corpus.uri))
    assert said[-2].endswith("r1 on far pid 12: failed after 1 min 00 s, 1 task: asr failed 3 times")
    assert said[-1].endswith("r2 on far pid 12: done after 1 min 40 s, 1 task")


def test_no_corpus_is_a_wrong_request(tmp_path):
    with pytest.raises(RequestError, match="no corpus at"):
        read_status(str(tmp_path))


def test_the_verb_for_machines_and_its_costs(corpus):
    put(corpus, beat("r1", num_cpus=2))
    done = CliRunner().invoke(app, ["status", corpus.uri, "--json", "--costs", "--price-core-hour", "0.04"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    assert (row["num_units"], row["outputs"][0]["num_units"]) == (4, 3)
    assert row["runs"][0]["is_alive"]
    assert row["runs"][0]["eta_s"] == pytest.approx(300, rel=0.01)
    assert row["costs"]["parts"][0]["cost"] == pytest.approx(50 / 3600 * 0.04)
    plain = CliRunner().invoke(app, ["status", corpus.uri, "--costs"])
    assert "h/core-h" in plain.stdout


def test_watching_ends_with_the_run(corpus, tmp_path):
    """From another process: blocks while the run is at work, one more when it has ended."""
    put(corpus, beat("r1"))
    command = [sys.executable, "-m", "stepwell", "corpus", "status", corpus.uri, "--watch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    seen = [process.stdout.readline()]
    while "at work" not in seen[-1]:
        seen.append(process.stdout.readline())
    put(corpus, beat("r1", state="done"))
    rest, _ = process.communicate(timeout=30)
    assert "r1 on far pid 12: done" in rest
    assert process.returncode == 0


def test_watching_on_a_terminal_draws_in_place(corpus, monkeypatch, capsys):
    put(corpus, beat("r1", state="done"))
    monkeypatch.setattr(module.sys.stdout, "isatty", lambda: True, raising=False)
    module.watch(lambda: read_status(corpus.uri), lines)
    assert "r1 on far pid 12: done" in capsys.readouterr().out


@pytest.mark.slow
def test_status_is_quick_on_20_000_commits(tmp_path, corpus):
    """Ten outputs of 2,000 units."""
    root = Path(corpus.uri) / "commits"
    for output in range(10):
        folder = root / f"layers/turns/{output}/ff"
        folder.mkdir(parents=True)
        for unit in range(2_000):
            (folder / f"{unit:06d}-aa.json").touch()
    began = time.perf_counter()
    status = read_status(corpus.uri)
    assert sum(row.num_units for row in status.outputs) == 20_003
    assert time.perf_counter() - began < 4
