"""Checkpoints by hub id or local folder: found, verified and described before any audio is read.

No code from the hub is ever run. Pickles are left unread where safetensors lie beside them, and are read as weights only
where they do not. Nothing is fetched unless ``may_download`` says so; what is cached works without the network.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from annotators.weight_files import PICKLES, fault_of
from annotators.weights import path_digest, visible_files
from manifests.contracts import ModelFact
from manifests.errors import ModelUnavailable
from manifests.ids import digest_json

_BLOB = re.compile(r"^[0-9a-f]{40}$|^[0-9a-f]{64}$")  # what the hub's cache names files by: git or sha256 digest


# Fields that say where weights come from and run, and where a part runs: not what it says.
WHERE = frozenset({"when", "model", "revision", "may_download", "device", "batch_size"})


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine, with what an auditor must know of it."""

    name: str  # as the recipe says
    path: str  # local folder
    revision: str | None  # commit, where the folder is one of the hub's cache
    digest: str  # hex, over names and contents of all files that are not hidden
    licence: str | None  # of the model card; None where it says none
    config: Mapping[str, Any]  # config.json; empty where there is none

    @property
    def has_safetensors(self) -> bool:
        return any(name.endswith(".safetensors") for name in os.listdir(self.path))

    def fact(self) -> ModelFact:
        return ModelFact(self.name, self.revision, self.digest, self.licence)


def find_checkpoint(name: str, revision: str | None = None, *, may_download: bool = False) -> Checkpoint:
    """The checkpoint of a local folder or a hub id, its files whole as far as their own headers tell.

    Raises ModelUnavailable, with the remedy, where it is missing, damaged, or behind a licence that nobody accepted.
    """
    path = _local_folder(name, revision, may_download)
    config = _json(os.path.join(path, "config.json"), name)
    _verify(name, path, config)
    return Checkpoint(name, path, _commit_of(path), _digest(path), _licence(path), config)


def network_identity(config: BaseModel, **weights: Any) -> dict[str, Any]:
    """What of a config counts in the fingerprint of a part that runs a checkpoint, beside the digest of its weights.

    Every field does but those of WHERE; ``weights`` replaces fields that name further checkpoints by their digests. One rule
    for all: the device, the batch and the versions of torch, transformers or CTranslate2 change the order of sums and no
    meaning, so a corpus that half a cluster annotated on GPUs is one layer. Versions count where a library's own tables
    or rules are the model (normal forms of text, eSpeak).
    """
    return config.model_dump(mode="json", exclude=set(WHERE)) | weights


def check_type(checkpoint: Checkpoint, known: Mapping[str, Any] | Collection[str], what: str) -> None:
    """Refuse a checkpoint whose ``model_type`` transformers cannot run as ``what``; ``known`` holds the types that it can.

    Raises ModelUnavailable: the wrong kind of model, one that needs a newer transformers, or one that needs code of its own.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = checkpoint.config.get("model_type")
    if kind in known:
        return
    where = f"model {checkpoint.name!r}"
    if kind is None:
        raise ModelUnavailable(f"{where} has no config.json with a model_type; give the folder or id of a transformers {what}")
    if kind in CONFIG_MAPPING_NAMES:
        raise ModelUnavailable(f"{where} is of type {kind!r}, which is no {what}; give a checkpoint of one")
    if "auto_map" in checkpoint.config:
        raise ModelUnavailable(
            f"{where} needs code from the hub (auto_map in its config.json), which is never run; "
            f"give a {what} that transformers knows"
        )
    wrote, here = str(checkpoint.config.get("transformers_version", "")), transformers.__version__
    written = f"it was written by transformers {wrote}, here is {here}; " if wrote else ""
    remedy = f"install transformers >= {wrote}" if _is_newer(wrote, here) else f"give a {what}"
    raise ModelUnavailable(f"{where} is of type {kind!r}, which this transformers does not know; {written}{remedy}")


def _is_newer(wrote: str, here: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(wrote) > Version(here)
    except InvalidVersion:
        return False


@contextmanager
def loading(checkpoint: Checkpoint, what: str) -> Iterator[None]:
    """Around the calls that load: whatever a library raises there becomes one line with the remedy."""
    try:
        yield
    except ModelUnavailable:
        raise
    except ImportError as error:
        raise ModelUnavailable(
            f"model {checkpoint.name!r} needs a package that is not here: {_one_line(error)}; install it"
        ) from error
    except Exception as error:  # safetensors, pickle, torch and transformers each raise what they like
        raise ModelUnavailable(
            f"model {checkpoint.name!r} does not load as {what}: {_one_line(error)}; fetch it again or give another checkpoint"
        ) from error


def check_device(device: str) -> None:
    """Raises ModelUnavailable where a GPU is asked for in a process that sees none."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnavailable(
            f"device {device!r} is asked for and this machine has no CUDA GPU; say `device: cpu` or run where there is one"
        )


def _local_folder(name: str, revision: str | None, may_download: bool) -> str:
    expanded = os.path.expanduser(name)
    if os.path.isdir(expanded):
        return expanded
    if os.path.isfile(expanded):
        raise ModelUnavailable(f"model {name!r} is a file; give the folder of the checkpoint that it belongs to")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelUnavailable(f"model {name!r} is a path and no such folder exists; mend the path or give a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    # A gated model that was never fetched looks the same offline as any other; online the hub says so.
    try:
        # First the cache alone: a model that is here loads without asking the hub.
        return str(snapshot_download(name, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise ModelUnavailable(f"model {name!r} is neither a folder nor a hub id ({_one_line(error)}); mend the name") from error
    except (LocalEntryNotFoundError, OSError, ValueError):
        if not may_download:
            at = f" at revision {revision!r}" if revision else ""
            raise ModelUnavailable(
                f"model {name!r} is not on this machine{at}; fetch it with `huggingface-cli download {name}`, "
                "give a local folder instead, or set `may_download: true`"
            ) from None
    try:
        return str(snapshot_download(name, revision=revision, ignore_patterns=_not_wanted(name, revision)))
    except GatedRepoError as error:
        raise ModelUnavailable(
            f"model {name!r} wants its licence accepted; accept it on the model's page and log in with `huggingface-cli login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelUnavailable(f"model {name!r} is not on the hub, or is private; mend the name or log in") from error
    except Exception as error:  # the hub client raises a dozen kinds for a network that is not there
        raise ModelUnavailable(
            f"model {name!r} cannot be fetched: {_one_line(error)}; mend the network or fetch it elsewhere"
        ) from error


def _not_wanted(name: str, revision: str | None) -> list[str]:
    """Patterns of files that are not fetched: other frameworks' weights, and pickles where safetensors lie beside them."""
    from huggingface_hub import HfApi

    files = HfApi().list_repo_files(name, revision=revision)
    pickles = [f"*{end}" for end in PICKLES] if any(file.endswith(".safetensors") for file in files) else []
    return ["*.h5", "*.msgpack", "*.onnx", "*.py", *pickles]


def _verify(name: str, path: str, config: Mapping[str, Any]) -> None:
    """Raises ModelUnavailable for weights that are not there, cut short or damaged. Pickles beside safetensors do not count."""
    files = visible_files(path)
    if lost := [file for file in files if not os.path.exists(file)]:
        raise ModelUnavailable(f"model {name!r}: {os.path.relpath(lost[0], path)} is a link to nothing; fetch it again")
    tensors = [file for file in files if file.endswith(".safetensors")]
    weights = tensors or [file for file in files if file.endswith(PICKLES)]
    for file in weights:
        if fault := fault_of(file):
            raise ModelUnavailable(f"model {name!r}: {os.path.relpath(file, path)} is damaged ({fault}); fetch it again")
    for index in files:
        if not index.endswith(".index.json") or (tensors and not index.endswith(".safetensors.index.json")):
            continue
        shards = set(_json(index, name).get("weight_map", {}).values())
        if lacking := sorted(shard for shard in shards if not os.path.exists(os.path.join(os.path.dirname(index), shard))):
            raise ModelUnavailable(f"model {name!r} lacks {lacking[0]}, which {os.path.basename(index)} names; fetch it again")
    if config.get("model_type") and not weights:
        raise ModelUnavailable(
            f"model {name!r} has no safetensors and no torch weights beside its config.json; fetch it again, or give one that has"
        )


def _json(path: str, name: str) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except ValueError as error:
        raise ModelUnavailable(f"model {name!r}: {os.path.basename(path)} is no JSON ({error}); fetch it again") from error
    return found if isinstance(found, dict) else {}


def _commit_of(path: str) -> str | None:
    """The hub's commit of a folder in its cache (``.../snapshots/<commit>``)."""
    parent, name = os.path.split(os.path.abspath(path))
    return name if os.path.basename(parent) == "snapshots" else None


def _digest(path: str) -> str:
    """Hex digest over names and contents.

    In the hub's cache a link's target is named by the digest of its content, so nothing is read there; that is another
    digest than ours, and so a cached model and a folder with the same files differ here.
    """
    if _commit_of(path) is None:
        return path_digest(path)
    return digest_json([[os.path.relpath(file, path), _blob_of(file) or path_digest(file)] for file in visible_files(path)])


def _blob_of(file: str) -> str | None:
    """The hub's digest of a cached file; None where the cache holds copies instead of links."""
    name = os.path.basename(os.path.realpath(file))
    return name if _BLOB.match(name) else None


def _licence(path: str) -> str | None:
    """What the front matter of the model card says under ``license`` (or ``license_name`` where that is "other")."""
    try:
        with open(os.path.join(path, "README.md"), encoding="utf-8", errors="replace") as file:
            before, front, _ = file.read().split("---", 2)
        facts = None if before.strip() else yaml.safe_load(front)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(facts, dict):
        return None
    said = facts.get("license_name") if facts.get("license") == "other" else None
    licence = said or facts.get("license")
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence) if licence else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
