"""Which clips of a unit make one document, and how they are its turns; by their places alone, without audio."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.document_kinds import ContinuationDocuments, ConversationDocuments

Group = list[list[int]]  # the turns of a document, each with the numbers of its clips


@dataclass(frozen=True)
class Placed:
    """A clip where it lies. Samples count from the start of the recording, at its rate."""

    number: int  # of the clip in its unit
    recording_id: bytes
    channel: int
    sample_rate_hz: int
    start_sample: int
    end_sample: int
    speaker: str | None  # who speaks, in words that tell apart whoever speaks in the recording
    overlap_samples: int  # in which a second speaker talks too
    is_free: bool  # neither left out nor in another document

    @property
    def num_samples(self) -> int:
        return self.end_sample - self.start_sample


def continuations(clips: Iterable[Placed], config: ContinuationDocuments) -> list[Group]:
    """Runs of free clips of one channel that follow one another, as documents of a turn a clip; in order of time."""
    return [
        [[clip.number] for clip in run]
        for _, channel in sorted(_by(clips, lambda clip: (clip.recording_id, clip.channel)).items())
        for run in _runs(channel, config)
        if len(run) > 1
    ]


def _runs(clips: Sequence[Placed], config: ContinuationDocuments) -> Iterator[list[Placed]]:
    run: list[Placed] = []
    for clip in clips:
        if not clip.is_free:
            yield run
            run = []
            continue
        if run and not _continues(run, clip, config):
            yield run
            run = []
        run.append(clip)
    yield run


def _continues(run: Sequence[Placed], clip: Placed, config: ContinuationDocuments) -> bool:
    gap = clip.start_sample - run[-1].end_sample
    is_next = 0 <= gap <= config.max_gap_s * clip.sample_rate_hz
    is_one = config.speakers == "any" or clip.speaker == run[-1].speaker
    fits = _total(run) + clip.num_samples <= config.max_s * clip.sample_rate_hz
    return is_next and is_one and fits and len(run) < config.max_turns


def _total(clips: Iterable[Placed]) -> int:
    return sum(clip.num_samples for clip in clips)


def conversations(clips: Iterable[Placed], config: ConversationDocuments) -> list[Group]:
    """Documents of turns in which two speakers alternate, an even number of them; in order of time."""
    return [
        [[clip.number for clip in turn] for turn in dialogue]
        for _, recording in sorted(_by(clips, lambda clip: clip.recording_id).items())
        for dialogue in _dialogues(recording, config)
    ]


def _dialogues(clips: Sequence[Placed], config: ConversationDocuments) -> Iterator[list[list[Placed]]]:
    under_way = _Dialogue(config)
    for clip in clips:
        if not _is_clear(clip, config):
            yield from under_way.ended()
            under_way = _Dialogue(config)
            continue
        if under_way.turns and not under_way.takes(clip):
            yield from under_way.ended()
            # The answer that was still to come may be this one.
            under_way = _Dialogue(config, under_way.unanswered())
            if not under_way.takes(clip):
                under_way = _Dialogue(config)
        under_way.add(clip)
    yield from under_way.ended()


def _is_clear(clip: Placed, config: ConversationDocuments) -> bool:
    """Whether it is known who speaks in the clip, and nobody else does for long."""
    return clip.is_free and clip.speaker is not None and clip.overlap_samples <= config.max_overlap_share * clip.num_samples


@dataclass
class _Dialogue:
    """Turns so far, of at most two speakers."""

    config: ConversationDocuments
    turns: list[list[Placed]] = field(default_factory=list)

    def takes(self, clip: Placed) -> bool:
        """Whether the clip can go on with the last turn, or be the next."""
        if not self.turns:
            return True
        config, rate, last = self.config, clip.sample_rate_hz, self.turns[-1][-1]
        gap = clip.start_sample - last.end_sample
        shorter = min(clip.num_samples, last.num_samples)
        is_next = -config.max_overlap_share * shorter <= gap <= config.max_gap_s * rate
        speakers = {turn[0].speaker for turn in self.turns}
        is_one_of_two = clip.speaker in speakers or len(speakers) < 2
        has_room = clip.speaker == last.speaker or len(self.turns) < config.max_turns
        fits = sum(map(_total, self.turns)) + clip.num_samples <= config.max_s * rate
        return is_next and is_one_of_two and has_room and fits

    def add(self, clip: Placed) -> None:
        if self.turns and self.turns[-1][-1].speaker == clip.speaker:
            self.turns[-1].append(clip)
        else:
            self.turns.append([clip])

    def ended(self) -> Iterator[list[list[Placed]]]:
        """The document, if there is one: what nobody answers is not in it."""
        if answered := self.turns[: len(self.turns) // 2 * 2]:
            yield answered

    def unanswered(self) -> list[list[Placed]]:
        return self.turns[len(self.turns) // 2 * 2 :]


def _by(clips: Iterable[Placed], key: Callable[[Placed], Any]) -> dict[Any, list[Placed]]:
    """The clips of each key, in order of time."""
    found: dict[Any, list[Placed]] = {}
    for clip in sorted(clips, key=lambda clip: (clip.start_sample, clip.end_sample, clip.channel)):
        found.setdefault(key(clip), []).append(clip)
    return found
