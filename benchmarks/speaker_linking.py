"""Time, peak memory and correctness of ``corpus link-speakers`` on synthetic voices, and of bringing the table up to date.

    .venv/bin/python -m benchmarks.speaker_linking --voices 10000 100000
    .venv/bin/python -m benchmarks.speaker_linking --voices 1000000 --num-threads 2

The verb itself runs, in a process of its own, over a corpus of clips and embeddings without audio: every clip is a recording,
which is the worst case, since nothing is linked beforehand. Speakers are as frequent as Zipf's law has it, ten voices each
on average. Vectors are drawn as those of ``../shared/speech/read`` lie: speakers by the covariance of its 125 people, clips around
them by that of its clips, each person and each clip as far out as one of the set (so that some people vary twice as much as
others). One in a hundred voices comes later and is linked by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.linking_scores import by_speaker, item_scores, pair_scores
from benchmarks.quality.material import Material
from benchmarks.quality.speakers import Voices, part_voices
from manifests.clip_rows import SPEAKERS_TABLE
from manifests.commits import Attempt
from manifests.corpus import Corpus
from manifests.ids import digest_bytes
from manifests.schema import CLIPS, layer_schema
from manifests.snapshots import FORMAT_VERSION, Snapshot, clips_output, layer_output, publish_snapshot
from manifests.store import Store, json_bytes
from pipeline.speaker_ids import clip_speakers
from pipeline.voices import EMBEDDING

ROOT = Path(__file__).parents[1]
UNIT_CLIPS = 1000
VOICES_A_SPEAKER = 10
LATER = 100  # one in so many voices comes after the first linking
SECONDS, RATE_HZ = 4, 16_000
ADDS = pa.schema([pa.field(EMBEDDING[0], pa.list_(pa.float32())), pa.field(EMBEDDING[1], pa.float32())])


@dataclass(frozen=True)
class Population:
    """How speakers and their voices lie. Shape legend: D width, S speakers of the set, V voices of the set."""

    mean: np.ndarray  # [D]
    between: np.ndarray  # [D, D], a square root of the speakers' covariance
    within: np.ndarray  # [D, D], of the voices' around their speaker
    of_speakers: np.ndarray  # [S] how far a speaker's voices lie out, 1 on average
    of_voices: np.ndarray  # [V] likewise, a voice among its speaker's

    @staticmethod
    def of(voices: Voices) -> Population:
        """Moments of a set with several voices a speaker."""
        centres, num = np.zeros((voices.speakers.max() + 1, voices.sounds.means.shape[1])), np.bincount(voices.speakers)
        np.add.at(centres, voices.speakers, voices.sounds.means)
        centres /= np.maximum(1, num)[:, None]
        centres, is_heard = centres[num > 1], (num > 1)[voices.speakers]
        speakers = np.unique(voices.speakers[is_heard], return_inverse=True)[1]
        apart = voices.sounds.means[is_heard] - centres[speakers]
        within = apart.T @ apart / (len(apart) - len(centres))
        between = np.cov(centres.T) - within * np.mean(1 / num[num > 1])  # a mean of few voices varies by itself
        far = np.linalg.norm(apart, axis=1)
        of_speakers = np.sqrt(np.bincount(speakers, far**2) / np.bincount(speakers))
        return Population(
            centres.mean(axis=0), _root(between), _root(within), of_speakers / of_speakers.mean(), far / of_speakers[speakers]
        )

    def draw(self, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(unit vectors float32 ``[num, D]``, whose they are)."""
        random, width = np.random.default_rng(seed), len(self.mean)
        num_speakers = max(1, num // VOICES_A_SPEAKER)
        share = 1 / np.arange(1, num_speakers + 1)
        of = random.choice(num_speakers, num, p=share / share.sum())
        between, within = self.between.astype(np.float32), self.within.astype(np.float32)
        centres = self.mean.astype(np.float32) + random.standard_normal((num_speakers, width), np.float32) @ between
        spread = random.choice(self.of_speakers, num_speakers)[of] * random.choice(self.of_voices, num)
        vectors = np.empty((num, width), np.float32)
        for first in range(0, num, 1 << 16):
            some = slice(first, first + (1 << 16))
            noise = random.standard_normal((len(of[some]), width), np.float32) @ within
            vectors[some] = centres[of[some]] + spread[some, None].astype(np.float32) * noise
            vectors[some] /= np.linalg.norm(vectors[some], axis=1, keepdims=True)
        return vectors, of


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix by which white noise gets this covariance; what sampling made negative counts as nothing."""
    values, axes = np.linalg.eigh(covariance)
    return (axes * np.sqrt(np.maximum(values, 0))).T


def spread(vectors: np.ndarray, of: np.ndarray) -> str:
    """Cosines of same and of different speakers' voices, over random pairs."""
    random, order = np.random.default_rng(1), np.argsort(of, kind="stable")
    one, two = random.integers(0, len(of), (2, 200_000))
    is_other = of[one] != of[two]
    pairs = {
        "same": (order[:-1][np.diff(of[order]) == 0], order[1:][np.diff(of[order]) == 0]),
        "different": (one[is_other], two[is_other]),
    }
    parts = []
    for name, (left, right) in pairs.items():
        cosines = np.einsum("nd,nd->n", vectors[left[:200_000]], vectors[right[:200_000]])
        low, high = np.percentile(cosines, [5, 95])
        parts.append(f"{name} {low:.3f} to {high:.3f}, mean {cosines.mean():.3f}")
    return "; ".join(parts)


class SyntheticCorpus:
    """Clips of one recording each with their embeddings, in units of UNIT_CLIPS."""

    def __init__(self, uri: str, vectors: np.ndarray) -> None:
        self.uri, self._store, self._vectors = uri, Store(uri), vectors
        self.unit_names = [f"{number:06d}-00000000" for number in range(-(-len(vectors) // UNIT_CLIPS))]
        self._outputs = {clips_output("made"): "c" * 16, layer_output("made", "speaker_embedding"): "e" * 16}
        head = {"format_version": FORMAT_VERSION, "corpus_id": "made", "sample_rate": "native"}
        self._store.create("corpus.json", json_bytes(head))
        for number, unit in enumerate(self.unit_names):
            self._commit(unit, range(number * UNIT_CLIPS, min(len(vectors), (number + 1) * UNIT_CLIPS)))

    def publish(self, number: int, num_units: int, tables: dict[str, str]) -> None:
        """A snapshot of the first units."""
        units = self.unit_names[:num_units]
        outputs = {output: {mark: units} for output, mark in self._outputs.items()}
        assert publish_snapshot(self._store, Snapshot(number, units, outputs, dict(self._outputs), "made", tables=tables))

    def _commit(self, unit: str, rows: range) -> None:
        ids = [digest_bytes(row.to_bytes(8, "big")) for row in rows]
        place = {"channel": 0, "sample_rate_hz": RATE_HZ, "start_sample": 0, "end_sample": SECONDS * RATE_HZ}
        heard = {"speech_samples": SECONDS * RATE_HZ, "overlap_samples": 0, "speech_spans": [], "overlap_spans": []}
        clips = [{"clip_id": clip, "recording_id": clip, **place, **heard} for clip in ids]
        vectors = self._vectors[rows.start : rows.stop]
        edges = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
        columns = [
            ids,
            ["ok"] * len(ids),
            pa.nulls(len(ids), pa.string()),
            pa.ListArray.from_arrays(edges, vectors.reshape(-1)),
            pa.array([float(SECONDS)] * len(ids), pa.float32()),
        ]
        layer = pa.table(columns, schema=layer_schema(ADDS))
        tables = {"clips": pa.Table.from_pylist(clips, schema=CLIPS), "layer": layer}
        for (output, mark), (role, table) in zip(self._outputs.items(), tables.items(), strict=True):
            attempt = Attempt(self._store, output, mark, unit)
            attempt.put_table(role, f"{output}/{mark}", table)
            assert attempt.commit()


def run_verb(uri: str, num_threads: int) -> dict[str, Any]:
    """The verb's answer, with the seconds and the largest memory of its process."""
    command = [sys.executable, "-m", "stepwell", "corpus", "link-speakers", uri, "--json", "--num-threads", str(num_threads)]
    threads = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    began = time.monotonic()
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(command, stdout=file, cwd=ROOT, env={**os.environ, **threads})
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        if status:
            raise SystemExit(f"link-speakers ended with status {status}")
        file.seek(0)
        return {**json.load(file), "wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_gb": usage.ru_maxrss / 2**20}


def scores(uri: str, of: np.ndarray) -> dict[str, float]:
    """Of all clips that the table knows."""
    ids = [speaker or b"" for view in Corpus.open(uri).views() for speaker in clip_speakers(view)]
    rows = by_speaker(of[: len(ids)], np.unique(np.array(ids, "S16"), return_inverse=True)[1])
    names = ("pair_precision", "pair_recall", "pair_f1", "b3_precision", "b3_recall", "b3_f1")
    return dict(zip(names, (*pair_scores(rows), *item_scores(rows)), strict=True))


def measure(population: Population, num: int, num_threads: int) -> None:
    """Print a row for the first linking and one for the units that come later."""
    vectors, of = population.draw(num)
    print(f"{num} voices of {len(np.unique(of))} speakers: {spread(vectors, of)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{folder}/corpus"
        corpus = SyntheticCorpus(uri, vectors)
        del vectors
        num_units = len(corpus.unit_names)
        corpus.publish(0, num_units - max(1, num_units // LATER), {})
        for when in ("first", "later"):
            found = run_verb(uri, num_threads)
            figures = ("num_voices", "num_speakers", "num_merged", "wall_s", "cpu_s", "peak_gb")
            row = {"when": when, **{name: found[name] for name in figures}, **scores(uri, of)}
            print(
                json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}),
                flush=True,
            )
            if when == "first":
                snapshot = Corpus.open(uri).snapshot
                corpus.publish(snapshot.number + 1, num_units, {SPEAKERS_TABLE: snapshot.tables[SPEAKERS_TABLE]})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voices", type=int, nargs="+", default=[10_000, 100_000], help="how many, one measurement each")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"), help="folder that holds speech")
    options = parser.parse_args(arguments)
    voices = part_voices(Material(options.shared), "read")
    print(
        f"speech/read, {len(voices.sounds.means)} voices of 125 speakers: {spread(voices.sounds.means, voices.speakers)}",
        flush=True,
    )
    for num in options.voices:
        measure(Population.of(voices), num, options.num_threads)


if __name__ == "__main__":
    main()
