from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from manifests.errors import MismatchError
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training import config
from training.attention import DocumentSpans
from training.config import AdaptorConfig, DecoderConfig, EncoderConfig, ModelConfig
from training.model import StepAudio2
from training.pretrained import EMBEDDING, HEAD, qwen2_audio_name, save_decoder
from training.recipe import Group
from training.start import check_tokenizer, open_start
from training.start_recipe import StartRecipe

VOCABULARY = Vocabulary.small(300, num_codes=200)
# A text model's matrix is longer than its ids: the rows behind them are padding, as in Qwen2.5.
THEIR_ROWS = 384
SIZE = ModelConfig(
    encoder=EncoderConfig(num_mels=20, num_positions=60, width=32, num_heads=4, num_layers=2),
    adaptor=AdaptorConfig(inner_width=24),
    decoder=DecoderConfig(width=48, inner_width=80, num_heads=6, num_kv_heads=2, num_layers=3, max_positions=128),
)


@pytest.fixture(autouse=True)
def size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.SIZES, "own", SIZE)


def made(dtype: torch.dtype = torch.float32) -> StepAudio2:
    torch.manual_seed(9)
    return StepAudio2(SIZE, VOCABULARY.num_rows, VOCABULARY.text_size).to(dtype).eval()


def qwen2(path: Path, tied: bool, **changes: Any) -> Any:
    """A text model whose biases and norms matter, saved by transformers."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {
        "vocab_size": THEIR_ROWS,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "rope_theta": 1e6,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**{**shape, "tie_word_embeddings": tied, **changes})).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    model.save_pretrained(path, max_shard_size="40KB")
    return model


def whole_audio_model(path: Path) -> Any:
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    torch.manual_seed(0)
    text = {"model_type": "qwen2", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    shape = Qwen2AudioConfig(audio_config=encoder_shape(), text_config={**text, **heads}, audio_token_index=5)
    model = Qwen2AudioForConditionalGeneration(shape).eval()
    model.save_pretrained(path)
    return model.audio_tower


def encoder_shape() -> dict[str, Any]:
    return {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": 20,
        "d_model": 32,
        "encoder_attention_heads": 4,
        "encoder_layers": 2,
        "encoder_ffn_dim": 128,
        "max_source_positions": 60,
    }


def encoder_alone(path: Path) -> Any:
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder, Qwen2AudioEncoderConfig

    torch.manual_seed(0)
    model = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**encoder_shape())).eval()
    model.save_pretrained(path)
    return model


def logits_of(model: StepAudio2, ids: torch.Tensor) -> torch.Tensor:
    batch, positions = ids.shape
    spans = DocumentSpans(((positions,),) * batch)
    with torch.no_grad():
        return model.lm_head(model.hidden(ids, torch.arange(positions).expand(batch, positions), spans))


@pytest.mark.parametrize("tied", [True, False])
def test_a_text_model_says_here_what_it_says_in_transformers(tmp_path: Path, tied: bool) -> None:
    theirs, ours = qwen2(tmp_path / "q", tied), made()
    assert (tmp_path / "q" / "model.safetensors.index.json").exists()
    start = open_start(StartRecipe(decoder=str(tmp_path / "q")), "own", VOCABULARY)
    assert start.loaded == {Group.DECODER, Group.EMBEDDING, Group.HEAD}
    start.load(ours, seed=1)
    rows = VOCABULARY.num_text_rows
    ids = torch.randint(rows, (2, 30))
    with torch.no_grad():
        expected = theirs(ids).logits[..., :rows]
    torch.testing.assert_close(logits_of(ours, ids)[..., :rows], expected, atol=1e-5, rtol=1e-5)


def test_the_rows_of_the_text_model_are_its_own_and_all_others_are_drawn(tmp_path: Path) -> None:
    theirs, ours = qwen2(tmp_path / "q", tied=True), made()
    before = ours.get_parameter(EMBEDDING).detach().clone()
    open_start(StartRecipe(decoder=str(tmp_path / "q")), "own", VOCABULARY).load(ours, seed=1)
    rows, stored = VOCABULARY.num_text_rows, theirs.model.embed_tokens.weight
    for name in (EMBEDDING, HEAD):
        own = ours.get_parameter(name).detach()
        assert torch.equal(own[:rows], stored[:rows])
        # Their padding rows are not taken over, and none of the random start is left.
        assert not (own[rows:THEIR_ROWS] == stored[rows:]).all(1).any()
        assert not (own[rows:] == before[rows:]).all(1).any()
        assert own[rows:].std() == pytest.approx(float(stored[:rows].std()), rel=0.1)
    # What was one matrix is two.
    assert ours.get_parameter(EMBEDDING).data_ptr() != ours.get_parameter(HEAD).data_ptr()
    assert not torch.equal(ours.get_parameter(EMBEDDING)[rows:], ours.get_parameter(HEAD)[rows:])


def test_bfloat16_weights_load_without_a_detour(tmp_path: Path) -> None:
    theirs, ours = qwen2(tmp_path / "q", tied=False, dtype="bfloat16"), made(torch.bfloat16)
    theirs.to(torch.bfloat16).save_pretrained(tmp_path / "b")
    open_start(StartRecipe(decoder=str(tmp_path / "b")), "own", VOCABULARY).load(ours, seed=1)
    for name, tensor in theirs.model.layers.state_dict().items():
        assert torch.equal(ours.state_dict()[f"model.layers.{name}"], tensor), name


@pytest.mark.parametrize("save", [whole_audio_model, encoder_alone])
def test_the_encoder_of_qwen2_audio_hears_here_what_it_hears_there(tmp_path: Path, save: Any) -> None:
    theirs, ours = save(tmp_path / "e"), made()
    start = open_start(StartRecipe(encoder=str(tmp_path / "e")), "own", VOCABULARY)
    assert start.loaded == {Group.ENCODER}
    start.load(ours, seed=1)
    mels = torch.randn(2, 20, 120)
    with torch.no_grad():
        expected = theirs(mels).last_hidden_state
        torch.testing.assert_close(ours.encode(mels, torch.tensor([120, 120])), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours.encoder.positional_embedding.weight, theirs.embed_positions.weight)


def test_every_tensor_of_the_encoder_has_one_name_there(tmp_path: Path) -> None:
    theirs = encoder_alone(tmp_path / "e").state_dict()
    ours = [qwen2_audio_name(name) for name in made().encoder.state_dict()]
    assert sorted(ours) == sorted(theirs)


def test_encoder_and_decoder_load_together(tmp_path: Path) -> None:
    qwen2(tmp_path / "q", tied=True)
    encoder_alone(tmp_path / "e")
    start = open_start(StartRecipe(encoder=str(tmp_path / "e"), decoder=str(tmp_path / "q")), "own", VOCABULARY)
    assert start.loaded == {Group.ENCODER, Group.DECODER, Group.EMBEDDING, Group.HEAD}
    adaptor = {name: tensor.clone() for name, tensor in made().adapter.state_dict().items()}
    ours = made()
    start.load(ours, seed=1)
    assert all(torch.equal(ours.adapter.state_dict()[name], tensor) for name, tensor in adaptor.items())


def test_an_exported_decoder_says_in_transformers_what_it_says_here(tmp_path: Path) -> None:
    from transformers import Qwen2ForCausalLM

    ours = made()
    for parameter in ours.model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    save_decoder(str(tmp_path / "out"), ours, VOCABULARY, {}, torch.float32)
    theirs, report = Qwen2ForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = torch.randint(VOCABULARY.num_rows, (2, 30))
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(ids).logits, logits_of(ours, ids), atol=1e-5, rtol=1e-5)
    # And back again: its text rows are as they were.
    again = made()
    open_start(StartRecipe(decoder=str(tmp_path / "out")), "own", VOCABULARY).load(again, seed=1)
    rows = VOCABULARY.num_text_rows
    assert torch.equal(again.get_parameter(HEAD)[:rows], ours.get_parameter(HEAD)[:rows])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, "num_hidden_layers 2, model 'own' has 3"),
        ({"rope_theta": 1e4}, r"rope_theta 10000\.0, model 'own' has 1000000\.0"),
        ({"max_position_embeddings": 64}, "sees 128 positions, which must not be more"),
        ({"vocab_size": 200}, r"embed_tokens\.weight is \[200, 48\].*with at least 304 rows"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling"),
    ],
)
def test_text_models_of_another_shape_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    qwen2(tmp_path / "q", tied=False, **changes)
    with pytest.raises(MismatchError, match=message):
        open_start(StartRecipe(decoder=str(tmp_path / "q")), "own", VOCABULARY)


def test_the_wrong_kind_of_checkpoint_is_refused_by_its_type(tmp_path: Path) -> None:
    qwen2(tmp_path / "q", tied=True)
    encoder_alone(tmp_path / "e")
    with pytest.raises(MismatchError, match="model_type 'qwen2'; what is read here is qwen2_audio or qwen2_audio_encoder"):
        open_start(StartRecipe(encoder=str(tmp_path / "q")), "own", VOCABULARY)
    with pytest.raises(MismatchError, match="model_type 'qwen2_audio_encoder'; what is read here is qwen2"):
        open_start(StartRecipe(decoder=str(tmp_path / "e")), "own", VOCABULARY)


def test_a_head_that_is_neither_stored_nor_tied_is_refused(tmp_path: Path) -> None:
    qwen2(tmp_path / "q", tied=True)
    stated = json.loads((tmp_path / "q" / "config.json").read_text())
    (tmp_path / "q" / "config.json").write_text(json.dumps({**stated, "tie_word_embeddings": False}))
    with pytest.raises(MismatchError, match=r"have no lm_head\.weight, and config\.json does not say tie_word_embeddings"):
        open_start(StartRecipe(decoder=str(tmp_path / "q")), "own", VOCABULARY)


def test_a_text_model_whose_ids_mean_other_texts_is_refused(tmp_path: Path) -> None:
    start = StartRecipe(decoder=str(tmp_path))
    ours = TextTokenizer.train(["so la mi re do"] * 9, 300)
    check_tokenizer(start, ours)  # no tokenizer.json
    other = TextTokenizer.train(["la so ti fa"] * 9, 300)
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(MismatchError, match=r"id \d+ is '.+' in its tokenizer\.json, '.+' in the tokenizer here"):
        check_tokenizer(start, ours)
    # Two bytes that are no text by themselves, the one in the other's place.
    exchanged = json.loads(ours.data)
    first, second = [token for token, number in exchanged["model"]["vocab"].items() if ours.decode([number]) == "\ufffd"][:2]
    ids = exchanged["model"]["vocab"]
    ids[first], ids[second] = ids[second], ids[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(exchanged))
    with pytest.raises(MismatchError, match="make the tokenizer from that file"):
        check_tokenizer(start, ours)
    # Written in another way, it is the same tokenizer.
    (tmp_path / "tokenizer.json").write_text(json.dumps(json.loads(ours.data), indent=3))
    check_tokenizer(start, ours)
    check_tokenizer(StartRecipe(), ours)
