"""Hugging Face datasets: those on the hub by their files, those of ``save_to_disk`` by their rows.

``hf:NAME?config=C&split=S&revision=R`` is resolved to the dataset's own files (Parquet, WebDataset tars, audio folders,
JSONL), which are then listed and read like any others, by range: nothing is downloaded whole and nothing is decoded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pyarrow.compute as pc

from manifests.errors import RequestError
from pipeline.columns import ColumnMap, facts_of
from pipeline.inputs import Input
from pipeline.tables import audio_column, is_embedded, row_input

PREFIX = "hf:"
OPTIONS = ("config", "split", "revision")
ROWS_AT_ONCE = 1000
_COMMIT = re.compile(r"@[0-9a-f]{40}(?=/)")


def hub_files(source: str) -> list[str]:
    """Addresses of the files of ``hf:NAME[?config=..&split=..&revision=..]``, of all splits unless one is named.

    Raises RequestError for a dataset, configuration or split that is unknown or cannot be reached.
    """
    from datasets import load_dataset_builder

    name, _, query = source.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query))
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise RequestError(f"source {source!r}: option {unknown[0]!r} is unknown; options are {', '.join(OPTIONS)}")
    try:
        builder = load_dataset_builder(name, options.get("config"), revision=options.get("revision"))
    except (OSError, ValueError) as error:  # DatasetNotFoundError, ConnectionError and offline mode are OSErrors
        said = " ".join(str(error).split())
        raise RequestError(f"dataset {source!r} cannot be opened: {said}; mend its name or the network") from error
    files: dict[str, list[str]] = {str(split): list(found) for split, found in (builder.config.data_files or {}).items()}
    wanted = options.get("split")
    if wanted and wanted not in files:
        raise RequestError(f"dataset {source!r} has no split {wanted!r}; it has {', '.join(files) or 'none'}")
    chosen = [uri for split, found in files.items() if wanted in (None, split) for uri in found]
    # Without the commit, so that one which touches other files makes no new inputs; versions are those of the files.
    return chosen if "revision" in options else [_COMMIT.sub("", uri) for uri in chosen]


def saved_folders(folder: str) -> list[str]:
    """Folders of the datasets that ``save_to_disk`` wrote at a local path: one, or one a split; none if it is no such folder."""
    if os.path.exists(splits := os.path.join(folder, "dataset_dict.json")):
        with open(splits, encoding="utf-8") as file:
            return [os.path.join(folder, split) for split in json.load(file)["splits"]]
    return [folder] if os.path.exists(os.path.join(folder, "state.json")) else []


def saved_version(folder: str) -> str:
    """Changes with what the dataset holds."""
    with open(os.path.join(folder, "state.json"), encoding="utf-8") as file:
        return str(json.load(file)["_fingerprint"])


def list_saved(folder: str, columns: ColumnMap) -> Iterator[Input]:
    """Rows of a saved dataset, with their facts. Raises RequestError when it has no embedded audio or lacks a mapped column."""
    dataset = load_saved(folder)
    schema, version, what = dataset.data.schema, saved_version(folder), f"dataset {folder!r}"
    columns.check(schema.names, what)
    columns.tell_unread(schema.names, what)
    audio = audio_column(schema, columns, what)
    if not is_embedded(schema.field(audio).type):
        raise RequestError(f"{what}: column {audio!r} holds no audio; cast it to datasets.Audio and save it again")
    taken = columns.taken(schema.names)
    table = dataset.select_columns(list({audio, *taken.values()})).with_format("arrow")
    for first in range(0, len(dataset), ROWS_AT_ONCE):
        rows = table[first : first + ROWS_AT_ONCE]
        sizes = pc.binary_length(pc.struct_field(rows[audio], "bytes")).to_pylist()
        values = rows.drop_columns([audio]).to_pylist() if taken else [{}] * len(sizes)
        for row, (size, fields) in enumerate(zip(sizes, values, strict=True), first):
            facts = facts_of(fields, taken, folder, os.path.dirname(folder), f"{what} row {row}")
            yield row_input(folder, version, audio, row, size or 0, facts)


def load_saved(folder: str) -> Any:
    """The ``datasets.Dataset`` in a folder, mapped into memory. Raises RequestError when it cannot be read."""
    from datasets import load_from_disk

    try:
        return load_from_disk(folder)
    except (OSError, ValueError, KeyError) as error:
        raise RequestError(f"dataset {folder!r} cannot be read: {' '.join(str(error).split())}; save it again") from error
