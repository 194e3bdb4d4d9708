"""Documents out of turns: the row of the manifest, K.json, and what a document can serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from manifests.contracts import Audio
from manifests.ids import digest_json
from pipeline.shards import TarredDocument, members_of, tarred

# Facts of a turn that stand in its row too, by the same names.
TOLD = ("role", "text", "text_source", "language", "speaker_label", "caption_en", "caption_zh")


@dataclass(frozen=True)
class MadeTurn:
    """A turn on its way into a document."""

    facts: Mapping[str, Any]  # as K.json has them
    audio: Audio | None = None  # float32 [S] at the pack's rate
    codes: np.ndarray | None = None  # uint16 [frames]
    num_text_tokens: int | None = None
    recording_id: bytes | None = None
    clips: Sequence[tuple[bytes, int]] = field(default=())  # (clip_id, its samples at the pack's rate)

    @property
    def row(self) -> dict[str, Any]:
        """TURN."""
        return {
            **{name: self.facts.get(name) for name in TOLD},
            "num_samples": None if self.audio is None else len(self.audio),
            "num_codes": None if self.codes is None else len(self.codes),
            "num_text_tokens": self.num_text_tokens,
            "recording_id": self.recording_id,
            "clips": [{"clip_id": clip_id, "num_samples": num_samples} for clip_id, num_samples in self.clips],
        }


def document_of(
    key: str, kind: str, relation: str | None, turns: Sequence[MadeTurn], sample_rate_hz: int, speaker: str | None = None
) -> TarredDocument:
    """The document with its row and members. ``speaker`` is what the split keeps in one place."""
    rows = [turn.row for turn in turns]
    row = {
        "key": key,
        "kind": kind,
        "relation": relation,
        "tasks": tasks_of(kind, turns),
        "turns": rows,
        **{name: _total(row[name] for row in rows) for name in ("num_samples", "num_codes", "num_text_tokens")},
        **{name: common(turn.facts.get(name) for turn in turns) for name in ("language", "text_source")},
        "speaker": speaker,
        "synthesizer": _joined((turn.facts["synthesizer"] for turn in turns if turn.facts.get("synthesizer")), "; "),
        "source": _joined((turn.facts.get("source") for turn in turns), ", "),
        "licence": _joined((turn.facts.get("licence") for turn in turns), " AND "),
    }
    facts = {"kind": kind, "relation": relation, "turns": [turn.facts for turn in turns]}
    return tarred(row, members_of(facts, [(turn.audio, turn.codes) for turn in turns], sample_rate_hz))


def common(values: Iterable[str | None]) -> str | None:
    """The one value, if all have it."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def key_of(kind: str, turns: Sequence[MadeTurn]) -> str:
    """Key of a document of several turns: a digest of what these are made of, in order."""
    return digest_json([kind, [[clip_id.hex() for clip_id, _ in turn.clips] or [turn.facts["text"]] for turn in turns]])


def tasks_of(kind: str, turns: Sequence[MadeTurn]) -> list[str]:
    """What the turns suffice for. The kind says how they hang together; a task of one turn is no task of several."""
    first, rest, last = turns[0], turns[1:], turns[-1]
    if kind in ("clip", "text"):
        serves = {
            "asr": _has_text(first) and _is_heard(first),
            "tts": _is_said(first),
            "text": _has_text(first),
            "captioning": _is_heard(first) and any(first.facts.get(name) for name in ("caption_en", "caption_zh")),
        }
    elif kind == "continuation":
        serves = {
            "continuation_text": _is_heard(first) and all(map(_has_text, rest)),
            "continuation": all(map(_is_said, turns)),
        }
    elif kind == "conversation":
        serves = {"conversation": all(map(_is_heard, turns[::2])) and all(map(_is_said, turns[1::2]))}
    else:
        serves = {
            "s2tt": _is_heard(first) and _has_text(last),
            "t2st": _has_text(first) and _is_said(last),
            "s2st": _is_heard(first) and _is_said(last),
        }
    return [task for task, can in serves.items() if can]


def _has_text(turn: MadeTurn) -> bool:
    return bool(turn.facts.get("text"))


def _is_heard(turn: MadeTurn) -> bool:
    return turn.audio is not None


def _is_said(turn: MadeTurn) -> bool:
    """Whether a model can be taught to speak it: text and codes."""
    return _has_text(turn) and turn.codes is not None


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _joined(values: Iterable[str | None], sign: str) -> str | None:
    """What the turns say, each once; None where one says nothing, or none is asked."""
    found = list(dict.fromkeys(values))
    return None if None in found or not found else sign.join(str(value) for value in found)
