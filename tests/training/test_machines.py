from __future__ import annotations

from pathlib import Path

import pytest
import torch

from manifests.errors import RequestError
from training.machines import GIB, GPUS, Machine, device_peak, find_machine


def test_names_say_kind_and_number() -> None:
    eight, one = find_machine("h100x8"), find_machine("h200x1")
    assert (eight.kind, eight.num_devices, eight.memory_bytes) == ("cuda", 8, 78 * GIB)
    assert (one.num_devices, one.memory_bytes) == (1, 139 * GIB)
    two = find_machine("cpu2")
    assert (two.kind, two.num_devices) == ("cpu", 1)
    # Cores add speed and no memory.
    assert two.flops_per_s == find_machine("cpu1").flops_per_s * 2
    assert two.memory_bytes == find_machine("cpu1").memory_bytes


def test_hours_are_operations_by_what_all_devices_reach() -> None:
    machine = Machine(name="m", kind="cuda", num_devices=4, memory_bytes=1, flops_per_s=1e12, efficiency=0.5)
    assert machine.hours(2e12 * 3600) == pytest.approx(1.0)


def test_a_machine_may_be_described_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("{name: mine, kind: cuda, num_devices: 2, memory_bytes: 1.0e9, flops_per_s: 1.0e12, efficiency: 0.3}")
    assert find_machine(str(path)).efficiency == 0.3
    path.write_text("{name: mine, kind: tpu}")
    with pytest.raises(RequestError, match="'kind' = 'tpu'"):
        find_machine(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="cannot be read"):
        find_machine(str(path))
    with pytest.raises(RequestError, match="cannot be read"):
        find_machine(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize("name", ["h100", "b200x8", "h100x0", "cpu", "cpu0", "8xh100"])
def test_unknown_names_are_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(RequestError, match="a100xN, h100xN, h200xN and cpuN"):
        find_machine(name)


def test_the_peak_of_a_cpu_is_measured_and_says_so() -> None:
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    peak = device_peak(torch.device("cpu"))
    assert torch.equal(torch.rand(3), drawn)  # a run's random numbers are none of its business
    assert peak.is_measured
    assert "measured" in peak.line()
    # No core does less than an operation a cycle in matrix products, and none ten thousand.
    assert 1e9 < peak.flops_per_s < 1e13 * torch.get_num_threads()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("NVIDIA L4", None),
    ],
)
def test_known_gpus_have_the_peak_of_their_data_sheet(monkeypatch: pytest.MonkeyPatch, name: str, known: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    monkeypatch.setattr("training.machines._measured", lambda *_: 7e12)
    peak = device_peak(torch.device("cuda"))
    assert (peak.device, peak.is_measured) == (name, known is None)
    assert peak.flops_per_s == (GPUS[known].flops_per_s if known else 7e12)
