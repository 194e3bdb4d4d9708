"""Rows by the name of their table, and rows again where another process gets them."""

from __future__ import annotations

from functools import lru_cache

from manifests.clip_rows import ClipRows
from manifests.corpus import Corpus
from manifests.pack_rows import PackRows
from manifests.packs import Pack, is_pack
from manifests.rows import Rows
from manifests.unit_rows import CorpusRows, UnitRows


def open_rows(uri: str, table: str | None = None, snapshot: int | None = None) -> Rows:
    """The rows of whatever lies at a URI: a table of a corpus (``clips`` by default), or a pack's documents (of the split ``table``)."""
    if is_pack(uri):
        return PackRows(Pack.open(uri), table)
    return corpus_rows(Corpus.open(uri, snapshot), table or "clips")


def corpus_rows(corpus: Corpus, table: str = "clips") -> CorpusRows:
    """A table of a corpus: ``clips`` with all that is known of them, ``recordings``, ``inputs``, ``quarantine``, ``spans:NAME``,
    ``failures:NAME``. Raises RequestError naming those there are."""
    return ClipRows(corpus) if table == "clips" else UnitRows(corpus, table)


@lru_cache(maxsize=8)
def reopened(uri: str, snapshot: int, table: str) -> CorpusRows:
    """A worker gets many slices of one table."""
    return corpus_rows(Corpus.open(uri, snapshot), table)


@lru_cache(maxsize=4)
def reopened_pack(uri: str, split: str | None) -> PackRows:
    return PackRows(Pack.open(uri), split)
