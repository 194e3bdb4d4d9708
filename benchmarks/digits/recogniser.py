"""A recogniser of spoken digits to judge the model by: convolutions and a recurrent network with CTC on log mels, of real audio alone.

    .venv/bin/python -m benchmarks.digits.recogniser --speech ../shared/speech

Nothing of it is the model's: other layers, other mels, other strings. It learns from training takes (``strings.Part.TRAIN``), joined
anew for every step and made worse (speed, level, a filter, an echo, noise, and phases lost to Griffin-Lim), so that it is no judge
of rooms or vocoders; it hears no audio that a codec made. ``takes`` says what it has heard.

Shapes: B strings, S audio samples, N mel frames (10 ms), M mel bins, F frames of 40 ms, L labels (0 is CTC's blank).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.fft import next_fast_len
from scipy.signal import fftconvolve
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

from benchmarks.digits.judging import judge
from benchmarks.digits.strings import LONGEST, RATE_HZ, WORDS, Part, Take, draw_strings, read_takes, spoken
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from tokenization.mel import HOP_SAMPLES, griffin_lim, log_mel
from training.augmentation import coloured_noise

NUM_MELS = 40
FFT_SAMPLES = 512
TOP_HZ = 3800.0  # the set was recorded at 8 kHz: above lies what a codec invents
RANGE_NEPER = 7.0  # of magnitudes below the loudest frame's, about 60 dB, that are heard
WIDTH = 96
STEPS = 800
BATCH = 24
RATE = 3e-3
WEIGHTS, TAKES = "recogniser.safetensors", "takes.json"


class Recogniser(nn.Module):
    """Audio to digits; ``takes`` are those it learnt from, each with its speaker."""

    def __init__(self, takes: Iterable[tuple[str, Take]] = ()) -> None:
        super().__init__()
        self.takes = frozenset(takes)
        self.mel = MelSpectrogram(
            MODEL_RATE_HZ, n_fft=FFT_SAMPLES, win_length=400, hop_length=160, f_min=60.0, f_max=TOP_HZ, n_mels=NUM_MELS, power=1.0
        )
        layers: list[nn.Module] = []
        for inner, stride in ((NUM_MELS, 2), (WIDTH, 1), (WIDTH, 2)):
            layers += [nn.Conv1d(inner, WIDTH, 5, stride=stride, padding=2), nn.BatchNorm1d(WIDTH), nn.GELU()]
        self.hears = nn.Sequential(*layers, nn.Dropout(0.1))
        self.follows = nn.GRU(WIDTH, WIDTH, batch_first=True, bidirectional=True)
        self.says = nn.Sequential(nn.Dropout(0.1), nn.Linear(2 * WIDTH, len(WORDS) + 1))

    def forward(self, audio_BS: Tensor) -> Tensor:
        """Log-probabilities ``[B, F, L]`` of 16 kHz audio."""
        mel_BMN = self.mel(audio_BS).clamp_min(1e-6).log()
        loudest_B11 = mel_BMN.amax(dim=(1, 2), keepdim=True)
        mel_BMN = (mel_BMN - loudest_B11).clamp_min(-RANGE_NEPER) / RANGE_NEPER + 0.5
        heard_BFW, _ = self.follows(self.hears(mel_BMN).transpose(1, 2))
        log_probs_BFL: Tensor = self.says(heard_BFW).log_softmax(-1)
        return log_probs_BFL

    @torch.inference_mode()
    def read(self, audio: Audio) -> str:
        """The words heard in float32 audio ``[S]`` at 16 kHz, by the best path; none in what is shorter than half a spectrum's window."""
        if len(audio) <= FFT_SAMPLES // 2:
            return ""
        best = self(torch.from_numpy(np.asarray(audio, np.float32))[None])[0].argmax(-1)
        return " ".join(WORDS[label - 1] for label in torch.unique_consecutive(best).tolist() if label)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / WEIGHTS)
        rows = sorted((speaker, take.digit, take.number) for speaker, take in self.takes)
        (folder / TAKES).write_text(json.dumps(rows), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Recogniser:
        rows = json.loads((folder / TAKES).read_text(encoding="utf-8"))
        recogniser = Recogniser((speaker, Take(digit, number)) for speaker, digit, number in rows)
        recogniser.load_state_dict(load_file(folder / WEIGHTS))
        return recogniser.eval()


def train_recogniser(speech: Path, steps: int = STEPS, seed: int = 0) -> Recogniser:
    """Learnt from the training takes; a function of its arguments (and of torch and its threads)."""
    takes = {key: audio for key, audio in read_takes(speech).items() if key[1].number in Part.TRAIN.takes}
    random = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        recogniser = Recogniser(takes)
        optimizer = torch.optim.AdamW(recogniser.parameters(), lr=RATE, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
        for _ in range(steps):
            num_digits = int(random.integers(1, LONGEST + 1))  # of all strings of a step, so that little of it is padding
            loss = _loss(recogniser, [_drawn(takes, num_digits, random) for _ in range(BATCH)])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(recogniser.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return recogniser.eval()


def _loss(recogniser: Recogniser, strings: Sequence[tuple[Audio, list[int]]]) -> Tensor:
    audio_BS = nn.utils.rnn.pad_sequence([torch.from_numpy(audio) for audio, _ in strings], batch_first=True)
    log_probs_FBL = recogniser(audio_BS).transpose(0, 1)
    labels = torch.tensor([label for _, labels in strings for label in labels])
    num_frames = torch.full((len(strings),), len(log_probs_FBL))  # behind an end there is silence: blanks
    return nn.functional.ctc_loss(log_probs_FBL, labels, num_frames, torch.tensor([len(labels) for _, labels in strings]))


def _drawn(takes: Mapping[tuple[str, Take], np.ndarray], num_digits: int, random: np.random.Generator) -> tuple[Audio, list[int]]:
    """A string of takes of one speaker, made worse, with its labels."""
    speakers = sorted({speaker for speaker, _ in takes})
    speaker = speakers[random.integers(len(speakers))]
    own = [take for of, take in takes if of == speaker]
    chosen = [own[place] for place in random.integers(len(own), size=num_digits)]
    audio = spoken([takes[speaker, take] for take in chosen], random).astype(np.float32) / 2**15
    return worsened(audio, random), [take.digit + 1 for take in chosen]


def worsened(audio: np.ndarray, random: np.random.Generator) -> Audio:
    """float32 at 16 kHz of float32 at RATE_HZ: most of the changes, each drawn by itself."""
    audio = resample(audio, round(RATE_HZ * random.uniform(0.85, 1.2)), MODEL_RATE_HZ)
    if random.random() < 0.5:  # a microphone: a slope and a bump over the spectrum
        audio = _filtered(audio, random)
    if random.random() < 0.3:  # a small room: an echo that dies within 50 to 200 ms
        tail = np.exp(-np.arange(3200) / MODEL_RATE_HZ * 6.9 / random.uniform(0.05, 0.2)) * random.standard_normal(3200)
        tail[0] = random.uniform(4.0, 20.0)
        audio = fftconvolve(audio, tail / tail[0])[: len(audio)]
    if random.random() < 0.6:
        level = np.sqrt(np.mean(np.square(audio))) * 10 ** (-random.uniform(10.0, 40.0) / 20)
        noise = coloured_noise(next_fast_len(len(audio)), random.uniform(0.0, 2.0), random)[: len(audio)]
        audio = audio + level * noise / np.sqrt(np.mean(np.square(noise)))
    if random.random() < 0.15:  # phases guessed from a coarse spectrum, as any mel vocoder has to
        whole = audio[: len(audio) // HOP_SAMPLES * HOP_SAMPLES]
        audio = griffin_lim(log_mel(whole.astype(np.float32), num_mels=80), rounds=6)
    return np.asarray(audio, np.float32)


def _filtered(audio: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Gains over frequency within 6 dB, smooth over the logarithm of frequency."""
    whole = next_fast_len(len(audio))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(whole, 1 / MODEL_RATE_HZ), 50.0) / 50.0)
    gains_db = np.interp(octaves, np.linspace(0.0, octaves[-1], 6), random.uniform(-6.0, 6.0, size=6))
    return np.fft.irfft(np.fft.rfft(audio, whole) * 10 ** (gains_db / 20), whole)[: len(audio)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path(__file__).parents[3] / "shared" / "speech")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for its weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    recogniser = train_recogniser(options.speech, options.steps, options.seed)
    print(f"learnt from {len(recogniser.takes)} takes in {time.process_time() - began:.0f} s of CPU", flush=True)
    if options.out:
        recogniser.save(options.out)
    takes = read_takes(options.speech)
    strings = draw_strings(sorted({speaker for speaker, _ in takes}))
    random, tuning = np.random.default_rng(1), strings[Part.TUNING]  # test strings are for the experiment alone
    told = [spoken([takes[string.speaker, take] for take in string.takes], random) for string in tuning]
    waves = [resample(audio.astype(np.float32) / 2**15, RATE_HZ, MODEL_RATE_HZ) for audio in told]
    print(f"{Part.TUNING}: {judge(recogniser.read, waves, [string.text for string in tuning]).line()}", flush=True)


if __name__ == "__main__":
    main()
