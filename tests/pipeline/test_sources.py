"""Listing: folders, globs, manifests; what is refused before anything is written."""

from __future__ import annotations

import json

import pytest

from manifests.errors import RequestError
from pipeline.sources import list_inputs


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
