from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from annotators.pocketsphinx_asr import Pocketsphinx, PocketsphinxConfig
from manifests.contracts import Audio, ClipBatch
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
