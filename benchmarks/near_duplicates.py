"""Time, memory, recall and precision of the join of fingerprints behind ``manifest dedup``, on synthetic ones.

    python -m benchmarks.near_duplicates --clips 100000 1000000
    python -m benchmarks.near_duplicates --clips 10000000 --folder /tmp/near_duplicates

Fingerprints of 10 s are put together from scraps of real ones (``../shared/speech/read``), 20 frames each, in which the same four bits
are flipped throughout: frames follow one another and values are as frequent as in speech, a scrap alone is too short to
match, and there are more of them than clips. One clip in a hundred is a copy of a part of another one, at least 3 s long: a real clip and a real transformed copy of it
(``benchmarks.quality.copies``), in both of which the same half of the bits are flipped, others in every scrap. So errors
are as many, and lie as they do, in real copies. ``likeness`` says how much the drawn fingerprints are like speech. The join runs in a process of its own; drawing the fingerprints is not part of its time, writing them is.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from annotators.acoustic_fingerprint import NUM_BITS, QUIET, acoustic_fingerprint, best_match, is_match
from benchmarks.quality.copies import COPIES
from benchmarks.quality.material import Material
from manifests.contracts import MODEL_RATE_HZ

ROOT = Path(__file__).parents[1]
CLIP_FRAMES = 420
LEAST_FRAMES = 125  # 3 s
LEAST_S = 4.0  # of a clip whose copies are planted
BATCH = 2048  # clips that are drawn at once
COPIES_A_BATCH = 20
NUM_SOURCES = 60  # of them
SCRAP_FRAMES = 20  # 0.48 s
FLIPS = 4  # bits of a scrap
INDEX_BYTES = 8_000_000_000


@dataclass(frozen=True)
class Speech:
    """What clips and copies are made of. Shape legend: F frames."""

    frames: np.ndarray  # uint32 [F] of real clips, one behind the other
    copies: list[tuple[np.ndarray, np.ndarray]]  # uint32 [F] each: what a clip and a copy of it share
    rates: np.ndarray  # bit error rates of those copies

    @staticmethod
    def of(material: Material) -> Speech:
        read = material.speech("read")
        copies, rates = list[tuple[np.ndarray, np.ndarray]](), list[float]()
        random = np.random.default_rng(0)
        chosen = [item for item in read if item.facts["num_samples"] / item.facts["sample_rate"] >= LEAST_S]
        for item in chosen[:: max(1, len(chosen) // NUM_SOURCES)]:
            audio_S = item.audio()
            original = acoustic_fingerprint(audio_S, MODEL_RATE_HZ)
            for copy in COPIES.values():
                values = acoustic_fingerprint(*copy(audio_S, random))
                match = best_match(original, values)
                if match and is_match(match.bit_error_rate, match.num_compared) and match.num_frames >= LEAST_FRAMES:
                    left = original[match.left_frame :][: min(match.num_frames, CLIP_FRAMES)]
                    copies.append((left, values[match.right_frame :][: len(left)]))
                    rates.append(match.bit_error_rate)
        clips = [acoustic_fingerprint(item.audio(), MODEL_RATE_HZ) for item in read]
        return Speech(np.concatenate(clips), copies, np.array(rates))

    def draw(self, num: int, random: np.random.Generator) -> np.ndarray:
        """Uint32 ``[num, CLIP_FRAMES]``."""
        scraps = (num, CLIP_FRAMES // SCRAP_FRAMES, 1)
        first = random.integers(0, len(self.frames) - SCRAP_FRAMES, scraps)
        frames = self.frames[first + np.arange(SCRAP_FRAMES)]
        is_quiet = frames == QUIET
        for _ in range(FLIPS):
            frames ^= np.uint32(1) << random.integers(0, NUM_BITS, scraps, np.uint32)
        frames = np.maximum(frames, 1)
        frames[is_quiet] = QUIET
        return frames.reshape(num, CLIP_FRAMES)

    def plant(self, clip: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A copy of a part of the clip, which is written into the clip."""
        left, right = self.copies[int(random.integers(len(self.copies)))]
        length = int(random.integers(LEAST_FRAMES, len(left) + 1))
        first, place = int(random.integers(len(left) - length + 1)), int(random.integers(len(clip) - length + 1))
        flipped = np.repeat(random.integers(0, 1 << NUM_BITS, length // SCRAP_FRAMES + 1, np.uint32), SCRAP_FRAMES)[:length]
        original, copy = (
            np.where(part == QUIET, QUIET, np.maximum(part ^ flipped, 1)).astype(np.uint32)
            for part in (left[first : first + length], right[first : first + length])
        )
        clip[place : place + length] = original
        return copy


def likeness(speech: Speech, material: Material) -> dict[str, Any]:
    """Figures of real fingerprints and of drawn ones."""
    real = [acoustic_fingerprint(item.audio(), MODEL_RATE_HZ) for item in material.speech("read")]
    drawn = list(speech.draw(len(real), np.random.default_rng(7)))
    return {"real": _figures(real), "drawn": _figures(drawn)}


def _figures(clips: Sequence[np.ndarray]) -> dict[str, float]:
    from pipeline.copies.landmarks import landmarks

    found: dict[str, float] = {}
    for gap in (1, 4, 8):
        pairs = [(clip[gap:], clip[:-gap]) for clip in clips if len(clip) > gap]
        both = [np.bitwise_count(a ^ b)[(a != QUIET) & (b != QUIET)] for a, b in pairs]
        found[f"bits_changed_after_{gap}"] = float(np.concatenate(both).mean() / NUM_BITS)
    keys, owners = list[np.ndarray](), list[np.ndarray]()
    for number, clip in enumerate(clips):
        keys.append(np.unique(landmarks(np.concatenate([np.zeros(8, np.uint32), clip, np.zeros(8, np.uint32)]))[1]))
        owners.append(np.full(len(keys[-1]), number))
    num = sum(map(len, keys))
    _, counts = np.unique(np.concatenate(keys), return_counts=True)
    found["landmarks_a_frame"] = num / sum(map(len, clips))
    found["collisions_of_keys"] = float((counts * (counts - 1.0)).sum() / num / (num - 1))
    return found


def batches(speech: Speech, num: int, seed: int = 0) -> Iterator[tuple[pa.ChunkedArray, list[tuple[int, int]]]]:
    """Clips, and the pairs of a clip and its copy that are among them, the earlier one first."""
    random = np.random.default_rng(seed)
    for first in range(0, num, BATCH):
        clips = speech.draw(min(BATCH, num - first), random)
        rows = list(clips)
        chosen = random.choice(len(clips), 2 * min(len(clips) // 2, COPIES_A_BATCH), replace=False).reshape(-1, 2).tolist()
        for source, place in chosen:
            rows[place] = speech.plant(clips[source], random)
        edges = np.cumsum([0, *map(len, rows)]).astype(np.int32)
        planted = [(first + min(pair), first + max(pair)) for pair in chosen]
        yield pa.chunked_array([pa.ListArray.from_arrays(edges, np.concatenate(rows))]), planted


def written(speech: Speech, num: int, folder: str) -> tuple[list[tuple[int, int]], float]:
    """Fill the folder with Frames; (planted pairs, seconds that writing them took)."""
    from pipeline.copies.frames import FramesWriter

    writer, pairs, wall_s = FramesWriter(folder), list[tuple[int, int]](), 0.0
    for fingerprints, planted in batches(speech, num):
        pairs += planted
        began = time.perf_counter()
        writer.append(fingerprints)
        wall_s += time.perf_counter() - began
    began = time.perf_counter()
    writer.close()
    return pairs, wall_s + time.perf_counter() - began


def join(folder: str, index_bytes: int) -> tuple[np.ndarray, dict[str, float]]:
    """Pairs int64 ``[n, 2]`` that the join finds, and what it cost this process."""
    from manifests.console import progress
    from pipeline.copies.frames import Frames
    from pipeline.copies.near import find_stretches

    began = time.perf_counter()
    with progress() as bars:
        found = find_stretches(Frames(folder), bars, index_bytes=index_bytes)
    wall_s = time.perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pairs = np.stack([found["left"].to_numpy(), found["right"].to_numpy()], axis=1)
    return np.unique(pairs, axis=0), {
        "wall_s": wall_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gb": usage.ru_maxrss * 1024 / 1e9,
    }


def measure(speech: Speech, num: int, folder: str, index_bytes: int) -> dict[str, Any]:
    planted, write_s = written(speech, num, folder)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pairs, cost = pool.submit(join, folder, index_bytes).result()
    truth, found = set(planted), set(map(tuple, pairs.tolist()))
    return {
        "clips": num,
        "write_s": write_s,
        **cost,
        "planted": len(truth),
        "recall": len(truth & found) / max(1, len(truth)),
        "pairs": len(found),
        "precision": len(truth & found) / max(1, len(found)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[100_000, 1_000_000], help="how many, one measurement each")
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"), help="folder that holds speech")
    parser.add_argument("--folder", help="where temporary files lie: 2.3 kB a clip, and the index")
    parser.add_argument("--index-bytes", type=int, default=INDEX_BYTES)
    options = parser.parse_args(arguments)
    material = Material(options.shared)
    speech = Speech.of(material)
    rates = dict(zip(("p5", "p50", "p95", "p99"), np.percentile(speech.rates, [5, 50, 95, 99]).round(4).tolist(), strict=True))
    print(json.dumps({"bit_error_rates": rates, "likeness": likeness(speech, material)}), flush=True)
    for num in options.clips:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(json.dumps(measure(speech, num, folder, options.index_bytes)), flush=True)


if __name__ == "__main__":
    main()
