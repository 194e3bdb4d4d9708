"""Fused weights: the same output, bit for bit, and nothing left to compute."""

from __future__ import annotations

import torch
from torch.nn.utils import parametrize
from transformers import Wav2Vec2Config, Wav2Vec2Model

from annotators.fused_weights import fuse_weights


def test_a_weight_norm_is_computed_once_and_the_output_keeps_every_bit():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": (8,) * 7}
    network = Wav2Vec2Model(Wav2Vec2Config(**sizes, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)).eval()
    audio = torch.randn(2, 8000)
    assert any(parametrize.is_parametrized(module) for module in network.modules())
    with torch.inference_mode():
        before = network(audio).last_hidden_state
        fused = fuse_weights(network)
        assert torch.equal(fused(audio).last_hidden_state, before)
    assert not any(parametrize.is_parametrized(module) for module in fused.modules())
