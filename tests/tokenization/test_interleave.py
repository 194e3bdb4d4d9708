from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import ContractError, RequestError
from tokenization.interleave import Ratio, deinterleave, interleave, kinds
from tokenization.stretches import TokenKind
from tokenization.vocabulary import Vocabulary

SMALL = Vocabulary.small(300)
PUBLISHED = Vocabulary.published()
RATIOS = st.builds(Ratio, st.integers(1, 3), st.integers(1, 15))
TEXTS = st.lists(st.integers(0, 299), max_size=40)
CODES = st.lists(st.integers(0, 6560), max_size=120)

# Golden: two text ids and nine codes in the published table, at 1:4. The ninth code opens a third group.
GOLDEN = [
    *(9707, 151_696, 151_697, 151_698, 151_699),
    *(1879, 155_000, 155_001, 155_002, 155_003),
    *(151_695, 158_256, 158_257, 158_257, 158_257),
]
# Golden: the text is the longer stream; audio is padded to whole groups.
GOLDEN_LONG_TEXT = [1, 151_703, 158_257, 158_257, 158_257, 2, 158_257, 158_257, 158_257, 158_257]


def test_golden_ids() -> None:
    codes = [0, 1, 2, 3, 3304, 3305, 3306, 3307, 6560]
    ids, what = interleave([9707, 1879], codes, PUBLISHED)
    assert ids.tolist() == GOLDEN
    assert what.tolist() == kinds(GOLDEN, PUBLISHED).tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 2, 1, 3, 3, 3]
    ids, what = interleave([1, 2], [7], PUBLISHED)
    assert ids.tolist() == GOLDEN_LONG_TEXT
    assert what.tolist() == [0, 1, 3, 3, 3, 0, 3, 3, 3, 3]


@settings(deadline=None)
@given(text=TEXTS, codes=CODES, ratio=RATIOS)
def test_deinterleave_is_the_exact_inverse(text: list[int], codes: list[int], ratio: Ratio) -> None:
    ids, _ = interleave(text, codes, SMALL, ratio)
    assert ids.dtype == np.int64
    back_text, back_codes = deinterleave(ids, SMALL, ratio)
    assert back_text == text
    assert back_codes.dtype == np.uint16
    assert back_codes.tolist() == codes


@settings(deadline=None)
@given(text=TEXTS, codes=CODES, ratio=RATIOS)
def test_groups_are_whole_and_as_few_as_can_be(text: list[int], codes: list[int], ratio: Ratio) -> None:
    ids, _ = interleave(text, codes, SMALL, ratio)
    groups = max(-(-len(text) // ratio.text), -(-len(codes) // ratio.audio))
    assert len(ids) == groups * ratio.group
    rows = ids.reshape(groups, ratio.group)
    assert np.isin(rows[:, : ratio.text], [*range(300), SMALL.tts_pad]).all()
    assert (rows[:, ratio.text :] >= SMALL.audio_base).all()


@settings(deadline=None)
@given(text=TEXTS, codes=CODES, ratio=RATIOS)
def test_kinds_count_what_was_put_in(text: list[int], codes: list[int], ratio: Ratio) -> None:
    ids, found = interleave(text, codes, SMALL, ratio)
    assert found.dtype == np.uint8
    assert found.tolist() == kinds(ids, SMALL, ratio).tolist()
    counts = {kind: int((found == kind).sum()) for kind in TokenKind}
    groups = len(ids) // ratio.group
    assert counts[TokenKind.TEXT] == len(text)
    assert counts[TokenKind.AUDIO_CODE] == len(codes)
    assert counts[TokenKind.TTS_PAD] == groups * ratio.text - len(text)
    assert counts[TokenKind.AUDIO_PAD] == groups * ratio.audio - len(codes)
    assert (ids[found == TokenKind.TTS_PAD] == SMALL.tts_pad).all()
    assert (ids[found == TokenKind.AUDIO_PAD] == SMALL.audio_pad_id).all()


@settings(deadline=None)
@given(text=TEXTS.filter(bool), codes=CODES.filter(bool), data=st.data())
def test_a_stream_with_a_place_swapped_is_refused(text: list[int], codes: list[int], data: st.DataObject) -> None:
    ids, _ = interleave(text, codes, SMALL)
    place = data.draw(st.integers(0, len(ids) - 1))
    ids[place] = 3 if place % 5 else SMALL.audio_base
    with pytest.raises(ContractError, match=f"at position {place}"):
        deinterleave(ids, SMALL)


def test_broken_streams_are_refused() -> None:
    ids, _ = interleave([1], [1, 2, 3, 4, 5], SMALL)
    with pytest.raises(ContractError, match="multiple of 5"):
        deinterleave(ids[:-1], SMALL)
    with pytest.raises(ContractError, match="goes on after its padding"):
        deinterleave(np.concatenate([ids, ids]), SMALL)
    with pytest.raises(ContractError, match="at position 0"):
        deinterleave([SMALL.tts_start, *ids[1:]], SMALL)


def test_ids_out_of_range_are_refused() -> None:
    with pytest.raises(ContractError, match="text id 300 is outside"):
        interleave([300], [], SMALL)
    with pytest.raises(ContractError, match="code 6561 is outside"):
        interleave([], [6561], SMALL)
    with pytest.raises(ContractError, match="code -1 is outside"):
        interleave([], [-1], SMALL)


def test_nothing_is_nothing() -> None:
    ids, what = interleave([], [], SMALL)
    assert (ids.tolist(), what.tolist()) == ([], [])
    text, codes = deinterleave([], SMALL)
    assert text == []
    assert codes.tolist() == []


def test_a_ratio_reads_what_it_writes() -> None:
    assert Ratio.parse(str(Ratio(2, 7))) == Ratio(2, 7)
    for wrong in ("1-4", "1:", "0:4", "1:x", "1:²"):
        with pytest.raises(RequestError, match="1:4"):
            Ratio.parse(wrong)
