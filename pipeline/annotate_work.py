"""The work of an annotator: one layer, a row for every clip of the unit in the order of the clip part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audio import AudioReader, resample
from manifests.commits import Attempt, read_commit
from manifests.contracts import FACTS, MODEL_RATE_HZ, Annotator, Audio, ClipBatch, Hearing, Resources
from manifests.errors import ContractError, StepwellError
from manifests.gates import ColumnGate, clip_column
from manifests.ids import digest_bytes
from manifests.lineage import fingerprint
from manifests.schema import check_table, layer_schema, table_of
from manifests.snapshots import INGEST, clips_output, layer_output
from manifests.store import Store, table_bytes
from manifests.tables import UnitTables
from pipeline.units import Unit
from pipeline.watch import Watch
from pipeline.works import UnitFacts, one_line

# A unit with more audio than this keeps a checkpoint of each such window: a killed run does not hear a day again.
WINDOW_AUDIO_S = 3600.0


@dataclass(frozen=True)
class AnnotateWork:
    """One layer. Items: the unit's clips.

    ``carry_from`` are outputs of other clip sets made with this fingerprint: rows of clips that they hold are
    taken from there instead of being computed again.
    """

    name: str
    annotator: Annotator
    clip_set: str
    ingest_fingerprint: str
    clips_fingerprint: str
    layer_fingerprints: Mapping[str, str]  # of the layers that it and its gate read
    gate: ColumnGate | None = None
    carry_from: tuple[str, ...] = ()

    @property
    def part(self) -> Annotator:
        return self.annotator

    @property
    def reads_spans_of_clips(self) -> bool:
        """Whether it reads where in a clip speech and overlap lie, which clip sets of earlier versions do not say."""
        return "clip" in self.annotator.reads or (self.gate is not None and self.gate.column == "clip.longest_pause_s")

    @property
    def output(self) -> str:
        return layer_output(self.clip_set, self.name)

    @property
    def reads(self) -> Mapping[str, str]:
        layers = {layer_output(self.clip_set, name): f for name, f in self.layer_fingerprints.items()}
        return {INGEST: self.ingest_fingerprint, clips_output(self.clip_set): self.clips_fingerprint, **layers}

    @property
    def fingerprint(self) -> str:
        # Without the clip set: a layer row depends on its clip alone, so unchanged clips can carry it over. But how much
        # of a clip is speech is what this clip set's segmenters heard: such a gate may open in one set and not in another.
        is_of_clip_set = "clip" in self.annotator.reads or (self.gate is not None and self.gate.is_of_clip_set)
        clips = {"clip set": self.clips_fingerprint} if is_of_clip_set else {}
        reads = {"audio": self.ingest_fingerprint, **clips, **self.layer_fingerprints}
        gate = {"gate": self.gate.model_dump(mode="json")} if self.gate else {}
        return fingerprint(
            self.annotator.name, self.annotator.version, {"part": self.annotator.fingerprint(), **gate}, reads=reads
        )

    @property
    def resources(self) -> Resources:
        return self.annotator.resources

    def run(self, store: Store, unit: Unit, attempt: Attempt, watch: Watch) -> None:
        facts = UnitFacts(store, unit, self.reads)
        clips = facts.table(clips_output(self.clip_set), "clips")
        layers = {name: facts.table(layer_output(self.clip_set, name), "layer") for name in self.layer_fingerprints}
        known = {"clip": lambda: clips, "recording": lambda: _of_clips(facts.table(INGEST, "recordings"), clips)}
        layers |= {name: known[name]() for name in FACTS if name in self.annotator.reads}
        schema = layer_schema(self.annotator.adds)
        durations_s = np.asarray(clip_column(clips, "duration_s"))

        done = _Rows(schema, clips["clip_id"])
        carried, at = self._carried(store, unit, clips, schema)
        done.add(at, carried)
        watch.carried_audio_s = float(durations_s[at].sum())
        if self.gate:
            shut = done.missing()[~self.gate.open_for(clips, layers)[done.missing()]]
            done.add_status(shut, "gated", None)
            watch.gated_audio_s = float(durations_s[shut].sum())
        for item, reason in watch.poison.items():
            done.add_status(np.array([item]), "error", f"{reason}: took the worker down")

        todo = np.array([item for item in done.missing() if watch.takes(int(item))], dtype=np.int64)
        batches = [todo[start:stop] for start, stop in cut_batches(durations_s[todo], self.resources.batch_audio_s)]
        reader = None if self.annotator.hears is Hearing.NOTHING else facts.audio()
        windows = list(_windows(batches, durations_s))
        for window in windows:
            items = np.concatenate(window)
            path = f"checkpoints/{self.output}/{self.fingerprint}/{unit.unit_id}/{_window_name(items, clips)}.parquet"
            keep = len(windows) > 1 and watch.only is None
            table = _checkpoint(store, path) if keep else None
            if table is None:
                parts = [self._batch(batch, clips, layers, reader, durations_s, schema, watch) for batch in window]
                table = pa.concat_tables(parts)
                if keep:
                    store.create(path, table_bytes(table))
            if keep:
                watch.checkpoints.append(path)
            done.add(items, table)
        watch.audio_s = float(durations_s[todo].sum())
        if watch.only is None:
            table = done.table()
            failed = table.filter(pc.equal(table["status"], "error"))
            watch.num_rows = table.num_rows
            watch.failed(failed.num_rows, failed["error"][0].as_py() if failed.num_rows else None)
            attempt.put_table("layer", self.output + "/" + self.fingerprint, table)

    def _carried(self, store: Store, unit: Unit, clips: pa.Table, schema: pa.Schema) -> tuple[pa.Table, np.ndarray]:
        """Rows that other clip sets hold of these clips, and the clips' positions. Errors are tried again instead."""
        rows, at = [schema.empty_table()], [np.zeros(0, np.int64)]
        taken = np.zeros(clips.num_rows, bool)
        for output in self.carry_from:
            if read_commit(store, output, self.fingerprint, unit.unit_id) is None:
                continue
            there = UnitTables(store).read(output, self.fingerprint, unit.unit_id, "layer")
            there = there.filter(pc.not_equal(there["status"], "error"))
            found = pc.index_in(clips["clip_id"], value_set=there["clip_id"].combine_chunks()).combine_chunks()
            here = np.flatnonzero(np.asarray(found.is_valid()) & ~taken)
            rows.append(there.take(found.take(pa.array(here))))
            at.append(here)
            taken[here] = True
        return pa.concat_tables(rows), np.concatenate(at)

    def _batch(
        self,
        items: np.ndarray,
        clips: pa.Table,
        layers: Mapping[str, pa.Table],
        reader: AudioReader | None,
        durations_s: np.ndarray,
        schema: pa.Schema,
        watch: Watch,
    ) -> pa.Table:
        watch.load(self.annotator.setup)
        rows = clips.take(items)
        audio, rates = self._hear(rows, reader)
        read = {name: layers[name].take(items) for name in self.annotator.reads}
        batch = ClipBatch(rows, audio, rates, read)
        with watch.items(int(items[0]), int(items[-1]) + 1, float(durations_s[items].sum())), watch.model():
            return self._annotate(batch, schema)

    def _hear(self, rows: pa.Table, reader: AudioReader | None) -> tuple[list[Audio], list[int]]:
        if reader is None:
            return [], []
        audio, rates = [], []
        for row in rows.to_pylist():
            rate = row["sample_rate_hz"]
            heard = reader.read(row["recording_id"], row["channel"], rate, row["start_sample"], row["end_sample"])
            to_rate = rate if self.annotator.hears is Hearing.NATIVE else MODEL_RATE_HZ
            audio.append(resample(heard, rate, to_rate))
            rates.append(to_rate)
        return audio, rates

    def _annotate(self, batch: ClipBatch, schema: pa.Schema) -> pa.Table:
        """A batch's rows. Where the annotator raises, its halves run apart, down to the clip that fails: an error row."""
        try:
            return self._checked(self.annotator.annotate(batch), batch, schema)
        except StepwellError:
            raise
        except Exception as error:
            if len(batch) > 1:
                half = len(batch) // 2
                halves = (batch.slice(0, half), batch.slice(half, len(batch) - half))
                return pa.concat_tables([self._annotate(part, schema) for part in halves])
            reason = "out_of_memory: " if isinstance(error, MemoryError) else ""
            clip = batch.clips["clip_id"][0].as_py()
            return table_of([{"clip_id": clip, "status": "error", "error": reason + one_line(error)}], schema)

    def _checked(self, table: pa.Table, batch: ClipBatch, schema: pa.Schema) -> pa.Table:
        what = f"layer {self.name!r} ({self.annotator.name})"
        table = check_table(table, schema, what)
        if not table["clip_id"].combine_chunks().equals(batch.clips["clip_id"].combine_chunks()):
            raise ContractError(f"{what}: rows are not those of the batch, in order; return one row a clip")
        return table


class _Rows:
    """Rows of a layer as they come, by the position of their clip."""

    def __init__(self, schema: pa.Schema, clip_ids: pa.ChunkedArray) -> None:
        self._schema, self._ids = schema, clip_ids
        self._tables = [schema.empty_table()]
        self._at = [np.zeros(0, np.int64)]
        self._is_there = np.zeros(len(clip_ids), bool)

    def add(self, at: np.ndarray, rows: pa.Table) -> None:
        self._tables.append(rows)
        self._at.append(at)
        self._is_there[at] = True

    def add_status(self, at: np.ndarray, status: str, error: str | None) -> None:
        """Null rows with a status."""
        ids: Sequence[Any] = self._ids.take(pa.array(at)).to_pylist()
        self.add(at, table_of([{"clip_id": clip, "status": status, "error": error} for clip in ids], self._schema))

    def missing(self) -> np.ndarray:
        return np.flatnonzero(~self._is_there)

    def table(self) -> pa.Table:
        """All rows in the order of the clips."""
        order = np.argsort(np.concatenate(self._at), kind="stable")
        return pa.concat_tables(self._tables).take(order).combine_chunks()


def _of_clips(recordings: pa.Table, clips: pa.Table) -> pa.Table:
    """The row of each clip's recording, in the order of the clips."""
    at = pc.index_in(clips["recording_id"], value_set=recordings["recording_id"].combine_chunks())
    return recordings.take(at.combine_chunks())


def cut_batches(durations_s: np.ndarray, batch_audio_s: float) -> Iterator[tuple[int, int]]:
    """[start, stop) of runs of clips with at most ``batch_audio_s`` of audio, at least one clip each, in row order."""
    start, held = 0, 0.0
    for i, duration_s in enumerate(durations_s):
        if i > start and held + duration_s > batch_audio_s:
            yield start, i
            start, held = i, 0.0
        held += float(duration_s)
    if len(durations_s) > start:
        yield start, len(durations_s)


def _windows(batches: Sequence[np.ndarray], durations_s: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Batches in order, in groups of at least WINDOW_AUDIO_S but for the last."""
    group: list[np.ndarray] = []
    held = 0.0
    for batch in batches:
        group.append(batch)
        held += float(durations_s[batch].sum())
        if held >= WINDOW_AUDIO_S:
            yield group
            group, held = [], 0.0
    if group:
        yield group


def _window_name(items: np.ndarray, clips: pa.Table) -> str:
    """A window's clips by position and digest: with other clips left out it is another window."""
    digest = digest_bytes(b"".join(clips["clip_id"].take(pa.array(items)).to_pylist())).hex()[:8]
    return f"{int(items[0]):07d}-{int(items[-1]) + 1:07d}-{digest}"


def _checkpoint(store: Store, path: str) -> pa.Table | None:
    """The rows of a window that an earlier attempt finished."""
    return store.read_table(path) if store.exists(path) else None
