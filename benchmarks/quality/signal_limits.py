"""Limits on facts of the signal, each fitted on some speakers and scored on others: telephone, clipping, DC, misread bytes."""

from __future__ import annotations

import numpy as np

from annotators.bandwidth import LongTermSpectrum
from annotators.integrity import IntegrityConfig, loud_flatness
from annotators.signal import SignalConfig
from benchmarks.quality.figures import share, statistic
from benchmarks.quality.limits import Found, Sound, columns, cross_validated
from benchmarks.quality.made_audio import MISREADINGS, misread, with_noise
from benchmarks.quality.material import Material
from benchmarks.quality.one_clip import annotated
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio

CLIPPED, DC = 5e-5, 0.005  # clipped_ratio and |dc_offset| from which a clip is called so; no part has these limits


def narrowband(clips: list[Sound], material: Material) -> Found:
    """Telephone copies against speech as it is and through 11.025 kHz, all at 44.1 kHz or as they are."""
    kinds = {
        "telephone": [(s.group, _bandwidth_hz(_through(s.audio, 8000), 44_100)) for s in clips],
        "11.025 kHz": [(s.group, _bandwidth_hz(_through(s.audio, 11_025), 44_100)) for s in clips],
        "as it is": [(s.group, _bandwidth_hz(s.audio, MODEL_RATE_HZ)) for s in clips],
    }
    for item in material.wideband():
        audio_SC, rate = item.channels()
        kinds["as it is"].append((item.group, _bandwidth_hz(np.ascontiguousarray(audio_SC[:, 0]), rate)))
    hz_N, groups, kind_N = columns(kinds)
    grid = {"narrowband_hz": range(3500, 7000, 100)}
    calls = hz_N[:, 0] < np.array(grid["narrowband_hz"])[:, None]
    shipped = {"narrowband_hz": IntegrityConfig().narrowband_hz}
    fitted = cross_validated(lambda _: calls, grid, kind_N == "telephone", groups)
    note = fitted.note(shipped)
    return Found(
        [
            share("telephone copies at 44.1 kHz found (`is_narrowband`)", fitted.called[kind_N == "telephone"], "clips", note),
            share("copies through 11.025 kHz called narrowband", fitted.called[kind_N == "11.025 kHz"], "clips", note),
            share("wideband clips called narrowband", fitted.called[kind_N == "as it is"], "clips", note),
            statistic(
                "bandwidth of the telephone copies, median error",
                np.abs(hz_N[kind_N == "telephone", 0] - 4000.0),
                lambda errors: float(np.median(errors)),
                "clips",
                "Hz",
            ),
        ],
        fitted.rows(shipped),
    )


def clipping_and_dc(clips: list[Sound]) -> Found:
    """A hundredth of the samples clipped, then turned down by half; a constant of 0.05."""
    plain = [annotated(SignalConfig(), sound.audio) for sound in clips]
    clipped = [annotated(SignalConfig(), np.float32(0.5) * clipped_copy(sound.audio, 99.0)) for sound in clips]
    shifted = [annotated(SignalConfig(), sound.audio * np.float32(0.9) + np.float32(0.05)) for sound in clips]
    groups = [sound.group for sound in clips] * 2
    is_positive_N = np.arange(2 * len(clips)) >= len(clips)
    figures, rows = [], []
    for what, fault, column, name, limit, changed in (
        ("clipping of 1 % of the samples", "clipped", "clipped_ratio", "clipped_ratio from", CLIPPED, clipped),
        ("DC of 0.05", "to have DC", "dc_offset", "abs(dc_offset) from", DC, shifted),
    ):
        values_N = np.abs([row[column] for row in [*plain, *changed]])
        grid = {name: (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05)}
        calls = values_N >= np.array(grid[name])[:, None]
        fitted = cross_validated(lambda _, calls=calls: calls, grid, is_positive_N, groups)
        note = fitted.note({name: limit})
        figures += [
            share(f"{what} found", fitted.called[is_positive_N], "clips", note),
            share(f"clips as they are said {fault}", fitted.called[~is_positive_N], "clips", note),
        ]
        rows += fitted.rows({name: limit})
    return Found(figures, rows)


def garbled(clips: list[Sound], material: Material, random: np.random.Generator) -> Found:
    """Bytes misread in six ways against speech as it is, clipped to a tenth, and in white noise."""
    speech = [*clips, *(Sound(item.group, item.audio()) for item in material.wideband())]
    kinds = {
        "as it is": [(s.group, *_flatness_and_level(s.audio)) for s in speech],
        "a tenth clipped": [(s.group, *_flatness_and_level(clipped_copy(s.audio, 90.0))) for s in clips],
        "white noise, 0 dB": [(s.group, *_flatness_and_level(with_noise(s.audio, 0.0, random))) for s in clips],
        **{how: [(s.group, *_flatness_and_level(misread(s.audio, how))) for s in clips] for how in MISREADINGS},
    }
    facts_N2, groups, kind_N = columns(kinds)
    grid = {"garbled_flatness": np.round(np.arange(0.02, 0.42, 0.02), 2), "garbled_dbfs": np.arange(-30.0, 0.0)}
    calls = (facts_N2[:, 0] >= np.array(grid["garbled_flatness"])[:, None, None]) & (
        facts_N2[:, 1] >= np.array(grid["garbled_dbfs"])[:, None]
    )
    config = IntegrityConfig()
    shipped = {"garbled_flatness": config.garbled_flatness, "garbled_dbfs": config.garbled_dbfs}
    fitted = cross_validated(lambda _: calls, grid, np.isin(kind_N, MISREADINGS), groups)
    note = fitted.note(shipped)
    return Found(
        [
            *(share(f"garbled: {how}, found", fitted.called[kind_N == how], "clips", note) for how in MISREADINGS),
            *(share(f"called garbled: speech {kind}", fitted.called[kind_N == kind], "clips", note) for kind in list(kinds)[:3]),
        ],
        fitted.rows(shipped),
    )


def _through(audio: Audio, rate: int) -> Audio:
    return resample(resample(audio, MODEL_RATE_HZ, rate), rate, 44_100)


def _bandwidth_hz(audio: Audio, rate: int) -> float:
    spectrum = LongTermSpectrum(rate)
    spectrum.add(audio[:, None])
    return spectrum.bandwidth_hz() or 0.0


def clipped_copy(audio: Audio, percentile: float) -> Audio:
    """Samples beyond a percentile of their size at full scale."""
    return np.clip(audio / np.float32(np.percentile(np.abs(audio), percentile)), -1.0, 1.0)


def _flatness_and_level(audio: Audio) -> tuple[float, float]:
    """Flatness of the loud frames (0 where it is not known), and level in dBFS."""
    return loud_flatness(audio, MODEL_RATE_HZ) or 0.0, float(10 * np.log10(np.mean(audio.astype(float) ** 2) + 1e-20))
