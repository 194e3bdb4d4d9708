"""The published checkpoint's folder: its configuration, its weights' names, and what Stepwell writes beside them.

Source: reference, sections 1.3 and 1.4. The model uses the published names, so nothing is renamed; ``ctc_head`` and whatever else
is this trainer's own is no part of the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from manifests.errors import MismatchError
from manifests.store import json_bytes
from tokenization.vocabulary import Vocabulary
from training.config import ModelConfig
from training.model import StepAudio2
from training.weight_files import Reading, WeightFolder, write_folder

MODEL_TYPE = "step_audio_2"
PREFIXES = ("encoder.", "adapter.", "model.", "lm_head.")
FACTS = "stepwell.json"  # the vocabulary's table with its hash, what the weights rest on, and which parts were trained
# Classes that the published repository brings as code; its two files are put beside the weights to load them there.
AUTO_MAP = {
    "AutoConfig": "configuration_step_audio_2.StepAudio2Config",
    "AutoModelForCausalLM": "modeling_step_audio_2.StepAudio2ForCausalLM",
}
TOKENIZER = "tokenizer.json"  # as `tokenizers` writes it
UNUSED_CODEBOOK = 4096
# Keys that say the same thing twice; the first of each may be left out.
PAIRS = {
    "text_config.num_attention_groups": "text_config.num_key_value_heads",
    "text_config.max_seq_len": "text_config.max_position_embeddings",
    "audio_encoder_config.llm_dim": "text_config.hidden_size",
}
# Keys that do not decide what the weights mean: the length is checked by itself.
FREE = ("max_seq_len", "max_position_embeddings", "eos_token_id", "pad_token_id", "torch_dtype", "n_codebook_size")


def published_tensors(model: StepAudio2) -> dict[str, torch.Tensor]:
    """The model's tensors that the published layout has, by its names."""
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(PREFIXES)}


def published_config(config: ModelConfig, vocabulary: Vocabulary, dtype: torch.dtype) -> dict[str, Any]:
    """``config.json`` of a model; the adaptor's inner width is in no key and shows in the weights alone."""
    encoder, decoder = config.encoder, config.decoder
    stop = vocabulary.end_of_text
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": ["StepAudio2ForCausalLM"],
        "model_type": MODEL_TYPE,
        "auto_map": AUTO_MAP,
        "text_config": {
            "hidden_size": decoder.width,
            "intermediate_size": decoder.inner_width,
            "num_attention_heads": decoder.num_heads,
            "num_attention_groups": decoder.num_kv_heads,
            "num_key_value_heads": decoder.num_kv_heads,
            "num_hidden_layers": decoder.num_layers,
            "vocab_size": vocabulary.num_rows,
            "max_seq_len": decoder.max_positions,
            "max_position_embeddings": decoder.max_positions,
            "rms_norm_eps": decoder.norm_eps,
            "rope_theta": decoder.rope_theta,
            "rope_scaling": None,
            "eos_token_id": stop,
            "pad_token_id": stop,
            "torch_dtype": name,
        },
        "audio_encoder_config": {
            "n_mels": encoder.num_mels,
            "n_audio_ctx": encoder.num_positions,
            "n_audio_state": encoder.width,
            "n_audio_head": encoder.num_heads,
            "n_audio_layer": encoder.num_layers,
            "n_codebook_size": UNUSED_CODEBOOK,
            "llm_dim": decoder.width,
            "kernel_size": config.adaptor.kernel_frames,
            "adapter_stride": config.adaptor.stride_frames,
        },
        "torch_dtype": name,
    }


def published_readings(folder: WeightFolder, config: ModelConfig, size: str, vocabulary: Vocabulary) -> dict[str, Reading]:
    """Every tensor of the layout, for a model of that size and vocabulary.

    Raises MismatchError for another type of model, a configuration that contradicts itself, other sizes than the
    model's, or another vocabulary.
    """
    folder.check_type([MODEL_TYPE])
    for left, right in PAIRS.items():
        if folder.value(left) not in (None, folder.value(right)):
            raise MismatchError(
                f"weights {folder.path!r}: config.json has {left} {folder.value(left)!r} and {right} {folder.value(right)!r}, "
                "which must be equal; mend it or fetch the checkpoint again"
            )
    parts = published_config(config, vocabulary, torch.float32)
    wanted = {
        f"{part}.{key}": value
        for part in ("text_config", "audio_encoder_config")
        for key, value in parts[part].items()
        if key not in FREE
    }
    folder.check_values(wanted, size, optional=PAIRS)
    folder.check_length("text_config.max_position_embeddings", config.decoder.max_positions, size)
    if (facts := folder.side_file(FACTS)) is not None:
        vocabulary.check_layout(facts.get("vocabulary", {}).get("layout_hash"), f"checkpoint {folder.path!r}")
    with torch.device("meta"):
        names = published_tensors(StepAudio2(config, vocabulary.num_rows, vocabulary.text_size))
    return {name: Reading(folder, name) for name in names}


def save_published(
    path: str,
    model: StepAudio2,
    vocabulary: Vocabulary,
    facts: Mapping[str, Any],
    dtype: torch.dtype = torch.bfloat16,
    text_tokenizer: bytes | None = None,
) -> None:
    """Write a model as a new folder of the published layout. Beside the weights: ``side_files``. Raises as ``write_folder``."""
    config = published_config(model.config, vocabulary, dtype)
    write_folder(path, config, published_tensors(model), dtype, side_files(vocabulary, facts, text_tokenizer))


def side_files(vocabulary: Vocabulary, facts: Mapping[str, Any], text_tokenizer: bytes | None) -> dict[str, bytes]:
    """What lies beside exported weights: the vocabulary's table with its hash, the facts, and what makes ids of text."""
    files = {FACTS: json_bytes({**facts, "vocabulary": vocabulary.to_json(with_hash=True)})}
    return files if text_tokenizer is None else {**files, TOKENIZER: text_tokenizer}
