"""Tables of units that threads share."""

from __future__ import annotations

from manifests.corpus import Corpus
from manifests.snapshots import INGEST
from manifests.tables import UnitTables


def test_a_commit_that_another_thread_lets_go_of_at_once_is_read_all_the_same(tiny_corpus: str, monkeypatch) -> None:
    corpus, load = Corpus.open(tiny_corpus), UnitTables.load

    def load_and_forget(tables, keys):
        found = load(tables, keys)
        tables._commits.clear()
        return found

    monkeypatch.setattr(UnitTables, "load", load_and_forget)
    for unit in corpus.snapshot.units:
        assert corpus.commit(INGEST, corpus.fingerprint(INGEST), unit).unit == unit
