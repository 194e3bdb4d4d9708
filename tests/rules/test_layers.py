from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = ("manifests", "annotators", "tokenization", "pipeline", "training")


@pytest.mark.slow
def test_imports_only_point_downwards(repository: Path) -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A contract that was dropped from the configuration would pass silently.
    assert "2 kept, 0 broken" in done.stdout


def test_nothing_imports_the_command(repository: Path) -> None:
    """import-linter knows packages only; ``stepwell.py``, the top layer, is a module."""
    wrong = []
    for path in (path for folder in FOLDERS for path in (repository / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [str(path.relative_to(repository)) for name in names if name.split(".")[0] == "stepwell"]
    assert wrong == []
