"""Where audio comes from, on any fsspec URI. Listing opens no audio.

A source is a file, a folder, a glob, a list of addresses (``.txt``), a JSONL or Parquet manifest, a tar or WebDataset
shard, a Parquet table with embedded audio, or a Hugging Face dataset (``hf:NAME``, or a folder of ``save_to_disk``).
Manifests, tables, tars and datasets give facts, kept beside each input with their own provenance.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

from manifests.errors import RequestError
from manifests.remote import open_filesystem, os_errors, refusal
from pipeline.archives import list_tar
from pipeline.columns import ColumnMap
from pipeline.hub import PREFIX, hub_files, list_saved, saved_folders, saved_version
from pipeline.inputs import (
    AUDIO_SUFFIXES,
    Input,
    beside,
    container_version,
    file_input,
    folder_of,
    is_audio_name,
    is_local,
    uri_of,
)
from pipeline.places import Place, files_below, files_matching, look_up
from pipeline.tables import list_jsonl, list_parquet, read_jsonl, text_of

__all__ = ["AUDIO_SUFFIXES", "ColumnMap", "Input", "list_inputs", "read_jsonl"]

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
TABLES = (".tar", ".parquet", ".jsonl", ".txt")  # suffixes of what is listed, not ingested
AUDIO_FOLDER_MANIFEST = "metadata.jsonl"  # of Hugging Face's audio folders: `file_name` beside the facts


def list_inputs(sources: Iterable[str], columns: ColumnMap | None = None, planned: Iterable[Input] = ()) -> list[Input]:
    """All inputs of the sources, sorted by container, place in it and URI, each once.

    ``columns`` says which columns of manifests, tables, tars and datasets are which facts. Containers (tars, tables,
    datasets) that ``planned`` holds inputs of in their present version are not opened, and give nothing.

    Raises RequestError when a source does not exist, cannot be reached or holds no audio; nothing has been written by then.
    """
    listing = _Listing(columns or ColumnMap(), frozenset((i.container, i.version) for i in planned if i.member))
    found: dict[bytes, Input] = {}
    for source in sources:
        num_known = listing.num_known
        listed = list(listing.source(source))
        if not listed and listing.num_known == num_known:
            raise RequestError(f"source {source!r} holds no audio; files must end in one of {' '.join(sorted(AUDIO_SUFFIXES))}")
        for item in listed:
            key = _key_of(item)
            found[key] = found[key].merged(item) if key in found else item
    return sorted(found.values(), key=_order)


def _key_of(item: Input) -> bytes:
    """``input_id``. Raises RequestError for a name that no table can hold."""
    try:
        return item.input_id
    except UnicodeEncodeError as error:
        raise RequestError(f"input {item.uri!r} has a name that is not UTF-8; rename it") from error


def _order(item: Input) -> tuple[str, int, int, str, str]:
    """Rows and members stand as their container has them, so that it is read forwards."""
    row = int(item.member.rsplit("/", 1)[1]) if item.member and item.offset is None else 0
    return (item.container, item.offset or 0, row, item.uri, item.version)


class _Listing:
    """One listing: what columns mean, and the containers that plans hold."""

    def __init__(self, columns: ColumnMap, known: frozenset[tuple[str, str]]) -> None:
        self.columns, self.known = columns, known
        self.num_known = 0  # containers passed over
        self._open_lists: list[str] = []  # the list that is read, and those that name it

    def source(self, source: str) -> Iterator[Input]:
        """Inputs of one source."""
        if source.startswith(PREFIX) and "://" not in source:
            yield from self._addresses([Place(address, f"dataset {source!r}") for address in hub_files(source)])
            return
        fs, path = open_filesystem(source)
        try:
            with os_errors():
                info = self._info(fs, path, source)
                if info is None:
                    yield from self._found(fs, files_matching(fs, path), TABLES)
                elif info["type"] != "directory":
                    yield from self._file(fs, info)
                elif is_local(fs) and (saved := saved_folders(path)):
                    for folder in saved:
                        yield from self._saved(folder)
                else:
                    yield from self._found(fs, files_below(fs, path), (".tar",))
        except OSError as error:
            raise refusal(f"source {source!r}", error) from error

    @staticmethod
    def _info(fs: Any, path: str, source: str) -> dict[str, Any] | None:
        """What stands at the source; None for a glob."""
        try:
            with os_errors():
                info: dict[str, Any] = fs.info(path)
                return info
        except (FileNotFoundError, NotADirectoryError) as error:
            if any(sign in source for sign in "*?[") and "http" not in fs.protocol:
                return None
            said = f" ({error.strerror})" if not is_local(fs) and error.strerror else ""
            raise RequestError(
                f"source {source!r} does not exist{said}; give a file, a folder, a glob, a list, a manifest or hf:NAME"
            ) from error

    def _found(self, fs: Any, details: dict[str, dict[str, Any]], also: tuple[str, ...]) -> Iterator[Input]:
        """Audio files of a folder or glob, and what else its suffix makes a source here."""
        for path, info in details.items():
            if is_audio_name(path):
                yield file_input(fs, info)
            elif path.endswith(also):
                yield from self._file(fs, info)

    def _file(self, fs: Any, info: dict[str, Any]) -> Iterator[Input]:
        """Inputs of one file that the request names."""
        # Not the query of a signed URL.
        path = str(info["name"]).partition("?")[0] if "http" in fs.protocol else str(info["name"])
        if path.endswith(COMPRESSED):
            raise RequestError(f"source {path!r} is a compressed tar, which has no ranges to read; unpack it to a plain .tar")
        if path.endswith(".tar"):
            if not self._passed_over(uri_of(fs, info["name"]), container_version(info)):
                yield from list_tar(fs, info, self.columns)
        elif path.endswith(".parquet"):
            listed = list_parquet(fs, info, self.columns, self.known)
            self.num_known += listed is None
            yield from listed or ()
        elif path.endswith(".jsonl"):
            yield from list_jsonl(fs, info, self._columns_of(path))
        elif path.endswith(".txt"):
            folder, what = folder_of(fs, info["name"]), f"list {uri_of(fs, info['name'])!r}"
            if what in self._open_lists:
                raise RequestError(f"{what} names itself; a list names audio, manifests and tars")
            lines = enumerate(text_of(fs.cat_file(info["name"]), what).split("\n"), 1)
            self._open_lists.append(what)
            yield from self._addresses([Place(beside(folder, s), f"{what} line {n}") for n, line in lines if (s := line.strip())])
            self._open_lists.pop()
        else:
            yield file_input(fs, info)

    def _columns_of(self, path: str) -> ColumnMap:
        is_audio_folder = posixpath.basename(path) == AUDIO_FOLDER_MANIFEST and not self.columns.uri
        return self.columns.model_copy(update={"uri": "file_name"}) if is_audio_folder else self.columns

    def _addresses(self, places: list[Place]) -> Iterator[Input]:
        for found in look_up(places):
            yield from self._file(found.fs, found.info)

    def _saved(self, folder: str) -> Iterator[Input]:
        if not self._passed_over(folder, saved_version(folder)):
            yield from list_saved(folder, self.columns)

    def _passed_over(self, container: str, version: str) -> bool:
        is_known = (container, version) in self.known
        self.num_known += is_known
        return is_known
