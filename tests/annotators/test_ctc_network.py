from __future__ import annotations

import pytest

from annotators.checkpoints import find_checkpoint
from annotators.ctc_network import CtcNetwork
from manifests.contracts import Audio


@pytest.fixture(scope="module")
def network(tiny_ctc: str) -> CtcNetwork:
    return CtcNetwork(find_checkpoint(tiny_ctc), "cpu")


def test_words_lie_in_the_audio_in_order(network: CtcNetwork, conversation: Audio) -> None:
    found = network.align(conversation[:160_000], "Hello there, general Kenobi!", "en")
    assert [word.word for word in found.words] == ["Hello", "there,", "general", "Kenobi!"]
    assert (found.num_unaligned, found.error) == (0, None)
    edges = [edge for word in found.words for edge in (word.start_sample, word.end_sample)]
    assert edges == sorted(edges)
    assert 0 <= edges[0] < edges[-1] <= 160_000
    assert all(word.confidence is not None and 0.0 < word.confidence < 1.0 for word in found.words)


def test_a_word_without_a_known_letter_is_counted_and_gets_no_time(network: CtcNetwork, conversation: Audio) -> None:
    found = network.align(conversation[:160_000], "well — мир | peace", "en")
    assert [word.word for word in found.words] == ["well", "peace"]
    assert (found.num_unaligned, found.error) == (3, "words without a letter that the model knows")
    assert network.align(conversation[:160_000], "мир", "ru")[1:] == (1, "no letter that the model knows")


def test_characters_stand_for_words_where_there_are_no_spaces(network: CtcNetwork, conversation: Audio) -> None:
    found = network.align(conversation[:160_000], "a b你", "zh")
    assert [word.word for word in found.words] == ["a", "b"]
    assert found.num_unaligned == 1


def test_a_text_that_does_not_fit_is_said(network: CtcNetwork, conversation: Audio) -> None:
    assert network.align(conversation[:16_000], "a" * 50, "en") == ([], 1, "more letters than frames")
    assert network.align(conversation[:16_000], " ", "en") == ([], 0, None)
