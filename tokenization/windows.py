"""Windows over audio that is longer than a codec's network may see at once, in code frames.

The ends of a window lack what the network would have heard beyond them, so codes near an end differ from those of one
pass. Neighbours therefore overlap, and give way to each other in the middle of what they share.
"""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """Code frames ``[start, stop)`` that one pass sees, and ``[first, end)`` of them that are kept; relative to the audio."""

    start: int
    stop: int
    first: int
    end: int

    @property
    def kept(self) -> slice:
        """What is kept of the codes of the pass."""
        return slice(self.first - self.start, self.end - self.start)


def windows(num_frames: int, size: int, overlap: int) -> list[Window]:
    """Windows of ``size`` frames whose kept frames are ``[0, num_frames)``, each once and in order.

    Neighbours share ``overlap`` frames. The last one ends with the audio and is as long as the others, so that no pass has
    to make do with a short tail; it shares more. Audio that fits one window has one; no frames, no windows.
    """
    assert 0 <= overlap < size, (overlap, size)
    if num_frames == 0:
        return []
    last = max(0, num_frames - size)
    starts = [*range(0, last, size - overlap), last]
    stops = [min(start + size, num_frames) for start in starts]
    seams = [(start + stop) // 2 for start, stop in zip(starts[1:], stops[:-1], strict=True)]
    return [Window(*edges) for edges in zip(starts, stops, [0, *seams], [*seams, num_frames], strict=True)]
