"""Snapshots: one consistent view of a corpus, as a JSON object whose number is its name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from manifests.errors import RequestError, parsing
from manifests.remote import refusal
from manifests.store import Store, json_bytes

FORMAT_VERSION = 1
INGEST = "ingest"


def spans_output(segmenter: str) -> str:
    return f"spans/{segmenter}"


def clips_output(clip_set: str) -> str:
    return f"clips/{clip_set}"


def layer_output(clip_set: str, layer: str) -> str:
    return f"layers/{clip_set}/{layer}"


# Roles of the tables in a commit, by the first word of its output; ingest commits hold audio besides.
TABLES = {
    "ingest": ("inputs", "recordings", "quarantine"),
    "spans": ("spans", "failures"),
    "clips": ("clips",),
    "layers": ("layer",),
}


def table_roles(output: str) -> tuple[str, ...]:
    """Roles of the tables that a unit's commit of an output holds; none of an output that this version does not know."""
    return TABLES.get(output.split("/")[0], ())


@dataclass(frozen=True)
class Snapshot:
    """What of a corpus counts.

    ``units`` are in plan order, which is the order of their ids; ``outputs`` maps output -> fingerprint -> units that
    committed it, in the same order; ``current`` maps output -> the fingerprint that the last build asked for;
    ``clip_set`` is the current one. ``shadowed`` maps unit -> recordings (hex) that another unit owns; ``superseded``
    maps unit -> inputs (hex) that a later unit took again. ``taken_recordings`` and ``taken_inputs`` map unit -> what was
    taken down of it, ``cut_recordings`` unit -> recordings of which spans were (``manifests.tombstones``). ``compacted`` maps output -> fingerprint -> path of the
    compaction that says where rows are now (``manifests.compacted``); ``holdings`` are paths of tables that say which
    unit holds which inputs and recordings (``pipeline.publish``). ``tables`` maps the name of a decision table -> path of
    its head (``manifests.decision_tables``).
    """

    number: int
    units: list[str]
    outputs: dict[str, dict[str, list[str]]]
    current: dict[str, str]
    clip_set: str
    shadowed: dict[str, list[str]] = field(default_factory=dict)
    superseded: dict[str, list[str]] = field(default_factory=dict)
    taken_recordings: dict[str, list[str]] = field(default_factory=dict)
    taken_inputs: dict[str, list[str]] = field(default_factory=dict)
    cut_recordings: dict[str, list[str]] = field(default_factory=dict)
    compacted: dict[str, dict[str, str]] = field(default_factory=dict)
    holdings: list[str] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def path(number: int) -> str:
        return f"snapshots/{number:06d}.json"

    def to_json(self) -> dict[str, Any]:
        """Units of an output are spans of positions in ``units``: as names, 200,000 units of 10 outputs take 40 MB."""
        place = {unit: position for position, unit in enumerate(self.units)}
        spans = {
            output: {mark: position_spans(place[unit] for unit in done) for mark, done in made.items()}
            for output, made in self.outputs.items()
        }
        return {**self.__dict__, "outputs": spans}

    @staticmethod
    def from_json(row: dict[str, Any]) -> Snapshot:
        units = row["units"]
        outputs = {
            output: {mark: [unit for start, stop in spans for unit in units[start:stop]] for mark, spans in made.items()}
            for output, made in row["outputs"].items()
        }
        return Snapshot(**{**row, "outputs": outputs})


def position_spans(positions: Iterable[int]) -> list[list[int]]:
    """Rising positions as half-open spans ``[start, stop]``, as few as can be."""
    spans: list[list[int]] = []
    for position in positions:
        if spans and spans[-1][1] == position:
            spans[-1][1] = position + 1
        else:
            spans.append([position, position + 1])
    return spans


def snapshot_number(path: str) -> int:
    """Number of the snapshot at a path; of any other path, -1."""
    name = path.removeprefix("snapshots/").removesuffix(".json")
    return int(name) if name.isdigit() and Snapshot.path(int(name)) == path else -1


def latest_snapshot_number(store: Store) -> int:
    """Number of the newest snapshot; -1 when there is none."""
    return max(map(snapshot_number, store.objects("snapshots")), default=-1)


def read_snapshot(store: Store, number: int) -> Snapshot:
    """Raises FileNotFoundError where there is none, WorkError where it is damaged."""
    path = Snapshot.path(number)
    data = store.read(path)
    with parsing(store.uri, path):
        return parse_snapshot(data)


def parse_snapshot(data: bytes) -> Snapshot:
    """A stored snapshot. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
    return Snapshot.from_json(json.loads(data))


def publish_snapshot(store: Store, snapshot: Snapshot) -> bool:
    """False when another run published that number, or a later one, first: rebase and try the next.

    A number may be free because it was published and removed since (a takedown leaves no snapshot before its own): below
    the newest nobody would see this one, and whoever asked for it by number would see what was taken down.
    """
    is_next = latest_snapshot_number(store) < snapshot.number
    return is_next and store.create(Snapshot.path(snapshot.number), json_bytes(snapshot.to_json()))


def read_head(store: Store) -> dict[str, Any] | None:
    """``corpus.json`` (format_version, corpus_id, sample_rate), or None where there is no corpus."""
    try:
        data = store.read("corpus.json")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(f"corpus {store.uri!r}", error) from error
    with parsing(store.uri, "corpus.json"):
        head: dict[str, Any] = json.loads(data)
        version = head["format_version"]
    if version != FORMAT_VERSION:
        raise RequestError(f"corpus {store.uri!r} has format {version!r}; this version reads {FORMAT_VERSION}")
    return head
