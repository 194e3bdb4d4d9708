"""Ray under faults: poison, a pool that loses its worker, a node that is killed in the middle of a build."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.commits import list_commits
from manifests.corpus import Corpus
from manifests.errors import RequestError, WorkError
from manifests.store import Store
from pipeline.assembly import make_works
from pipeline.build import build
from pipeline.engines import InlineEngine
from pipeline.ray_engine import RayEngine

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Two nodes of one CPU each on this machine, in a folder of their own; this process is the driver."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="stepwell-ray-", dir="/tmp")
    options = {"num_cpus": 1, "object_store_memory": 80 << 20}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_TMPDIR", folder)  # where the address of the cluster is written down
        os.makedirs(f"{folder}/ray")
        # A dead node is noticed within two seconds instead of a minute.
        watchful = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 400, "health_check_failure_threshold": 4}
        head = {**options, "temp_dir": folder, "include_dashboard": False, "_system_config": watchful}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(**options)
        ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def test_what_ray_can_never_place_is_refused(cluster, poisoned_recipe):
    greedy = poisoned_recipe("annotator", "0")
    works = make_works(greedy)
    works[-1].annotator.resources = type(works[-1].resources)(pool="greedy", memory_bytes=1 << 50)
    with pytest.raises(RequestError, match=r"heard: \d+ MiB a worker, the Ray cluster has"):
        RayEngine().check(works)


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_worker_whose_load_fails_is_ended(cluster, light, tmp_path, how):
    import ray

    custom = {"kind": "custom", "target": "poison_parts:DeadlyModel", "parameters": {"how": how}}
    recipe, before = light(annotators={"heard": custom}), ray.available_resources()
    works = make_works(recipe)
    with pytest.raises((ValueError, WorkError)) as failed:
        RayEngine().load(Store(str(tmp_path)), works, [len(works) - 1], recipe.limits)
    deadline = time.monotonic() + 30
    while ray.available_resources() != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources() == before
    assert failed.value.__traceback__ is not None  # it is held, as a caller that reports it holds it


@pytest.mark.parametrize("how", ["crash", "hang"])
def test_poison_on_ray_gives_the_corpus_of_the_local_engine(
    cluster, how, poisoned_folder, poisoned_recipe, tmp_path, assert_equal_corpora
):
    from pipeline.engines import LocalEngine

    recipe = poisoned_recipe("annotator", how)
    local, distributed = str(tmp_path / "local"), str(tmp_path / "ray")
    build([str(poisoned_folder)], local, recipe, LocalEngine())
    build([str(poisoned_folder)], distributed, recipe, RayEngine())
    assert_equal_corpora(distributed, local)
    assert Corpus.open(distributed).layer("heard")["status"].to_pylist().count("error") == 1


def test_a_node_that_is_killed_costs_the_units_in_flight(
    cluster, poisoned_folder, poisoned_recipe, tmp_path, assert_equal_corpora
):
    """A third node joins, works, and is killed with SIGKILL; the corpus is that of an unbroken build."""
    folder = tmp_path / "in"
    folder.mkdir()
    for copy in range(4):
        for path in sorted(Path(poisoned_folder).glob("r[0-2].wav")):
            data = bytearray(path.read_bytes())
            data[100:102] = bytes([copy, len(os.listdir(folder))])  # other bytes: another recording
            (folder / f"{copy}-{path.name}").write_bytes(data)
    recipe = poisoned_recipe("annotator", "0.5").model_copy(
        update={"units": poisoned_recipe("annotator", "0").units.model_copy(update={"max_inputs": 1})}
    )
    unbroken, out = str(tmp_path / "unbroken"), str(tmp_path / "broken")
    build([str(folder)], unbroken, recipe, InlineEngine())
    doomed = cluster.add_node(num_cpus=2, object_store_memory=80 << 20)
    workers_then: list[int] = []

    def kill_once_it_works() -> None:
        while sum(len(units) for (o, _), units in list_commits(Store(out)).items() if o.startswith("layers/")) < 3:
            time.sleep(0.05)
        workers_then.append(len(_worker_pids(doomed)))
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill_once_it_works)
    killer.start()
    result = build([str(folder)], out, recipe, RayEngine())
    killer.join(timeout=60)
    assert workers_then
    assert workers_then[0] > 0  # it was at work
    assert result.num_clips == 12
    assert_equal_corpora(out, unbroken)


def _worker_pids(node: object) -> list[int]:
    """Worker processes of a node: children of its raylet."""
    import psutil

    raylet = node.all_processes["raylet"][0].process.pid
    return [child.pid for child in psutil.Process(raylet).children() if "ray::" in " ".join(child.cmdline()[:1])]


def test_a_pack_on_ray_is_the_pack_of_one_process(cluster, recordings, light, tmp_path):
    from pipeline.pack import pack
    from pipeline.recipe import PackRecipe

    corpus = str(tmp_path / "corpus")
    build([str(recordings)], corpus, light())
    recipe = PackRecipe(name="all", require_text=False, text_from=[], shard_bytes=100_000)
    here = pack(corpus, str(tmp_path / "here"), recipe)
    there = pack(corpus, str(tmp_path / "there"), recipe, run=RayEngine().map)
    assert here.pack_id == there.pack_id
    names = [path for path in Store(str(tmp_path / "here")).objects("") if path != "pack.json"]
    assert len(names) > 4
    for name in names:
        assert Store(str(tmp_path / "here")).read(name) == Store(str(tmp_path / "there")).read(name), name


def test_a_pool_sees_its_own_environment(cluster, recordings, light, tmp_path, monkeypatch):
    """Parts whose pins clash live in processes with other environments: here, one variable that the other pool lacks."""
    custom = {"kind": "custom", "target": "poison_parts:EnvironmentAnnotator", "parameters": {"pool": "mine"}}
    recipe = light(
        annotators={"seen": custom}, pools={"mine": {"max_workers": 1, "runtime_env": {"env_vars": {"PINNED_VERSION": "7"}}}}
    )
    build([str(recordings)], str(tmp_path / "corpus"), recipe, RayEngine(pools=recipe.pools))
    layer = Corpus.open(str(tmp_path / "corpus")).layer("seen")
    assert set(layer["pinned"].to_pylist()) == {"7"}
    assert len(set(layer["pid"].to_pylist())) == 1  # one worker at most, as the pool says
