"""``ray job submit`` runs a build on a cluster that others started; the build joins it by itself."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from manifests.corpus import Corpus

pytestmark = [pytest.mark.ray, pytest.mark.slow]
RAY = str(Path(sys.executable).with_name("ray"))
STEPWELL = str(Path(sys.executable).with_name("stepwell"))
# Every cluster starts with a token of its own otherwise, which clients must be given.
OPEN = {"RAY_AUTH_MODE": "disabled", "OTEL_SDK_DISABLED": "true"}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def dashboard() -> Iterator[str]:
    """Address of the dashboard of a cluster of two CPUs, in a folder and a process group of its own."""
    # The agent's usual port may be another cluster's.
    port, client_port, agent_port = _free_port(), _free_port(), _free_port()
    folder = tempfile.mkdtemp(prefix="stepwell-ray-", dir="/tmp")
    command = [
        RAY,
        "start",
        "--head",
        "--block",
        "--port=0",
        "--num-cpus=2",
        f"--temp-dir={folder}",
        f"--ray-client-server-port={client_port}",
    ]
    options = [
        f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={agent_port}",
        "--object-store-memory=100000000",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    environment = {**os.environ, **OPEN, "RAY_TMPDIR": folder}
    head = subprocess.Popen([*command, *options], env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    while subprocess.run(
        [RAY, "job", "list", "--address", address], env=environment, capture_output=True, check=False
    ).returncode:
        assert head.poll() is None
        assert time.monotonic() - began < 90, "the cluster does not answer"
        time.sleep(1)
    yield address
    for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
        with suppress(psutil.NoSuchProcess):  # it went when its parent did
            process.kill()
    head.wait()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_job_builds_the_corpus(dashboard, recordings, light, tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "corpus"
    recipe.write_text(light().model_dump_json())
    build = [STEPWELL, "corpus", "build", str(recordings), "--out", str(out), "--recipe", str(recipe)]
    # The agent that takes jobs is up some seconds after the dashboard.
    submit = [RAY, "job", "submit", "--address", dashboard, "--", *build]
    for _ in range(20):
        done = subprocess.run(submit, env={**os.environ, **OPEN}, capture_output=True, text=True, timeout=200, check=False)
        if "No available agent" not in done.stderr:
            break
        time.sleep(3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "signal: 5/5 units" in done.stdout
    assert Corpus.open(str(out)).layer("signal").num_rows == Corpus.open(str(out)).clips().num_rows > 0
