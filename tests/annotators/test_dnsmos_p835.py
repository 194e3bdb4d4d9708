from __future__ import annotations

import numpy as np
import pytest

from annotators import dnsmos_p835
from annotators.dnsmos_p835 import P835Network
from annotators.onnx_session import open_session
from annotators.weights import packaged_path
from manifests.contracts import Audio

RATE = 16_000
WINDOW_SAMPLES = 144_160


@pytest.fixture(scope="module")
def graph() -> str:
    return packaged_path("speechmos", "dnsmos_models", "sig_bak_ovr.onnx")


@pytest.mark.parametrize("starts", [[0], [0, RATE, 2 * RATE], [RATE, 4 * RATE, 18 * RATE]])
def test_equals_the_whole_network_window_by_window(
    graph: str, conversation: Audio, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dnsmos_p835, "MAX_RUN_WINDOWS", 2)
    whole = open_session(graph)
    expected = [whole.run(None, {"input_1": conversation[None, start : start + WINDOW_SAMPLES]})[0][0] for start in starts]
    np.testing.assert_allclose(P835Network(graph).raw_scores(conversation, starts), expected, rtol=0, atol=1e-6)


def test_windows_that_touch_run_together() -> None:
    assert dnsmos_p835._runs([0, RATE, 9 * RATE, 22 * RATE]) == [[0, RATE, 9 * RATE], [22 * RATE]]
