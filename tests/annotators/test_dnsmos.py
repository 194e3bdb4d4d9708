from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotators.dnsmos import DnsmosConfig
from manifests.contracts import Audio, ClipBatch

# Real models or whole runs: seconds each, so left out of `make check`.
pytestmark = pytest.mark.slow

NAMES = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808")
# What speechmos (with librosa 0.11) gives for parts of the conversation: all of it, one doubled and one twice doubled.
PUBLISHED = {
    (0, 480_000): (3.4839, 3.9243, 3.0854, 3.1085),
    (100_000, 140_000): (3.3175, 3.9890, 3.0133, 2.7821),
    (121_000, 170_600): (3.4583, 3.8233, 2.9625, 2.8412),
}


def scores(audio: Audio, **config: Any) -> dict[str, Any]:
    batch = ClipBatch(pa.table({"clip_id": pa.array([b"\0" * 16], pa.binary(16))}), [audio], [16_000])
    return DnsmosConfig(**config).build().annotate(batch).to_pylist()[0]


@pytest.mark.parametrize("edges", PUBLISHED)
def test_scores_of_the_published_program(conversation: Audio, edges: tuple[int, int]) -> None:
    found = scores(conversation[slice(*edges)])
    assert [found[name] for name in NAMES] == pytest.approx(PUBLISHED[edges], abs=1e-3)


def test_equals_speechmos_where_it_runs(conversation: Audio) -> None:
    pytest.importorskip("librosa", reason="speechmos needs librosa, which Stepwell does not")
    dnsmos = pytest.importorskip("speechmos.dnsmos")
    for audio in (conversation, conversation[100_000:140_000]):
        theirs, found = dnsmos.run(audio, 16_000), scores(audio)
        for name in ("sig", "bak", "ovrl", "p808"):
            assert found[f"dnsmos_{name}"] == pytest.approx(float(theirs[f"{name}_mos"]), abs=0.02)


def test_noise_lowers_the_background_score(conversation: Audio) -> None:
    clean = conversation[120_000:280_000]
    noisy = clean + np.random.default_rng(0).normal(size=len(clean)).astype(np.float32) * 0.05
    assert scores(noisy)["dnsmos_bak"] < scores(clean)["dnsmos_bak"] - 1.0


@pytest.mark.parametrize("audio", [np.zeros(40_000, np.float32), np.ones(7999, np.float32)])
def test_abstains_on_digital_silence_and_under_half_a_second(audio: Audio) -> None:
    found = scores(audio)
    assert found["status"] == "abstained"
    assert [found[name] for name in NAMES] == [None] * 4


def test_sparser_windows_move_the_score_little(conversation: Audio) -> None:
    assert scores(conversation, hop_s=3)["dnsmos_ovrl"] == pytest.approx(scores(conversation)["dnsmos_ovrl"], abs=0.2)
