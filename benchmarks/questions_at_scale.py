"""Time and memory of ``manifest show``, ``query``, ``expect`` and ``diff`` on made corpora of several sizes.

    .venv/bin/python -m benchmarks.questions_at_scale --clips 100000 1000000 10000000 --folder /tmp/made

A corpus gets a second snapshot, in which dnsmos has another fingerprint and a tenth of its rows another score; a copy of it (hard
links) stands for another corpus, whose rows have to be matched by clip. Each verb runs in a process of its own on
``--threads`` CPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.made_manifests import make_corpus
from benchmarks.made_plan import CLIP_SET, Plan
from manifests.compacted import CompactedPart, Compaction, compaction_folder, read_compaction, write_compaction
from manifests.corpus import Corpus
from manifests.ids import new_attempt_id
from manifests.snapshots import layer_output, publish_snapshot
from manifests.tables import TableFile, open_part

ROOT = Path(__file__).parents[1]
DNSMOS = layer_output(CLIP_SET, "dnsmos")
LATER_MARK = "e" * 16
RULES = """
rules:
  - snr_db p05 >= 5
  - share of language = zh between 0.05 and 0.95
  - null share of asr.text <= 0.5
  - count where duration_s > 60 == 0
  - hours of language = en >= 1
  - distinct speaker >= 100
  - max of dnsmos_ovrl <= 5
  - share of hours of dnsmos_ovrl >= 2 > 0.1
  - {rule: median of pitch_hz between 60 and 400, where: language = zh}
  - every: dnsmos_ovrl between 1 and 5
"""
SQL = "SELECT source, language, count(*), sum(duration_s) / 3600, avg(snr_db) FROM clips WHERE dnsmos_ovrl > 2 GROUP BY ALL"


def add_snapshot(corpus: Corpus) -> None:
    """Snapshot 1: dnsmos made anew, with other scores in a tenth of the rows."""
    random, snapshot = np.random.default_rng(1), corpus.snapshot
    parts = []
    compaction = read_compaction(corpus.store, snapshot.compacted[DNSMOS][snapshot.current[DNSMOS]])
    for part in compaction.parts:
        with open_part(corpus.store, part.path) as file:
            made = TableFile(file.schema_arrow)
            for number in part.row_groups:
                table = file.read_row_group(number)
                scores = table["dnsmos_ovrl"].to_numpy().copy()
                scores[random.random(len(scores)) < 0.1] += np.float32(0.125)
                made.append(
                    table.set_column(table.column_names.index("dnsmos_ovrl"), "dnsmos_ovrl", pa.array(scores, from_pandas=True))
                )
        fact = made.put(corpus.store, f"{compaction_folder(DNSMOS, LATER_MARK)}/layer-{part.group}-{new_attempt_id()}.parquet")
        rows = range(len(part.units))
        parts.append(
            CompactedPart("layer", part.group, fact.path, fact.num_bytes, fact.digest, part.units, list(rows), part.num_rows)
        )
    path = write_compaction(corpus.store, Compaction(DNSMOS, LATER_MARK, parts))
    outputs = {**snapshot.outputs, DNSMOS: {**snapshot.outputs[DNSMOS], LATER_MARK: snapshot.units}}
    compacted = {**snapshot.compacted, DNSMOS: {**snapshot.compacted[DNSMOS], LATER_MARK: path}}
    current = {**snapshot.current, DNSMOS: LATER_MARK}
    assert publish_snapshot(corpus.store, replace(snapshot, number=1, outputs=outputs, compacted=compacted, current=current))


def measured(words: list[str], num_threads: int) -> dict[str, Any]:
    """Seconds and largest memory of ``stepwell manifest``, and the JSON that it answers."""
    command = [sys.executable, "-m", "stepwell", "manifest", *words, "--json"]
    cpus = set(sorted(os.sched_getaffinity(0))[:num_threads])
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        if os.waitstatus_to_exitcode(status) not in (0, 1):
            raise SystemExit(f"{words[0]} ended with status {os.waitstatus_to_exitcode(status)}")
        out.seek(0)
        answer = json.load(out)
    return {"answer": answer, "wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_gb": usage.ru_maxrss / 2**20}


def measure(folder: Path, num_clips: int, num_threads: int) -> None:
    """Print a row a verb."""
    uri, copy = str(folder / f"clips-{num_clips}"), str(folder / f"copy-{num_clips}")
    if not os.path.exists(f"{uri}/corpus.json"):
        make_corpus(uri, Plan(num_clips), num_threads)
    if not os.path.exists(f"{uri}/snapshots/000001.json"):
        add_snapshot(Corpus.open(uri, 0))
    if not os.path.exists(copy):
        shutil.copytree(uri, copy, copy_function=os.link)
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    columns = "dnsmos_ovrl,snr_db,asr.text,language,source,start_sample"
    ways = {
        "show --where --group-by": [
            "show",
            uri,
            "--where",
            "language = zh and dnsmos_ovrl < 2.5",
            "--group-by",
            "source,language",
        ],
        "query (group by)": ["query", uri, SQL],
        "expect (10 rules)": ["expect", uri, "--rules", str(rules)],
        "diff of two snapshots": ["diff", f"{uri}@0", uri],
        "diff of two corpora, 6 columns": ["diff", f"{uri}@0", copy, "--columns", columns],
    }
    for way, words in ways.items():
        made = measured(words, num_threads)
        if words[0] == "diff":
            changed = made["answer"]["changed"]["num_rows"]
            assert 0.05 * num_clips < changed < 0.15 * num_clips, changed
            assert [row["column"] for row in made["answer"]["columns"]] == ["dnsmos.dnsmos_ovrl"]
        print(f"| {num_clips:,} | {way} | {made['wall_s']:.1f} | {made['cpu_s']:.1f} | {made['peak_gb']:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print("| clips | verb | wall (s) | CPU (s) | peak memory (GB) |\n|---|---|---|---|---|")
    for num_clips in options.clips:
        measure(options.folder, num_clips, options.threads)


if __name__ == "__main__":
    main()
