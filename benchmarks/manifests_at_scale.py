"""Time and memory of ``manifest audit`` on made corpora of several sizes, beside pandas and DuckDB on the same Parquet files.

    .venv/bin/python -m benchmarks.manifests_at_scale --clips 100000 1000000 10000000 --folder /tmp/made

Each way runs in a process of its own, on ``--threads`` threads, one after the other. ``audit`` is the verb with its shipped
recipe. ``scan`` counts with our tallies what ``duckdb`` and ``pandas`` count as a person would write it: hours by
language, pitch level, quality band and source, counts, extremes, means and quantiles of twelve columns, and what passes
all filters. All three read layers by position. The answers are compared before a time is told.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.made_manifests import make_corpus
from benchmarks.made_plan import Plan
from manifests.audit.plan import AuditTally
from manifests.audit.recipe import AuditRecipe
from manifests.audit.work import rows_at
from manifests.compacted import read_compaction
from manifests.corpus import Corpus
from manifests.fold import fold
from manifests.recipes import load_recipe
from manifests.store import Store

ROOT = Path(__file__).parents[1]
COLUMNS = {
    "dnsmos": ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808"),
    "signal": ("snr_db", "rms_dbfs", "bandwidth_hz", "silence_ratio"),
    "prosody": ("pitch_hz", "loudness_lufs", "syllable_rate_hz"),
    "text": ("char_rate_hz",),
}
NUMBERS = [name for names in COLUMNS.values() for name in names]
LENGTHS = ("start_sample", "end_sample", "sample_rate_hz")
EDGES = (2.0, 2.5, 3.0, 3.5)
PASSES = "dnsmos_ovrl >= 2.5 AND (snr_db IS NULL OR snr_db >= 10) AND duration_s BETWEEN 1 AND 30"
PANDAS_CLIPS = 20_000_000  # more do not fit beside the rest in 24 GB
WAYS = ("audit", "scan", "duckdb", "pandas")


def count_ours(uri: str) -> dict[str, Any]:
    """The figures by our tallies in one fold."""
    from manifests.audit.distributions import Spread
    from manifests.audit.funnel import Funnel
    from manifests.audit.recipe import Band, Distribution, Threshold
    from manifests.audit.slices import bounds_of
    from manifests.audit.tallies import GroupSums

    full = [f"{layer}.{name}" for layer, names in COLUMNS.items() for name in names]
    ranges = {d.column: d for d in load_recipe(AuditRecipe, "manifests", "audit").distributions}
    spreads = [Spread(ranges[name]) for name in full]
    filters = [
        Threshold(column="dnsmos.dnsmos_ovrl", min=2.5, drop_null=True),
        Threshold(column="signal.snr_db", min=10),
        Threshold(column="clip.duration_s", min=1, max=30),
    ]
    length = Distribution(column="clip.duration_s", title="", low=0, high=40)
    scales = [bounds_of(ranges.get(f.column, length)) for f in filters]
    keys = {"language": "asr.language", "pitch_level": "style.pitch_level", "band": "quality", "source": "input.source"}
    tally = AuditTally(
        bands=[Band(name="quality", column="dnsmos.dnsmos_ovrl", edges=list(EDGES))],
        speech_share=None,
        groups={name: GroupSums([key], ["quality"]) for name, key in keys.items()},
        speakers=None,
        spreads=spreads,
        distinct=[],
        layers=[],
        offenders=[],
        ends=[],
        funnel=Funnel(filters, scales),
        periods=None,
    )
    (done,) = fold(rows_at(uri), [tally])
    assert done.funnel is not None
    kept = done.funnel.figures()
    sums = {name: {row["key_0"]: row["clip_s"] / 3600 for row in group.rows().to_pylist()} for name, group in done.groups.items()}
    figures = {}
    for spread in done.spreads:
        row = spread.figures()
        quantiles = [row["quantiles"][name] for name in ("p05", "p50", "p95")]
        figures[row["column"].partition(".")[2]] = [row["num_clips"], row["min"], row["max"], row["mean"], *quantiles]
    return {"hours": sums, "numbers": figures, "kept": [kept["kept_clips"], kept["kept_h"]]}


def parts_of(uri: str) -> dict[str, list[str]]:
    """Paths of the Parquet files of each table, in order."""
    corpus = Corpus.open(uri)
    found: dict[str, list[str]] = {}
    for output, mark in corpus.snapshot.current.items():
        compaction = read_compaction(corpus.store, corpus.snapshot.compacted[output][mark])
        for part in compaction.parts:
            name = part.role if part.role != "layer" else output.rpartition("/")[2]
            found.setdefault(name, []).append(f"{uri}/{part.path}")
    return found


def count_duckdb(uri: str) -> dict[str, Any]:
    """The figures in SQL: layers by POSITIONAL JOIN, sources by a hash join."""
    import duckdb

    parts = parts_of(uri)
    connection = duckdb.connect(config={"threads": int(os.environ["NUM_THREADS"]), "memory_limit": "8GB"})
    length = "greatest(0, (end_sample - start_sample) / sample_rate_hz)"

    def joined(layers: dict[str, Sequence[str]], *own: str) -> str:
        tables = [f"(SELECT {', '.join([*own, f'{length} AS duration_s'])} FROM read_parquet({parts['clips']}))"]
        tables += [f"(SELECT {', '.join(names)} FROM read_parquet({parts[layer]}))" for layer, names in layers.items()]
        return " POSITIONAL JOIN ".join(tables)

    def hours(key: str, table: str) -> dict[str | None, float]:
        rows = connection.execute(f"SELECT {key}, sum(duration_s) / 3600 FROM {table} GROUP BY 1").fetchall()
        return dict(rows)

    # A NaN is the largest number to DuckDB; ours are not finite, and counted apart.
    of = [f"CASE WHEN isfinite({n}) THEN {n} END" for n in NUMBERS]
    asked = [
        f"count({n}), min({n}), max({n}), avg({n}), approx_quantile({n}, 0.05), approx_quantile({n}, 0.5), approx_quantile({n}, 0.95)"
        for n in of
    ]
    row = connection.execute(f"SELECT {', '.join(asked)} FROM {joined(dict(COLUMNS))}").fetchone()
    assert row is not None
    cases = " ".join(f"WHEN dnsmos_ovrl < {edge} THEN '{label}'" for edge, label in zip(EDGES, band_labels(), strict=False))
    band = f"CASE WHEN dnsmos_ovrl IS NULL THEN NULL {cases} ELSE '{band_labels()[-1]}' END"
    sources = f"(SELECT recording_id, first(source) AS source FROM read_parquet({parts['inputs']}) WHERE recording_id IS NOT NULL GROUP BY 1)"
    by_recording = (
        f"(SELECT recording_id, {length} AS duration_s FROM read_parquet({parts['clips']})) JOIN {sources} USING (recording_id)"
    )
    passing = joined({"dnsmos": ["dnsmos_ovrl"], "signal": ["snr_db"]})
    kept = connection.execute(f"SELECT count(*), sum(duration_s) / 3600 FROM {passing} WHERE {PASSES}").fetchone()
    assert kept is not None
    return {
        "hours": {
            "language": hours("language", joined({"asr": ["language"]})),
            "pitch_level": hours("pitch_level", joined({"style": ["pitch_level"]})),
            "band": hours(band, joined({"dnsmos": ["dnsmos_ovrl"]})),
            "source": hours("source", by_recording),
        },
        "numbers": {name: list(row[7 * place : 7 * place + 7]) for place, name in enumerate(NUMBERS)},
        "kept": list(kept),
    }


def band_labels() -> list[str]:
    from manifests.audit.recipe import Band

    return Band(name="quality", column="dnsmos.dnsmos_ovrl", edges=list(EDGES)).labels


def count_pandas(uri: str) -> dict[str, Any]:
    """The figures with whole tables in memory."""
    import numpy as np
    import pandas as pd

    parts = parts_of(uri)

    def read(name: str, columns: Sequence[str]) -> pd.DataFrame:
        tables = [pq.read_table(path, columns=list(columns)) for path in parts[name]]
        return pa.concat_tables(tables).to_pandas(strings_to_categorical=True)

    clips = read("clips", [*LENGTHS, "recording_id"])
    clips["duration_s"] = ((clips["end_sample"] - clips["start_sample"]) / clips["sample_rate_hz"]).clip(lower=0)
    clips = clips.drop(columns=list(LENGTHS))
    wanted = {**COLUMNS, "asr": ("language",), "style": ("pitch_level",)}
    frame = pd.concat([clips, *(read(layer, names) for layer, names in wanted.items())], axis=1)
    frame["band"] = pd.cut(frame["dnsmos_ovrl"], [-np.inf, *EDGES, np.inf], right=False, labels=band_labels())
    inputs = read("inputs", ["recording_id", "source"]).dropna(subset="recording_id").drop_duplicates("recording_id")
    frame = frame.merge(inputs, on="recording_id", how="left")
    hours = {}
    for key in ("language", "pitch_level", "band", "source"):
        sums = frame.groupby(key, dropna=False, observed=True)["duration_s"].sum() / 3600
        hours[key] = {None if pd.isna(value) else value: float(h) for value, h in sums.items()}
    figures = {}
    for name in NUMBERS:
        values = frame[name].dropna()
        found = [len(values), values.min(), values.max(), values.astype(np.float64).mean(), *values.quantile([0.05, 0.5, 0.95])]
        figures[name] = [float(value) for value in found]
    passes = (frame["dnsmos_ovrl"] >= 2.5) & ~(frame["snr_db"] < 10) & frame["duration_s"].between(1, 30)
    return {"hours": hours, "numbers": figures, "kept": [int(passes.sum()), float(frame["duration_s"][passes].sum() / 3600)]}


def check_equal(ours: dict[str, Any], theirs: dict[str, Any], way: str) -> None:
    """Ends the program where the answers differ: sums by more than rounding, quantiles by more than two sketches may."""
    for group, hours in ours["hours"].items():
        other = theirs["hours"][group]
        if hours.keys() != other.keys() or any(not math.isclose(h, other[key], rel_tol=1e-6) for key, h in hours.items()):
            raise SystemExit(f"hours by {group}: ours {hours}, {way} {other}")
    for name, figures in ours["numbers"].items():
        exact = [
            math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) for a, b in zip(figures[:4], theirs["numbers"][name][:4], strict=True)
        ]
        spread = figures[6] - figures[4]
        near = [abs(a - b) < 0.05 * spread for a, b in zip(figures[4:], theirs["numbers"][name][4:], strict=True)]
        if not all(exact + near):
            raise SystemExit(f"{name}: ours {figures}, {way} {theirs['numbers'][name]}")
    if ours["kept"][0] != theirs["kept"][0] or not math.isclose(ours["kept"][1], theirs["kept"][1], rel_tol=1e-6):
        raise SystemExit(f"kept: ours {ours['kept']}, {way} {theirs['kept']}")


def measured(way: str, uri: str, num_threads: int) -> dict[str, Any]:
    """The way's answer with the seconds and the largest memory of its process."""
    verb = [sys.executable, "-m", "stepwell", "manifest", "audit", uri, "--json"]
    command = verb if way == "audit" else [sys.executable, "-m", "benchmarks.manifests_at_scale", "--child", way, "--folder", uri]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    cpus = set(sorted(os.sched_getaffinity(0))[:num_threads])
    began = time.monotonic()
    with tempfile.TemporaryFile() as file:
        environment = {**os.environ, **threads, "NUM_THREADS": str(num_threads)}
        process = subprocess.Popen(
            command, stdout=file, cwd=ROOT, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, cpus)
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        if status:
            raise SystemExit(f"{way} ended with status {status}")
        file.seek(0)
        cost = {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_gb": usage.ru_maxrss / 2**20}
        return {"answer": json.load(file), **cost}


def measure(uri: str, num_clips: int, num_threads: int) -> None:
    """Print a row a way."""
    if not Store(uri).exists("corpus.json"):
        make_corpus(uri, Plan(num_clips), num_threads)
    num_bytes = sum(Store(uri).size(path) for path in Store(uri).objects(""))
    answers = {}
    for way in WAYS:
        if way == "pandas" and num_clips > PANDAS_CLIPS:
            continue
        made = measured(way, uri, num_threads)
        answers[way] = made.pop("answer")
        if way in ("duckdb", "pandas"):
            check_equal(answers["scan"], answers[way], way)
        row = {"clips": num_clips, "corpus_gb": num_bytes / 1e9, "way": way, **made}
        print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}), flush=True)


COUNTS: dict[str, Callable[[str], dict[str, Any]]] = {"scan": count_ours, "duckdb": count_duckdb, "pandas": count_pandas}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[100_000, 1_000_000], help="sizes, one measurement each")
    parser.add_argument("--folder", required=True, help="where the corpora are made; those that are there are used again")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", choices=sorted(COUNTS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        # Keys that are null come back from JSON as "null", for all ways alike.
        print(json.dumps(COUNTS[options.child](options.folder)))
        return
    for num_clips in options.clips:
        measure(f"{options.folder}/clips-{num_clips}", num_clips, options.threads)


if __name__ == "__main__":
    main()
