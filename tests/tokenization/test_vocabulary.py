from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import ContractError, MismatchError
from tokenization.vocabulary import Vocabulary

PUBLISHED_LAYOUT = "08f04577d1f35cda4da15044b212f861"


# The published table, literally as in the reference, section 1.6.
PUBLISHED = """
151665 <|EOT|>         151681 <|MASK_1e69f|>
151666 <|BOT|>         151682 <|UNMASK_1e69f|>
151667 <|CALL_START|>  151683 <video_start>
151668 <|CALL_END|>    151684 <video_end>
151669 <|THINK_START|> 151685 <patch_start>
151670 <|THINK_END|>   151686 <patch_end>
151671 <|IMG_START|>   151687 <patch_newline>
151672 <|IMG_END|>     151688 <audio_start>
151673 <|META_START|>  151689 <audio_end>
151674 <|META_END|>    151690 <audio_patch>
151675 <im_patch>      151691 <audio_patch_pad>
151676 <im_start>      151692 <|SC|>
151677 <im_end>        151693 <tts_start>
151678 <dream>         151694 <tts_end>
151679 <dream_start>   151695 <tts_pad>
151680 <dream_end>
"""
QWEN_SPECIALS = {"<|endoftext|>": 151_643, "<tool_call>": 151_657, "</tool_call>": 151_658}


def test_the_published_table_has_the_published_ids() -> None:
    table = Vocabulary.published()
    cells = PUBLISHED.split()
    stated = {token: int(number) for number, token in zip(cells[::2], cells[1::2], strict=True)}
    assert len(stated) == 31
    assert dict(table.specials) == stated | QWEN_SPECIALS
    assert (table.audio_id(0), table.audio_id(6560), table.audio_pad_id, table.num_rows) == (151_696, 158_256, 158_257, 158_720)
    assert (table.end_of_text, table.pad, table.eot, table.bot) == (151_643, 151_643, 151_665, 151_666)
    assert table.layout_hash == PUBLISHED_LAYOUT


def test_the_rows_of_a_text_model_end_where_the_first_new_special_is() -> None:
    published = Vocabulary.published()
    assert published.num_text_rows == published.text_size == 151_665
    # Qwen2.5's own padding (rows up to 151,936 or 152,064) was never trained: specials and the first codes lie there.
    known = published.known_rows(wrappers=False)
    assert (len(known), int(known.sum()), bool(known[:151_665].all())) == (158_720, 151_665, True)
    assert np.flatnonzero(published.known_rows(wrappers=True) & ~known).tolist() == [151_688, 151_689, 151_690, 151_691]
    small = Vocabulary.small(300)
    assert small.num_text_rows == 304
    assert small.end_of_text < small.num_text_rows <= small.eot


def test_another_layout_is_refused_by_name_and_remedy() -> None:
    table = Vocabulary.small(300)
    table.check_layout(table.layout_hash, "checkpoint 'c'")
    for stated in (Vocabulary.small(301).layout_hash, None):
        with pytest.raises(MismatchError, match=f"checkpoint 'c' has vocabulary layout {stated}.*use the tokenizer"):
            table.check_layout(stated, "checkpoint 'c'")


@given(text_size=st.integers(1, 5000), num_codes=st.integers(1, 7000))
def test_a_small_table_gives_every_token_an_id_of_its_own(text_size: int, num_codes: int) -> None:
    table = Vocabulary.small(text_size, num_codes)
    ids = [number for _, number in table.specials]
    assert ids == list(range(text_size, text_size + len(ids)))
    assert table.audio_base == ids[-1] + 1
    assert table.audio_pad_id == table.audio_base + num_codes < table.num_rows
    assert table.num_rows % 64 == 0
    assert table.num_rows - table.audio_pad_id <= 64
    assert table.pad != table.end_of_text


def test_both_tables_name_the_same_specials() -> None:
    small = {token for token, _ in Vocabulary.small(300).specials}
    assert small - {"<|pad|>"} == {token for token, _ in Vocabulary.published().specials}


@given(codes=st.lists(st.integers(0, 6560), max_size=20))
def test_codes_come_back_from_ids_and_pads_do_not(codes: list[int]) -> None:
    table = Vocabulary.small(300)
    ids = [5, *(table.audio_id(code) for code in codes), table.audio_pad_id, table.tts_pad]
    assert table.is_audio(ids).tolist() == [False, *[True] * len(codes), False, False]
    back = table.codes_of(ids)
    assert back.dtype == np.uint16
    assert back.tolist() == codes


def test_a_table_survives_json_and_a_changed_one_is_found() -> None:
    table = Vocabulary.small(300)
    stored = json.loads(json.dumps({**table.to_json(), "layout_hash": table.layout_hash}))
    assert Vocabulary.from_json(stored) == table
    assert Vocabulary.from_json(stored).layout_hash == table.layout_hash
    with pytest.raises(MismatchError, match="states"):
        Vocabulary.from_json({**stored, "text_size": 299})
    with pytest.raises(MismatchError, match="cannot be read"):
        Vocabulary.from_json({"text_size": 299})


def test_layouts_differ_when_tables_do() -> None:
    tables = [Vocabulary.small(300), Vocabulary.small(301), Vocabulary.small(300, 100), Vocabulary.published()]
    assert len({table.layout_hash for table in tables}) == len(tables)


def test_what_cannot_be_is_refused() -> None:
    table = Vocabulary.small(300)
    for code in (-1, 6561):
        with pytest.raises(ContractError, match=r"codes are 0\.\.6560"):
            table.audio_id(code)
    with pytest.raises(ContractError, match="not in this vocabulary"):
        table.special("<|NOPE|>")
    with pytest.raises(ContractError, match="uint16"):
        Vocabulary.small(300, 70_000)
    with pytest.raises(ContractError, match="must not meet"):
        Vocabulary(300, (("<a>", 305),), 302, 10, 312, 320)
