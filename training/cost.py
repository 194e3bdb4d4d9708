"""What training costs in arithmetic: floating-point operations of every part, forward, backward and recomputed.

A multiplication and an addition are two operations; only matrix products, convolutions and attention count, as in
``torch.utils.flop_counter``, against which tests hold these sums. Attention is counted as its mask leaves it: within documents, and
causally in the decoder. Parts that a stage freezes cost what they really cost: a frozen encoder its forward pass alone, a frozen
decoder above a trained adaptor also the gradient of its inputs, but none of its weights.

Shapes of the arithmetic: D decoder width, I its inner width, E encoder width, M mel frames, P encoder positions (50 Hz),
F encoder frames (25 Hz), N patches (12.5 Hz), T positions of the decoder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace

from training.config import ModelConfig
from training.lengths import num_adaptor_frames, num_mel_frames
from training.recipe import Group

MAC = 2  # operations of one multiplication with its addition
KERNEL_FRAMES = 3  # of the encoder's two convolutions


@dataclass(frozen=True)
class Work:
    """How much an example, a step or a stage asks of the model; sums and multiples of work are work."""

    positions: float = 0.0  # of the decoder, sequence padding left out
    pairs: float = 0.0  # (query, key) that causal attention within documents multiplies
    targets: float = 0.0  # positions that the head predicts, each from a state of its own
    mel_frames: float = 0.0
    encoder_positions: float = 0.0
    encoder_pairs: float = 0.0
    encoder_frames: float = 0.0
    patches: float = 0.0

    @staticmethod
    def of_example(num_tokens: int, num_targets: int, pieces: Iterable[int] = ()) -> Work:
        """One example: a document of so many tokens, and pieces of audio of so many samples at 16 kHz that it hears."""
        work = Work(positions=num_tokens, pairs=num_tokens * (num_tokens + 1) / 2, targets=num_targets)
        for num_samples in pieces:
            work += Work.of_piece(num_mel_frames(num_samples))
        return work

    @staticmethod
    def of_piece(mel_frames: int) -> Work:
        """Encoder and adaptor over one piece of so many mel frames, padding of a batch among them where there is any."""
        places = (mel_frames - 1) // 2 + 1
        frames = places // 2
        return Work(
            mel_frames=mel_frames,
            encoder_positions=places,
            encoder_pairs=places**2,
            encoder_frames=frames,
            patches=num_adaptor_frames(frames),
        )

    def stretched(self, times: float) -> Work:
        """The same with audio that lasts so many times as long; the encoder's attention grows by the square."""
        linear = ("mel_frames", "encoder_positions", "encoder_frames", "patches")
        longer = {name: getattr(self, name) * times for name in linear}
        return replace(self, **longer, encoder_pairs=self.encoder_pairs * times**2)

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, entry.name) + getattr(other, entry.name) for entry in fields(self)))

    def __mul__(self, factor: float) -> Work:
        return Work(*(getattr(self, entry.name) * factor for entry in fields(self)))


@dataclass(frozen=True)
class PartFlops:
    """Operations of one part of the model."""

    forward: float
    backward: float
    recomputed: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recomputed


def stage_flops(
    config: ModelConfig,
    num_rows: int,
    num_labels: int,
    work: Work,
    trained: Collection[Group],
    *,
    is_ctc: bool = False,
    recomputes: bool = False,
) -> dict[str, PartFlops]:
    """Operations by part of the model for the work of a stage that trains these groups.

    ``num_rows``: of the vocabulary, or as many as are multiplied where audio ids are masked. ``num_labels``: outputs of the
    CTC head. ``recomputes``: the decoder's blocks run again in the backward pass, up to the product in front of their last
    matrix, where torch stops early. The head's logits never do (``head.weighted_loss``).
    """
    if is_ctc:
        return _ctc_flops(config, num_labels, work, trained)
    decoder = config.decoder
    hears = Group.ADAPTOR in trained
    below = hears or Group.EMBEDDING in trained
    # Behind the last block's mixing only the states that predict a target are worked on.
    entered, left = decoder.num_layers * work.positions, (decoder.num_layers - 1) * work.positions + work.targets
    entering, leaving = _decoder_products(config)
    products = entering * entered + leaving * left
    mixing = 2 * MAC * decoder.width * decoder.num_layers * work.pairs
    forward, reached = products + mixing, below or Group.DECODER in trained
    backward = 0.0
    if reached:
        # Gradients of inputs: a product as large as the forward one for each matrix, four for the two of attention.
        backward = products + 2 * mixing + (products if Group.DECODER in trained else 0.0)
    recomputed = forward - MAC * decoder.inner_width * decoder.width * left if recomputes and reached else 0.0
    head = MAC * decoder.width * num_rows * work.targets
    head_backward = (head if reached else 0.0) + (head if Group.HEAD in trained else 0.0)
    return {
        "encoder": PartFlops(_encoder_forward(config, work), 0.0),
        "adaptor": _adaptor_flops(config, work, is_trained=hears),
        "decoder": PartFlops(forward, backward, recomputed),
        "head": PartFlops(head, head_backward),
    }


def _ctc_flops(config: ModelConfig, num_labels: int, work: Work, trained: Collection[Group]) -> dict[str, PartFlops]:
    forward = _encoder_forward(config, work)
    first = MAC * KERNEL_FRAMES * config.encoder.num_mels * config.encoder.width * work.mel_frames
    # Both gradients of every product (for the two of attention four), but none of the mels.
    backward = 2 * forward - first if Group.ENCODER in trained else 0.0
    head = MAC * config.encoder.width * num_labels * work.encoder_frames
    head_backward = head * ((Group.ENCODER in trained) + (Group.CTC_HEAD in trained))
    return {"encoder": PartFlops(forward, backward), "ctc_head": PartFlops(head, head_backward)}


def _decoder_products(config: ModelConfig) -> tuple[float, float]:
    """Operations of one block's matrices at one position: before the mixing, behind it."""
    width, inner = config.decoder.width, config.decoder.inner_width
    kv_width = config.decoder.num_kv_heads * config.decoder.head_width
    return MAC * (width * width + 2 * width * kv_width), MAC * (width * width + 3 * width * inner)


def _encoder_forward(config: ModelConfig, work: Work) -> float:
    encoder = config.encoder
    width = encoder.width
    convolutions = KERNEL_FRAMES * width * (encoder.num_mels * work.mel_frames + width * work.encoder_positions)
    blocks = encoder.num_layers * (12 * width**2 * work.encoder_positions + 2 * width * work.encoder_pairs)
    return MAC * (convolutions + blocks)


def _adaptor_flops(config: ModelConfig, work: Work, *, is_trained: bool) -> PartFlops:
    """The encoder below it is frozen: its first layer needs no gradient of inputs."""
    width, inner = config.encoder.width, config.adaptor.inner_width
    first = MAC * config.adaptor.kernel_frames * width * width * work.patches
    linear = MAC * inner * (width + config.decoder.width) * work.patches
    return PartFlops(first + linear, first + 2 * linear if is_trained else 0.0)
