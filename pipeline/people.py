"""Persons as a run of ``link-speakers`` holds them: ids, centroids, what they have in clips; and as SPEAKERS rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import ID, SPEAKERS
from manifests.store import Store
from manifests.tables import open_part
from pipeline.speaker_linking import VoiceMeans

SPEAKERS_AT_ONCE = 65_536
LENGTHS = ["recording_id", "sample_rate_hz", "start_sample", "end_sample", "speech_samples"]  # of CLIPS


@dataclass(frozen=True)
class People:
    """Persons; one that was merged into another keeps its place. Shape legend: P persons, D width."""

    ids: list[bytes]  # [P], the oldest first
    since: list[int]  # [P] snapshots
    sounds: VoiceMeans  # [P]
    now: np.ndarray  # int64 [P], who the person is now: itself, or an older one

    @property
    def living(self) -> np.ndarray:
        return np.flatnonzero(self.now == np.arange(len(self.ids)))

    @staticmethod
    def read(store: Store, path: str | None) -> People:
        """Those of a stored SPEAKERS table; nobody without one."""
        ids, since, sounds = list[bytes](), list[int](), list[VoiceMeans]()
        if path is not None:
            with open_part(store, path) as file:
                for number in range(file.num_row_groups):
                    rows = file.read_row_group(number, use_threads=False)
                    ids += rows["speaker_id"].to_pylist()
                    since += rows["since_snapshot"].to_pylist()
                    means_PD = np.asarray(pc.list_flatten(rows["centroid"]), np.float32).reshape(rows.num_rows, -1)
                    sounds.append(VoiceMeans(means_PD, np.asarray(rows["weight"]), np.asarray(rows["self_share"])))
        return People(ids, since, VoiceMeans.concatenated(sounds), np.arange(len(ids)))

    def rows(self, tally: Tally) -> Iterator[pa.Table]:
        """SPEAKERS, the oldest first."""
        living, width = self.living, self.sounds.means.shape[1]
        for first in range(0, len(living), SPEAKERS_AT_ONCE):
            some = living[first : first + SPEAKERS_AT_ONCE]
            edges = np.arange(0, (len(some) + 1) * width, width, dtype=np.int32)
            columns = [
                pa.array([self.ids[person] for person in some], ID),
                *(pa.array(counted[some]) for counted in tally.columns),
                pa.array([self.since[person] for person in some], pa.int64()),
                pa.array(self.sounds.weights[some]),
                pa.array(self.sounds.selves[some]),
                pa.ListArray.from_arrays(edges, self.sounds.means[some].reshape(-1)),
            ]
            yield pa.table(columns, names=SPEAKERS.names)


class Tally:
    """What persons have in clips. Shape legend: P persons, C clips of a unit."""

    def __init__(self, num_people: int) -> None:
        self.num_unknown = 0
        self.num_clips, self.num_recordings = (np.zeros(num_people, np.int64) for _ in range(2))
        self.clip_s, self.speech_s = (np.zeros(num_people) for _ in range(2))

    def add(self, clips: pa.Table, person_C: np.ndarray) -> None:
        """The clips of a unit (LENGTHS) and whose they are, -1 where nobody knows."""
        is_known = person_C >= 0
        self.num_unknown += int((~is_known).sum())
        persons, clips = person_C[is_known], clips.filter(pa.array(is_known))
        rates = np.asarray(clips["sample_rate_hz"])
        recordings = np.asarray(clips["recording_id"].combine_chunks().dictionary_encode().indices)
        np.add.at(self.num_clips, persons, 1)
        np.add.at(self.clip_s, persons, (np.asarray(clips["end_sample"]) - np.asarray(clips["start_sample"])) / rates)
        np.add.at(self.speech_s, persons, np.asarray(clips["speech_samples"]) / rates)
        # A recording belongs to one unit, so that its persons are counted once.
        pairs = np.unique(np.stack([persons, recordings]), axis=1)
        np.add.at(self.num_recordings, pairs[0], 1)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """[P] each, in the order of SPEAKERS."""
        return self.num_clips, self.num_recordings, self.clip_s, self.speech_s
