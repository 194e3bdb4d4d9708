from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests.contracts import Audio
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.recipes import load_recipe
from tokenization.codec import FsqConfig
from tokenization.codec_training import CodecTraining, code_statistics, corpus_clips, sample_clips, split_clips, train_codec
from tokenization.recipe import FsqPart, TokenizerRecipe

SMALL = FsqConfig(num_mels=40, width=32, encoder_blocks=1, decoder_blocks=1)
BRIEF = CodecTraining(steps=20, batch_size=4, log_every=10, num_threads=1)


def test_the_same_clips_and_seed_give_the_same_codec(voice: Callable[..., Audio]) -> None:
    clips = [voice(1.5, seed) for seed in range(2)] + [voice(0.3, 2), np.zeros(0, np.float32)]
    first, again, other = (train_codec(clips, SMALL, BRIEF, seed) for seed in (0, 0, 1))
    weights = [run.network.state_dict()["encoder.0.weight"].numpy() for run in (first, again, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    without_clock = [[{k: v for k, v in row.items() if k != "wall_s"} for row in run.rows] for run in (first, again)]
    assert without_clock[0] == without_clock[1]


def test_rows_and_figures_are_whole(voice: Callable[..., Audio]) -> None:
    seen: list[dict[str, float]] = []
    trained = train_codec([voice(0.8, seed) for seed in range(10)], SMALL, BRIEF, on_log=seen.append)
    assert seen == trained.rows
    assert [row["step"] for row in trained.rows] == [10, 20]
    keys = {"step", "loss", "mel_error", "mean_frame_error", "codebook_use", "perplexity", "wall_s"}
    assert all(row.keys() == keys for row in trained.rows)
    assert trained.rows[1]["loss"] < trained.rows[0]["loss"]
    figures = trained.metrics
    assert figures["num_clips"] == 10
    assert figures["audio_s"] == pytest.approx(8.0)
    assert figures["mel_error_ratio"] == pytest.approx(figures["mel_error"] / figures["mean_frame_mel_error"])
    assert figures["held_out"]["num_clips"] == 1
    assert not trained.network.training


def test_without_audio_there_is_nothing_to_learn() -> None:
    with pytest.raises(RequestError, match="no clip with audio"):
        train_codec([np.zeros(0, np.float32)], SMALL, BRIEF)


@given(st.integers(0, 300))
def test_every_tenth_clip_is_held_out_once_there_are_ten(num_clips: int) -> None:
    learnt, held_out = split_clips(num_clips)
    assert sorted(learnt + held_out) == list(range(num_clips))
    assert len(held_out) == num_clips // 10


@given(lengths=st.lists(st.floats(0.1, 30), max_size=30), room=st.floats(1, 200), seed=st.integers(0, 5))
def test_a_sample_fits_and_leaves_out_only_what_does_not(lengths: list[float], room: float, seed: int) -> None:
    chosen = sample_clips(lengths, room, seed)
    assert chosen == sorted(set(chosen))
    taken = sum(lengths[i] for i in chosen)
    assert taken <= room + 1e-6
    left = [length for i, length in enumerate(lengths) if i not in chosen]
    assert all(length > room - taken - 1e-6 for length in left)


def test_code_statistics_of_known_counts() -> None:
    counts = np.zeros(100)
    assert code_statistics(counts) == {"codebook_use": 0.0, "perplexity": 1.0}
    counts[:4] = 5
    even = code_statistics(counts)
    assert even["codebook_use"] == 0.04
    assert even["perplexity"] == pytest.approx(4.0)


def test_a_corpus_is_heard_at_sixteen_kilohertz(corpus_uri: str) -> None:
    clips = list(corpus_clips(Corpus.open(corpus_uri), 100.0, seed=0))
    assert [len(clip) for clip in clips] == [16_001, 26_231] * 3
    assert all(clip.dtype == np.float32 for clip in clips)
    assert sum(len(clip) for clip in corpus_clips(Corpus.open(corpus_uri), 3.0, seed=0)) <= 3 * 16_000


@pytest.mark.slow
def test_the_demo_codec_halves_the_mean_frames_error_on_shipped_speech() -> None:
    """The two AISHELL utterances inside the s3tokenizer wheel, in pieces of 1.5 s, with the shipped recipe in half its steps."""
    package = find_spec("s3tokenizer")
    if package is None or package.origin is None:
        pytest.skip("s3tokenizer is not installed; its wheel holds the speech")
    paths = sorted((Path(package.origin).parent / "assets").glob("*.wav"))
    audios = [soundfile.read(path, dtype="float32")[0] for path in paths]
    clips = [audio[start : start + 24_000] for audio in audios for start in range(0, len(audio), 24_000)]
    part = load_recipe(TokenizerRecipe, "tokenization", "demo").codec
    assert isinstance(part, FsqPart)
    training = part.training.model_copy(update={"steps": part.training.steps // 2})
    figures = train_codec(clips, part.network, training).metrics
    assert figures["mel_error"] <= 0.5 * figures["mean_frame_mel_error"]
    assert figures["codebook_use"] > 0.005
