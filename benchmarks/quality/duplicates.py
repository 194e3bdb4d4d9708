"""Copies found by the join of ``manifest dedup`` among thousands of clips: recall by copy, precision of pairs, groups."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from annotators.acoustic_fingerprint import acoustic_fingerprint
from benchmarks.quality.content import CLAIMED_S, GROUPS, LONGEST_S, source_items
from benchmarks.quality.copies import COPIES
from benchmarks.quality.figures import Figure, Section, ratio, share
from benchmarks.quality.material import Item, Material
from manifests.console import progress
from manifests.contracts import MODEL_RATE_HZ
from pipeline.copies.frames import FramesWriter
from pipeline.copies.groups import Components
from pipeline.copies.near import find_stretches

PROSE = """
The join behind `manifest dedup` and `manifest decontaminate` (`pipeline/copies/near.py`) over {num_clips} clips at once: the read and the acted
set, clips of the test data, and {num_copies} copies of {num_sources} of them, each transformed {kinds} ways. No pair of clips is shown to it;
it has to find them by their landmarks. A pair is right where both clips are of one source. Nothing is fitted here: the
thresholds are the shipped ones, and landmarks and sketch were chosen on the same sources (docs/decisions/0018).
"""


class Clip(NamedTuple):
    """A clip of a source, itself (copy is None) or a copy."""

    source: int
    copy: str | None
    duration_s: float  # of the shorter of it and its source
    fingerprint: np.ndarray  # uint32 [F]


def measure(material: Material) -> Section:
    items = [*material.speech("read"), *material.speech("emotion")]
    places = {item.path: number for number, item in enumerate(items)}
    sources = source_items(material)
    items += [item for item in sources if item.path not in places]
    clips = transformed(items, {item.path for item in sources})
    pairs = found_pairs(clips)
    copies = [number for number, clip in enumerate(clips) if clip.copy is not None]
    original = {clip.source: number for number, clip in enumerate(clips) if clip.copy is None}
    groups = Components()
    for left, right in pairs:
        groups.join(left, right)
    direct = np.array([(original[clips[n].source], n) in pairs for n in copies])
    grouped = np.array([groups.root(original[clips[n].source]) == groups.root(n) for n in copies])
    figures = [
        *recall_figures([clips[n] for n in copies], direct, grouped),
        share(
            "pair precision",
            [clips[a].source == clips[b].source for a, b in sorted(pairs)],
            "pairs",
            f"{len(clips)} clips joined",
        ),
        *stranger_figures(items, clips, pairs),
    ]
    prose = PROSE.format(num_clips=len(clips), num_copies=len(copies), num_sources=len(sources), kinds=len(COPIES))
    return Section("Copies among many clips", prose, figures)


def transformed(items: Sequence[Item], chosen: set[str]) -> list[Clip]:
    """All items, then every copy of those whose path was chosen."""
    random, originals, copies = np.random.default_rng(0), list[Clip](), list[Clip]()
    for source, item in enumerate(items):
        audio_S = item.audio()[: int(LONGEST_S * MODEL_RATE_HZ)]
        originals.append(Clip(source, None, len(audio_S) / MODEL_RATE_HZ, acoustic_fingerprint(audio_S, MODEL_RATE_HZ)))
        for name, copy in COPIES.items() if item.path in chosen else ():
            copy_S, rate = copy(audio_S, random)
            length_s = min(len(audio_S) / MODEL_RATE_HZ, len(copy_S) / rate)
            copies.append(Clip(source, name, length_s, acoustic_fingerprint(copy_S, rate)))
    return [*originals, *copies]


def found_pairs(clips: Sequence[Clip]) -> set[tuple[int, int]]:
    """(earlier, later) clips that the join says share audio."""
    with tempfile.TemporaryDirectory() as folder, progress() as bars:
        writer = FramesWriter(folder)
        edges = np.cumsum([0, *(len(clip.fingerprint) for clip in clips)]).astype(np.int32)
        values = np.concatenate([clip.fingerprint for clip in clips])
        writer.append(pa.chunked_array([pa.ListArray.from_arrays(edges, values)]))
        found = find_stretches(writer.close(), bars)
    return set(zip(found["left"].to_pylist(), found["right"].to_pylist(), strict=True))


def recall_figures(copies: Sequence[Clip], direct: np.ndarray, grouped: np.ndarray) -> list[Figure]:
    """By length, a source being the item, and by copy."""
    source = np.unique([clip.source for clip in copies], return_inverse=True)[1]
    length_s, name = np.array([clip.duration_s for clip in copies]), np.array([clip.copy for clip in copies])
    figures = []
    for label, chosen, hits in (
        ("recall, at least 3 s", length_s >= CLAIMED_S, direct),
        ("recall, under 3 s", length_s < CLAIMED_S, direct),
        ("in the group of its source, at least 3 s", length_s >= CLAIMED_S, grouped),
    ):
        wholes = np.bincount(source[chosen], minlength=source.max() + 1)
        counted = np.bincount(source[chosen], hits[chosen], source.max() + 1)
        note = f"{int(wholes.sum())} copies; bootstrap over source clips"
        figures.append(ratio(label, counted[wholes > 0], wholes[wholes > 0], "clips", note))
    claimed = length_s >= CLAIMED_S
    return [*figures, *(share(f"recall, at least 3 s: {copy}", direct[claimed & (name == copy)], "clips") for copy in COPIES)]


def stranger_figures(items: Sequence[Item], clips: Sequence[Clip], pairs: set[tuple[int, int]]) -> list[Figure]:
    """False pairs among the clips that are no copies, by what they have in common."""
    speakers = [item.facts.get("speaker") for item in items]
    texts = [item.facts.get("transcript") for item in items]
    strangers = [(a, b) for a, b in pairs if clips[a].copy is None and clips[b].copy is None]
    left, right = np.triu_indices(len(items), 1)
    speaker, text = (
        np.unique([str(value or number) for number, value in enumerate(values)], return_inverse=True)[1]
        for values in (speakers, texts)
    )
    group = np.where(
        text[left] == text[right],
        np.where(speaker[left] == speaker[right], 1, 0),
        np.where(speaker[left] == speaker[right], 2, 3),
    )
    is_false = np.isin(left * len(items) + right, [a * len(items) + b for a, b in strangers])
    return [share(f"false pairs: {label}", is_false[group == number], "pairs") for number, label in enumerate(GROUPS)]
