"""Engines: a schedule that never hands out work too early, and the same bytes whoever runs it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.contracts import Resources
from manifests.corpus import Corpus
from manifests.errors import WorkError
from pipeline.build import build
from pipeline.schedule import MAX_ATTEMPTS, Schedule, Task


@given(
    reads=st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=8), num_units=st.integers(1, 4), seed=st.integers(0, 2**32)
)
def test_the_schedule_runs_everything_once_and_nothing_before_what_it_reads(reads, num_units, seed):
    works = [
        SimpleNamespace(output=f"o{n}", reads={f"o{r}": "f" for r in earlier if r < n}, resources=Resources())
        for n, earlier in enumerate(reads)
    ]
    todo = [Task(u, w) for u in range(num_units) for w in range(len(works))]
    chance = random.Random(seed)
    now = [0.0]
    schedule, finished, running, tried = Schedule(works, todo, lambda: now[0]), [], [], set()
    while schedule:
        while (task := schedule.start(lambda _: chance.random() < 0.7)) is not None:
            assert task not in {*finished, *running}
            assert all(Task(task.unit, int(o[1:])) in finished for o in works[task.work].reads)
            running.append(task)
        now[0] += schedule.rest_s() if not running else 0.1
        if not running:
            continue
        task = running.pop(chance.randrange(len(running)))
        if task not in tried and chance.random() < 0.2:
            tried.add(task)
            schedule.retry(task, SimpleNamespace(unit_id="u"), "of chance")
        else:
            schedule.finish(task)
            finished.append(task)
    assert sorted(finished) == todo


def test_a_task_that_keeps_failing_stops_the_job_and_says_why():
    work, unit = SimpleNamespace(output="asr", reads={}, resources=Resources()), SimpleNamespace(unit_id="u")
    now = [0.0]
    schedule, rests = Schedule([work], [Task(0, 0)], lambda: now[0]), []
    for _ in range(MAX_ATTEMPTS - 1):
        schedule.retry(schedule.start(), unit, "the disk is full")
        assert schedule.start() is None
        rests.append(schedule.rest_s())
        now[0] += rests[-1]
    assert rests == [0.5, 1.0, 2.0]
    task = schedule.start()
    with pytest.raises(WorkError, match="asr on unit u failed 4 times, the last because the disk is full"):
        schedule.retry(task, unit, "the disk is full")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("num_cpus", [1, 4])
def test_ray_gives_the_bytes_of_local(
    recordings, light, tmp_path, tmp_path_factory, num_cpus, local_corpus, assert_equal_corpora
):
    """Declared CPUs are what Ray may schedule; a fresh cluster each, in a process of its own."""
    out = tmp_path / "corpus"
    recipe = tmp_path / "light.yaml"
    recipe.write_text(light().model_dump_json())  # JSON is YAML
    command = [sys.executable, "-m", "stepwell", "corpus", "build", str(recordings), "--out", str(out), "--recipe", str(recipe)]
    done = subprocess.run([*command, "--engine", "ray", "--num-cpus", str(num_cpus)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert_equal_corpora(str(out), local_corpus)


@pytest.fixture(scope="module")
def local_corpus(recordings, light, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("local") / "corpus")
    build([str(recordings)], out, light())
    return out


PARTS = '''
import os
import signal

import pyarrow as pa

from manifests.contracts import Hearing, Resources


class Fragile:
    """Counts samples; kills its process the first time it is asked."""

    name, version, reads, hears = "fragile", "1", (), Hearing.MODEL
    adds = pa.schema([pa.field("num_heard", pa.int64())])
    resources = Resources(pool="fragile")
    batch_tolerance, models = 0.0, ()

    def __init__(self, flag):
        self.flag = flag

    def fingerprint(self):
        return "f" * 16

    def setup(self):
        pass

    def annotate(self, batch):
        if not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch.table([{"num_heard": len(audio)} for audio in batch.audio], self.adds)
'''


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_dies_costs_one_task_not_the_build(recordings, light, tmp_path):
    """A part from outside the tree kills its worker once; the task is tried again, and the corpus is whole."""
    (tmp_path / "fragile_parts.py").write_text(PARTS)
    flag, out, path = tmp_path / "died", tmp_path / "corpus", tmp_path / "recipe.yaml"
    custom = {"kind": "custom", "target": "fragile_parts:Fragile", "parameters": {"flag": str(flag)}}
    path.write_text(light(annotators={"heard": custom}).model_dump_json())
    command = [sys.executable, "-m", "stepwell", "corpus", "build", str(recordings), "--out", str(out), "--recipe", str(path)]
    done = subprocess.run(
        [*command, "--num-cpus", "2"],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert flag.exists()
    layer = Corpus.open(str(out)).layer("heard")
    assert set(layer["status"].to_pylist()) == {"ok"}
    assert min(layer["num_heard"].to_pylist()) > 0
