"""``runs/<run_id>/heartbeat.json``: how far a run is, what it cost so far, and when it last gave a sign of life.

The run itself overwrites it while it works; nobody else writes it. It only informs: no promise rests on it or on a clock.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from manifests.errors import MismatchError
from manifests.store import Store, json_bytes
from pipeline.works import one_line

FRESH_S = 60.0
SUMMED = (
    *("audio_s", "gated_audio_s", "carried_audio_s", "wall_s", "cpu_s", "gpu_s", "setup_s", "model_cpu_s"),
    *("num_rows", "num_errors", "num_bytes"),
)


@dataclass
class PartProgress:
    """One part of a run: units done of those to do, and the sums of its LEDGER rows so far."""

    part: str
    num_units: int  # to do in this run
    num_input_bytes: int = 0  # of the inputs of those units; 0 where nobody told
    pool: str = ""
    reads: list[str] = field(default_factory=list)  # parts
    num_cpus: float = 1.0  # that one of its tasks holds
    num_gpus: float = 0.0  # that one of its workers holds
    num_done: int = 0
    num_input_bytes_done: int = 0
    num_found: int = 0  # of those done: committed by another run meanwhile
    num_input_bytes_found: int = 0
    audio_s: float = 0.0
    gated_audio_s: float = 0.0
    carried_audio_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    setup_s: float = 0.0
    model_cpu_s: float = 0.0
    num_rows: int = 0
    num_errors: int = 0
    num_bytes: int = 0
    peak_rss_bytes: int = 0  # of the worker that needed most

    def add(self, row: dict[str, Any], num_input_bytes: int) -> None:
        """Count a LEDGER row of this part, of a unit with inputs of that size."""
        self.num_done += 1
        self.num_input_bytes_done += num_input_bytes
        for name in SUMMED:
            setattr(self, name, getattr(self, name) + row[name])
        self.peak_rss_bytes = max(self.peak_rss_bytes, row["peak_rss_bytes"])

    def found(self, num_input_bytes: int) -> None:
        """Count a unit that another run committed as done."""
        self.num_done += 1
        self.num_input_bytes_done += num_input_bytes
        self.num_found += 1
        self.num_input_bytes_found += num_input_bytes

    @property
    def done_share(self) -> float:
        """0 to 1, by bytes of the inputs where they are known, else by units."""
        return self._share(self.num_done, self.num_input_bytes_done)

    @property
    def worked_share(self) -> float:
        """What of ``done_share`` this run did itself."""
        return self._share(self.num_done - self.num_found, self.num_input_bytes_done - self.num_input_bytes_found)

    def _share(self, num_units: int, num_input_bytes: int) -> float:
        if self.num_input_bytes:
            return min(1.0, num_input_bytes / self.num_input_bytes)
        return num_units / max(1, self.num_units)


@dataclass
class Heartbeat:
    """One run. Times are seconds since 1970 by the clock of the host that it runs on."""

    run_id: str
    parts: list[PartProgress]
    state: str = "running"  # running | done | failed | interrupted
    reason: str = ""  # why it failed, one line
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    started_at_s: float = field(default_factory=time.time)
    updated_at_s: float = field(default_factory=time.time)
    num_cpus: float | None = None  # that the engine may use; None where nobody told
    num_gpus: float | None = None
    num_in_flight: int | None = None  # tasks
    workers: dict[str, int] = field(default_factory=dict)  # pool -> worker processes
    processes: dict[str, tuple[str, int]] = field(default_factory=dict)  # host:pid -> what it is, peak resident bytes

    @property
    def wall_s(self) -> float:
        """From the start to the last sign of life."""
        return self.updated_at_s - self.started_at_s

    @property
    def eta_s(self) -> float | None:
        """Seconds left: the worker time that the parts' bytes (or units) still need, at the parallelism so far.

        None while this run has finished no unit of a part that has work left. Loading of models is counted once, not again.
        """
        left_s = spent_s = 0.0
        for part in self.parts:
            if not part.num_units:
                continue
            if part.num_done < part.num_units:
                if part.num_done == part.num_found:
                    return None
                left_share = (1.0 - part.done_share) / max(part.worked_share, 1e-9)
                left_s += (part.wall_s - part.setup_s) * left_share
            spent_s += part.wall_s
        return left_s * self.wall_s / spent_s if spent_s > 0 else None

    def is_alive(self, now_s: float) -> bool:
        """Whether the run says that it works and said so within FRESH_S. Clocks of two hosts may differ either way."""
        return self.state == "running" and abs(now_s - self.updated_at_s) < FRESH_S

    def to_bytes(self) -> bytes:
        return json_bytes(asdict(self))


def heartbeat_path(run_id: str) -> str:
    return f"runs/{run_id}/heartbeat.json"


def read_heartbeat(store: Store, run_id: str) -> Heartbeat:
    """Raises FileNotFoundError where the run never got to work, MismatchError where the file is damaged."""
    path = heartbeat_path(run_id)
    try:
        row = json.loads(store.read(path))
        row["parts"] = [PartProgress(**part) for part in row["parts"]]
        row["processes"] = {process: (what, peak) for process, (what, peak) in row["processes"].items()}
        return Heartbeat(**row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MismatchError(f"{path} is damaged ({one_line(error)}); nothing rests on it, remove it") from error


def read_heartbeats(store: Store) -> list[Heartbeat]:
    """Every run that got to work, the earliest first."""
    paths = [path for path in store.objects("runs") if path.endswith("/heartbeat.json")]
    return sorted((read_heartbeat(store, path.split("/")[1]) for path in paths), key=lambda beat: beat.started_at_s)


def others(store: Store, now_s: float | None = None) -> list[Heartbeat]:
    """Runs of other processes that are at work in this corpus now."""
    now_s = time.time() if now_s is None else now_s
    ours = (socket.gethostname(), os.getpid())
    return [beat for beat in read_heartbeats(store) if beat.is_alive(now_s) and (beat.host, beat.pid) != ours]


def notice(other: Heartbeat) -> str:
    """What a build says when it finds another one at work."""
    started = time.strftime("%H:%M", time.localtime(other.started_at_s))
    return (
        f"another build (run {other.run_id} on {other.host} pid {other.pid}, started {started}) is working in this corpus: "
        "both are safe, units are committed once"
    )
