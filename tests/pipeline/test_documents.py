"""What a document of turns can serve, and what is said of all its turns together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.documents import MadeTurn, document_of, key_of, tasks_of

AUDIO, CODES = np.zeros(640, np.float32), np.zeros(1, np.uint16)


def turn(text: str | None = "hello", *, is_heard: bool = True, has_codes: bool = True, **facts: Any) -> MadeTurn:
    clips = [(b"c" * 16, 640)] if is_heard or has_codes else []
    return MadeTurn({"text": text, **facts}, AUDIO if is_heard else None, CODES if has_codes else None, clips=clips)


SAID, MUTE, DEAF = turn(), turn(None), turn(is_heard=False)
READ = turn(is_heard=False, has_codes=False)


@pytest.mark.parametrize(
    ("kind", "turns", "tasks"),
    [
        ("clip", [SAID], ["asr", "tts", "text"]),
        ("clip", [MUTE], []),
        ("clip", [turn(None, caption_zh="他在说话。")], ["captioning"]),
        ("clip", [DEAF], ["tts", "text"]),
        ("text", [READ], ["text"]),
        ("continuation", [SAID, SAID, SAID], ["continuation_text", "continuation"]),
        ("continuation", [MUTE, SAID], ["continuation_text"]),
        ("continuation", [SAID, MUTE, SAID], []),
        ("continuation", [turn(has_codes=False)] * 2, ["continuation_text"]),
        ("continuation", [DEAF, DEAF], ["continuation"]),
        ("conversation", [MUTE, DEAF, MUTE, DEAF], ["conversation"]),
        ("conversation", [MUTE, DEAF, DEAF, SAID], []),
        ("conversation", [SAID, MUTE], []),
        ("pair", [SAID, SAID], ["s2tt", "t2st", "s2st"]),
        ("pair", [SAID, READ], ["s2tt"]),
        ("pair", [READ, SAID], ["t2st"]),
        ("pair", [MUTE, SAID], ["s2tt", "s2st"]),
    ],
)
def test_tasks_follow_from_what_the_turns_hold(kind: str, turns: list[MadeTurn], tasks: list[str]) -> None:
    assert tasks_of(kind, turns) == tasks


def test_what_is_said_of_all_turns_is_what_they_share() -> None:
    first = turn("one", language="en", text_source="asr", licence="MIT", source="a", synthesizer="espeak", role="human")
    second = turn("eins", language="de", text_source="asr", licence="CC0-1.0", source="a", is_heard=False, has_codes=False)
    row = document_of("k", "pair", "translation", [first, second], 16_000, "ann").row
    assert (row["language"], row["text_source"], row["source"]) == (None, "asr", "a")
    assert (row["licence"], row["synthesizer"]) == ("MIT AND CC0-1.0", "espeak")
    assert (row["num_samples"], row["num_codes"], row["num_text_tokens"]) == (640, 1, None)
    assert [told["role"] for told in row["turns"]] == ["human", None]
    without = document_of("k", "pair", "translation", [first, turn("eins", source="b")], 16_000).row
    assert (without["licence"], without["source"]) == (None, "a, b")


def test_members_are_numbered_by_turn() -> None:
    made = document_of("k", "pair", "translation", [READ, turn(has_codes=False), DEAF], 16_000)
    assert [suffix for suffix, _ in made.members] == ["json", "1.flac", "2.codes.npy"]


def test_a_key_follows_from_clips_kind_and_order() -> None:
    one, other = turn(), MadeTurn({"text": "hello"}, AUDIO, clips=[(b"d" * 16, 640)])
    keys = [
        key_of("pair", [one, other]),
        key_of("pair", [other, one]),
        key_of("continuation", [one, other]),
        key_of("pair", [one, READ]),
    ]
    assert len({*keys}) == 4
    assert all(len(key) == 32 and bytes.fromhex(key) for key in keys)
