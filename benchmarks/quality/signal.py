"""Facts of the signal against made truth: bandwidth, clipping, DC, SNR, reverberation, DNSMOS, pitch, speed, misread bytes, headers."""

from __future__ import annotations

from typing import Any

import numpy as np

from annotators.dnsmos import DnsmosConfig
from annotators.pitch import HOP_SAMPLES, pitch_hz
from annotators.reverberation import c50_db
from annotators.signal import SignalConfig
from annotators.snr import wada_snr_db
from annotators.sound_gate import SoundGateConfig
from benchmarks.quality.figures import Figure, Section, statistic
from benchmarks.quality.gate_limits import gate
from benchmarks.quality.limits import MOST_FALSE, Sound, limits_table
from benchmarks.quality.made_audio import room, true_c50_db, voice, with_noise
from benchmarks.quality.material import Item, Material
from benchmarks.quality.one_clip import annotated, integrity
from benchmarks.quality.signal_limits import CLIPPED, DC, clipping_and_dc, garbled, narrowband
from benchmarks.quality.speed_limit import speed
from benchmarks.stock_wrappers import SCORES
from benchmarks.stock_wrappers import dnsmos as stock_dnsmos
from manifests.audio import decode_flac, resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.tars import TarWriter
from pipeline.ingest import StoreConfig, ingest
from pipeline.sources import list_inputs

NUM_CLIPS = 100
NUM_VOICES = 60

PROSE = f"""
Everything here has a truth that was made: copies of clips of `speech/read` (one or two a speaker, order by a fixed seed) that were
resampled, clipped, shifted, mixed with noise, convolved with rooms, read in the wrong format or at the wrong speed; synthetic voices
of known pitch; steady sounds. Made rooms are exponential decays; real ones have early reflections, too.

**Limits** are fitted in five folds of speakers and recordings, and a clip is called by limits that were fitted without its speaker;
so are the means and weights of the speed (C50's line was fitted on other speakers than the ones here). The rule is the same for
all: at most {MOST_FALSE:.1%} of what is right may be called; of the limits that keep to that, those that find most of what is wrong; of those
that tie, the middle. Clips whose licence
forbids commercial use teach nothing. The table below the figures has what the folds chose, what everything together gives, and what is shipped: the
same. A speed that is wrong by less than half is within the range of voices and cannot be told from one clip.
"""


def measure(material: Material) -> Section:
    random = np.random.default_rng(2)
    read = material.speech("read")
    items = [read[i] for i in random.permutation(len(read))[:NUM_CLIPS]]
    sounds = [Sound(item.group, item.audio()) for item in items]
    clips = [sound.audio for sound in sounds]
    found = [
        narrowband(sounds, material),
        clipping_and_dc(sounds),
        garbled(sounds, material, random),
        speed(material),
        gate(material, random),
    ]
    figures = [
        *(figure for limits in found for figure in limits.figures),
        *_snr(clips, random),
        *_reverberation(material, random),
        *_dnsmos(clips[:12]),
        *_pitch(random),
    ]
    table = limits_table([row for limits in found for row in limits.rows])
    return Section("Signal", PROSE, figures, f"{table}\n\n{_broken_table(material)}")


def _snr(clips: list[Audio], random: np.random.Generator) -> list[Figure]:
    figures = []
    for snr_db in (0.0, 10.0, 20.0):
        errors = [abs((wada_snr_db(with_noise(clip, snr_db, random).astype(float)) or 0.0) - snr_db) for clip in clips]
        figures.append(_mean(f"WADA-SNR, mean error at {snr_db:.0f} dB of white noise", errors, "clips", "dB"))
    return figures


def _reverberation(material: Material, random: np.random.Generator) -> list[Figure]:
    by_speaker: dict[str, list[Item]] = {}
    for item in material.speech("read"):
        by_speaker.setdefault(item.facts["speaker"], []).append(item)
    pairs = []
    for number, speaker in enumerate(sorted(by_speaker)[1::2]):  # those of even number were fitted on
        audio = np.concatenate([item.audio() for item in by_speaker[speaker][:2]])
        response = room((0.2, 0.35, 0.5, 0.8, 1.2)[number % 5], random.uniform(-3, 10), random)
        found = c50_db(_convolved(audio, response), MODEL_RATE_HZ)
        if found is not None:
            pairs.append((found, true_c50_db(response)))
    rows = np.array(pairs)
    return [
        _mean("C50, mean error", np.abs(rows[:, 0] - rows[:, 1]), "speakers", "dB", "0.2 to 1.2 s, direct sound -3 to 10 dB"),
        statistic("C50, correlation with the truth", rows, lambda r: float(np.corrcoef(r.T)[0, 1]), "speakers", ""),
    ]


def _convolved(audio: Audio, response: np.ndarray) -> np.ndarray:
    size = len(audio) + len(response)
    return np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(response, size), size)[: len(audio)]


def _dnsmos(clips: list[Audio]) -> list[Figure]:
    wrapper = stock_dnsmos()
    gaps = []
    for clip in clips:
        ours, theirs = annotated(DnsmosConfig(), clip), wrapper(clip)
        gaps.append(max(abs(ours[f"dnsmos_{name}"] - value) for name, value in zip(SCORES, theirs, strict=True)))
    note = "all four scores; speechmos with one thread"
    return [statistic("DNSMOS, largest difference to speechmos", np.array(gaps), lambda g: float(g.max()), "clips", "MOS", note)]


def _pitch(random: np.random.Generator) -> list[Figure]:
    figures = []
    for name, snr_db in (("clean", None), ("10 dB", 10.0), ("0 dB", 0.0)):
        rows = []
        for _ in range(NUM_VOICES):
            audio, truth_S, is_voiced_S = voice(random)
            found_F = pitch_hz(audio if snr_db is None else with_noise(audio, snr_db, random))
            at = np.minimum(np.arange(len(found_F)) * HOP_SAMPLES, len(audio) - 1)
            voiced = is_voiced_S[at]
            ratio = found_F[voiced] / truth_S[at][voiced]
            ratio = ratio[np.isfinite(ratio)]
            rows.append((np.mean(np.abs(ratio - 1) > 0.2), np.median(np.abs(1200 * np.log2(ratio))), len(ratio) / voiced.sum()))
        table = np.array(rows)
        figures += [
            _mean(f"pitch, {name}: frames off by 20 % and more", table[:, 0], "made voices", "%"),
            _middle(f"pitch, {name}: median error", table[:, 1], "made voices", "cents"),
            _mean(f"pitch, {name}: voiced frames found", table[:, 2], "made voices", "%"),
        ]
    return figures


def _broken_table(material: Material) -> str:
    """Markdown: what becomes of each broken file of the test data."""
    lines = ["| broken file | expected | what becomes of it |", "|---|---|---|"]
    for item in material.testdata(lambda facts: "defect" in facts):
        lines.append(f"| {item.facts['defect'].split(':')[0].split(';')[0]} | {item.facts['expect']} | {_fate(item)} |")
    return "\n".join(lines)


def _fate(item: Item) -> str:
    tar = TarWriter()
    result = ingest(list_inputs([item.path])[0], StoreConfig(), tar, {})
    recording = result.recording_row
    if recording is None:
        return f"refused: {result.quarantine_rows[0]['reason']}"
    data, _ = tar.close()
    first = tar.members[0]
    audio, rate = decode_flac(data[first.offset : first.offset + first.num_bytes])
    heard = resample(audio, rate, MODEL_RATE_HZ)
    signal = annotated(SignalConfig(), audio, rate)
    found = [name for name, value in integrity(heard, recording).items() if name.startswith("is_") and value]
    found += ["clipped"] * (signal["clipped_ratio"] >= CLIPPED) + ["DC"] * (abs(signal["dc_offset"]) >= DC)
    found += [f"scaled by {recording['stored_scale']:g}"] * (recording["stored_scale"] < 1.0)
    found += ["is_truncated"] * recording["is_truncated"]
    found += [name for name in ("is_steady", "is_music") if annotated(SoundGateConfig(), heard)[name]]
    seconds = recording["num_samples"] / recording["sample_rate_hz"]
    return f"{result.input_row['outcome']}, {seconds:.2f} s: {', '.join(found) or 'no flag'}"


def _mean(name: str, values: Any, items: str, unit: str, note: str = "") -> Figure:
    return statistic(name, np.asarray(values, float), lambda v: float(np.mean(v)), items, unit, note)


def _middle(name: str, values: Any, items: str, unit: str, note: str = "") -> Figure:
    return statistic(name, np.asarray(values, float), lambda v: float(np.median(v)), items, unit, note)
