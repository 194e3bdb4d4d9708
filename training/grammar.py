"""What may stand next in an answer: text until a stop, and speech as the interleave that ``tokenization.interleave`` writes.

    answer   (text | <tts_start> speech)* stop
    speech   group* <tts_end>
    group    ``ratio.text`` text places, then ``ratio.audio`` audio places; each stream goes on to its own end and is
             padded from there on, and no group is padding alone

Speech in this grammar is exactly what ``interleave`` can make, so ``deinterleave`` reads all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Flag, auto

import numpy as np
import torch

from manifests.errors import ContractError, RequestError
from tokenization.interleave import Ratio, deinterleave
from tokenization.vocabulary import TOOL_CALLS, Vocabulary


class Ids(Flag):
    """Sets of ids that are allowed or forbidden together."""

    TEXT = auto()  # of the text tokenizer, and calls of tools
    STOP = auto()
    TTS_START = auto()
    SPOKEN_TEXT = auto()  # of the text tokenizer
    TTS_PAD = auto()
    CODE = auto()
    AUDIO_PAD = auto()
    TTS_END = auto()


SPEECH = Ids.TTS_START | Ids.SPOKEN_TEXT | Ids.TTS_PAD | Ids.CODE | Ids.AUDIO_PAD | Ids.TTS_END


@dataclass(frozen=True)
class Speaking:
    """Where in its speech an answer is. Before the first group everything is as it is by default."""

    place: int = 0  # in the group
    has_text_ended: bool = False
    has_audio_ended: bool = False
    holds: bool = False  # the group has more than padding by now


# None: outside of speech.
State = Speaking | None


class Grammar:
    """The grammar of answers over one vocabulary and ratio.

    ``stop_ids`` end an answer. ``may_speak``: whether ``<tts_start>`` may be emitted; where the prompt ends with it, speech
    goes on from there in any case.
    """

    def __init__(self, vocabulary: Vocabulary, ratio: Ratio, stop_ids: Collection[int], *, may_speak: bool = False) -> None:
        self.vocabulary, self.ratio = vocabulary, ratio
        self.stop_ids, self.may_speak = frozenset(stop_ids), may_speak
        self._masks: dict[tuple[Ids, torch.device], torch.Tensor] = {}
        self._sets = self._split_vocabulary()

    def start(self, prompt_ids: Sequence[int] | np.ndarray) -> State:
        """The state behind a prompt. Raises RequestError when the prompt ends within speech that is none of this grammar."""
        state: State = None
        for token in np.asarray(prompt_ids).tolist():
            if token == self.vocabulary.tts_start:
                state = Speaking()
            elif state is not None:
                if not self._is_in(token, self.allowed(state)):
                    raise RequestError(
                        f"prompt's speech goes on with id {token}, which at {self.ratio} is none of {self.allowed(state)}; interleave it first"
                    )
                state = self.advance(state, token)
        return state

    def allowed(self, state: State, remaining: int | None = None) -> Ids:
        """What may come next when ``remaining`` more ids may be emitted (None: any number).

        A group is not begun when it and ``<tts_end>`` would not fit, so that speech is whole wherever an answer is cut.
        """
        if state is None:
            has_room = remaining is None or remaining > 1
            return Ids.TEXT | Ids.STOP | (Ids.TTS_START if self.may_speak and has_room else Ids(0))
        if state.place < self.ratio.text:
            return self._allowed_text(state, remaining)
        if state.has_audio_ended:
            return Ids.AUDIO_PAD
        is_first = state.place == self.ratio.text
        return Ids.CODE if is_first and not state.holds else Ids.CODE | Ids.AUDIO_PAD

    def advance(self, state: State, token: int) -> State:
        """The state behind an allowed id."""
        if state is None:
            return Speaking() if token == self.vocabulary.tts_start else None
        if token == self.vocabulary.tts_end:
            return None
        is_pad = token in (self.vocabulary.tts_pad, self.vocabulary.audio_pad_id)
        if state.place < self.ratio.text:
            state = replace(state, has_text_ended=state.has_text_ended or is_pad)
        else:
            state = replace(state, has_audio_ended=state.has_audio_ended or is_pad)
        place = (state.place + 1) % self.ratio.group
        return replace(state, place=place, holds=place > 0 and (state.holds or not is_pad))

    def fewest(self, state: State) -> int:
        """Ids that it takes at least to leave speech whole; 1 outside of it."""
        return 1 if state is None else -state.place % self.ratio.group + 1

    def mask(self, allowed: Ids, device: torch.device) -> torch.Tensor:
        """Bool ``[V]``: true where an id is in one of the sets."""
        if (allowed, device) not in self._masks:
            mask = torch.zeros(self.vocabulary.num_rows, dtype=torch.bool)
            for which in allowed:
                mask |= self._sets[which]
            self._masks[allowed, device] = mask.to(device)
        return self._masks[allowed, device]

    def speeches(self, ids: Sequence[int] | np.ndarray) -> list[tuple[list[int], np.ndarray]]:
        """(text ids, codes uint16) of each ``<tts_start>`` ... ``<tts_end>`` among the ids.

        Raises ContractError where one is not closed or is no interleave.
        """
        values, found = np.asarray(ids, dtype=np.int64), []
        starts = np.flatnonzero(values == self.vocabulary.tts_start)
        ends = np.flatnonzero(values == self.vocabulary.tts_end)
        if len(starts) != len(ends) or np.any(starts > ends):
            raise ContractError(f"ids open speech at {starts.tolist()} and close it at {ends.tolist()}; each must be closed")
        for start, end in zip(starts, ends, strict=True):
            found.append(deinterleave(values[start + 1 : end], self.vocabulary, self.ratio))
        return found

    def _allowed_text(self, state: Speaking, remaining: int | None) -> Ids:
        is_border = state.place == 0
        end = Ids.TTS_END if is_border else Ids(0)
        if is_border and remaining is not None and remaining <= self.ratio.group:
            return end
        text = Ids(0) if state.has_text_ended else Ids.SPOKEN_TEXT
        # With the audio at its end, padding in the first place would leave nothing for the group to hold.
        pad = Ids(0) if is_border and state.has_audio_ended else Ids.TTS_PAD
        return end | text | pad

    def _is_in(self, token: int, allowed: Ids) -> bool:
        return bool(self.mask(allowed, torch.device("cpu"))[token])

    def _split_vocabulary(self) -> dict[Ids, torch.Tensor]:
        """Bool ``[V]`` of each set."""
        own = self.vocabulary

        def mask(ids: Sequence[int] | slice) -> torch.Tensor:
            found = torch.zeros(own.num_rows, dtype=torch.bool)
            found[ids] = True
            return found

        stops = mask(sorted(self.stop_ids))
        spoken = mask(slice(0, own.text_size)) & ~mask([number for _, number in own.specials])
        return {
            Ids.TEXT: (spoken | mask([own.special(token) for token in TOOL_CALLS])) & ~stops,
            Ids.STOP: stops,
            Ids.TTS_START: mask([own.tts_start]),
            Ids.SPOKEN_TEXT: spoken & ~stops,
            Ids.TTS_PAD: mask([own.tts_pad]),
            Ids.CODE: mask(slice(own.audio_base, own.audio_pad_id)),
            Ids.AUDIO_PAD: mask([own.audio_pad_id]),
            Ids.TTS_END: mask([own.tts_end]),
        }
