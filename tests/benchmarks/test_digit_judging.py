"""The judge of spoken digits counts as its rule says, and remembers what it has heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.digits.judging import judge, score
from benchmarks.digits.recogniser import Recogniser, worsened
from benchmarks.digits.strings import RATE_HZ, WORDS, Take


def test_right_is_one_less_errors_and_what_is_put_in_counts() -> None:
    found = score(["one two", "four three", "six", "five five five"], ["one two", "three four", "six seven", "five"])
    # "four three" for "three four": the fewest edits are two; seven is missing; five was put in twice.
    assert found.num_words == 7
    assert found.num_strings == 4
    assert found.substitutions + found.deletions + found.insertions == 2 + 1 + 2
    assert found.right == pytest.approx(1 - 5 / 7)
    assert found.low < found.right < found.high


def test_what_says_nothing_is_wrong_and_what_says_all_is_right() -> None:
    assert score(["", ""], ["one", "two three"]).right == 0.0
    whole = score(["one", "two three"], ["one", "two three"])
    assert (whole.right, whole.low, whole.high) == (1.0, 1.0, 1.0)


def test_the_interval_is_drawn_over_texts_and_the_same_every_time() -> None:
    texts = [f"{first} {second}" for first in WORDS[:5] for second in WORDS]
    heard = ["one one one" if place % 3 == 0 else text for place, text in enumerate(texts)]
    once, often = score(heard, texts), score(heard * 9, texts * 9)
    assert once == score(heard, texts)
    assert once.high - once.low > 0.05
    assert (often.right, often.low, often.high) == (once.right, once.low, once.high)  # nine times the same is no more
    assert (often.num_strings, often.num_texts, once.num_texts) == (450, 50, 50)


def test_nothing_is_heard_in_no_audio() -> None:
    recogniser = Recogniser().eval()
    assert [recogniser.read(np.zeros(length, np.float32)) for length in (0, 1, 256)] == [""] * 3
    recogniser.read(np.zeros(257, np.float32))


def test_a_judge_hears_each_wave_once() -> None:
    waves = [np.full(100, number, np.float32) for number in range(3)]
    heard: list[float] = []

    def read(wave: np.ndarray) -> str:
        heard.append(float(wave[0]))
        return "one"

    assert judge(read, waves, ["one"] * 3).right == 1.0
    assert heard == [0.0, 1.0, 2.0]


def test_a_recogniser_is_read_back_with_the_takes_it_heard(tmp_path: Path) -> None:
    recogniser = Recogniser([("george", Take(7, 12)), ("lucas", Take(0, 5))]).eval()
    recogniser.save(tmp_path)
    again = Recogniser.load(tmp_path)
    audio = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert again.takes == {("george", Take(7, 12)), ("lucas", Take(0, 5))}
    assert again.read(audio) == recogniser.read(audio)


def test_audio_is_made_worse_and_stays_audio() -> None:
    audio = np.sin(np.arange(RATE_HZ) * 0.3).astype(np.float32) * 0.3
    for seed in range(12):
        worse = worsened(audio, np.random.default_rng(seed))
        assert worse.dtype == np.float32
        assert np.isfinite(worse).all()
        assert 16000 / 1.21 < len(worse) < 16000 / 0.84
        np.testing.assert_array_equal(worse, worsened(audio, np.random.default_rng(seed)))
