from __future__ import annotations

import numpy as np
import pytest

from manifests.contracts import Audio
from manifests.errors import RequestError
from tokenization.codec_measures import code_stability, code_statistics, text_errors


class LoudnessCodec:
    """A code a frame of 10 samples: its loudness in tenths. It decodes to that loudness, or twice it where it is odd."""

    def __init__(self, can_decode: bool = True) -> None:
        self.can_decode = can_decode

    def encode(self, audio: list[Audio]) -> list[np.ndarray]:
        return [np.rint(10 * item.reshape(-1, 10).mean(axis=1)).astype(np.uint16) for item in audio]

    def decode(self, codes: np.ndarray) -> Audio:
        if not self.can_decode:
            raise RequestError("encoder only")
        return np.repeat(np.where(codes % 2, 2 * codes, codes) / 10, 10).astype(np.float32)


def test_code_statistics_of_known_counts() -> None:
    counts = np.zeros(100)
    assert code_statistics(counts) == {"codebook_use": 0.0, "perplexity": 1.0}
    counts[:4] = 5
    even = code_statistics(counts)
    assert even["codebook_use"] == 0.04
    assert even["perplexity"] == pytest.approx(4.0)


def test_text_errors_are_pooled_over_normal_forms() -> None:
    pairs = [("One, two!", "one two"), ("three", "tree"), ("...", "noise")]
    assert text_errors(pairs) == {"letter_error": pytest.approx(1 / 12), "word_error": pytest.approx(1 / 3)}
    assert text_errors([]) == {"letter_error": None, "word_error": None}


def test_stability_counts_codes_that_come_back() -> None:
    even, odd = np.full(3, 4, np.uint16), np.full(1, 3, np.uint16)
    assert code_stability(LoudnessCodec(), [even, odd]) == 0.75  # type: ignore[arg-type] (what is asked of it is there)
    assert code_stability(LoudnessCodec(), []) is None  # type: ignore[arg-type]
    assert code_stability(LoudnessCodec(can_decode=False), [even]) is None  # type: ignore[arg-type]
