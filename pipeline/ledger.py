"""What a run cost, row by row, and what a person sees of it while it works."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import pyarrow as pa

from manifests.console import Progress, ProgressBar
from manifests.schema import LEDGER
from manifests.store import Store, json_bytes, table_bytes


class RunLedger:
    """The ledger of one run: ``add`` the LEDGER row of every task that is done.

    ``totals`` maps each part (output) to its number of tasks, in the order of the bars. Leaving the context writes the
    ledger and how the run ended.
    """

    def __init__(self, store: Store, run_id: str, totals: Mapping[str, int]) -> None:
        self.rows: list[dict[str, Any]] = []
        self._store, self._run_id, self._totals = store, run_id, totals
        self._bars = Progress()
        self._shown: dict[str, ProgressBar] = {}
        self._spent: dict[str, tuple[float, float]] = {}  # part -> audio-seconds, worker-seconds

    def __enter__(self) -> RunLedger:
        self._bars.__enter__()
        self._shown = {part: self._bars.task(_title(part), total, "units") for part, total in self._totals.items() if total}
        return self

    def add(self, row: dict[str, Any]) -> None:
        """One task is done and committed."""
        self.rows.append(row)
        audio_s, wall_s = self._spent.get(row["part"], (0.0, 0.0))
        self._spent[row["part"]] = audio_s, wall_s = audio_s + row["audio_s"], wall_s + row["wall_s"]
        note = f"{audio_s / 3600:.3f} h at {audio_s / max(wall_s, 1e-9):.0f}x a worker"
        self._shown[row["part"]].advance(note=note)

    def tick(self) -> None:
        """Time passes while tasks run; an engine calls this about once a second."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.__exit__(kind, error, trace)
        state = "done" if kind is None else "interrupted" if kind is KeyboardInterrupt else "failed"
        rows = sorted(self.rows, key=lambda row: (row["unit"], row["part"]))
        self._store.create(f"runs/{self._run_id}/ledger.parquet", table_bytes(pa.Table.from_pylist(rows, schema=LEDGER)))
        self._store.create(f"runs/{self._run_id}/status.json", json_bytes({"state": state, "num_tasks": len(rows)}))


def _title(part: str) -> str:
    """What a bar is called: the layer's, segmenter's or clip set's own name."""
    return part.split("/")[-1]
