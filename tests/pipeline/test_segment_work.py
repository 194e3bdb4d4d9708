"""Segmenters of many channels: a unit of short recordings is heard in groups, and nothing of what is stored shows it."""

from __future__ import annotations

from annotators.silero import Silero
from manifests.contracts import Resources
from manifests.corpus import Corpus
from pipeline.build import build
from pipeline.engines import InlineEngine


def test_channels_that_are_heard_together_have_the_spans_of_each_alone(recordings, light, tmp_path, monkeypatch):
    real, groups = Silero.segment_many, []

    def segment_many(self, channels):
        groups.append(len(channels))
        return real(self, channels)

    monkeypatch.setattr(Silero, "segment_many", segment_many)
    build([str(recordings)], str(tmp_path / "together"), light(units={}, annotators={}), InlineEngine())
    assert max(groups) > 1
    groups.clear()
    monkeypatch.setattr(Silero, "resources", Resources(pool="silero", batch_audio_s=0.0))
    build([str(recordings)], str(tmp_path / "alone"), light(units={}, annotators={}), InlineEngine())
    assert max(groups) == 1
    together, alone = Corpus.open(str(tmp_path / "together")), Corpus.open(str(tmp_path / "alone"))
    assert together.spans("vad").equals(alone.spans("vad"))
    assert together.spans("vad").num_rows
