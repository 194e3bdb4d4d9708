"""Training of the FSQ codec: log-mel in, the same log-mel out, through 25 codes a second.

N spectrum frames (100 a second), M mel bins, B batch.

One process, seeded, on a fixed number of threads: the same clips and configuration give the same weights on one machine.
Errors are mean absolute differences of natural-log mel magnitudes over all frames and bins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.recipes import RecipeModel
from tokenization.codec import FsqConfig, build_network, padded
from tokenization.mel import FLOOR, log_mel
from tokenization.vocabulary import NUM_CODES

if TYPE_CHECKING:
    import torch

    from tokenization.fsq import FsqNetwork

MEL_RATE_HZ = 100
FRAMES_PER_CODE = 4
HELD_OUT_FROM_CLIPS = 10
HELD_OUT_EVERY = 10


class CodecTraining(RecipeModel):
    """How long and how fast the FSQ codec learns."""

    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=16, ge=1)
    crop_s: float = Field(default=1.28, ge=0.16, description="seconds of a training crop, rounded to whole code frames")
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    log_every: int = Field(default=50, ge=1)
    # Two threads take a third off on an idle machine, and stall for minutes where other processes hold the cores: torch's
    # threads spin while they wait for each other (measured: 200 steps in 26 s on one, over 120 s on two, at load 4.4).
    num_threads: int = Field(default=1, ge=1, le=64)
    max_audio_s: float = Field(default=3600.0, gt=0, description="log-mel held in memory; a larger corpus is sampled down to it")


@dataclass(frozen=True)
class TrainedCodec:
    """A trained network (in eval mode), its curve (rows of metrics.jsonl) and its final figures (metrics.json)."""

    network: FsqNetwork
    rows: list[dict[str, Any]]
    metrics: dict[str, Any]


def corpus_clips(corpus: Corpus, max_audio_s: float, seed: int) -> Iterable[Audio]:
    """Float32 16 kHz audio of each clip, in clip order; of a larger corpus a seeded sample of at most ``max_audio_s``."""
    clips = corpus.clips().to_pylist()
    reader = corpus.audio()
    for index in sample_clips([(c["end_sample"] - c["start_sample"]) / c["sample_rate_hz"] for c in clips], max_audio_s, seed):
        clip = clips[index]
        rate = clip["sample_rate_hz"]
        audio = reader.read(clip["recording_id"], clip["channel"], rate, clip["start_sample"], clip["end_sample"])
        yield resample(audio, rate, MODEL_RATE_HZ)


def sample_clips(lengths_s: Sequence[float], max_audio_s: float, seed: int) -> list[int]:
    """Sorted indexes of clips that together last at most ``max_audio_s``; all of them where they fit."""
    chosen: list[int] = []
    room_s = max_audio_s
    for index in np.random.default_rng(seed).permutation(len(lengths_s)).tolist():
        if lengths_s[index] <= room_s:
            chosen.append(index)
            room_s -= lengths_s[index]
    return sorted(chosen)


def train_codec(
    clips: Iterable[Audio],
    config: FsqConfig,
    training: CodecTraining,
    seed: int = 0,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> TrainedCodec:
    """Train on float32 16 kHz clips; each is read once into a log-mel cache.

    With ten clips or more, every tenth is held out of training and measured apart. ``on_log`` gets each row as it is
    made. Raises RequestError when there is no audio.
    """
    import torch

    began = time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(training.num_threads)
    try:
        mels = [torch.from_numpy(log_mel(padded(clip), config.num_mels)) for clip in clips if len(clip)]
        if not mels:
            raise RequestError("codec training: the corpus has no clip with audio; build a corpus with speech in it first")
        learnt, held_out = split_clips(len(mels))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(config)
        _take_statistics(network, [mels[i] for i in learnt])
        rows = _learn(network, [mels[i] for i in learnt], training, seed, began, on_log)
        network.eval()
        metrics = {
            **measure(network, mels, network.mel_mean),
            "held_out": measure(network, [mels[i] for i in held_out], network.mel_mean) if held_out else None,
            "num_parameters": sum(p.numel() for p in network.parameters()),
            "steps": training.steps,
            "wall_s": round(time.monotonic() - began, 3),
        }
    finally:
        torch.set_num_threads(threads)
    return TrainedCodec(network, rows, metrics)


def split_clips(num_clips: int) -> tuple[list[int], list[int]]:
    """(clips to learn from, clips held out): every tenth is held out once there are ten."""
    if num_clips < HELD_OUT_FROM_CLIPS:
        return list(range(num_clips)), []
    held_out = list(range(HELD_OUT_EVERY - 1, num_clips, HELD_OUT_EVERY))
    return sorted(set(range(num_clips)) - set(held_out)), held_out


def measure(network: FsqNetwork, mels: Sequence[torch.Tensor], mean_frame_M: torch.Tensor) -> dict[str, Any]:
    """Errors and code statistics over whole clips ``[N, M]``, each clip alone.

    ``mean_frame_mel_error`` is the error of always saying ``mean_frame_M``; ``codebook_use`` the share of the codes that
    occur, ``perplexity`` 2 to the entropy of their distribution in bits.
    """
    import torch

    counts = np.zeros(NUM_CODES, np.int64)
    error = mean_error = 0.0
    with torch.inference_mode():
        for mel in mels:
            out_BNM, codes_BF = network(mel[None])
            error += float((out_BNM[0] - mel).abs().sum())
            mean_error += float((mean_frame_M - mel).abs().sum())
            counts += np.bincount(codes_BF[0].numpy(), minlength=NUM_CODES)
    values = sum(mel.numel() for mel in mels)
    return {
        "mel_error": error / values,
        "mean_frame_mel_error": mean_error / values,
        "mel_error_ratio": error / max(mean_error, 1e-9),
        **code_statistics(counts),
        "num_clips": len(mels),
        "audio_s": round(sum(len(mel) for mel in mels) / MEL_RATE_HZ, 2),
    }


def code_statistics(counts: np.ndarray) -> dict[str, float]:
    """``codebook_use`` (share of codes that occur) and ``perplexity`` of how often each code occurs, ``[num_codes]``."""
    shares = counts[counts > 0] / max(1, int(counts.sum()))
    entropy = -float(np.sum(shares * np.log(shares)))
    return {"codebook_use": float(np.count_nonzero(counts)) / len(counts), "perplexity": float(np.exp(entropy))}


def _take_statistics(network: FsqNetwork, mels: Sequence[torch.Tensor]) -> None:
    """Mean and deviation of each mel bin over the clips, into the network's buffers."""
    import torch

    frames = torch.cat(list(mels)).double()
    network.mel_mean.copy_(frames.mean(dim=0))
    # A bin that never moves (above a telephone's band) would divide by zero; a tenth of a neper is below what is heard.
    network.mel_std.copy_(frames.std(dim=0, unbiased=False).clamp(min=0.1))


def _learn(
    network: FsqNetwork,
    mels: Sequence[torch.Tensor],
    training: CodecTraining,
    seed: int,
    began: float,
    on_log: Callable[[dict[str, Any]], None] | None,
) -> list[dict[str, Any]]:
    import torch

    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, training))
    crops = _Crops(mels, training, seed)
    window = _Window()
    rows: list[dict[str, Any]] = []
    for step in range(1, training.steps + 1):
        mel_BNM, valid_BN1 = crops.draw()
        out_BNM, codes_BF = network(mel_BNM)
        # In units of each bin's deviation: a bin that hardly moves counts as much as one that does.
        difference = ((out_BNM - mel_BNM) / network.mel_std).abs() * valid_BN1
        loss = difference.sum() / (valid_BN1.sum() * mel_BNM.shape[2])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        window.add(float(loss.detach()), mel_BNM, out_BNM.detach(), codes_BF, valid_BN1, network.mel_mean)
        if step % training.log_every == 0 or step == training.steps:
            rows.append({"step": step, **window.row(), "wall_s": round(time.monotonic() - began, 3)})
            window = _Window()
            if on_log:
                on_log(rows[-1])
    return rows


def _rate(step: int, training: CodecTraining) -> float:
    """Share of the learning rate: linear warm-up, then half a cosine down to 2 %."""
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    done = (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1.0 + float(np.cos(np.pi * min(1.0, done))))


class _Crops:
    """Random crops of equal length; a clip is drawn as often as it is long."""

    def __init__(self, mels: Sequence[torch.Tensor], training: CodecTraining, seed: int) -> None:
        import torch

        self.num_frames = FRAMES_PER_CODE * max(1, round(training.crop_s * MEL_RATE_HZ / FRAMES_PER_CODE))
        self.batch_size = training.batch_size
        self.lengths = np.array([len(mel) for mel in mels])
        silence = float(np.log(FLOOR))
        self.mels = [torch.nn.functional.pad(m, (0, 0, 0, max(0, self.num_frames - len(m))), value=silence) for m in mels]
        self.shares = self.lengths / self.lengths.sum()
        self.random = np.random.default_rng(seed)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(mel ``[B, N, M]``, 1 where a frame belongs to its clip ``[B, N, 1]``)."""
        import torch

        chosen = self.random.choice(len(self.mels), size=self.batch_size, p=self.shares)
        starts = [int(self.random.integers(0, len(self.mels[i]) - self.num_frames + 1)) for i in chosen]
        crops = [self.mels[i][start : start + self.num_frames] for i, start in zip(chosen, starts, strict=True)]
        left = torch.from_numpy(self.lengths[chosen] - np.array(starts))
        return torch.stack(crops), (torch.arange(self.num_frames)[None] < left[:, None]).float()[..., None]


class _Window:
    """Sums over the steps since the last row of the curve."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.error = self.mean_error = self.values = 0.0
        self.counts = np.zeros(NUM_CODES, np.int64)

    def add(
        self,
        loss: float,
        mel_BNM: torch.Tensor,
        out_BNM: torch.Tensor,
        codes_BF: torch.Tensor,
        valid_BN1: torch.Tensor,
        mean_M: torch.Tensor,
    ) -> None:
        self.losses.append(loss)
        self.error += float(((out_BNM - mel_BNM).abs() * valid_BN1).sum())
        self.mean_error += float(((mean_M - mel_BNM).abs() * valid_BN1).sum())
        self.values += float(valid_BN1.sum()) * mel_BNM.shape[2]
        within_BF = valid_BN1[:, ::FRAMES_PER_CODE, 0] > 0
        self.counts += np.bincount(codes_BF[within_BF].numpy(), minlength=NUM_CODES)

    def row(self) -> dict[str, Any]:
        return {
            "loss": float(np.mean(self.losses)),
            "mel_error": self.error / self.values,
            "mean_frame_error": self.mean_error / self.values,
            **code_statistics(self.counts),
        }
