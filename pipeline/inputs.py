"""An input: one thing to ingest, as a listing found it. Its key is (URI, size, version); nothing here opens audio."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field, replace
from typing import Any

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
# How filesystems name what changes when a file does, the best first.
VERSION_KEYS = ("ETag", "etag", "blob_id", "md5Hash", "mtime", "LastModified", "Last-Modified")
FACTS_FROM = "facts_from"


@dataclass(frozen=True)
class Input:
    """One listed input: its source key and the facts that came with it.

    Audio inside a tar, a table or a dataset has the URI ``<container>#<member>`` and the container's size and version as
    its version. ``facts`` are columns of INPUTS.
    """

    uri: str
    num_bytes: int  # of a row of a table: the mean of its row group, since listing reads no audio
    version: str  # etag or modification time; "" when the listing tells none
    facts: dict[str, str] = field(default_factory=dict)
    member: str = ""  # name in a tar; `<column>/<row>` in a table; "" for a file of its own
    offset: int | None = None  # first byte of a tar member's data

    @property
    def input_id(self) -> bytes:
        return input_id(self.uri, self.num_bytes, self.version)

    @property
    def container(self) -> str:
        """URI of the tar, table or dataset it lies in; of the file itself when it lies in none."""
        return self.uri.removesuffix(f"#{self.member}") if self.member else self.uri

    @property
    def source(self) -> str:
        """Unit of licence: as the manifest says, else the folder that the file lies in, or the tar or table that holds it."""
        # A saved dataset is a folder itself.
        is_file = not self.member or self.offset is not None or self.container.endswith(".parquet")
        return self.facts.get("source") or (posixpath.dirname(self.container) if is_file else self.container)

    def to_json(self) -> dict[str, Any]:
        """JSON values that ``Input(**values)`` takes; what is empty is left out: plans hold inputs by the million."""
        row: dict[str, Any] = {"uri": self.uri, "num_bytes": self.num_bytes, "version": self.version}
        optional = {"facts": self.facts or None, "member": self.member or None, "offset": self.offset}
        return row | {name: value for name, value in optional.items() if value is not None}

    def merged(self, other: Input) -> Input:
        """This input with the facts of another listing of it; where both know one, the other's."""
        origins = [item.facts[FACTS_FROM] for item in (self, other) if FACTS_FROM in item.facts]
        facts = {**self.facts, **other.facts}
        return replace(self, facts={**facts, FACTS_FROM: "; ".join(dict.fromkeys(origins))} if origins else facts)


def is_audio_name(path: str) -> bool:
    """Whether the name ends as files of audio do."""
    return posixpath.splitext(path)[1].lower() in AUDIO_SUFFIXES


def uri_of(fs: Any, path: str) -> str:
    """Address of a path: local ones are plain paths, as people write them."""
    return path if is_local(fs) and "://" not in path else str(fs.unstrip_protocol(path))


def is_local(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def beside(folder: str, place: str) -> str:
    """A place that a manifest in ``folder`` names."""
    return place if "://" in place or place.startswith("/") else posixpath.join(folder, place)


def version_of(info: dict[str, Any]) -> str:
    """What an fsspec listing says that changes with the file. Local times are whole microseconds: floats differ in print."""
    version = next((info[key] for key in VERSION_KEYS if info.get(key)), "")
    return f"{version:.6f}" if isinstance(version, float) else str(version).strip('"')


def container_version(info: dict[str, Any]) -> str:
    """Version of all that lies in a container: its size and its own version."""
    return f"{info['size'] or 0}-{version_of(info)}"


def file_input(fs: Any, info: dict[str, Any], facts: dict[str, str] | None = None) -> Input:
    """A file as an input; a size that the server does not tell is 0."""
    return Input(uri_of(fs, info["name"]), int(info["size"] or 0), version_of(info), facts or {})


def folder_of(fs: Any, path: str) -> str:
    """Address of the folder that a manifest lies in: with its protocol, so that what lies beside is looked for there."""
    return posixpath.dirname(uri_of(fs, path))
