"""A VITS voice with random weights: it babbles, in the layout of the published checkpoints."""

from __future__ import annotations

import json
from pathlib import Path


def make_tiny_vits(folder: Path, *, is_uroman: bool = False) -> str:
    """A VITS checkpoint of two speakers over the letters a to z, as MMS ones are laid out."""
    import torch
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate("_ 'abcdefghijklmnopqrstuvwxyz")}))
    VitsTokenizer(
        str(folder / "vocab.json"), pad_token="_", language="eng", phonemize=False, is_uroman=is_uroman
    ).save_pretrained(folder)
    config = VitsConfig(
        vocab_size=29,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        flow_size=16,
        spectrogram_bins=65,
        upsample_initial_channel=32,
        upsample_rates=[8, 8],
        upsample_kernel_sizes=[16, 16],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        num_speakers=2,
        speaker_embedding_size=8,
        duration_predictor_flow_bins=4,
        duration_predictor_num_flows=2,
        depth_separable_num_layers=1,
        duration_predictor_filter_channels=16,
        prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
    )
    VitsModel(config).save_pretrained(folder)
    return str(folder)
