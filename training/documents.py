"""Which documents of a split can serve which task, and why the others cannot: by the manifest table, without opening a shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from manifests.contracts import MODEL_RATE_HZ
from manifests.errors import RequestError
from manifests.packs import Pack
from tokenization.interleave import Ratio
from tokenization.text import TextTokenizer
from training.lengths import MIN_SAMPLES, PIECE_SAMPLES, num_encoder_frames, num_mel_frames, num_patches, num_valid_frames
from training.recipe import Task

# What the packer must say of a document; the text tasks take any document with text.
PACK_TASKS = {Task.CTC: "asr", Task.ASR: "asr", Task.TTS: "tts"}


@dataclass(frozen=True)
class Entry:
    """One document as the trainer needs to know it before reading it."""

    key: str
    shard: str
    text: str
    text_ids: tuple[int, ...]
    num_samples: int | None
    num_codes: int | None
    tasks: frozenset[str]


@dataclass(frozen=True)
class Split:
    """A split's entries, those that serve each task, and the number refused for each task and reason."""

    name: str
    entries: tuple[Entry, ...]
    eligible: dict[Task, tuple[int, ...]]  # positions in ``entries``
    refused: dict[Task, Counter[str]] = field(default_factory=dict)


def read_split(pack: Pack, name: str, text: TextTokenizer, ratio: Ratio, max_tokens: int) -> Split:
    """The split of that name. Raises RequestError when the pack has none, or when its audio is not at 16 kHz."""
    rows = pack.documents(name).to_pylist()
    if pack.sample_rate_hz != MODEL_RATE_HZ and any(row["num_samples"] for row in rows):
        raise RequestError(
            f"pack {pack.store.uri!r} holds audio at {pack.sample_rate_hz} Hz; the encoder hears 16000: pack it so"
        )
    entries = tuple(
        Entry(
            key=row["key"],
            shard=row["shard"],
            text=row["text"] or "",
            text_ids=tuple(text.encode(row["text"] or "")),
            num_samples=row["num_samples"],
            num_codes=row["num_codes"],
            tasks=frozenset(row["tasks"]),
        )
        for row in rows
    )
    eligible: dict[Task, tuple[int, ...]] = {}
    refused: dict[Task, Counter[str]] = {}
    for task in Task:
        reasons = [refusal(entry, task, ratio, max_tokens) for entry in entries]
        eligible[task] = tuple(place for place, reason in enumerate(reasons) if reason is None)
        refused[task] = Counter(reason for reason in reasons if reason is not None)
    return Split(name, entries, eligible, refused)


def refusal(entry: Entry, task: Task, ratio: Ratio, max_tokens: int) -> str | None:
    """Why the document cannot serve the task, as a stable code; None when it can."""
    if not entry.text_ids:
        return "no_text"
    if task in PACK_TASKS and PACK_TASKS[task] not in entry.tasks:
        return "not_offered"
    if task is Task.TTS and not entry.num_codes:
        return "no_codes"
    if task in (Task.CTC, Task.ASR):
        if not entry.num_samples:
            return "no_audio"
        if entry.num_samples < MIN_SAMPLES:
            return "audio_too_short"
        if entry.num_samples > PIECE_SAMPLES:
            return "audio_too_long"
    if task is Task.CTC:
        return None if ctc_fits(entry) else "more_labels_than_frames"
    return "too_long" if num_tokens(entry, task, ratio) > max_tokens else None


def num_tokens(entry: Entry, task: Task, ratio: Ratio) -> int:
    """Tokens of the document's example; of a repeat, before it is stretched."""
    length = len(entry.text_ids)
    if task is Task.TTS:
        return length + 1 + ratio.num_groups(length, entry.num_codes or 0) * ratio.group + 2
    if task is Task.ASR:
        return num_patches(entry.num_samples or 0) + 2 + length + 1
    return 2 * length + 3 if task is Task.REPEAT else length + 1


def ctc_fits(entry: Entry) -> bool:
    """CTC needs a frame a label and one blank between equal neighbours (Graves et al. 2006)."""
    ids = entry.text_ids
    repeats = sum(left == right for left, right in pairwise(ids))
    frames = num_encoder_frames(num_valid_frames(num_mel_frames(entry.num_samples or 0)))
    return len(ids) + repeats <= frames
