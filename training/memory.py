"""How much memory a step takes on one device: weights, gradients, optimizer, what autograd keeps, and the room that kernels use.

Counted from what each operation of the model saves for its backward pass; tests hold the sums against autograd's own hooks and
the peak against the allocator's. Under FSDP2 weights, gradients and moments are float32 shards of ``world_size`` devices, and the
layers at work are gathered in float32. Where products are narrower (autocast), they multiply copies of weights and of what comes
in, which autograd keeps for the backward pass; norms and the residual stream stay float32. E, D, I, C as in ``cost``; e bytes of a
number in a product.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from training.config import ModelConfig
from training.cost import Work
from training.head import CPU_TOKENS_AT_ONCE, TOKENS_AT_ONCE
from training.recipe import Group

MASTER_BYTES = 4  # of a weight, of its gradient, and of each of AdamW's two moments
GATHERED_LAYERS = 2  # the one at work and the one fetched ahead
HEAD_TABLES = 3  # [chunk, rows] in float32 that the head holds at once


@dataclass(frozen=True)
class Placement:
    """Where and how a step is computed."""

    world_size: int = 1
    activation_bytes: int = 4  # of a number in a product. 4: float32, 2: bfloat16, by autocast
    is_cuda: bool = False  # attention reads key-value heads as they are; on the CPU each head has a copy
    recomputes: bool = False  # the decoder's blocks keep their inputs only

    @property
    def is_narrow(self) -> bool:
        return self.activation_bytes < MASTER_BYTES


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device."""

    weights: float
    moments: float
    gradients: float
    gathered: float
    activations: float
    workspace: float
    is_accumulating: bool  # gradients of earlier micro-batches lie beside the activations of this one

    @property
    def peak(self) -> float:
        """The most at one time: gradients come as activations go, unless earlier micro-batches left some."""
        together = self.activations + self.gradients if self.is_accumulating else max(self.activations, self.gradients)
        return self.weights + self.moments + self.gathered + self.workspace + together


def step_memory(
    config: ModelConfig,
    sizes: Mapping[Group, int],
    num_rows: int,
    batch: Work,
    trained: Collection[Group],
    placement: Placement,
    *,
    is_ctc: bool = False,
    is_accumulating: bool = False,
) -> StepMemory:
    """Memory of one micro-batch on a device. ``sizes``: parameters by group; ``batch.positions``: with sequence padding."""
    every, own = sum(sizes.values()), sum(sizes[group] for group in trained)
    shard = MASTER_BYTES / placement.world_size
    layer = sizes[Group.DECODER] / config.decoder.num_layers
    gathered = sizes[Group.EMBEDDING] + sizes[Group.HEAD] + GATHERED_LAYERS * layer
    kept = ctc_activations(config, batch, placement) if is_ctc else token_activations(config, batch, trained, placement)
    kept += narrow_weights(sizes, trained, placement)
    moments = [_hearing(config, batch, placement) - kept]  # the encoder is done before the decoder keeps anything
    if not is_ctc:
        again = placement.activation_bytes * layer if placement.is_narrow and placement.recomputes else 0.0
        moments += [
            _block_at_work(config, batch, trained, placement) + again,
            _head(sizes, num_rows, batch, trained, placement),
        ]
    return StepMemory(
        weights=every * shard,
        moments=2 * own * shard,
        gradients=own * shard,
        gathered=gathered * MASTER_BYTES if placement.world_size > 1 else 0.0,
        activations=kept,
        workspace=max(0.0, *moments),
        is_accumulating=is_accumulating,
    )


def narrow_weights(sizes: Mapping[Group, int], trained: Collection[Group], placement: Placement) -> float:
    """Bytes of the weights' narrow copies that autograd keeps: of what hears where it is trained, and of the decoder's blocks.

    Blocks that run again have theirs only then, and those below everything that is trained have none.
    """
    if not placement.is_narrow:
        return 0.0
    groups = {Group.ENCODER, Group.CTC_HEAD, Group.ADAPTOR} & set(trained)
    if {Group.ADAPTOR, Group.EMBEDDING, Group.DECODER} & set(trained) and not placement.recomputes:
        groups |= {Group.DECODER}
    return float(placement.activation_bytes * sum(sizes[group] for group in groups))


def token_activations(config: ModelConfig, batch: Work, trained: Collection[Group], placement: Placement) -> float:
    """Bytes that autograd keeps between forward and backward pass of a batch of examples, copies of weights left out."""
    e, decoder, encoder = placement.activation_bytes, config.decoder, config.encoder
    block = MASTER_BYTES * decoder.width if placement.recomputes else block_activations(config, trained, placement)
    angles = 2 * MASTER_BYTES * decoder.head_width
    adaptor = e * (4 * encoder.width + config.adaptor.inner_width) if Group.ADAPTOR in trained else 0
    head = e * decoder.width
    untouched = 0 if placement.recomputes else leaving_activations(config, trained, placement)  # by the last block
    return (
        (decoder.num_layers * block + angles) * batch.positions
        - untouched * (batch.positions - batch.targets)
        + (_norm_activations(config, trained) + head) * batch.targets
        + adaptor * batch.patches
    )


def block_activations(config: ModelConfig, trained: Collection[Group], placement: Placement) -> float:
    """Bytes that one block of the decoder keeps for each position.

    Attention keeps its queries, keys, values and output; SwiGLU three tables. Only where weights have gradients do products keep what
    they multiply them by: a narrow copy for each of them, which in float32 is one tensor for all.
    """
    e, decoder = placement.activation_bytes, config.decoder
    kv_width = decoder.width if not placement.is_cuda else decoder.num_kv_heads * decoder.head_width
    attention = e * (2 * decoder.width + 2 * kv_width) + MASTER_BYTES * decoder.num_heads
    copies = 3 if placement.is_narrow else 1  # queries, keys, values
    for_weights = e * copies * decoder.width if Group.DECODER in trained else 0
    return _norm_activations(config, trained) + attention + for_weights + leaving_activations(config, trained, placement)


def leaving_activations(config: ModelConfig, trained: Collection[Group], placement: Placement) -> float:
    """The part of it that comes of what follows the mixing."""
    e, decoder = placement.activation_bytes, config.decoder
    copies = 2 if placement.is_narrow else 1  # gate, up
    for_weights = e * (copies * decoder.width + decoder.inner_width) if Group.DECODER in trained else 0
    return _norm_activations(config, trained) + e * 3 * decoder.inner_width + for_weights


def _norm_activations(config: ModelConfig, trained: Collection[Group]) -> float:
    """A norm keeps its input and that one's size in float32, and what its weights multiply where they have gradients."""
    width = config.decoder.width
    return MASTER_BYTES * (width + 1 + (width if Group.DECODER in trained else 0))


def ctc_activations(config: ModelConfig, batch: Work, placement: Placement) -> float:
    """The same of a stage that trains the encoder, for each block and position.

    Two norms keep their inputs in float32; six products what they multiply (where it is narrow, a copy for each of queries, keys and
    values); attention its output, and the activation function its input.
    """
    e, encoder = placement.activation_bytes, config.encoder
    block = 2 * MASTER_BYTES + e * (16 if placement.is_narrow else 14)
    pooled = MASTER_BYTES + 2 * e  # what goes into the pooling, and the convolution and norm around the blocks
    blocks = (encoder.num_layers * block + pooled) * encoder.width * batch.encoder_positions
    return blocks + e * (encoder.num_mels + 2 * encoder.width) * batch.mel_frames


def _hearing(config: ModelConfig, batch: Work, placement: Placement) -> float:
    """The encoder's widest moment: both sides of its activation function, the residual stream and the convolutions before."""
    e, encoder = placement.activation_bytes, config.encoder
    return e * 12 * encoder.width * batch.encoder_positions + MASTER_BYTES * encoder.num_mels * batch.mel_frames


def _block_at_work(config: ModelConfig, batch: Work, trained: Collection[Group], placement: Placement) -> float:
    """Gradients inside one block of the decoder, and what it keeps where that was computed just now."""
    gradients = placement.activation_bytes * (2 * config.decoder.inner_width + 4 * config.decoder.width)
    again = block_activations(config, trained, placement) if placement.recomputes else 0.0
    return (gradients + again) * batch.positions


def _head(sizes: Mapping[Group, int], num_rows: int, batch: Work, trained: Collection[Group], placement: Placement) -> float:
    """A chunk's tables, the gradient of the head's weights in float32, and their narrow copy."""
    chunk = min(batch.targets, TOKENS_AT_ONCE if placement.is_cuda else CPU_TOKENS_AT_ONCE)
    gradient = MASTER_BYTES * sizes[Group.HEAD] if Group.HEAD in trained else 0
    copy = placement.activation_bytes * sizes[Group.HEAD] if placement.is_narrow else 0
    return MASTER_BYTES * HEAD_TABLES * num_rows * chunk + gradient + copy
