"""What the inputs say of recordings: facts put together over all inputs of the same bytes, and who must share a split.

A recording belongs to one unit; others may hold inputs of the same bytes (``Snapshot.shadowed``), and what those say
counts as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.facts import FactsReader, check_licences, first_known
from manifests.schema import INPUTS
from pipeline.speaker_ids import clip_speakers

# Tasks that the units of a corpus are handed out in, at most: enough for every worker of a cluster, few enough that each
# has much to do, since each opens the snapshot.
MAX_TASKS = 1024


def unit_groups(corpus: Corpus) -> list[tuple[str, ...]]:
    """All units of the snapshot in order, in at most MAX_TASKS groups."""
    units = corpus.snapshot.units
    step = max(1, -(-len(units) // MAX_TASKS))
    return [tuple(units[start : start + step]) for start in range(0, len(units), step)]


@dataclass(frozen=True)
class RecordingFacts:
    """Of each fact the first that is known, in plan order; ``speakers`` are all that any input names, sorted.

    With the decision table ``speaker_id``, the ids (hex) of those who speak in the recording are among the speakers.
    """

    first: Mapping[str, Any]  # INPUTS
    speakers: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.first[name]


def unit_facts(
    corpus: Corpus, units: Sequence[str], speakers_from: str = "source"
) -> Iterator[tuple[UnitView, dict[bytes, RecordingFacts]]]:
    """Each of the units with the facts of the recordings that it owns.

    ``speakers_from`` is that of a pack's recipe. Raises RequestError where two inputs of the same bytes state different
    licences: a pack must not choose one.
    """
    reader = FactsReader(corpus)
    for unit in units:
        owner = UnitView(corpus, unit)
        inputs = reader.inputs([unit], INPUTS.names)
        owned = owner.recordings(["recording_id"])["recording_id"].combine_chunks()
        facts = merged(inputs.filter(pc.is_in(inputs["recording_id"], value_set=owned)))
        yield owner, _with_speaker_ids(owner, facts) if speakers_from == "speaker_id" else facts


def _with_speaker_ids(view: UnitView, facts: Mapping[bytes, RecordingFacts]) -> dict[bytes, RecordingFacts]:
    heard: dict[bytes, set[str]] = {recording: set() for recording in facts}
    for recording, speaker in zip(view.clips(["recording_id"])["recording_id"].to_pylist(), clip_speakers(view), strict=True):
        if speaker is not None:
            heard[recording].add(speaker.hex())
    return {r: replace(fact, speakers=tuple(sorted({*fact.speakers, *heard[r]}))) for r, fact in facts.items()}


def merged(inputs: pa.Table) -> dict[bytes, RecordingFacts]:
    """The facts of each recording from its inputs (INPUTS rows, in plan order). Raises RequestError as ``check_licences`` does."""
    check_licences(inputs)
    speakers: dict[bytes, set[str]] = {}
    for row in inputs.select(["recording_id", "source", "speaker_label"]).to_pylist():
        if row["speaker_label"]:
            speakers.setdefault(row["recording_id"], set()).add(f"{row['source']}:{row['speaker_label']}")
    facts = first_known(inputs, [name for name in inputs.column_names if name != "recording_id"])
    return {
        row["recording_id"]: RecordingFacts(row, tuple(sorted(speakers.get(row["recording_id"], ()))))
        for row in facts.to_pylist()
    }


def speaker_groups(links: Iterable[Sequence[str]]) -> dict[str, str]:
    """Speaker -> name of the group, for speakers that are linked: each link names the speakers of one recording.

    Whoever is linked, over any number of links, is in one group; its name is its first speaker's in the alphabet.
    """
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = name = parents[parents[name]]
        return name

    for link in links:
        for left, right in itertools.pairwise(link):
            low, high = sorted((root(left), root(right)))
            parents[high] = low
    return {name: root(name) for name in sorted(parents)}


def group_of(recording_id: bytes, speakers: Sequence[str], groups: Mapping[str, str]) -> str:
    """What a split keeps together: the recording's speakers, with all whom they share a recording or a pair with, else the
    recording itself.

    So no speaker (``RecordingFacts.speakers``), no recording and no pair is in two splits.
    """
    own = own_group(recording_id, speakers)
    return groups.get(own, own)


def own_group(recording_id: bytes, speakers: Sequence[str]) -> str:
    """What the recording is known by among those that are linked: its first speaker, else itself."""
    return speakers[0] if speakers else recording_id.hex()


class Side(NamedTuple):
    """A recording that makes a pair with another one."""

    unit: str
    recording_id: str  # hex


@dataclass(frozen=True)
class Ties:
    """What of a snapshot hangs together over units."""

    groups: Mapping[str, str]  # ``speaker_groups``
    partners: Mapping[str, Mapping[str, Side]]  # unit -> its recordings (hex) that are in a pair -> the other one

    def of_units(self, units: Sequence[str]) -> Ties:
        """With the partners of the recordings of these units alone."""
        return Ties(self.groups, {unit: self.partners[unit] for unit in units if unit in self.partners})

    def to_json(self) -> dict[str, Any]:
        pairs = [[unit, recording, *other] for unit, own in self.partners.items() for recording, other in own.items()]
        return {"groups": self.groups, "pairs": pairs}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Ties:
        return Ties.of(value["groups"], ((Side(*pair[:2]), Side(*pair[2:])) for pair in value["pairs"]))

    @staticmethod
    def of(groups: Mapping[str, str], pairs: Iterable[tuple[Side, Side]]) -> Ties:
        """From each side of every pair, and its partner."""
        partners: dict[str, dict[str, Side]] = {}
        for own, other in pairs:
            partners.setdefault(own.unit, {})[own.recording_id] = other
        return Ties(groups, partners)


@dataclass(frozen=True)
class LinksTask:
    """Units of a snapshot whose recordings are looked through for several speakers."""

    corpus: str
    snapshot: int
    units: tuple[str, ...]
    speakers_from: str = "source"


def find_links(task: LinksTask) -> list[tuple[str, ...]]:
    """The speakers of each recording that has more than one. Raises RequestError where licences disagree."""
    corpus = Corpus.open(task.corpus, task.snapshot)
    known = unit_facts(corpus, task.units, task.speakers_from)
    return sorted({fact.speakers for _, facts in known for fact in facts.values() if len(fact.speakers) > 1})


class PairSide(NamedTuple):
    """A recording whose source says that it makes a pair."""

    pair: str  # source and pair_id
    side: Side
    group: str  # ``own_group``


def find_pair_sides(task: LinksTask) -> list[PairSide]:
    """The recordings of the units that name a ``pair_id``."""
    corpus = Corpus.open(task.corpus, task.snapshot)
    return [
        PairSide(f"{fact['source']}:{fact['pair_id']}", Side(view.unit_id, recording.hex()), own_group(recording, fact.speakers))
        for view, facts in unit_facts(corpus, task.units, task.speakers_from)
        for recording, fact in facts.items()
        if fact["pair_id"]
    ]


def ties_of(links: Iterable[Sequence[str]], sides: Iterable[PairSide]) -> Ties:
    """``speaker_groups`` of the links and pairs. A recording without a partner makes no pair.

    Raises RequestError where more than two recordings share a ``pair_id``: nobody says which two say the same.
    """
    pairs: dict[str, list[PairSide]] = {}
    for side in sides:
        pairs.setdefault(side.pair, []).append(side)
    if crowd := next((found for found in pairs.values() if len(found) > 2), None):
        raise RequestError(f"pair_id {crowd[0].pair!r} is that of {len(crowd)} recordings; give each pair an id of its own")
    whole = [found for found in pairs.values() if len(found) == 2]
    groups = speaker_groups([*links, *([one.group, other.group] for one, other in whole)])
    return Ties.of(groups, (way for one, other in whole for way in ((one.side, other.side), (other.side, one.side))))
