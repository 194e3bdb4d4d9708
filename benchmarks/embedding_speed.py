"""The speaker_embedding part beside Resemblyzer's own wrapper, one thread each: audio-seconds a core-second, and how alike they are.

    python benchmarks/embedding_speed.py [--shared ../shared] [--rounds 3]

Stock: ``preprocess_wav`` (level, webrtcvad) and ``VoiceEncoder.embed_utterance``, clip by clip, as its README says. Where
webrtcvad is not installed (it is a C build), a stand-in that hears speech everywhere takes its place: free, and it cuts nothing.
Ours gets the clips in one batch, speech everywhere, so both hear the same audio.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from annotators.speaker_embedding import SpeakerEmbedding, SpeakerEmbeddingConfig  # noqa: E402  (the path comes first)
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch  # noqa: E402
from manifests.schema import CLIPS  # noqa: E402

LENGTHS_S = {"sentences of 2 to 6 s": (2.0, 6.0), "sentences of 6 s and more": (6.0, 60.0)}
MOST_CLIPS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    stock, vad = stock_encoder()
    part = SpeakerEmbeddingConfig(min_voice_s=0.1).build()
    part.setup()
    print(f"webrtcvad: {vad}\n")
    print(
        "| clips | number | seconds | ours | stock | ours / stock | cosine of the two: least, median |\n|---|---|---|---|---|---|---|"
    )
    for name, (shortest, longest) in LENGTHS_S.items():
        clips = read_sentences(options.shared / "speech", shortest, longest)
        audio_s = sum(map(len, clips)) / MODEL_RATE_HZ
        spent: dict[str, list[float]] = {"ours": [], "stock": []}
        for _ in range(options.rounds):
            began = time.process_time()
            ours = embeddings(part, clips)
            spent["ours"].append(time.process_time() - began)
            began = time.process_time()
            theirs = [stock(clip) for clip in clips]
            spent["stock"].append(time.process_time() - began)
        speed = {who: audio_s / float(np.median(seconds)) for who, seconds in spent.items()}
        alike = [float(a @ b) for a, b in zip(ours, theirs, strict=True)]
        print(
            f"| {name} | {len(clips)} | {audio_s:.0f} | {speed['ours']:.0f} | {speed['stock']:.0f} "
            f"| {speed['ours'] / speed['stock']:.2f} | {min(alike):.4f}, {np.median(alike):.4f} |"
        )
    print(f"\nOn the same windows the networks differ by at most {same_windows(part, clips):.1e}.")


def stock_encoder() -> tuple[Any, str]:
    """``preprocess_wav`` and ``embed_utterance`` as one call, and which VAD it uses."""
    import torch

    torch.set_num_threads(1)
    vad = "its own"
    if importlib.util.find_spec("webrtcvad") is None:
        vad = "stand-in, hears speech everywhere"
        sys.modules["webrtcvad"] = types.SimpleNamespace(Vad=lambda mode: types.SimpleNamespace(is_speech=lambda *a, **k: True))
    import scipy.ndimage

    sys.modules.setdefault("scipy.ndimage.morphology", scipy.ndimage)  # newer scipy lacks the name that Resemblyzer imports
    # It was written for numpy 1, whose bool had this name.
    np.bool = np.bool_
    from resemblyzer import VoiceEncoder, preprocess_wav

    encoder = VoiceEncoder("cpu", verbose=False)

    def call(audio: Audio) -> np.ndarray:
        return encoder.embed_utterance(preprocess_wav(audio))

    call(np.random.default_rng(0).normal(size=MODEL_RATE_HZ).astype(np.float32) * 0.1)  # numba compiles at the first call
    return call, vad


def read_sentences(folder: Path, shortest_s: float, longest_s: float) -> list[Audio]:
    clips = []
    with open(folder / "manifest.jsonl", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["path"].startswith("read/")]
    for row in rows[::7]:
        if shortest_s <= row["num_samples"] / row["sample_rate"] < longest_s and len(clips) < MOST_CLIPS:
            clips.append(soundfile.read(folder / row["path"], dtype="float32")[0])
    return clips


def embeddings(part: SpeakerEmbedding, clips: list[Audio]) -> list[np.ndarray]:
    rows = [
        {
            "clip_id": i.to_bytes(16, "big"),
            "recording_id": b"\0" * 16,
            "channel": 0,
            "sample_rate_hz": MODEL_RATE_HZ,
            "start_sample": 0,
            "end_sample": len(clip),
            "speech_samples": len(clip),
            "overlap_samples": 0,
            "speech_spans": [{"start_sample": 0, "end_sample": len(clip)}],
            "overlap_spans": [],
        }
        for i, clip in enumerate(clips)
    ]
    table = pa.Table.from_pylist(rows, schema=CLIPS)
    answer = part.annotate(ClipBatch(table, clips, [MODEL_RATE_HZ] * len(clips), {"clip": table}))
    return [np.array(vector, np.float32) for vector in answer["embedding"].to_pylist()]


def same_windows(part: SpeakerEmbedding, clips: list[Audio]) -> float:
    """Largest difference of a value between both networks on the windows that the wrapper cuts."""
    from resemblyzer import VoiceEncoder

    encoder = VoiceEncoder("cpu", verbose=False)
    worst = 0.0
    for clip in clips[:10]:
        _, partials_PD, windows = encoder.embed_utterance(clip, return_partials=True)
        padded = np.pad(clip, (0, max(0, windows[-1].stop - len(clip))))
        mel_FM = part._encoder.features(padded)
        frames = [window.start // 160 for window in windows]
        ours_PD = part._encoder._forward(np.stack([mel_FM[f : f + 160] for f in frames]).astype(np.float32))
        worst = max(worst, float(np.abs(ours_PD - partials_PD).max()))
    return worst


if __name__ == "__main__":
    main()
