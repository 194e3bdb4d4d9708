from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from manifests.contracts import Audio
from manifests.errors import RequestError
from manifests.recipes import load_recipe
from tokenization.codec import FsqConfig
from tokenization.codec_clips import SpokenClip
from tokenization.codec_training import CodecTraining, TrainedCodec, train_codec
from tokenization.recipe import FsqPart, TokenizerRecipe

SMALL = FsqConfig(num_mels=40, width=32, encoder_blocks=1, decoder_blocks=1)
BRIEF = CodecTraining(steps=20, batch_s=5.0, log_every=10, checkpoint_every=7)


def spoken(clips: list[Audio], text: str | None = None) -> list[SpokenClip]:
    return [SpokenClip(audio, text) for audio in clips]


def weights(trained: TrainedCodec) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in trained.network.state_dict().items()}


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "wall_s"} for row in rows]


def test_the_same_clips_and_seed_give_the_same_codec(voice: Callable[..., Audio]) -> None:
    clips = spoken([voice(1.5, seed) for seed in range(2)], "so la") + spoken([voice(0.3, 2), np.zeros(0, np.float32)])
    first, again, other = (train_codec(clips, SMALL, BRIEF, seed) for seed in (0, 0, 1))
    for name, tensor in weights(first).items():
        np.testing.assert_array_equal(tensor, weights(again)[name])
    assert not np.array_equal(weights(first)["encoder.0.weight"], weights(other)["encoder.0.weight"])
    assert without_clock(first.rows) == without_clock(again.rows)


def test_a_training_goes_on_as_if_it_had_never_stopped(voice: Callable[..., Audio]) -> None:
    """From each state of an unbroken training, and from a state of the one that went on."""
    clips = spoken([voice(1.2, seed) for seed in range(2)], "so la") + spoken([voice(2.3, 2)])
    states: dict[int, bytes] = {}
    unbroken = train_codec(clips, SMALL, BRIEF, on_state=states.__setitem__)
    assert list(states) == [7, 14]  # of 20 steps
    later: dict[int, bytes] = {}
    resumed = [
        train_codec(clips, SMALL, BRIEF, state=states[7], on_state=later.__setitem__),
        train_codec(clips, SMALL, BRIEF, state=states[14]),
    ]
    resumed.append(train_codec(clips, SMALL, BRIEF, state=later[14]))
    for trained in resumed:
        for name, tensor in weights(unbroken).items():
            np.testing.assert_array_equal(tensor, weights(trained)[name])
        assert without_clock(trained.rows) == without_clock(unbroken.rows)
        assert trained.metrics["wall_s"] > 0


def test_words_are_learned_from_where_they_are_known(voice: Callable[..., Audio]) -> None:
    audio = [voice(0.8, seed) for seed in range(10)]
    mixed = [SpokenClip(clip, "so la" if number % 2 else None) for number, clip in enumerate(audio)]
    trained = train_codec(mixed, SMALL, BRIEF)
    assert trained.reader is not None
    assert trained.reader.letters.alphabet == " alos"
    assert not trained.reader.head.training
    assert trained.rows[1]["text_loss"] < trained.rows[0]["text_loss"]
    assert trained.metrics["num_supervised"] == 5
    assert trained.metrics["held_out"]["num_supervised"] == 1
    assert 0 < trained.metrics["letter_error"] <= 1
    for unsupervised in (
        train_codec(spoken(audio), SMALL, BRIEF),
        train_codec(mixed, SMALL, BRIEF.model_copy(update={"text_weight": 0.0})),
    ):
        assert unsupervised.reader is None
        assert [row["text_loss"] for row in unsupervised.rows] == [None, None]
        assert unsupervised.metrics["word_error"] is None


def test_rows_and_figures_are_whole(voice: Callable[..., Audio]) -> None:
    seen: list[dict[str, float]] = []
    trained = train_codec(spoken([voice(0.8, seed) for seed in range(10)]), SMALL, BRIEF, on_log=seen.append)
    assert seen == trained.rows
    assert [row["step"] for row in trained.rows] == [10, 20]
    keys = {"step", "loss", "text_loss", "mel_error", "mean_frame_error", "codebook_use", "perplexity", "wall_s"}
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
        train_codec(spoken([np.zeros(0, np.float32)]), SMALL, BRIEF)


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
    figures = train_codec(spoken(clips), part.network, training).metrics
    assert figures["mel_error"] <= 0.5 * figures["mean_frame_mel_error"]
    assert figures["codebook_use"] > 0.005
