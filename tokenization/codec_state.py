"""The state of a codec's training that was cut off, in the folder that it is to fill."""

from __future__ import annotations

import json
from collections.abc import Mapping

from manifests.errors import RequestError
from manifests.ids import digest_json
from manifests.store import Store

STATE = "codec_training.pt"  # a line of JSON that says of what, and the state as torch writes it


class KeptState:
    """Kept for one lineage: corpus, words and recipe that decide every step."""

    def __init__(self, store: Store, lineage: Mapping[str, str | None]) -> None:
        self._store, self._digest = store, digest_json(dict(lineage))

    def read(self) -> tuple[int, bytes | None]:
        """(steps that are done, the state); (0, None) where nothing was begun. Raises RequestError for another's state."""
        try:
            line, _, state = self._store.read(STATE).partition(b"\n")
        except FileNotFoundError:
            return 0, None
        head = json.loads(line)
        if head["lineage"] != self._digest:
            raise RequestError(
                f"output {self._store.uri!r} holds a codec at step {head['step']} of another corpus, snapshot or recipe; "
                f"finish it with those, remove {STATE}, or choose another --out"
            )
        return int(head["step"]), state

    def write(self, step: int, state: bytes) -> None:
        """Keep the state after that many steps, in place of the one before."""
        line = json.dumps({"step": step, "lineage": self._digest}).encode()
        self._store.replace(STATE, line + b"\n" + state)

    def remove(self) -> None:
        """The training is done."""
        self._store.remove(STATE)
