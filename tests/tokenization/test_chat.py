from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from manifests.errors import RequestError
from tokenization.build import TokenizerResult
from tokenization.chat import AnswerMode, Chat, ChatTemplate, read_chat
from tokenization.cli import app
from tokenization.stretches import Encoded, Fixed, Heard, Spoken, Stretch, TokenKind
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary

TEXT = TextTokenizer.train(["assistant\nhello", "</think>"] * 4, 300)
VOCABULARY = Vocabulary.published()
TEMPLATE = ChatTemplate(TEXT, VOCABULARY)
NAMES = {number: token for token, number in VOCABULARY.specials}


def written(stretches: tuple[Stretch, ...], *, only_targets: bool = False) -> str:
    """The chat as one string; {0} is the audio of turn 0, {1:hello} speech with the codes of turn 1."""
    words = []
    for stretch in stretches:
        match stretch:
            case Fixed(ids, _, is_target):
                word = NAMES.get(ids[0]) or TEXT.decode(ids)
            case Heard(turn):
                word, is_target = f"{{{turn}}}", False
            case Spoken(turn, text_ids, is_target):
                word = f"{{{turn}:{TEXT.decode(text_ids)}}}"
            case Encoded():
                raise AssertionError("no chat has labels of frames")
        words.append(word if is_target or not only_targets else "")
    return "".join(words)


def chat(*messages: dict[str, object], **rest: object) -> Chat:
    return Chat.model_validate_json(json.dumps({"messages": messages, **rest}))


def text(role: str, said: str) -> dict[str, object]:
    return {"role": role, "content": [{"kind": "text", "text": said}]}


AUDIO = {"role": "human", "content": [{"kind": "audio", "turn": 0}]}


def speech(said: str, turn: int, **rest: object) -> dict[str, object]:
    return {"role": "assistant", "content": [{"kind": "speech", "text": said, "turn": turn}], **rest}


# The prompts of section 1.8, as the published client writes them.
ASR = "请记录下你所听到的语音内容。"


def test_recognition() -> None:
    made = TEMPLATE.prompt(chat(text("system", ASR), AUDIO), AnswerMode.TEXT)
    assert written(made) == f"<|BOT|>system\n{ASR}<|EOT|><|BOT|>human\n{{0}}<|EOT|><|BOT|>assistant\n"


def test_a_spoken_answer_is_asked_for_by_tts_start() -> None:
    made = TEMPLATE.prompt(chat(text("system", "请用语音与我交流。"), AUDIO), AnswerMode.SPEECH)
    assert written(made).endswith("<|BOT|>human\n{0}<|EOT|><|BOT|>assistant\n<tts_start>")


def test_text_and_audio_of_a_human_keep_their_order() -> None:
    question = {"kind": "text", "text": "Which?"}
    for content in ([question, AUDIO["content"][0]], [AUDIO["content"][0], question]):  # type: ignore[index]
        made = TEMPLATE.prompt(chat({"role": "human", "content": content}), AnswerMode.TEXT)
        inner = "".join("{0}" if part is not question else "Which?" for part in content)
        assert written(made) == f"<|BOT|>human\n{inner}<|EOT|><|BOT|>assistant\n"


def test_history_of_speech_is_its_interleave_between_the_wrappers_and_has_no_loss() -> None:
    made = TEMPLATE.example(
        chat(
            text("system", "You are a helpful assistant."),
            AUDIO,
            speech("Hi.", 1),
            AUDIO | {"content": [{"kind": "audio", "turn": 2}]},
            speech("Bye.", 3),
        )
    )
    assert written(made) == (
        "<|BOT|>system\nYou are a helpful assistant.<|EOT|><|BOT|>human\n{0}<|EOT|><|BOT|>assistant\n<tts_start>{1:Hi.}<tts_end><|EOT|>"
        "<|BOT|>human\n{2}<|EOT|><|BOT|>assistant\n<tts_start>{3:Bye.}<tts_end><|EOT|>"
    )
    assert written(made, only_targets=True) == "{3:Bye.}<tts_end><|EOT|>"


SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "搜索工具",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
            "additionalProperties": False,
        },
    },
}


def test_tools_stand_behind_the_system_message_and_are_called_behind_the_speech() -> None:
    call = {"name": "search", "arguments": {"query": "雨"}}
    made = TEMPLATE.example(
        chat(
            text("system", "你好"),
            AUDIO,
            speech("Let me see.", 1, calls=[call, call]),
            text("input", "It rains."),
            speech("It rains.", 2),
            tools=[SEARCH],
        )
    )
    called = '<tool_call>function\nsearch\n{"query": "雨"}</tool_call>'
    assert written(made) == (
        f"<|BOT|>system\n你好<|EOT|><|BOT|>tool_json_schemas\n{json.dumps([SEARCH], ensure_ascii=False)}<|EOT|><|BOT|>human\n{{0}}<|EOT|>"
        f"<|BOT|>assistant\n<tts_start>{{1:Let me see.}}<tts_end>{called}{called}<|EOT|><|BOT|>input\nIt rains.<|EOT|>"
        "<|BOT|>assistant\n<tts_start>{2:It rains.}<tts_end><|EOT|>"
    )
    assert "搜索工具" in written(made)
    asked = TEMPLATE.example(chat(AUDIO, speech("Let me see.", 1, calls=[call]), tools=[SEARCH]))
    assert written(asked).startswith("<|BOT|>tool_json_schemas\n[")  # also without a system message
    assert written(asked, only_targets=True) == f"{{1:Let me see.}}<tts_end>{called}<|EOT|>"


def test_a_thought_is_emitted_to_its_end_and_the_answer_asked_for_again() -> None:
    thought = speech("Hi.", 1, thinking="A happy voice.")
    made = TEMPLATE.example(chat(AUDIO, thought))
    assert written(made) == (
        "<|BOT|>human\n{0}<|EOT|><|BOT|>assistant\n\n<think>\nA happy voice.\n</think>\n\n<tts_start>{1:Hi.}<tts_end><|EOT|>"
    )
    assert written(made, only_targets=True) == "A happy voice.\n</think>{1:Hi.}<tts_end><|EOT|>"
    thinking = [stretch for stretch in made if isinstance(stretch, Fixed) and stretch.kind is TokenKind.THINKING]
    assert written(tuple(thinking)) == "\n<think>\nA happy voice.\n</think>\n\n"
    assert written(TEMPLATE.prompt(chat(AUDIO), AnswerMode.THINKING)).endswith("<|BOT|>assistant\n\n<think>\n")


def test_history_has_no_thoughts() -> None:
    made = TEMPLATE.example(chat(AUDIO, speech("Hi.", 1, thinking="Happy."), AUDIO, speech("Bye.", 2, thinking="Sad.")))
    assert "Happy." not in written(made)
    assert written(made, only_targets=True) == "Sad.\n</think>{2:Bye.}<tts_end><|EOT|>"


def test_text_that_spells_tags_or_special_tokens_is_plain_text() -> None:
    made = TEMPLATE.example(chat(text("human", "<think>"), text("assistant", "<|EOT|></think>")))
    assert {stretch.kind for stretch in made if isinstance(stretch, Fixed)} == {TokenKind.SPECIAL, TokenKind.TEXT}
    specials = [stretch for stretch in made if isinstance(stretch, Fixed) and stretch.kind is TokenKind.SPECIAL]
    assert [NAMES[stretch.ids[0]] for stretch in specials] == ["<|BOT|>", "<|EOT|>"] * 2
    assert written(made, only_targets=True) == "<|EOT|></think><|EOT|>"


def test_no_merge_crosses_a_border() -> None:
    assert len(TEXT.encode("hello")) == 1
    parts = [{"kind": "text", "text": text} for text in ("hel", "lo")]
    made = TEMPLATE.example(chat({"role": "human", "content": parts}, text("assistant", "hello")))
    ids = np.concatenate([stretch.ids for stretch in made if isinstance(stretch, Fixed)]).tolist()
    bot, eot = VOCABULARY.bot, VOCABULARY.eot
    assert ids == [
        *(bot, *TEXT.encode("human\n"), *TEXT.encode("hel"), *TEXT.encode("lo"), eot),
        *(bot, *TEXT.encode("assistant\n"), *TEXT.encode("hello"), eot),
    ]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "system", "content": [{"kind": "audio", "turn": 0}]}], "audio is heard from a human; system"),
        ([text("human", "x") | {"thinking": "y"}], "are the assistant's; human"),
        (
            [{"role": "assistant", "content": [{"kind": "text", "text": "x"}, {"kind": "speech", "text": "x", "turn": 0}]}],
            "one speech",
        ),
        ([{"role": "human"}], "needs content or calls"),
        ([text("human", "x"), text("system", "x")], "one system message, at its start"),
        ([text("function_output", "x")], "role"),
        ([speech("x", 0, calls=[{"name": " search", "arguments": {}}])], "name"),
        ([], "at least 1 item"),
    ],
)
def test_what_is_no_chat_is_refused(messages: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        chat(*messages)


def test_a_chat_to_learn_from_ends_with_an_answer() -> None:
    with pytest.raises(RequestError, match="ends with a message of 'human'"):
        TEMPLATE.example(chat(AUDIO))


def test_the_verb_shows_a_chat_a_line_a_stretch(built: TokenizerResult, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(chat(text("system", "Listen."), AUDIO, speech("the cat", 1, thinking="Hm.")).model_dump_json())

    def shown(*options: str) -> str:
        return CliRunner().invoke(app, ["chat", built.tokenizer_uri, str(path), *options], catch_exceptions=False).stdout

    rows = [line.split(maxsplit=2) for line in shown().splitlines()[1:]]
    assert ["audio", "-", "audio of turn 0"] in rows
    assert ["thinking", "loss", json.dumps("Hm.\n</think>")] in rows
    assert ["speech", "loss", 'speech of turn 1: "the cat"'] in rows
    assert rows[-1] == ["special", "loss", "<|EOT|>"]
    asked = json.loads(shown("--answer", "speech", "--json"))["stretches"]
    assert [stretch["text"] for stretch in asked][-3:] == ["<|BOT|>", json.dumps("assistant\n"), "<tts_start>"]
    assert not any(stretch["is_target"] for stretch in asked)
    path.write_text('{"messages": [{"role": "human", "content": [{"kind": "text"}]}]}')
    with pytest.raises(RequestError, match=r"messages\.0\.content\.0\.text\.text: Field required"):
        shown()
    with pytest.raises(RequestError, match="cannot be read"):
        read_chat(str(tmp_path / "none.json"))
