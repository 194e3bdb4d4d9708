"""Voice activity one thread: ours, the package's function, and many streams stacked in one ONNX call, in audio-seconds a core-second.

    python benchmarks/vad_streams.py [--shared ../shared]

*Stacked*: the wheel's streaming graph with a batch axis, one step of 32 ms of all streams a call, streams sorted by length and left
out of the call where they end. Probabilities are compared with ours, spans with the package's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from annotators.onnx_session import open_session  # noqa: E402  (the path comes first)
from annotators.silero import CONTEXT_SAMPLES, FRAME_SAMPLES, STATE_SIZE, SileroConfig  # noqa: E402
from annotators.weights import packaged_path  # noqa: E402
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio  # noqa: E402

NUM_STREAMS = 128
GROUPS = (8, 32, 64)
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    folder = parser.parse_args().shared / "speech"
    with open(folder / "manifest.jsonl", encoding="utf-8") as file:
        paths = [row["path"] for row in map(json.loads, file) if row["path"].startswith("read/")]
    streams = [soundfile.read(folder / path, dtype="float32")[0] for path in paths[::8][:NUM_STREAMS]]
    audio_s = sum(map(len, streams)) / MODEL_RATE_HZ
    print(f"{len(streams)} read sentences, {audio_s:.0f} s, one thread\n\n| | audio-s / core-s | same output |\n|---|---|---|")
    part = SileroConfig(refine_ms=0).build()
    part.setup()
    speed, probs = timed(lambda: [part.hear(stream)[0] for stream in streams], audio_s)
    print(f"| ours, a stream a call, probabilities | {speed:.0f} | |")
    for size in GROUPS:
        speed, stacked_probs = timed(lambda size=size: stacked(streams, size), audio_s)
        worst = max(float(np.abs(a - b).max()) for a, b in zip(probs, stacked_probs, strict=True))
        print(f"| {size} streams stacked, probabilities | {speed:.0f} | within {worst:.0e} |")
    for config in (SileroConfig(refine_ms=0), SileroConfig()):
        segmenter = config.build()
        speed, found = timed(lambda s=segmenter: [s.segment(ChannelAudio(b"", 0, stream)) for stream in streams], audio_s)
        print(f"| ours, spans, refine_ms {config.refine_ms} | {speed:.0f} | |")
        if not config.refine_ms:
            ours = [[tuple(heard.span) for heard in spans] for spans in found]
    for name, onnx in (("its default, TorchScript", False), ("ONNX", True)):
        speed, theirs = timed(package(streams, onnx), audio_s)
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        print(f"| silero_vad.get_speech_timestamps, {name} | {speed:.0f} | {same} of {len(streams)} streams |")


def timed(run: Callable[[], list[Any]], audio_s: float) -> tuple[float, list[Any]]:
    """Best of three, after one that warms up."""
    answer, seconds = run(), []
    for _ in range(ROUNDS):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return audio_s / min(seconds), answer


def stacked(streams: list[Audio], size: int) -> list[np.ndarray]:
    """Probabilities of each stream from the streaming graph, ``size`` streams a call."""
    session = open_session(packaged_path("silero_vad", "data", "silero_vad_16k_op15.onnx"))
    order = sorted(range(len(streams)), key=lambda i: -len(streams[i]))
    answers: list[np.ndarray] = [np.zeros(0, np.float32)] * len(streams)
    for first in range(0, len(order), size):
        group = order[first : first + size]
        counts = np.array([-(-len(streams[i]) // FRAME_SAMPLES) for i in group])
        padded = np.zeros((len(group), CONTEXT_SAMPLES + int(counts[0]) * FRAME_SAMPLES), np.float32)
        for row, i in enumerate(group):
            padded[row, CONTEXT_SAMPLES : CONTEXT_SAMPLES + len(streams[i])] = streams[i]
        state = np.zeros((2, len(group), STATE_SIZE), np.float32)
        probs = np.zeros((int(counts[0]), len(group)), np.float32)
        for step in range(int(counts[0])):
            alive = int((counts > step).sum())
            heard = padded[:alive, step * FRAME_SAMPLES : (step + 1) * FRAME_SAMPLES + CONTEXT_SAMPLES]
            said, state = session.run(None, {"input": heard, "state": state[:, :alive], "sr": np.array(MODEL_RATE_HZ)})
            probs[step, :alive] = said[:, 0]
        for row, i in enumerate(group):
            answers[i] = probs[: counts[row], row]
    return answers


def package(streams: list[Audio], onnx: bool) -> Callable[[], list[Any]]:
    import silero_vad
    import torch

    torch.set_num_threads(1)
    model = silero_vad.load_silero_vad(onnx=onnx)

    def run() -> list[Any]:
        found = [silero_vad.get_speech_timestamps(torch.from_numpy(stream), model) for stream in streams]
        return [[(span["start"], span["end"]) for span in spans] for spans in found]

    return run


if __name__ == "__main__":
    main()
