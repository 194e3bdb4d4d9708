"""Weights in the files that Hugging Face uses: safetensors, in one file or several with an index.

    config.json                         what the weights are
    model.safetensors                   all of them, or
    model-00001-of-00004.safetensors …  shards, and model.safetensors.index.json: tensor -> shard

Reading maps files into memory and copies one tensor at a time; all that headers tell is checked before the first copy.
Pickles are never read.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from manifests.errors import MismatchError, ModelUnavailable, RequestError, WorkError
from manifests.ids import new_attempt_id
from manifests.store import json_bytes
from training.digests import file_digest

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # as the published checkpoint is cut
DTYPES = ("F32", "BF16", "F16")
NAMED_FAULTS = 3  # tensors that a message names


class WeightFolder:
    """A folder's configuration and tensors by name. Raises ModelUnavailable where a file is absent or damaged."""

    def __init__(self, path: str) -> None:
        self.path = os.path.expanduser(path)
        if not os.path.isdir(self.path):
            raise ModelUnavailable(
                f"weights {path!r} are no folder here; give the folder of a checkpoint (config.json, safetensors)"
            )
        self.config = self._json(CONFIG)
        self._files = {name: self._open(name) for name in self._file_names()}
        self._file_of = {tensor: name for name, file in self._files.items() for tensor in file.keys()}  # noqa: SIM118 (no mapping)
        self._check_index()

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape by its header. Raises KeyError for a name that is not there."""
        return tuple(self._slice(name).get_shape())

    def read(self, name: str, num_rows: int | None = None) -> torch.Tensor:
        """The tensor as stored, or its first rows, on the CPU."""
        with self._reading(self._file_of[name]):
            return self._files[self._file_of[name]].get_tensor(name) if num_rows is None else self._slice(name)[:num_rows]

    def digests(self) -> dict[str, str]:
        """Of every file with tensors, by its name. Reads them whole."""
        found = {}
        for name in self._files:
            with self._reading(name):
                found[name] = file_digest(os.path.join(self.path, name))
        return found

    def value(self, key: str) -> Any:
        """What config.json states at a dotted key; None where it states nothing."""
        found: Any = self.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def check_type(self, kinds: Sequence[str]) -> None:
        """Raises MismatchError where the checkpoint is of another ``model_type``."""
        if (kind := self.config.get("model_type")) not in kinds:
            raise MismatchError(
                f"weights {self.path!r} are of model_type {kind!r}; what is read here is {' or '.join(kinds)}: give a checkpoint of that"
            )

    def check_values(self, wanted: Mapping[str, Any], size: str, optional: Collection[str] = ()) -> None:
        """Raises MismatchError at the first key of config.json that is not what the model of that size has.

        ``optional``: keys that a checkpoint may leave out.
        """
        for key, own in wanted.items():
            stated = self.value(key)
            if stated != own and not (stated is None and key in optional):
                raise MismatchError(
                    f"weights {self.path!r}: config.json has {key} {stated!r}, model {size!r} has {own!r}; "
                    "choose the size that the checkpoint is of"
                )

    def check_length(self, key: str, positions: int, size: str) -> None:
        """Raises MismatchError where the model sees further than the ``key`` of config.json. Less is fine: rotary positions
        have no weights."""
        stated = self.value(key)
        if not isinstance(stated, int) or stated < positions:
            raise MismatchError(
                f"weights {self.path!r}: config.json has {key} {stated!r}, model {size!r} sees {positions} positions, which must not be more; "
                "choose the size that the checkpoint is of"
            )

    def side_file(self, name: str) -> dict[str, Any] | None:
        """A JSON object that lies beside the weights; None where there is none."""
        return self._json(name) if os.path.exists(os.path.join(self.path, name)) else None

    def check_dtype(self, name: str) -> None:
        """Raises MismatchError where the tensor is not in plain floating point."""
        if (dtype := self._slice(name).get_dtype()) not in DTYPES:
            raise MismatchError(
                f"weights {self.path!r}: {name} is of type {dtype}; {', '.join(DTYPES)} are read: give weights that are not quantised"
            )

    def _slice(self, name: str) -> Any:
        return self._files[self._file_of[name]].get_slice(name)

    def _file_names(self) -> list[str]:
        if os.path.exists(os.path.join(self.path, INDEX)):
            return sorted(set(self._index().values()))
        if os.path.exists(os.path.join(self.path, SINGLE)):
            return [SINGLE]
        pickles = [name for name in sorted(os.listdir(self.path)) if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        held = f"it holds {pickles[0]}, and pickles are not read" if pickles else "it holds neither that nor an index"
        raise ModelUnavailable(f"weights {self.path!r} have no {SINGLE}: {held}; save them with transformers as safetensors")

    def _index(self) -> dict[str, str]:
        try:
            return dict(self._json(INDEX)["weight_map"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnavailable(f"weights {self.path!r}: {INDEX} has no weight_map; fetch the checkpoint again") from error

    def _check_index(self) -> None:
        if SINGLE in self._files:
            return
        for tensor, name in self._index().items():
            if self._file_of.get(tensor) != name:
                raise ModelUnavailable(
                    f"weights {self.path!r}: {INDEX} has {tensor} in {name}, which does not hold it; fetch the checkpoint again"
                )

    def _open(self, name: str) -> Any:
        path = os.path.join(self.path, name)
        if not os.path.exists(path):
            raise ModelUnavailable(f"weights {self.path!r}: {INDEX} names {name}, which is not there; fetch the checkpoint again")
        with self._reading(name):
            return safe_open(path, framework="pt")

    def _json(self, name: str) -> dict[str, Any]:
        path = os.path.join(self.path, name)
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError as error:
            raise ModelUnavailable(f"weights {self.path!r} have no {name}; give the folder of a whole checkpoint") from error
        except (OSError, ValueError) as error:
            raise ModelUnavailable(
                f"weights {self.path!r}: {name} cannot be read ({error}); fetch the checkpoint again"
            ) from error
        if not isinstance(found, dict):
            raise ModelUnavailable(f"weights {self.path!r}: {name} holds {type(found).__name__}, not an object; fetch it again")
        return found

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise ModelUnavailable(f"weights {self.path!r}: {name} is damaged ({error}); fetch the checkpoint again") from error


@dataclass(frozen=True)
class Reading:
    """Which tensor of a folder becomes a tensor of the model; ``num_rows``: only so many of its first rows."""

    folder: WeightFolder
    name: str
    num_rows: int | None = None


def check_readings(readings: Mapping[str, Reading], model: torch.nn.Module, size: str) -> None:
    """Compare names, shapes and types by the headers alone; ``size`` names the model in errors. Raises MismatchError."""
    wanted = model.state_dict()
    for name, reading in readings.items():
        folder, there = reading.folder, reading.name
        if there not in folder.names:
            absent = [r.name for r in readings.values() if r.folder is folder and r.name not in folder.names]
            more = f" and {len(absent) - NAMED_FAULTS} more" if len(absent) > NAMED_FAULTS else ""
            raise MismatchError(
                f"weights {folder.path!r} lack {', '.join(absent[:NAMED_FAULTS])}{more}; model {size!r} needs them: fetch the checkpoint again"
            )
        stored, own = folder.shape(there), tuple(wanted[name].shape)
        fits = stored == own if reading.num_rows is None else stored[1:] == own[1:] and stored[0] >= reading.num_rows
        if not fits:
            rows = "" if reading.num_rows is None else f" with at least {reading.num_rows} rows of the stored"
            raise MismatchError(
                f"weights {folder.path!r}: {there} is {list(stored)}, model {size!r} has {list(own)}{rows}; "
                "choose the size that the checkpoint is of"
            )
        folder.check_dtype(there)


@torch.no_grad()
def copy_readings(readings: Mapping[str, Reading], model: torch.nn.Module) -> None:
    """Copy checked readings into the model's tensors, in place, in the model's dtype.

    Raises ModelUnavailable for a value that is no finite number: no checkpoint is meant to hold one.
    """
    own = model.state_dict()
    for name, reading in readings.items():
        stored = reading.folder.read(reading.name, reading.num_rows)
        if not bool(torch.isfinite(stored).all()):
            raise ModelUnavailable(
                f"weights {reading.folder.path!r}: {reading.name} holds values that are not finite; fetch the checkpoint again"
            )
        own[name][: len(stored)].copy_(stored)


def write_folder(
    path: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    others: Mapping[str, bytes],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a new folder: configuration, weights in ``dtype`` and other small files; whole or not at all.

    One shard is in memory at a time. Raises RequestError where something lies at the path already, WorkError where the
    disk is full; what was begun is removed then.
    """
    if os.path.exists(path):
        raise RequestError(f"output {path!r} is there already; an export is a new folder: choose another --out")
    draft = f"{path.rstrip('/')}.{new_attempt_id()}"
    try:
        os.makedirs(draft)
        _write_shards(draft, tensors, dtype, shard_bytes)
        for name, data in {CONFIG: json_bytes(config), **others}.items():
            with open(os.path.join(draft, name), "wb") as file:
                file.write(data)
        os.rename(draft, path)
    except (OSError, SafetensorError) as error:
        raise WorkError(f"output {path!r} cannot be written ({error}); free space or choose another --out") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_shards(folder: str, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, shard_bytes: int) -> None:
    shards = shards_of({name: math.prod(tensor.shape) * dtype.itemsize for name, tensor in tensors.items()}, shard_bytes)
    names = (
        [SINGLE] if len(shards) == 1 else [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    )
    for file_name, shard in zip(names, shards, strict=True):
        held = {name: tensors[name].detach().to("cpu", dtype).contiguous() for name in shard}
        save_file(held, os.path.join(folder, file_name), metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {name: file_name for file_name, shard in zip(names, shards, strict=True) for name in shard}
        total = sum(math.prod(tensor.shape) * dtype.itemsize for tensor in tensors.values())
        with open(os.path.join(folder, INDEX), "wb") as file:
            file.write(json_bytes({"metadata": {"total_size": total}, "weight_map": weight_map}))


def shards_of(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    """Names in order, cut where the next tensor would make a shard larger than ``shard_bytes``."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    return shards
