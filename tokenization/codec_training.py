"""Training of the FSQ codec: log-mel in, the same log-mel out through 25 codes a second, and the words read off the codes.

After S3 tokenizer v2 (Du et al. 2024, arXiv 2412.10117) the codes are supervised by recognition: a head spells the
transcript from the quantised dimensions alone, under CTC's loss. Reconstruction is what S3 lacks: it keeps the codes
decodable by themselves. Clips without words only reconstruct.

One process, seeded, on a fixed number of threads: the same clips and configuration give the same weights on one machine,
also where the training was cut off and went on. Importing this module is light.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from manifests.errors import RequestError
from manifests.recipes import RecipeModel
from tokenization.code_reader import CodeReader
from tokenization.codec import FsqConfig, build_network
from tokenization.codec_clips import SpokenClip, split_clips

if TYPE_CHECKING:
    from tokenization.fsq import FsqNetwork


class CodecTraining(RecipeModel):
    """How long, how fast and from what the FSQ codec learns."""

    steps: int = Field(default=1000, ge=1)
    batch_s: float = Field(default=20.0, gt=0, description="seconds of audio in a batch, as far as whole clips allow")
    crop_s: float = Field(default=1.28, ge=0.16, description="seconds of a clip without words, rounded to whole code frames")
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup_steps: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    reconstruction_weight: float = Field(default=1.0, ge=0, description="of the mel error, in deviations of each bin")
    text_weight: float = Field(default=0.5, ge=0, description="of CTC's loss, in nats a letter; 0 learns from audio alone")
    # As in ``text.text_from``; a clip's words are from the first that has any.
    text_from: list[str] | None = Field(default=None, description="as the text part's where none are named; else of the sources")
    max_text_clip_s: float = Field(default=16.0, gt=0, description="a longer clip only reconstructs: its batch holds it whole")
    text_head_blocks: int = Field(default=2, ge=0, le=16)
    log_every: int = Field(default=50, ge=1)
    checkpoint_every: int = Field(default=250, ge=1, description="steps between states that an interrupted training goes on from")
    # Two threads take a third off on an idle machine, and stall for minutes where other processes hold the cores: torch's
    # threads spin while they wait for each other (measured: 200 steps in 26 s on one, over 120 s on two, at load 4.4).
    num_threads: int = Field(default=1, ge=1, le=64)
    max_audio_s: float = Field(default=3600.0, gt=0, description="log-mel held in memory; a larger corpus is sampled down to it")


@dataclass(frozen=True)
class TrainedCodec:
    """A trained network (in eval mode), its curve (rows of metrics.jsonl) and its final figures (metrics.json).

    ``reader`` reads the words; None where no clip had any to learn from.
    """

    network: FsqNetwork
    reader: CodeReader | None
    rows: list[dict[str, Any]]
    metrics: dict[str, Any]


def train_codec(
    clips: Iterable[SpokenClip],
    config: FsqConfig,
    training: CodecTraining,
    seed: int = 0,
    on_log: Callable[[dict[str, Any]], None] | None = None,
    on_state: Callable[[int, bytes], None] | None = None,
    state: bytes | None = None,
) -> TrainedCodec:
    """Train on float32 16 kHz clips; each is read once into a log-mel cache.

    With ten clips or more, every tenth is held out of training and measured apart. ``on_log`` gets each row as it is made,
    ``on_state`` the step and a state every ``checkpoint_every`` steps; training goes on from such a ``state`` of the same
    clips and settings as if it had never stopped. Raises RequestError when there is no audio.
    """
    import torch

    from tokenization.codec_batches import hear
    from tokenization.codec_learner import Learner
    from tokenization.codec_measures import measure
    from tokenization.fsq import TextHead

    began = time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(training.num_threads)
    try:
        heard, letters = hear(clips, config.num_mels, training.max_text_clip_s if training.text_weight else 0.0)
        if not heard:
            raise RequestError("codec training: the corpus has no clip with audio; build a corpus with speech in it first")
        learnt, held_out = split_clips(len(heard))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(config)
            head = TextHead(letters.num_labels, config.width, training.text_head_blocks) if letters else None
        learner = Learner(network, head, [heard[i] for i in learnt], training, seed)
        if state is not None:
            learner.load_state(state)
        learner.learn(on_log, on_state)
        reader = CodeReader(head, letters) if head and letters else None
        metrics = {
            **measure(network, heard, reader),
            "held_out": measure(network, [heard[i] for i in held_out], reader) if held_out else None,
            "num_parameters": sum(p.numel() for p in network.parameters()),
            "steps": training.steps,
            "wall_s": round(learner.earlier_s + time.monotonic() - began, 3),
        }
    finally:
        torch.set_num_threads(threads)
    return TrainedCodec(network, reader, learner.rows, metrics)
