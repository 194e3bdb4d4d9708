"""What is done to a unit: one *work* an output. Each reads what earlier works committed and commits its own output.

A work is light to pickle; its model is set up once per process. Works hand on references (commits), never waveforms:
decoding FLAC again costs far less than moving audio between processes.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa

from manifests.audio import AudioReader
from manifests.commits import Attempt, commit_path
from manifests.contracts import Part, Resources
from manifests.cpu_clock import cpu_s
from manifests.snapshots import INGEST
from manifests.store import Store
from manifests.tables import UnitTables
from pipeline.units import Unit
from pipeline.watch import Watch


class Work(Protocol):
    """One output of a build."""

    @property
    def output(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def reads(self) -> Mapping[str, str]:
        """Output -> fingerprint of everything that it reads."""
        ...

    @property
    def part(self) -> Part | None:
        """Whoever makes the output, where that is a part of the recipe."""
        ...

    @property
    def resources(self) -> Resources: ...
    def run(self, store: Store, unit: Unit, attempt: Attempt, watch: Watch) -> None:
        """Put the unit's objects into ``attempt``, which the caller commits, and tell ``watch`` of every item."""
        ...


def load(work: Work) -> None:
    """Set the part of a work up. Raises ModelUnavailable."""
    if work.part is not None:
        work.part.setup()


def do(work: Work, store: Store, unit: Unit, watch: Watch) -> dict[str, Any] | None:
    """Run a work on a unit, commit, and return its LEDGER row; None when another run had committed it before.

    Who loses the race to commit tells what the work cost all the same. A probe (``watch.only``) writes and commits nothing.
    """
    started_at_s, wall, cpu = time.time(), time.perf_counter(), cpu_s()
    if store.exists(commit_path(work.output, work.fingerprint, unit.unit_id)):
        return None
    attempt = Attempt(store, work.output, work.fingerprint, unit.unit_id, dict(work.reads))
    try:
        work.run(store, unit, attempt, watch)
    except BaseException:
        attempt.discard()
        raise
    if watch.only is not None:
        attempt.discard()
        return None
    num_bytes = sum(fact.num_bytes for fact in attempt.objects.values())
    attempt.commit()
    for path in watch.checkpoints:
        store.remove(path)
    return {
        "part": work.output,
        "unit": unit.unit_id,
        "audio_s": watch.audio_s,
        "gated_audio_s": watch.gated_audio_s,
        "carried_audio_s": watch.carried_audio_s,
        "started_at_s": started_at_s,
        "wall_s": (wall_s := time.perf_counter() - wall),
        "cpu_s": cpu_s() - cpu,
        "gpu_s": wall_s * work.resources.num_gpus,
        "setup_s": watch.setup_s,
        "model_cpu_s": watch.model_cpu_s,
        "num_rows": watch.num_rows,
        "num_errors": watch.num_errors,
        "first_error": watch.first_error,
        "num_bytes": num_bytes,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
    }


class UnitFacts:
    """What earlier works committed of one unit."""

    def __init__(self, store: Store, unit: Unit, reads: Mapping[str, str]) -> None:
        self._tables, self._unit, self._reads = UnitTables(store), unit.unit_id, reads

    def table(self, output: str, role: str) -> pa.Table:
        return self._tables.read(output, self._reads[output], self._unit, role)

    def audio(self) -> AudioReader:
        """Reader of the unit's stored audio."""
        objects = self._tables.commit(INGEST, self._reads[INGEST], self._unit).objects
        return AudioReader(self._tables.store, [objects["audio"].path] if "audio" in objects else [])


def one_line(error: BaseException) -> str:
    """An exception as a message for a row."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
