from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from manifests.errors import MismatchError, ModelUnavailable
from tokenization.vocabulary import Vocabulary
from training.config import model_config
from training.model import StepAudio2
from training.published import FACTS, published_config, published_tensors, save_published
from training.recipe import Group
from training.start import open_start
from training.start_recipe import StartRecipe

VOCABULARY = Vocabulary.small(300)
# config.json of the published mini, reference section 1.3.
MINI = {
    "architectures": ["StepAudio2ForCausalLM"],
    "model_type": "step_audio_2",
    "auto_map": {
        "AutoConfig": "configuration_step_audio_2.StepAudio2Config",
        "AutoModelForCausalLM": "modeling_step_audio_2.StepAudio2ForCausalLM",
    },
    "text_config": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_attention_groups": 4,
        "num_key_value_heads": 4,
        "num_hidden_layers": 28,
        "vocab_size": 158720,
        "max_seq_len": 16384,
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": None,
        "eos_token_id": 151643,
        "pad_token_id": 151643,
        "torch_dtype": "bfloat16",
    },
    "audio_encoder_config": {
        "n_mels": 128,
        "n_audio_ctx": 1500,
        "n_audio_state": 1280,
        "n_audio_head": 20,
        "n_audio_layer": 32,
        "n_codebook_size": 4096,
        "llm_dim": 3584,
        "kernel_size": 3,
        "adapter_stride": 2,
    },
    "torch_dtype": "bfloat16",
}


def made(seed: int = 0) -> StepAudio2:
    torch.manual_seed(seed)
    return StepAudio2(model_config("micro"), VOCABULARY.num_rows, VOCABULARY.text_size)


def saved(tmp_path: Path, dtype: torch.dtype = torch.float32) -> tuple[StepAudio2, str]:
    model, path = made(), str(tmp_path / "checkpoint")
    save_published(path, model, VOCABULARY, {"run": "r"}, dtype)
    return model, path


def edit(path: str, name: str, change: Any) -> None:
    file = Path(path) / name
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def test_the_configuration_of_mini_is_the_published_one() -> None:
    assert published_config(model_config("mini"), Vocabulary.published(), torch.bfloat16) == MINI


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scaled_down_checkpoint_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model, path = saved(tmp_path, dtype)
    start = open_start(StartRecipe(model=path), "micro", VOCABULARY)
    assert start.loaded == set(Group) - {Group.CTC_HEAD, Group.TAG_HEADS}
    other = made(1).to(dtype)
    own_head = other.ctc_head.weight.detach().clone()
    start.load(other, seed=5)
    for name, tensor in published_tensors(model).items():
        assert torch.equal(other.state_dict()[name], tensor.to(dtype)), name
    assert torch.equal(other.ctc_head.weight, own_head)
    # Saved again, the weights' file is the same, byte for byte.
    save_published(str(tmp_path / "again"), other, VOCABULARY, {"run": "r"}, dtype)
    files = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("checkpoint", "again")]
    assert files[0] == files[1]


def test_the_file_has_the_published_names_and_the_facts(tmp_path: Path) -> None:
    from safetensors import safe_open

    model, path = saved(tmp_path)
    with safe_open(f"{path}/model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(published_tensors(model))
        assert not [name for name in file.keys() if not name.startswith(("model.", "lm_head.", "encoder.", "adapter."))]  # noqa: SIM118
    facts = json.loads((Path(path) / FACTS).read_text())
    assert facts["run"] == "r"
    assert Vocabulary.from_json(facts["vocabulary"]) == VOCABULARY


def test_a_checkpoint_without_facts_is_read_by_its_rows(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    (Path(path) / FACTS).unlink()
    assert open_start(StartRecipe(model=path), "micro", VOCABULARY).readings


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "qwen2", "are of model_type 'qwen2'; what is read here is step_audio_2"),
        (
            "text_config.num_attention_groups",
            2,
            r"num_attention_groups 2 and text_config\.num_key_value_heads 1, which must be equal",
        ),
        ("text_config.max_seq_len", 99, r"max_seq_len 99 and text_config\.max_position_embeddings 2048"),
        ("audio_encoder_config.llm_dim", 99, r"llm_dim 99 and text_config\.hidden_size 32"),
        ("text_config.intermediate_size", 65, r"intermediate_size 65, model 'micro' has 64; choose the size"),
        ("text_config.rope_theta", 1e6, r"rope_theta 1000000\.0, model 'micro' has 10000\.0"),
        ("text_config.rope_scaling", {"type": "yarn"}, "rope_scaling"),
        ("text_config.vocab_size", 9, "vocab_size 9"),
        ("audio_encoder_config.n_mels", 128, "n_mels 128, model 'micro' has 40"),
        ("audio_encoder_config.adapter_stride", 4, "adapter_stride 4"),
    ],
)
def test_contradictions_and_other_sizes_are_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    _, path = saved(tmp_path)

    def change(config: dict[str, Any]) -> None:
        *parts, last = key.split(".")
        for part in parts:
            config = config[part]
        config[last] = value

    edit(path, "config.json", change)
    with pytest.raises(MismatchError, match=message):
        open_start(StartRecipe(model=path), "micro", VOCABULARY)


def test_keys_that_repeat_others_may_be_absent(tmp_path: Path) -> None:
    _, path = saved(tmp_path)

    def change(config: dict[str, Any]) -> None:
        del config["text_config"]["num_attention_groups"], config["text_config"]["max_seq_len"]

    edit(path, "config.json", change)
    assert open_start(StartRecipe(model=path), "micro", VOCABULARY).readings


def test_another_vocabulary_is_refused_though_it_has_as_many_rows(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    other = Vocabulary.small(301)
    assert other.num_rows == VOCABULARY.num_rows
    with pytest.raises(
        MismatchError, match=f"has vocabulary layout {VOCABULARY.layout_hash}, the tokenizer here {other.layout_hash}"
    ):
        open_start(StartRecipe(model=path), "micro", other)
    edit(path, FACTS, lambda facts: facts["vocabulary"].update(layout_hash="0" * 32))
    with pytest.raises(MismatchError, match="they must be equal"):
        open_start(StartRecipe(model=path), "micro", VOCABULARY)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    # The adaptor's inner width is in no key of the configuration.
    from safetensors.torch import load_file, save_file

    tensors = load_file(f"{path}/model.safetensors")
    tensors["adapter.linear1.weight"] = torch.zeros(48, 32)
    save_file(tensors, f"{path}/model.safetensors")
    with pytest.raises(MismatchError, match=r"adapter\.linear1\.weight is \[48, 32\], model 'micro' has \[32, 32\]"):
        open_start(StartRecipe(model=path), "micro", VOCABULARY)
    del tensors["adapter.linear1.weight"]
    save_file(tensors, f"{path}/model.safetensors")
    with pytest.raises(MismatchError, match=r"lack adapter\.linear1\.weight; model 'micro' needs them"):
        open_start(StartRecipe(model=path), "micro", VOCABULARY)


def test_a_name_of_the_hub_is_no_folder() -> None:
    with pytest.raises(ModelUnavailable, match="are no folder here"):
        open_start(StartRecipe(model="stepfun-ai/Step-Audio-2-mini"), "mini", Vocabulary.published())
