"""What the codes of Stepwell's own codec keep, trained with and without the words: the same clips, batches and steps.

    .venv/bin/python -m benchmarks.codec_quality --shared ../shared
    .venv/bin/python -m benchmarks.codec_quality --shared ../shared --steps 3000 --width 256

*Digits*: strings of one to five takes of one speaker (`speech/digits`). Takes 0 to 4 are the set's test split: no codec and
no recogniser here sees one. *Read*: sentences of `speech/read`; a fifth of the speakers is heard in the test only.

Columns, all on test clips: mel error of the decoder as a share of the error of the mean frame; codes in use and their
perplexity; share of codes that come back when their audio (Griffin-Lim) is encoded again; errors of a small recogniser that
was trained on the codes of the training clips, on code ids (what a language model sees) and on their eight digits: words of
the digit strings, letters of the read sentences.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ
from manifests.store import Store
from tokenization.codec import FsqCodec, FsqConfig, save_codec
from tokenization.codec_batches import hear
from tokenization.codec_clips import SpokenClip
from tokenization.codec_measures import code_stability, measure, text_errors
from tokenization.codec_training import CodecTraining, train_codec
from tokenization.fsq import DIMENSIONS, ChannelNorm, ResidualBlock, digits_of_codes
from tokenization.letters import Letters, normal_form, shortest_frames
from tokenization.vocabulary import NUM_CODES

TEST_TAKES = range(5)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STABILITY_CLIPS = 15


@dataclass(frozen=True)
class Material:
    """Clips of one kind; ``spells``: words are spelled letter by letter, else each is a label of its own."""

    name: str
    learnt: list[SpokenClip]
    tested: list[SpokenClip]
    spells: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--steps", type=int, default=800, help="of each codec")
    parser.add_argument("--reader-steps", type=int, default=400, help="of each recogniser of codes")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--text-weights", type=float, nargs="+", default=[0.0, CodecTraining().text_weight])
    parser.add_argument("--read-clips", type=int, default=1125, help="sentences of speech/read, tested ones included")
    options = parser.parse_args()
    torch.set_num_threads(1)
    materials = [digit_strings(options.shared / "speech"), read_sentences(options.shared / "speech", options.read_clips)]
    for material in materials:
        minutes = [sum(len(clip.audio) for clip in clips) / MODEL_RATE_HZ / 60 for clips in (material.learnt, material.tested)]
        words = sum(len((clip.text or "").split()) for clip in material.tested)
        print(f"{material.name}: {minutes[0]:.1f} min to learn from, {minutes[1]:.1f} min ({words} words) to test", flush=True)
    print("| text weight | material | mel error | codes in use | perplexity | come back | text, ids | text, digits |", flush=True)
    for weight in options.text_weights:
        training = CodecTraining(steps=options.steps, text_weight=weight)
        began = time.process_time()
        learnt = [clip for material in materials for clip in material.learnt]
        trained = train_codec(learnt, FsqConfig(width=options.width), training)
        cpu_s = time.process_time() - began
        with tempfile.TemporaryDirectory() as folder:
            save_codec(Store(folder), FsqConfig(width=options.width), trained.network)
            codec = FsqCodec(folder)
            for material in materials:
                print(row(weight, material, codec, trained.network, options.reader_steps), flush=True)
        print(f"(text weight {weight:g}: {options.steps} steps and their figures took {cpu_s:.0f} s of CPU)", flush=True)


def row(weight: float, material: Material, codec: FsqCodec, network: Any, reader_steps: int) -> str:
    heard, _ = hear(material.tested, network.mel_mean.shape[0], 0.0)
    found = measure(network, heard)
    learnt, tested = (codec.encode([clip.audio for clip in clips]) for clips in (material.learnt, material.tested))
    stability = code_stability(codec, tested[:: max(1, len(tested) // STABILITY_CLIPS)])
    errors = [codes_to_text(material, learnt, tested, by_id, reader_steps) for by_id in (True, False)]
    shares = [found["mel_error_ratio"], found["codebook_use"], found["perplexity"], stability, *errors]
    cells = " | ".join(f"{value:.0f}" if value > 1.5 else f"{value:.1%}" for value in shares)
    return f"| {weight:g} | {material.name} | {cells} |"


def digit_strings(speech: Path, num_tested: int = 350) -> Material:
    """Training takes once each, in strings; test strings draw from test takes, at least a thousand words."""
    takes: dict[tuple[str, bool], list[tuple[int, np.ndarray]]] = {}
    for path in sorted((speech / "digits").glob("*/*.flac")):
        digit, speaker, take = path.stem.split("_")
        takes.setdefault((speaker, int(take) in TEST_TAKES), []).append((int(digit), heard_audio(path)))
    random = np.random.default_rng(0)
    speakers = sorted({speaker for speaker, _ in takes})
    learnt, tested = [], []
    for speaker in speakers:
        own = takes[speaker, False]
        order = random.permutation(len(own)).tolist()
        while order:
            learnt.append(joined([own[order.pop()] for _ in range(min(len(order), int(random.integers(1, 6))))]))
    for number in range(num_tested):
        own = takes[speakers[number % len(speakers)], True]
        tested.append(joined([own[i] for i in random.integers(0, len(own), size=int(random.integers(1, 6)))]))
    return Material("digits", learnt, tested, spells=False)


def joined(takes: Sequence[tuple[int, np.ndarray]]) -> SpokenClip:
    return SpokenClip(np.concatenate([audio for _, audio in takes]), " ".join(WORDS[digit] for digit, _ in takes))


def read_sentences(speech: Path, num_clips: int) -> Material:
    """Every fifth speaker is tested."""
    rows = [json.loads(line) for line in (speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["path"].startswith("read/")][:num_clips]
    speakers = sorted({row["speaker"] for row in rows})
    clips = {row["path"]: SpokenClip(heard_audio(speech / row["path"]), row["transcript"]) for row in rows}
    tested = {row["path"] for row in rows if row["speaker"] in speakers[::5]}
    learnt = [clip for path, clip in clips.items() if path not in tested]
    return Material("read", learnt, [clips[path] for path in sorted(tested)], spells=True)


def heard_audio(path: Path) -> np.ndarray:
    audio, rate = soundfile.read(path, dtype="float32")
    return resample(audio, rate, MODEL_RATE_HZ)


def codes_to_text(
    material: Material, learnt: Sequence[np.ndarray], tested: Sequence[np.ndarray], by_id: bool, steps: int
) -> float:
    """Word error (digits) or letter error (read) on the test clips of a recogniser of the training clips' codes."""
    letters = Letters.of(clip.text or "" for clip in material.learnt)
    labels = {
        clip.text or "": letters.labels(clip.text or "")
        if material.spells
        else [WORDS.index(word) + 1 for word in (clip.text or "").split()]
        for clip in (*material.learnt, *material.tested)
    }
    told = [(_tensor(codes), labels[clip.text or ""]) for codes, clip in zip(learnt, material.learnt, strict=True)]
    told = [(own, label) for own, label in told if shortest_frames(label) <= len(own)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recogniser = CodeRecogniser(letters.num_labels if material.spells else len(WORDS) + 1, by_id)
        learn(recogniser, told, steps)
    pairs = []
    for codes, clip in zip(tested, material.tested, strict=True):
        with torch.inference_mode():
            best = recogniser(_tensor(codes)[None])[0].argmax(-1).tolist()
        if material.spells:
            pairs.append((clip.text or "", letters.read(best)))
        else:
            kept = [label for before, label in zip([0, *best[:-1]], best, strict=True) if label and label != before]
            pairs.append((normal_form(clip.text or ""), " ".join(WORDS[label - 1] for label in kept)))
    error = text_errors(pairs)["letter_error" if material.spells else "word_error"]
    assert error is not None
    return error


def _tensor(codes: np.ndarray) -> Tensor:
    return torch.from_numpy(codes.astype(np.int64))


class CodeRecogniser(nn.Module):
    """Code ids ``[B, F]`` through an embedding, or as their digits, to log-probabilities ``[B, F, L]``."""

    def __init__(self, num_labels: int, by_id: bool, width: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_CODES, width) if by_id else None
        self.widen = nn.Conv1d(width if by_id else DIMENSIONS, width, 3, padding=1)
        self.layers = nn.Sequential(*(ResidualBlock(width) for _ in range(2)), ChannelNorm(width), nn.Dropout(0.2))
        self.out = nn.Conv1d(width, num_labels, 1)

    def forward(self, codes_BF: Tensor) -> Tensor:
        x = digits_of_codes(codes_BF) if self.embedding is None else self.embedding(codes_BF).transpose(1, 2)
        log_probs: Tensor = self.out(self.layers(self.widen(x))).transpose(1, 2).log_softmax(-1)
        return log_probs


def learn(recogniser: CodeRecogniser, told: Sequence[tuple[Tensor, list[int]]], steps: int, batch: int = 16) -> None:
    """CTC on batches of clips of like length; ends in eval mode."""
    random = np.random.default_rng(0)
    told = sorted(told, key=lambda pair: len(pair[0]))
    optimizer = torch.optim.AdamW(recogniser.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        start = int(random.integers(0, max(1, len(told) - 4 * batch)))
        chosen = [told[start + i] for i in random.permutation(min(4 * batch, len(told)))[:batch]]
        codes_BF = nn.utils.rnn.pad_sequence([codes for codes, _ in chosen], batch_first=True)
        targets = torch.tensor([label for _, labels in chosen for label in labels])
        lengths = [torch.tensor([len(one) for one in side]) for side in zip(*chosen, strict=True)]
        loss = nn.functional.ctc_loss(recogniser(codes_BF).transpose(0, 1), targets, *lengths)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(recogniser.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    recogniser.eval()


if __name__ == "__main__":
    main()
