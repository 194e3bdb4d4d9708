from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from annotators.prosody import ADDS as PROSODY
from annotators.style import StyleConfig
from manifests.contracts import ClipBatch
from manifests.schema import layer_schema


def tags(*rows: dict[str, Any], **config: float) -> list[dict[str, Any]]:
    ids = [bytes([i]) * 16 for i in range(len(rows))]
    layer = pa.Table.from_pylist(
        [{"clip_id": i, "status": "ok", **row} for i, row in zip(ids, rows, strict=True)], layer_schema(PROSODY)
    )
    batch = ClipBatch(pa.table({"clip_id": pa.array(ids, pa.binary(16))}), layers={"prosody": layer})
    return StyleConfig(**config).build().annotate(batch).to_pylist()


def test_words_at_their_borders() -> None:
    found = [row["pitch_level"] for row in tags(*({"pitch_hz": hz} for hz in (139.9, 140.0, 219.9, 220.0)))]
    assert found == ["low", "mid", "mid", "high"]
    row = {"pitch_std_semitones": 1.0, "syllable_rate_hz": 6.0, "loudness_lufs": -25.0}
    found = tags(row)[0]
    assert (found["pitch_range"], found["rate_level"], found["loudness_level"]) == ("flat", "fast", "normal")


def test_no_word_is_invented() -> None:
    only_loudness, nothing = tags({"loudness_lufs": -10.0}, {})
    assert (only_loudness["loudness_level"], only_loudness["pitch_level"], only_loudness["status"]) == ("loud", None, "ok")
    assert (nothing["status"], nothing["loudness_level"]) == ("abstained", None)


def test_borders_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"rate_slow_hz = 6\.0 must be below rate_fast_hz = 5\.0"):
        StyleConfig(rate_slow_hz=6.0)
