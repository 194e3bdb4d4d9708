from __future__ import annotations

import json
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import RequestError
from manifests.pack_rows import PackRows
from manifests.packs import Pack
from manifests.store import Store
from pipeline import text_documents
from pipeline.document_kinds import TextDocuments
from pipeline.pack import pack
from pipeline.recipe import PackRecipe

RECIPE = PackRecipe(name="text", documents=[TextDocuments()], include_audio=False, splits={"train": 0.5, "test": 0.5})
TEXTS = [f"{number} " + "wörter " * (number % 7) for number in range(60)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty rows of JSONL, some lines empty, and thirty of Parquet in four row groups; and a file that is no text."""
    texts = tmp_path / "texts"
    (texts / "b").mkdir(parents=True)
    lines = [json.dumps({"text": text, "language": "de", "more": 1}, ensure_ascii=False) for text in TEXTS[:30]]
    (texts / "a.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    pq.write_table(pa.table({"text": TEXTS[30:], "id": [*range(30)]}), texts / "b" / "c.parquet", row_group_size=8)
    (texts / "readme.md").write_text("nothing")
    return texts


def rows(uri: str) -> list[dict]:
    read = PackRows(Pack.open(uri))
    return [row for part in read.slices for row in read.read(part, ["key", "text", "split"]).to_pylist()]


def texts_of(part: text_documents.TextPart, skip: int = 0) -> list[str]:
    return [document.row["turns"][0]["text"] for decision in part.decisions(skip) for document in decision.documents]


def objects(uri: str) -> dict[str, bytes]:
    store = Store(uri)
    return {path: store.read(path) for path in store.objects("")}


def test_folders_globs_and_lists_of_files_are_one_corpus(folder, tmp_path, monkeypatch):
    pack(str(folder), str(tmp_path / "whole"), RECIPE)
    assert sorted(row["text"] for row in rows(str(tmp_path / "whole"))) == sorted(TEXTS)
    # Parts that end within lines and between row groups: every row is in one part.
    monkeypatch.setattr(text_documents, "PART_BYTES", 150)
    pack(str(folder), str(tmp_path / "parts"), RECIPE)
    pack([str(folder / "b/c.parquet"), str(folder / "a.jsonl")], str(tmp_path / "list"), RECIPE)
    for name in ("parts", "list"):
        assert objects(str(tmp_path / name)) == objects(str(tmp_path / "whole"))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.jsonl").symlink_to(folder / "a.jsonl")
    (tmp_path / "links" / "b").symlink_to(folder / "b")
    pack(str(tmp_path / "links"), str(tmp_path / "linked"), RECIPE)
    assert objects(str(tmp_path / "linked")) == objects(str(tmp_path / "whole"))
    pack(f"{folder}/*.jsonl", str(tmp_path / "glob"), RECIPE)
    assert sorted(row["text"] for row in rows(str(tmp_path / "glob"))) == sorted(TEXTS[:30])


@pytest.mark.parametrize("part_bytes", range(1, 60, 7))
def test_every_line_is_in_one_part(tmp_path, monkeypatch, part_bytes):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n{"text": "two"}\r\n\n\n{"text": "three"}')
    monkeypatch.setattr(text_documents, "PART_BYTES", part_bytes)
    parts = text_documents.text_parts(text_documents.text_files([str(tmp_path)]), RECIPE, None)
    assert [text for part in parts for text in texts_of(part)] == ["one", "two", "three"]
    (last,) = [part for part in parts if "three" in texts_of(part)]
    assert texts_of(last, len(texts_of(last)) - 1) == ["three"]


VERSES = "In the beginning\r\n\n  let there be light  \nund es ward Licht: schön\n\n\nthe evening"
GATHERED = PackRecipe(name="text", documents=[TextDocuments(line_chars=20)], include_audio=False)


def test_lines_of_plain_text_are_documents_or_taken_together_until_they_are_long_enough(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "verses.txt").write_bytes(VERSES.encode())
    (texts / "readme.txt").write_text("nothing")
    each = ["In the beginning", "let there be light", "und es ward Licht: schön", "the evening"]
    together = ["In the beginning\nlet there be light", "und es ward Licht: schön", "the evening"]
    for recipe, expected in ((RECIPE, each), (GATHERED, together)):
        out = str(tmp_path / f"pack{len(expected)}")
        pack(f"{texts}/v*.txt", out, recipe)
        assert sorted(row["text"] for row in rows(out)) == sorted(expected)
        (part,) = text_documents.text_parts(text_documents.text_files([str(texts / "verses.txt")]), recipe, None)
        assert texts_of(part, 1) == expected[1:]
    # A folder's .txt is not asked for, and here there is nothing else.
    with pytest.raises(RequestError, match="no corpus at"):
        pack(str(texts), str(tmp_path / "none"), RECIPE)


@pytest.mark.parametrize("part_bytes", range(1, 60, 7))
def test_every_plain_line_is_in_one_document(tmp_path, monkeypatch, part_bytes):
    (tmp_path / "verses.txt").write_bytes(VERSES.encode())
    monkeypatch.setattr(text_documents, "PART_BYTES", part_bytes)
    parts = text_documents.text_parts(text_documents.text_files([str(tmp_path / "verses.txt")]), GATHERED, None)
    lines = [line for part in parts for text in texts_of(part) for line in text.split("\n")]
    assert lines == ["In the beginning", "let there be light", "und es ward Licht: schön", "the evening"]


def test_a_line_that_is_no_utf_8_is_named(tmp_path):
    (tmp_path / "verses.txt").write_bytes(b"one\ntwo\n\xff\n")
    with pytest.raises(RequestError, match=r"verses.txt' line 3 is not UTF-8 \(invalid start byte\); convert the file"):
        pack(str(tmp_path / "verses.txt"), str(tmp_path / "pack"), RECIPE)


def test_equal_texts_are_two_documents_of_one_split(tmp_path):
    lines = [json.dumps({"text": str(number % 20)}) for number in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    pack(str(tmp_path / "a.jsonl"), str(tmp_path / "pack"), RECIPE)
    found = rows(str(tmp_path / "pack"))
    assert (len(found), len({row["key"] for row in found})) == (60, 60)
    assert len({(row["text"], row["split"]) for row in found}) == 20


def test_text_on_an_object_store_gives_the_same_pack(folder, tmp_path, s3):
    bucket = s3.bucket()
    for path in ("a.jsonl", "b/c.parquet"):
        Store(bucket).write(f"texts/{path}", (folder / path).read_bytes())
    pack(str(folder), str(tmp_path / "here"), RECIPE)
    pack(f"{bucket}/texts", f"{bucket}/pack", RECIPE)
    assert objects(f"{bucket}/pack") == objects(str(tmp_path / "here"))


def test_what_is_no_text_corpus_is_told(folder, tmp_path):
    out = str(tmp_path / "out")
    for absent in ("nothing.jsonl", "nothing-*.jsonl"):
        with pytest.raises(RequestError, match="does not exist"):
            pack(str(tmp_path / absent), out, RECIPE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no corpus at"):
        pack(str(tmp_path / "empty"), out, RECIPE)
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(RequestError, match="has no column `text`; it has words"):
        pack(str(tmp_path / "other.parquet"), out, RECIPE)
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "null.parquet")
    with pytest.raises(RequestError, match=r"null\.parquet' row 1 has no string `text`"):
        pack(str(tmp_path / "null.parquet"), out, RECIPE)
    (tmp_path / "bytes.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(RequestError, match=r"bytes\.jsonl' line 2 is not JSON"):
        pack(str(tmp_path / "bytes.jsonl"), out, RECIPE)
    for row, fault in (
        ({"text": "a\ud800"}, "no UTF-8 `text` or `language`"),
        ({"text": "a", "language": 5}, "no string or null `language`"),
        (["text"], "no string `text`"),
    ):
        (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n' + json.dumps(row))
        with pytest.raises(RequestError, match=rf"rows\.jsonl' line 2 has {fault}"):
            pack(str(tmp_path / "rows.jsonl"), out, RECIPE)
    (tmp_path / "broken.parquet").write_text("no table")
    with pytest.raises(RequestError, match=r"broken\.parquet' is not Parquet"):
        pack(str(tmp_path / "broken.parquet"), out, RECIPE)
    (tmp_path / "empty" / "a.jsonl").write_text("")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty" / "b.parquet")
    with pytest.raises(RequestError, match="holds no rows in 2 files"):
        pack(str(tmp_path / "empty"), out, RECIPE)
    assert Store(out).objects("") == []


def test_an_endpoint_that_is_not_there_is_told(folder, tmp_path, s3_at, monkeypatch):
    monkeypatch.setattr("manifests.remote.MAX_ATTEMPTS", 1)  # the client's patience is a test of the sources
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        s3_at(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for sources, out, what in (
            ("s3://b/in", str(tmp_path), "source 's3://b/in'"),
            ([str(folder), "s3://b/in"], str(tmp_path), "text corpus 's3://b/in'"),
            (str(folder), "s3://b/out", "output 's3://b/out'"),
        ):
            with pytest.raises(RequestError, match=f"{what} cannot be reached"):
                pack(sources, out, RECIPE)
