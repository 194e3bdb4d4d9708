"""Multilingual ASR by whisperx: Whisper on CTranslate2 in batches, and wav2vec2 alignment where it is asked for.

The weights are a converted checkpoint: a local folder, or a hub id that is already in the hub's cache. Nothing is
fetched unless the recipe says ``may_download``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from annotators.asr_schema import ASR_ADDS, MIN_CLIP_SAMPLES, Word, asr_row
from annotators.pyannote_import import quiet_pyannote
from annotators.weights import path_digest
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, Resources
from manifests.errors import ModelUnavailable
from manifests.lineage import fingerprint
from manifests.recipes import RecipeModel

WINDOW_SAMPLES = 30 * MODEL_RATE_HZ  # what Whisper hears at once
SPACELESS = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


class WhisperxConfig(RecipeModel):
    """Whisper through whisperx. ``language: null`` detects it clip by clip."""

    kind: Literal["whisperx"] = "whisperx"
    model: str = Field("Systran/faster-whisper-large-v3", description="folder of a CTranslate2 checkpoint, or a hub id")
    revision: str | None = Field(None, description="commit of the hub id, so that the fingerprint pins the weights")
    may_download: bool = Field(False, description="fetch a hub id that is not in the cache")
    language: str | None = Field(None, description="ISO 639-1; null: detect")
    align_model: str | None = Field(None, description="wav2vec2 CTC checkpoint for word times: folder or hub id; null: no words")
    device: Literal["cpu", "cuda"] = "cpu"
    compute_type: Literal["float32", "float16", "int8", "int8_float16"] = "float32"
    beam_size: int = Field(5, ge=1)
    batch_size: int = Field(16, ge=1, description="clips decoded together")

    def build(self) -> Whisperx:
        return Whisperx(self)


class Whisperx:
    """Annotator: text, language and, with ``align_model``, words of a clip; abstains under 0.1 s.

    Clips over 30 s are cut into windows of 30 s. Confidence is the mean word posterior of the alignment, or without one
    the geometric mean of the token probabilities.
    """

    name = "whisperx"
    version = "1"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = ASR_ADDS

    def __init__(self, config: WhisperxConfig) -> None:
        self.config = config
        self._model: Any = None
        self._align: tuple[Any, dict[str, Any]] | None = None

    @property
    def resources(self) -> Resources:
        on_gpu = self.config.device == "cuda"
        return Resources(pool="asr", num_cpus=1.0, num_gpus=1.0 if on_gpu else 0.0, memory_bytes=8 << 30, batch_audio_s=600.0)

    def fingerprint(self) -> str:
        parameters = self.config.model_dump(mode="json", exclude={"model", "align_model", "may_download", "device", "batch_size"})
        weights = [
            path_digest(name) if name and os.path.isdir(name) else name for name in (self.config.model, self.config.align_model)
        ]
        return fingerprint(self.name, self.version, {**parameters, "weights": weights})

    def setup(self) -> None:
        if self._model is not None:
            return
        folder = self._local(self.config.model, self.config.revision)
        align = self._local(self.config.align_model, None) if self.config.align_model else None
        with quiet_pyannote():
            from whisperx.alignment import load_align_model
            from whisperx.asr import WhisperModel

        try:
            model = WhisperModel(
                folder,
                device=self.config.device,
                compute_type=self.config.compute_type,
                cpu_threads=1,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelUnavailable(
                f"whisperx model {self.config.model!r} does not load: {' '.join(str(error).split())}; "
                "give a folder with a CTranslate2 Whisper checkpoint and its tokenizer.json"
            ) from error
        if align is not None:
            self._align = load_align_model(self.config.language or "en", self.config.device, align, model_cache_only=True)
        self._model = model

    def _local(self, name: str, revision: str | None) -> str:
        """The folder of a checkpoint. Raises ModelUnavailable when it is neither on this machine nor may be fetched."""
        if os.path.isdir(name):
            return name
        from huggingface_hub import snapshot_download

        try:
            return str(snapshot_download(name, revision=revision, local_files_only=not self.config.may_download))
        except Exception as error:  # the hub client raises a dozen kinds, from bad names to no network: one remedy for all
            raise ModelUnavailable(
                f"whisperx model {name!r} is not on this machine; fetch it with `huggingface-cli download {name}`, "
                "give the recipe a local folder as `model`, or set `may_download: true`"
            ) from error

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        windows = [(i, window_S) for i, audio_S in enumerate(batch.audio) for window_S in _windows(audio_S)]
        heard: dict[int, list[tuple[str, str, float, int]]] = {}
        for first in range(0, len(windows), self.config.batch_size):
            group = windows[first : first + self.config.batch_size]
            for (i, _), answer in zip(group, self._transcribe([window_S for _, window_S in group]), strict=True):
                heard.setdefault(i, []).append(answer)
        rows = [self._row(audio_S, heard[i]) if i in heard else None for i, audio_S in enumerate(batch.audio)]
        return batch.table(rows, self.adds)

    def _transcribe(self, windows: Sequence[Audio]) -> list[tuple[str, str, float, int]]:
        """(text, language, total log probability, tokens counted) of windows of at most 30 s, decoded as one batch."""
        import torch
        from faster_whisper.tokenizer import Tokenizer
        from whisperx.audio import log_mel_spectrogram

        mels = self._model.feat_kwargs.get("feature_size") or 80
        features = [log_mel_spectrogram(window_S, mels, padding=WINDOW_SAMPLES - len(window_S)) for window_S in windows]
        encoded = self._model.encode(torch.stack(features).numpy())
        if self.config.language:
            languages = [self.config.language] * len(windows)
        elif self._model.model.is_multilingual:
            languages = [found[0][0].strip("<|>") for found in self._model.model.detect_language(encoded)]
        else:
            languages = ["en"] * len(windows)
        tokenizers = {
            language: Tokenizer(self._model.hf_tokenizer, self._model.model.is_multilingual, task="transcribe", language=language)
            for language in set(languages)
        }
        prompts = [self._model.get_prompt(tokenizers[language], [], without_timestamps=True) for language in languages]
        results = self._model.model.generate(
            encoded, prompts, beam_size=self.config.beam_size, max_length=self._model.max_length, return_scores=True
        )
        answers = []
        for result, language in zip(results, languages, strict=True):
            tokens = result.sequences_ids[0]
            text = tokenizers[language].decode([token for token in tokens if token < tokenizers[language].eot]).strip()
            # CTranslate2 gives the mean over the tokens; the end token is counted with them.
            answers.append((text, language, result.scores[0] * len(tokens), len(tokens) + 1))
        return answers

    def _row(self, audio_S: Audio, heard: list[tuple[str, str, float, int]]) -> dict[str, Any]:
        language = heard[0][1]
        text = ("" if language in SPACELESS else " ").join(part for part, *_ in heard if part)
        avg_logprob = sum(total for *_, total, _ in heard) / sum(count for *_, count in heard)
        words = self._words(audio_S, [part for part, *_ in heard])
        posteriors = [word.confidence for word in words or () if word.confidence is not None]
        confidence = float(np.mean(posteriors)) if posteriors else math.exp(avg_logprob)
        return asr_row(text, language, words, confidence if text else None, avg_logprob)

    def _words(self, audio_S: Audio, texts: Sequence[str]) -> list[Word] | None:
        """Words by forced alignment; those that have no letter the alignment model knows get no times and are left out."""
        if self._align is None:
            return None
        from whisperx.alignment import align

        model, metadata = self._align
        edges = [(i * 30.0, min((i + 1) * 30.0, len(audio_S) / MODEL_RATE_HZ)) for i in range(len(texts))]
        spoken = [
            {"text": text, "start": start, "end": end} for text, (start, end) in zip(texts, edges, strict=True) if text.strip()
        ]
        if not spoken:
            return []
        aligned = align(spoken, model, metadata, audio_S, self.config.device)["word_segments"]
        return [
            Word(
                word["word"],
                round(word["start"] * MODEL_RATE_HZ),
                min(len(audio_S), round(word["end"] * MODEL_RATE_HZ)),
                float(word["score"]) if "score" in word else None,
            )
            for word in aligned
            if "start" in word and "end" in word
        ]


def _windows(audio_S: Audio) -> list[Audio]:
    """Windows of at most 30 s; none for a clip under 0.1 s, and no rest under 0.1 s."""
    starts = range(0, len(audio_S), WINDOW_SAMPLES)
    windows = [audio_S[start : start + WINDOW_SAMPLES] for start in starts]
    return [window_S for window_S in windows if len(window_S) >= MIN_CLIP_SAMPLES]
