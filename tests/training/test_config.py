from __future__ import annotations

import pytest
import torch

from manifests.errors import RequestError
from tokenization.vocabulary import Vocabulary
from training.config import SIZES, model_config
from training.model import StepAudio2
from training.published import published_tensors
from training.start_recipe import StartRecipe

# Parameters in all under the published table (small ones: a thousand text ids). The text models' own counts are
# Qwen2.5's published ones: 0.49, 1.54, 3.09 and 7.61 billion, of them 0.36, 1.31, 2.77 and 6.53 besides the embeddings.
PARAMETERS = {"micro": 0.579e6, "tiny": 5.965e6, "small": 9.229e6, "0.5b": 1.29e9, "1.5b": 2.44e9, "3b": 4.07e9, "mini": 8.315e9}
BESIDES_EMBEDDINGS = {"0.5b": 0.36e9, "1.5b": 1.31e9, "3b": 2.77e9, "mini": 6.53e9}


def counted(size: str, vocabulary: Vocabulary) -> dict[str, int]:
    with torch.device("meta"):
        model = StepAudio2(model_config(size), vocabulary.num_rows, vocabulary.text_size)
    return {name: tensor.numel() for name, tensor in published_tensors(model).items()}


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_the_parameters_it_is_named_for(size: str) -> None:
    vocabulary = Vocabulary.small(1000) if size in ("micro", "tiny", "small") else Vocabulary.published()
    sizes = counted(size, vocabulary)
    assert sum(sizes.values()) == pytest.approx(PARAMETERS[size], rel=0.01)
    # The head is a matrix of its own in every size, also where the text model ties it.
    assert sizes["lm_head.weight"] == sizes["model.embed_tokens.weight"]
    if size in BESIDES_EMBEDDINGS:
        layers = sum(number for name, number in sizes.items() if name.startswith(("model.layers.", "model.norm.")))
        assert layers == pytest.approx(BESIDES_EMBEDDINGS[size], rel=0.01)


def test_small_is_at_most_ten_million_in_all() -> None:
    with torch.device("meta"):
        vocabulary = Vocabulary.small(1000)
        model = StepAudio2(model_config("small"), vocabulary.num_rows, vocabulary.text_size)
    assert sum(parameter.numel() for parameter in model.parameters()) < 10e6


def test_mini_is_the_published_layout() -> None:
    sizes = counted("mini", Vocabulary.published())
    assert len(sizes) == 832
    assert sum(sizes.values()) == pytest.approx(8.315e9, rel=1e-4)
    parts = {prefix: sum(name.startswith(prefix) for name in sizes) for prefix in ("model.", "lm_head.", "encoder.", "adapter.")}
    assert parts == {"model.": 338, "lm_head.": 1, "encoder.": 487, "adapter.": 6}
    billions = {
        prefix: sum(n for name, n in sizes.items() if name.startswith(prefix)) / 1e9
        for prefix in (("model.", "lm_head."), "encoder.", "adapter.")
    }
    assert list(billions.values()) == pytest.approx([7.663, 0.637, 0.0149], rel=2e-3)


def test_an_unknown_size_is_refused_with_the_names() -> None:
    with pytest.raises(RequestError, match=r"'7b' is unknown; sizes are micro, tiny, small, 0\.5b, 1\.5b, 3b, mini"):
        model_config("7b")


def test_a_start_names_a_model_or_its_parts() -> None:
    assert StartRecipe(encoder="a", decoder="b").model is None
    with pytest.raises(ValueError, match=r"leave start\.encoder and start\.decoder out"):
        StartRecipe(model="m", encoder="a")
