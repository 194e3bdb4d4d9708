from __future__ import annotations

from collections.abc import Callable

import pytest

from manifests.errors import RequestError
from tokenization.recipe import TokenizerRecipe


def test_a_recipe_is_decoded_strictly(make_recipe: Callable[..., TokenizerRecipe], recipe_text: str) -> None:
    for text, message in [
        (recipe_text.replace("steps:", "stepz:"), r"codec\.training\.stepz"),
        (recipe_text.replace("kind: fsq", "kind: encodec"), "codec"),
        (recipe_text + "interleave_ratio: 0:4\n", "interleave_ratio"),
        (recipe_text.replace("vocab_size: 270", "vocab_size: 7"), r"text\.vocab_size"),
    ]:
        with pytest.raises(RequestError, match=message):
            make_recipe(text)
