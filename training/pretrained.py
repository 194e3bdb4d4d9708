"""What the curriculum starts from: the encoder of Qwen2-Audio and a text model of the Qwen2.5 family, from Hugging Face folders.

Their names are laid over the model's own (reference, section 1.4); configurations are compared key by key. Where a text
model's head is its embedding, the model here gets two matrices of its own: the published head is not tied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from manifests.errors import MismatchError
from tokenization.vocabulary import Vocabulary
from training.config import DecoderConfig, EncoderConfig
from training.decoder import Decoder
from training.encoder import AudioEncoder
from training.model import StepAudio2
from training.published import side_files
from training.weight_files import Reading, WeightFolder, write_folder

# Model name -> Qwen2-Audio's, by the first part of a tensor's name and by parts within a block.
ENCODER_NAMES = {"positional_embedding": "embed_positions", "after_norm": "layer_norm"}
BLOCK_NAMES = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
}
# Where the encoder's tensors stand: in the whole model, and in an encoder that was saved by itself.
TOWERS = ("audio_tower.", "model.audio_tower.", "")
TEXT_MODEL = ("model.", "lm_head.")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def encoder_readings(folder: WeightFolder, config: EncoderConfig, size: str) -> dict[str, Reading]:
    """Every tensor of the encoder, out of a Qwen2-Audio checkpoint or its encoder alone.

    Raises MismatchError for another type of model or another size.
    """
    folder.check_type(["qwen2_audio", "qwen2_audio_encoder"])
    within = "audio_config." if folder.config["model_type"] == "qwen2_audio" else ""
    wanted = {
        "num_mel_bins": config.num_mels,
        "max_source_positions": config.num_positions,
        "d_model": config.width,
        "encoder_attention_heads": config.num_heads,
        "encoder_layers": config.num_layers,
        "encoder_ffn_dim": 4 * config.width,
        "activation_function": "gelu",
        "scale_embedding": False,
    }
    folder.check_values({within + key: value for key, value in wanted.items()}, size, optional=[within + "scale_embedding"])
    tower = next((tower for tower in TOWERS if f"{tower}conv1.weight" in folder.names), TOWERS[0])
    with torch.device("meta"):
        names = AudioEncoder(config).state_dict()
    return {f"encoder.{name}": Reading(folder, tower + qwen2_audio_name(name)) for name in names}


def qwen2_audio_name(name: str) -> str:
    """The name in Qwen2-Audio's encoder of a tensor of the encoder here."""
    parts = name.split(".")
    if parts[0] == "blocks":
        return ".".join(["layers", parts[1], BLOCK_NAMES[".".join(parts[2:-1])], parts[-1]])
    return ".".join([ENCODER_NAMES.get(parts[0], parts[0]), *parts[1:]])


def decoder_readings(folder: WeightFolder, config: DecoderConfig, size: str, vocabulary: Vocabulary) -> dict[str, Reading]:
    """Every tensor of decoder and head, out of a Qwen2 text model, tied or not; of embedding and head the text model's rows.

    Raises MismatchError for another type of model or another size, and for a head that is neither stored nor tied.
    """
    folder.check_type(["qwen2"])
    wanted = {
        "hidden_size": config.width,
        "intermediate_size": config.inner_width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "num_hidden_layers": config.num_layers,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        "use_sliding_window": False,
        "rope_scaling": None,
        # transformers 5 moved the rotary settings into one key.
        ("rope_theta" if "rope_theta" in folder.config else "rope_parameters.rope_theta"): config.rope_theta,
    }
    folder.check_values(wanted, size, optional=["hidden_act", "use_sliding_window"])
    folder.check_length("max_position_embeddings", config.max_positions, size)
    with torch.device("meta"):
        names = [f"model.{name}" for name in Decoder(config, vocabulary.num_rows).state_dict()]
    readings = {name: Reading(folder, name) for name in names}
    rows = vocabulary.num_text_rows
    readings[EMBEDDING] = Reading(folder, EMBEDDING, rows)
    readings[HEAD] = Reading(folder, _head_name(folder), rows)
    return readings


def _head_name(folder: WeightFolder) -> str:
    if HEAD in folder.names:
        return HEAD
    if folder.config.get("tie_word_embeddings"):
        return EMBEDDING
    raise MismatchError(
        f"weights {folder.path!r} have no {HEAD}, and config.json does not say tie_word_embeddings; fetch the checkpoint again"
    )


def qwen2_config(config: DecoderConfig, vocabulary: Vocabulary, dtype: torch.dtype) -> dict[str, Any]:
    """``config.json`` under which transformers loads decoder and head as ``Qwen2ForCausalLM``."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": config.width,
        "intermediate_size": config.inner_width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "num_hidden_layers": config.num_layers,
        "vocab_size": vocabulary.num_rows,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "hidden_act": "silu",
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "bos_token_id": vocabulary.end_of_text,
        "eos_token_id": vocabulary.end_of_text,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def save_decoder(
    path: str,
    model: StepAudio2,
    vocabulary: Vocabulary,
    facts: Mapping[str, Any],
    dtype: torch.dtype = torch.bfloat16,
    text_tokenizer: bytes | None = None,
) -> None:
    """Write decoder and head as a new folder that transformers loads. Beside the weights: ``side_files``. Raises as ``write_folder``."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TEXT_MODEL)}
    config = qwen2_config(model.config.decoder, vocabulary, dtype)
    write_folder(path, config, tensors, dtype, side_files(vocabulary, facts, text_tokenizer))
