"""Running works in a child process, and finding the input that takes it down.

The child announces which items it is about to work on. When it dies, hangs past its time or is ended by its memory
limit, the keeper runs those items again alone: if they pass, the fault was elsewhere and the task is run again; if not,
halves of them run, down to the one item that kills by itself. That item is *poison*: the task runs once more without
it, and it is written down with the reason. What was found on the way is thrown away, so the bytes do not depend on it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from manifests.errors import StepwellError, WorkError
from manifests.store import Store
from pipeline.limits import LIMITED_ENV, LimitsConfig
from pipeline.units import Unit
from pipeline.watch import Watch
from pipeline.works import Work, do, load, one_line

MAX_DEATHS = 3  # of a task through no item of its own, before the job stops
TICK_S = 1.0
GRACE_S = 5.0  # beyond its own time limit, before a child that does not end itself is killed


@dataclass(frozen=True)
class _Death:
    """How a child ended in the middle of a task."""

    reason: str  # crashed | timed_out
    how: str
    items: tuple[int, int] | None  # in flight


class Keeper:
    """Keeps one child process that does works; a context manager. ``tick`` is called about once a second."""

    def __init__(self, store: Store, works: Mapping[int, Work], limits: LimitsConfig) -> None:
        self.tick: Callable[[], None] = lambda: None
        self._store, self._works, self._limits = store, works, limits
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._end()

    def run(self, work: int, unit: Unit) -> dict[str, Any] | None:
        """What ``works.do`` returns, with the items that take the child down written as failures.

        Raises what the work raises, and WorkError when the child keeps dying while no single item is to blame, or when
        too many are.
        """
        poison: dict[int, str] = {}
        deaths = 0
        while True:
            ended = self._request(work, unit, poison, None)
            if not isinstance(ended, _Death):
                return ended
            item = self._culprit(work, unit, poison, ended)
            if item is not None:
                poison[item] = ended.reason
                self._check_poison(work, unit, poison)
                continue
            deaths += 1
            if deaths >= MAX_DEATHS:
                where = f"items {ended.items[0]} to {ended.items[1] - 1}" if ended.items else "no item in work"
                raise WorkError(
                    f"{self._works[work].output} on unit {unit.unit_id}: its process was lost {deaths} times ({ended.how}; {where}) "
                    "and no single input is to blame; give it more memory, a smaller batch_audio_s or other limits"
                )

    def load(self, work: int) -> None:
        """Set the work's part up. Raises what that raises, and WorkError when the child does not outlive it."""
        ended = self._request(work, None, {}, None)
        if isinstance(ended, _Death):
            raise died_loading(self._works[work].output, ended.how)

    def _check_poison(self, work: int, unit: Unit, poison: Mapping[int, str]) -> None:
        """Raises WorkError once a unit holds more poison than the limits bear: each costs a search of many processes."""
        if len(poison) > self._limits.max_poison:
            item, reason = list(poison.items())[-1]
            raise WorkError(
                f"{self._works[work].output} on unit {unit.unit_id}: {len(poison)} of its inputs took the process down, the last "
                f"(item {item}) {reason}; a unit may hold {self._limits.max_poison}. Mend the part, or raise limits.max_poison; "
                "what is committed stays"
            )

    def _culprit(self, work: int, unit: Unit, poison: Mapping[int, str], death: _Death) -> int | None:
        """The item that takes the child down by itself; None when those that were in flight pass this time."""
        if death.items is None or not self._kills(work, unit, poison, range(*death.items)):
            return None
        suspects = range(*death.items)
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
            guilty = next((part for part in half if self._kills(work, unit, poison, part)), None)
            if guilty is None:
                return None
            suspects = guilty
        return suspects[0]

    def _kills(self, work: int, unit: Unit, poison: Mapping[int, str], items: range) -> bool:
        return isinstance(self._request(work, unit, poison, items), _Death)

    def _request(
        self, work: int, unit: Unit | None, poison: Mapping[int, str], only: range | None
    ) -> dict[str, Any] | _Death | None:
        """What the child answers on a unit; without one it only loads the model."""
        pipe = self._started()
        items: tuple[int, int] | None = None
        since, timeout_s = time.monotonic(), None
        try:
            pipe.send((work, unit, dict(poison), only))
            while True:
                if not pipe.poll(TICK_S):
                    self.tick()
                    if timeout_s is not None and time.monotonic() - since > timeout_s + GRACE_S:
                        self._end()
                        return _Death("timed_out", f"no answer for {timeout_s:.0f} s", items)
                    continue
                kind, value = pipe.recv()
                if kind != "items":
                    break
                since, start, stop, timeout_s = value
                items = (start, stop) if stop > start else None
        except (EOFError, BrokenPipeError, ConnectionResetError):
            how = self._end()
            if timeout_s is not None and time.monotonic() - since >= timeout_s:
                return _Death("timed_out", f"no answer for {timeout_s:.0f} s", items)
            return _Death("crashed", how, items)
        except BaseException:
            self._end()
            raise
        # Outside: a connection that the store reset is the work's error, not the end of the child.
        if kind == "error":
            raise value
        row: dict[str, Any] | None = value
        return row

    def _started(self) -> Connection:
        if self._child is not None and self._pipe is not None and self._child.poll() is None:
            return self._pipe
        self._end()
        ours, theirs = Pipe()
        command = [sys.executable, "-c", "from pipeline.keeper import serve; serve()", str(theirs.fileno())]
        # The same modules as here, wherever they were found.
        environment = {**os.environ, **LIMITED_ENV, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._child = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)
        theirs.close()
        self._pipe = ours
        ours.send_bytes(pickle.dumps((os.getpid(), self._store, dict(self._works), self._limits)))
        return ours

    def _end(self) -> str:
        """Kill the child and say how it had ended."""
        if self._pipe is not None:
            self._pipe.close()
        child, self._child, self._pipe = self._child, None, None
        if child is None:
            return "not started"
        try:
            code = child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve() -> None:
    """The child: does one request after the other until the keeper is gone."""
    # Ctrl-C reaches the whole group of the terminal; the keeper decides what becomes of this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe: Connection = Connection(int(sys.argv[1]))
    parent, store, works, limits = pickle.loads(pipe.recv_bytes())
    _die_with(parent)

    def announce(start: int, stop: int, timeout_s: float | None) -> None:
        # With the moment (one clock for the machine): a keeper that was busy with a slow store hears of it late.
        pipe.send(("items", (time.monotonic(), start, stop, timeout_s)))

    while True:
        try:
            work, unit, poison, only = pipe.recv()
        except EOFError:
            return
        watch = Watch(poison=poison, only=only, announce=announce, limits=limits.of(works[work].resources))
        try:
            answer: tuple[str, Any] = ("done", None)
            if unit is None:
                load(works[work])
            else:
                answer = ("done", do(works[work], store, unit, watch))
        except Exception as error:
            where = f" on unit {unit.unit_id}" if unit else ""
            answer = ("error", portable(error, f"{works[work].output}{where}"))
        pipe.send(answer)


def died_loading(output: str, how: str) -> WorkError:
    """The error where a process does not outlive the loading of a model."""
    return WorkError(
        f"{output}: the process that loaded its model was lost ({how}); give it more memory, or fetch the model again"
    )


def portable(error: Exception, what: str) -> Exception:
    """What crosses to another process: our own errors and the store's as they are, others in words."""
    if not isinstance(error, StepwellError | OSError):
        return WorkError(f"{what}: {one_line(error)}; what is committed stays")
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # exceptions of libraries pickle in their own ways, or not at all
        return OSError(one_line(error)) if isinstance(error, OSError) else WorkError(one_line(error))


def _die_with(parent: int) -> None:
    """End with the keeper even when that is killed: Linux's parent-death signal."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
