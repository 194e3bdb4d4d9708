"""The packages' own wrappers of the models that our parts run, with one thread each, and whether both say the same.

``STOCK[kind]()`` loads a wrapper and returns a call from float32 ``[S]`` at 16 kHz to what it says.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from manifests.contracts import MODEL_RATE_HZ, Audio

Call = Callable[[Audio], Any]
SCORES = ("sig", "bak", "ovrl", "p808")
FRAMES_A_SECOND = 100


def silero() -> Call:
    import silero_vad
    import torch

    torch.set_num_threads(1)
    model = silero_vad.load_silero_vad(onnx=True)
    return lambda audio: [(s["start"], s["end"]) for s in silero_vad.get_speech_timestamps(torch.from_numpy(audio), model)]


def pyannote() -> Call:
    """pyannote's pipeline over the same two networks. Its own constructor wants the hub; everything after it is pyannote's."""
    import torch

    from annotators.diarization import DiarizationConfig
    from annotators.diarization_pipeline import load_pipeline
    from annotators.pyannote_import import quiet_pyannote
    from annotators.weights import packaged_path

    torch.set_num_threads(1)
    config = DiarizationConfig()
    with quiet_pyannote():
        pipeline = load_pipeline(packaged_path("whisperx", "assets", "pytorch_model.bin"), config.segmentation_step)
    config.build().configure(pipeline)

    def call(audio: Audio) -> list[tuple[int, int]]:
        found = pipeline({"waveform": torch.from_numpy(audio)[None], "sample_rate": MODEL_RATE_HZ, "uri": "file"})
        return [(round(s.start * MODEL_RATE_HZ), round(s.end * MODEL_RATE_HZ)) for s in found.speaker_diarization.itersegments()]

    return call


def dnsmos() -> Call:
    """speechmos sets no threads: its sessions are opened with one here."""
    import onnxruntime
    from speechmos import dnsmos as wrapper

    stock = onnxruntime.InferenceSession

    def with_one_thread(path: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return stock(path, sess_options=options, providers=["CPUExecutionProvider"])

    # It loads at its first call, and numba compiles then.
    with mock.patch.object(onnxruntime, "InferenceSession", with_one_thread):
        wrapper.run(np.full(MODEL_RATE_HZ, 0.1, np.float32), MODEL_RATE_HZ)

    def call(audio: Audio) -> list[float]:
        scores = wrapper.run(audio, MODEL_RATE_HZ)
        return [float(scores[f"{name}_mos"]) for name in SCORES]

    return call


def pocketsphinx() -> Call:
    """One decoder for all clips, which carries its state from clip to clip; the limits are ours."""
    import pocketsphinx as package

    from annotators.pocketsphinx_asr import PocketsphinxConfig

    config = PocketsphinxConfig()
    limits = {"maxhmmpf": config.max_active_hmms, "maxwpf": config.max_words_a_frame}
    decoder = package.Decoder(cmn="batch", fwdflat=False, loglevel="FATAL", **limits)

    def call(audio: Audio) -> str:
        decoder.start_utt()
        decoder.process_raw((np.clip(audio, -1.0, 1.0) * 32767.0).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    return call


def speaker_embedding() -> Call:
    """Resemblyzer's VoiceEncoder; its VAD (webrtcvad, a C build, called by ``trim_long_silences`` alone) is not used here."""
    import torch

    torch.set_num_threads(1)
    sys.modules.setdefault("webrtcvad", types.ModuleType("webrtcvad"))
    # Where scipy took the namespace away that Resemblyzer imports one function from.
    import scipy.ndimage

    sys.modules.setdefault("scipy.ndimage.morphology", scipy.ndimage)
    from resemblyzer import VoiceEncoder

    encoder = VoiceEncoder("cpu", verbose=False)
    encoder.embed_utterance(np.full(MODEL_RATE_HZ, 0.1, np.float32))  # numba compiles librosa's parts at the first call
    return lambda audio: encoder.embed_utterance(audio)


def prosody() -> Call:
    """The two packages that it calls: swift-f0 and pyloudnorm. Syllables have no stock wrapper and are not counted here."""
    import pyloudnorm
    import swift_f0

    detector, meter = swift_f0.SwiftF0(threads=1), pyloudnorm.Meter(MODEL_RATE_HZ)

    def call(audio: Audio) -> float:
        meter.integrated_loudness(audio.astype(np.float64))
        found = detector.detect(audio, MODEL_RATE_HZ, 60.0, 600.0)
        return float(np.median(found.pitch_hz[found.confidence >= 0.5]))

    return call


STOCK: dict[str, Callable[[], Call]] = {
    "silero": silero,
    "pyannote": pyannote,
    "dnsmos": dnsmos,
    "pocketsphinx": pocketsphinx,
    "speaker_embedding": speaker_embedding,
    "prosody": prosody,
}


def agreement(kind: str, ours: Any, theirs: list[Any]) -> str:
    """How alike both outputs are, in words for the table. ``ours`` is a layer or heard spans, ``theirs`` one result a call."""
    if isinstance(ours, list):
        marks = [speech_frames([tuple(heard.span) for heard in ours]), speech_frames(theirs[0])]
        size = max(map(len, marks))
        both = [np.pad(mark, (0, size - len(mark))) for mark in marks]
        return f"{np.mean(both[0] == both[1]):.1%} of 10 ms frames"
    rows = ours.to_pylist() if isinstance(ours, pa.Table) else ours
    if kind == "dnsmos":
        gaps = [
            abs(row[f"dnsmos_{n}"] - v) for row, say in zip(rows, theirs, strict=True) for n, v in zip(SCORES, say, strict=True)
        ]
        return f"within {max(gaps):.0e}"
    if kind == "pocketsphinx":
        return f"{sum(row['text'] == text for row, text in zip(rows, theirs, strict=True))} of {len(rows)} texts"
    if kind == "speaker_embedding":
        pairs = [(row["embedding"], vector) for row, vector in zip(rows, theirs, strict=True) if row["embedding"]]
        return f"cosine at least {min(float(np.dot(a, b)) for a, b in pairs):.4f}"
    near = [abs(row["pitch_hz"] / hz - 1) < 0.02 for row, hz in zip(rows, theirs, strict=True) if row["pitch_hz"]]
    return f"{sum(near)} of {len(near)} median pitches within 2 %"


def speech_frames(spans: list[tuple[int, int]]) -> np.ndarray:
    """Bool: 10 ms frames that a span covers."""
    frames = np.zeros(max((end for _, end in spans), default=0) * FRAMES_A_SECOND // MODEL_RATE_HZ + 1, bool)
    for start, end in spans:
        frames[start * FRAMES_A_SECOND // MODEL_RATE_HZ : end * FRAMES_A_SECOND // MODEL_RATE_HZ] = True
    return frames
