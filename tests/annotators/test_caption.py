from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators import caption_words as words
from annotators.caption import CaptionConfig, chinese, english
from annotators.paralinguistics import ADDS
from annotators.paralinguistics_schema import LABELS
from manifests.contracts import ClipBatch
from manifests.schema import layer_schema

EVERYTHING = {
    "gender": "female",
    "age": "adult",
    "timbre": "warm",
    "scenario": "street",
    "event": "dog",
    "emotion": "sad",
    "pitch": "low",
    "rhythm": "even",
    "speaking_speed": "slow",
    "speaking_style": "formal",
    "vocal_activity": "speech",
}


def test_all_eleven_in_one_sentence_whose_clauses_come_in_four_orders() -> None:
    assert [english(EVERYTHING, draw) for draw in range(4)] == [
        "A woman speaks slowly in a low-pitched, warm voice with an even rhythm in a formal style, sounding sad, in the street, "
        "with a dog barking in the background.",
        "In a low-pitched, warm voice with an even rhythm in a formal style, a woman speaks slowly, sounding sad, in the street, "
        "with a dog barking in the background.",
        "Sounding sad, a woman speaks slowly in a low-pitched, warm voice with an even rhythm in a formal style, in the street, "
        "with a dog barking in the background.",
        "In this recording, a woman speaks slowly in a low-pitched, warm voice with an even rhythm in a formal style, sounding sad, "
        "in the street, with a dog barking in the background.",
    ]
    assert [chinese(EVERYTHING, draw) for draw in range(4)] == [
        f"{begin}一位成年女性在街上说话，语速较慢，节奏平稳，音调较低，音色温暖，说话风格为正式，情绪悲伤，背景中有狗叫声。"
        for begin in ("", "录音中，", "可以听到", "这段录音里，")
    ]


@pytest.mark.parametrize(
    ("tags", "in_english", "in_chinese"),
    [
        ({"vocal_activity": "speech"}, "Someone speaks.", "有人正在说话。"),
        ({"gender": "male"}, "A man or boy speaks.", "一位男性正在说话。"),
        ({"age": "child", "gender": "male"}, "A boy speaks.", "一个男孩正在说话。"),
        ({"age": "elderly", "emotion": "other"}, "An elderly person speaks.", "一位老人正在说话。"),
        ({"timbre": "hoarse"}, "Someone speaks in a hoarse voice.", "有人正在说话，音色沙哑。"),
        ({"timbre": "airy"}, "Someone speaks in an airy voice.", "有人正在说话。"),
        ({"speaking_style": "whispered", "vocal_activity": "speech"}, "Someone whispers.", "有人正在耳语。"),
        # A laugh has no speed and no rhythm of speech.
        ({"vocal_activity": "laughter", "speaking_speed": "slow", "rhythm": "even"}, "Someone laughs.", "有人正在大笑。"),
        ({"vocal_activity": "silence"}, "Nothing can be heard.", "没有任何声音。"),
        ({"vocal_activity": "silence", "event": "rain"}, "Rain can be heard.", "可以听到雨声。"),
        ({"event": "thunder", "scenario": "park"}, "Thunder can be heard in a park.", "在公园里，可以听到雷声。"),
        ({"scenario": "bus"}, "The recording was made on a bus.", "录音是在公交车上录制的。"),
        ({"event": "toy_robot"}, "A sound described as “toy robot” can be heard.", None),
        ({"vocal_activity": "other"}, None, None),
        ({}, None, None),
    ],
)
def test_only_what_is_known_is_said(tags: dict[str, str], in_english: str | None, in_chinese: str | None) -> None:
    assert (english(tags, 0), chinese(tags, 0)) == (in_english, in_chinese)


def test_every_label_of_a_closed_dimension_has_its_words() -> None:
    tables = [
        ("emotion", words.EMOTION_EN, words.EMOTION_ZH),
        ("pitch", words.PITCH_EN, words.PITCH_ZH),
        ("rhythm", words.RHYTHM_EN, words.RHYTHM_ZH),
        ("speaking_speed", words.SPEED_EN, words.SPEED_ZH),
    ]
    for dimension, in_english, in_chinese in tables:
        labels = set(LABELS[dimension] or ()) - {"other"}  # type: ignore[index]
        assert in_english.keys() == in_chinese.keys() == labels
    who = set(itertools.product(("", *(LABELS["gender"] or ())), ("", *(LABELS["age"] or ()))))
    assert words.WHO_EN.keys() == words.WHO_ZH.keys() == who
    assert words.DOES_EN.keys() == words.DOES_ZH.keys() == set(LABELS["vocal_activity"] or ()) - {"silence", "speech", "other"}
    for in_english, in_chinese in ((words.SCENARIO_EN, words.SCENARIO_ZH), (words.EVENT_EN, words.EVENT_ZH)):
        assert in_english.keys() == in_chinese.keys()


def test_a_corpus_of_like_clips_has_many_sentences_and_a_clip_one() -> None:
    tags = {"pitch": "low", "speaking_speed": "normal", "rhythm": "even", "vocal_activity": "speech"}
    draws = np.random.default_rng(0).integers(0, 2**63, 300).tolist()
    for sentence in (english, chinese):
        said = [sentence(tags, draw) for draw in draws]
        assert said == [sentence(tags, draw) for draw in draws]
        most = Counter(said).most_common(1)[0][1]
        assert len(set(said)) >= 30
        assert most <= 30  # a tenth


CLOSED = {dimension: st.sampled_from([None, *labels]) for dimension, labels in LABELS.items() if labels}
OPEN = {dimension: st.sampled_from([None, value, "x_y"]) for dimension, value in EVERYTHING.items() if dimension not in CLOSED}


@given(st.fixed_dictionaries({**CLOSED, **OPEN}), st.integers(0, 2**64 - 1))
def test_any_tags_make_one_clean_sentence(tags: dict[str, str | None], draw: int) -> None:
    known = {dimension: label for dimension, label in tags.items() if label is not None}
    said, also = english(known, draw), chinese(known, draw)
    if said is not None:
        assert said[0].isupper()
        assert said.count(".") == 1
        assert said.endswith(".")
        assert not any(wrong in said for wrong in ("  ", " ,", ",,", "None", "_"))
    if also is not None:
        assert also.count("。") == 1
        assert also.endswith("。")
        assert not any(wrong in also for wrong in ("，，", "，。", "None", " ", "x"))


def test_the_layer_draws_by_the_clip_and_reads_what_it_is_told_to() -> None:
    part = CaptionConfig(paralinguistics="tags").build()
    assert part.reads == ("tags",)
    ids = [bytes([first]) + bytes(15) for first in (0, 1, 2)]
    tag = {"pitch": {"value": "high"}, "gender": {"value": None, "posterior": [{"label": "male", "prob": 0.5}]}}
    rows = [{"clip_id": i, "status": "ok", **tag} for i in ids[:2]] + [{"clip_id": ids[2], "status": "abstained"}]
    layer = pa.Table.from_pylist(rows, layer_schema(ADDS))
    clips = pa.table({"clip_id": pa.array(ids, pa.binary(16))})
    said = part.annotate(ClipBatch(clips, layers={"tags": layer})).to_pylist()
    assert [row["caption_en"] for row in said] == [
        "Someone speaks in a high-pitched voice.",
        "In a high-pitched voice, someone speaks.",
        None,
    ]
    assert [row["status"] for row in said] == ["ok", "ok", "abstained"]
