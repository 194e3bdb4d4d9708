"""Multilingual ASR by whisperx: Whisper on CTranslate2 in batches, and wav2vec2 alignment where it is asked for.

Alignment is our own Viterbi over the posteriors of the same wav2vec2 networks: whisperx's needs a sentence splitter that it
fetches at run time, and gives a word that it could not align the time of its neighbour.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from annotators.asr_schema import (
    ASR_ADDS,
    MIN_CLIP_SAMPLES,
    SILENT_ROW,
    WINDOW_SAMPLES,
    Alignment,
    window_starts,
    words_of,
)
from annotators.checkpoints import Checkpoint, check_device, find_checkpoint, loading, network_identity
from annotators.ctc_network import CtcNetwork, check_ctc
from annotators.heard_windows import Heard, clip_row
from annotators.pyannote_import import quiet_pyannote
from annotators.recogniser_config import RecogniserConfigBase, check_language
from annotators.weight_files import CTRANSLATE2_FILE, ctranslate2_type
from annotators.weights import packaged_path
from manifests.contracts import Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.errors import ModelUnavailable
from manifests.lineage import fingerprint

WHAT = "CTranslate2 Whisper checkpoint"
SPECIFICATION = "WhisperSpec"


class WhisperxConfig(RecogniserConfigBase):
    """Whisper through whisperx. ``language: null`` detects it clip by clip."""

    kind: Literal["whisperx"] = "whisperx"
    model: str = Field(
        default="Systran/faster-whisper-large-v3", description="folder of a CTranslate2 checkpoint, hub id, or size (large-v3)"
    )
    align_models: dict[str, str] = Field(
        default={},
        description="language -> wav2vec2 CTC checkpoint for word times (folder or hub id); empty: no words. Clips in another "
        "language have no words and say so",
    )
    compute_type: Literal["float32", "float16", "int8", "int8_float16"] = Field(
        default="float32", description="precision of Whisper's weights and sums"
    )
    beam_size: int = Field(default=5, ge=1, description="hypotheses kept while decoding; 1 is greedy")

    def build(self) -> Whisperx:
        return Whisperx(self)


class Whisperx:
    """Annotator: text, language and, with ``align_models``, words of a clip; abstains under 0.1 s.

    Clips over 30 s are cut into windows of 30 s, all in the language of the first.
    """

    name = "whisperx"
    version = "3"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = ASR_ADDS
    batch_tolerance = 1e-4  # clips are decoded in one batch, whose size changes the order of sums

    def __init__(self, config: WhisperxConfig) -> None:
        self.config = config
        self._checkpoint: Checkpoint | None = None
        self._aligner_checkpoints: dict[str, Checkpoint] | None = None
        self._model: Any = None
        self._aligners: dict[str, CtcNetwork] = {}

    @property
    def resources(self) -> Resources:
        on_gpu = self.config.device == "cuda"
        return Resources(pool="asr", num_cpus=1.0, num_gpus=1.0 if on_gpu else 0.0, memory_bytes=8 << 30, batch_audio_s=600.0)

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (self._found().fact(), *(found.fact() for found in self._found_aligners().values()))

    def fingerprint(self) -> str:
        aligners = {language: found.digest for language, found in sorted(self._found_aligners().items())}
        return fingerprint(self.name, self.version, network_identity(self.config, align_models=aligners), self._found().digest)

    def _found(self) -> Checkpoint:
        """The Whisper checkpoint, once it is known to be one. Raises ModelUnavailable."""
        if self._checkpoint is None:
            packaged_path("whisperx")  # a missing package is told before anything is fetched
            found = find_checkpoint(_hub_id(self.config.model), self.config.revision, may_download=self.config.may_download)
            _check_whisper(found)
            self._checkpoint = found
        return self._checkpoint

    def _found_aligners(self) -> dict[str, Checkpoint]:
        """Language -> checkpoint. Raises ModelUnavailable."""
        if self._aligner_checkpoints is None:
            checkpoints = {
                language: find_checkpoint(name, may_download=self.config.may_download)
                for language, name in self.config.align_models.items()
            }
            for found in checkpoints.values():
                check_ctc(found)
            self._aligner_checkpoints = checkpoints
        return self._aligner_checkpoints

    def setup(self) -> None:
        if self._model is not None:
            return
        found, aligners = self._found(), self._found_aligners()
        check_device(self.config.device)
        with quiet_pyannote():
            import torch
            from whisperx.asr import WhisperModel

        torch.set_num_threads(1)
        with loading(found, WHAT):
            model = WhisperModel(
                found.path,
                device=self.config.device,
                compute_type=self.config.compute_type,
                cpu_threads=1,
                local_files_only=True,
            )
        check_language(found, self.config.language, _languages_of(model))
        self._aligners = {language: CtcNetwork(aligner, self.config.device) for language, aligner in aligners.items()}
        self._model = model

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        windows = [(row, start, audio_S) for row, audio_S in enumerate(batch.audio) for start in window_starts(audio_S)]
        heard: dict[int, list[tuple[int, Heard]]] = {}
        for first in range(0, len(windows), self.config.batch_size):
            group = windows[first : first + self.config.batch_size]
            # A clip's first window comes before its others: what was detected there holds for all of them.
            known = [heard[row][0][1].language if row in heard else None for row, _, _ in group]
            for (row, start, _), answer in zip(group, self._transcribe(group, known), strict=True):
                heard.setdefault(row, []).append((start, answer))
        rows = [
            self._row(audio_S, heard[row]) if row in heard else SILENT_ROW if len(audio_S) >= MIN_CLIP_SAMPLES else None
            for row, audio_S in enumerate(batch.audio)
        ]
        return batch.table(rows, self.adds)

    def _transcribe(self, windows: Sequence[tuple[int, int, Audio]], known: Sequence[str | None]) -> list[Heard]:
        """What was heard in windows (row, start sample, the row's audio), decoded as one batch."""
        import torch
        from faster_whisper.tokenizer import Tokenizer
        from whisperx.audio import log_mel_spectrogram

        mels = self._model.feat_kwargs.get("feature_size") or 80
        pieces = [audio_S[start : start + WINDOW_SAMPLES] for _, start, audio_S in windows]
        features = [log_mel_spectrogram(piece_S, mels, padding=WINDOW_SAMPLES - len(piece_S)) for piece_S in pieces]
        encoded = self._model.encode(torch.stack(features).numpy())
        languages = self._languages(encoded, [row for row, _, _ in windows], known)
        tokenizers = {
            language: Tokenizer(self._model.hf_tokenizer, self._model.model.is_multilingual, task="transcribe", language=language)
            for language in {language for language, _ in languages}
        }
        prompts = [self._model.get_prompt(tokenizers[language], [], without_timestamps=True) for language, _ in languages]
        results = self._model.model.generate(
            encoded,
            prompts,
            beam_size=self.config.beam_size,
            max_length=self._model.max_length,
            return_scores=True,
            return_no_speech_prob=True,
        )
        answers = []
        for result, (language, language_prob) in zip(results, languages, strict=True):
            tokens = result.sequences_ids[0]
            text = tokenizers[language].decode([token for token in tokens if token < tokenizers[language].eot]).strip()
            # CTranslate2 gives the mean over the tokens; the end token is counted with them.
            logprob = result.scores[0] * len(tokens)
            answers.append(Heard(text, logprob, len(tokens) + 1, language, language_prob, result.no_speech_prob))
        return answers

    def _languages(self, encoded: Any, rows: Sequence[int], known: Sequence[str | None]) -> list[tuple[str, float | None]]:
        """Language of each window, and its probability where it was detected."""
        if self.config.language:
            return [(self.config.language, None)] * len(rows)
        if not self._model.model.is_multilingual:
            return [("en", None)] * len(rows)
        detected = [(found[0][0].strip("<|>"), float(found[0][1])) for found in self._model.model.detect_language(encoded)]
        first = {row: number for number, row in reversed(list(enumerate(rows)))}
        return [(said, None) if said else detected[first[row]] for row, said in zip(rows, known, strict=True)]

    def _row(self, audio_S: Audio, heard: Sequence[tuple[int, Heard]]) -> dict[str, Any]:
        alignments = [self._align(audio_S, start, part) for start, part in heard] if self.config.align_models else None
        return clip_row([part for _, part in heard], alignments)

    def _align(self, audio_S: Audio, start: int, heard: Heard) -> Alignment:
        """The words of one window by forced alignment, relative to the start of the clip."""
        language = heard.language or ""
        if not heard.text:
            return Alignment([])
        if language not in self._aligners:
            return Alignment([], len(words_of(heard.text, language)), f"no alignment model for language {language!r}")
        found = self._aligners[language].align(audio_S[start : start + WINDOW_SAMPLES], heard.text, language)
        return found._replace(words=[word.moved(start) for word in found.words])


def _languages_of(model: Any) -> list[str]:
    """Codes that a loaded Whisper has a token for; English alone where it is no multilingual one."""
    if not model.model.is_multilingual:
        return ["en"]
    return [code for code in model.supported_languages if model.hf_tokenizer.token_to_id(f"<|{code}|>") is not None]


def _hub_id(name: str) -> str:
    """The hub id behind a size such as large-v3; any other name as it is."""
    if os.path.isdir(name) or "/" in name:
        return name
    packaged_path("faster_whisper")
    from faster_whisper.utils import _MODELS  # its table of sizes; the public function over it downloads

    return str(_MODELS.get(name, name))


def _check_whisper(found: Checkpoint) -> None:
    """Raises ModelUnavailable where a folder does not hold what whisperx loads."""
    path = os.path.join(found.path, CTRANSLATE2_FILE)
    remedy = f"give the folder or id of a {WHAT}, or convert one with `ct2-transformers-converter`"
    if not os.path.exists(path):
        raise ModelUnavailable(f"model {found.name!r} has no {CTRANSLATE2_FILE}; {remedy}")
    kind = ctranslate2_type(path)
    if kind != SPECIFICATION:
        what = f"holds a {kind}" if kind else "is no file of CTranslate2"
        raise ModelUnavailable(f"model {found.name!r}: its {CTRANSLATE2_FILE} {what}; {remedy}")
    if not os.path.exists(os.path.join(found.path, "tokenizer.json")):
        # faster-whisper would fetch another model's here.
        raise ModelUnavailable(f"model {found.name!r} has no tokenizer.json; copy that of the checkpoint it was converted from")
