from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import RequestError, WorkError
from manifests.packs import Pack, parse_codes
from manifests.store import Store


def test_documents_are_read_by_shard_and_key(tiny_pack: str) -> None:
    pack = Pack.open(tiny_pack)
    spoken, plain = (pack.read(row["shard"], row["key"]) for row in pack.documents("train").to_pylist())
    assert (pack.pack_id, pack.splits, pack.sample_rate_hz) == ("p0", ["train"], 16_000)
    (heard,), (read,) = spoken.turns, plain.turns
    assert (heard.text, heard.role, spoken.relation) == ("hello", None, None)
    assert heard.audio is not None
    assert heard.codes is not None
    np.testing.assert_allclose(heard.audio, np.arange(1600) / 3200, atol=1e-4)
    assert (heard.codes.dtype, heard.codes.tolist()) == (np.uint16, [0, 1, 2])
    assert read.audio is read.codes is None


@pytest.mark.parametrize(
    "codes", [np.arange(n, dtype=np.uint16) for n in (0, 1, 92, 30_000)] + [np.arange(7), np.zeros((2, 3), "<u2")]
)
def test_codes_are_read_as_numpy_reads_them(codes: np.ndarray) -> None:
    sink = io.BytesIO()
    np.save(sink, codes)
    found = parse_codes(sink.getvalue())
    assert (found.dtype, found.shape) == (codes.dtype, codes.shape)
    assert np.array_equal(found, codes)


def test_damaged_codes_are_refused() -> None:
    sink = io.BytesIO()
    np.save(sink, np.arange(92, dtype=np.uint16))
    for length in (0, 5, 100, 130, 311):
        with pytest.raises((ValueError, EOFError)):
            parse_codes(sink.getvalue()[:length])


def test_offsets_span_all_members_of_a_document(tiny_pack: str) -> None:
    pack = Pack.open(tiny_pack)
    for row in pack.documents("train").to_pylist():
        data = pack.store.read(f"shards/{row['shard']}", row["offset"], row["num_bytes"])
        assert data.startswith(row["key"].encode())
        assert len(data) % 512 == 0


def test_what_there_is_not_is_said(tiny_pack: str, tmp_path: Path) -> None:
    (tmp_path / "pack.json").write_text('{"format_version":')
    with pytest.raises(RequestError, match=r"pack\.json is not JSON"):
        Pack.open(str(tmp_path))
    with pytest.raises(RequestError, match="no pack at"):
        Pack.open(str(tmp_path / "none"))
    with pytest.raises(RequestError, match=r"no split 'test'; it has \['train'\]: name one of these"):
        Pack.open(tiny_pack).documents("test")
    Store(str(tmp_path / "new")).write("pack.json", json.dumps({"format_version": 1}).encode())
    with pytest.raises(RequestError, match="format 1"):
        Pack.open(str(tmp_path / "new"))


def test_a_manifest_that_is_gone_or_cut_is_said(tiny_pack: str) -> None:
    pack, table = Pack.open(tiny_pack), Path(tiny_pack) / "manifest" / "train.parquet"
    whole = table.read_bytes()
    # Of pages of data, which lie first, the file's end says nothing: Arrow raises other errors for them.
    for damage in (
        partial(table.write_bytes, whole[:-50]),
        partial(table.write_bytes, b"PAR1" + b"\xff" * 50 + whole[54:]),
        table.unlink,
    ):
        damage()
        with pytest.raises(
            WorkError, match=r"manifest/train\.parquet, the table of its split 'train', .*; bring it back, or pack again"
        ):
            pack.documents("train")
