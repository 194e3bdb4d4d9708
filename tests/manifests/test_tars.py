from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import ContractError
from manifests.store import Store
from manifests.tars import TarWriter, header, parse_index, read_index, read_member, read_true_index

payloads = st.lists(st.binary(max_size=1500), max_size=6)


def write(members: dict[str, bytes]) -> tuple[bytes, bytes]:
    writer = TarWriter()
    for name, data in members.items():
        writer.add(name, data)
    return writer.close()


@given(payloads)
def test_the_index_says_where_tarfile_finds_the_data(parts: list[bytes]) -> None:
    members = {f"{i:03d}.{i % 2}.flac": data for i, data in enumerate(parts)}
    data, index = write(members)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        theirs = [(info.name, info.offset_data, info.size) for info in tar.getmembers()]
    assert [tuple(member) for member in parse_index(index)] == theirs
    for member in parse_index(index):
        assert data[member.offset : member.offset + member.num_bytes] == members[member.name]


def test_equal_members_give_equal_bytes() -> None:
    assert write({"a.json": b"{}", "a.flac": b"x"}) == write({"a.json": b"{}", "a.flac": b"x"})


def test_members_are_read_by_range(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    data, index = write({"a.json": b"{}", "a.0.flac": b"x" * 700})
    store.write("t.tar", data)
    store.write("t.tar.idx", index)
    assert [read_member(store, "t.tar", member) for member in read_index(store, "t.tar")] == [b"{}", b"x" * 700]


def test_plain_webdataset_reads_a_shard(tmp_path: Path) -> None:
    import webdataset

    data, _ = write({"k0.json": b'{"text": "a"}', "k0.0.flac": b"flac", "k1.json": b'{"text": "b"}'})
    (tmp_path / "train-000000.tar").write_bytes(data)
    found = list(webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in found] == ["k0", "k1"]
    assert found[0]["0.flac"] == b"flac"
    assert found[1]["json"] == b'{"text": "b"}'


@given(st.from_regex(r"[A-Za-z0-9._/-]{1,100}", fullmatch=True), st.integers(0, 8**11 - 1))
def test_headers_are_those_of_tarfile(name: str, num_bytes: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = num_bytes, 0o444
    assert header(name, num_bytes) == info.tobuf(tarfile.USTAR_FORMAT)


@given(payloads)
def test_tars_are_those_of_tarfile(parts: list[bytes]) -> None:
    theirs = io.BytesIO()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, data in enumerate(parts):
            info = tarfile.TarInfo(f"{number:03d}.json")
            info.size, info.mode = len(data), 0o444
            tar.addfile(info, io.BytesIO(data))
    assert write({f"{number:03d}.json": data for number, data in enumerate(parts)})[0] == theirs.getvalue()


@pytest.mark.parametrize(("name", "num_bytes", "rule"), [("é", 1, "ASCII"), ("a" * 101, 1, "100 bytes"), ("a", 8**11, "8 GiB")])
def test_what_the_format_cannot_hold_is_refused(name: str, num_bytes: int, rule: str) -> None:
    with pytest.raises(ContractError, match=rule):
        header(name, num_bytes)


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_an_index_of_another_tar_is_not_believed(tmp_path: Path, gone: int) -> None:
    """Three members of which one went: tars are whole records of 10 KiB, so that both may have one size."""
    store = Store(str(tmp_path))
    parts = {"a.txt": b"1", "b.txt": b"22", "c.txt": b"333"}
    left = {name: data for number, (name, data) in enumerate(parts.items(), 1) if number != gone}
    (_, before), (data, index) = (write(members) for members in (parts, left))
    store.write("s.tar", data)
    assert read_true_index(store, "s.tar") == parse_index(index)  # none lies there
    store.write("s.tar.idx", before)
    assert read_true_index(store, "s.tar") == parse_index(index)
