"""The splits of the digit strings share no take and no order, and names say what recordings are made of."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.digits.strings import GAP_S, RATE_HZ, DigitString, Part, Take, draw_strings, read_takes, write_strings

SPEAKERS = ("george", "jackson", "lucas", "nicolas")
FEW = {Part.TEST: 40, Part.TUNING: 20, Part.TRAIN: 60}


def test_splits_share_no_take_and_no_order() -> None:
    strings = draw_strings(SPEAKERS)
    assert {number for own in strings[Part.TEST] for number in (take.number for take in own.takes)} == set(range(5))
    for one, other in combinations(Part, 2):
        takes = [{(own.speaker, take) for own in strings[part] for take in own.takes} for part in (one, other)]
        orders = [{own.order for own in strings[part] if len(own.order) > 1} for part in (one, other)]
        assert not takes[0] & takes[1]
        assert not orders[0] & orders[1]


def test_test_strings_of_new_orders_hold_a_thousand_words_and_two_hundred_texts() -> None:
    new = [own for own in draw_strings(SPEAKERS)[Part.TEST] if len(own.order) > 1]
    assert sum(len(own.order) for own in new) >= 1000
    assert len(new) >= 200
    assert {len(own.order) for own in new} == {2, 3, 4, 5}
    assert {own.speaker for own in new} == set(SPEAKERS)


def test_another_seed_draws_others_and_the_same_draws_the_same() -> None:
    assert draw_strings(SPEAKERS, FEW) == draw_strings(SPEAKERS, FEW)
    assert draw_strings(SPEAKERS, FEW, seed=1) != draw_strings(SPEAKERS, FEW)


def test_a_name_says_which_takes() -> None:
    string = DigitString("george", (Take(7, 5), Take(0, 31)))
    assert string.file_name == "george_7-05_0-31.flac"
    assert DigitString.of_uri(f"file:///somewhere/{string.file_name}") == string
    assert string.text == "seven zero"
    with pytest.raises(ValueError, match="does not name its takes"):
        DigitString.of_uri("7.flac")


def test_recordings_hold_their_takes_in_order_with_silence_between(shared: Path, tmp_path: Path) -> None:
    manifests = write_strings(tmp_path, shared / "speech", FEW)
    takes = read_takes(shared / "speech")
    for part, manifest in manifests.items():
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        assert len(rows) == FEW[part]
        for row in rows:
            string = DigitString.of_uri(row["uri"])
            assert (row["text"], row["speaker_label"]) == (string.text, string.speaker)
            audio, rate = soundfile.read(tmp_path / row["uri"], dtype="int16")
            assert rate == RATE_HZ
            place = 0
            for take in string.takes:
                own = takes[string.speaker, take]
                gap = next(gap for gap in range(place, len(audio)) if np.array_equal(audio[gap : gap + len(own)], own))
                assert not audio[place:gap].any()
                assert gap - place <= GAP_S[1] * RATE_HZ + 1
                place = gap + len(own)
            assert not audio[place:].any()


def test_more_single_digits_than_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="split 'test': 200 strings of one digit out of 200 takes"):
        draw_strings(SPEAKERS, {**FEW, Part.TEST: 1000})
