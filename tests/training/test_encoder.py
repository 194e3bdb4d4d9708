import pytest
import torch
import torch.nn.functional as F

from manifests.errors import ContractError
from training.adaptor import Adaptor
from training.config import AdaptorConfig, DecoderConfig, EncoderConfig, ModelConfig
from training.encoder import AudioEncoder
from training.lengths import num_adaptor_frames, num_encoder_frames

CONFIG = EncoderConfig(num_mels=20, num_positions=40, width=32, num_heads=4, num_layers=2)
MODEL = ModelConfig(
    encoder=CONFIG,
    adaptor=AdaptorConfig(inner_width=16),
    decoder=DecoderConfig(width=24, inner_width=32, num_heads=2, num_kv_heads=1, num_layers=1),
)


@pytest.mark.parametrize("mel_frames", range(5, 17))
def test_a_piece_does_not_depend_on_what_it_is_batched_with(mel_frames: int) -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(CONFIG)
    adaptor = Adaptor(MODEL)
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


def test_groups_in_one_pass_have_the_frames_of_each_alone() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(CONFIG)
    valid = [[28, 28, 27], [15, 13], [4]]
    groups = [(torch.randn(len(counts), CONFIG.num_mels, max(counts) + 2), torch.tensor(counts)) for counts in valid]
    ragged: list[int] = []

    def kernel(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, same: torch.Tensor, longest: int, _: int
    ) -> torch.Tensor:
        """What the varlen kernel is said to compute, without causality."""
        assert torch.equal(starts, same)
        assert starts.dtype is torch.int32
        ragged[:] = starts.diff().tolist()
        assert (int(starts[0]), int(starts[-1])) == (0, len(q))
        assert max(ragged) <= longest
        parts = zip(*(x.transpose(0, 1).split(ragged, 1) for x in (q, k, v)), strict=True)
        return torch.cat([F.scaled_dot_product_attention(*part) for part in parts], 1).transpose(0, 1)

    together = encoder.all_groups(groups, kernel)
    assert ragged == [14, 1, 14, 1, 14, 1, 8, 1, 7, 2, 2, 1]  # positions at 50 Hz: each piece's own, and the padding behind it
    for found, (mels, counts) in zip(together, groups, strict=True):
        torch.testing.assert_close(found, encoder(mels, counts), atol=1e-5, rtol=1e-5)


def test_positions_are_constants() -> None:
    trained = [name for name, parameter in AudioEncoder(CONFIG).named_parameters() if parameter.requires_grad]
    assert "positional_embedding.weight" not in trained


def test_the_adaptor_is_its_formula() -> None:
    """The formula of reference 1.4, number by number in float64; values and the gradient of every weight."""
    torch.manual_seed(0)
    adaptor = Adaptor(MODEL).double()
    frames = torch.randn(2, 7, CONFIG.width, dtype=torch.float64)
    features = adaptor(frames)
    weights = {name: p.detach().clone().requires_grad_() for name, p in adaptor.named_parameters()}
    expected = torch.stack([plain_adaptor(weights, piece) for piece in frames])
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=1e-12)
    direction = torch.randn(expected.shape, dtype=torch.float64)
    (features * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, parameter in adaptor.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, atol=1e-12, rtol=1e-12)


def plain_adaptor(weights: dict[str, torch.Tensor], frames_FE: torch.Tensor) -> torch.Tensor:
    """Windows of three frames around every second one, zeros beyond the ends."""
    rows = []
    for centre in range(0, len(frames_FE), 2):
        x = weights["conv.bias"]
        for place in (-1, 0, 1):
            if 0 <= centre + place < len(frames_FE):
                x = x + weights["conv.weight"][:, :, place + 1] @ frames_FE[centre + place]
        x = x * 0.5 * (1.0 + torch.erf(x / 2.0**0.5))
        x = (weights["linear1.weight"] @ x + weights["linear1.bias"]).clamp(min=0)
        rows.append(weights["linear2.weight"] @ x + weights["linear2.bias"])
    return torch.stack(rows)


def test_audio_past_the_positions_is_refused() -> None:
    with pytest.raises(ContractError, match=r"41 positions of 50 Hz.*has 40"):
        AudioEncoder(CONFIG)(torch.zeros(1, CONFIG.num_mels, 81), torch.tensor([79]))
