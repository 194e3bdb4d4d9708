from __future__ import annotations

import pytest

from pipeline.copies.ngrams import RegistryTexts
from pipeline.copies.recipe import DecontaminateConfig
from pipeline.copies.texts import same_texts

LONG = "one day the old fisherman found a small green bottle with a letter inside it near the pier"


@pytest.fixture
def texts():
    found = RegistryTexts(DecontaminateConfig())
    found.add([(LONG, "en"), ("turn the kitchen lights off", "en"), ("yes please", "en"), (None, "en")])
    found.add([("今天下午三点我们在图书馆门口见面然后一起去吃饭", "zh")])
    return found


@pytest.mark.parametrize(
    ("text", "language", "number", "share"),
    [
        (LONG.upper() + "!", "en", 0, 1.0),
        ("Well: " + " ".join(LONG.split()[:13]), "en", 0, 1 / 6),
        ("Turn the kitchen lights off.", "en", 1, 1.0),
        ("今天下午三点，我们在图书馆门口见面", "zh", 4, 4 / 11),
    ],
)
def test_a_run_of_words_or_a_whole_short_text_is_found(texts, text, language, number, share):
    match = texts.match(text, language)
    assert match.number == number
    assert match.share == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    "text",
    [None, "", "yes please", "please turn the kitchen lights off now", " ".join(LONG.split()[:12]), "something else entirely"],
)
def test_less_than_that_is_not(texts, text):
    assert texts.match(text, "en") is None


def test_texts_that_differ_in_a_letter_are_the_same_and_others_are_not():
    said = [
        LONG,
        LONG.replace("green", "greem"),
        "Quite another sentence about winter in the mountains.",
        LONG.title(),
        None,
        "yes",
    ]
    pairs = same_texts(said, ["en"] * len(said), 0.8)
    assert [(pair.left, pair.right) for pair in pairs] == [(0, 1), (0, 3)]
    assert pairs[0].similarity == pytest.approx(0.88, abs=0.05)
    assert pairs[1].similarity == 1.0
    assert [(pair.left, pair.right) for pair in same_texts(said, ["en"] * len(said), 0.95)] == [(0, 3)]
