"""The voices of units that are linked for the first time, all together: as many arrays as ``speaker_linking`` asks for.

Shape legend: N voices, C clips of a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from manifests.corpus import UnitView
from pipeline.speaker_linking import VoiceMeans
from pipeline.voices import COLUMNS, Embeddings, find_voices


@dataclass(frozen=True)
class NewVoices:
    """The voices of all units that are linked now."""

    of_clips: list[np.ndarray]  # a unit: int32 [C], the clip's voice among all; -1 where nothing tells
    ids: list[bytes]  # [N]
    sounds: VoiceMeans  # [N]
    given: dict[int, bytes]  # voice -> id that its clips had before, when the snapshot showed another unit with them
    told_apart: list[list[int]]  # voices of one recording and channel


def read_new_voices(
    units: Iterable[tuple[UnitView, Embeddings]], threshold: float, before: Mapping[bytes, bytes], advance: Callable[[], None]
) -> NewVoices:
    """The voices of the units. ``before`` has the ids that clips had while another unit held them; ``advance`` is called once a unit."""
    told_apart, voice_C = list[list[int]](), list[np.ndarray]()
    ids, sounds, given = list[bytes](), list[VoiceMeans](), dict[int, bytes]()
    for view, embeddings in units:
        clips = view.clips(COLUMNS)
        found = find_voices(clips, embeddings, threshold)
        voice_C.append(np.where(found.of_clips < 0, -1, found.of_clips + len(ids)).astype(np.int32))
        if before:
            pairs = zip(voice_C[-1].tolist(), clips["clip_id"].to_pylist(), strict=True)
            given |= {voice: before[clip] for voice, clip in pairs if voice >= 0 and clip in before}
        told_apart += together((scene, len(ids) + voice) for voice, scene in enumerate(found.scenes) if scene)
        ids += found.ids
        sounds.append(found.sounds)
        advance()
    return NewVoices(voice_C, ids, VoiceMeans.concatenated(sounds), given, told_apart)


def together(members: Iterable[tuple[Hashable, int]]) -> list[list[int]]:
    """The members of each scene, of the scenes that have several."""
    found: dict[Hashable, set[int]] = {}
    for scene, member in members:
        found.setdefault(scene, set()).add(member)
    return [sorted(group) for group in found.values() if len(group) > 1]


def scenes_of(groups: Iterable[Sequence[int]]) -> dict[int, frozenset[int]]:
    """Member -> numbers of its groups."""
    found: dict[int, frozenset[int]] = {}
    for number, group in enumerate(groups):
        for member in group:
            found[member] = found.get(member, frozenset()) | {number}
    return found
