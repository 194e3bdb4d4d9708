"""Small checkpoints of the published codecs' architectures: real loading, real windows, no meaning."""

from __future__ import annotations

from pathlib import Path

import pytest


def write_mimi(folder: Path, seed: int = 0, num_codes: int = 2048) -> str:
    """A Mimi of 0.1 M parameters whose first codebook spreads over what its encoder says of noise; returns the folder."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    shape = transformers.MimiConfig(
        num_filters=4,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=1,
        codebook_size=num_codes,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=2,
        upsample_groups=32,
    )
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        model = transformers.MimiModel(shape).eval()
        # Fresh codebooks are all zeros, and every frame the same code.
        noise = torch.randn(1, 1, 20 * 24_000) * 0.3 * torch.linspace(-8, 0, 20 * 24_000).sin().abs()
        heard = model.downsample(model.encoder_transformer(model.encoder(noise).transpose(1, 2))[0].transpose(1, 2))
        quantizer = model.quantizer.semantic_residual_vector_quantizer
        vectors = quantizer.input_proj(heard)[0].T
        for layer in (*quantizer.layers, *model.quantizer.acoustic_residual_vector_quantizer.layers):
            chosen = vectors[torch.randint(len(vectors), (num_codes,))]
            layer.codebook.embed_sum.copy_(chosen + 0.1 * vectors.std(dim=0) * torch.randn_like(chosen))
            layer.codebook.cluster_usage.fill_(1.0)
    model.save_pretrained(str(folder))
    return str(folder)
