from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDERS = ("manifests", "annotators", "tokenization", "pipeline", "training")


@pytest.mark.slow
def test_the_wheel_holds_the_packages_the_command_and_the_recipes(repository: Path, tmp_path: Path) -> None:
    # From a copy: setuptools writes build/ and egg-info beside what it builds.
    source = tmp_path / "source"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name and (repository / name).exists()]
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repository / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with zipfile.ZipFile(next((tmp_path / "dist").glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        scripts = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt"))
    expected = {name for name in names if name.startswith(FOLDERS) and name.endswith(".py")} | {"stepwell.py"}
    shipped = ("/recipes/", "/phrases/", "/templates/")
    expected |= {name for name in names if name.startswith(FOLDERS) and any(folder in name for folder in shipped)}
    assert any("/recipes/" in name for name in expected)
    assert any("/templates/" in name for name in expected)
    assert held == expected
    assert "stepwell = stepwell:main" in scripts
