from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from manifests.contracts import MODEL_RATE_HZ
from manifests.mel import mels_of
from manifests.packs import Document
from training.augmentation import HeardDocuments, at_speed, coloured_noise, filtered, with_ends, with_masks, with_noise
from training.encoder_recipe import AddedNoise, DrawnFilter, QuietEnds, SpecMasks, SpeedFactors
from training.examples import Example
from training.features import log_mel
from training.lengths import LONGEST_SAMPLES
from training.order import generator
from training.recipe import CtcStage, Task

NUM_MELS = 40
ALL: dict[str, Any] = {"speed": {}, "filter": {}, "ends": {}, "noise": {"share": 1.0}, "spec": {}}


def tone(hz: float, num_samples: int = 16_000) -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(num_samples) / MODEL_RATE_HZ)).astype(np.float32)


def loudest_hz(audio_S: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(audio_S)).argmax()) * MODEL_RATE_HZ / len(audio_S)


@dataclass
class Tones:
    """Documents of a second each, told from each other by their pitch; what was asked for is kept."""

    hertz: tuple[float, ...] = (300.0, 500.0, 800.0)
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.hertz)

    def example(self, position: int) -> Example:
        self.asked.append(position)
        ids = np.array([5, 6, 6])
        kinds, weights = np.zeros(3, np.uint8), np.ones(3, np.float32)
        audio = (tone(self.hertz[position % len(self)]),)
        return Example(Task.CTC, f"d{position % len(self)}", ids, kinds, weights, np.arange(3, dtype=np.int32), kinds > 0, audio)

    def document(self, position: int) -> Document:
        raise AssertionError("nobody asked for tags")


def heard(augment: dict[str, Any], name: str = "3 ctc", documents: Tones | None = None) -> HeardDocuments:
    rate = {"lr": 1e-3}
    stage = CtcStage.model_validate(
        {
            "name": "ctc",
            "kind": "ctc",
            "steps": 2,
            "batch_documents": 2,
            "train": {"encoder": rate, "ctc_head": rate},
            "augment": augment,
        }
    )
    return HeardDocuments(documents or Tones(), stage, name, NUM_MELS)


def test_nothing_is_changed_unless_the_stage_says_so() -> None:
    made = heard({}).example(4)
    assert np.array_equal(made.example.audio[0], tone(500.0))
    assert torch.equal(made.mel_CM, log_mel(torch.from_numpy(tone(500.0)), NUM_MELS))
    assert made.tags == ()


def test_changes_depend_on_seed_stage_and_position_alone() -> None:
    """Whoever asks, in whatever order, and however often: so a resumed run and other ranks draw the same."""
    forwards, backwards = heard(ALL), heard(ALL)
    positions = range(6)
    first = {position: forwards.example(position) for position in positions}
    for position in reversed(positions):
        again = backwards.example(position)
        assert torch.equal(first[position].mel_CM, again.mel_CM)
        assert np.array_equal(first[position].example.audio[0], again.example.audio[0])
    # The same document in the next epoch, and under another seed or stage, is heard otherwise.
    assert not torch.equal(first[0].mel_CM, first[3].mel_CM)
    assert not torch.equal(first[0].mel_CM, heard(ALL, "4 ctc").example(0).mel_CM)


def test_one_kind_of_change_does_not_move_what_another_draws() -> None:
    no_ends = {kind: recipe for kind, recipe in ALL.items() if kind != "ends"}
    with_speed = [len(heard({"speed": {}}).example(position).example.audio[0]) for position in range(12)]
    with_all = [len(heard(no_ends).example(position).example.audio[0]) for position in range(12)]
    assert with_speed == with_all
    assert set(with_speed) == {17_778, 16_000, 14_545}


def test_speed_changes_length_and_pitch() -> None:
    recipe = SpeedFactors(factors=(1.1,))
    changed = at_speed(tone(500.0), recipe, generator("a"), np.array([1, 2]))
    assert len(changed) == round(16_000 / 1.1)
    assert changed.dtype == np.float32
    assert loudest_hz(changed) == pytest.approx(550.0, abs=2.0)


@pytest.mark.parametrize(
    ("num_samples", "factor", "ids"),
    [
        (16_000, 2.0, [7] * 7),  # 12 frames are left, 7 equal labels need 13
        (400, 2.0, [1]),  # no patch would be left
        (400_000, 0.5, [1]),  # more than the encoder hears at once
    ],
)
def test_audio_keeps_its_speed_where_another_would_not_do(num_samples: int, factor: float, ids: list[int]) -> None:
    audio = tone(500.0, num_samples)
    assert at_speed(audio, SpeedFactors(factors=(factor,)), generator("a"), np.array(ids)) is audio
    assert len(at_speed(audio, SpeedFactors(factors=(1.0 / 1.1,)), generator("a"), np.array([1]))) > num_samples


def test_a_filter_moves_no_other_stream() -> None:
    """Of what is heard with noise and masks, a flat filter changes nothing: all else is drawn as without one."""
    flat = {"filter": {"gain_db": (0.0, 0.0)}}
    for position in range(6):
        made = heard({**ALL, **flat}).example(position)
        bare = heard({kind: recipe for kind, recipe in ALL.items() if kind != "filter"}).example(position)
        assert np.allclose(made.example.audio[0], bare.example.audio[0], atol=1e-6)
    assert not np.allclose(heard(ALL).example(0).example.audio[0], heard({**ALL, **flat}).example(0).example.audio[0], atol=1e-3)


def response_db(recipe: DrawnFilter, name: str, num_samples: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Gains of a drawn filter, from its answer to one click, and the mels that they stand at."""
    click = np.zeros(num_samples, np.float32)
    click[num_samples // 2] = 1.0
    made = filtered(click, recipe, generator(name))
    assert made.dtype == np.float32
    return 20 * np.log10(np.abs(np.fft.rfft(made))), mels_of(np.fft.rfftfreq(num_samples, 1 / MODEL_RATE_HZ))


def test_a_filter_s_gains_are_straight_lines_over_mel_within_their_range() -> None:
    recipe = DrawnFilter(num_bands=(4, 4), min_band_share=0.2, gain_db=(-6.0, 6.0))
    gains, mels = response_db(recipe, "a")
    assert -6.1 < gains.min() < gains.max() < 6.1
    slopes = np.interp(np.linspace(0, mels[-1], 200), mels, gains)
    bends = np.flatnonzero(np.abs(np.diff(slopes, 2)) > 0.02)
    assert len(np.flatnonzero(np.diff(bends) > 20)) == 2  # three bends between four bands, each a fifth of the scale at least


def test_filters_differ_and_fill_their_ranges() -> None:
    ends = [response_db(DrawnFilter(), f"{number}")[0][0] for number in range(200)]
    assert -6.1 < min(ends) < -5.0
    assert 5.0 < max(ends) < 6.1
    assert abs(np.mean(ends)) < 0.8
    level = [response_db(DrawnFilter(gain_db=(0, 0), level_db=(-20.0, 3.0)), f"{number}")[0] for number in range(50)]
    assert all(np.ptp(gains) < 0.01 for gains in level)  # at all frequencies alike
    assert -20.1 < min(gains[0] for gains in level) < -17.0
    assert 0.0 < max(gains[0] for gains in level) < 3.1


def test_the_end_of_a_piece_does_not_ring_into_its_beginning() -> None:
    click = np.zeros(4096, np.float32)
    click[-1] = 1.0
    made = filtered(click, DrawnFilter(), generator("a"))
    assert np.abs(made[:2048]).max() < 1e-4 < np.abs(made[-8:-1]).max()


def test_ends_are_as_long_and_as_quiet_as_allowed() -> None:
    audio = tone(500.0, 4000)
    recipe = QuietEnds(longest_s=0.2, level_db=(-50.0, -40.0))
    befores, levels = [], []
    for number in range(100):
        made = with_ends(audio, recipe, generator(f"{number}"))
        assert made.dtype == np.float32
        places = np.lib.stride_tricks.sliding_window_view(made, len(audio))
        (before,) = np.flatnonzero((places == audio).all(1))  # as it was, once
        quiet = np.concatenate([made[:before], made[before + len(audio) :]]).astype(np.float64)
        assert len(made) <= len(audio) + 2 * 3200
        befores.append(before)
        levels.append(10 * np.log10(np.mean(quiet**2) / np.mean(audio.astype(np.float64) ** 2)))
    assert min(befores) < 160
    assert 3040 < max(befores) <= 3200
    assert np.mean(levels) == pytest.approx(-45.0, abs=1.5)


def test_ends_that_the_encoder_could_not_hear_are_left_away() -> None:
    audio = tone(500.0, LONGEST_SAMPLES - 10)
    assert with_ends(audio, QuietEnds(), generator("a")) is audio


def test_filters_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"range \[5, 3\] must rise"):
        DrawnFilter(num_bands=(5, 3))
    with pytest.raises(ValidationError, match=r"range \[6\.0, -6\.0\] must rise"):
        DrawnFilter(gain_db=(6.0, -6.0))
    with pytest.raises(ValidationError, match=r"30 bands of min_band_share 0\.05 are wider than all frequencies"):
        DrawnFilter(num_bands=(3, 30), min_band_share=0.05)


@pytest.mark.parametrize("source", ["coloured", "pack"])
def test_noise_has_the_drawn_level(source: Any) -> None:
    audio = tone(500.0)
    recipe = AddedNoise(share=1.0, snr_db=(6.0, 6.0), source=source)
    noisy = with_noise(audio, recipe, generator("a"), lambda draw: tone(3000.0, 5000))
    added = (noisy - audio).astype(np.float64)
    assert noisy.dtype == np.float32
    assert 10 * np.log10(np.mean(audio.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(6.0, abs=0.01)
    if source == "pack":
        assert loudest_hz(added) == pytest.approx(3000.0, abs=5.0)


def test_noise_goes_to_a_share_of_the_documents_at_levels_within_the_range() -> None:
    audio = tone(500.0, 1600)
    recipe = AddedNoise(share=0.4, snr_db=(0.0, 30.0))
    made = [with_noise(audio, recipe, generator(f"{number}"), lambda draw: audio) for number in range(400)]
    noisy = [found for found in made if found is not audio]
    assert len(noisy) / 400 == pytest.approx(0.4, abs=0.08)
    levels = [10 * np.log10(np.mean(audio**2) / np.mean((found - audio) ** 2)) for found in noisy]
    assert -0.1 < min(levels) < 3.0
    assert 27.0 < max(levels) < 30.1


def test_silence_stays_silent() -> None:
    silence = np.zeros(1600, np.float32)
    assert with_noise(silence, AddedNoise(share=1.0), generator("a"), lambda draw: silence) is silence
    audio = tone(500.0)
    assert with_noise(audio, AddedNoise(share=1.0, source="pack"), generator("a"), lambda draw: silence) is audio


def test_noise_of_the_pack_is_another_document_s() -> None:
    documents = Tones()
    noisy = heard({"noise": {"share": 1.0, "source": "pack"}}, documents=documents)
    for position in range(30):
        documents.asked.clear()
        noisy.example(position)
        own, other = documents.asked
        assert own == position
        assert own // 3 == other // 3  # of the same epoch
        assert own != other
    alone = Tones((300.0,))
    heard({"noise": {"share": 1.0, "source": "pack"}}, documents=alone).example(0)


@pytest.mark.parametrize(("exponent", "slope_db"), [(0.0, 0.0), (1.0, -3.01), (2.0, -6.02)])
def test_coloured_noise_falls_by_its_exponent_an_octave(exponent: float, slope_db: float) -> None:
    noise = coloured_noise(1 << 16, exponent, generator("a"))
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [10 * np.log10(power[1 << k : 2 << k].mean()) for k in range(8, 15)]
    assert np.polyfit(np.arange(len(octaves)), octaves, 1)[0] == pytest.approx(slope_db, abs=0.25)


@given(st.integers(0, 10_000), st.integers(3, 600))
def test_masks_are_as_wide_as_allowed_and_hold_the_mean(seed: int, num_frames: int) -> None:
    mel = torch.from_numpy(np.random.default_rng(seed).normal(size=(80, num_frames)).astype(np.float32))
    masked = with_masks(mel, SpecMasks(), generator(f"{seed}"))
    changed = masked != mel
    assert torch.equal(masked[changed], mel.mean().expand(int(changed.sum())))
    bands, frames = changed.all(1), changed.all(0)
    assert torch.equal(changed, bands[:, None] | frames[None, :])
    assert int(bands.sum()) <= 2 * 27
    assert int(frames.sum()) <= 2 * min(70, num_frames // 5)
    assert mel is not masked


def test_masks_are_really_laid() -> None:
    mel = torch.from_numpy(np.random.default_rng(0).normal(size=(80, 300)).astype(np.float32))
    masks = [with_masks(mel, SpecMasks(), generator(f"{number}")) != mel for number in range(200)]
    bands = [int(mask.all(1).sum()) for mask in masks]
    frames = [int(mask.all(0).sum()) for mask in masks]
    assert 18 < np.mean(bands) < 28  # two of 0 to 27, some of which overlap
    assert 45 < np.mean(frames) < 61  # two of 0 to 60
    assert torch.equal(with_masks(mel, SpecMasks(num_band_masks=0, num_time_masks=0), generator("a")), mel)
