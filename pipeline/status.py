"""Where a corpus stands: units done of each output, runs at work and runs that ended. From any terminal, at any time.

Reads the plans, the heartbeats of the runs and one listing of the commits; no table and no commit is opened.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from manifests.commits import list_commits
from manifests.console import aligned, bar, counted, duration, hours, number, volume
from manifests.errors import RequestError
from manifests.snapshots import read_head
from manifests.store import Store
from pipeline.costs import CostTable
from pipeline.costs import lines as cost_lines
from pipeline.heartbeat import Heartbeat, PartProgress, read_heartbeats
from pipeline.units import read_planned

PAST_RUNS_SHOWN = 5
REFRESH_S = 2.0


@dataclass(frozen=True)
class OutputStatus:
    """One output by one fingerprint."""

    output: str
    fingerprint: str
    num_units: int  # that committed it


@dataclass(frozen=True)
class CorpusStatus:
    """A corpus at ``at_s`` (seconds since 1970)."""

    uri: str
    at_s: float
    num_units: int  # planned
    outputs: list[OutputStatus]
    runs: list[Heartbeat]  # the earliest first

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what each run says of the time left and whether it is alive."""
        row = asdict(self)
        for run, beat in zip(row["runs"], self.runs, strict=True):
            run |= {"eta_s": beat.eta_s, "is_alive": beat.is_alive(self.at_s), "silent_s": self.at_s - beat.updated_at_s}
        return row


def read_status(uri: str) -> CorpusStatus:
    """Raises RequestError where there is no corpus."""
    store = Store(uri)
    if read_head(store) is None:
        raise RequestError(f"no corpus at {uri!r} (no corpus.json); build one with `stepwell corpus build SOURCE --out {uri}`")
    outputs = [OutputStatus(*key, len(units)) for key, units in sorted(list_commits(store).items())]
    return CorpusStatus(uri, time.time(), len(read_planned(store)), outputs, read_heartbeats(store))


def lines(status: CorpusStatus, costs: CostTable | None = None) -> list[str]:
    """The status for people; with the cost table where one is given."""
    said = [f"corpus {status.uri}: {counted(status.num_units, 'unit')} planned"]
    if status.outputs:
        said += _indented(
            [[row.output, row.fingerprint, *_units(row.num_units, status.num_units)] for row in status.outputs],
        )
    past = [run for run in status.runs if not run.is_alive(status.at_s)]
    shown = past[-PAST_RUNS_SHOWN:]
    if len(past) > len(shown):
        said.append(counted(len(past) - len(shown), "earlier run"))
    for run in shown:
        said.append(_headline(run, status.at_s))
    for run in status.runs:
        if run.is_alive(status.at_s):
            said += [_headline(run, status.at_s), *_indented(_progress(run))]
    return said if costs is None else [*said, "", *cost_lines(costs)]


def watch(read: Callable[[], CorpusStatus], say: Callable[[CorpusStatus], list[str]]) -> None:
    """Show the status every REFRESH_S until no run is at work: in place on a terminal, as blocks of lines elsewhere."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with ExitStack() as stack:
        live = stack.enter_context(Live(console=Console(file=sys.stdout), auto_refresh=False)) if sys.stdout.isatty() else None
        while True:
            status = read()
            block = "\n".join(say(status))
            if live is not None:
                live.update(Text(block), refresh=True)
            else:
                print(block, end="\n\n", flush=True)
            if not any(run.is_alive(status.at_s) for run in status.runs):
                return
            time.sleep(REFRESH_S)


def _headline(run: Heartbeat, now_s: float) -> str:
    tasks = counted(sum(part.num_done for part in run.parts), "task")
    name = f"run {run.run_id} on {run.host} pid {run.pid}"
    if run.is_alive(now_s):
        facts = [f"at work for {duration(now_s - run.started_at_s)}", f"{tasks} done"]
        facts += [f"{run.num_in_flight} in flight"] if run.num_in_flight is not None else []
        facts += [f"{number(run.num_cpus)} CPUs"] if run.num_cpus else []
        facts += [f"{number(run.num_gpus)} GPUs"] if run.num_gpus else []
        facts += ["workers " + ", ".join(f"{pool} {count}" for pool, count in sorted(run.workers.items()))] if run.workers else []
        eta_s = run.eta_s
        return f"{name}: {', '.join(facts)}; " + ("time left not known yet" if eta_s is None else f"about {duration(eta_s)} left")
    if run.state == "running":
        silent = duration(now_s - run.updated_at_s)
        return f"{name}: no sign of life for {silent}: dead or cut off; run the same command to go on ({tasks} done)"
    ended = f"{name}: {run.state} after {duration(run.wall_s)}, {tasks}"
    return f"{ended}: {run.reason}" if run.reason else ended


def _progress(run: Heartbeat) -> list[list[str]]:
    head = ["part", "", "units", "audio", "h an hour", "errors", "peak memory"]
    return [head, *(_progress_row(part, run.wall_s) for part in run.parts if part.num_units)]


def _progress_row(part: PartProgress, wall_s: float) -> list[str]:
    speed = number(part.audio_s / wall_s) if wall_s > 0 else "-"
    facts = [hours(part.audio_s / 3600), speed, number(part.num_errors), volume(part.peak_rss_bytes)]
    return [part.part, *_units(part.num_done, part.num_units), *facts]


def _units(done: int, total: int) -> list[str]:
    return [bar(done, total), f"{done}/{total}"]


def _indented(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in aligned(rows)]
