"""Any transformers speech-to-text checkpoint, by hub id or folder: Whisper, and CTC networks (wav2vec2, HuBERT, ...)."""

from __future__ import annotations

from typing import Any, Literal, Protocol, Self

import pyarrow as pa
from pydantic import Field, model_validator

from annotators.asr_schema import ASR_ADDS, MIN_CLIP_SAMPLES, SILENT_ROW, WINDOW_SAMPLES, Alignment, window_starts
from annotators.checkpoints import Checkpoint, check_type, find_checkpoint, network_identity
from annotators.ctc_network import CtcNetwork, check_ctc
from annotators.heard_windows import Heard, clip_row
from annotators.hf_ctc_reader import CtcReader
from annotators.hf_whisper_reader import WHISPER, WhisperReader, check_whisper
from annotators.recogniser_config import RecogniserConfigBase
from manifests.contracts import Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.lineage import fingerprint


class Reader(Protocol):
    """A loaded recogniser."""

    def read(self, windows: list[Audio], languages: list[str | None]) -> list[tuple[Heard, Alignment | None]]:
        """What each window says, in the language that is given or, for None, as the model finds; words relative to its start.

        Without words that were asked for, no alignment.
        """
        ...


class HfAsrConfig(RecogniserConfigBase):
    """A transformers recogniser. Whisper detects the language clip by clip where none is given; a CTC network has one."""

    kind: Literal["hf_asr"] = "hf_asr"
    model: str = Field(description="folder or hub id of a transformers speech-to-text checkpoint (Whisper or CTC)")
    words: bool = Field(
        default=True,
        description="words with times: of CTC from its frames, of Whisper from the cross-attention of its alignment heads",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        default="float32", description="precision of weights and sums; the halves only on a GPU"
    )
    beam_size: int = Field(default=1, ge=1, description="hypotheses that Whisper keeps while decoding; 1 is greedy")

    @model_validator(mode="after")
    def _halves_need_a_gpu(self) -> Self:
        if self.dtype != "float32" and self.device == "cpu":
            raise ValueError(f"dtype = {self.dtype!r} needs device: cuda; on a CPU say float32")
        return self

    def build(self) -> HfAsr:
        return HfAsr(self)


class HfAsr:
    """Annotator: text, language, words and confidence of a clip; abstains under 0.1 s.

    Clips over 30 s are cut into windows of 30 s, all in the language of the first.
    """

    name = "hf_asr"
    version = "3"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = ASR_ADDS
    batch_tolerance = 1e-4  # windows are heard in one batch, whose size changes the order of sums

    def __init__(self, config: HfAsrConfig) -> None:
        self.config = config
        self._checkpoint: Checkpoint | None = None
        self._reader: Reader | None = None

    @property
    def resources(self) -> Resources:
        on_gpu = self.config.device == "cuda"
        return Resources(pool="hf_asr", num_cpus=1.0, num_gpus=1.0 if on_gpu else 0.0, memory_bytes=8 << 30, batch_audio_s=600.0)

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (self._found().fact(),)

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, network_identity(self.config), self._found().digest)

    def _found(self) -> Checkpoint:
        """The checkpoint, once it is known to be a recogniser. Raises ModelUnavailable."""
        if self._checkpoint is None:
            from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

            found = find_checkpoint(self.config.model, self.config.revision, may_download=self.config.may_download)
            check_type(found, {WHISPER, *MODEL_FOR_CTC_MAPPING_NAMES}, "speech-to-text model (Whisper or CTC)")
            (check_whisper if found.config["model_type"] == WHISPER else check_ctc)(found)
            self._checkpoint = found
        return self._checkpoint

    def setup(self) -> None:
        if self._reader is not None:
            return
        found, config = self._found(), self.config
        if found.config["model_type"] == WHISPER:
            self._reader = WhisperReader(
                found, config.device, config.dtype, config.beam_size, config.language, with_words=config.words
            )
        else:
            network = CtcNetwork(found, config.device, config.dtype)
            self._reader = CtcReader(network, config.batch_size, with_words=config.words)

    def annotate(self, batch: ClipBatch) -> pa.Table:
        self.setup()
        assert self._reader is not None
        windows = [(row, start, audio_S) for row, audio_S in enumerate(batch.audio) for start in window_starts(audio_S)]
        first_windows = [number for number, (row, _, _) in enumerate(windows) if not number or windows[number - 1][0] != row]
        later_windows = sorted(set(range(len(windows))) - set(first_windows))
        answers: dict[int, tuple[Heard, Alignment | None]] = {}
        language_of = dict.fromkeys(range(len(batch)), self.config.language)
        # A clip's language is found in its first window and holds for all of them.
        for numbers in (first_windows, later_windows):
            for first in range(0, len(numbers), self.config.batch_size):
                group = numbers[first : first + self.config.batch_size]
                pieces = [windows[number][2][windows[number][1] :][:WINDOW_SAMPLES] for number in group]
                languages = [language_of[windows[number][0]] for number in group]
                answers |= zip(group, self._reader.read(pieces, languages), strict=True)
            language_of |= {windows[number][0]: answers[number][0].language for number in numbers}
        of_row: dict[int, list[int]] = {}
        for number, (row, _, _) in enumerate(windows):
            of_row.setdefault(row, []).append(number)
        rows = [
            self._row([(windows[number][1], *answers[number]) for number in of_row[row]])
            if row in of_row
            else SILENT_ROW
            if len(audio_S) >= MIN_CLIP_SAMPLES
            else None
            for row, audio_S in enumerate(batch.audio)
        ]
        return batch.table(rows, self.adds)

    def _row(self, windows: list[tuple[int, Heard, Alignment | None]]) -> dict[str, Any]:
        """The row of a clip from (start sample, what was heard, its words) of each window."""
        alignments = [
            alignment._replace(words=[word.moved(start) for word in alignment.words])
            for start, _, alignment in windows
            if alignment is not None
        ]
        return clip_row([heard for _, heard, _ in windows], alignments if self.config.words else None)
