"""pyannote.audio's ``SpeakerDiarization`` on networks that need no hub: imported by ``Diarization.setup`` only.

Shape legend: S samples, C chunks of 5 s, K local speakers of a chunk (3), F segmentation frames, M mel bands, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pyannote.audio import Inference, Model
from pyannote.audio.core.pipeline import Pipeline
from pyannote.audio.pipelines import SpeakerDiarization
from pyannote.audio.pipelines.clustering import AgglomerativeClustering
from pyannote.core import SlidingWindowFeature
from pyannote.pipeline.parameter import ParamDict, Uniform

from annotators.speaker_encoder import FRAMES_A_SECOND, WIDTH, SpeakerEncoder

SEGMENTATION_BATCH = 16
MIN_CLEAN_FRAMES = 40  # 0.4 s of one voice alone; with less, the embedding takes overlapped speech too


class EncoderShape:
    """What ``SpeakerDiarization.apply`` asks of its embedding part besides ``get_embeddings``."""

    dimension = WIDTH
    metric = "cosine"
    sample_rate = 16_000


class OfflineDiarization(SpeakerDiarization):
    """``SpeakerDiarization`` with the segmentation network of the whisperx wheel and the Resemblyzer encoder.

    pyannote's own constructor fetches an embedding network and a PLDA from the hub before anything else, so this one sets
    the same attributes itself; segmentation, counting, clustering and reconstruction are pyannote's.
    """

    def __init__(self, segmentation: Any, encoder: SpeakerEncoder, step: float) -> None:
        Pipeline.__init__(self)
        window_s = segmentation.specifications.duration
        self._segmentation = Inference(
            segmentation, duration=window_s, step=step * window_s, skip_aggregation=True, batch_size=SEGMENTATION_BATCH
        )
        self.segmentation = ParamDict(threshold=Uniform(0.1, 0.9), min_duration_off=Uniform(0.0, 1.0))
        self.clustering = AgglomerativeClustering(metric="cosine")
        self.legacy = False
        self.segmentation_step = step
        self.klustering = "AgglomerativeClustering"
        self.embedding_batch_size = 1
        self.embedding_exclude_overlap = True
        self.der_variant = {"collar": 0.0, "skip_overlap": False}
        self._expects_num_speakers = False
        self._embedding = EncoderShape()
        self._encoder = encoder

    def get_embeddings(
        self,
        file: Mapping[str, Any],
        binary_segmentations: SlidingWindowFeature,
        exclude_overlap: bool = True,
        hook: Any = None,
    ) -> np.ndarray:
        """Float32 ``[C, K, D]``: one embedding for each voice of each chunk, NaN where the voice is silent.

        The mel front end runs once over the audio; a voice's stretch is the frames in which it is active, those
        without a second voice where they last 0.4 s or more.
        """
        mel_FM = self._encoder.features(file["waveform"][0].numpy())
        active_CFK = np.nan_to_num(binary_segmentations.data) > 0.5
        alone_CF1 = active_CFK.sum(axis=2, keepdims=True) == 1
        num_chunks, num_frames, num_speakers = active_CFK.shape
        chunk_frames = round(binary_segmentations.sliding_window.duration * FRAMES_A_SECOND)
        nearest = np.arange(chunk_frames) * num_frames // chunk_frames
        stretches, where = [], []
        for c in range(num_chunks):
            start = round(binary_segmentations.sliding_window[c].start * FRAMES_A_SECOND)
            chunk_FM = mel_FM[start : start + chunk_frames]
            frames = nearest[: len(chunk_FM)]
            for k in range(num_speakers):
                active = active_CFK[c, frames, k]
                clean = active & alone_CF1[c, frames, 0]
                chosen = clean if exclude_overlap and clean.sum() >= MIN_CLEAN_FRAMES else active
                if chosen.any():
                    stretches.append(chunk_FM[chosen])
                    where.append((c, k))
        embeddings_CKD = np.full((num_chunks, num_speakers, WIDTH), math.nan, np.float32)
        for (c, k), vector_D in zip(where, self._encoder.embed(stretches), strict=True):
            embeddings_CKD[c, k] = vector_D
        return embeddings_CKD


def load_pipeline(segmentation_path: str, step: float) -> OfflineDiarization:
    """The pipeline with its networks loaded on the CPU; ``instantiate`` it before use."""
    # The checkpoint holds plain objects next to its tensors and cannot be read as weights only; it comes with the wheel.
    model: Any = Model.from_pretrained(segmentation_path, map_location=torch.device("cpu"), strict=False)
    return OfflineDiarization(model.eval(), SpeakerEncoder(), step)
