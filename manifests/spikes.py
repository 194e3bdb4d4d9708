"""``<run>/spikes.jsonl``: a row for every step that training's watch rang at, with the documents to blame, down to clips and recordings.

Training writes it; ``corpus pack --leave-out`` reads it, so that the next pack does without them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from manifests.errors import RequestError
from manifests.remote import open_filesystem, os_errors, refusal

SPIKES = "spikes.jsonl"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class BlamedDocument:
    """A document without which the step would not have rung. Ids are hex; a document of plain text has none."""

    key: str
    shard: str
    loss: float | None  # mean over its targets, nats; None where it is not finite
    usual: float | None  # what that was in the steps before, for targets of the same kinds; None before anything was usual
    grad_norm: float | None  # of its part of the step's gradient; None where it is not finite, or was not looked at
    clip_ids: list[str]
    recording_ids: list[str]


@dataclass(frozen=True)
class Spike:
    """A step that the watch rang at. Numbers that are not finite are None, as are z-scores that were not known."""

    stage: str
    step: int  # of the stage, from 1
    global_step: int
    cause: str  # loss_not_finite | gradient_not_finite | loss | gradient
    action: str  # skip | roll_back | stop
    loss: float | None
    loss_z: float | None
    grad_norm: float | None
    grad_z: float | None
    num_documents: int  # of the step
    documents: list[BlamedDocument]  # empty where none stands out
    pack_id: str
    corpus_id: str | None  # None of a pack of plain text
    clips_fingerprint: str | None  # of the clip set that the clip ids are of
    format_version: int = FORMAT_VERSION

    @staticmethod
    def of(row: dict[str, Any]) -> Spike:
        """Raises TypeError or KeyError for a row that is none."""
        return Spike(**{**row, "documents": [BlamedDocument(**document) for document in row["documents"]]})


def append_spike(run_path: str, spike: Spike) -> None:
    """One more row, on local disk."""
    with open(os.path.join(run_path, SPIKES), "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(spike), allow_nan=False) + "\n")


def keep_spikes(run_path: str, num_spikes: int) -> None:
    """Leave the first rows alone: those behind them are of a part of the run that was lost, and come again."""
    path = os.path.join(run_path, SPIKES)
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as file:
        kept = [line for line, _ in zip(file, range(num_spikes), strict=False)]
    with open(f"{path}.draft", "w", encoding="utf-8") as file:
        file.writelines(kept)
    os.replace(f"{path}.draft", path)


def read_spikes(uri: str) -> Iterator[Spike]:
    """The rows of a file, on disk or in a store, in order.

    Raises RequestError where it cannot be read, or holds something else.
    """
    fs, path = open_filesystem(uri)
    try:
        with os_errors(), fs.open(path, "rb") as file:
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise refusal(f"file {uri!r}", error) from error
    for number, line in enumerate(lines, 1):
        try:
            spike = Spike.of(json.loads(line))
        except (ValueError, TypeError, KeyError) as error:
            raise RequestError(
                f"file {uri!r}: line {number} is no row of a run's {SPIKES} ({type(error).__name__}: {error}); "
                f"give the {SPIKES} of a run"
            ) from error
        if spike.format_version != FORMAT_VERSION:
            raise RequestError(f"file {uri!r} has format {spike.format_version!r}; this version reads {FORMAT_VERSION}")
        yield spike
