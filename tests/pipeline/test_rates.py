"""Rates out of ledgers: what is counted, what is left out, and that a run's own rates play that run."""

from __future__ import annotations

import json

import pytest

from manifests.errors import RequestError
from manifests.schema import LEDGER
from manifests.store import Store
from pipeline.build import build
from pipeline.heartbeat import read_heartbeats
from pipeline.rates import Rates, dispatch_s, measured_rates, read_rates, working_cpu_s
from pipeline.simulation import Cluster, play


@pytest.fixture(scope="module")
def built(recordings, light, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("measured") / "corpus")
    return build([str(recordings)], out, light(units={"max_inputs": 1}))


def test_a_builds_ledger_gives_its_rates(built):
    rates = measured_rates(built.corpus_uri)
    names = [part.part for part in rates.parts]
    assert names[0] == "ingest"
    assert names.index("spans/vad") < names.index(f"clips/{built.clip_set}")
    for part in rates.parts:
        assert all(names.index(read) < names.index(part.part) for read in part.reads)
    assert sum(rates.unit_audio_s) == pytest.approx(built.audio_s)
    ledger = Store(built.corpus_uri).read_table(f"runs/{built.run_id}/ledger.parquet")
    wall_s = sum(part.wall_s for part in rates.parts) * built.audio_s
    loading_s = sum(part.setup_s for part in rates.parts)
    # One worker: what was measured is the rates' work and the loading.
    assert wall_s + loading_s == pytest.approx(sum(ledger["wall_s"].to_pylist()), rel=0.02)
    style = next(part for part in rates.parts if part.part.endswith("/style"))
    assert any(read.endswith("/prosody") for read in style.reads)
    ingest = rates.parts[0]
    assert ingest.num_objects >= 4  # three tables and the commit, audio besides
    assert measured_rates(f"{built.corpus_uri}/runs/{built.run_id}") == rates


def test_the_rates_of_a_run_play_that_run(built):
    """In one process: the sum of its tasks. What the schedule adds is tested on Ray by benchmarks/simulation_check.py."""
    rates = measured_rates(built.corpus_uri)
    run = read_heartbeats(Store(built.corpus_uri))[-1]
    played = play(rates, rates.unit_audio_s, Cluster(1))
    assert played.wall_s == pytest.approx(run.wall_s, rel=0.2)


def test_nothing_measured_is_a_wrong_request(tmp_path):
    with pytest.raises(RequestError, match="nothing was measured"):
        measured_rates(str(tmp_path))


def test_rates_travel_as_json(built, tmp_path):
    rates, path = measured_rates(built.corpus_uri), tmp_path / "rates.json"
    path.write_text(rates.model_dump_json())
    assert read_rates(str(path)) == rates
    changed = json.loads(path.read_text())
    changed["parts"][0]["wal_s"] = 1
    path.write_text(json.dumps(changed))
    with pytest.raises(RequestError, match=r"parts\.0\.wal_s' is unknown"):
        read_rates(str(path))
    with pytest.raises(RequestError, match="cannot be read"):
        read_rates(str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match="parts"):
        Rates(parts=(), unit_audio_s=(1.0,))


def test_the_wait_between_tasks_is_that_after_the_last_end():
    def task(worker, start, wall):
        return {"worker": worker, "started_at_s": start, "wall_s": wall}

    # Two CPUs; a's first task and b's wait for their workers.
    rows = [task("a", 0.0, 10.0), task("b", 3.0, 5.0), task("b", 8.25, 4.0), task("a", 10.25, 1.0), task("c", 20.0, 1.0)]
    assert dispatch_s(rows) == pytest.approx(0.25)
    assert dispatch_s(rows[:2]) == 0.0


def test_loading_counts_as_one_thread_but_never_eats_the_model():
    row = dict.fromkeys(LEDGER.names, 0.0) | {"cpu_s": 3.0, "setup_s": 2.0, "model_cpu_s": 0.5}
    assert working_cpu_s(row) == 1.0
    assert working_cpu_s({**row, "setup_s": 2.9}) == 0.5  # it waited for the disk while loading
