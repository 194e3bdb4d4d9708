"""The P.835 network of DNSMOS over overlapping windows: what two windows share is computed once.

Windows of 9 s start a second apart, and nine tenths of the network's work (spectrum, four convolutions, one pooling) is the
same wherever a window starts: a whole number of pooled frames lies between two starts. So this head runs once over all of
the audio, in blocks, and each window takes its frames from that. Only what a window's edge touches is computed again: the
convolutions see zeros beyond it. Outputs are those of the whole network on every window, within 1e-6.

Shape legend: S samples, W windows, F frames of 10 ms, K samples of a frame, C channels, P pooled frames of 20 ms, Q pooled bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from annotators.onnx_session import cut_graph, open_session
from manifests.contracts import Audio

HOP_SAMPLES, FRAME_SAMPLES = 160, 320
WINDOW_FRAMES = 900
FRAMES, MAPS, MOS = "mos_estimator_logpow/concat:0", "mos_estimator_logpow/conv2d_3/Relu:0_pooling0", "Identity:0"
MAP_CHANNELS, MAP_BINS = 32, 80
POOLED = 2  # frames in a pooled frame
REACH = 4  # frames that four 3 x 3 convolutions see beyond a frame, to each side
BLOCK_FRAMES = 450  # worked on at once, and
MAX_RUN_WINDOWS = 32  # maps held at once: they bound the memory, whatever the length of the clip


class P835Network:
    """Opens both parts of the graph. Raises ModelUnavailable when onnx or onnxruntime is not installed."""

    def __init__(self, path: str) -> None:
        maps: dict[str, list[int | str]] = {MAPS: [1, MAP_CHANNELS, "pooled_frames", MAP_BINS]}
        self._head = open_session(cut_graph(path, {FRAMES: [1, "frames", FRAME_SAMPLES]}, maps))
        self._tail = open_session(cut_graph(path, maps, {MOS: [1, 3]}))

    def raw_scores(self, audio_S: Audio, starts: Sequence[int]) -> np.ndarray:
        """Float32 ``[W, 3]``: what the network says of the windows that start at these samples, before calibration.

        ``audio_S`` is float32; starts rise and lie a whole number of pooled frames (320 samples) apart.
        """
        return np.concatenate([self._run_scores(audio_S, run) for run in _runs(starts)])

    def _run_scores(self, audio_S: Audio, starts: Sequence[int]) -> np.ndarray:
        frames_FK = np.lib.stride_tricks.sliding_window_view(audio_S[starts[0] :], FRAME_SAMPLES)[::HOP_SAMPLES]
        offsets = [(start - starts[0]) // HOP_SAMPLES for start in starts]
        frames_FK = frames_FK[: offsets[-1] + WINDOW_FRAMES]
        maps_CPQ = np.concatenate([self._block(frames_FK, first) for first in range(0, len(frames_FK), BLOCK_FRAMES)], axis=1)
        return np.concatenate([self._window(frames_FK, maps_CPQ, offset) for offset in offsets])

    def _maps(self, frames_FK: np.ndarray) -> np.ndarray:
        """Float32 ``[C, P, Q]`` of frames with nothing around them."""
        return np.asarray(self._head.run(None, {FRAMES: frames_FK[None]})[0][0])

    def _block(self, frames_FK: np.ndarray, first: int) -> np.ndarray:
        """Maps of the block that starts at frame ``first``, as if all frames had been given at once."""
        low = max(0, first - REACH)
        maps_CPQ = self._maps(frames_FK[low : first + BLOCK_FRAMES + REACH])
        skip = (first - low) // POOLED
        return maps_CPQ[:, skip : skip + BLOCK_FRAMES // POOLED]

    def _window(self, frames_FK: np.ndarray, maps_CPQ: np.ndarray, offset: int) -> np.ndarray:
        """Float32 ``[1, 3]`` of the window at frame ``offset``, with its own edges."""
        edge, end = REACH // POOLED, offset + WINDOW_FRAMES
        window_CPQ = maps_CPQ[:, offset // POOLED : end // POOLED].copy()
        if offset > 0:
            window_CPQ[:, :edge] = self._maps(frames_FK[offset : offset + 2 * REACH])[:, :edge]
        if end < len(frames_FK):
            window_CPQ[:, -edge:] = self._maps(frames_FK[end - 2 * REACH : end])[:, -edge:]
        return np.asarray(self._tail.run(None, {MAPS: window_CPQ[None]})[0])


def _runs(starts: Sequence[int]) -> list[list[int]]:
    """The starts in runs of windows that touch."""
    runs: list[list[int]] = []
    for start in starts:
        if runs and start - runs[-1][-1] <= WINDOW_FRAMES * HOP_SAMPLES and len(runs[-1]) < MAX_RUN_WINDOWS:
            runs[-1].append(start)
        else:
            runs.append([start])
    return runs
