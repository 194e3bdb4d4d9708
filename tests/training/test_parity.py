"""The decoder and the encoder are transformers' own in float32: values, loss, every gradient, ten steps, greedy text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tokenization.interleave import Ratio
from tokenization.vocabulary import Vocabulary
from training.attention import DocumentSpans
from training.config import AdaptorConfig, DecoderConfig, EncoderConfig, ModelConfig
from training.encoder import AudioEncoder
from training.generation import Prompt, generate
from training.grammar import Grammar
from training.model import StepAudio2
from training.sampling import Sampling

TEXT_IDS = 61
ROWS = Vocabulary.small(TEXT_IDS, num_codes=4).num_rows
CONFIG = ModelConfig(
    encoder=EncoderConfig(num_mels=20, num_positions=40, width=32, num_heads=4, num_layers=2),
    adaptor=AdaptorConfig(inner_width=16),
    decoder=DecoderConfig(width=48, inner_width=96, num_heads=6, num_kv_heads=2, num_layers=3, rope_theta=1e4, max_positions=128),
)
PACKED = DocumentSpans(((9, 14), (23,), (4, 11, 5)))
WIDTH = 23

ENCODER_NAMES = [
    ("layers.", "blocks."),
    ("self_attn.q_proj", "attn.query"),
    ("self_attn.k_proj", "attn.key"),
    ("self_attn.v_proj", "attn.value"),
    ("self_attn.out_proj", "attn.out"),
    ("self_attn_layer_norm", "attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("layer_norm", "after_norm"),
    ("embed_positions", "positional_embedding"),
]


def published(name: str) -> str:
    for theirs, ours in ENCODER_NAMES:
        name = name.replace(theirs, ours)
    return name


def made_uneven(module: torch.nn.Module) -> None:
    """Biases start at zero and norms at one: make them matter."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, parameter.mean().item(), 0.3)


@pytest.fixture
def decoders() -> tuple[Any, StepAudio2]:
    """(transformers' Qwen2ForCausalLM, ours with its weights)."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    decoder = CONFIG.decoder
    theirs = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=ROWS,
            hidden_size=decoder.width,
            intermediate_size=decoder.inner_width,
            num_hidden_layers=decoder.num_layers,
            num_attention_heads=decoder.num_heads,
            num_key_value_heads=decoder.num_kv_heads,
            rope_theta=decoder.rope_theta,
            rms_norm_eps=decoder.norm_eps,
            max_position_embeddings=decoder.max_positions,
            tie_word_embeddings=False,
            initializer_range=0.2,
            eos_token_id=None,
            bos_token_id=None,
            pad_token_id=None,
        )
    )
    made_uneven(theirs)
    ours = StepAudio2(CONFIG, ROWS, 50)
    missing = ours.load_state_dict(theirs.state_dict(), strict=False).missing_keys  # the names are the published ones
    assert {name.split(".")[0] for name in missing} == {"encoder", "adapter", "ctc_head"}
    return theirs, ours


def documents(seed: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(ids ``[B, T]`` of PACKED, each document by itself)."""
    ids_BT = torch.randint(ROWS, (len(PACKED.rows), WIDTH), generator=torch.Generator().manual_seed(seed))
    rows = zip(ids_BT, PACKED.rows, strict=True)
    return ids_BT, [part for row, lengths in rows for part in row[: sum(lengths)].split(list(lengths))]


def our_logits(ours: StepAudio2, ids_BT: torch.Tensor) -> list[torch.Tensor]:
    """Logits of the packed documents, one by one."""
    logits_BTV = ours.lm_head(ours.hidden(ids_BT, PACKED.positions(WIDTH), PACKED))
    numbers_BT = PACKED.numbers(WIDTH)
    return [logits_BTV[numbers_BT == number] for number in range(len(PACKED.lengths))]


def next_token_loss(logits: list[torch.Tensor], parts: list[torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(torch.cat([x[:-1] for x in logits]), torch.cat([part[1:] for part in parts]))


def check_gradients(found: Mapping[str, torch.Tensor | None], expected: Mapping[str, torch.Tensor | None]) -> None:
    """Every tensor has one, or none, as there; the same direction, and no entry further off than 1e-5 of the largest."""
    assert found.keys() == expected.keys()
    for name, theirs in expected.items():
        ours = found[name]
        if theirs is None:
            assert ours is None, name
            continue
        assert ours is not None, name
        assert F.cosine_similarity(ours.flatten().double(), theirs.flatten().double(), dim=0) > 0.99999, name
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max(), name


def test_packed_logits_loss_and_every_gradient_are_those_of_qwen2_on_each_document(decoders: tuple[Any, StepAudio2]) -> None:
    theirs, ours = decoders
    ids_BT, parts = documents(0)
    expected = [theirs(part[None]).logits[0] for part in parts]
    logits = our_logits(ours, ids_BT)
    for found, wanted in zip(logits, expected, strict=True):
        assert (found - wanted).abs().max() <= 1e-5 * max(1.0, float(wanted.abs().max()))
    their_loss, our_loss = next_token_loss(expected, parts), next_token_loss(logits, parts)
    torch.testing.assert_close(our_loss, their_loss, atol=1e-6, rtol=1e-6)
    their_loss.backward()
    our_loss.backward()
    their_names = {name for name, _ in theirs.named_parameters()}
    check_gradients(
        {name: p.grad for name, p in ours.named_parameters() if name in their_names},
        {name: p.grad for name, p in theirs.named_parameters()},
    )


def test_ten_steps_of_adamw_end_at_the_same_weights(decoders: tuple[Any, StepAudio2]) -> None:
    theirs, ours = decoders
    trained = {name: p for name, p in ours.named_parameters() if name in dict(theirs.named_parameters())}
    our_steps = torch.optim.AdamW(trained.values(), lr=1e-3, weight_decay=0.1)
    their_steps = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.1)
    for step in range(10):
        ids_BT, parts = documents(step)
        our_loss = next_token_loss(our_logits(ours, ids_BT), parts)
        their_loss = next_token_loss([theirs(part[None]).logits[0] for part in parts], parts)
        torch.testing.assert_close(our_loss, their_loss, atol=1e-5, rtol=1e-5)
        for optimizer, loss in ((our_steps, our_loss), (their_steps, their_loss)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, parameter in theirs.named_parameters():
        # Steps of 1e-3: a gradient of the wrong sign anywhere would be off a hundred times as far.
        assert (trained[name] - parameter).abs().max() <= 1e-5, name


def test_frames_and_every_gradient_are_those_of_the_qwen2_audio_encoder() -> None:
    """Three pieces of which two are padded: frames that count agree, and so do gradients that reach them."""
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder, Qwen2AudioEncoderConfig

    torch.manual_seed(0)
    config = CONFIG.encoder
    theirs = Qwen2AudioEncoder(
        Qwen2AudioEncoderConfig(
            num_mel_bins=config.num_mels,
            d_model=config.width,
            encoder_attention_heads=config.num_heads,
            encoder_layers=config.num_layers,
            encoder_ffn_dim=4 * config.width,
            max_source_positions=config.num_positions,
            initializer_range=0.2,
        )
    ).eval()
    made_uneven(theirs)
    ours = AudioEncoder(config)
    ours.load_state_dict({published(name): tensor for name, tensor in theirs.state_dict().items()})
    num_valid_A = torch.tensor([80, 41, 18])
    mels_ACM = torch.randn(3, config.num_mels, 2 * config.num_positions)
    mels_ACM *= torch.arange(80) < num_valid_A[:, None, None]
    # Whisper's convolution halves with (n - 1) // 2 + 1; additive mask as transformers makes it for padded pieces.
    is_padding = torch.arange(config.num_positions) >= ((num_valid_A - 1) // 2 + 1)[:, None]
    mask = torch.zeros(3, 1, config.num_positions, config.num_positions).masked_fill(is_padding[:, None, None], -torch.inf)
    expected = theirs(mels_ACM, attention_mask=mask).last_hidden_state
    frames = ours(mels_ACM, num_valid_A)
    own_AF = torch.arange(frames.shape[1]) < ((num_valid_A + 1) // 2 // 2)[:, None]
    assert (frames - expected)[own_AF].abs().max() <= 1e-5 * expected[own_AF].abs().max()
    assert not frames[~own_AF].any()
    weights = torch.randn(expected[own_AF].shape)
    (expected[own_AF] * weights).sum().backward()
    (frames[own_AF] * weights).sum().backward()
    check_gradients(
        {name: p.grad for name, p in ours.named_parameters()},
        {published(name): p.grad for name, p in theirs.named_parameters()},
    )


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_answers_are_those_of_transformers(decoders: tuple[Any, StepAudio2], penalty: float) -> None:
    """Prompts of different lengths in one batch here, one by one there; nothing is forbidden but the rows past the text."""
    theirs, ours = decoders
    vocabulary = Vocabulary.small(TEXT_IDS, num_codes=4)
    prompts = [torch.randint(TEXT_IDS, (length,), generator=torch.Generator().manual_seed(length)) for length in (3, 9, 1, 6)]
    rules = Grammar(vocabulary, Ratio(), [vocabulary.end_of_text])
    answers = generate(
        ours,
        [Prompt(ids.numpy(), np.zeros(len(ids), dtype=bool)) for ids in prompts],
        rules,
        Sampling(max_new_tokens=20, repetition_penalty=penalty),
    )
    forbidden = (~rules.mask(rules.allowed(None), torch.device("cpu"))).nonzero().flatten().tolist()
    for ids, answer in zip(prompts, answers, strict=True):
        found = theirs.generate(
            ids[None],
            attention_mask=torch.ones_like(ids)[None],
            do_sample=False,
            max_new_tokens=20,
            repetition_penalty=penalty,
            eos_token_id=vocabulary.end_of_text,
            pad_token_id=vocabulary.end_of_text,
            suppress_tokens=forbidden,
        )
        assert found[0, len(ids) :].tolist() == answer.ids.tolist()
