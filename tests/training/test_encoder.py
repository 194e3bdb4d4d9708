import pytest
import torch

from training.adaptor import Adaptor
from training.config import AdaptorConfig, DecoderConfig, EncoderConfig, ModelConfig
from training.encoder import AudioEncoder
from training.lengths import num_adaptor_frames, num_encoder_frames

CONFIG = EncoderConfig(num_mels=20, num_positions=40, width=32, num_heads=4, num_layers=2)

RENAMED = [
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


def published_name(name: str) -> str:
    for theirs, ours in RENAMED:
        name = name.replace(theirs, ours)
    return name


def test_frames_are_those_of_the_qwen2_audio_encoder() -> None:
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder, Qwen2AudioEncoderConfig

    torch.manual_seed(0)
    theirs = Qwen2AudioEncoder(
        Qwen2AudioEncoderConfig(
            num_mel_bins=CONFIG.num_mels,
            d_model=CONFIG.width,
            encoder_attention_heads=CONFIG.num_heads,
            encoder_layers=CONFIG.num_layers,
            encoder_ffn_dim=4 * CONFIG.width,
            max_source_positions=CONFIG.num_positions,
        )
    ).eval()
    ours = AudioEncoder(CONFIG)
    ours.load_state_dict({published_name(name): tensor for name, tensor in theirs.state_dict().items()})
    mels = torch.randn(2, CONFIG.num_mels, 2 * CONFIG.num_positions)
    with torch.no_grad():
        expected = theirs(mels).last_hidden_state
        torch.testing.assert_close(ours(mels, torch.tensor([80, 80])), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mel_frames", range(5, 17))
def test_a_piece_does_not_depend_on_what_it_is_batched_with(mel_frames: int) -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(CONFIG)
    adaptor = Adaptor(
        ModelConfig(
            encoder=CONFIG,
            adaptor=AdaptorConfig(inner_width=16),
            decoder=DecoderConfig(width=24, inner_width=32, num_heads=2, num_kv_heads=1, num_layers=1),
        )
    )
    mel = torch.randn(1, CONFIG.num_mels, mel_frames)
    valid = mel_frames - 2
    batch = torch.zeros(2, CONFIG.num_mels, 30)
    batch[0, :, :mel_frames] = mel
    batch[1] = torch.randn(CONFIG.num_mels, 30)
    alone = adaptor(encoder(mel, torch.tensor([valid])))
    together = adaptor(encoder(batch, torch.tensor([valid, 28])))
    patches = num_adaptor_frames(num_encoder_frames(valid))
    assert alone.shape[1] >= patches
    torch.testing.assert_close(alone[:, :patches], together[:1, :patches], atol=1e-5, rtol=1e-5)


def test_positions_are_constants() -> None:
    trained = [name for name, parameter in AudioEncoder(CONFIG).named_parameters() if parameter.requires_grad]
    assert "positional_embedding.weight" not in trained
