"""Filesystems behind fsspec URIs: bounded patience, no remembered listings, and faults that are always OSErrors.

Clients raise what they like when a store does not answer (botocore and aiohttp errors are no OSErrors, and fsspec tells
an HTTP 503 as FileNotFoundError). Here FileNotFoundError means absent, PermissionError refused for good, and any other
OSError a fault that may pass.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fsspec.core import url_to_fs

from manifests.errors import RequestError

CONNECT_S = 10
SILENCE_S = 60  # how long an open connection may say nothing
MAX_ATTEMPTS = 3
# Packages of the clients that fsspec's filesystems rest on: what they raise is a fault of the store, not of our code.
CLIENTS = frozenset(["aiobotocore", "aiohttp", "botocore", "gcsfs", "adlfs", "httpx", "huggingface_hub", "requests", "urllib3"])
PASSING_STATUSES = frozenset([408, 425, 429])  # beside 5xx


def open_filesystem(uri: str) -> tuple[Any, str]:
    """(fsspec filesystem, path in it) of a local path or an fsspec URI; nothing is contacted yet.

    Raises RequestError for an unknown protocol or one whose package is not installed.
    """
    try:
        return url_to_fs(uri, **_options(uri))
    except (ValueError, ImportError) as error:
        raise RequestError(f"URI {uri!r} cannot be opened: {error}; use a local path or an fsspec URI") from error


def _options(uri: str) -> dict[str, Any]:
    """Options by protocol, for those in ``uri`` alone: fsspec hands what no protocol takes to the first filesystem."""
    options: dict[str, Any] = {}
    for part in uri.split("::"):
        protocol, _, rest = part.partition("://")
        if rest and protocol in ("s3", "s3a"):
            retries = {"max_attempts": MAX_ATTEMPTS, "mode": "standard"}
            clocks = {"connect_timeout": CONNECT_S, "read_timeout": SILENCE_S}
            # A remembered listing hides what another process has written since.
            options[protocol] = {"use_listings_cache": False, "config_kwargs": {"retries": retries, **clocks}}
        elif rest and protocol in ("http", "https"):
            import aiohttp

            # The default ends any transfer after five minutes, also one that flows.
            clock = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
            options[protocol] = {"use_listings_cache": False, "client_kwargs": {"timeout": clock}}
    return options


def local_files(folder: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Paths of all files below a local folder, by name; links are followed, and one to a folder ``above`` it is not.

    A link that leads nowhere counts as a file; a folder that is gone is empty. Raises OSError for one that
    cannot be listed: fsspec's own walk takes it for empty too, and what commits there name would be garbage.
    """
    here = os.path.realpath(folder)
    if here in above:
        return
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir():
            yield from local_files(entry.path, above | {here})
        elif entry.is_file() or entry.is_symlink():
            yield entry.path


@contextmanager
def os_errors() -> Iterator[None]:
    """Raise what clients raise within as the OSError that it means; everything else passes as it is."""
    try:
        yield
    except Exception as error:
        meant = _meant(error)
        if meant is error:
            raise
        raise meant from error


def refusal(what: str, error: OSError) -> RequestError:
    """A store's fault as the one line that a request ends with; ``what`` says what was asked for."""
    said = " ".join(str(error.strerror or error).split())
    if isinstance(error, FileNotFoundError):
        return RequestError(f"{what} does not exist ({said}); mend the address")
    if isinstance(error, PermissionError):
        return RequestError(f"{what} may not be read or written ({said}); check the credentials and the rights")
    return RequestError(f"{what} cannot be reached ({said}); check the address, the endpoint and the network")


def _meant(error: Exception) -> Exception:
    # fsspec's HTTP filesystem tells any failure to learn a size as FileNotFoundError; the cause has the truth.
    told = error.__cause__ if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception) else error
    if told is not error and _is_of_client(told) and not _code(told):
        return _meant(told)
    if _code(error.__cause__) in ("PreconditionFailed", "412"):
        return FileExistsError(errno.EEXIST, str(error))
    if isinstance(error, OSError):
        return _numbered(error)
    if not _is_of_client(error):
        return error
    text = " ".join(f"{type(error).__name__}: {error}".split())
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    # aiohttp gives an answer that it cannot parse a status of its own, and a cause.
    if isinstance(status, int) and error.__cause__ is None and 400 <= status < 500 and status not in PASSING_STATUSES:
        if status in (404, 410):
            return FileNotFoundError(errno.ENOENT, f"HTTP {status}: {text}")
        return PermissionError(errno.EACCES, f"HTTP {status}: {text}")
    if "Credential" in type(error).__name__:
        return PermissionError(errno.EACCES, f"{text}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
    return ConnectionError(errno.EIO, text)


def _numbered(error: OSError) -> OSError:
    """The error with ``strerror`` filled: s3fs raises its own without."""
    if error.strerror is not None:
        return error
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, str(error))
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, str(error))
    return error


def _is_of_client(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in CLIENTS


def _code(error: BaseException | None) -> str | None:
    """The code that an S3 server gave, e.g. NoSuchKey."""
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None
