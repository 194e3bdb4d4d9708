"""Reading a corpus: one snapshot of it, as Arrow tables that join by position.

Readers see only what a snapshot names. A recording whose bytes came with two units belongs to the earlier one; its rows
in the later unit are *shadowed*: they lie on disk, and no reader sees them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.audio import AudioReader
from manifests.commits import Commit, read_commit
from manifests.errors import RequestError, WorkError
from manifests.schema import CLIPS, INPUTS, QUARANTINE, RECORDINGS, SPANS
from manifests.store import Store, json_bytes

FORMAT_VERSION = 1
INGEST = "ingest"


def spans_output(segmenter: str) -> str:
    return f"spans/{segmenter}"


def clips_output(clip_set: str) -> str:
    return f"clips/{clip_set}"


def layer_output(clip_set: str, layer: str) -> str:
    return f"layers/{clip_set}/{layer}"


@dataclass(frozen=True)
class Snapshot:
    """A consistent view of a corpus.

    ``units`` are in plan order; ``outputs`` maps output -> fingerprint -> units that committed it; ``current`` maps
    output -> the fingerprint that the last build asked for; ``shadowed`` maps unit -> recordings (hex) that an earlier
    unit owns; ``clip_set`` is the current one.
    """

    number: int
    units: list[str]
    outputs: dict[str, dict[str, list[str]]]
    current: dict[str, str]
    clip_set: str
    shadowed: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def path(number: int) -> str:
        return f"snapshots/{number:06d}.json"


def latest_snapshot_number(store: Store) -> int:
    """Number of the newest snapshot; -1 when there is none."""
    paths = store.objects("snapshots")
    return int(paths[-1].rsplit("/", 1)[1].removesuffix(".json")) if paths else -1


def read_snapshot(store: Store, number: int) -> Snapshot:
    return Snapshot(**json.loads(store.read(Snapshot.path(number))))


def publish_snapshot(store: Store, snapshot: Snapshot) -> bool:
    """False when another run published that number first: rebase and try the next."""
    return store.create(Snapshot.path(snapshot.number), json_bytes(snapshot.__dict__))


def read_head(store: Store) -> dict[str, Any] | None:
    """``corpus.json`` (format_version, corpus_id, sample_rate), or None where there is no corpus."""
    try:
        head: dict[str, Any] = json.loads(store.read("corpus.json"))
    except FileNotFoundError:
        return None
    if head.get("format_version") != FORMAT_VERSION:
        raise RequestError(f"corpus {store.uri!r} has format {head.get('format_version')!r}; this version reads {FORMAT_VERSION}")
    return head


class Corpus:
    """One snapshot of a corpus."""

    def __init__(self, store: Store, head: dict[str, Any], snapshot: Snapshot) -> None:
        self.store, self.head, self.snapshot = store, head, snapshot
        self._commits: dict[tuple[str, str, str], Commit] = {}
        self._shadowed = {unit: {bytes.fromhex(r) for r in ids} for unit, ids in snapshot.shadowed.items()}

    @staticmethod
    def open(uri: str, snapshot: int | None = None) -> Corpus:
        """The newest snapshot, or the one asked for. Raises RequestError when there is no corpus or no snapshot."""
        store = Store(uri)
        head = read_head(store)
        if head is None:
            raise RequestError(
                f"no corpus at {uri!r} (no corpus.json); build one with `stepwell corpus build SOURCE --out {uri}`"
            )
        number = latest_snapshot_number(store) if snapshot is None else snapshot
        if number < 0 or not store.exists(Snapshot.path(number)):
            raise RequestError(f"corpus {uri!r} has no snapshot {'yet' if number < 0 else number}; finish its build first")
        return Corpus(store, head, read_snapshot(store, number))

    @property
    def corpus_id(self) -> str:
        return str(self.head["corpus_id"])

    @property
    def clip_set(self) -> str:
        return self.snapshot.clip_set

    def fingerprint(self, output: str) -> str:
        """Fingerprint that the last build asked for. Raises RequestError listing what there is."""
        if output not in self.snapshot.current:
            raise RequestError(f"corpus {self.store.uri!r} has no {output!r}; it has {sorted(self.snapshot.current)}")
        return self.snapshot.current[output]

    def layers(self) -> dict[str, str]:
        """Layer name -> current fingerprint, of the current clip set."""
        prefix = layer_output(self.clip_set, "")
        return {o.removeprefix(prefix): f for o, f in sorted(self.snapshot.current.items()) if o.startswith(prefix)}

    def commit(self, output: str, fingerprint: str, unit: str) -> Commit:
        """Commit of one unit, read once."""
        key = (output, fingerprint, unit)
        if key not in self._commits:
            found = read_commit(self.store, *key)
            if found is None:
                raise WorkError(
                    f"snapshot {self.snapshot.number} names {key}, but its commit is gone; run `stepwell corpus fsck`"
                )
            self._commits[key] = found
        return self._commits[key]

    def inputs(self) -> pa.Table:
        """INPUTS of all units, in plan order."""
        return self._read(INGEST, "inputs", INPUTS, shadow=False)

    def recordings(self) -> pa.Table:
        """RECORDINGS, each once."""
        return self._read(INGEST, "recordings", RECORDINGS)

    def quarantine(self) -> pa.Table:
        return self._read(INGEST, "quarantine", QUARANTINE, shadow=False)

    def spans(self, segmenter: str) -> pa.Table:
        return self._read(spans_output(segmenter), "spans", SPANS)

    def clips(self) -> pa.Table:
        """CLIPS of the current clip set."""
        return self._read(clips_output(self.clip_set), "clips", CLIPS)

    def layer(self, name: str) -> pa.Table:
        """Rows of a layer, in the order of ``clips()``.

        Raises RequestError when the corpus has no such layer, or not yet for every unit.
        """
        output = layer_output(self.clip_set, name)
        done = set(self.snapshot.outputs.get(output, {}).get(self.fingerprint(output), []))
        missing = [unit for unit in self.snapshot.units if unit not in done]
        if missing:
            raise RequestError(
                f"layer {name!r} lacks {len(missing)} of {len(self.snapshot.units)} units; build again to finish it"
            )
        return self._read(output, "layer", None)

    def audio(self) -> AudioReader:
        """Reader of the stored audio of all units."""
        fingerprint = self.fingerprint(INGEST)
        commits = [self.commit(INGEST, fingerprint, unit) for unit in self.snapshot.units]
        return AudioReader(self.store, [c.objects["audio"].path for c in commits if "audio" in c.objects])

    def _read(self, output: str, role: str, schema: pa.Schema | None, shadow: bool = True) -> pa.Table:
        fingerprint = self.fingerprint(output)
        parts, done = [], set(self.snapshot.outputs[output][fingerprint])
        for unit in self.snapshot.units:
            if unit not in done:
                continue
            part = self.store.read_table(self.commit(output, fingerprint, unit).objects[role].path)
            parts.append(self._unshadowed(part, unit) if shadow else part)
        if not parts:
            return (schema or pa.schema([])).empty_table()
        return pa.concat_tables(parts)

    def _unshadowed(self, part: pa.Table, unit: str) -> pa.Table:
        """The rows of recordings that the unit owns; a layer part takes the mask of its clip part."""
        hidden = self._shadowed.get(unit)
        if not hidden:
            return part
        if "recording_id" in part.column_names:
            column = part.column("recording_id")
        else:
            clips = clips_output(self.clip_set)
            fact = self.commit(clips, self.fingerprint(clips), unit).objects["clips"]
            column = self.store.read_table(fact.path, columns=["recording_id"]).column("recording_id")
        return part.filter(pc.invert(pc.is_in(column, value_set=pa.array(sorted(hidden), type=column.type))))
