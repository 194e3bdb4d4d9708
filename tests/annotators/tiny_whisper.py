"""A Whisper checkpoint with random weights in the form that CTranslate2 reads: real loading and decoding, no meaning.

The vocabulary has the published multilingual size and order (CTranslate2 tells multilingual checkpoints by the size);
its text part is the 256 bytes and fillers.
"""

from __future__ import annotations

from pathlib import Path

LANGUAGES = 99
TEXT_TOKENS = 50_257
TIMESTAMPS = 1501


def make_tiny_whisper(folder: Path) -> str:
    """Write the checkpoint below the folder and return its path."""
    import torch
    from ctranslate2.converters import TransformersConverter
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

    codes = [code for code in _LANGUAGE_CODES if code != "yue"][:LANGUAGES]
    special = ["endoftext", "startoftranscript", *codes, "translate", "transcribe", "startoflm", "startofprev"]
    special = [f"<|{name}|>" for name in (*special, "nospeech", "notimestamps")]
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = [*bytes_, *(f"Ġw{i}" for i in range(TEXT_TOKENS - len(bytes_)))]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(text)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*special, *(f"<|{i * 0.02:.2f}|>" for i in range(TIMESTAMPS))])

    torch.manual_seed(7)
    ids = {token: tokenizer.token_to_id(token) for token in special}
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        **{f"{name}_token_id": ids["<|endoftext|>"] for name in ("bos", "eos", "pad")},
    )
    network = WhisperForConditionalGeneration(config)
    network.generation_config.suppress_tokens = []
    network.generation_config.begin_suppress_tokens = [ids["<|endoftext|>"]]
    network.generation_config.lang_to_id = {f"<|{code}|>": ids[f"<|{code}|>"] for code in codes}
    original, converted = folder / "transformers", folder / "ctranslate2"
    network.save_pretrained(original)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(original)
    TransformersConverter(str(original), copy_files=["tokenizer.json"]).convert(str(converted))
    return str(converted)
