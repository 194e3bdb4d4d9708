"""Tars: members by range with the facts beside them, passed over when known, kept in part when cut."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import RequestError
from pipeline.opening import open_input
from pipeline.sources import ColumnMap, Input, list_inputs


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def read(item: Input) -> bytes:
    with open_input(item) as file:
        return file.read()


SHARD = [
    ("a.json", json.dumps({"transcript": "one", "language": "en", "snr": 3}).encode()),
    ("a.flac", b"A" * 700),
    ("deep/b.wav", b"B" * 3),
    ("deep/b.txt", b"zwei\n"),
    ("notes.pdf", b"%PDF"),
    ("k.json", b'{"transcript": "three"}'),
    ("k.0.flac", b"C" * 512),
    ("long/" + "n" * 150 + ".mp3", b""),
]


@given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=8))
def test_members_are_read_back_whatever_their_sizes(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("tar") / "s.tar"
    data = {f"{i}.wav": bytes([i]) * size for i, size in enumerate(sizes)}
    write_tar(path, list(data.items()))
    assert {item.member: read(item) for item in list_inputs([str(path)])} == data


def test_members_have_the_facts_beside_them(tmp_path):
    path = write_tar(tmp_path / "s.tar", SHARD)
    found = {item.member: item for item in list_inputs([str(path)], ColumnMap(text="transcript"))}
    texts = {name: item.facts.get("text") for name, item in found.items()}
    assert texts == {"a.flac": "one", "deep/b.wav": None, "k.0.flac": "three", SHARD[-1][0]: None}
    assert found["a.flac"].facts["language"] == "en"
    assert found["a.flac"].facts["facts_from"] == f"{path} (language=language, text=transcript)"
    assert {name: read(item) for name, item in found.items()} == {n: d for n, d in SHARD if n in found}
    item = found["a.flac"]
    assert (item.uri, item.container, item.source) == (f"{path}#a.flac", str(path), str(tmp_path))


def test_without_a_mapping_the_text_beside_a_member_is_its_transcript(tmp_path, capsys):
    path = write_tar(tmp_path / "s.tar", SHARD)
    found = {item.member: item.facts for item in list_inputs([str(path)])}
    assert found["deep/b.wav"] == {"text": "zwei", "facts_from": f"{path} (text=txt)"}
    assert "columns not taken: snr, transcript" in capsys.readouterr().err


def test_a_mapped_column_that_no_member_has_is_named(tmp_path):
    path = write_tar(tmp_path / "s.tar", SHARD)
    with pytest.raises(RequestError, match=r"has no column 'words' \(text=words\); it has language, snr, transcript, txt"):
        list_inputs([str(path)], ColumnMap(text="words"))


def test_inputs_stand_in_the_order_of_the_tar(tmp_path):
    path = write_tar(tmp_path / "s.tar", [(f"{i % 7}-{i}.wav", b"x") for i in range(40)])
    offsets = [item.offset for item in list_inputs([str(path)])]
    assert offsets == sorted(offsets)
    assert len(offsets) == 40


def test_a_known_tar_is_not_opened_and_a_changed_one_is(tmp_path):
    path = write_tar(tmp_path / "s.tar", SHARD)
    planned = list_inputs([str(path)])
    fact = path.stat()
    path.write_bytes(b"z" * fact.st_size)
    os.utime(path, ns=(fact.st_atime_ns, fact.st_mtime_ns))
    assert list_inputs([str(tmp_path)], planned=planned) == []  # as large and as old: what is in it was not looked at
    write_tar(path, [*SHARD, ("new.wav", b"n")])
    new = list_inputs([str(path)], planned=planned)
    assert len(new) == 5
    assert not {item.input_id for item in new} & {item.input_id for item in planned}


def test_a_tar_that_changed_since_it_was_listed_is_gone(tmp_path):
    path = write_tar(tmp_path / "s.tar", SHARD)
    item = list_inputs([str(path)])[0]
    write_tar(path, [("other.flac", b"x" * 9000)])
    with pytest.raises(FileNotFoundError, match="changed since it was listed"), open_input(item):
        pass


@pytest.mark.parametrize(("cut", "num_whole"), [(1500, 1), (1536, 1), (1600, 1), (2100, 1), (3072, 2), (4100, 2), (4608, 3)])
def test_a_tar_that_is_cut_short_keeps_its_whole_members_and_says_so(tmp_path, capsys, cut, num_whole):
    members = [(f"{i}.wav", bytes([i]) * 600) for i in range(3)]  # 512 of header and 1024 of padded data each
    path = write_tar(tmp_path / "s.tar", members)
    path.write_bytes(path.read_bytes()[:cut])
    found = list_inputs([str(path)])
    assert [(item.member, read(item)) for item in found] == members[:num_whole]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"{num_whole} whole audio members are taken" in line


def test_damage_between_members_is_told(tmp_path, capsys):
    path = write_tar(tmp_path / "s.tar", [("a.wav", b"a"), ("b.wav", b"b")])
    data = bytearray(path.read_bytes())
    data[1024 : 1024 + 200] = b"\xff" * 200
    path.write_bytes(bytes(data))
    assert [item.member for item in list_inputs([str(path)])] == ["a.wav"]
    assert "no end" in capsys.readouterr().err


def test_what_is_no_plain_tar_is_refused(tmp_path):
    (tmp_path / "text.tar").write_text("no tar at all " * 100)
    with pytest.raises(RequestError, match="cannot be listed"):
        list_inputs([str(tmp_path / "text.tar")])
    packed = write_tar(tmp_path / "s.tar.gz", SHARD, "w:gz")
    with pytest.raises(RequestError, match="compressed"):
        list_inputs([str(packed)])
    empty = write_tar(tmp_path / "empty.tar", [("notes.pdf", b"")])
    with pytest.raises(RequestError, match="holds no audio"):
        list_inputs([str(empty)])


def test_names_of_members_that_are_no_utf8_stay_apart(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("café.wav", "cafè.wav"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(name[3:].encode("latin-1")[:1] + b"abc"))
    found = list_inputs([str(tmp_path / "s.tar")])
    assert {item.member: read(item) for item in found} == {r"caf\xe9.wav": b"\xe9abc", r"caf\xe8.wav": b"\xe8abc"}


def test_members_of_one_name_are_told(tmp_path, capsys):
    path = write_tar(tmp_path / "s.tar", [("a.wav", b"one"), ("a.wav", b"two"), ("a.wav", b"three"), ("a.json", b"[" * 100_000)])
    assert [read(item) for item in list_inputs([str(path)])] == [b"one", b"three"]
    said = capsys.readouterr().err
    assert "has 1 audio members of a name and size that came before; the first of each is taken" in said
    assert "member 'a.json' of tar is no JSON object" in said
