"""What stands at many addresses: their sizes and versions, with few requests and a bound on those in flight."""

from __future__ import annotations

import glob
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from manifests.console import progress, say
from manifests.errors import RequestError
from manifests.remote import local_files, open_filesystem, os_errors, refusal
from pipeline.inputs import is_local

REQUESTS_IN_FLIGHT = 16
# From this many files of one remote folder on, its listing costs less than a request for each.
LISTED_FROM = 100
ASKED_AT_ONCE = 1000  # requests waiting in memory; fewer in all are over before a bar is read


class Place(NamedTuple):
    """An address and who names it, for errors: ``manifest 'm.jsonl' line 3``."""

    uri: str
    named_by: str


class Standing(NamedTuple):
    """What stands at a place: its filesystem and fsspec's description of it."""

    fs: Any
    info: dict[str, Any]


def files_below(fs: Any, folder: str) -> dict[str, dict[str, Any]]:
    """Path -> description of every file below a folder. Local links are followed; one that leads nowhere is told."""
    return _files(_described(fs, local_files(folder)) if is_local(fs) else fs.find(folder, detail=True))


def files_matching(fs: Any, pattern: str) -> dict[str, dict[str, Any]]:
    """``files_below`` for the files that a glob matches."""
    if is_local(fs):
        return _files(_described(fs, glob.iglob(pattern, recursive=True, include_hidden=True)))
    return _files(fs.glob(pattern, detail=True))


def _files(details: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {path: info for path, info in details.items() if info["type"] == "file"}


def _described(fs: Any, paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for path in paths:
        try:
            found[path] = fs.info(path)
        except FileNotFoundError:
            say(f"warning: {path!r} is a link that leads nowhere; it is left out")
    return found


def look_up(places: Sequence[Place]) -> list[Standing]:
    """What stands at each place, in order. Raises RequestError naming the first that is not there or not reached."""
    opened = list(_opened(places))
    listed = _listings(opened)
    keys = [(id(fs), path) for fs, path in opened]  # two servers may hold one path
    missing = [i for i, (fs, _) in enumerate(opened) if not is_local(fs) and keys[i] not in listed]
    if missing:
        with progress() as bars, ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
            bar = bars.task("look up inputs", len(missing), "files") if len(missing) > ASKED_AT_ONCE else None
            for first in range(0, len(missing), ASKED_AT_ONCE):
                asked = missing[first : first + ASKED_AT_ONCE]
                for i, info in zip(asked, pool.map(lambda i: _info(*opened[i], places[i]), asked), strict=True):
                    listed[keys[i]] = info
                if bar is not None:
                    bar.advance(len(asked))
    return [
        Standing(fs, listed[key] if key in listed else _info(fs, path, place))
        for key, (fs, path), place in zip(keys, opened, places, strict=True)
    ]


def _opened(places: Sequence[Place]) -> Iterator[tuple[Any, str]]:
    """(filesystem, path) of each; a filesystem is made once a server, not once a row."""
    known: dict[str, Any] = {}
    for place in places:
        if "::" in place.uri:
            yield open_filesystem(place.uri)
            continue
        scheme, separator, rest = place.uri.partition("://")
        server = f"{scheme}://{rest.split('/')[0]}" if separator else ""
        if server not in known:
            known[server] = open_filesystem(place.uri)[0]
        yield known[server], str(known[server]._strip_protocol(place.uri))


def _listings(opened: Sequence[tuple[Any, str]]) -> dict[tuple[int, str], dict[str, Any]]:
    """(filesystem, path) -> description, from listings of the remote folders that many of the places lie in."""
    folders: dict[tuple[int, str], list[Any]] = {}
    for fs, path in opened:
        if not is_local(fs) and "http" not in fs.protocol:
            folders.setdefault((id(fs), posixpath.dirname(path)), []).append(fs)
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for (server, folder), members in folders.items():
        if len(members) >= LISTED_FROM:
            try:
                with os_errors():
                    listing = members[0].ls(folder, detail=True)
                found |= {(server, info["name"]): info for info in listing if info["type"] == "file"}
            except FileNotFoundError:
                continue  # each of its places is looked up by itself, and the first that is missing is named
            except OSError as error:
                raise refusal(f"folder {folder!r}", error) from error
    return found


def _info(fs: Any, path: str, place: Place) -> dict[str, Any]:
    try:
        with os_errors():
            info: dict[str, Any] = fs.info(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RequestError(f"{place.named_by}: {place.uri!r} does not exist; mend the path") from error
    except OSError as error:
        raise refusal(f"{place.named_by}: {place.uri!r}", error) from error
    if info["type"] != "file":
        raise RequestError(f"{place.named_by}: {place.uri!r} is a {info['type']}; each line names one file")
    return info
