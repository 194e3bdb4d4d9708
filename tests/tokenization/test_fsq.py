from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tokenization.fsq import FsqNetwork, TextHead, codes_of_digits, digits_of_codes, quantise  # noqa: E402 (torch may be absent)


@pytest.fixture
def network() -> FsqNetwork:
    torch.manual_seed(0)
    made = FsqNetwork(num_mels=20, width=16, encoder_blocks=2, decoder_blocks=1)
    made.mel_mean.copy_(torch.randn(20))
    made.mel_std.copy_(torch.rand(20) + 0.5)
    return made


def test_every_code_is_eight_digits_and_back() -> None:
    codes = torch.arange(6561)[None]
    digits = digits_of_codes(codes)
    assert digits.shape == (1, 8, 6561)
    assert set(digits.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert torch.equal(codes_of_digits(digits), codes)
    # Lowest place first, as S3 tokenizer v2 numbers them: all -1 but the first digit at 0 is code 1.
    assert digits[0, :, 1].tolist() == [0.0, *[-1.0] * 7]


def test_quantising_rounds_and_lets_the_gradient_of_tanh_through() -> None:
    z = torch.tensor([-9.0, -0.6, -0.5, 0.0, 0.5, 0.6, 9.0], requires_grad=True)
    digits = quantise(z)
    assert torch.allclose(digits, torch.tensor([-1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0]), atol=1e-6)
    digits.sum().backward()
    assert torch.allclose(z.grad, 0.999 * (1 - torch.tanh(z.detach()) ** 2), atol=1e-6)


def test_shapes_and_that_codes_decode_to_the_reconstruction(network: FsqNetwork) -> None:
    mel = torch.randn(3, 24, 20)
    digits = network.digits(mel)
    out, codes = network.rebuild(digits), codes_of_digits(digits)
    assert out.shape == mel.shape
    assert codes.shape == (3, 6)
    assert torch.equal(network.encode(mel), codes)
    assert torch.allclose(network.decode(codes), out, atol=1e-5)


def test_padding_moves_nothing(network: FsqNetwork) -> None:
    """An item beside a longer one has the digits, the spectrum and the letters that it has alone."""
    head = TextHead(num_labels=5, width=16, blocks=2)
    mels, lengths = torch.randn(2, 40, 20), torch.tensor([10, 4])
    digits = network.digits(mels, lengths)
    out, letters = network.rebuild(digits, lengths), head(digits, lengths)
    for item, length in enumerate(lengths.tolist()):
        alone = network.digits(mels[item : item + 1, : 4 * length])
        assert torch.equal(digits[item, :, :length].round(), alone[0].round())
        assert torch.allclose(out[item, : 4 * length], network.rebuild(alone)[0], atol=1e-5)
        assert torch.allclose(letters[item, :length], head(alone)[0], atol=1e-5)
    assert torch.allclose(letters.exp().sum(-1), torch.ones(2, 10), atol=1e-5)


def test_normalising_undoes_itself(network: FsqNetwork) -> None:
    mel = torch.randn(2, 8, 20)
    assert torch.allclose(network.denormalise(network.normalise(mel)), mel, atol=1e-5)


def test_gradients_reach_the_encoder(network: FsqNetwork) -> None:
    network.rebuild(network.digits(torch.randn(1, 16, 20))).abs().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.encoder.parameters())
