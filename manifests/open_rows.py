"""Rows by the name that a person gives a table, and rows again where another process gets them."""

from __future__ import annotations

import re
from functools import lru_cache

from manifests.clip_rows import ClipRows
from manifests.corpus import Corpus
from manifests.decision_rows import DecisionRows
from manifests.errors import RequestError
from manifests.pack_rows import PackRows
from manifests.packs import Pack, is_pack
from manifests.rows import Rows
from manifests.unit_rows import CorpusRows, UnitRows, unit_tables


def open_place(uri: str, snapshot: int | None = None) -> Corpus | Pack:
    """What lies at a URI. Raises RequestError where nothing does, or a pack is asked for a snapshot."""
    if not is_pack(uri):
        return Corpus.open(uri, snapshot)
    if snapshot is not None:
        raise RequestError(f"snapshot {snapshot} is asked of {uri!r}, which is a pack and has none; leave it out")
    return Pack.open(uri)


def open_rows(uri: str, table: str | None = None, snapshot: int | None = None) -> Rows:
    """The rows of whatever lies at a URI: a table of a corpus, ``clips`` by default, or a pack's documents (of the split ``table``).

    Beside what ``corpus_rows`` knows, ``table:NAME/ROLE`` is of a decision table; of ``table:NAME``, the first role.
    """
    place = open_place(uri, snapshot)
    if isinstance(place, Pack):
        return PackRows(place, table)
    kind, _, name = (table or "clips").partition(":")
    if kind != "table":
        return corpus_rows(place, table or "clips")
    decided, _, role = name.partition("/")
    return DecisionRows(place, decided, role or None)


def corpus_rows(corpus: Corpus, table: str = "clips") -> CorpusRows:
    """A table of a corpus: ``clips`` with all that is known of them, ``recordings``, ``inputs``, ``quarantine``, ``spans:NAME``,
    ``failures:NAME``. Raises RequestError naming those there are."""
    if table not in (names := ["clips", *unit_tables(corpus)]):
        raise RequestError(f"table {table!r} is not one of {', '.join(names)}")
    return ClipRows(corpus) if table == "clips" else UnitRows(corpus, table)


def table_names(corpus: Corpus) -> list[str]:
    """Every table of a corpus as ``open_rows`` takes it."""
    tables = sorted(corpus.snapshot.tables)
    return [
        "clips",
        *unit_tables(corpus),
        *(f"table:{name}/{role}" for name in tables for role in corpus.decision_table(name).roles),
    ]


def all_rows(uri: str, snapshot: int | None = None) -> dict[str, Rows]:
    """Every table of what lies at the URI, by a name that SQL can write: ``clips``, ``spans_vad``, ``speaker_id_speakers``."""
    place = open_place(uri, snapshot)
    if isinstance(place, Pack):
        return {"documents": PackRows(place)}
    number = place.snapshot.number
    return {re.sub(r"\W", "_", name.removeprefix("table:")): open_rows(uri, name, number) for name in table_names(place)}


@lru_cache(maxsize=8)
def reopened(uri: str, snapshot: int, table: str) -> CorpusRows:
    """A worker gets many slices of one table."""
    return corpus_rows(Corpus.open(uri, snapshot), table)


@lru_cache(maxsize=4)
def reopened_pack(uri: str, split: str | None) -> PackRows:
    return PackRows(Pack.open(uri), split)
