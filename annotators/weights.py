"""Weights that ship inside installed packages: found without importing the package, hashed once a process."""

from __future__ import annotations

import functools
import importlib.util
import os

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
def path_digest(path: str) -> str:
    """Hex digest of a weights file, or of all files below a folder with their relative names."""
    if os.path.isfile(path):
        return weights_digest(path)
    files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return digest_json([[os.path.relpath(file, path), weights_digest(file)] for file in files])
