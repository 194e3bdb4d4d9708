"""Where audio comes from: files, folders, globs and JSONL manifests, on any fsspec URI. Listing opens no audio.

A JSONL manifest has one object a line: ``uri`` (or ``path``, relative to the manifest) and any of the facts below,
kept beside the input with their own provenance.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fsspec.core import url_to_fs

from manifests.errors import RequestError
from manifests.ids import input_id

AUDIO_SUFFIXES = frozenset(
    [
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".m4a",
        ".mp4",
        ".aac",
        ".webm",
        ".mkv",
        ".mka",
        ".aif",
        ".aiff",
        ".au",
        ".caf",
        ".w64",
        ".rf64",
        ".sph",
        ".wma",
    ]
)
FACTS = ("source", "licence", "language", "speaker_label", "text", "reference_rttm_uri", "reference_stm_uri")
# Facts whose values are places: relative ones are relative to the manifest, as paths of audio are.
PLACES = ("reference_rttm_uri", "reference_stm_uri")


@dataclass(frozen=True)
class Input:
    """One listed input: its source key and the facts that came with it."""

    uri: str
    num_bytes: int
    version: str  # etag or modification time; "" when the listing tells none
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def input_id(self) -> bytes:
        return input_id(self.uri, self.num_bytes, self.version)

    @property
    def source(self) -> str:
        """Unit of licence: as the manifest says, else the folder that the input lies in."""
        return self.facts.get("source") or posixpath.dirname(self.uri)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def list_inputs(sources: Iterable[str]) -> list[Input]:
    """All inputs of the sources, sorted by URI, each once.

    Raises RequestError when a source does not exist or holds no audio; nothing has been written by then.
    """
    found: dict[bytes, Input] = {}
    for source in sources:
        listed = list(_list_source(source))
        if not listed:
            raise RequestError(f"source {source!r} holds no audio; files must end in one of {' '.join(sorted(AUDIO_SUFFIXES))}")
        for item in listed:
            known = found.get(item.input_id)
            found[item.input_id] = replace(item, facts={**known.facts, **item.facts}) if known else item
    return sorted(found.values(), key=lambda item: (item.uri, item.version))


def _list_source(source: str) -> Iterator[Input]:
    try:
        fs, path = url_to_fs(source)
    except (ValueError, ImportError) as error:
        raise RequestError(f"source {source!r} cannot be opened: {error}; use a path or an fsspec URI") from error
    if fs.isdir(path):
        yield from _list_details(fs, fs.find(path, detail=True))
    elif fs.isfile(path):
        if path.endswith(".jsonl"):
            yield from _list_manifest(fs, path)
        else:
            yield _described(fs, fs.info(path))
    elif any(sign in source for sign in "*?[") and (matches := fs.glob(path, detail=True)):
        yield from _list_details(fs, matches)
    else:
        raise RequestError(f"source {source!r} does not exist; give a file, a folder, a glob or a .jsonl manifest")


def _list_details(fs: Any, details: dict[str, dict[str, Any]]) -> Iterator[Input]:
    for path, info in details.items():
        if info["type"] == "file" and posixpath.splitext(path)[1].lower() in AUDIO_SUFFIXES:
            yield _described(fs, info)


def _list_manifest(fs: Any, path: str) -> Iterator[Input]:
    # With its protocol, so that what lies beside a remote manifest is looked for there.
    folder = posixpath.dirname(path if _is_local(fs) else fs.unstrip_protocol(path))
    for number, row in read_jsonl(fs.cat_file(path), path):
        place = row.pop("uri", None) or row.pop("path", None)
        if not isinstance(place, str):
            raise RequestError(f"manifest {path!r} line {number}: no `uri` or `path`; each line names one audio file")
        unknown = row.keys() - set(FACTS)
        if unknown:
            raise RequestError(f"manifest {path!r} line {number}: unknown keys {sorted(unknown)}; facts are {', '.join(FACTS)}")
        facts = {key: str(value) for key, value in row.items() if value is not None}
        for key in facts.keys() & set(PLACES):
            facts[key] = _beside(folder, facts[key])
        item_fs, item_path = url_to_fs(_beside(folder, place))
        try:
            yield _described(item_fs, item_fs.info(item_path), facts)
        except FileNotFoundError as error:
            raise RequestError(f"manifest {path!r} line {number}: {place!r} does not exist; mend the path") from error


def read_jsonl(data: bytes, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that is not empty. Raises RequestError naming the first line that is no object."""
    # Not splitlines: it also cuts at U+2028 and U+0085, which JSON strings may hold.
    for number, line in enumerate(data.decode().split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise RequestError(f"{what!r} line {number} is not JSON: {error}; each line is one object") from error
        if not isinstance(row, dict):
            raise RequestError(f"{what!r} line {number} holds {type(row).__name__}; each line is one object")
        yield number, row


def _beside(folder: str, place: str) -> str:
    return place if "://" in place or place.startswith("/") else posixpath.join(folder, place)


def _described(fs: Any, info: dict[str, Any], facts: dict[str, str] | None = None) -> Input:
    """An input from an fsspec listing. Local modification times are whole microseconds: floats differ in print."""
    version = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
    if isinstance(version, float):
        version = f"{version:.6f}"
    return Input(
        fs.unstrip_protocol(info["name"]) if "://" in info["name"] or not _is_local(fs) else info["name"],
        int(info["size"]),
        str(version).strip('"'),
        facts or {},
    )


def _is_local(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
