"""The benchmark of GPUs in miniature, on the CPU, where nothing but torch and NumPy can be imported besides its own folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import why_not
from benchmarks.gpu.made_material import make
from benchmarks.gpu.material import load, save
from tokenization.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]
# Imports as they are where torch was installed and nothing else was: what torch brings, and the checkout.
PLAIN = """
import sys
ABSENT = {"pyarrow", "pydantic", "pydantic_core", "ray", "yaml", "typer", "rich", "soundfile", "safetensors", "tokenizers",
          "transformers", "scipy", "xxhash", "soxr", "torchaudio"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT | set(sys.argv[1].split(",")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from benchmarks.gpu.__main__ import main
main(sys.argv[2:])
"""


def run(*arguments: str, absent: str = "") -> str:
    command = [sys.executable, "-c", PLAIN, absent, *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Two sequences of 512 for the smallest model."""
    path = tmp_path_factory.mktemp("gpu") / "material.pt"
    save(make(("micro",), 512, 2, Vocabulary.small(1100), clips=20), path)
    return path


@pytest.mark.slow
def test_it_runs_where_torch_alone_is_installed(material: Path) -> None:
    output = run("--device", "cpu", "--sizes", "micro", "--blocks", "eager", "--steps", "1", "--material", str(material))
    assert output.count("agrees") == 2
    (row,) = [line for line in output.splitlines() if line.startswith("| micro | eager |")]
    _, _, _, step_ms, tokens, mfu, memory, _, _ = (cell.strip() for cell in row.split("|"))
    assert float(step_ms) > 0
    assert int(tokens.replace(",", "")) > 0
    assert mfu == memory == "not measured"


def test_the_material_survives_its_file(material: Path, tmp_path: Path) -> None:
    first = load(material)
    save(first, tmp_path / "again.pt")
    again = load(tmp_path / "again.pt")
    assert (again.rows, again.num_mels, again.flops) == (first.rows, first.num_mels, first.flops)
    assert again.batches[0].spans == first.batches[0].spans
    assert (again.batches[1].ids_BT == first.batches[1].ids_BT).all()
    assert any(batch.heard for batch in again.batches)
    assert first.flops["micro"] > 0


@pytest.mark.parametrize(("absent", "reason"), [("torch", "this python3 has no torch"), ("", "material.pt is not there")])
def test_what_cannot_be_measured_is_said_and_is_no_failure(absent: str, reason: str, tmp_path: Path) -> None:
    output = run("--device", "cpu", "--material", str(tmp_path / "material.pt"), absent=absent)
    assert output.startswith("not measured: ")
    assert reason in output


def test_an_old_torch_and_a_machine_without_a_gpu_are_reasons(monkeypatch: pytest.MonkeyPatch, material: Path) -> None:
    monkeypatch.setattr("torch.__version__", "2.8.0+cu128")
    assert "torch 2.8.0+cu128 is older than 2.11" in str(why_not("cuda", material))
    monkeypatch.setattr("torch.__version__", "2.11.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert why_not("cuda", material) == "torch finds no CUDA device"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert why_not("cuda", material) is None
