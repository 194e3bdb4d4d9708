from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from manifests.errors import MismatchError, ModelUnavailable, RequestError, WorkError
from training import weight_files
from training.weight_files import Reading, WeightFolder, check_readings, copy_readings, shards_of, write_folder


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(6, 4, generator=generator) for name in ("a", "b", "c")}


def written(path: Path, shard_bytes: int = 10_000, dtype: torch.dtype = torch.float32) -> WeightFolder:
    write_folder(str(path), {"model_type": "mine", "deep": {"width": 4}}, tensors(), dtype, {"more.json": b"{}"}, shard_bytes)
    return WeightFolder(str(path))


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("a", "b", "c"):
            self.register_parameter(name, torch.nn.Parameter(torch.zeros(6, 4)))


@pytest.mark.parametrize("shard_bytes", [10_000, 200, 96])
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, shard_bytes: int) -> None:
    folder = written(tmp_path / "w", shard_bytes)
    assert folder.names == {"a", "b", "c"}
    for name, tensor in tensors().items():
        assert torch.equal(folder.read(name), tensor)
        assert torch.equal(folder.read(name, 2), tensor[:2])
    names = sorted(path.name for path in (tmp_path / "w").iterdir())
    shards = [name for name in names if name.endswith(".safetensors")]
    assert len(shards) == {10_000: 1, 200: 2, 96: 3}[shard_bytes]
    if len(shards) > 1:
        assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
        index = json.loads((tmp_path / "w" / weight_files.INDEX).read_text())
        assert index["metadata"]["total_size"] == 3 * 6 * 4 * 4
    assert list(tmp_path.iterdir()) == [tmp_path / "w"]


def test_transformers_reads_the_index(tmp_path: Path) -> None:
    from transformers.modeling_utils import load_sharded_checkpoint

    written(tmp_path / "w", 200)
    net = Net()
    load_sharded_checkpoint(net, str(tmp_path / "w"))
    assert all(torch.equal(tensor, tensors()[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_model_takes_weights_in_its_own_type(tmp_path: Path, dtype: torch.dtype) -> None:
    folder, net = written(tmp_path / "w", dtype=dtype), Net().to(torch.bfloat16)
    readings = {"a": Reading(folder, "b"), "c": Reading(folder, "c", 2)}
    check_readings(readings, net, "mine")
    copy_readings(readings, net)
    assert torch.equal(net.get_parameter("a"), tensors()["b"].to(dtype).to(torch.bfloat16))
    assert torch.equal(net.get_parameter("c")[:2], tensors()["c"][:2].to(dtype).to(torch.bfloat16))
    assert not net.get_parameter("c")[2:].any()
    assert not net.get_parameter("b").any()


def cut(path: Path) -> None:
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[:-20])


def scramble(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[9:40] = b"?" * 31
    (path / "model.safetensors").write_bytes(bytes(data))


def to_pickle(path: Path) -> None:
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def lose_config(path: Path) -> None:
    (path / "config.json").unlink()


def break_config(path: Path) -> None:
    (path / "config.json").write_text('{"model_type": ')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"model\.safetensors is damaged \(.*\); fetch the checkpoint again"),
        (scramble, r"model\.safetensors is damaged"),
        (to_pickle, "it holds pytorch_model.bin, and pickles are not read; save them with transformers as safetensors"),
        (lose_config, "have no config.json; give the folder of a whole checkpoint"),
        (break_config, r"config\.json cannot be read"),
    ],
)
def test_a_damaged_folder_is_one_line_with_the_remedy(tmp_path: Path, damage: Any, message: str) -> None:
    written(tmp_path / "w")
    damage(tmp_path / "w")
    with pytest.raises(ModelUnavailable, match=message) as caught:
        WeightFolder(str(tmp_path / "w"))
    assert "\n" not in str(caught.value)


def test_shards_that_are_missing_or_not_as_indexed_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    written(folder, 96)
    index = json.loads((folder / weight_files.INDEX).read_text())
    (folder / weight_files.INDEX).write_text(json.dumps({"weight_map": {**index["weight_map"], "d": index["weight_map"]["a"]}}))
    with pytest.raises(ModelUnavailable, match=r"has d in model-00001-of-00003\.safetensors, which does not hold it"):
        WeightFolder(str(folder))
    (folder / weight_files.INDEX).write_text(json.dumps({"weights": {}}))
    with pytest.raises(ModelUnavailable, match="has no weight_map"):
        WeightFolder(str(folder))
    (folder / weight_files.INDEX).write_text(json.dumps(index))
    (folder / index["weight_map"]["b"]).unlink()
    with pytest.raises(ModelUnavailable, match=r"names model-00002-of-00003\.safetensors, which is not there"):
        WeightFolder(str(folder))
    with pytest.raises(ModelUnavailable, match="are no folder here"):
        WeightFolder(str(tmp_path / "absent"))


def test_names_shapes_types_and_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "w")
    with pytest.raises(MismatchError, match=r"lack x, y, z and 1 more; model 'mine' needs them"):
        check_readings({name: Reading(folder, there) for name, there in zip("abcd", "xyzw", strict=True)}, Net(), "mine")
    net = Net()
    net.a = torch.nn.Parameter(torch.zeros(6, 5))
    net.b = torch.nn.Parameter(torch.zeros(9, 4))
    with pytest.raises(MismatchError, match=r"a is \[6, 4\], model 'mine' has \[6, 5\]; choose the size"):
        check_readings({"a": Reading(folder, "a")}, net, "mine")
    check_readings({"b": Reading(folder, "b", 6)}, net, "mine")
    with pytest.raises(MismatchError, match=r"b is \[6, 4\].*with at least 7 rows"):
        check_readings({"b": Reading(folder, "b", 7)}, net, "mine")
    save_file({"a": torch.zeros(6, 4, dtype=torch.int8)}, tmp_path / "w" / "model.safetensors")
    with pytest.raises(MismatchError, match="a is of type I8; F32, BF16, F16 are read: give weights that are not quantised"):
        check_readings({"a": Reading(WeightFolder(str(tmp_path / "w")), "a")}, Net(), "mine")
    save_file({"a": torch.full((6, 4), torch.nan)}, tmp_path / "w" / "model.safetensors")
    with pytest.raises(ModelUnavailable, match="a holds values that are not finite"):
        copy_readings({"a": Reading(WeightFolder(str(tmp_path / "w")), "a")}, Net())


def test_configurations_are_compared_key_by_key(tmp_path: Path) -> None:
    folder = written(tmp_path / "w")
    folder.check_values({"deep.width": 4, "deep.more": 1}, "mine", optional=["deep.more"])
    with pytest.raises(MismatchError, match=r"has deep\.width 4, model 'mine' has 5; choose the size"):
        folder.check_values({"deep.width": 5}, "mine")
    with pytest.raises(MismatchError, match=r"deep\.width\.x None"):
        folder.check_values({"deep.width.x": 5}, "mine")
    with pytest.raises(MismatchError, match="are of model_type 'mine'; what is read here is qwen2"):
        folder.check_type(["qwen2"])
    folder.check_length("deep.width", 3, "mine")
    with pytest.raises(MismatchError, match="sees 5 positions, which must not be more"):
        folder.check_length("deep.width", 5, "mine")


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """As on a disk that is full: writing past so many bytes of a file fails."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_an_export_is_a_new_folder_and_whole_or_absent(tmp_path: Path) -> None:
    written(tmp_path / "w")
    with pytest.raises(RequestError, match="is there already"):
        written(tmp_path / "w")
    with files_of_at_most(50), pytest.raises(WorkError, match=r"cannot be written .*; free space or choose another --out"):
        written(tmp_path / "x", 96)
    assert list(tmp_path.iterdir()) == [tmp_path / "w"]


def test_shards_keep_the_order_and_the_bound() -> None:
    sizes = {"a": 3, "b": 3, "c": 9, "d": 1, "e": 4}
    assert shards_of(sizes, 6) == [["a", "b"], ["c"], ["d", "e"]]
    assert shards_of(sizes, 100) == [list(sizes)]
