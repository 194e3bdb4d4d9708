"""Peak memory of this process and of those below it, from Linux's ``/proc``; on other systems, of this process alone."""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path

PROC = Path("/proc")


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def process_name(pid: int) -> str:
    """``host:pid``, as the ledger names workers."""
    return f"{socket.gethostname()}:{pid}"


def peaks_below() -> dict[str, tuple[str, int]]:
    """``host:pid`` -> (command, largest resident memory in bytes) of every living process below this one."""
    found: dict[int, tuple[int, str, int]] = {}  # pid -> parent, command, peak
    for folder in PROC.glob("[0-9]*"):
        try:
            facts = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        except (OSError, UnicodeDecodeError):  # it has ended, or is not ours to look at
            continue
        if "VmHWM" in facts:  # threads of the kernel have no memory of their own
            found[int(folder.name)] = (int(facts["PPid"]), facts["Name"].strip(), int(facts["VmHWM"].split()[0]) * 1024)
    below = {os.getpid()}
    while more := {pid for pid, (parent, _, _) in found.items() if parent in below} - below:
        below |= more
    return {process_name(pid): found[pid][1:] for pid in sorted(below - {os.getpid()})}
