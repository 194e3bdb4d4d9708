"""Weights that ship inside installed packages: found without importing the package, hashed once."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os

from manifests.contracts import ModelFact
from manifests.errors import ModelUnavailable
from manifests.ids import digest_json
from manifests.lineage import weights_digest


def packaged_path(package: str, *parts: str) -> str:
    """Path of a file or folder inside a top-level package, which is not imported.

    Raises ModelUnavailable when the package or the file is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(
            f"package {package!r} is not installed; install the versions in constraints.txt with the extra `annotators`"
        )
    path = os.path.join(next(iter(spec.submodule_search_locations)), *parts)
    if not os.path.exists(path):
        raise ModelUnavailable(f"package {package!r} has no {os.path.join(*parts)!r}; install the version in constraints.txt")
    return path


@functools.lru_cache(maxsize=64)
def packaged_model(licence: str, package: str, *parts: str) -> ModelFact:
    """Facts of a weights file or folder inside a package. Raises ModelUnavailable as ``packaged_path`` does."""
    path = packaged_path(package, *parts)
    # The names of these packages and of their distributions differ in dashes and case alone, which the look-up ignores.
    return ModelFact(package, importlib.metadata.version(package), path_digest(path), licence)


def is_packaged(model: ModelFact) -> bool:
    """Whether the facts are ``packaged_model``'s: the weights came with an installed package, which was tried with them."""
    try:
        return model.revision == importlib.metadata.version(model.name)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # an id or a folder is no name of a package
        return False


def path_digest(path: str) -> str:
    """Hex digest of a weights file, or of all files below a folder with their relative names; each content is hashed once."""
    if os.path.isfile(path):
        return _file_digest(path, *_size_and_time(path))
    return digest_json([[os.path.relpath(file, path), _file_digest(file, *_size_and_time(file))] for file in visible_files(path)])


@functools.lru_cache(maxsize=4096)
def _file_digest(path: str, size_bytes: int, modified_at_ns: int) -> str:
    """``size_bytes`` and ``modified_at_ns`` key the cache: another file may come to lie under the same name."""
    return weights_digest(path)


def _size_and_time(path: str) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns


def visible_files(folder: str) -> list[str]:
    """Paths of all files below a folder, sorted, without hidden ones: what tools keep beside a download (times, locks, git)."""
    found = (os.path.join(inside, name) for inside, _, names in os.walk(folder) for name in names)
    return sorted(file for file in found if not any(part.startswith(".") for part in os.path.relpath(file, folder).split(os.sep)))
