"""How much memory a step takes on one device: weights, gradients, optimizer, what autograd keeps, and the room that kernels use.

Counted from what each operation of the model saves for its backward pass; tests hold the sums against autograd's own hooks and
the peak against the allocator's. Under FSDP2 weights, gradients and moments are float32 shards of ``world_size`` devices, and the
layers at work are gathered in the type of computation. E, D, I, C as in ``cost``; e bytes of an activation.
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
    activation_bytes: int = 4  # 4: float32, 2: bfloat16
    is_cuda: bool = False  # attention reads key-value heads as they are; on the CPU each head has a copy
    recomputes: bool = False  # the decoder's blocks keep their inputs only

    @property
    def gathers(self) -> bool:
        return self.world_size > 1 or self.activation_bytes < MASTER_BYTES


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
    kept = ctc_activations(config, batch) if is_ctc else token_activations(config, batch, trained, placement)
    moments = [_hearing(config, batch, placement) - kept]  # the encoder is done before the decoder keeps anything
    if not is_ctc:
        moments += [_block_at_work(config, batch, trained, placement), _head(sizes, num_rows, batch, trained, placement)]
    return StepMemory(
        weights=every * shard,
        moments=2 * own * shard,
        gradients=own * shard,
        gathered=gathered * placement.activation_bytes if placement.gathers else 0.0,
        activations=kept,
        workspace=max(0.0, *moments),
        is_accumulating=is_accumulating,
    )


def token_activations(config: ModelConfig, batch: Work, trained: Collection[Group], placement: Placement) -> float:
    """Bytes that autograd keeps between forward and backward pass of a batch of examples."""
    e, decoder, encoder = placement.activation_bytes, config.decoder, config.encoder
    block = e * decoder.width if placement.recomputes else block_activations(config, trained, placement)
    norm = (MASTER_BYTES + (e if Group.DECODER in trained else 0)) * decoder.width
    angles = 2 * MASTER_BYTES * decoder.head_width
    adaptor = e * (4 * encoder.width + config.adaptor.inner_width) if Group.ADAPTOR in trained else 0
    head = e * decoder.width
    untouched = 0 if placement.recomputes else leaving_activations(config, trained, placement)  # by the last block
    return (
        (decoder.num_layers * block + angles) * batch.positions
        - untouched * (batch.positions - batch.targets)
        + (norm + head) * batch.targets
        + adaptor * batch.patches
    )


def block_activations(config: ModelConfig, trained: Collection[Group], placement: Placement) -> float:
    """Bytes that one block of the decoder keeps for each position.

    Two norms keep their input in float32; attention its queries, keys, values and output; SwiGLU three tables. Only where
    weights have gradients do norms and products keep what they multiply them by.
    """
    e, decoder = placement.activation_bytes, config.decoder
    kv_width = decoder.width if not placement.is_cuda else decoder.num_kv_heads * decoder.head_width
    norm = MASTER_BYTES * decoder.width + MASTER_BYTES
    attention = e * (2 * decoder.width + 2 * kv_width) + MASTER_BYTES * decoder.num_heads
    for_weights = e * 2 * decoder.width if Group.DECODER in trained else 0
    return norm + attention + for_weights + leaving_activations(config, trained, placement)


def leaving_activations(config: ModelConfig, trained: Collection[Group], placement: Placement) -> float:
    """The part of it that comes of what follows the mixing."""
    e, decoder = placement.activation_bytes, config.decoder
    norm = MASTER_BYTES * decoder.width + MASTER_BYTES
    for_weights = e * (2 * decoder.width + decoder.inner_width) if Group.DECODER in trained else 0
    return norm + e * 3 * decoder.inner_width + for_weights


def ctc_activations(config: ModelConfig, batch: Work) -> float:
    """The same of a stage that trains the encoder, which is computed in float32: 16 tables of E a block and position."""
    encoder = config.encoder
    blocks = (16 * encoder.num_layers + 4) * encoder.width * batch.encoder_positions
    stem = (encoder.num_mels + 2 * encoder.width) * batch.mel_frames
    return MASTER_BYTES * (blocks + stem)


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
    """A chunk's tables, and the gradient of the head's weights in float32."""
    chunk = min(batch.targets, TOKENS_AT_ONCE if placement.is_cuda else CPU_TOKENS_AT_ONCE)
    return MASTER_BYTES * (HEAD_TABLES * num_rows * chunk + (sizes[Group.HEAD] if Group.HEAD in trained else 0))
