"""What a codec keeps: errors of its spectrum, use of its codes, words that its codes spell, codes that come back.

N spectrum frames (100 a second), M mel bins, F code frames. Errors of spectra are mean absolute differences of natural-log
mel magnitudes over all frames and bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manifests.contracts import AudioCodec
from manifests.errors import RequestError
from tokenization.letters import normal_form
from tokenization.mel import MEL_RATE_HZ
from tokenization.vocabulary import NUM_CODES

if TYPE_CHECKING:
    from tokenization.code_reader import CodeReader
    from tokenization.codec_batches import HeardClip
    from tokenization.fsq import FsqNetwork


def measure(network: FsqNetwork, clips: Sequence[HeardClip], reader: CodeReader | None = None) -> dict[str, Any]:
    """Errors and code statistics over whole clips, each clip alone; with a reader also its errors on those that supervise.

    ``mean_frame_mel_error`` is the error of always saying the corpus' mean frame.
    """
    import torch

    from tokenization.fsq import codes_of_digits

    counts = np.zeros(NUM_CODES, np.int64)
    error = mean_error = 0.0
    read: list[tuple[str, str]] = []
    with torch.inference_mode():
        for clip in clips:
            digits_BQF = network.digits(clip.mel[None])
            codes_F = codes_of_digits(digits_BQF)[0].numpy()
            error += float((network.rebuild(digits_BQF)[0] - clip.mel).abs().sum())
            mean_error += float((network.mel_mean - clip.mel).abs().sum())
            counts += np.bincount(codes_F, minlength=NUM_CODES)
            if reader is not None and clip.labels and clip.text:
                read.append((clip.text, reader.read(codes_F)))
    values = sum(clip.mel.numel() for clip in clips)
    return {
        "mel_error": error / values,
        "mean_frame_mel_error": mean_error / values,
        "mel_error_ratio": error / max(mean_error, 1e-9),
        **code_statistics(counts),
        "num_clips": len(clips),
        "audio_s": round(sum(len(clip.mel) for clip in clips) / MEL_RATE_HZ, 2),
        "num_supervised": len(read),
        **text_errors(read),
    }


def code_statistics(counts: np.ndarray) -> dict[str, float]:
    """``codebook_use`` (share of codes that occur) and ``perplexity`` of how often each code occurs, ``[num_codes]``."""
    shares = counts[counts > 0] / max(1, int(counts.sum()))
    entropy = -float(np.sum(shares * np.log(shares)))
    return {"codebook_use": float(np.count_nonzero(counts)) / len(counts), "perplexity": float(np.exp(entropy))}


def text_errors(pairs: Iterable[tuple[str, str]]) -> dict[str, float | None]:
    """``letter_error`` and ``word_error`` of (said, read) pairs in the normal form, pooled; None where nothing was said."""
    import jiwer

    told = [(said, read) for said, read in ((normal_form(said), read) for said, read in pairs) if said]
    if not told:
        return {"letter_error": None, "word_error": None}
    said, read = [said for said, _ in told], [read for _, read in told]
    return {"letter_error": float(jiwer.cer(said, read)), "word_error": float(jiwer.wer(said, read))}


def code_stability(codec: AudioCodec, coded: Iterable[np.ndarray]) -> float | None:
    """Share of codes ``[F]`` that come back when what they decode to is encoded again, over all items.

    None for a codec that does not decode, and where there are no codes.
    """
    equal = total = 0
    for codes in coded:
        try:
            again = codec.encode([codec.decode(codes)])[0]
        except RequestError:
            return None
        equal += int(np.count_nonzero(again == codes))
        total += len(codes)
    return equal / total if total else None
