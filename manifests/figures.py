"""The figures of a report, read from what lies on disk: a corpus, a pack, a tokenizer folder, a training run.

Everything is plain JSON with a unit in each name. What is not there is None (and said in ``missing``), never made up.
Tables are read whole, in one process: right for reports of up to some hundred thousand clips.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.corpus import Corpus
from manifests.packs import Pack
from manifests.scoring import Scores
from manifests.snapshots import INGEST, layer_output, spans_output
from manifests.spans import Span, merge, total
from manifests.store import Store

# Columns that get a histogram, where the corpus has them: (layer, column, what it is).
SCORE_COLUMNS = (
    ("dnsmos", "dnsmos_ovrl", "DNSMOS overall (1 to 5)"),
    ("dnsmos", "dnsmos_sig", "DNSMOS speech (1 to 5)"),
    ("dnsmos", "dnsmos_bak", "DNSMOS background (1 to 5)"),
    ("dnsmos", "dnsmos_p808", "DNSMOS P.808 (1 to 5)"),
    ("signal", "snr_db", "signal to noise (dB)"),
    ("asr", "confidence", "ASR confidence (0 to 1)"),
)
TAG_LAYER = "style"
CURVE_POINTS = 120
MAX_BINS = 16


def corpus_figures(corpus: Corpus, vad: str) -> dict[str, Any]:
    """Inputs and their outcomes, hours at each step, refusals by reason, histograms of scores and tags."""
    inputs, recordings, clips = corpus.inputs().to_pylist(), corpus.recordings().to_pylist(), corpus.clips()
    outcomes = [row["outcome"] for row in inputs]
    lengths_s = [row["num_samples"] / row["sample_rate_hz"] for row in recordings]
    heard_s = sum(length * len(row["heard_channels"]) for length, row in zip(lengths_s, recordings, strict=True))
    clip_s = clip_lengths_s(clips)
    return {
        "inputs": {"num": len(inputs), **{outcome: outcomes.count(outcome) for outcome in ("stored", "partial", "refused")}},
        "num_recordings": len(recordings),
        "num_clips": clips.num_rows,
        "hours": {
            "recordings": sum(lengths_s) / 3600,
            "heard": heard_s / 3600,
            "speech": _speech_s(corpus, vad) / 3600 if spans_output(vad) in corpus.snapshot.current else None,
            "clips": sum(clip_s) / 3600,
        },
        "quarantine": _reasons(corpus.quarantine().to_pylist()),
        "statuses": {name: _counts(corpus.layer(name)["status"].to_pylist()) for name in corpus.layers()},
        "clip_duration_s": histogram(clip_s, "length of clips (s)"),
        "scores": _scores(corpus),
        "tags": _tags(corpus, clip_s),
    }


def clip_lengths_s(clips: pa.Table) -> list[float]:
    """Seconds of each clip."""
    columns = (clips[name].to_pylist() for name in ("start_sample", "end_sample", "sample_rate_hz"))
    return [(end - start) / rate for start, end, rate in zip(*columns, strict=True)]


def _speech_s(corpus: Corpus, vad: str) -> float:
    """Seconds in which VAD hears speech, over all heard channels."""
    lanes: dict[tuple[bytes, int, int], list[Span]] = {}
    for row in corpus.spans(vad).to_pylist():
        key = (row["recording_id"], row["channel"], row["sample_rate_hz"])
        lanes.setdefault(key, []).append(Span(row["start_sample"], row["end_sample"]))
    return sum(total(merge(spans)) / rate for (_, _, rate), spans in lanes.items())


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Quarantine by reason: what happened, to how many, and one input as an example."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["reason"], row["outcome"]), []).append(row)
    made = [
        {"reason": reason, "outcome": outcome, "num": len(group), "example": group[0]["message"]}
        for (reason, outcome), group in groups.items()
    ]
    return sorted(made, key=lambda row: (-row["num"], row["reason"]))


def _counts(values: Sequence[Any]) -> dict[str, int]:
    return {str(value): values.count(value) for value in dict.fromkeys(values)}


def _scores(corpus: Corpus) -> list[dict[str, Any]]:
    wanted = {layer for layer, _, _ in SCORE_COLUMNS}
    tables = {layer: corpus.layer(layer) for layer in corpus.layers() if layer in wanted}
    found = []
    for layer, column, title in SCORE_COLUMNS:
        if layer in tables and column in (table := tables[layer]).column_names:
            values = [value for value in table[column].to_pylist() if value is not None and math.isfinite(value)]
            found.append({"column": f"{layer}.{column}", **histogram(values, title, num_null=table.num_rows - len(values))})
    return found


def _tags(corpus: Corpus, clip_s: Sequence[float]) -> list[dict[str, Any]]:
    """By text column of the tag layer: clips and hours of each tag; null is told as such."""
    if TAG_LAYER not in corpus.layers():
        return []
    table = corpus.layer(TAG_LAYER)
    found = []
    for column in table.schema:
        if column.name in ("clip_id", "status", "error") or column.type != pa.string():
            continue
        groups: dict[str | None, list[float]] = {}
        for tag, length in zip(table[column.name].to_pylist(), clip_s, strict=True):
            groups.setdefault(tag, []).append(length)
        ordered = sorted(groups.items(), key=lambda group: (group[0] is None, -len(group[1])))
        tags = [{"tag": tag, "num": len(lengths), "hours": sum(lengths) / 3600} for tag, lengths in ordered]
        found.append({"column": column.name, "tags": tags})
    return found


def histogram(values: Sequence[float], title: str, num_null: int = 0) -> dict[str, Any]:
    """Counts in at most MAX_BINS bins with round edges, and the mean and percentiles; no values, no bins."""
    made: dict[str, Any] = {"title": title, "num": len(values), "num_null": num_null, "edges": [], "counts": []}
    if not values:
        return made
    data = np.asarray(values, dtype=np.float64)
    low, high = float(data.min()), float(data.max())
    # The smallest of 1, 2, 5 x 10^k that covers the values; values that are all but equal share bins of a readable width.
    spread = max(high - low, 0.1 * max(abs(high), 0.01))
    ten = 10.0 ** np.floor(np.log10(spread / MAX_BINS))
    width = next(ten * factor for factor in (1, 2, 5, 10, 20) if spread / (ten * factor) <= MAX_BINS - 4)
    # An empty bin on either side, so that a lone value still reads as one; but none below zero where nothing can be.
    first, last = np.floor(low / width) - (low < 0 or low >= width), np.floor(high / width) + 2
    edges = np.arange(first, last + 1) * width
    made["edges"] = [round(float(edge), 9) for edge in edges]
    made["counts"] = np.histogram(data, edges)[0].tolist()
    p05, p50, p95 = (float(value) for value in np.percentile(data, (5, 50, 95)))
    return {**made, "mean": float(data.mean()), "p05": p05, "p50": p50, "p95": p95}


def score_figures(scores: Scores) -> dict[str, Any]:
    """DER, WER and CER with their settings and parts."""
    recordings: list[dict[str, Any]] = [
        {"recording": s.recording, "reference_s": s.reference_s, "missed_s": s.missed_s, "false_alarm_s": s.false_alarm_s}
        | {"confusion_s": s.confusion_s, "der": s.error_s / s.reference_s if s.reference_s else None}
        for s in scores.diarization
    ]
    words: list[dict[str, Any]] = [
        {"recording": s.recording, "language": s.language, "unit": s.unit, "num_reference": s.num_reference}
        | {"substitutions": s.substitutions, "deletions": s.deletions, "insertions": s.insertions}
        | {"rate": s.num_errors / s.num_reference if s.num_reference else None}
        for s in scores.words
    ]
    settings = {"collar_s": scores.collar_s, "skip_overlap": scores.skip_overlap}
    return {
        "diarization": {"der": scores.der, **settings, "recordings": recordings},
        "words": {"wer": scores.word_rate("words"), "cer": scores.word_rate("characters"), "recordings": words},
        "notes": scores.notes,
    }


def pack_figures(pack: Pack) -> dict[str, Any]:
    """Documents by kind and task, hours, codes and tokens by split; the funnel as the pack tells it."""
    counts = pack.head.get("counts") or {}
    keep = ("num_documents", "hours", "num_codes", "num_text_tokens", "kinds", "tasks")
    return {
        "splits": [{"split": split, **{key: counts.get(split, {}).get(key) for key in keep}} for split in pack.splits],
        "hours": sum(row.get("hours") or 0.0 for row in counts.values()),
        "num_documents": sum(row.get("num_documents") or 0 for row in counts.values()),
        "funnel": pack.head.get("funnel", []),
    }


def tokenizer_figures(folder: str) -> dict[str, Any] | None:
    """The codec's training: final figures and curves; None when the folder holds no metrics."""
    store = Store(folder)
    final, rows = read_json(store, "metrics.json"), read_rows(store, "metrics.jsonl")
    if not final and not rows:
        return None
    last = rows[-1] if rows else {}
    error = final.get("mel_error", last.get("mel_error"))
    mean = final.get("mean_frame_mel_error", last.get("mean_frame_error"))
    keep = ("codebook_use", "perplexity", "letter_error", "word_error", "num_parameters", "steps", "wall_s")
    return {
        "mel_error": error,
        "mean_frame_mel_error": mean,
        "mel_error_ratio": error / mean if error is not None and mean else None,
        **{key: final.get(key, last.get(key)) for key in keep},
        "held_out": final.get("held_out"),
        "curve": curve([(row["step"], row["mel_error"]) for row in rows if row.get("mel_error") is not None]),
    }


def run_figures(folder: str) -> dict[str, Any] | None:
    """Loss by stage and what the evaluation found; None when the run has no metrics yet."""
    store = Store(folder)
    rows, told = read_rows(store, "metrics.jsonl"), read_json(store, "summary.json")
    if not rows:
        return None
    stages = []
    facts = {row["name"]: row for row in told.get("stages", [])}
    for name in dict.fromkeys(row["stage"] for row in rows):
        points = [(row["step"], row["loss"]) for row in rows if row["stage"] == name and math.isfinite(row.get("loss", math.nan))]
        own = facts.get(name, {})
        stage = {"stage": name, "steps": len(points), "first_loss": points[0][1], "last_loss": points[-1][1]} if points else {}
        kept = {key: own.get(key) for key in ("wall_s", "trainable_parameters")}
        stages += [{**stage, **kept, "curve": curve(points)}] if points else []
    found = read_json(store, "evaluation.json")
    # One row a split that was measured; a file without splits speaks of one.
    splits = [{"split": split, **row} for split, row in found.get("splits", {"train": found}).items()] if found else []
    is_finished = bool(told.get("finished"))
    return {
        "is_finished": is_finished,
        "stages": stages,
        "parameters": told.get("parameters"),
        "evaluation": found or None,
        "swaps": splits,
    }


def curve(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most CURVE_POINTS points: means of neighbours, as far as there are more."""
    if len(points) <= CURVE_POINTS:
        return [(float(step), float(value)) for step, value in points]
    groups = np.array_split(np.asarray(points, dtype=np.float64), CURVE_POINTS)
    return [(float(step), float(value)) for step, value in (group.mean(axis=0) for group in groups)]


def cost_figures(corpus: Corpus, step_costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the parts of all builds of the corpus cost (from their ledgers), and the wall time of the steps given."""
    parts: dict[str, dict[str, Any]] = {}
    runs = [path for path in corpus.store.objects("runs") if path.endswith("/ledger.parquet")]
    for path in runs:
        for row in corpus.store.read_table(path).to_pylist():
            name = _output_name(row["part"], corpus.clip_set)
            sums = parts.setdefault(row["part"], {"part": row["part"], "name": name, "num_units": 0})
            sums["num_units"] += 1
            for key in ("audio_s", "wall_s", "cpu_s", "model_cpu_s", "num_rows", "num_errors", "num_bytes"):
                sums[key] = sums.get(key, 0) + row[key]
    for sums in parts.values():
        # CPU time, not wall time: parts run beside each other, and their wall times overlap.
        sums["audio_s_per_cpu_s"] = sums["audio_s"] / sums["cpu_s"] if sums["cpu_s"] > 0 else None
    cpu_s = sum(sums["cpu_s"] for sums in parts.values())
    return {
        "num_runs": len(runs),
        "parts": sorted(parts.values(), key=lambda sums: -sums["cpu_s"]),
        "cpu_s": cpu_s,
        "model_share": sum(sums["model_cpu_s"] for sums in parts.values()) / cpu_s if cpu_s > 0 else None,
        "steps": [{"step": row["step"], "wall_s": row["wall_s"]} for row in step_costs],
        "wall_s": sum(row["wall_s"] for row in step_costs) if step_costs else None,
    }


def lineage_figures(corpus: Corpus, pack: Pack | None, tokenizer_dir: str | None, run_dir: str | None) -> list[dict[str, str]]:
    """Ids, fingerprints and digests, from the corpus down to the run (what it says it was trained on)."""
    rows = [("corpus", corpus.corpus_id), ("snapshot", str(corpus.snapshot.number)), ("clip set", corpus.clip_set)]
    rows += [(_output_name(output, corpus.clip_set), mark) for output, mark in sorted(corpus.snapshot.current.items())]
    heads: list[tuple[str, Mapping[str, Any], tuple[str, ...]]] = []
    if pack is not None:
        heads.append(("pack", pack.head, ("pack_id", "tokenizer_id", "vocabulary_hash", "codec_fingerprint")))
    if tokenizer_dir is not None:
        heads.append(("tokenizer", read_json(Store(tokenizer_dir), "tokenizer.json"), ("tokenizer_id",)))
    if run_dir is not None:
        identity = read_json(Store(run_dir), "summary.json").get("identity", {})
        heads.append(("run", identity, ("recipe_digest", "pack_id", "tokenizer_id", "vocabulary_hash", "codec_fingerprint")))
    for what, head, keys in heads:
        rows += [(f"{what}: {key.replace('_', ' ')}", str(head[key])) for key in keys if head.get(key) is not None]
    return [{"what": what, "id": mark} for what, mark in rows]


def _output_name(output: str, clip_set: str) -> str:
    for prefix, name in ((layer_output(clip_set, ""), "layer"), ("spans/", "spans"), ("clips/", "clips"), (INGEST, "ingest")):
        if output.startswith(prefix):
            return f"{name} {output.removeprefix(prefix)}".strip()
    return output


def build_recipe(corpus: Store) -> dict[str, Any]:
    """The resolved recipe of a corpus' newest build; empty when none is there. Runs that add layers have no named recipe."""
    for path in reversed(corpus.objects("runs")):
        if path.endswith("/recipe.json") and "name" in (recipe := read_json(corpus, path)):
            return recipe
    return {}


def read_json(store: Store, path: str) -> dict[str, Any]:
    """A JSON object, empty when the file is not there."""
    try:
        value: dict[str, Any] = json.loads(store.read(path))
    except FileNotFoundError:
        return {}
    return value


def read_rows(store: Store, path: str) -> list[dict[str, Any]]:
    """Rows of a .jsonl file, empty when it is not there; a last line that a kill cut short is left out."""
    try:
        text = store.read(path).decode()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1] if line]
