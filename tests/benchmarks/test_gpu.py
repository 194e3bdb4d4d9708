"""The benchmark of GPUs in miniature, on the CPU, where nothing but torch and NumPy can be imported besides its own folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import card
from benchmarks.gpu.__main__ import LEAST_S, found_by, reason_in, why_not
from benchmarks.gpu.kernels import compare
from benchmarks.gpu.made_material import make
from benchmarks.gpu.material import load, save
from benchmarks.gpu.page import page
from benchmarks.gpu.steps import kind_of
from tokenization.vocabulary import Vocabulary
from training import machines

ROOT = Path(__file__).parents[2]
# Imports as they are where torch was installed and nothing else was: what torch brings, and the checkout. Of this process and those
# that it starts.
PLAIN = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""
NOT_TORCHS = {"pyarrow", "pydantic", "pydantic_core", "ray", "yaml", "typer", "rich", "soundfile", "safetensors", "tokenizers",
              "transformers", "scipy", "xxhash", "soxr", "torchaudio"}  # fmt: skip


def run(folder: Path, *arguments: str, absent: frozenset[str] = frozenset()) -> str:
    (folder / "sitecustomize.py").write_text(PLAIN.format(names=NOT_TORCHS | absent))
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(folder / "out"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Two sequences of 512 for the smallest model."""
    path = tmp_path_factory.mktemp("gpu") / "material.pt"
    save(make(("micro",), 512, 2, Vocabulary.small(1100), clips=20), path)
    return path


@pytest.mark.slow
def test_it_runs_where_torch_alone_is_installed(material: Path, tmp_path: Path) -> None:
    asked = ("--sizes", "micro", "no-such-size", "--blocks", "eager", "--steps", "1", "--material", str(material))
    output = run(tmp_path, *asked)
    card, attention, agreement, micro, unknown = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert (card["name"], card["nominal_flops_per_s"]) == ("CPU", None)
    assert card["product_flops_per_s"] > 0
    assert "model size 'no-such-size' is unknown" in attention["not_measured"]  # and the parts behind it are measured
    assert agreement["float32"]["agrees"]
    assert 0 < agreement["bfloat16"]["gradient_error"] < agreement["bfloat16"]["limit"]
    assert micro["step_s"] > 0
    assert micro["tokens"] > 500
    assert (micro["mfu"], micro["peak_bytes"], micro["recomputes"]) == (None, None, False)
    assert set(micro["phases_s"]) >= {"copies to the device", "forward", "backward", "norms and clipping", "optimizer"}
    assert len(micro["stalls_s"]) == 3
    assert micro["losses"][-1] < micro["losses"][0]
    assert "model size 'no-such-size' is unknown" in unknown["not_measured"]
    for line in (*output.splitlines()[:-1], "# Training on one GPU"):
        assert line in (tmp_path / "out" / "gpu.md").read_text()


@pytest.mark.slow
def test_the_kernel_of_attention_is_held_against_the_formula(material: Path) -> None:
    (one,) = compare(load(material), "cpu", ["micro"])["sizes"].values()
    assert one["agrees"]
    assert max(one["errors"].values()) > 1e-4  # of bfloat16: the two sides are not the same numbers


def test_a_part_that_takes_too_long_and_one_without_time_are_reasons(tmp_path: Path) -> None:
    part = {"part": "card", "device": "cpu"}
    assert "the time is over" in found_by(part, tmp_path, LEAST_S - 1)["not_measured"]
    began = time.monotonic()
    assert "had not ended after 0 s" in found_by(part, tmp_path, LEAST_S, most_s=0.1)["not_measured"]
    assert time.monotonic() - began < 10


def test_nominal_speeds_are_those_that_runs_are_metered_by() -> None:
    assert {name: machine.flops_per_s for name, machine in machines.GPUS.items()} == card.NOMINAL_FLOPS_PER_S
    assert machines.SLOWER == card.SLOWER


def test_the_reason_is_the_error_and_not_the_advice_behind_it() -> None:
    told = "Traceback (most recent call last):\n  File x\ntorch.AcceleratorError: CUDA error: misaligned address\nCompile with `DSA`.\n\n"
    assert reason_in(told.splitlines()) == "torch.AcceleratorError: CUDA error: misaligned address"
    assert reason_in(["Killed", ""]) == "Killed"
    assert reason_in([]) == "it said nothing"


def test_shares_and_aims_are_told() -> None:
    found = {
        "part": "steps",
        "size": "3b",
        "blocks": "compiled",
        "recomputes": True,
        "step_s": 0.5,
        "tokens_per_s": 32_768.0,
        "mfu": 0.512,
        "peak_bytes": 2**36,
        "stalls_s": [9.0, 0.4, 0.6],
        "phases_s": {"forward": 0.2},
        "first_step_s": 40.0,
        "busy": 0.97,
        "launches": 4000,
        "kinds_ms": {"products": 300.0},
        "kernels": [["nvjet", 300.0, 900]],
        "took_s": 60.0,
    }
    told = page([found])
    assert "| 3b | compiled, recomputed | 500 | 32,768 | 51.2% (aim 50%: met) | 64.0 | 9.00, 0.60 |" in told
    assert "at work 97% of a step, 4000 kernels" in told
    kernels = ["nvjet_hsh_128x256", "void flash_fwd_kernel", "triton_poi_fused_mul_0", "vectorized_elementwise_kernel"]
    assert [kind_of(name) for name in kernels] == ["products", "attention", "compiled", "elementwise and others"]


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
    output = run(tmp_path, "--material", str(tmp_path / "material.pt"), absent=frozenset({absent}))
    assert output.startswith("not measured: ")
    assert reason in output


def test_an_old_python_or_torch_and_a_machine_without_a_gpu_are_reasons(monkeypatch: pytest.MonkeyPatch, material: Path) -> None:
    with monkeypatch.context() as older:
        older.setattr("sys.version_info", (3, 10, 13, "final", 0))
        assert str(why_not("cuda", material)).endswith("is older than 3.11")
    monkeypatch.setattr("torch.__version__", "2.8.0+cu128")
    assert "torch 2.8.0+cu128 is older than 2.11" in str(why_not("cuda", material))
    monkeypatch.setattr("torch.__version__", "2.11.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert why_not("cuda", material) == "torch finds no CUDA device"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert why_not("cuda", material) is None
