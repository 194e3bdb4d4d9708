from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenization.letters import Letters, normal_form, shortest_frames


def test_letters_are_those_of_the_normal_forms() -> None:
    letters = Letters.of(["Don't  STOP!", "you’d—Go"])
    assert letters.alphabet == " 'dgnopstuy"
    assert letters.num_labels == 12
    assert normal_form("Don't  STOP!") == "don't stop"
    assert letters.labels("zip") == [letters.alphabet.index("p") + 1]  # z and i are not in the alphabet
    assert Letters.of([]).alphabet == ""


def test_a_reading_leaves_out_repeats_and_blanks() -> None:
    letters = Letters(" ab")
    assert letters.read([0, 2, 2, 0, 2, 1, 1, 3, 0, 0]) == "aa b"
    assert letters.read([1, 2, 1]) == "a"
    assert letters.read([]) == ""


@given(st.text("abc ", max_size=30))
def test_the_shortest_path_spells_the_text(text: str) -> None:
    letters = Letters.of(["abc ab"])
    labels = letters.labels(text)
    frames: list[int] = []
    for label in labels:
        frames += [0, label] if frames and frames[-1] == label else [label]
    assert len(frames) == shortest_frames(labels)
    assert letters.read(frames) == normal_form(text)
