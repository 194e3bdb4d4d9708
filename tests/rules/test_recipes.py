from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from manifests.errors import RequestError
from manifests.recipes import RecipeModel, load_recipe, recipe_names

REPOSITORY = Path(__file__).parents[2]
# Package -> its modules whose ``…Recipe`` models the recipes of its folder decode into.
PACKAGES = {
    "manifests": ("manifests.audit.recipe",),
    "pipeline": ("pipeline.recipe",),
    "tokenization": ("tokenization.recipe",),
    "training": ("training.recipe",),
}
SHIPPED = [
    path.relative_to(REPOSITORY)
    for path in sorted(REPOSITORY.glob("*/**/*.yaml"))
    if "recipes" in path.parts and not path.relative_to(REPOSITORY).parts[0].startswith((".", "build"))
]


def kinds(package: str) -> list[type[RecipeModel]]:
    """What the recipes of a folder may decode into."""
    modules = [importlib.import_module(name) for name in PACKAGES[package]]
    own = [value for m in modules for value in vars(m).values() if isinstance(value, type) and value.__module__ == m.__name__]
    return [kind for kind in own if issubclass(kind, RecipeModel) and kind.__name__.endswith("Recipe")]


def decodes(kind: type[RecipeModel], package: str, name: str) -> bool:
    try:
        load_recipe(kind, package, name)
    except RequestError:
        return False
    return True


def test_every_folder_with_recipes_is_walked() -> None:
    assert {path.parts[0] for path in SHIPPED} == set(PACKAGES)
    assert sum(len(recipe_names(package)) for package in PACKAGES) == len(SHIPPED) > 0


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_a_shipped_recipe_decodes_as_one_kind(path: Path) -> None:
    package, name = path.parts[0], path.stem
    fitting = [kind.__name__ for kind in kinds(package) if decodes(kind, package, name)]
    if not fitting:  # say why, by the complaint of the kind that its own name or keys suggest
        for kind in kinds(package):
            load_recipe(kind, package, name)
    assert len(fitting) == 1, f"{path} decodes as {fitting}: a recipe must say what it is"
