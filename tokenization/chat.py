"""Chats as the published instruct model reads them, for the stages from SFT on (reference, section 1.8).

    <|BOT|>{role}\\n{content}<|EOT|>        one a turn, nothing between turns; [..]: with loss

    system               text
    tool_json_schemas    the tools as JSON, right behind system
    human                text and audio in any order; audio is (<audio_start> patches <audio_end>)+
    assistant            [text calls <|EOT|>]    or    <tts_start> [interleave <tts_end> text calls <|EOT|>]
                         behind \\n<think>\\n [thought \\n</think>] \\n\\n where it thinks
    input                what a tool answered

    calls                (<tool_call>function\\n{name}\\n{arguments as JSON}</tool_call>)*

Each piece is tokenised by itself: what is given to the model at one go, and what it emits at one go. Only the last answer
has loss, and only it keeps its thought; those before it are history. ``<think>`` is plain text: its kind is known here alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manifests.errors import RequestError
from tokenization.spelling import spelled
from tokenization.stretches import Encoded, Fixed, Heard, Spoken, Stretch, TokenKind
from tokenization.text import TextTokenizer
from tokenization.vocabulary import TOOL_CALLS, Vocabulary

TOOLS_ROLE = "tool_json_schemas"
THINK_OPENING, THINK_CLOSING, BEHIND_THINKING = "\n<think>\n", "\n</think>", "\n\n"


class Role(StrEnum):
    """Who says a message. ``input``: a tool (the server's ``function_output`` is no role of the published examples)."""

    SYSTEM = "system"
    HUMAN = "human"
    ASSISTANT = "assistant"
    INPUT = "input"


class AnswerMode(StrEnum):
    """What is asked for. The prompt chooses it, not the model."""

    TEXT = "text"
    SPEECH = "speech"
    THINKING = "thinking"


class ChatModel(BaseModel):
    """Frozen, and no key that nobody reads: chats come from files."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(ChatModel):
    """Text that is read or written."""

    kind: Literal["text"] = "text"
    text: str


class AudioPart(ChatModel):
    """Audio that is heard: that of a turn of the document, by its number."""

    kind: Literal["audio"] = "audio"
    turn: int = Field(ge=0)


class SpeechPart(ChatModel):
    """Speech that is emitted: the text, interleaved with the codes of a turn of the document."""

    kind: Literal["speech"] = "speech"
    text: str
    turn: int = Field(ge=0)


class ToolCall(ChatModel):
    """A call of one of the chat's tools."""

    name: str = Field(pattern=r"^\S+$")  # published rows have stray spaces around names, which would be learned
    arguments: dict[str, Any]


class Message(ChatModel):
    """One turn of a chat."""

    role: Role
    content: tuple[Annotated[TextPart | AudioPart | SpeechPart, Field(discriminator="kind")], ...] = ()
    thinking: str | None = None
    calls: tuple[ToolCall, ...] = ()

    @model_validator(mode="after")
    def _fits_its_role(self) -> Message:
        kinds = [part.kind for part in self.content]
        if "audio" in kinds and self.role is not Role.HUMAN:
            raise ValueError(f"audio is heard from a human; {self.role} cannot have any")
        if self.role is not Role.ASSISTANT and ("speech" in kinds or self.thinking is not None or self.calls):
            raise ValueError(f"speech, thinking and calls are the assistant's; {self.role} cannot have any")
        if "speech" in kinds[1:]:
            raise ValueError("an answer has one speech, in front of what is not spoken")
        if not self.content and not self.calls:
            raise ValueError("a message needs content or calls")
        return self


class Chat(ChatModel):
    """Messages in order, and the tools that may be called: their OpenAI-style schemas."""

    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _begins_with_its_system_message(self) -> Chat:
        if any(message.role is Role.SYSTEM for message in self.messages[1:]):
            raise ValueError("a chat has one system message, at its start")
        return self


class ChatTemplate:
    """Chats to stretches, over one tokenizer."""

    def __init__(self, text: TextTokenizer, vocabulary: Vocabulary) -> None:
        self._text, self._vocabulary = text, vocabulary

    def example(self, chat: Chat) -> tuple[Stretch, ...]:
        """The chat with loss on its last message. Raises RequestError when that is none of the assistant's."""
        *history, answer = chat.messages
        if answer.role is not Role.ASSISTANT:
            raise RequestError(f"chat ends with a message of {answer.role.value!r}; one to learn from ends with the assistant's")
        return (*self._history(history, chat.tools), *self._answer(answer, is_target=True))

    def prompt(self, chat: Chat, mode: AnswerMode) -> tuple[Stretch, ...]:
        """The chat, and the beginning of an answer to it."""
        opening: dict[AnswerMode, tuple[Stretch, ...]] = {
            AnswerMode.TEXT: (),
            AnswerMode.SPEECH: (self._special("<tts_start>"),),
            AnswerMode.THINKING: (self._piece(THINK_OPENING, TokenKind.THINKING),),
        }
        return (*self._history(chat.messages, chat.tools), *self._header(Role.ASSISTANT), *opening[mode])

    def _history(self, messages: Sequence[Message], tools: tuple[dict[str, Any], ...]) -> list[Stretch]:
        stretches: list[Stretch] = []
        is_system_first = bool(messages) and messages[0].role is Role.SYSTEM
        for message in messages[:is_system_first]:
            stretches += self._turn(message)
        if tools:
            schemas = json.dumps(list(tools), ensure_ascii=False)
            stretches += [*self._header(TOOLS_ROLE), self._piece(schemas), self._special("<|EOT|>")]
        for message in messages[is_system_first:]:
            is_answer = message.role is Role.ASSISTANT
            stretches += self._answer(message, is_target=False) if is_answer else self._turn(message)
        return stretches

    def _turn(self, message: Message) -> list[Stretch]:
        """A message that is given."""
        parts = [Heard(part.turn) if isinstance(part, AudioPart) else self._piece(part.text) for part in message.content]
        return [*self._header(message.role), *parts, self._special("<|EOT|>")]

    def _answer(self, message: Message, *, is_target: bool) -> list[Stretch]:
        stretches: list[Stretch] = [*self._header(Role.ASSISTANT)]
        if message.thinking is not None and is_target:
            stretches.append(self._piece(THINK_OPENING, TokenKind.THINKING))
            stretches.append(self._piece(message.thinking + THINK_CLOSING, TokenKind.THINKING, is_target=True))
            stretches.append(self._piece(BEHIND_THINKING, TokenKind.THINKING))
        for part in message.content:
            if isinstance(part, SpeechPart):
                text_ids = tuple(self._text.encode(part.text))
                stretches.append(self._special("<tts_start>"))
                stretches += [Spoken(part.turn, text_ids, is_target), self._special("<tts_end>", is_target=is_target)]
            elif isinstance(part, TextPart):
                stretches.append(self._piece(part.text, is_target=is_target))
        for call in message.calls:
            written = f"function\n{call.name}\n{json.dumps(call.arguments, ensure_ascii=False)}"
            opening, closing = (self._special(token, is_target=is_target) for token in TOOL_CALLS)
            stretches += [opening, self._piece(written, is_target=is_target), closing]
        return [*stretches, self._special("<|EOT|>", is_target=is_target)]

    def _header(self, role: str) -> tuple[Fixed, Fixed]:
        return self._special("<|BOT|>"), self._piece(f"{role}\n")

    def _special(self, token: str, *, is_target: bool = False) -> Fixed:
        return Fixed((self._vocabulary.special(token),), TokenKind.SPECIAL, is_target)

    def _piece(self, text: str, kind: TokenKind = TokenKind.TEXT, *, is_target: bool = False) -> Fixed:
        return Fixed(tuple(self._text.encode(text)), kind, is_target)


def read_chat(path: str) -> Chat:
    """The chat in a local JSON file. Raises RequestError naming the first thing that is wrong with it."""
    try:
        with open(path, encoding="utf-8") as file:
            return Chat.model_validate_json(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"chat {path!r} cannot be read ({error}); give a .json file") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(place) for place in first["loc"]) or "the file"
        raise RequestError(f"chat {path!r}: {where}: {first['msg']}") from error


def described(stretches: Sequence[Stretch], text: TextTokenizer, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """For people and machines: kind, whether it has loss, ids and spelling of each stretch; audio and codes are not known here."""
    rows = []
    for stretch in stretches:
        match stretch:
            case Fixed(ids, kind, is_target):
                row = {
                    "kind": kind.name.lower(),
                    "is_target": is_target,
                    "ids": list(ids),
                    "text": spelled(ids, text, vocabulary),
                }
            case Spoken(turn, ids, is_target):
                said = f"speech of turn {turn}: {spelled(ids, text, vocabulary)}"
                row = {"kind": "speech", "is_target": is_target, "ids": list(ids), "text": said}
            case Heard(turn) | Encoded(turn):
                row = {"kind": "audio", "is_target": False, "ids": [], "text": f"audio of turn {turn}"}
        rows.append(row)
    return rows
