"""The limit on the speed of a voice, with the usual speed that it is against, fitted on some speakers and scored on others."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from annotators.integrity import MEAN_PITCH_HZ, MEAN_RATE_HZ, PITCH_WEIGHT, RATE_WEIGHT, IntegrityConfig
from annotators.prosody import ProsodyConfig
from benchmarks.quality.figures import share
from benchmarks.quality.limits import Found, cross_validated
from benchmarks.quality.material import Item, Material
from benchmarks.quality.one_clip import annotated
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio

SPEEDS = (0.5, 2.0)
SENTENCES = 4  # of a speaker, the longest first; the first alone is scored, so that items are independent
LONGEST_S = 20


class Heard(NamedTuple):
    """Audio that is so many times too fast; natural logarithms of its pitch in Hz and syllable rate in Hz."""

    group: str
    times: float
    is_scored: bool
    is_read: bool  # or of the test data
    log_pitch: float
    log_rate: float


def speed(material: Material) -> Found:
    """Sentences at half and double speed against speech as it is. The usual speed is fitted like the limit, on speech as it is.

    Acted emotion is scored alone: its licence lets nothing be fitted on it.
    """
    heard = [*_read(material), *_test_data(material)]
    logs_N2 = np.array([(row.log_pitch, row.log_rate) for row in heard])
    times_N = np.array([row.times for row in heard])
    is_scored_N, is_read_N = (np.array([getattr(row, name) for row in heard]) for name in ("is_scored", "is_read"))
    grid = {"wrong_speed": np.round(np.arange(1.2, 2.5, 0.05), 2)}

    def call(is_fitted_N: np.ndarray) -> np.ndarray:
        usual_2, weight_2 = usual_speed(logs_N2[is_fitted_N & (times_N == 1.0)])
        return np.abs((logs_N2 - usual_2) @ weight_2) > np.log(grid["wrong_speed"])[:, None]

    fitted = cross_validated(call, grid, times_N != 1.0, [row.group for row in heard])
    usual_2, weight_2 = usual_speed(logs_N2[times_N == 1.0])
    acted = [logs for item in material.speech("emotion")[::4] if (logs := _log_pitch_and_rate(item.audio(), 1.0))]
    is_acted_called = np.abs((np.array(acted) - usual_2) @ weight_2) > math.log(fitted.on_all["wrong_speed"])
    shipped = {"wrong_speed": IntegrityConfig().wrong_speed}
    note, is_right_N = fitted.note(shipped), is_scored_N & (times_N == 1.0)
    figures = [
        *(
            share(f"wrong speed: {s:g} times, found", fitted.called[is_scored_N & (times_N == s)], "speakers", note)
            for s in SPEEDS
        ),
        share("right speed called wrong: read, children and adults", fitted.called[is_right_N & is_read_N], "speakers", note),
        share("right speed called wrong: test data", fitted.called[is_right_N & ~is_read_N], "clips", note),
        share("right speed called wrong: acted emotion", is_acted_called, "clips", "held out; fitted on all of the above"),
    ]
    usual_row = (
        f"| usual pitch and syllable rate, and their weights | | {math.exp(usual_2[0]):.1f} Hz, {math.exp(usual_2[1]):.2f} Hz, "
        f"{weight_2[0]:.3f}, {weight_2[1]:.3f} | {MEAN_PITCH_HZ} Hz, {MEAN_RATE_HZ} Hz, {PITCH_WEIGHT}, {RATE_WEIGHT} |"
    )
    return Found(figures, [*fitted.rows(shipped), usual_row])


def usual_speed(logs_N2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of the logarithms, and their weights by generalised least squares; ``[2]`` each."""
    inverse = np.linalg.inv(np.cov(logs_N2.T))
    return logs_N2.mean(axis=0), inverse.sum(axis=0) / inverse.sum()


def _read(material: Material) -> list[Heard]:
    of_speaker: dict[str, list[Item]] = {}
    for item in sorted(material.speech("read"), key=lambda item: -item.facts["num_samples"]):
        of_speaker.setdefault(item.group, []).append(item)
    found = []
    for group, items in of_speaker.items():
        for number, item in enumerate(items[:SENTENCES]):
            for times in (1.0, *SPEEDS):
                if logs := _log_pitch_and_rate(item.audio(), times):
                    found.append(Heard(group, times, number == 0, True, *logs))
    return found


def _test_data(material: Material) -> list[Heard]:
    heard = ((item.group, _log_pitch_and_rate(item.audio()[: LONGEST_S * MODEL_RATE_HZ], 1.0)) for item in material.wideband())
    return [Heard(group, 1.0, True, False, *logs) for group, logs in heard if logs]


def _log_pitch_and_rate(audio: Audio, speed: float) -> tuple[float, float] | None:
    """Natural logarithms of pitch and syllable rate of the audio that many times faster; None where no speed is told."""
    row = annotated(ProsodyConfig(), resample(audio, round(MODEL_RATE_HZ * speed), MODEL_RATE_HZ))
    if (row["voiced_ratio"] or 0.0) < IntegrityConfig().min_voiced_ratio or not row["pitch_hz"] or not row["syllable_rate_hz"]:
        return None
    return math.log(row["pitch_hz"]), math.log(row["syllable_rate_hz"])
