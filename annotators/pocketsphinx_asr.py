"""English ASR by pocketsphinx with the model inside its wheel.

It runs offline anywhere and proves that the chain works. More than half of the words it writes are wrong: nothing
should be trained on its text.
"""

from __future__ import annotations

import math
import os
import re
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from annotators.asr_schema import ASR_ADDS, MIN_CLIP_SAMPLES, SILENT_ROW, Word, asr_row
from annotators.forked_decoder import ForkedDecoder
from annotators.silence import is_silent
from annotators.weights import packaged_model, packaged_path, path_digest
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint

FRAME_SAMPLES = MODEL_RATE_HZ // 100
LANGUAGE = "en"
FILLER = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")  # <s>, <sil>, [SPEECH], ++NOISE++
PRONUNCIATION = re.compile(r"\(\d+\)$")  # "hello(2)" is the second way to say "hello"
SMALLEST_POSTERIOR = 1e-10


class PocketsphinxConfig(AnnotatorConfigBase):
    """pocketsphinx with one pass over the lattice; the two limits make it about five times faster than its defaults."""

    kind: Literal["pocketsphinx"] = "pocketsphinx"
    max_active_hmms: int = Field(default=3000, ge=100, description="HMMs kept a frame")
    max_words_a_frame: int = Field(default=5, ge=1, description="words that may end in a frame")

    def build(self) -> Pocketsphinx:
        return Pocketsphinx(self)


class Pocketsphinx:
    """Annotator: text, words and confidence of a clip; abstains under 0.1 s."""

    name = "pocketsphinx"
    version = "3"
    hears = Hearing.MODEL
    reads: tuple[str, ...] = ()
    adds = ASR_ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="asr", num_cpus=1.0, memory_bytes=512 << 20)

    def __init__(self, config: PocketsphinxConfig) -> None:
        self.config = config
        self._decoder: ForkedDecoder | None = None

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (packaged_model("BSD-2-Clause", "pocketsphinx", "model", "en-us"),)

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, self.config.identity(), path_digest(_model_path()))

    def setup(self) -> None:
        self._loaded()

    @property
    def options(self) -> dict[str, Any]:
        """What the decoder is loaded with."""
        model = _model_path()
        return {
            "hmm": os.path.join(model, "en-us"),
            "lm": os.path.join(model, "en-us.lm.bin"),
            "dict": os.path.join(model, "cmudict-en-us.dict"),
            "cmn": "batch",
            "fwdflat": False,
            "maxhmmpf": self.config.max_active_hmms,
            "maxwpf": self.config.max_words_a_frame,
            "loglevel": "FATAL",
        }

    def _loaded(self) -> ForkedDecoder:
        if self._decoder is None:
            self._decoder = ForkedDecoder(self.options)
        return self._decoder

    def annotate(self, batch: ClipBatch) -> pa.Table:
        decoder = self._loaded()
        return batch.table([self._recognise(decoder, audio) for audio in batch.audio], self.adds)

    def _recognise(self, decoder: ForkedDecoder, audio_S: Audio) -> dict[str, Any] | None:
        if len(audio_S) < MIN_CLIP_SAMPLES:
            return None
        if is_silent(audio_S):
            return SILENT_ROW
        pcm = (np.clip(audio_S, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        words = [
            Word(
                PRONUNCIATION.sub("", word),
                first_frame * FRAME_SAMPLES,
                min(len(audio_S), (last_frame + 1) * FRAME_SAMPLES),
                min(1.0, posterior),
            )
            for word, first_frame, last_frame, posterior in decoder.decode(pcm)
            if not FILLER.match(word)
        ]
        text = " ".join(word.word for word in words)
        if not words:
            return asr_row(text, LANGUAGE, words, None, None, num_unaligned_words=0)
        posteriors = [word.confidence or 0.0 for word in words]
        avg_logprob = float(np.mean([math.log(max(p, SMALLEST_POSTERIOR)) for p in posteriors]))
        return asr_row(text, LANGUAGE, words, float(np.mean(posteriors)), avg_logprob, num_unaligned_words=0)


def _model_path() -> str:
    return packaged_path("pocketsphinx", "model", "en-us")
