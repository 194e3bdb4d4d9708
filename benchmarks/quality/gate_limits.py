"""Limits of ``sound_gate``, fitted on some voices and sounds and scored on others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from annotators.sound_gate import SoundGateConfig
from benchmarks.quality.figures import Figure, share
from benchmarks.quality.limits import Found, Sound, columns, cross_validated
from benchmarks.quality.made_audio import STEADY_SOUNDS, steady_sound, with_noise
from benchmarks.quality.material import Item, Material
from benchmarks.quality.one_clip import annotated
from manifests.contracts import MODEL_RATE_HZ, Audio

WINDOW_SAMPLES = 5 * MODEL_RATE_HZ
LONGEST_S = 60
NUM_STEADY = 30  # of each kind
FEATURES = ("envelope_depth", "low_energy_ratio", "spectral_flux", "tonal_persistence")
Kinds = dict[str, list[tuple]]  # kind -> (group, the four features) of its windows


def gate(material: Material, random: np.random.Generator) -> Found:
    """Windows of speech, clean and in white noise at 10 dB, against steady sounds that were made and against music."""
    spoken = [Sound(item.group, piece) for item in [*material.wideband(), *material.speech("read")] for piece in _windows(item)]
    speech = {
        "speech": _facts(spoken),
        "speech in white noise at 10 dB": _facts([Sound(s.group, with_noise(s.audio, 10.0, random)) for s in spoken]),
    }
    made = [Sound(f"{kind} {n}", steady_sound(kind, random)) for kind in STEADY_SOUNDS for n in range(NUM_STEADY)]
    music = material.testdata(lambda facts: "defect" not in facts and "music" in facts["kinds"])
    steady, steady_rows = _steady(speech | {"steady": _facts(made)})
    played, music_rows = _music(
        speech | {"music": _facts([Sound(item.name, piece) for item in music for piece in _windows(item)])}
    )
    return Found([*steady, *played], [*steady_rows, *music_rows])


def _steady(kinds: Kinds) -> Found:
    facts_N4, groups, kind_N = columns(kinds)
    grid = {"steady_depth": np.round(np.arange(0.2, 1.0, 0.05), 2)}
    calls = facts_N4[:, 0] < grid["steady_depth"][:, None]
    fitted = cross_validated(lambda _: calls, grid, kind_N == "steady", groups)
    shipped = _shipped(grid)
    figures = [
        share(f"{kind} {verb} steady", fitted.called[kind_N == kind], items, fitted.note(shipped))
        for kind, verb, items in (
            ("steady", "sounds (noise of three colours, hum, tones) found to be", "made sounds"),
            ("speech", "called", "windows"),
            ("speech in white noise at 10 dB", "called", "windows"),
        )
    ]
    return Found(figures, fitted.rows(shipped))


def _music(kinds: Kinds) -> Found:
    facts_N4, groups, kind_N = columns(kinds)
    _, low_N, flux_N, persistence_N = facts_N4.T
    grid = {
        "music_persistence": np.round(np.arange(0.05, 0.31, 0.01), 2),
        "music_flux": np.round(np.arange(0.1, 0.31, 0.01), 2),
        "music_low_energy": np.round(np.arange(0.1, 0.41, 0.02), 2),
    }
    stays = persistence_N >= grid["music_persistence"][:, None, None, None]
    is_slow = (flux_N < grid["music_flux"][:, None, None]) & (low_N < grid["music_low_energy"][:, None])
    calls = stays | is_slow
    fitted = cross_validated(lambda _: calls, grid, kind_N == "music", groups)
    shipped = _shipped(grid)
    figures = [
        share(f"{kind} called music", fitted.called[kind_N == kind], "windows", fitted.note(shipped))
        for kind in kinds
        if kind != "music"
    ]
    found = {name: fitted.called[[name == group for group in groups]] for name, *_ in kinds["music"]}
    counts = ", ".join(f"{name} {called.sum()} of {len(called)}" for name, called in found.items())
    note = f"too few recordings for a claim; held out: {counts}"
    return Found(
        [*figures, Figure("music found", None, None, None, len(kinds["music"]), "windows", note=note)], fitted.rows(shipped)
    )


def _shipped(grid: Iterable[str]) -> dict[str, float]:
    return {name: getattr(SoundGateConfig(), name) for name in grid}


def _windows(item: Item) -> Iterator[Audio]:
    audio_S = item.audio()[: LONGEST_S * MODEL_RATE_HZ]
    for start in range(0, max(1, len(audio_S) - WINDOW_SAMPLES + 1), WINDOW_SAMPLES):
        yield audio_S[start : start + WINDOW_SAMPLES]


def _facts(sounds: Iterable[Sound]) -> list[tuple]:
    """Group and the four features of the sounds that the gate does not abstain from."""
    rows = ((sound.group, annotated(SoundGateConfig(), sound.audio)) for sound in sounds)
    return [(group, *(row[name] for name in FEATURES)) for group, row in rows if row["status"] == "ok"]
