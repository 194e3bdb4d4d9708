"""What the committed tree may hold: names, sizes, words, addresses. Read from git, so a stray file does not count."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDERS = ("manifests", "annotators", "tokenization", "pipeline", "training")
CATCH_ALL = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_LINES = 600
# STYLE's "not" column, as far as a word is wrong wherever it stands as a part of one of our own public names. Words with
# another honest meaning (audio, frame, window, sample, batch, version, filter, segment, cut as a verb) are left to the reader.
WRONG_WORDS = {"dataset": "source or corpus", "wav": "recording", "chunk": "clip or piece", "preset": "recipe"}
WRONG_WORDS |= {"processor": "annotator", "metadata": "a column", "job": "run", "op": "stage or step"}
# Libraries' own words, where they are called or answered.
ALLOWED_NAMES = {"collate"}
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".pt", ".bin", ".onnx", ".safetensors")


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[Path]:
    """Paths of the committed files that are still there, relative to the root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [Path(name) for name in listed.stdout.split("\0") if name and (repository / name).exists()]


@pytest.fixture(scope="module")
def sources(tracked: list[Path]) -> list[Path]:
    found = [path for path in tracked if path.suffix == ".py"]
    assert len(found) > 20
    return found


def test_no_module_is_a_catch_all(sources: list[Path]) -> None:
    assert [str(path) for path in sources if path.stem in CATCH_ALL] == []


def test_no_file_is_too_long(sources: list[Path], repository: Path) -> None:
    lengths = {str(path): len((repository / path).read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_audio_or_weights_are_committed(tracked: list[Path]) -> None:
    assert [str(path) for path in tracked if path.suffix.lower() in AUDIO] == []


def test_no_registry_is_addressed(tracked: list[Path], repository: Path) -> None:
    # Spelt in parts, so that this file does not find itself.
    wrong = re.compile("|".join(["--(extra-)?index" + "-url", "--find" + "-links", "py" + r"pi\.org", "python" + r"hosted\.org"]))
    texts = {path: (repository / path).read_text(encoding="utf-8", errors="replace") for path in tracked}
    assert [str(path) for path, text in texts.items() if wrong.search(text)] == []


def test_no_path_of_this_machine_is_committed(tracked: list[Path], repository: Path) -> None:
    here = str(repository.parent) + "/"
    texts = {path: (repository / path).read_text(encoding="utf-8", errors="replace") for path in tracked}
    assert [str(path) for path, text in texts.items() if here in text] == []


def public_names(tree: ast.Module) -> Iterator[str]:
    """Names that a module offers: functions, classes, methods, their parameters, fields and module constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield from (argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))
    for body in (tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))):
        for statement in body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                yield statement.target.id
            elif isinstance(statement, ast.Assign):
                yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


def words_of(name: str) -> set[str]:
    """``numClips_ofUnit`` -> {num, clips, of, unit}; a plural counts as its singular too."""
    parts = {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}
    return parts | {part.removesuffix("s") for part in parts}


def test_public_names_keep_to_the_glossary(sources: list[Path], repository: Path) -> None:
    wrong = []
    for path in sources:
        if path.parts[0] not in FOLDERS:
            continue
        for name in public_names(ast.parse((repository / path).read_text(encoding="utf-8"))):
            if name.startswith("_") or name in ALLOWED_NAMES:
                continue
            wrong += [f"{path}: {name} (say {WRONG_WORDS[word]})" for word in words_of(name) & WRONG_WORDS.keys()]
    assert wrong == []


def test_words_are_found_in_names() -> None:
    assert words_of("ChunkedReader_v2") >= {"chunked", "reader"}
    assert words_of("load_datasets") >= {"dataset"}
    assert words_of("JobPlan") >= {"job", "plan"}
    assert words_of("optimiser_step").isdisjoint({"op"})
