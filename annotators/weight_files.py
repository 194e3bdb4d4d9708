"""Whether a weights file is whole, told from its own directory: nothing is loaded, and no library of models imported.

safetensors and CTranslate2 say how long each tensor is; torch's zip archives hold a checksum of each. A pickle of the time
before torch 1.6 says nothing, and is found out when it loads.
"""

from __future__ import annotations

import functools
import json
import os
import struct
import zipfile
from typing import BinaryIO

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
CTRANSLATE2_FILE = "model.bin"
CTRANSLATE2_VERSIONS = range(2, 100)  # of the format; below 2 it was another
ZIP_START = b"PK\x03\x04"
MOST_HEADER_BYTES = 100 << 20  # the limit of the safetensors library


def fault_of(path: str) -> str | None:
    """What is wrong with a weights file, in a few words; None where its directory finds no fault."""
    return _fault_of(path, os.path.getmtime(path))


def ctranslate2_type(path: str) -> str | None:
    """The name of the model's specification in a CTranslate2 file, e.g. ``WhisperSpec``; None where it is no such file."""
    try:
        with open(path, "rb") as file:
            version = _number(file, "<I")
            return _text(file) if version in CTRANSLATE2_VERSIONS else None
    except (EOFError, UnicodeDecodeError):
        return None


@functools.lru_cache(maxsize=256)
def _fault_of(path: str, modified_at_s: float) -> str | None:
    """``modified_at_s`` keys the cache."""
    size = os.path.getsize(path)
    if size == 0:
        return "it is empty"
    if path.endswith(".safetensors"):
        return _safetensors_fault(path, size)
    with open(path, "rb") as file:
        is_zip = file.read(len(ZIP_START)) == ZIP_START
    if is_zip:
        return _zip_fault(path)
    if ctranslate2_type(path):
        return _ctranslate2_fault(path, size)
    return None


def _safetensors_fault(path: str, size: int) -> str | None:
    try:
        with open(path, "rb") as file:
            length = _number(file, "<Q")
            if length > min(size, MOST_HEADER_BYTES):
                return "it has no safetensors header"
            tensors = json.loads(file.read(length))
        end = max((tensor["data_offsets"][1] for key, tensor in tensors.items() if key != "__metadata__"), default=0)
    except (EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "it has no safetensors header"
    return None if size == 8 + length + end else f"it has {size} bytes where its header wants {8 + length + end}"


def _zip_fault(path: str) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except zipfile.BadZipFile:
        return "the archive is cut short"
    return f"the checksum of {broken} is wrong" if broken else None


def _ctranslate2_fault(path: str, size: int) -> str | None:
    """Walks over the tensors, as ``ModelSpec.save`` of CTranslate2 4 writes them: name, shape, type, bytes."""
    try:
        with open(path, "rb") as file:
            _number(file, "<I")
            _text(file)
            _number(file, "<I")  # revision of the specification
            for _ in range(_number(file, "<I")):
                _text(file)
                file.seek(4 * _number(file, "<B"), os.SEEK_CUR)  # its dimensions
                _number(file, "<B")  # its type
                file.seek(_number(file, "<I"), os.SEEK_CUR)
            for _ in range(2 * _number(file, "<I")):  # aliases and what they stand for
                _text(file)
            end = file.tell()
    except (EOFError, UnicodeDecodeError):
        return "it is cut short"
    return None if end == size else f"it has {size} bytes where its tensors end at {end}"


def _number(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, _bytes(file, struct.calcsize(layout)))[0])


def _text(file: BinaryIO) -> str:
    return _bytes(file, _number(file, "<H")).rstrip(b"\0").decode()


def _bytes(file: BinaryIO, count: int) -> bytes:
    """So many bytes. Raises EOFError where there are fewer."""
    data = file.read(count)
    if len(data) < count:
        raise EOFError(f"{count} bytes wanted, {len(data)} left")
    return data
