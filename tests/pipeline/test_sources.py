"""Listing: folders, globs, lists, manifests and their columns; what is refused before anything is written."""

from __future__ import annotations

import json
import os

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import RequestError
from pipeline.sources import ColumnMap, Input, list_inputs


@pytest.fixture
def folder(tmp_path):
    for name in ("b.wav", "a.flac", "naïve — 名前 #1 %20.mp3", "notes.txt"):
        (tmp_path / name).write_bytes(b"x" * 5)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.OGG").write_bytes(b"y")
    return tmp_path


def test_a_folder_is_walked_and_sorted_and_other_files_left_alone(folder):
    found = list_inputs([str(folder)])
    assert [item.uri.removeprefix(f"{folder}/") for item in found] == ["a.flac", "b.wav", "deep/c.OGG", "naïve — 名前 #1 %20.mp3"]
    assert found[0].num_bytes == 5
    assert list_inputs([str(folder), f"{folder}/*.wav"]) == found  # each once


def test_links_are_what_they_lead_to(folder, tmp_path_factory, capsys):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "d.wav").write_bytes(b"z" * 7)
    (folder / "file.wav").symlink_to(elsewhere / "d.wav")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "nowhere.wav").symlink_to(folder / "gone.wav")
    found = {item.uri.removeprefix(f"{folder}/"): item for item in list_inputs([str(folder)])}
    assert {"file.wav", "linked/d.wav"} < found.keys()
    assert not [uri for uri in found if "nowhere" in uri or "back" in uri]
    assert found["file.wav"].num_bytes == 7
    assert "nowhere.wav' is a link that leads nowhere; it is left out" in capsys.readouterr().err
    assert list_inputs([f"{folder}/file.wav"]) == list_inputs([f"{folder}/f*.wav"]) == [found["file.wav"]]
    assert list_inputs([f"{folder}/l*/*.wav"]) == [found["linked/d.wav"]]


def test_a_name_that_no_table_can_hold_is_told(folder):
    with open(os.fsencode(str(folder)) + b"/caf\xe9.wav", "wb"):
        pass
    with pytest.raises(RequestError, match=r"caf\\udce9\.wav' has a name that is not UTF-8"):
        list_inputs([str(folder)])


def test_a_changed_file_is_another_input(folder):
    before = list_inputs([f"{folder}/b.wav"])[0]
    (folder / "b.wav").write_bytes(b"x" * 6)
    assert list_inputs([f"{folder}/b.wav"])[0].input_id != before.input_id


def test_manifest_facts_travel_and_paths_are_relative_to_it(folder):
    row = {"path": "deep/c.OGG", "text": "hi", "speaker_label": "s1", "reference_rttm_uri": "deep/c.rttm"}
    (folder / "list.jsonl").write_text(json.dumps(row) + "\n\n")
    (item,) = list_inputs([f"{folder}/list.jsonl"])
    assert item.uri == f"{folder}/deep/c.OGG"
    facts_from = f"{folder}/list.jsonl (speaker_label=speaker_label, text=text, reference_rttm_uri=reference_rttm_uri)"
    facts = {"text": "hi", "speaker_label": "s1", "reference_rttm_uri": f"{folder}/deep/c.rttm", "facts_from": facts_from}
    assert item.facts == facts


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"path": "gone.wav"}', "does not exist"),
        ('{"path": "b.wav", "transcript": "x"}', "unknown keys ['transcript']"),
        ('{"text": "x"}', "line 1"),
        ("{", "line 1 is not JSON"),
        pytest.param("[" * 100_000, "line 1 is not JSON", id="deep"),
        ("[1]", "line 1 holds list"),
    ],
)
def test_a_bad_manifest_line_is_named(folder, line, complaint):
    (folder / "list.jsonl").write_text(line)
    with pytest.raises(RequestError, match="line 1") as refusal:
        list_inputs([f"{folder}/list.jsonl"])
    assert complaint in str(refusal.value)


def test_a_missing_source_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(RequestError, match="does not exist"):
        list_inputs([str(tmp_path / "nowhere")])
    with pytest.raises(RequestError, match="holds no audio"):
        list_inputs([str(tmp_path)])


def test_a_list_names_files_relative_to_it(folder):
    (folder / "all.txt").write_text("deep/c.OGG\n\n" + f"{folder}/b.wav\r\n")
    found = list_inputs([f"{folder}/all.txt"])
    assert [item.uri for item in found] == [f"{folder}/b.wav", f"{folder}/deep/c.OGG"]
    assert all(item.facts == {} for item in found)
    (folder / "all.txt").write_text("\ufeffb.wav\n", encoding="utf-8")  # as some editors write it
    assert [item.uri for item in list_inputs([f"{folder}/all.txt"])] == [f"{folder}/b.wav"]
    (folder / "all.txt").write_text("b.wav\n\ngone.wav\n")
    with pytest.raises(RequestError, match=r"line 3: '.*gone.wav' does not exist; mend the path"):
        list_inputs([f"{folder}/all.txt"])
    (folder / "all.txt").write_text("more.txt\n")
    (folder / "more.txt").write_text("b.wav\nall.txt\n")
    with pytest.raises(RequestError, match=r"list '.*all.txt' names itself"):
        list_inputs([f"{folder}/all.txt"])


def test_a_list_that_is_no_text_is_refused(folder):
    (folder / "all.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match=r"all.txt' is not UTF-8 at byte 0"):
        list_inputs([f"{folder}/all.txt"])


def test_columns_are_mapped_to_facts_and_the_rest_is_left(folder):
    row = {"file": "b.wav", "transcript": "hi", "spk": 7, "lang": "en", "corpus": "c", "license": "CC0-1.0", "extra": [1]}
    (folder / "list.jsonl").write_text(json.dumps(row))
    pairs = ["uri=file", "text=transcript", "speaker_label=spk", "language=lang", "source=corpus", "licence=license"]
    (item,) = list_inputs([f"{folder}/list.jsonl"], ColumnMap.parse(pairs))
    facts_from = item.facts.pop("facts_from")
    assert item.facts == {"text": "hi", "speaker_label": "7", "language": "en", "source": "c", "licence": "CC0-1.0"}
    assert item.uri == f"{folder}/b.wav"
    assert facts_from.startswith(f"{folder}/list.jsonl (")
    assert "text=transcript" in facts_from


def test_a_mapped_column_that_no_line_has_is_named_with_those_there_are(folder):
    (folder / "list.jsonl").write_text('{"path": "b.wav", "words": "x"}')
    with pytest.raises(RequestError, match=r"has no column 'transcript' \(text=transcript\); it has path, words"):
        list_inputs([f"{folder}/list.jsonl"], ColumnMap(text="transcript"))


@pytest.mark.parametrize("pair", ["text", "text=", "words=transcript"])
def test_a_mapping_that_means_nothing_is_refused(pair):
    with pytest.raises(RequestError, match=pair.split("=")[0]):
        ColumnMap.parse([pair])


def test_two_listings_of_one_file_are_one_input_with_the_facts_of_both(folder):
    for name, fact in (("a", "text"), ("b", "language")):
        (folder / f"{name}.jsonl").write_text(json.dumps({"path": "b.wav", fact: name}))
    (item,) = list_inputs([f"{folder}/b.wav", f"{folder}/a.jsonl", f"{folder}/b.jsonl"])
    facts_from = f"{folder}/a.jsonl (text=text); {folder}/b.jsonl (language=language)"
    assert item.facts == {"text": "a", "language": "b", "facts_from": facts_from}


texts = st.text(max_size=20)


@given(
    uri=texts, num_bytes=st.integers(0, 1 << 40), version=texts, facts=st.dictionaries(texts, texts), name=texts,
    offset=st.none() | st.integers(0, 1 << 40),
)  # fmt: skip
def test_an_input_survives_its_plan(uri, num_bytes, version, facts, name, offset):
    item = Input(f"{uri}#{name}" if name else uri, num_bytes, version, facts, name, offset)
    again = Input(**json.loads(json.dumps(item.to_json())))
    assert again == item
    assert (again.input_id, again.container) == (item.input_id, uri)


def test_plans_from_before_containers_are_read(folder):
    (item,) = list_inputs([f"{folder}/b.wav"])
    old = {"uri": item.uri, "num_bytes": item.num_bytes, "version": item.version, "facts": {}}
    assert Input(**old) == item


def test_any_filesystem_of_fsspec_is_a_source():
    fs = fsspec.filesystem("memory")
    fs.pipe({"/src/a.wav": b"a", "/src/deep/b.flac": b"bb", "/src/l.txt": b"deep/b.flac"})
    found = list_inputs(["memory://src"])
    assert [(item.uri, item.num_bytes) for item in found] == [("memory:///src/a.wav", 1), ("memory:///src/deep/b.flac", 2)]
    assert list_inputs(["memory://src/l.txt"]) == found[1:]
    with pytest.raises(RequestError, match="nosuch://x"):
        list_inputs(["nosuch://x"])


def test_one_path_on_two_filesystems_is_two_inputs(folder):
    fsspec.filesystem("memory").pipe_file(f"{folder}/b.wav", b"x" * 99)
    (folder / "two.txt").write_text(f"memory:/{folder}/b.wav\n{folder}/b.wav\n")
    assert sorted(item.num_bytes for item in list_inputs([f"{folder}/two.txt"])) == [5, 99]


def test_not_a_number_is_no_fact(folder):
    (folder / "list.jsonl").write_text('{"path": "b.wav", "text": NaN, "language": "en"}')
    (item,) = list_inputs([f"{folder}/list.jsonl"])
    assert item.facts == {"language": "en", "facts_from": f"{folder}/list.jsonl (language=language)"}


def test_half_a_surrogate_pair_in_a_fact_is_marked(folder):
    (folder / "list.jsonl").write_text('{"path": "b.wav", "text": "a\\ud800b \\ud83d\\ude00"}')
    (item,) = list_inputs([f"{folder}/list.jsonl"])
    assert item.facts["text"] == "a\ufffdb \U0001f600"
