"""Recipes: YAML files decoded strictly into frozen pydantic models; an unknown key is an error with its path."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Callable
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from manifests.errors import RequestError
from manifests.ids import digest_json


class RecipeModel(BaseModel):
    """Base of everything that a recipe may hold: frozen, no key that nobody reads, and no number that is none or infinite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Recipe = TypeVar("Recipe", bound=RecipeModel)


def recipe_names(package: str) -> list[str]:
    """Names of the recipes that ship in ``<package>/recipes``."""
    folder = importlib.resources.files(package) / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _names_for(kind: type[RecipeModel], package: str) -> str:
    """Names of the shipped recipes that are of this kind: a folder holds recipes of builds and of packs."""
    fitting = []
    for name in recipe_names(package):
        try:
            kind.model_validate(yaml.safe_load(shipped_recipe(package, name)))
        except ValidationError:
            continue
        fitting.append(name)
    return ", ".join(fitting)


def shipped_recipe(package: str, name: str) -> str:
    """Text of a recipe that ships."""
    return (importlib.resources.files(package) / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(kind: type[Recipe], package: str, name_or_path: str) -> Recipe:
    """The recipe of that name in ``<package>/recipes``, or in a file when it ends in .yaml or .yml.

    Raises RequestError naming the path of the first key that is wrong.
    """
    text = read_recipe(package, name_or_path, lambda: _names_for(kind, package))
    return decode_recipe(kind, text, name_or_path)


def read_recipe(package: str, name_or_path: str, names: Callable[[], str]) -> str:
    """The text behind a recipe's name or file. Raises RequestError, with the ``names`` that there are, where there is none."""
    if name_or_path.endswith((".yaml", ".yml")):
        if not os.path.exists(name_or_path):
            raise RequestError(f"recipe file {name_or_path!r} does not exist; give a name ({names()}) or a file")
        try:
            with open(name_or_path, encoding="utf-8") as file:
                return file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"recipe file {name_or_path!r} cannot be read ({error}); give a text file of YAML") from error
    if name_or_path not in recipe_names(package):
        raise RequestError(f"recipe {name_or_path!r} is unknown; names are {names()}; a file ends in .yaml")
    return shipped_recipe(package, name_or_path)


def parse_recipe(text: str, what: str) -> dict[str, Any]:
    """YAML text as a mapping; ``what`` names it in errors."""
    try:
        raw: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RequestError(f"recipe {what!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"recipe {what!r} holds {type(raw).__name__}; it must be a mapping")
    return raw


def decode_recipe(kind: type[Recipe], text: str, what: str) -> Recipe:
    """A recipe from YAML text; ``what`` names it in errors."""
    raw = parse_recipe(text, what)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # A key that is misspelt is missing too: the name that nobody knows tells more.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        where = _path(raw, first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = ", ".join(_keys_at(kind.model_json_schema(), first["loc"][:-1]))
            raise RequestError(f"recipe {what!r}: key {where!r} is unknown; keys there are {known}{more}") from error
        if not where:  # a rule of the whole recipe: its message names the key, and the value would be the whole file
            raise RequestError(f"recipe {what!r}: {message}{more}") from error
        raise RequestError(f"recipe {what!r}: {where!r} = {first.get('input')!r}: {message}{more}") from error


def _path(raw: Any, steps: tuple[int | str, ...]) -> str:
    """The place as the file has it: pydantic also names the variant of a union that it tried, which is no key."""
    place: list[str] = []
    for number, step in enumerate(steps):
        is_key = (isinstance(raw, dict) and step in raw) or (isinstance(raw, list) and isinstance(step, int))
        if is_key or number == len(steps) - 1:
            place.append(str(step))
            raw = raw[step] if is_key else None
    return ".".join(place)


def _keys_at(schema: dict[str, Any], steps: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at a place of a JSON schema has; ``steps`` as pydantic names it, with the variants of unions."""

    def followed(node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node or "anyOf" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node["anyOf"][0]  # the other is null
        return node

    place = followed(schema)
    for step in steps:
        variants = place.get("discriminator", {}).get("mapping", {})
        inside = place.get("items" if isinstance(step, int) else "additionalProperties", {})
        place = followed({"$ref": variants[step]} if step in variants else place.get("properties", {}).get(step, inside))
    return list(place.get("properties", {}))


def resolved(recipe: RecipeModel) -> dict[str, Any]:
    """The recipe with every default filled in, as JSON values; written beside every output."""
    return recipe.model_dump(mode="json")


def recipe_digest(recipe: RecipeModel) -> str:
    """Hex digest of the resolved recipe."""
    return digest_json(resolved(recipe))
