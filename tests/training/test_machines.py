from __future__ import annotations

from pathlib import Path

import pytest

from manifests.errors import RequestError
from training.machines import GIB, Machine, find_machine


def test_names_say_kind_and_number() -> None:
    eight, one = find_machine("h100x8"), find_machine("h200x1")
    assert (eight.kind, eight.num_devices, eight.memory_bytes, eight.activation_bytes) == ("cuda", 8, 78 * GIB, 2)
    assert (one.num_devices, one.memory_bytes) == (1, 139 * GIB)
    two = find_machine("cpu2")
    assert (two.kind, two.num_devices, two.activation_bytes) == ("cpu", 1, 4)
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
