"""How the diarization topic chooses settings: by smoothed means, on conversations other than the one that is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.conversations import Conversation, constructed_conversations, reference_conversations, score
from benchmarks.quality.diarization import THRESHOLDS, Scores, Settings, choose, grid, plain_grid
from benchmarks.quality.material import Material
from manifests.contracts import HeardSpan
from manifests.scoring import DiarizationScore, Turn
from manifests.spans import Span


def conversation(name: str) -> Conversation:
    return Conversation(name, name, np.zeros(160_000, np.float32), [Turn(1.0, 5.0, "a"), Turn(4.0, 9.0, "b")])


def scores_of(ders: dict[float, dict[str, float]], among: list[Settings]) -> dict[Settings, Scores]:
    """A DER by clustering threshold and conversation; 1 where none is given."""
    names = {name for row in ders.values() for name in row}
    return {
        s: {n: DiarizationScore(n, 1.0, ders.get(s.clustering_threshold, {}).get(n, 1.0), 0.0, 0.0) for n in names} for s in among
    }


def test_a_lucky_spike_does_not_win() -> None:
    among = [s for s in grid() if s.clustering_method == "centroid"]
    ders = {0.4: {"x": 0.0}, 0.45: {"x": 1.0}, 0.5: {"x": 0.3}, 0.55: {"x": 0.3}, 0.6: {"x": 0.3}, 0.65: {"x": 1.0}}
    assert choose(among, [conversation("x")], scores_of(ders, among)).clustering_threshold == 0.55


def test_what_is_left_out_has_no_say() -> None:
    among = [s for s in grid() if s.clustering_method == "average"]
    ders = {t: {"x": 0.1 if t < 0.3 else 0.9, "y": 0.9 if t < 0.3 else 0.1} for t in THRESHOLDS["average"]}
    scores = scores_of(ders, among)
    assert choose(among, [conversation("x")], scores).clustering_threshold < 0.3
    assert choose(among, [conversation("y")], scores).clustering_threshold >= 0.3


def test_the_shipped_settings_and_a_plain_script_are_among_them() -> None:
    assert Settings() in grid()
    assert {(s.segmentation_threshold, s.min_pause_s) for s in plain_grid()} == {(0.5, 0.0)}


def test_overlap_is_scored_and_there_is_no_collar() -> None:
    said = conversation("x")
    heard = [HeardSpan(Span(16_000, 80_000), "s"), HeardSpan(Span(80_000, 144_000), "t")]
    found = score(said, heard)
    assert (found.reference_s, found.missed_s, found.error_s) == pytest.approx((9.0, 1.0, 1.0))


def test_conversations_of_the_test_data(shared: Path) -> None:
    material = Material(str(shared))
    found = {c.name: c for c in reference_conversations(material)}
    assert len(found) == 9
    assert sum(c.is_ami for c in found.values()) == 6
    assert found["ami_ES2003a_0-30"].group == found["ami_ES2003b_0-30"].group, "one series of meetings, the same people"
    assert all((c.looser_turns is not None) == c.is_ami for c in found.values())
    made = constructed_conversations(material, 2)
    assert [len({turn.label for turn in c.turns}) for c in made] == [1, 2]
    assert all(turn.end_s <= after.start_s for c in made for turn, after in zip(c.turns, c.turns[1:], strict=False))
