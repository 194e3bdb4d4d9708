from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from annotators.pocketsphinx_asr import Pocketsphinx, PocketsphinxConfig
from manifests.contracts import Audio, ClipBatch
from manifests.cpu_clock import cpu_s
from manifests.scoring import score_words

# Real models or whole runs: seconds each, so left out of `make check`.
pytestmark = pytest.mark.slow


def recognise(part: Pocketsphinx, *clips: Audio) -> list[dict[str, Any]]:
    ids = pa.array([bytes([i]) * 16 for i in range(len(clips))], pa.binary(16))
    return part.annotate(ClipBatch(pa.table({"clip_id": ids}), clips, [16_000] * len(clips))).to_pylist()


@pytest.fixture(scope="module")
def part() -> Pocketsphinx:
    return PocketsphinxConfig().build()


def test_words_lie_in_the_clip_in_order(part: Pocketsphinx, conversation: Audio) -> None:
    clip = conversation[350_000:430_000]
    row = recognise(part, clip)[0]
    words = row["words"]
    assert row["text"] == " ".join(word["word"] for word in words)
    assert row["language"] == "en"
    edges = [edge for word in words for edge in (word["start_sample"], word["end_sample"])]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(clip)
    assert all(0.0 <= word["confidence"] <= 1.0 for word in words)
    assert row["confidence"] == pytest.approx(np.mean([word["confidence"] for word in words]), abs=1e-6)
    assert row["avg_logprob"] < 0
    assert not any(mark in row["text"] for mark in "<>[]()+")


def test_a_clip_does_not_hear_those_before(part: Pocketsphinx, conversation: Audio) -> None:
    """What a part says that has heard others is what a fresh one says, to the last bit of each posterior."""
    clips = [conversation[start : start + 24_000] for start in range(60_000, 440_000, 100_000)]
    alone = [recognise(PocketsphinxConfig().build(), clip)[0] for clip in clips]
    for order in (range(4), reversed(range(4))):
        numbers = list(order)
        for number, row in zip(numbers, recognise(part, *(clips[number] for number in numbers)), strict=True):
            assert {**row, "clip_id": None} == {**alone[number], "clip_id": None}


def test_silence_has_no_words_and_a_click_is_abstained_from(part: Pocketsphinx) -> None:
    silence, click = recognise(part, np.zeros(16_000, np.float32), np.ones(1000, np.float32))
    assert (silence["status"], silence["text"], silence["words"], silence["confidence"]) == ("ok", "", [], None)
    assert (click["status"], click["text"], click["words"]) == ("abstained", None, None)


def test_it_recognises_something(part: Pocketsphinx, shared: Path) -> None:
    """Far better than chance on read English, far from usable (about 60 % WER)."""
    folder = shared / "testdata"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    rows = [r for r in rows if "en_read" in r["kinds"] and r.get("core") and r.get("transcript") and r["sample_rate"] == 16_000][
        :3
    ]
    clips = [soundfile.read(folder / row["path"], dtype="float32")[0] for row in rows]
    scores = [
        score_words(row["id"], row["transcript"], found["text"], "en")
        for row, found in zip(rows, recognise(part, *clips), strict=True)
    ]
    errors = sum(s.substitutions + s.deletions + s.insertions for s in scores)
    assert errors / sum(s.num_reference for s in scores) < 0.9


def test_a_clip_that_kills_its_copy_is_an_error_and_the_next_one_is_heard(part: Pocketsphinx, conversation: Audio) -> None:
    """The helper outlives the copy: a signal from outside stands for a crash in the decoder."""
    clip = conversation[60_000:84_000]
    alone = recognise(part, clip)[0]
    killer = threading.Thread(target=kill_the_copy_of, args=(os.getpid(),))
    killer.start()
    with pytest.raises(RuntimeError, match="SIGKILL"):
        recognise(part, np.tile(conversation, 4))
    killer.join()
    assert recognise(part, clip)[0] == alone


def test_another_helper_comes_where_one_was_killed(conversation: Audio) -> None:
    part, clip = PocketsphinxConfig().build(), conversation[60_000:84_000]
    row = recognise(part, clip)[0]
    helpers = set(all_children(os.getpid()))
    os.kill(youngest := max(helpers), signal.SIGKILL)
    assert recognise(part, clip)[0] == row
    assert youngest not in all_children(os.getpid())


def test_the_helper_ends_with_its_part_in_the_middle_of_a_clip() -> None:
    """Killed as the memory killer would, with a clip under work: no process is left."""
    program = (
        "import numpy as np; from annotators.pocketsphinx_asr import PocketsphinxConfig; "
        "part = PocketsphinxConfig().build(); part.setup(); print('ready', flush=True); "
        "part._loaded().decode(np.random.default_rng(0).integers(-9000, 9000, 16_000 * 600).astype('<i2').tobytes())"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    helper = wait_for(lambda: children(worker.pid))
    copy = wait_for(lambda: children(helper))
    worker.kill()
    worker.communicate()
    assert wait_for(lambda: not alive(helper) and not alive(copy))


def test_what_the_helper_takes_is_charged_here(part: Pocketsphinx, conversation: Audio) -> None:
    part.setup()
    before, own = cpu_s(), time.process_time()
    recognise(part, conversation[60_000:220_000])
    assert cpu_s() - before > 5 * (time.process_time() - own)


def kill_the_copy_of(pid: int) -> None:
    """The process that decodes a clip below the helper of this process."""
    os.kill(wait_for(lambda: next((copy for helper in all_children(pid) if (copy := children(helper))), 0)), signal.SIGKILL)


def children(pid: int) -> int:
    return next(iter(all_children(pid)), 0)


def all_children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(ask: Callable[[], int | bool]) -> int:
    """What it answers once that is true. Fails after 20 s."""
    until = time.monotonic() + 20
    while not (answer := ask()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return int(answer)
