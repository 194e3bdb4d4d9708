"""Labelled recordings as a corpus (``whole_recordings.yaml``): one is one clip, since its text speaks of all of it."""

from __future__ import annotations

from manifests.contracts import ChannelAudio, HeardSpan, Resources
from manifests.spans import Span


class WholeRecording:
    """Segmenter: all of a channel is speech."""

    name, version = "whole_recording", "1"
    resources, models = Resources(), ()

    def fingerprint(self) -> str:
        return f"{self.name}-{self.version}"

    def setup(self) -> None:
        pass

    def segment(self, channel: ChannelAudio) -> list[HeardSpan]:
        return [HeardSpan(Span(0, len(channel.audio)))]
