"""NeMo's and plain JSON lines: no library reads them but `json`, so NeMo's are held to its published fields."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests.errors import RequestError
from manifests.export.lines import json_line
from manifests.export.work import export
from manifests.store import Store

# docs.nvidia.com/nemo, ASR "Datasets": name -> types it is read as. `audio_filepath` and `duration` must be there.
NEMO_FIELDS = {"audio_filepath": str, "duration": float, "text": str, "offset": float, "lang": str, "speaker": str}


def lines(out: str, suffix: str) -> list[dict[str, Any]]:
    paths = sorted(Path(out).glob(f"*.{suffix}"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_nemo_manifests_have_its_fields_and_lead_to_the_audio(source_uri: str, clips: dict[str, np.ndarray], out: str) -> None:
    export(source_uri, "nemo", out)
    rows = lines(out, "json")
    assert len(rows) == len(clips)
    for row in rows:
        assert {name: type(row[name]) for name in NEMO_FIELDS if name in row} == {
            n: t for n, t in NEMO_FIELDS.items() if n in row
        }
        assert {"audio_filepath", "duration", "text", "offset", "lang"} <= row.keys()
        # NeMo reads a relative path with a folder in it as relative to the manifest.
        assert Path(row["audio_filepath"]).parent != Path(".")
        audio, rate = soundfile.read(Path(out) / row["audio_filepath"], dtype="int16")
        start = round(row["offset"] * rate)
        np.testing.assert_array_equal(audio[start : start + round(row["duration"] * rate)], clips[row["id"]])


def test_plain_lines_have_the_facts_and_lead_to_the_audio(source_uri: str, clips: dict[str, np.ndarray], out: str) -> None:
    export(source_uri, "jsonl", out)
    rows = lines(out, "jsonl")
    assert [*{row["id"]: None for row in rows}] == [row["id"] for row in rows]
    assert len(rows) == len(clips)
    for row in rows:
        audio, rate = soundfile.read(Path(out) / row["audio"], dtype="int16")
        np.testing.assert_array_equal(audio, clips[row["id"]])
        assert (row["duration_s"], row["sample_rate_hz"]) == (len(audio) / rate, rate)
    by_text = {row["text"]: row for row in rows}
    # A source's transcript goes with a recording of one clip; the long talk has three, and their own words.
    assert by_text["Well, hello"]["text_source"] == "source"
    assert by_text["Hello, there"]["text_source"] == "asr"


def test_without_audio_a_row_says_where_it_is(tiny_corpus: str, clips: dict[str, np.ndarray], out: str) -> None:
    export(tiny_corpus, "jsonl", out, with_audio=False)
    rows = lines(out, "jsonl")
    assert not Store(out).objects("audio")
    assert {row["id"]: round(row["duration_s"] * 8000) for row in rows} == {key: len(audio) for key, audio in clips.items()}
    assert [row["start_s"] for row in rows] == [1.0, 6.0, 70.0, 0.5, 0.0, 2.0]
    assert all("audio" not in row and "offset_s" not in row for row in rows)


@pytest.mark.parametrize("name", ["nemo", "lhotse"])
def test_what_points_to_audio_does_not_go_without(tiny_corpus: str, out: str, name: str) -> None:
    with pytest.raises(RequestError, match="--no-audio goes with datasets, energon, jsonl"):
        export(tiny_corpus, name, out, with_audio=False)
    assert not Store(out).exists()


def test_a_line_leaves_out_what_json_cannot_hold() -> None:
    decided = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
    line = json_line({"a": math.nan, "b": math.inf, "c": None, "d": 0.5, "e": "你好", "f": decided})
    assert line.decode() == '{"d": 0.5, "e": "你好", "f": "2026-11-26T12:00:00+00:00"}\n'


def test_inside_of_lists_and_structs_it_is_null() -> None:
    words = [{"word": "a", "confidence": math.nan}, {"word": "b", "confidence": 0.5}]
    line = json_line({"words": words, "scores": [math.inf, 1.0, [-math.inf]], "pitch": {"median_hz": math.nan}})
    assert json.loads(line, parse_constant=pytest.fail) == {
        "words": [{"word": "a", "confidence": None}, {"word": "b", "confidence": 0.5}],
        "scores": [None, 1.0, [None]],
        "pitch": {"median_hz": None},
    }
