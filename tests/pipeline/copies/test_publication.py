from __future__ import annotations

import os
import shutil

import pyarrow as pa
import pytest

from manifests.corpus import Corpus
from manifests.schema import ID, required
from pipeline.copies.clip_numbers import basis
from pipeline.copies.publication import described, publish_made
from pipeline.copies.recipe import DedupConfig

LETTERS = pa.schema([required("clip_id", ID, "clip"), required("letter", pa.string(), "what was said of it")])


@pytest.fixture
def opened(corpus, tmp_path):
    """A copy of the corpus."""
    return Corpus.open(shutil.copytree(corpus, str(tmp_path / "corpus")))


def head(corpus, version="1"):
    return described(corpus, "letters", version, DedupConfig(), basis(corpus, "content", []))


def making(corpus, letter="a"):
    """A ``make`` that says one letter of every clip."""

    def make(draft, folder, bars):
        for view in corpus.views():
            ids = view.clips(["clip_id"])["clip_id"]
            draft.append("clips", view.unit_id, pa.table([ids, pa.repeat(letter, len(ids))], schema=LETTERS), LETTERS)

    return make


def letters(corpus):
    return set(Corpus.open(corpus.store.uri).decisions("letters")["letter"].to_pylist())


def test_a_table_is_made_once_and_anew_when_what_describes_it_is_another(opened):
    first, is_new = publish_made(opened, head(opened), None, making(opened))
    assert is_new
    again, is_new = publish_made(first, head(first), None, making(first, "never"))
    assert not is_new
    assert again.snapshot.number == first.snapshot.number
    _, is_new = publish_made(again, head(again, "2"), None, making(again, "b"))
    assert is_new
    assert letters(opened) == {"b"}


def test_who_comes_second_publishes_nothing_and_leaves_nothing(opened):
    def late(draft, folder, bars):
        publish_made(opened, head(opened), None, making(opened))
        making(opened, "late")(draft, folder, bars)

    assert publish_made(opened, head(opened, "2"), None, late) is None
    assert letters(opened) == {"a"}
    assert not [path for path in opened.store.objects("tables") if head(opened, "2").fingerprint in path]


def test_what_fails_leaves_nothing(opened, tmp_path):
    def failing(draft, folder, bars):
        making(opened)(draft, folder, bars)
        draft.put("all", [LETTERS.empty_table()], LETTERS)
        (tmp_path / "scratch" / os.path.basename(folder) / "frames").write_bytes(b"many")
        raise KeyboardInterrupt

    (tmp_path / "scratch").mkdir()
    before = opened.store.objects("")
    with pytest.raises(KeyboardInterrupt):
        publish_made(opened, head(opened), str(tmp_path / "scratch"), failing)
    assert opened.store.objects("") == before
    assert list((tmp_path / "scratch").iterdir()) == []
