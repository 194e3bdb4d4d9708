"""Multilingual ASR by whisperx: Whisper on CTranslate2 in batches, and wav2vec2 alignment where it is asked for.

The weights are a converted checkpoint: a local folder, or a hub id that is already in the hub's cache. Nothing is
fetched unless the recipe says ``may_download``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from annotators.asr_schema import ASR_ADDS, MIN_CLIP_SAMPLES, SILENT_ROW, Word, asr_row, is_silent
from annotators.pyannote_import import quiet_pyannote
from annotators.weights import packaged_path, path_digest
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.errors import ModelUnavailable
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint

WINDOW_SAMPLES = 30 * MODEL_RATE_HZ  # what Whisper hears at once
SPACELESS = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


class Heard(NamedTuple):
    """What was heard in one window: start at 16 kHz in the clip, natural log probability of the text, its tokens with the end."""

    start_sample: int
    text: str
    language: str
    logprob: float
    num_tokens: int


class WhisperxConfig(AnnotatorConfigBase):
    """Whisper through whisperx. ``language: null`` detects it clip by clip."""

    kind: Literal["whisperx"] = "whisperx"
    model: str = Field(
        default="Systran/faster-whisper-large-v3", description="folder of a CTranslate2 checkpoint, hub id, or size (large-v3)"
    )
    revision: str | None = Field(default=None, description="commit of the hub id, so that the fingerprint pins the weights")
    may_download: bool = Field(False, description="fetch a hub id that is not in the cache")
    language: str | None = Field(default=None, description="ISO 639-1; null: detect")
    align_model: str | None = Field(
        default=None, description="wav2vec2 CTC checkpoint for word times: folder or hub id; null: no words"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    compute_type: Literal["float32", "float16", "int8", "int8_float16"] = "float32"
    beam_size: int = Field(default=5, ge=1)
    batch_size: int = Field(default=16, ge=1, description="clips decoded together")

    @model_validator(mode="after")
    def _alignment_has_a_language(self) -> Self:
        if self.align_model and not self.language:
            raise ValueError(f"align_model = {self.align_model!r} knows one language; state it as `language`")
        return self

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
    batch_tolerance = 1e-4  # clips are decoded in one batch, whose size changes the order of sums

    def __init__(self, config: WhisperxConfig) -> None:
        self.config = config
        self._model: Any = None
        self._align: tuple[Any, dict[str, Any]] | None = None

    @property
    def resources(self) -> Resources:
        on_gpu = self.config.device == "cuda"
        return Resources(pool="asr", num_cpus=1.0, num_gpus=1.0 if on_gpu else 0.0, memory_bytes=8 << 30, batch_audio_s=600.0)

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return tuple(
            ModelFact(name, self.config.revision, _identity(folder), None)
            for name, folder in zip((self.config.model, self.config.align_model), self._folders(), strict=True)
            if name and folder
        )

    def fingerprint(self) -> str:
        # The device is in it: its kernels sum otherwise, and a beam near a tie then ends in another text.
        parameters = self.config.model_dump(mode="json", exclude={"when", "model", "align_model", "may_download", "batch_size"})
        weights = [_identity(folder) for folder in self._folders() if folder]
        return fingerprint(self.name, self.version, parameters, "+".join(weights))

    def setup(self) -> None:
        if self._model is not None:
            return
        packaged_path("whisperx")  # a missing package is told before anything is fetched
        with quiet_pyannote():
            import torch
            from whisperx.alignment import load_align_model
            from whisperx.asr import WhisperModel

        torch.set_num_threads(1)
        folder, align = self._folders()
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
            _check_sentence_splitter()
            self._align = load_align_model(self.config.language, self.config.device, align, model_cache_only=True)
        self._model = model

    def _folders(self) -> tuple[str, str | None]:
        """Local folders of the Whisper and, where one is asked for, the alignment checkpoint. Raises ModelUnavailable.

        A fingerprint needs them too: a hub name says nothing of which weights it stands for today.
        """
        packaged_path("faster_whisper")
        from faster_whisper.utils import download_model
        from huggingface_hub import snapshot_download

        align = self.config.align_model
        return (
            self._local(download_model, self.config.model, revision=self.config.revision),
            self._local(snapshot_download, align) if align else None,
        )

    def _local(self, find: Callable[..., str], name: str, **where: str | None) -> str:
        """The folder of a checkpoint. Raises ModelUnavailable when it is neither on this machine nor may be fetched."""
        if os.path.isdir(name):
            return name
        try:
            return str(find(name, local_files_only=not self.config.may_download, **where))
        except Exception as error:  # the hub client raises a dozen kinds, from bad names to no network: one remedy for all
            raise ModelUnavailable(
                f"whisperx model {name!r} is not on this machine; fetch it with `huggingface-cli download`, "
                "give the recipe a local folder instead, or set `may_download: true`"
            ) from error

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        windows = [(i, start, audio_S) for i, audio_S in enumerate(batch.audio) for start in _window_starts(audio_S)]
        heard: dict[int, list[Heard]] = {}
        for first in range(0, len(windows), self.config.batch_size):
            group = windows[first : first + self.config.batch_size]
            for (i, _, _), answer in zip(group, self._transcribe(group), strict=True):
                heard.setdefault(i, []).append(answer)
        rows = [
            self._row(audio_S, heard[i]) if i in heard else SILENT_ROW if len(audio_S) >= MIN_CLIP_SAMPLES else None
            for i, audio_S in enumerate(batch.audio)
        ]
        return batch.table(rows, self.adds)

    def _transcribe(self, windows: Sequence[tuple[int, int, Audio]]) -> list[Heard]:
        """What was heard in windows (row, start sample, the row's audio), decoded as one batch."""
        import torch
        from faster_whisper.tokenizer import Tokenizer
        from whisperx.audio import log_mel_spectrogram

        mels = self._model.feat_kwargs.get("feature_size") or 80
        pieces = [audio_S[start : start + WINDOW_SAMPLES] for _, start, audio_S in windows]
        features = [log_mel_spectrogram(piece_S, mels, padding=WINDOW_SAMPLES - len(piece_S)) for piece_S in pieces]
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
        for (_, start, _), result, language in zip(windows, results, languages, strict=True):
            tokens = result.sequences_ids[0]
            text = tokenizers[language].decode([token for token in tokens if token < tokenizers[language].eot]).strip()
            # CTranslate2 gives the mean over the tokens; the end token is counted with them.
            answers.append(Heard(start, text, language, result.scores[0] * len(tokens), len(tokens) + 1))
        return answers

    def _row(self, audio_S: Audio, heard: Sequence[Heard]) -> dict[str, Any]:
        language = heard[0].language
        text = ("" if language in SPACELESS else " ").join(part.text for part in heard if part.text)
        avg_logprob = sum(part.logprob for part in heard) / sum(part.num_tokens for part in heard)
        words = self._words(audio_S, [(part.start_sample, part.text) for part in heard])
        posteriors = [word.confidence for word in words or () if word.confidence is not None]
        confidence = float(np.mean(posteriors)) if posteriors else math.exp(avg_logprob)
        return asr_row(text, language, words, confidence if text else None, avg_logprob)

    def _words(self, audio_S: Audio, texts: Sequence[tuple[int, str]]) -> list[Word] | None:
        """Words by forced alignment of (start sample of the window, text).

        A word without a letter that the alignment model knows has no time and is left out.
        None when nothing could be aligned, as where the text has more letters than the audio has frames.
        """
        if self._align is None:
            return None
        from whisperx.alignment import align

        model, metadata = self._align
        spoken = [
            {
                "text": text,
                "start": start / MODEL_RATE_HZ,
                "end": min(start + WINDOW_SAMPLES, len(audio_S)) / MODEL_RATE_HZ,
            }
            for start, text in texts
            if text
        ]
        if not spoken:
            return []
        aligned = align(spoken, model, metadata, audio_S, self.config.device)["word_segments"]
        words = [
            Word(
                word["word"],
                round(word["start"] * MODEL_RATE_HZ),
                min(len(audio_S), round(word["end"] * MODEL_RATE_HZ)),
                float(word["score"]) if "score" in word else None,
            )
            for word in aligned
            if "start" in word and "end" in word
        ]
        return words or None


def _check_sentence_splitter() -> None:
    """whisperx fetches nltk's sentence splitter in the middle of the work where it is missing; this asks for it before."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError as error:
        raise ModelUnavailable(
            "whisperx alignment needs nltk's data 'punkt_tab', which is not here; fetch it with `python -m nltk.downloader punkt_tab`"
        ) from error


def _identity(folder: str) -> str:
    """The hub's commit for a folder of its cache (``.../snapshots/<commit>``), else a digest of the files."""
    parent, name = os.path.split(os.path.realpath(folder))
    return name if os.path.basename(parent) == "snapshots" else path_digest(folder)


def _window_starts(audio_S: Audio) -> list[int]:
    """Starts of the windows of 30 s that have sound in them; no window under 0.1 s."""
    pieces = [(start, audio_S[start : start + WINDOW_SAMPLES]) for start in range(0, len(audio_S), WINDOW_SAMPLES)]
    return [start for start, piece_S in pieces if len(piece_S) >= MIN_CLIP_SAMPLES and not is_silent(piece_S)]
