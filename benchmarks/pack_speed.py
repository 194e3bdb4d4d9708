"""MB/s and peak memory of the pack's shuffle beside plain ``webdataset.ShardWriter`` writing the same documents in order.

    make bench
    .venv/bin/python benchmarks/pack_speed.py --documents 1000000
    .venv/bin/python benchmarks/pack_speed.py --documents 10000 --audio-bytes 170000    # about ten seconds of FLAC each

Each runs in a process of its own, one after the other. MB are the documents' own bytes (members' data, without headers and
padding). The shuffle also writes indexes, the manifest and durable spills; ShardWriter writes tars and syncs nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manifests.ids import digest_bytes, digest_json
from manifests.packs import FORMAT_VERSION
from manifests.store import json_bytes
from pipeline.pack import INLINE, Map, write_pack
from pipeline.recipe import PackRecipe
from pipeline.shards import tarred
from pipeline.spills import Decision

PART_DOCUMENTS = 20_000
NUM_CODES = 250
NOISE_BYTES = 16 << 20
TEXT = "a sentence as it is spoken in about ten seconds with some twenty five words or so that stand for what a person says "
RECIPE = PackRecipe(name="speed", splits={"train": 0.98, "validation": 0.02})


@dataclass(frozen=True)
class Synthetic:
    """Documents ``[start, stop)``: K.json, K.0.flac (noise of about ``audio_bytes``) and K.0.codes.npy."""

    start: int
    stop: int
    audio_bytes: int

    @property
    def name(self) -> str:
        return f"{self.start:09d}"

    def documents(self) -> Iterator[tuple[str, dict[str, Any], bytes, bytes]]:
        """(key, facts, audio, codes); the same for every caller."""
        noise = np.random.default_rng(0).bytes(NOISE_BYTES)
        for number in range(self.start, self.stop):
            key = digest_bytes(number.to_bytes(8, "big")).hex()
            at = (number * 9973) % (NOISE_BYTES - self.audio_bytes - 2 * NUM_CODES)
            facts = {
                "text": f"{TEXT}{number}",
                "language": "en",
                "speaker": f"s{number % 997}",
                "licence": "CC0-1.0",
                "clip_id": key,
            }
            yield key, facts, noise[at : at + self.audio_bytes], noise[at : at + 2 * NUM_CODES]

    def decisions(self, skip: int) -> Iterator[Decision]:
        for passed, (key, facts, audio, codes) in enumerate(self.documents()):
            if passed < skip:
                continue
            sums = {"num_samples": 160_000, "num_codes": NUM_CODES}
            told = {"text": facts["text"], "language": "en", "text_source": "source"}
            turn = {**told, **sums, "recording_id": None, "clips": [{"clip_id": bytes.fromhex(key), "num_samples": 160_000}]}
            row = {
                "key": key,
                "kind": "clip",
                "tasks": ["asr", "tts", "text"],
                "turns": [turn],
                **sums,
                "speaker": facts["speaker"],
            }
            members = {"json": json_bytes({"turns": [facts]}), "0.flac": audio, "0.codes.npy": codes}
            yield Decision((tarred(row, members),), RECIPE.split_of(facts["speaker"]), None, 160_000, 16_000)


def shuffled(out: str, num_documents: int, audio_bytes: int, run: Map = INLINE.map) -> None:
    """As ``corpus pack`` does it."""
    steps = range(0, num_documents, PART_DOCUMENTS)
    parts = [Synthetic(start, min(start + PART_DOCUMENTS, num_documents), audio_bytes) for start in steps]
    head = {"format_version": FORMAT_VERSION, "sample_rate_hz": 16_000, "splits": list(RECIPE.splits)}
    write_pack(out, {**head, "pack_id": digest_json([num_documents, audio_bytes])}, dict, lambda _: parts, RECIPE, run)


def shuffled_by_two(out: str, num_documents: int, audio_bytes: int) -> None:
    """The same by two processes."""
    with ProcessPoolExecutor(2) as pool:
        shuffled(out, num_documents, audio_bytes, lambda function, items, done: _done(pool.map(function, items), done))


def _done(results: Iterable[Any], done: Callable[[Any], None]) -> list[Any]:
    kept = []
    for result in results:
        kept.append(result)
        done(result)
    return kept


def plain(out: str, num_documents: int, audio_bytes: int) -> None:
    """As a user of webdataset does it: in the order that they come, no splits, no index."""
    import webdataset

    with webdataset.ShardWriter(f"{out}/train-%06d.tar", maxsize=RECIPE.shard_bytes, verbose=0) as writer:
        for key, facts, audio, codes in Synthetic(0, num_documents, audio_bytes).documents():
            writer.write({"__key__": key, "json": facts, "0.flac": audio, "0.codes.npy": codes})


WRITERS = {"stepwell": shuffled, "stepwell, 2 processes": shuffled_by_two, "webdataset": plain}


def measure(name: str, out: str, num_documents: int, audio_bytes: int) -> dict[str, float]:
    """Run one writer: wall and CPU seconds, and the peak memory of its largest process."""
    Path(out).mkdir()
    began = time.perf_counter()
    WRITERS[name](out, num_documents, audio_bytes)
    wall_s = time.perf_counter() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in used)
    return {"wall_s": wall_s, "cpu_s": cpu_s, "peak_bytes": max(usage.ru_maxrss for usage in used) * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--audio-bytes", type=int, default=4_000)
    parser.add_argument("--out", default="benchmarks/results", help="folder for the JSON and the table")
    parser.add_argument("--one", nargs=2, metavar=("WRITER", "FOLDER"), help=argparse.SUPPRESS)  # what a child runs
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.documents, options.audio_bytes)))
        return
    result = compare(options.documents, options.audio_bytes)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pack_speed.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "pack_speed.md").write_text(table(result) + "\n")
    print(table(result))


def compare(num_documents: int, audio_bytes: int) -> dict[str, Any]:
    """Both writers, each in a child process on the same disk."""
    num_bytes = sum(
        len(json_bytes(facts)) + len(audio) + len(codes)
        for _, facts, audio, codes in Synthetic(0, min(num_documents, 1000), audio_bytes).documents()
    ) * (num_documents / min(num_documents, 1000))
    rows: dict[str, Any] = {}
    for name in WRITERS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--one", name, f"{folder}/{name}"]
            command += ["--documents", str(num_documents), "--audio-bytes", str(audio_bytes)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows[name] = json.loads(done.stdout.splitlines()[-1])
            rows[name]["mb_per_s"] = num_bytes / 1e6 / rows[name]["wall_s"]
            shutil.rmtree(f"{folder}/{name}")
    return {"num_documents": num_documents, "num_bytes": num_bytes, "writers": rows}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    writers = result["writers"]
    lines = [
        f"{result['num_documents']:,} documents, {result['num_bytes'] / 1e6:,.0f} MB of members",
        "",
        "| writer | MB/s | ratio | wall s | CPU s | peak memory MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in writers.items():
        ratio = row["mb_per_s"] / writers["webdataset"]["mb_per_s"]
        figures = (
            f"{row['mb_per_s']:.1f} | {ratio:.2f} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {row['peak_bytes'] / 1e6:.0f}"
        )
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
