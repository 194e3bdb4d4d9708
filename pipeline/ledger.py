"""What a run cost, row by row, and what a person sees of it while it works.

Rows go to ``runs/<run_id>/ledger/<n>.parquet`` as they come, and how far the run is to ``heartbeat.json``: a run that is
killed leaves both. One that ends turns its parts into ``ledger.parquet``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from manifests.console import Progress, ProgressBar, hours, number, say
from manifests.schema import LEDGER, table_of
from manifests.store import Store, parse_table, table_bytes
from pipeline.heartbeat import Heartbeat, PartProgress, heartbeat_path
from pipeline.processes import peak_rss_bytes, peaks_below, process_name

if TYPE_CHECKING:
    from pipeline.works import Work

BEAT_EVERY_S = 5.0
WRITE_EVERY_S = 30.0
WRITE_EVERY_ROWS = 500  # looked at with every beat


class RunLedger:
    """The ledger of one run: ``add`` the LEDGER row of every task that is done, ``tick`` about once a second.

    ``totals`` maps each part (output) to its number of tasks, in the order of the bars; ``works`` are what makes them.
    ``unit_bytes`` are the bytes of each unit's inputs and ``total_bytes`` those of all units that a part is to do: with
    them the time left goes by bytes. Entering raises OSError where the store cannot be written; what cannot be written
    later is tried again, and raised at the end of a run that went well.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        totals: Mapping[str, int],
        *,
        works: Sequence[Work] = (),
        unit_bytes: Mapping[str, int] | None = None,
        total_bytes: Mapping[str, int] | None = None,
    ) -> None:
        self._store, self._unit_bytes = store, unit_bytes or {}
        progress = [PartProgress(part, total, (total_bytes or {}).get(part, 0)) for part, total in totals.items()]
        makers = {work.output: work for work in works}
        for part in progress:
            if work := makers.get(part.part):
                needs = work.resources
                part.pool, part.num_cpus, part.num_gpus, part.reads = (
                    needs.pool,
                    needs.num_cpus,
                    needs.num_gpus,
                    sorted(work.reads),
                )
        self.heartbeat = Heartbeat(run_id, progress)
        self._progress = {part.part: part for part in progress}
        self._bars = Progress()
        self._shown: dict[str, ProgressBar] = {}
        self._rows: list[dict[str, Any]] = []  # not written yet
        # Columns, not dicts: two million tasks of a million-hour run stay below half a gigabyte.
        self._written: list[pa.Table] = []
        self._beat_at = self._written_at = time.monotonic()

    def __enter__(self) -> RunLedger:
        self._beat()
        self._bars.__enter__()
        for part in self.heartbeat.parts:
            if part.num_units:
                self._shown[part.part] = self._bars.task(_title(part.part), part.num_units, "units", part.num_input_bytes)
        return self

    def add(self, row: dict[str, Any]) -> None:
        """One task is done and committed."""
        num_input_bytes = self._unit_bytes.get(row["unit"], 0)
        part = self._progress[row["part"]]
        part.add(row, num_input_bytes)
        _, peak = self.heartbeat.processes.get(row["worker"], ("worker", 0))
        self.heartbeat.processes[row["worker"]] = ("worker", max(peak, row["peak_rss_bytes"]))
        note = f"{hours(part.audio_s / 3600)} at {number(part.audio_s / max(part.wall_s, 1e-9))}x a worker"
        self._shown[row["part"]].advance(note=note, weight=num_input_bytes)
        self._rows.append(row)
        self.tick()

    def found(self, part: str, unit: str) -> None:
        """One task was committed by another run meanwhile."""
        num_input_bytes = self._unit_bytes.get(unit, 0)
        self._progress[part].found(num_input_bytes)
        self._shown[part].advance(weight=num_input_bytes)

    def tick(
        self,
        *,
        num_in_flight: int | None = None,
        workers: Mapping[str, int] | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
    ) -> None:
        """Time passes: write what is due. What the engine tells is kept until it tells something else."""
        beat = self.heartbeat
        beat.num_in_flight = beat.num_in_flight if num_in_flight is None else num_in_flight
        beat.workers = beat.workers if workers is None else dict(workers)
        beat.num_cpus = beat.num_cpus if num_cpus is None else num_cpus
        beat.num_gpus = beat.num_gpus if num_gpus is None else num_gpus
        now = time.monotonic()
        if now - self._beat_at < BEAT_EVERY_S:
            return
        self._beat_at = now
        _unless_the_store_fails(self._beat)
        if len(self._rows) >= WRITE_EVERY_ROWS or now - self._written_at >= WRITE_EVERY_S:
            self._written_at = now
            _unless_the_store_fails(self._write)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.__exit__(kind, error, trace)
        beat = self.heartbeat
        beat.state = "done" if kind is None else "interrupted" if kind is KeyboardInterrupt else "failed"
        beat.reason = " ".join(f"{error or ''}".split())[:500]
        beat.num_in_flight, beat.workers = 0, {}
        if kind is None:
            self._end()
        elif (trouble := _unless_the_store_fails(self._end)) is not None:
            say(f"note: the ledger of run {beat.run_id} could not be finished: {trouble}")

    def _end(self) -> None:
        self._write()
        table = pa.concat_tables([LEDGER.empty_table(), *self._written])
        self._store.replace(_whole_path(self.heartbeat.run_id), table_bytes(table))
        self._beat()
        for index in range(len(self._written)):
            self._store.remove(_part_path(self.heartbeat.run_id, index))

    def _write(self) -> None:
        if self._rows:
            table = table_of(self._rows, LEDGER)
            self._store.replace(_part_path(self.heartbeat.run_id, len(self._written)), table_bytes(table))
            self._written.append(table)
            self._rows = []

    def _beat(self) -> None:
        beat = self.heartbeat
        beat.updated_at_s = time.time()
        for process, (command, peak) in peaks_below().items():
            what, before = beat.processes.get(process, (command, 0))
            beat.processes[process] = (what, max(peak, before))
        beat.processes[process_name(beat.pid)] = ("driver", peak_rss_bytes())
        self._store.replace(heartbeat_path(beat.run_id), beat.to_bytes())


def read_ledger(store: Store, run_id: str) -> pa.Table:
    """LEDGER rows of a run in the order in which they were done; of one at work or cut off, those written so far."""
    # Before the whole is asked for: a run that ends writes that first, and then removes these.
    parts = [parse_table(data) for _, data in store.read_all(store.objects(f"runs/{run_id}/ledger"))]
    try:
        return store.read_table(_whole_path(run_id))
    except FileNotFoundError:
        return pa.concat_tables([LEDGER.empty_table(), *parts])


def _whole_path(run_id: str) -> str:
    return f"runs/{run_id}/ledger.parquet"


def _part_path(run_id: str, index: int) -> str:
    return f"runs/{run_id}/ledger/{index:06d}.parquet"


def _title(part: str) -> str:
    """What a bar is called: the layer's, segmenter's or clip set's own name."""
    return part.split("/")[-1]


def _unless_the_store_fails(write: Callable[[], None]) -> OSError | None:
    """The store's error instead of an exception: a store that is away for a moment must not end a run that works."""
    try:
        write()
    except OSError as error:
        return error
    return None
