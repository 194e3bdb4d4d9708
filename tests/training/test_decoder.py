import torch

from training.attention import DocumentSpans
from training.config import DecoderConfig
from training.decoder import Decoder

CONFIG = DecoderConfig(width=48, inner_width=96, num_heads=6, num_kv_heads=2, num_layers=3, rope_theta=1e4, max_positions=128)
ROWS = 101
WHOLE = DocumentSpans.one_a_row([23, 23])


def test_logits_and_gradients_are_those_of_transformers() -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    theirs = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=ROWS,
            hidden_size=CONFIG.width,
            intermediate_size=CONFIG.inner_width,
            num_hidden_layers=CONFIG.num_layers,
            num_attention_heads=CONFIG.num_heads,
            num_key_value_heads=CONFIG.num_kv_heads,
            rope_theta=CONFIG.rope_theta,
            rms_norm_eps=CONFIG.norm_eps,
            max_position_embeddings=CONFIG.max_positions,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )
    )
    for _, bias in theirs.named_parameters():
        if bias.ndim == 1:  # biases start at zero and norms at one: make them matter
            torch.nn.init.normal_(bias, 1.0, 0.3)
    ours = Decoder(CONFIG, ROWS)
    ours.load_state_dict(theirs.model.state_dict())  # the names are the published ones

    ids = torch.randint(ROWS, (2, 23))
    expected = theirs(ids).logits
    logits = theirs.lm_head(ours(ours.embed_tokens(ids), WHOLE.positions(23), WHOLE))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)

    targets = torch.randint(ROWS, (2, 23))
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    their_grads = dict(theirs.model.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, their_grads[name].grad, atol=1e-6, rtol=1e-4)
