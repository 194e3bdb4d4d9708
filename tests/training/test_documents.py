from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import ContractError, RequestError
from manifests.packs import Pack
from tests.training import made_documents as documents
from tests.training.made_documents import Made
from tokenization.artifact import Tokenizer
from tokenization.interleave import Ratio
from tokenization.text import TextTokenizer
from training.documents import parts, read_split, serve
from training.entries import entry_of
from training.examples import ExampleMaker
from training.layouts import NEEDS, Layouts
from training.prompts import Prompts
from training.recipe import LossWeights, Task

LAYOUTS = documents.layouts(Prompts())
UNLIMITED = 10**9


def reasons(task: Task, made: Made, max_tokens: int = UNLIMITED) -> list[str | None]:
    """One a part: None where it serves."""
    return [part if isinstance(part, str) else None for part in parts(task, made.entry(), LAYOUTS, max_tokens)]


def pair(source: dict[str, Any], target: dict[str, Any]) -> Made:
    whole = {"text": "hi", "num_samples": 8000, "num_codes": 9}
    return documents.pair(documents.turn(**{**whole, **source}), documents.turn(**{**whole, "language": "en", **target}))


CLIP = documents.clip
FULL_PAIR = pair({}, {})


@pytest.mark.parametrize(
    ("task", "made", "reason"),
    [
        (Task.ASR, CLIP(), None),
        (Task.ASR, CLIP(text=""), "not_offered"),
        (Task.ASR, CLIP(num_samples=None), "not_offered"),
        (Task.ASR, CLIP(num_samples=320), "audio_too_short"),
        (Task.ASR, CLIP(num_samples=321), None),
        (Task.ASR, CLIP(num_samples=1_000_000), None),
        (Task.ASR, FULL_PAIR, "not_offered"),
        (Task.TEXT, CLIP(), None),
        (Task.TEXT, CLIP(text=""), "not_offered"),
        (Task.REPEAT, documents.made("text", [documents.turn("hi")]), None),
        (Task.CTC, CLIP(num_samples=400_000), None),
        (Task.CTC, CLIP(num_samples=400_001), "audio_too_long"),
        (Task.CTC, CLIP(text="aab", num_samples=1920), "more_labels_than_frames"),  # 3 frames; a blank between equal labels
        (Task.CTC, CLIP(text="aba", num_samples=1920), None),
        (Task.TTS, CLIP(num_samples=None), None),
        (Task.TTS, CLIP(num_codes=None), "not_offered"),
        (Task.TTS, CLIP(num_codes=0), "no_codes"),
        (Task.CAPTIONING, CLIP(caption_en="loud"), None),
        (Task.CAPTIONING, CLIP(), "not_offered"),
        (Task.S2TT, FULL_PAIR, None),
        (Task.S2TT, pair({"num_samples": None}, {}), "not_offered"),
        (Task.S2TT, pair({}, {"language": None}), "no_language"),
        (Task.S2TT, pair({}, {"language": "sw"}), "language_without_name"),
        (Task.T2ST, pair({"num_samples": None}, {}), None),
        (Task.S2ST, pair({}, {"num_codes": 0}), "no_codes"),
        (Task.CONTINUATION, documents.continuation("a", "b"), None),
        (Task.CONTINUATION, CLIP(), "not_offered"),
        (Task.CONTINUATION_TEXT, documents.continuation("a", "b", num_samples=320), "audio_too_short"),
        (Task.CONVERSATION, documents.conversation("a", "b", "c"), None),
        (Task.CONVERSATION, documents.made("conversation", [documents.turn("a", 800, 9)] * 2, "reply"), "no_exchange"),
    ],
)
def test_a_document_is_refused_for_a_reason_that_has_a_name(task: Task, made: Made, reason: str | None) -> None:
    assert reasons(task, made) == [reason]


def test_a_prompt_that_names_no_language_needs_none() -> None:
    layouts = documents.layouts()
    assert not isinstance(next(parts(Task.S2TT, pair({}, {"language": None}).entry(), layouts, UNLIMITED)), str)


@pytest.mark.parametrize("task", [task for task in Task if NEEDS[task].most_turns is not None and task is not Task.CTC])
def test_a_document_of_set_turns_is_refused_past_the_limit_and_never_cut(task: Task) -> None:
    made = FULL_PAIR if task.value in FULL_PAIR.row["tasks"] else CLIP(caption_en="loud")
    (whole,) = parts(task, made.entry(), LAYOUTS, UNLIMITED)
    assert not isinstance(whole, str)
    assert reasons(task, made, whole.num_tokens) == [None]
    assert reasons(task, made, whole.num_tokens - 1) == ["too_long"]


def numbers(task: Task, made: Made, max_tokens: int) -> list[list[int] | str]:
    """Numbers of the turns of each part, or the reason of a refusal."""
    found = parts(task, made.entry(), documents.layouts(), max_tokens)
    return [part if isinstance(part, str) else [turn.number for turn in part.entry.turns] for part in found]


def test_a_long_document_is_split_between_turns() -> None:
    made = documents.continuation("a", "b", "c", "d", "e")  # 15 + 2 tokens a turn, and the stop
    assert numbers(Task.CONTINUATION, made, 86) == [[0, 1, 2, 3, 4]]
    assert numbers(Task.CONTINUATION, made, 85) == [[0, 1, 2, 3], "lone_turn"]
    assert numbers(Task.CONTINUATION, made, 52) == [[0, 1, 2], [3, 4]]
    assert numbers(Task.CONTINUATION, made, 35) == [[0, 1], [2, 3], "lone_turn"]
    assert numbers(Task.CONTINUATION, made, 34) == ["too_long"] * 4 + ["lone_turn"]


def test_a_long_conversation_is_split_in_front_of_a_human() -> None:
    made = documents.conversation("a", "b", "c", "d", "e")  # 8 heard + 18 answered an exchange
    assert numbers(Task.CONVERSATION, made, 52) == [[0, 1, 2, 3]]
    assert numbers(Task.CONVERSATION, made, 51) == [[0, 1], [2, 3]]
    assert numbers(Task.CONVERSATION, made, 25) == ["too_long", "too_long"]


def test_a_clip_with_two_captions_is_two_examples() -> None:
    found = list(parts(Task.CAPTIONING, CLIP(caption_en="loud", caption_zh="大声").entry(), LAYOUTS, UNLIMITED))
    assert [list(part.entry.turns[0].captions) for part in found if not isinstance(part, str)] == [["en"], ["zh"]]


def test_a_split_counts_what_serves_what_is_refused_and_tails_that_are_not_heard() -> None:
    made = [CLIP(num_samples=800_320), CLIP(num_samples=320), documents.continuation(*"abcde"), CLIP(num_codes=400)]
    entries = [document.entry() for document in made]
    split = serve("train", entries, documents.layouts(), [Task.ASR, Task.CONTINUATION, Task.TTS], 700)
    assert split.num_documents == 4
    assert split.eligible[Task.ASR] == (0, 3)
    assert split.tails[Task.ASR] == 1
    assert split.num_tokens[Task.ASR].tolist() == [2 * 315 + 3, 15 + 3]
    assert dict(split.refused[Task.ASR]) == {"audio_too_short": 1, "not_offered": 1}
    halved = serve("train", entries, documents.layouts(), [Task.CONTINUATION], 52)
    assert halved.eligible[Task.CONTINUATION] == (4, 5)
    assert [halved.entries[place].key for place in (4, 5)] == ["k", "k"]
    assert halved.num_documents == 4


SIZES = st.integers(321, 900_000)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), ratio=st.builds(Ratio, st.integers(1, 3), st.integers(1, 9)))
def test_lengths_told_beforehand_are_those_of_the_examples(data: st.DataObject, ratio: Ratio) -> None:
    """Whatever the task, the turns, the ratio and the limit."""
    texts = data.draw(st.lists(st.text(min_size=1, max_size=9), min_size=2, max_size=5))
    samples, codes = data.draw(SIZES), data.draw(st.integers(1, 90))
    turns = [documents.turn(text, samples, codes, language="ja", caption_zh=text) for text in texts]
    made = [
        CLIP(texts[0], samples, codes, caption_en=texts[1]),
        documents.pair(turns[0], turns[1]),
        documents.continuation(*texts, num_samples=samples, num_codes=codes),
        documents.conversation(*texts, num_samples=samples, num_codes=codes),
    ]
    layouts, limit = documents.layouts(Prompts(), ratio=ratio), data.draw(st.sampled_from([400, 1500, UNLIMITED]))
    maker = ExampleMaker(layouts, LossWeights())
    served = set()
    for document in made:
        for task in Task:
            for part in parts(task, document.entry(), layouts, limit):
                if isinstance(part, str):
                    continue
                served.add(task)
                example = maker.make(task, part.entry, document.document)
                assert len(example.ids) == part.num_tokens <= limit
                assert example.is_heard.sum() + 2 * len(example.audio) * (task is not Task.CTC) <= part.num_tokens
                assert task is Task.CTC or example.weights[0] == 0
                assert (example.weights > 0).any()
    assert limit < UNLIMITED or served | {Task.CTC} == set(Task)


def test_a_pack_is_read_by_its_manifest_alone(chord_pack: Any) -> None:
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, documents.NO_PROMPTS)
    split = read_split(pack, "train", layouts, [Task.ASR, Task.TTS], max_tokens=20)
    assert split.num_documents == len(split.entries) == 12
    for task in (Task.ASR, Task.TTS):
        assert split.refused[task]["too_long"] + len(split.eligible[task]) == 12
    assert split.refused[Task.TTS]["too_long"] > 0
    maker = ExampleMaker(layouts, LossWeights())
    for place, length in zip(split.eligible[Task.ASR], split.num_tokens[Task.ASR], strict=True):
        entry = split.entries[place]
        assert len(maker.make(Task.ASR, entry, pack.read(entry.shard, entry.key)).ids) == length
    with pytest.raises(RequestError, match="has no split 'dev'"):
        read_split(pack, "dev", layouts, [Task.ASR], max_tokens=20)


def test_texts_whose_tokens_the_manifest_counts_are_not_tokenised_to_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = [
        CLIP("so la mi", 16_000, 25, caption_en=None),
        documents.continuation("ab", "cd", "ef"),
        documents.conversation("a", "b"),
    ]
    rows = [made.row for made in packed]
    told = [
        {**row, "turns": [{**turn, "num_text_tokens": len(documents.BYTES.encode(turn["text"]))} for turn in row["turns"]]}
        for row in rows
    ]
    layouts, tasks = documents.layouts(), list(Task)
    counted = serve("train", [entry_of(row, documents.BYTES) for row in rows], layouts, tasks, UNLIMITED)
    entries = [entry_of(row, documents.BYTES) for row in told]
    with monkeypatch.context() as patched:
        patched.setattr(TextTokenizer, "encode", lambda *_: pytest.fail("a text was tokenised"))
        planned = serve("train", entries, layouts, tasks, UNLIMITED)
    assert planned.eligible == counted.eligible
    assert {task: lengths.tolist() for task, lengths in planned.num_tokens.items()} == {
        task: lengths.tolist() for task, lengths in counted.num_tokens.items()
    }
    maker = ExampleMaker(layouts, LossWeights())
    for made, plain, entry in zip(packed, counted.entries, entries, strict=True):
        for task in (task for task in Task if task.value in entry.tasks):
            ids = [maker.make(task, known, made.document).ids.tolist() for known in (plain, entry)]
            assert ids[0] == ids[1]


def test_a_manifest_that_counts_other_tokens_is_found_out() -> None:
    row = CLIP("so la").row
    entry = entry_of({**row, "turns": [{**row["turns"][0], "num_text_tokens": 3}]}, documents.BYTES)
    with pytest.raises(ContractError, match="'so la' has 5 tokens, the manifest says 3; pack again"):
        ExampleMaker(documents.layouts(), LossWeights()).make(Task.TEXT, entry)


def test_layouts_go_to_other_processes() -> None:
    entry = CLIP("so la", caption_en="loud").entry()
    again = pickle.loads(pickle.dumps(LAYOUTS))
    assert again.of(Task.ASR, pickle.loads(pickle.dumps(entry))) == LAYOUTS.of(Task.ASR, entry)
