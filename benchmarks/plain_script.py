"""The plain script: one process, one file after the other, every model in turn. No engine, no corpus, no resume.

    .venv/bin/python benchmarks/plain_script.py a.flac b.flac --models stock --out rows.jsonl

``--models stock`` calls the models through their packages' own wrappers, the way Emilia-Pipe does, with the parameters of
the recipe ``offline``; ``--models ours`` calls this project's parts in the same loop, which times the models alone. Signal,
prosody and style have no stock wrapper: both call ours. Clips are cut by our rules, so that the rows can be compared.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import soundfile
from own_process import Timer

from annotators.diarization import DiarizationConfig
from annotators.pocketsphinx_asr import PocketsphinxConfig
from annotators.pyannote_import import quiet_pyannote
from annotators.weights import packaged_path
from manifests import ids
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio, ClipBatch
from manifests.recipes import load_recipe
from manifests.schema import CLIPS, table_of
from manifests.spans import Span, total
from pipeline.clipset import CutClip, cut_clips
from pipeline.recipe import BuildRecipe

SCORES = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808")
FACTS = ("signal", "prosody", "style")  # through our annotators whatever the models


class Models(Protocol):
    """The four models that both ways of calling share."""

    threads: str  # what the wrappers take, in words

    def speech(self, audio: Audio) -> list[Span]: ...
    def turns(self, audio: Audio) -> list[tuple[Span, str]]: ...
    def text(self, batch: ClipBatch) -> str | None: ...
    def scores(self, batch: ClipBatch) -> list[float] | None: ...


class Ours:
    """The parts of the recipe, one clip a batch."""

    threads = "1 in every model"

    def __init__(self, recipe: BuildRecipe) -> None:
        self._vad, self._diarization = (recipe.segmenters[name].build() for name in ("vad", "diarization"))
        self._asr, self._dnsmos = (recipe.annotators[name].build() for name in ("asr", "dnsmos"))
        for part in (self._vad, self._diarization, self._asr, self._dnsmos):
            part.setup()

    def speech(self, audio: Audio) -> list[Span]:
        return [heard.span for heard in self._vad.segment(ChannelAudio(b"", 0, audio))]

    def turns(self, audio: Audio) -> list[tuple[Span, str]]:
        return [(heard.span, heard.speaker_label or "") for heard in self._diarization.segment(ChannelAudio(b"", 0, audio))]

    def text(self, batch: ClipBatch) -> str | None:
        return self._asr.annotate(batch).to_pylist()[0]["text"]

    def scores(self, batch: ClipBatch) -> list[float] | None:
        row = self._dnsmos.annotate(batch).to_pylist()[0]
        return [row[name] for name in SCORES] if row["status"] == "ok" else None


class Stock:
    """The packages' wrappers. speechmos needs librosa, which this project does not."""

    def __init__(self, recipe: BuildRecipe) -> None:
        import pocketsphinx
        import silero_vad
        import speechmos.dnsmos
        import torch

        config, asr = recipe.segmenters["diarization"], recipe.annotators["asr"]
        assert isinstance(config, DiarizationConfig)
        assert isinstance(asr, PocketsphinxConfig)
        self._torch, self._silero, self._speechmos = torch, silero_vad, speechmos.dnsmos
        self._vad = silero_vad.load_silero_vad(onnx=True)
        with quiet_pyannote():
            from annotators.diarization_pipeline import load_pipeline

            # pyannote's own constructor wants the hub; everything after it is pyannote's.
            self._pipeline = load_pipeline(packaged_path("whisperx", "assets", "pytorch_model.bin"), config.segmentation_step)
        config.build().configure(self._pipeline)
        limits = {"maxhmmpf": asr.max_active_hmms, "maxwpf": asr.max_words_a_frame}
        self._decoder = pocketsphinx.Decoder(cmn="batch", fwdflat=False, loglevel="FATAL", **limits)
        self.threads = f"silero 1 (its own setting), torch {torch.get_num_threads()}, pocketsphinx 1, DNSMOS onnxruntime's default (all cores)"

    def speech(self, audio: Audio) -> list[Span]:
        found = self._silero.get_speech_timestamps(self._torch.from_numpy(audio), self._vad)
        return [Span(span["start"], span["end"]) for span in found]

    def turns(self, audio: Audio) -> list[tuple[Span, str]]:
        found = self._pipeline({"waveform": self._torch.from_numpy(audio)[None], "sample_rate": MODEL_RATE_HZ, "uri": "file"})
        tracks = found.speaker_diarization.itertracks(yield_label=True)
        return [(Span(round(s.start * MODEL_RATE_HZ), round(s.end * MODEL_RATE_HZ)), label) for s, _, label in tracks]

    def text(self, batch: ClipBatch) -> str | None:
        self._decoder.start_utt()
        pcm = (np.clip(batch.audio[0], -1.0, 1.0) * 32767.0).astype("<i2")
        self._decoder.process_raw(pcm.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""

    def scores(self, batch: ClipBatch) -> list[float] | None:
        row = self._speechmos.run(batch.audio[0], MODEL_RATE_HZ)
        return [float(row[f"{name.removeprefix('dnsmos_')}_mos"]) for name in SCORES]


def compared_recipe() -> BuildRecipe:
    """The recipe ``offline``, its VAD's edges not refined: the package refines none, and clips are compared by their edges."""
    recipe = load_recipe(BuildRecipe, "pipeline", "offline")
    name = recipe.clip_set.speech
    unrefined = recipe.segmenters[name].model_copy(update={"refine_ms": 0})
    return recipe.model_copy(update={"segmenters": {**recipe.segmenters, name: unrefined}})


def run_script(files: list[str], models: str, out: str) -> dict[str, Any]:
    """Write one JSON line a clip to ``out``; returns the seconds by model (``parts``), of the rest, and of the whole."""
    began_wall, began_cpu = time.perf_counter(), time.process_time()
    recipe, timer = compared_recipe(), Timer()
    called: Models = timer.call("loading models", Stock if models == "stock" else Ours, recipe)
    facts = {name: recipe.annotators[name].build() for name in FACTS}
    audio_s, num_clips = 0.0, 0
    with open(out, "w", encoding="utf-8") as rows:
        for file in files:
            audio = timer.call("reading", _read, file)
            audio_s += len(audio) / MODEL_RATE_HZ
            speech = timer.call("vad", called.speech, audio)
            turns = timer.call("diarization", called.turns, audio)
            for clip in cut_clips(speech, turns, len(audio), MODEL_RATE_HZ, recipe.clip_set):
                batch = _batch(clip, audio)
                row: dict[str, Any] = {"file": file, **clip.span._asdict(), "speaker_label": clip.speaker_label}
                row["text"] = timer.call("asr", called.text, batch)
                row["scores"] = timer.call("dnsmos", called.scores, batch)
                layers: dict[str, pa.Table] = {}
                for name, part in facts.items():
                    read = ClipBatch(batch.clips, batch.audio, batch.sample_rates_hz, {n: layers[n] for n in part.reads})
                    layers[name] = timer.call(name, part.annotate, read)
                    row[name] = layers[name].drop_columns(["clip_id", "status", "error"]).to_pylist()[0]
                rows.write(json.dumps(row) + "\n")
                num_clips += 1
    whole = {"wall_s": time.perf_counter() - began_wall, "cpu_s": time.process_time() - began_cpu}
    other = {name: timer.seconds.pop(name) for name in ("loading models", "reading")}
    return {
        "audio_s": audio_s,
        "num_clips": num_clips,
        "threads": called.threads,
        "parts": timer.seconds,
        "other": other,
        **whole,
    }


def _read(file: str) -> Audio:
    audio, rate = soundfile.read(file, dtype="float32")
    if audio.ndim != 1:
        raise SystemExit(f"{file}: {audio.shape[1]} channels; the plain script takes files of one channel, leave this one out")
    return resample(audio, rate, MODEL_RATE_HZ)


def _batch(clip: CutClip, audio: Audio) -> ClipBatch:
    """The clip alone."""
    place = (bytes(16), 0, MODEL_RATE_HZ, *clip.span)
    row = dict(zip(("recording_id", "channel", "sample_rate_hz", "start_sample", "end_sample"), place, strict=True))
    row |= {"clip_id": ids.clip_id(*place), "speaker_label": clip.speaker_label}
    row |= {"speech_samples": total(clip.speech), "overlap_samples": total(clip.overlap)}
    row |= {"speech_spans": [s._asdict() for s in clip.speech], "overlap_spans": [s._asdict() for s in clip.overlap]}
    heard = audio[clip.span.start_sample : clip.span.end_sample]
    return ClipBatch(table_of([row], CLIPS), [heard], [MODEL_RATE_HZ])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--models", choices=["stock", "ours"], default="stock")
    parser.add_argument("--out", default="rows.jsonl")
    options = parser.parse_args()
    print(json.dumps(run_script([str(Path(file)) for file in options.files], options.models, options.out), indent=2))


if __name__ == "__main__":
    main()
