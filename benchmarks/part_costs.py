"""What every part costs, beside the stock wrapper of its model: audio-seconds a core-second, memory, loading.

    python benchmarks/part_costs.py                     3 minutes of ../shared/speech/read, three rounds
    python benchmarks/part_costs.py dnsmos silero       these parts alone

Ours and the stock wrapper take turns, each time in a fresh process with one thread; a figure is the median of the rounds.
Segmenters hear the clips one after another as one channel, annotators get the clips. Everything is heard twice and the second
time counts: loading is not in the speed, nor the 5 to 15 % by which a first call is slower. Parts of the hub run checkpoints
that are made here (``made_checkpoints``); Whisper hears phrases of the dozen words that its checkpoint knows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from annotators.catalog import AnnotatorConfig, SegmenterConfig  # noqa: E402  (the path comes first)
from benchmarks.made_checkpoints import classifier_folder, ctc_folder, phrase_clips, whisper_folder  # noqa: E402
from benchmarks.own_process import in_own_process  # noqa: E402
from benchmarks.stock_wrappers import STOCK, agreement  # noqa: E402
from manifests.contracts import MODEL_RATE_HZ, Annotator, Audio, ChannelAudio, ClipBatch, Hearing  # noqa: E402
from manifests.cpu_clock import cpu_s  # noqa: E402
from manifests.ids import clip_id  # noqa: E402
from manifests.schema import CLIPS, RECORDINGS  # noqa: E402

SEGMENTERS = ("silero", "speaker_change", "pyannote", "pyannote_vad")
# A part comes after those whose layers it reads; each is read by the name of its kind, speech recognition by "asr".
ANNOTATORS = (
    *("signal", "prosody", "integrity", "sound_gate", "dnsmos", "pocketsphinx", "speaker_embedding", "spectrum", "content"),
    *("rhythm", "text", "style", "hf_ctc", "hf_whisper", "whisperx", "audio_classifier"),
)
HUB_PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "hf_ctc": lambda: {"kind": "hf_asr", "model": ctc_folder()},
    "hf_whisper": lambda: {"kind": "hf_asr", "model": whisper_folder("transformers"), "words": False},
    "whisperx": lambda: {"kind": "whisperx", "model": whisper_folder("ctranslate2")},
    "audio_classifier": lambda: {"kind": "audio_classifier", "model": classifier_folder(), "dimension": "event"},
}
HEAR_PHRASES = ("hf_whisper", "whisperx")
OUTPUT_AS_STOCK = {"silero": {"refine_ms": 0}}  # the package refines no edges
READ_AS = {"pocketsphinx": "asr"}
RECORDING_LEVELS = {"bandwidth_hz": MODEL_RATE_HZ / 2, "stored_scale": 1.0, "peak": 0.5, "rms_dbfs": -25.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join((*SEGMENTERS, *ANNOTATORS))}; all by default")
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"), help="folder that holds speech/read")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - {*SEGMENTERS, *ANNOTATORS}):
        parser.error(f"part {unknown[0]!r} is not one of {', '.join((*SEGMENTERS, *ANNOTATORS))}")
    clips = chosen_clips(options.shared, options.minutes)
    print(f"{len(clips)} clips, {seconds(clips):.0f} s of audio, {options.rounds} rounds, one thread\n")
    heads = ["part", "audio-s / core-s", "stock wrapper", "its audio-s / core-s", "ours / stock", "peak MiB, ours", "stock"]
    heads += ["loading s, ours", "stock", "same output"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    wanted, read = options.parts or (*SEGMENTERS, *ANNOTATORS), needed_by(options.parts or ANNOTATORS)
    layers: dict[str, pa.Table] = {}
    for kind in (*SEGMENTERS, *ANNOTATORS):
        if kind in wanted:
            heard = phrase_clips(options.minutes) if kind in HEAR_PHRASES else clips
            print("\n".join(rows(kind, heard, layers, options.rounds)), flush=True)
        name = READ_AS.get(kind, kind)
        if name in read:
            layers[name] = in_own_process(run_ours, kind, clips, layers)[0]["output"]


def chosen_clips(shared: str, minutes: float) -> list[Audio]:
    """Clips of ``speech/read`` in the order of its manifest, each 37th first, until there are so many minutes."""
    with open(Path(shared) / "speech" / "manifest.jsonl", encoding="utf-8") as file:
        paths = [path for line in file if (path := json.loads(line)["path"]).startswith("read/")]
    clips: list[Audio] = []
    for path in (path for first in range(37) for path in paths[first::37]):
        if sum(map(len, clips)) >= minutes * 60 * MODEL_RATE_HZ:
            break
        clips.append(soundfile.read(Path(shared) / "speech" / path, dtype="float32")[0])
    return clips


def seconds(clips: Sequence[Audio]) -> float:
    """How long they last in all."""
    return sum(map(len, clips)) / MODEL_RATE_HZ


def needed_by(parts: Sequence[str]) -> set[str]:
    """Names of the layers that these annotators read."""
    return {name for kind in parts if kind in ANNOTATORS for name in build(kind).reads}


def rows(kind: str, clips: list[Audio], layers: dict[str, pa.Table], rounds: int) -> list[str]:
    """The part's lines of the table, one for each stock wrapper."""
    audio_s = seconds(clips)
    ours: list[dict[str, Any]] = []
    stock: dict[str, list[dict[str, Any]]] = {which: [] for which in STOCK.get(kind, {})}
    for _ in range(rounds):
        ours.append(measured(run_ours, kind, clips, layers))
        for which, runs in stock.items():
            runs.append(measured(run_stock, kind, which, clips))
    speed = f"{audio_s / middle('cpu_s', ours):.1f}"
    memory, loading = f"{middle('peak', ours) / 2**20:.0f}", f"{middle('setup_s', ours):.1f}"
    lines = [
        [
            *(kind, speed, which, f"{audio_s / middle('cpu_s', runs):.1f}"),
            f"**{middle('cpu_s', runs) / middle('cpu_s', ours):.2f}**",
            *(memory, f"{middle('peak', runs) / 2**20:.0f}", loading, f"{middle('setup_s', runs):.1f}"),
            agreement(kind, ours[0]["output"], runs[0]["output"]),
        ]
        for which, runs in stock.items()
    ] or [[kind, speed, "–", "–", "–", memory, "–", loading, "–", "–"]]
    return [f"| {' | '.join(line)} |" for line in lines]


def middle(key: str, runs: list[dict[str, Any]]) -> float:
    """The median of the rounds."""
    return float(statistics.median(run[key] for run in runs))


def measured(function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What the function says in a fresh process, and that process's largest resident memory."""
    result, costs = in_own_process(function, *args)
    return {**result, "peak": max(cost.peak_rss_bytes for cost in costs)}


def run_ours(kind: str, clips: list[Audio], layers: dict[str, pa.Table]) -> dict[str, Any]:
    part, began = build(kind), cpu_s()
    part.setup()
    if kind in SEGMENTERS:
        audio = np.concatenate(clips)
        return timed(began, lambda: part.segment(ChannelAudio(bytes(16), 0, audio)))
    batch = batch_of(part, clips, layers)
    return timed(began, lambda: part.annotate(batch))


def run_stock(kind: str, which: str, clips: list[Audio]) -> dict[str, Any]:
    began = cpu_s()
    call = STOCK[kind][which]()
    audio = [np.concatenate(clips)] if kind in SEGMENTERS else clips
    return timed(began, lambda: [call(clip) for clip in audio])


def timed(began: float, call: Callable[[], Any]) -> dict[str, Any]:
    """CPU seconds of the setup that lies behind and of a second call, and what the first one returned."""
    ready = cpu_s()
    output = call()
    warm = cpu_s()
    call()
    return {"setup_s": ready - began, "cpu_s": cpu_s() - warm, "output": output}


def build(kind: str) -> Any:
    from pydantic import TypeAdapter

    union: Any = SegmenterConfig if kind in SEGMENTERS else AnnotatorConfig
    settings = HUB_PARTS[kind]() if kind in HUB_PARTS else {"kind": kind, **OUTPUT_AS_STOCK.get(kind, {})}
    return TypeAdapter(union).validate_python(settings).build()


def batch_of(part: Annotator, clips: list[Audio], layers: dict[str, pa.Table]) -> ClipBatch:
    """All clips as one batch, each a recording of its own, speech from end to end."""
    rows, recordings = [], []
    for number, audio in enumerate(clips):
        recording, size = number.to_bytes(16, "big"), len(audio)
        place = {"recording_id": recording, "sample_rate_hz": MODEL_RATE_HZ}
        span = {"start_sample": 0, "end_sample": size}
        speech = {"speech_samples": size, "overlap_samples": 0, "speech_spans": [span], "overlap_spans": []}
        rows.append({"clip_id": clip_id(recording, 0, MODEL_RATE_HZ, 0, size), "channel": 0, **place, **span, **speech})
        header = {"num_samples": size, "num_channels": 1, "heard_channels": [0], "source_sample_rate_hz": MODEL_RATE_HZ}
        file = {"codec": "pcm_16", "container": "wav", "stored_bits": 16, "is_truncated": False, "is_interleaved": False}
        recordings.append({**place, **header, **file, **RECORDING_LEVELS})
    table = pa.Table.from_pylist(rows, schema=CLIPS)
    facts = {**layers, "clip": table, "recording": pa.Table.from_pylist(recordings, schema=RECORDINGS)}
    heard = [] if part.hears is Hearing.NOTHING else clips
    return ClipBatch(table, heard, [MODEL_RATE_HZ] * len(heard), {name: facts[name] for name in part.reads})


if __name__ == "__main__":
    main()
