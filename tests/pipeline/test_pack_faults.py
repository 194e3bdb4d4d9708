"""A pack that is killed at random moments, or made by two processes at once, is byte for byte that of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifests.store import Store

NUM_TEXTS, NUM_KILLS = 5000, 5
# The command itself; only the parts are smaller, so that there is something to interrupt.
CHILD = """
import sys
from pipeline import text_documents
text_documents.PART_BYTES = 6_000
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
recipe = PackRecipe(name="text", documents=[{"kind": "text"}], include_audio=False, splits={"train": 0.9, "test": 0.1}, shard_bytes=200_000)
print("ready", flush=True)
print(pack(sys.argv[1], sys.argv[2], recipe).is_new, flush=True)
"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {number} " + "x" * (number % 90)}) + "\n" for number in range(NUM_TEXTS)))
    return str(path)


@pytest.fixture(scope="module")
def unbroken(texts: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = str(tmp_path_factory.mktemp("unbroken") / "pack")
    assert start(texts, out).wait(120) == 0
    return objects(out)


def start(texts: str, out: str) -> subprocess.Popen[str]:
    """A process that packs, past its imports."""
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, texts, out], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def objects(out: str) -> dict[str, bytes]:
    """Every file of the pack, drafts too."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(Path(out).rglob("*")) if path.is_file()}


def progress(out: str) -> int:
    """Spills committed and shards finished so far."""
    work = Store(f"{out}/packing")
    return len(work.objects("commits")) + len(work.objects("manifest"))


@pytest.mark.slow
def test_killed_at_random_moments_it_gives_the_same_bytes(texts: str, unbroken: dict[str, bytes], tmp_path: Path) -> None:
    out, chance = str(tmp_path / "pack"), random.Random(0)
    total = len([path for path in unbroken if path.endswith(".tar")]) + os.path.getsize(texts) // 6_000
    assert total > 60
    reached = []
    for number in range(NUM_KILLS):
        child, before = start(texts, out), progress(out)
        # Spread over both steps: each kill after a sixth or so of all that there is to do.
        goal = max(before + 1, total * (number + 1) // (NUM_KILLS + 1) + chance.randint(-3, 3))
        while progress(out) < goal:
            assert child.poll() is None, "it ended before it was killed"
        time.sleep(chance.random() * 0.02)
        child.send_signal(signal.SIGKILL)
        assert child.wait(60) == -signal.SIGKILL
        assert not (tmp_path / "pack" / "pack.json").exists()
        reached.append(progress(out))
    assert all(left < right for left, right in zip([0, *reached], reached, strict=False))
    assert start(texts, out).wait(120) == 0
    assert objects(out) == unbroken


@pytest.mark.slow
def test_two_at_once_share_the_work_and_one_says_that_it_was_second(
    texts: str, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    out = str(tmp_path / "pack")
    children = [start(texts, out) for _ in range(2)]
    said = [child.communicate(timeout=120)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(said) == [["False"], ["True"]]
    assert {path: data for path, data in objects(out).items() if not path.startswith("packing/")} == unbroken
    assert start(texts, out).wait(120) == 0  # what the second one may have left in the folder goes
    assert objects(out) == unbroken
