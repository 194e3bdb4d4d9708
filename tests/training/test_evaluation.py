from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import other_texts


@given(st.lists(st.sampled_from("abcdef"), max_size=30))
def test_audio_goes_to_documents_of_another_text_each_once(texts: list[str]) -> None:
    donors = other_texts(texts)
    commonest = max((texts.count(text) for text in texts), default=0)
    if not texts or 2 * commonest > len(texts):
        assert donors == []
        return
    assert sorted(donors) == list(range(len(texts)))
    assert all(texts[donor] != texts[place] for place, donor in enumerate(donors))


def test_the_swap_is_the_same_every_time() -> None:
    texts = ["b", "a", "c", "a", "d"]
    assert other_texts(texts) == other_texts(texts)
