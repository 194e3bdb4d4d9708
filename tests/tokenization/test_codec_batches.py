from __future__ import annotations

import numpy as np
import pytest

from tokenization.codec_clips import SpokenClip

torch = pytest.importorskip("torch")

from tokenization.codec_batches import BatchSource, HeardClip, hear  # noqa: E402 (torch may be absent)


def clip(num_frames: int, number: int, labels: tuple[int, ...] | None = None) -> HeardClip:
    """Frames that say which clip and which place they are from."""
    mel = torch.stack([torch.full((num_frames,), float(number)), torch.arange(num_frames).float()], dim=1)
    return HeardClip(mel, None, labels)


def test_clips_that_supervise_come_whole_and_others_as_crops() -> None:
    clips = [clip(400, 0, (1, 2)), clip(420, 1, (3,)), clip(3000, 2), clip(40, 3)]
    source = BatchSource(clips, batch_s=10.0, crop_s=1.28, seed=0)
    seen: set[int] = set()
    for _ in range(60):
        batch = source.draw()
        assert batch.mel_BNM.shape[0] * batch.lengths_B.max() * 4 <= 1.25 * 1000
        for mel, length, labels in zip(batch.mel_BNM, batch.lengths_B.tolist(), batch.labels, strict=True):
            number = int(mel[0, 0])
            assert 4 * length == min(len(clips[number].mel), 10_000 if labels else 128)
            assert labels == clips[number].labels
            assert torch.equal(mel[: 4 * length, 1].diff(), torch.ones(4 * length - 1))  # one stretch of the clip
            seen.add(number)
        assert torch.equal(batch.within_BN1.sum((1, 2)), 4.0 * batch.lengths_B)
        assert torch.equal(batch.within_BF.sum(1), batch.lengths_B)
    assert seen == {0, 1, 2, 3}


def test_a_second_of_audio_is_heard_as_often_as_another() -> None:
    clips = [clip(200, 0, (1,)), clip(800, 1, (1,)), clip(200, 2), clip(2000, 3)]
    source = BatchSource(clips, batch_s=16.0, crop_s=1.28, seed=1)
    heard = np.zeros(4)
    for _ in range(600):
        batch = source.draw()
        np.add.at(heard, batch.mel_BNM[:, 0, 0].long().numpy(), batch.lengths_B.numpy() * 4)
    shares = heard / heard.sum()
    np.testing.assert_allclose(shares, np.array([200, 800, 200, 2000]) / 3200, rtol=0.25)


def test_batches_go_on_from_a_state() -> None:
    clips = [clip(100 + 4 * number, number, (1,) if number % 2 else None) for number in range(30)]
    source, again = (BatchSource(clips, batch_s=8.0, crop_s=0.5, seed=3) for _ in range(2))
    for _ in range(5):
        source.draw()
    again.load_state_dict(source.state_dict())
    for _ in range(5):
        left, right = source.draw(), again.draw()
        assert torch.equal(left.mel_BNM, right.mel_BNM)
        assert left.labels == right.labels


def test_what_supervises_has_words_that_fit() -> None:
    def spoken(seconds: float, text: str | None) -> SpokenClip:
        return SpokenClip(np.zeros(round(16_000 * seconds), np.float32), text)

    clips = [spoken(1.0, "one, two"), spoken(0.0, "nothing"), spoken(0.2, "too many"), spoken(5.0, "long"), spoken(1.0, None)]
    heard, letters = hear(clips, 40, max_text_clip_s=4.0)
    assert letters is not None
    assert letters.alphabet == " aeglmnotwy"  # of all texts of clips that have samples
    assert [one.labels is not None for one in heard] == [True, False, False, False]
    assert [len(one.mel) for one in heard] == [100, 20, 500, 100]
    assert hear(clips, 40, max_text_clip_s=0.0)[1] is None
