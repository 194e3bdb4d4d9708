"""The packages' own wrappers of the models that our parts run, with one thread each, and whether both say the same.

``STOCK[part][which]()`` loads a wrapper and returns a call from float32 ``[S]`` at 16 kHz to what it says. A part has several
where the package leaves open what its output depends on.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from benchmarks.made_checkpoints import classifier_folder, ctc_folder, whisper_folder
from manifests.contracts import MODEL_RATE_HZ, Audio

Call = Callable[[Audio], Any]
SCORES = ("sig", "bak", "ovrl", "p808")
FRAMES_A_SECOND = 100
ASR = "automatic-speech-recognition"
TRANSCRIBE = {"task": "transcribe"}
TEXTS = {"pocketsphinx", "hf_ctc", "hf_whisper", "whisperx"}


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


def pocketsphinx(*, fresh: bool) -> Call:
    """A clip's answer may not depend on the clips before: for that a decoder is loaded anew each time (``fresh``).

    Otherwise one decoder starts its features anew each time, but the posteriors of words still remember other clips. The
    limits are ours.
    """
    import pocketsphinx as package

    from annotators.pocketsphinx_asr import FILLER, PocketsphinxConfig

    config = PocketsphinxConfig()
    limits = {"maxhmmpf": config.max_active_hmms, "maxwpf": config.max_words_a_frame}

    def load() -> Any:
        return package.Decoder(cmn="batch", fwdflat=False, loglevel="FATAL", **limits)

    kept = load()

    def call(audio: Audio) -> dict[str, Any]:
        decoder = load() if fresh else kept
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw((np.clip(audio, -1.0, 1.0) * 32767.0).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        posteriors = [float(found.prob) for found in decoder.seg() or () if not FILLER.match(found.word)]
        return {"text": hypothesis.hypstr if hypothesis else "", "posteriors": posteriors}

    return call


def speaker_embedding(partials_a_second: float) -> Call:
    """Resemblyzer's VoiceEncoder; its VAD (webrtcvad, a C build, called by ``trim_long_silences`` alone) is not used here."""
    import torch

    torch.set_num_threads(1)
    sys.modules.setdefault("webrtcvad", types.ModuleType("webrtcvad"))
    # Where scipy took the namespace away that Resemblyzer imports one function from.
    import scipy.ndimage

    sys.modules.setdefault("scipy.ndimage.morphology", scipy.ndimage)
    from resemblyzer import VoiceEncoder

    encoder = VoiceEncoder("cpu", verbose=False)
    return lambda audio: encoder.embed_utterance(audio, rate=partials_a_second)


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


def pyannote_vad() -> Call:
    """pyannote's pipeline over the network that whisperx ships, with the same thresholds."""
    import torch

    from annotators.checkpoints import find_checkpoint
    from annotators.pyannote_import import quiet_pyannote
    from annotators.pyannote_models import load_network
    from annotators.pyannote_vad import PyannoteVadConfig
    from annotators.weights import packaged_path

    torch.set_num_threads(1)
    config = PyannoteVadConfig()
    with quiet_pyannote():
        from pyannote.audio.pipelines import VoiceActivityDetection

        pipeline = VoiceActivityDetection(segmentation=load_network(find_checkpoint(packaged_path("whisperx", "assets"))))
    durations = {"min_duration_on": config.min_speech_s, "min_duration_off": config.min_silence_s}
    pipeline.instantiate({"onset": config.onset, "offset": config.offset, **durations})

    def call(audio: Audio) -> list[tuple[int, int]]:
        found = pipeline({"waveform": torch.from_numpy(audio)[None], "sample_rate": MODEL_RATE_HZ})
        return [(round(s.start * MODEL_RATE_HZ), round(s.end * MODEL_RATE_HZ)) for s in found.get_timeline().support()]

    return call


def transformers_pipeline(task: str, folder: Callable[[], str], **settings: Any) -> Call:
    """transformers' pipeline, a clip a call: batches of several lengths would be padded, which changes what is heard."""
    import torch
    import transformers
    from transformers.pipelines import audio_classification, automatic_speech_recognition

    torch.set_num_threads(1)
    # It imports torchcodec where that is installed, even for samples; the import needs FFmpeg's libraries.
    audio_classification.is_torchcodec_available = automatic_speech_recognition.is_torchcodec_available = lambda: False
    pipeline: Any = transformers.pipeline(task, model=folder(), device="cpu")
    return lambda audio: pipeline({"raw": audio, "sampling_rate": MODEL_RATE_HZ}, **settings)


def faster_whisper() -> Call:
    """What whisperx runs, without its batches: one clip a call, with silence up to 30 s, no second tries at higher temperatures."""
    from faster_whisper import WhisperModel

    from annotators.asr_schema import WINDOW_SAMPLES
    from annotators.whisperx_asr import WhisperxConfig

    model = WhisperModel(whisper_folder("ctranslate2"), device="cpu", compute_type="float32", cpu_threads=1)
    no_tries = {"temperature": 0.0, "compression_ratio_threshold": None, "log_prob_threshold": None, "no_speech_threshold": None}
    settings = {"beam_size": WhisperxConfig.model_fields["beam_size"].default, "without_timestamps": True, **no_tries}

    def call(audio: Audio) -> str:
        window = np.pad(audio, (0, max(0, WINDOW_SAMPLES - len(audio))))
        return "".join(segment.text for segment in model.transcribe(window, **settings)[0]).strip()

    return call


STOCK: dict[str, dict[str, Callable[[], Call]]] = {
    "silero": {"silero_vad": silero},
    "pyannote": {"pyannote.audio, the same networks": pyannote},
    "pyannote_vad": {"pyannote.audio": pyannote_vad},
    "dnsmos": {"speechmos": dnsmos},
    "pocketsphinx": {
        "a fresh Decoder a clip": partial(pocketsphinx, fresh=True),
        "one Decoder, `reinit_feat`: posteriors remember": partial(pocketsphinx, fresh=False),
    },
    "speaker_embedding": {
        "Resemblyzer": partial(speaker_embedding, 1.3),  # its default
        "Resemblyzer, windows that touch": partial(speaker_embedding, 1 / 1.6),
    },
    "prosody": {"swift-f0, pyloudnorm": prosody},
    "hf_ctc": {"transformers": partial(transformers_pipeline, ASR, ctc_folder, return_timestamps="word")},
    "hf_whisper": {
        "transformers": partial(transformers_pipeline, ASR, partial(whisper_folder, "transformers"), generate_kwargs=TRANSCRIBE)
    },
    "whisperx": {"faster-whisper": faster_whisper},
    "audio_classifier": {"transformers": partial(transformers_pipeline, "audio-classification", classifier_folder)},
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
    if kind in TEXTS:
        said = [say["text"] if isinstance(say, dict) else say for say in theirs]
        same = [plain(row["text"]) == plain(text) for row, text in zip(rows, said, strict=True)]
        texts = f"{sum(same)} of {len(rows)} texts"
        if kind != "pocketsphinx":
            return texts
        ours_probs = [[word["confidence"] for word in row["words"]] for row in rows]
        alike = [
            np.allclose(probs, np.minimum(say["posteriors"], 1.0), rtol=0, atol=1e-7)
            for probs, say in zip(ours_probs, theirs, strict=True)
            if len(probs) == len(say["posteriors"])
        ]
        return f"{texts}, {sum(alike)} with the same posteriors"
    if kind == "audio_classifier":
        ours_prob = [{found["label"]: found["prob"] for found in row["posterior"]} for row in rows]
        gaps = [abs(a[s["label"]] - s["score"]) for a, say in zip(ours_prob, theirs, strict=True) for s in say]
        return f"within {max(gaps):.0e}"
    if kind == "speaker_embedding":
        pairs = [(row["embedding"], vector) for row, vector in zip(rows, theirs, strict=True) if row["embedding"]]
        return f"cosine at least {min(float(np.dot(a, b)) for a, b in pairs):.4f}"
    near = [abs(row["pitch_hz"] / hz - 1) < 0.02 for row, hz in zip(rows, theirs, strict=True) if row["pitch_hz"]]
    return f"{sum(near)} of {len(near)} median pitches within 2 %"


def plain(text: str) -> str:
    """Without spaces, and without the unknown letters that transformers spells out."""
    return text.replace("<unk>", "").replace(" ", "")


def speech_frames(spans: list[tuple[int, int]]) -> np.ndarray:
    """Bool: 10 ms frames that a span covers."""
    frames = np.zeros(max((end for _, end in spans), default=0) * FRAMES_A_SECOND // MODEL_RATE_HZ + 1, bool)
    for start, end in spans:
        frames[start * FRAMES_A_SECOND // MODEL_RATE_HZ : end * FRAMES_A_SECOND // MODEL_RATE_HZ] = True
    return frames
