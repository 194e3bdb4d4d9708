from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotators.speaker_embedding import SpeakerEmbedding, SpeakerEmbeddingConfig
from annotators.speaker_encoder import SpeakerEncoder
from manifests.audio import resample
from manifests.contracts import Audio, ClipBatch
from manifests.schema import CLIPS

FIRST, FIRST_AGAIN = slice(171_000, 230_000), slice(298_000, 342_000)  # turns of one speaker
SECOND, SECOND_AGAIN = slice(360_000, 430_000), slice(237_000, 286_000)  # turns of the other
Edges = list[tuple[int, int]]


@pytest.fixture(scope="module")
def part() -> SpeakerEmbedding:
    pytest.importorskip("torch")
    return SpeakerEmbeddingConfig().build()


def batch_of(clips: list[tuple[Audio, Edges, Edges]], sample_rate_hz: int = 16_000) -> ClipBatch:
    """Clips of (16 kHz audio, speech, overlap); the edges count at the stored rate."""

    def spans(edges: Edges) -> list[dict[str, int]]:
        return [{"start_sample": start, "end_sample": end} for start, end in edges]

    rows = [
        {
            "clip_id": bytes([i]) * 16,
            "recording_id": b"\1" * 16,
            "channel": 0,
            "sample_rate_hz": sample_rate_hz,
            "start_sample": 0,
            "end_sample": len(audio) * sample_rate_hz // 16_000,
            "speech_samples": sum(end - start for start, end in speech),
            "overlap_samples": sum(end - start for start, end in overlap),
            "speech_spans": spans(speech),
            "overlap_spans": spans(overlap),
        }
        for i, (audio, speech, overlap) in enumerate(clips)
    ]
    table = pa.Table.from_pylist(rows, schema=CLIPS)
    return ClipBatch(table, [audio for audio, _, _ in clips], [16_000] * len(clips), {"clip": table})


def rows_of(part: SpeakerEmbedding, clips: list[tuple[Audio, Edges, Edges]], **rate: int) -> list[dict[str, Any]]:
    return part.annotate(batch_of(clips, **rate)).to_pylist()


def whole(audio: Audio) -> tuple[Audio, Edges, Edges]:
    return audio, [(0, len(audio))], []


def test_one_voice_is_nearer_to_itself_than_to_another(part: SpeakerEmbedding, conversation: Audio) -> None:
    turns = [conversation[turn] for turn in (FIRST, FIRST_AGAIN, SECOND, SECOND_AGAIN)]
    rows = rows_of(part, [whole(turn) for turn in turns])
    a, b, c, d = (np.array(row["embedding"], np.float32) for row in rows)
    assert {len(row["embedding"]) for row in rows} == {256}
    np.testing.assert_allclose([np.linalg.norm(v) for v in (a, b, c, d)], 1.0, rtol=1e-5)
    assert min(a @ b, c @ d) > max(v @ w for v in (a, b) for w in (c, d)) + 0.05
    assert rows[0]["embedded_s"] == pytest.approx(59_000 / 16_000, abs=0.02)


def test_is_the_encoders_answer_for_the_clip(part: SpeakerEmbedding, conversation: Audio) -> None:
    encoder = SpeakerEncoder()
    (row,) = rows_of(part, [whole(conversation[SECOND])])
    np.testing.assert_allclose(row["embedding"], encoder.embed([encoder.features(conversation[SECOND])], 160)[0], atol=0.01)


def test_silence_and_a_second_voice_are_left_out(part: SpeakerEmbedding, conversation: Audio) -> None:
    voice, other = conversation[SECOND], conversation[FIRST]
    mixed = np.concatenate([voice, other, np.zeros(16_000, np.float32)])
    end = len(voice)
    overlap = [(end, end + len(other))]
    rows = rows_of(part, [whole(voice), (mixed, [(0, end + len(other))], overlap), (mixed, [(0, end + len(other))], [])])
    alone, without, both = (np.array(row["embedding"]) for row in rows)
    assert alone @ without > 0.999
    assert alone @ both < 0.98
    assert rows[1]["embedded_s"] == pytest.approx(rows[0]["embedded_s"], abs=0.02)


def test_spans_count_at_the_stored_rate(part: SpeakerEmbedding, conversation: Audio) -> None:
    voice = conversation[SECOND]
    (at_16,) = rows_of(part, [(voice, [(16_000, 64_000)], [])])
    (at_48,) = rows_of(part, [(voice, [(48_000, 192_000)], [])], sample_rate_hz=48_000)
    (at_8,) = rows_of(part, [(resample(resample(voice, 16_000, 8000), 8000, 16_000), [(8000, 32_000)], [])], sample_rate_hz=8000)
    assert at_48 == at_16
    assert at_8["embedded_s"] == at_16["embedded_s"] == 3.0


def test_abstains_on_too_little_voice_and_on_silence(part: SpeakerEmbedding, conversation: Audio) -> None:
    voice = conversation[SECOND]
    rows = rows_of(
        part,
        [
            (voice, [(0, 15_800)], []),
            (voice, [], []),
            (voice, [(0, len(voice))], [(0, len(voice))]),
            whole(np.zeros(40_000, np.float32)),
            whole(np.random.default_rng(0).normal(size=40_000).astype(np.float32) * 1e-5),
            (voice, [(0, 16_000)], []),
        ],
    )
    assert [row["status"] for row in rows] == ["abstained"] * 5 + ["ok"]
    assert all(row["embedding"] is None and row["embedded_s"] is None for row in rows[:5])
