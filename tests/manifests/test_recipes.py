from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from manifests.errors import RequestError
from manifests.recipes import RecipeModel, decode_recipe, load_recipe, recipe_digest, recipe_names, resolved


class Inner(RecipeModel):
    max_s: float = 25.0


class Outer(RecipeModel):
    name: str
    cut: Inner = Inner()
    stages: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: a\ncut: {max_ms: 1}", "key 'cut.max_ms' is unknown"),
        ("name: a\nstages: [{max_s: 1}, {other: 1}]", "key 'stages.1.other' is unknown; keys there are "),
        ("cut: {}", "'name'"),
        ("name: a\ncut: {max_s: long}", "'cut.max_s' = 'long'"),
        ("name: a\nx: 1\ny: 2", "and 1 more"),
        ("- a", "holds list"),
        ("name: [", "is not YAML"),
        ("name: a\ncut: {max_s: .inf}", "'cut.max_s' = inf: Input should be a finite number"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line_with_the_path(text: str, complaint: str) -> None:
    with pytest.raises(RequestError, match="recipe 'mine'") as caught:
        decode_recipe(Outer, text, "mine")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_are_part_of_the_digest() -> None:
    short = decode_recipe(Outer, "name: a", "short")
    full = decode_recipe(Outer, "cut: {max_s: 25.0}\nname: a\nstages: []", "full")
    assert resolved(short) == {"name": "a", "cut": {"max_s": 25.0}, "stages": []}
    assert recipe_digest(short) == recipe_digest(full) != recipe_digest(decode_recipe(Outer, "name: b", "other"))


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        decode_recipe(Outer, "name: a", "mine").name = "b"  # type: ignore[misc]


def test_a_recipe_is_found_by_name_or_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "parts_of_a_test" / "recipes"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "shipped.yaml").write_text("name: a")
    (tmp_path / "mine.yaml").write_text("name: b")
    monkeypatch.syspath_prepend(tmp_path)
    package = "parts_of_a_test"
    assert recipe_names(package) == ["shipped"]
    assert load_recipe(Outer, package, "shipped").name == "a"
    assert load_recipe(Outer, package, str(tmp_path / "mine.yaml")).name == "b"
    with pytest.raises(RequestError, match="'other' is unknown; names are shipped"):
        load_recipe(Outer, package, "other")
    with pytest.raises(RequestError, match="does not exist"):
        load_recipe(Outer, package, str(tmp_path / "none.yaml"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("bytes.yaml", "folder.yaml"):
        with pytest.raises(RequestError, match=f"{name}' cannot be read"):
            load_recipe(Outer, package, str(tmp_path / name))
