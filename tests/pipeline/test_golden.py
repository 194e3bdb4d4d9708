"""The three shipped recordings have committed manifests: a refactor must not move an id, an edge or a fact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from manifests.corpus import Corpus
from pipeline.build import build
from pipeline.shipped_speech import write_manifest

GOLDEN = Path(__file__).parents[1] / "golden" / "shipped_corpus.json"


def test_the_shipped_speech_becomes_the_committed_manifests(light, tmp_path):
    out = str(tmp_path / "corpus")
    build([write_manifest(str(tmp_path / "sources.jsonl"))], out, light(annotators={"signal": {"kind": "signal"}}))
    corpus, golden = Corpus.open(out), json.loads(GOLDEN.read_text())
    for name, table in {"recordings": corpus.recordings(), "clips": corpus.clips()}.items():
        assert [readable(row) for row in table.to_pylist()] == [readable(row) for row in golden[name]], name
    # Scores come from floating point: they may move within what another CPU does to them.
    for row, expected in zip(corpus.layer("signal").to_pylist(), golden["signal"], strict=True):
        assert {k: v for k, v in row.items() if k not in ("clip_id", "status", "error")} == pytest.approx(
            expected, rel=1e-3, abs=1e-4
        )


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """Ids as hex; floats to four digits, since a sum may end in another last bit elsewhere."""
    kept = {k: v.hex() if isinstance(v, bytes) else v for k, v in row.items()}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in kept.items()}
