"""Small wav2vec2 networks that really know: one the letters of a dozen words, one whether a man or a woman speaks.

The stem is two convolutions. The first begins as a bank of band-pass filters, spaced as ears hear, and its output falls
on the published 20 ms grid: from random filters the same would take ten times as long to learn.

Shape legend: B batch, S audio samples, F frames of 20 ms, V vocabulary.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.contracts import MODEL_RATE_HZ
from tests.checkpoints.spoken_words import SEXED_SPEAKERS, WORDS, Phrase, phrases
from tests.checkpoints.training import padded, reproducible, train

if TYPE_CHECKING:
    import torch

NUM_PHRASES = 1200
BATCH = 16
LETTER_STEPS, SEX_STEPS = 800, 200
SAMPLES_A_FRAME = 320
MAX_LEAD_SAMPLES = MODEL_RATE_HZ // 5
NUM_BANDS, NUM_PHASES, KERNEL_SAMPLES = 32, 4, 256
BLANK, DELIMITER = "<pad>", "|"
LETTERS = [BLANK, "<unk>", DELIMITER, *sorted({letter for words in WORDS.values() for word in words for letter in word})]
SEXES = ("female", "male")


def train_letters(folder: Path) -> None:
    """Write a ``Wav2Vec2ForCTC`` with its processor: letters of both languages, ``|`` between words."""
    from torch.nn import functional as F
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC, Wav2Vec2Processor

    spoken = phrases(NUM_PHRASES, seed=2)
    number = {letter: place for place, letter in enumerate(LETTERS)}
    texts = [[number[letter] for letter in phrase.text.replace(" ", DELIMITER)] for phrase in spoken]

    def loss(step: int, draw: random.Random) -> torch.Tensor:
        """CTC, and, less and less, for every frame the letter that lies there if a word's letters are equally long."""
        import torch

        chosen, leads, audio_BS = _heard(spoken, draw)
        logits_BFV = network(audio_BS).logits
        num_frames = logits_BFV.shape[1]
        frames_BF = torch.tensor(
            [_letters_of(spoken[i], lead, num_frames, number) for i, lead in zip(chosen, leads, strict=True)]
        )
        said = [texts[i] for i in chosen]
        sequence = F.ctc_loss(
            logits_BFV.log_softmax(-1).transpose(0, 1),
            padded(said, 0),
            torch.full((len(chosen),), num_frames),
            torch.tensor([len(row) for row in said]),
            zero_infinity=True,
        )
        return sequence + (1.1 - step / LETTER_STEPS) * F.cross_entropy(logits_BFV.flatten(0, 1), frames_BF.flatten())

    with reproducible(0):
        network = Wav2Vec2ForCTC(_config(vocab_size=len(LETTERS), pad_token_id=number[BLANK]))
        _hear_bands(network)
        train(network.parameters(), loss, num_steps=LETTER_STEPS, peak_lr=2e-3, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(number, ensure_ascii=False))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    Wav2Vec2Processor(_extractor(), tokenizer).save_pretrained(folder)


def train_sexes(folder: Path) -> None:
    """Write a ``Wav2Vec2ForSequenceClassification`` of SEXES."""
    from torch.nn import functional as F
    from transformers import Wav2Vec2ForSequenceClassification

    spoken = phrases(NUM_PHRASES // 2, seed=3, speakers=SEXED_SPEAKERS)

    def loss(step: int, draw: random.Random) -> torch.Tensor:
        import torch

        chosen, _, audio_BS = _heard(spoken, draw)
        return F.cross_entropy(network(audio_BS).logits, torch.tensor([SEXES.index(spoken[i].sex) for i in chosen]))

    with reproducible(0):
        labels = dict(enumerate(SEXES))
        config = _config(id2label=labels, label2id={label: i for i, label in labels.items()}, classifier_proj_size=32)
        network = Wav2Vec2ForSequenceClassification(config)
        _hear_bands(network)
        train(network.parameters(), loss, num_steps=SEX_STEPS, peak_lr=1e-3, seed=0)
    network.save_pretrained(folder)
    _extractor().save_pretrained(folder)


def _config(**changes: Any) -> Any:
    from transformers import Wav2Vec2Config

    no_dropout = ("hidden", "attention", "activation", "feat_proj", "final")
    return Wav2Vec2Config(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        conv_dim=(NUM_BANDS * NUM_PHASES, 64),
        conv_kernel=(KERNEL_SAMPLES, 8),
        conv_stride=(80, 4),
        num_feat_extract_layers=2,
        conv_bias=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",  # over the channels of a frame: the level of the audio plays no part
        do_stable_layer_norm=True,
        initializer_range=0.1,
        layerdrop=0.0,
        mask_time_prob=0.0,
        **{f"{name}_dropout": 0.0 for name in no_dropout},
        **changes,
    )


def _extractor() -> Any:
    from transformers import Wav2Vec2FeatureExtractor

    return Wav2Vec2FeatureExtractor(sampling_rate=MODEL_RATE_HZ, do_normalize=False, return_attention_mask=False)


def _hear_bands(network: Any) -> None:
    """Give the first convolution Gabor filters on the mel scale, each in four phases: rectified, their sum is the band's level."""
    import torch

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    mels = torch.linspace(mel(80), mel(7600), NUM_BANDS + 2)
    edges_hz = 700 * (10 ** (mels / 2595) - 1)
    t = (torch.arange(KERNEL_SAMPLES) - KERNEL_SAMPLES // 2) / MODEL_RATE_HZ
    filters = []
    for low, centre, high in zip(edges_hz[:-2], edges_hz[1:-1], edges_hz[2:], strict=True):
        envelope = torch.exp(-1.5 * (t * max(high - low, 120.0)) ** 2) * torch.hann_window(KERNEL_SAMPLES)
        for phase in range(NUM_PHASES):
            wave = envelope * torch.cos(2 * math.pi * centre * t + 2 * math.pi * phase / NUM_PHASES)
            filters.append(4 * wave / wave.norm())
    first = network.wav2vec2.feature_extractor.conv_layers[0].conv
    with torch.no_grad():
        first.weight.copy_(torch.stack(filters)[:, None])
        first.bias.zero_()


def _heard(spoken: Sequence[Phrase], draw: random.Random) -> tuple[list[int], list[int], torch.Tensor]:
    """Numbers of a batch of phrases, samples of silence before each, and the audio ``[B, S]`` with silence behind."""
    import torch

    chosen = draw.sample(range(len(spoken)), BATCH)
    leads = [draw.randint(0, MAX_LEAD_SAMPLES) for _ in chosen]
    audio_BS = torch.zeros(BATCH, max(len(spoken[i].audio) + lead for i, lead in zip(chosen, leads, strict=True)))
    for row, (i, lead) in enumerate(zip(chosen, leads, strict=True)):
        audio_BS[row, lead : lead + len(spoken[i].audio)] = torch.from_numpy(spoken[i].audio)
    return chosen, leads, audio_BS


def _letters_of(phrase: Phrase, lead: int, num_frames: int, number: dict[str, int]) -> list[int]:
    """The letter of each frame: a word's letters share its time, a delimiter has the last two frames of all but the last word."""
    frames = [number[BLANK]] * num_frames
    for place, word in enumerate(phrase.words):
        start, end = ((lead + sample) / SAMPLES_A_FRAME for sample in (word.start_sample, word.end_sample))
        share = (end - 2 - start) / len(word.word)
        for i, letter in enumerate(word.word):
            first, last = round(start + i * share), round(start + (i + 1) * share)
            frames[first:last] = [number[letter]] * (last - first)
            if i and word.word[i - 1] == letter:
                frames[first] = number[BLANK]  # or the two would be read as one
        if place < len(phrase.words) - 1:
            frames[round(end - 2) : round(end)] = [number[DELIMITER]] * (round(end) - round(end - 2))
    return frames[:num_frames]
