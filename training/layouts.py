"""What each task makes of a document: one layout, which says what is needed, how long the example is and what stands in it.

Base format of the stages before SFT: no chat template, stop <|endoftext|> (reference, sections 1.7 and 1.8). P: the task's
prompt; x0, x1: texts of the turns; [..]: with loss; +: once a turn (of a conversation: once an exchange).

    text               [x0 <stop>]                                                   but for the first token
    asr                P heard(0) [x0 <stop>]
    captioning         P heard(0) [caption <stop>]
    tts                P x0 <tts_start> [spoken(0) <tts_end> <stop>]
    s2tt               P heard(0) [x1 <stop>]
    t2st               P x0 <tts_start> [spoken(1) <tts_end> <stop>]
    s2st               P heard(0) <tts_start> [spoken(1) <tts_end> <stop>]
    continuation       <tts_start> spoken(0) <tts_end> ([<tts_start> spoken <tts_end>])+ [<stop>]
    continuation_text  heard(0) [x1 (between x)+ <stop>]
    conversation       P (heard <tts_start> [spoken <tts_end> <stop>])+
    repeat             P(asr) <audio_start> x0, stretched <audio_end> [x0 <stop>]    (``ExampleMaker.repeat``)
    ctc                x0 as labels of the encoder's frames

    heard(i)   (<audio_start> <audio_patch> x n <audio_end>)+, a wrapper for each piece of 25 s
    spoken(i)  interleave of text and codes, paddings included: generation has to emit them

The form of the two continuations and of conversations is not published (reference, section 10). Here an answer ends with
the stop wherever it stands, since generation does not know whether another turn will follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tokenization.interleave import Ratio
from tokenization.stretches import Encoded, Fixed, Heard, Spoken, Stretch, TokenKind
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training.entries import Entry, EntryTurn
from training.lengths import (
    MIN_SAMPLES,
    PIECE_SAMPLES,
    num_encoder_frames,
    num_heard_tokens,
    num_mel_frames,
    num_valid_frames,
)
from training.prompts import LANGUAGE, Prompts
from training.recipe import Task

HUMAN, ASSISTANT = "human", "assistant"


@dataclass(frozen=True)
class Needs:
    """What a task needs of a document as a whole; what it needs of each turn, its layout says."""

    offered: str  # the packer's name of the task
    fewest_turns: int = 1
    most_turns: int | None = None  # None: any number, and a document that is too long is split between turns


NEEDS = {
    Task.CTC: Needs("asr", most_turns=1),
    Task.TEXT: Needs("text", most_turns=1),
    Task.REPEAT: Needs("text", most_turns=1),
    Task.ASR: Needs("asr", most_turns=1),
    Task.CAPTIONING: Needs("captioning", most_turns=1),
    Task.TTS: Needs("tts", most_turns=1),
    Task.S2TT: Needs("s2tt", 2, 2),
    Task.T2ST: Needs("t2st", 2, 2),
    Task.S2ST: Needs("s2st", 2, 2),
    Task.CONTINUATION: Needs("continuation", 2),
    Task.CONTINUATION_TEXT: Needs("continuation_text", 2),
    Task.CONVERSATION: Needs("conversation", 2),
}

# Tasks whose examples are made of the manifest alone: no member of a shard is read for them.
WITHOUT_READING = frozenset({Task.TEXT, Task.REPEAT})
# Tasks whose examples hear nothing: of a document's members, those of audio are not needed.
WITHOUT_HEARING = WITHOUT_READING | {Task.TTS, Task.T2ST, Task.CONTINUATION}


class Lacking(Exception):
    """The document lacks what the task needs of it. ``reason`` is a stable code, which plans and summaries count."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Layouts:
    """Layouts over one tokenizer and one set of prompts. Texts are tokenised piece by piece: no merge crosses a border."""

    def __init__(self, text: TextTokenizer, vocabulary: Vocabulary, ratio: Ratio, prompts: Prompts) -> None:
        self.text, self.vocabulary, self.ratio, self.prompts = text, vocabulary, ratio, prompts
        self._known: dict[str, tuple[int, ...]] = {}  # prompts that were tokenised

    def of(self, task: Task, entry: Entry) -> tuple[Stretch, ...]:
        """The stretches of the entry's example; raises Lacking.

        Of a repeat it is the shortest form, in which the text is not stretched.
        """
        needs = NEEDS[task]
        if needs.offered not in entry.tasks:
            raise Lacking("not_offered")
        if len(entry.turns) < needs.fewest_turns or len(entry.turns) > (needs.most_turns or len(entry.turns)):
            raise Lacking("other_number_of_turns")
        first, last = entry.turns[0], entry.turns[-1]
        match task:
            case Task.CTC:
                return (_encoded(first), _said(first))
            case Task.TEXT:
                return (_said(first), self.stop)
            case Task.REPEAT:
                opening, closing = self._special("<audio_start>"), self._special("<audio_end>")
                return (*self.prompt(self.prompts.asr), opening, _read(first), closing, _said(first), self.stop)
            case Task.ASR:
                return (*self.prompt(self.prompts.asr), _heard(first), _said(first), self.stop)
            case Task.CAPTIONING:
                return (*self._captioned(first), self.stop)
            case Task.TTS:
                return (*self.prompt(self.prompts.tts), _read(first), *self._speech(first), self.stop)
            case Task.S2TT:
                return (*self._asked(self.prompts.s2tt, last), _heard(first), _said(last), self.stop)
            case Task.T2ST:
                return (*self._asked(self.prompts.t2st, last), _read(first), *self._speech(last), self.stop)
            case Task.S2ST:
                return (*self._asked(self.prompts.s2st, last), _heard(first), *self._speech(last), self.stop)
            case Task.CONTINUATION:
                return (*self._continued(entry.turns), self.stop)
            case Task.CONTINUATION_TEXT:
                return (_heard(first), *self._lines(entry.turns[1:]), self.stop)
            case Task.CONVERSATION:
                return (*self.prompt(self.prompts.conversation), *self._exchanges(entry.turns))

    def num_tokens(self, stretches: Sequence[Stretch], entry: Entry) -> int:
        """Positions of the example, by arithmetic alone."""
        return sum(self._length(stretch, entry) for stretch in stretches)

    def prompt(self, text: str) -> tuple[Fixed, ...]:
        """A prompt of no text is none."""
        return (Fixed(self._encode(text), TokenKind.TEXT),) if text else ()

    @property
    def stop(self) -> Fixed:
        return Fixed((self.vocabulary.end_of_text,), TokenKind.SPECIAL, is_target=True)

    def _length(self, stretch: Stretch, entry: Entry) -> int:
        match stretch:
            case Fixed():
                return len(stretch.ids)
            case Heard():
                return num_heard_tokens(entry.turn(stretch.turn).num_samples or 0)
            case Spoken():
                num_codes = entry.turn(stretch.turn).num_codes or 0
                return self.ratio.group * self.ratio.num_groups(len(stretch.text_ids), num_codes)
            case Encoded():
                return 0

    def _encode(self, prompt: str) -> tuple[int, ...]:
        if prompt not in self._known:
            self._known[prompt] = tuple(self.text.encode(prompt))
        return self._known[prompt]

    def _special(self, token: str, *, is_target: bool = False) -> Fixed:
        return Fixed((self.vocabulary.special(token),), TokenKind.SPECIAL, is_target)

    def _speech(self, turn: EntryTurn, *, is_begun: bool = True, is_target: bool = True) -> tuple[Stretch, ...]:
        """Speech between its wrappers. ``is_begun``: <tts_start> is asked for, and not the model's to emit."""
        if not turn.text_ids:
            raise Lacking("no_text")
        if not turn.num_codes:
            raise Lacking("no_codes")
        opening = self._special("<tts_start>", is_target=is_target and not is_begun)
        return opening, Spoken(turn.number, turn.text_ids, is_target), self._special("<tts_end>", is_target=is_target)

    def _asked(self, prompt: str, target: EntryTurn) -> tuple[Fixed, ...]:
        """The prompt with the name of the target's language, if it says one."""
        if LANGUAGE not in prompt:
            return self.prompt(prompt)
        if target.language is None:
            raise Lacking("no_language")
        if target.language not in self.prompts.languages:
            raise Lacking("language_without_name")
        return self.prompt(prompt.replace(LANGUAGE, self.prompts.languages[target.language]))

    def _captioned(self, turn: EntryTurn) -> tuple[Stretch, ...]:
        known = [language for language in turn.captions if language in self.prompts.captioning]
        if not known:
            raise Lacking("no_caption")
        caption = Fixed(tuple(self.text.encode(turn.captions[known[0]])), TokenKind.TEXT, is_target=True)
        return (*self.prompt(self.prompts.captioning[known[0]]), _heard(turn), caption)

    def _continued(self, turns: Sequence[EntryTurn]) -> tuple[Stretch, ...]:
        first, *rest = turns
        spoken = [stretch for turn in rest for stretch in self._speech(turn, is_begun=False)]
        return (*self._speech(first, is_target=False), *spoken)

    def _lines(self, turns: Sequence[EntryTurn]) -> tuple[Fixed, ...]:
        between = Fixed(self._encode(self.prompts.between), TokenKind.TEXT, is_target=True)
        lines = [stretch for turn in turns for stretch in (between, _said(turn))]
        return tuple(lines[1:])

    def _exchanges(self, turns: Sequence[EntryTurn]) -> tuple[Stretch, ...]:
        roles = [turn.role for turn in turns]
        if roles[0] != HUMAN or roles[-1] != ASSISTANT or not set(roles) <= {HUMAN, ASSISTANT}:
            raise Lacking("no_exchange")
        stretches: list[Stretch] = []
        for turn in turns:
            stretches += [_heard(turn)] if turn.role == HUMAN else [*self._speech(turn), self.stop]
        return tuple(stretches)


def _said(turn: EntryTurn) -> Fixed:
    """The turn's text, to be emitted."""
    if not turn.text_ids:
        raise Lacking("no_text")
    return Fixed(turn.text_ids, TokenKind.TEXT, is_target=True)


def _read(turn: EntryTurn) -> Fixed:
    """The turn's text, given."""
    return replace(_said(turn), is_target=False)


def _heard(turn: EntryTurn) -> Heard:
    if not turn.num_samples:
        raise Lacking("no_audio")
    if turn.num_samples < MIN_SAMPLES:
        raise Lacking("audio_too_short")
    return Heard(turn.number)


def _encoded(turn: EntryTurn) -> Encoded:
    """CTC needs a frame a label and one blank between equal neighbours (Graves et al. 2006)."""
    _heard(turn)
    samples, ids = turn.num_samples or 0, turn.text_ids
    if samples > PIECE_SAMPLES:
        raise Lacking("audio_too_long")
    frames = num_encoder_frames(num_valid_frames(num_mel_frames(samples)))
    if len(ids) > frames or (2 * len(ids) > frames and len(ids) + _num_repeats(ids) > frames):
        raise Lacking("more_labels_than_frames")
    return Encoded(turn.number)


def _num_repeats(ids: Sequence[int]) -> int:
    """Labels that are those before them again."""
    return sum(left == right for left, right in pairwise(ids))
