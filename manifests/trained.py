"""What was trained on a pack: the checkpoints of runs, read from their JSON alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from manifests.errors import RequestError
from manifests.store import Store


@dataclass(frozen=True)
class TrainedCheckpoint:
    """One checkpoint of a run."""

    run_uri: str
    name: str
    stage: str
    step: int  # of the stage
    global_step: int  # of the run
    pack_id: str


def read_checkpoints(run_uri: str) -> Iterator[TrainedCheckpoint]:
    """The checkpoints of a run, by their names. Raises RequestError where there is no run, or one cannot be read."""
    store = Store(run_uri)
    paths = [path for path in store.objects("checkpoints") if path.count("/") == 2 and path.endswith("/state.json")]
    if not paths and not store.exists("recipe.json"):
        raise RequestError(f"no run at {run_uri!r} (no recipe.json, no checkpoints); give the folder of `train run --run`")
    for path in paths:
        name = path.split("/")[1]
        if name.startswith("."):  # a draft of a run that was killed
            continue
        try:
            state = json.loads(store.read(path))
            facts = (state["stage"], state["step"], state["global_step"], state["identity"]["pack_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise RequestError(
                f"checkpoint {path!r} of run {run_uri!r} cannot be read ({type(error).__name__}: {error})"
            ) from error
        yield TrainedCheckpoint(run_uri, name, *facts)
