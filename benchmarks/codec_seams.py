"""What the overlap of windows buys S3 tokenizer v2 on long audio: shares of codes that equal those of one pass.

    .venv/bin/python benchmarks/codec_seams.py --speech ../shared/speech/read

No published weights are needed: the networks are small ones of the package's architecture, one with random weights, one
trained to rebuild the spectrum of read speech. One pass is possible up to 81.9 s, where the package's rotary table ends.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
import torch
from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
from s3tokenizer.utils import log_mel_spectrogram
from torch import nn

from manifests.contracts import MODEL_RATE_HZ, Audio
from tokenization.fsq import ChannelNorm, ResidualBlock, quantise
from tokenization.s3 import FRAMES_PER_CODE, WINDOW_FRAMES
from tokenization.windows import Window, windows

LONG_S = 80
WIDTH, LAYERS, NUM_MELS = 128, 4, 128
OVERLAPS_S = (0.0, 0.4, 1.0, 2.0, 4.0, 8.0, 16.0)
NEAR_FRAMES = 25  # a second to either side of a seam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path(__file__).parents[2] / "shared" / "speech" / "read")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--recordings", type=int, default=8, help="of 80 s, joined from sentences that nothing learned from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(options.speech.glob("*/*.flac"))
    np.random.default_rng(0).shuffle(paths)  # type: ignore[arg-type]
    joined = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in paths])
    heard, learnt = np.split(joined, [options.recordings * LONG_S * MODEL_RATE_HZ])
    torch.manual_seed(0)
    network = S3TokenizerV2("speech_tokenizer_v2_25hz", ModelConfig(NUM_MELS, 1500, WIDTH, WIDTH // 64, LAYERS))
    print(f"| overlap, s | {' | '.join(f'{name}: within 1 s of a seam | elsewhere' for name in ('random', 'trained'))} |")
    tables = [shares(network.eval(), np.split(heard, options.recordings))]
    train(network, learnt, options.steps)
    tables.append(shares(network.eval(), np.split(heard, options.recordings)))
    for overlap_s, *rows in zip(OVERLAPS_S, *tables, strict=True):
        print(f"| {overlap_s:g} | {' | '.join(f'{near:.1%} | {far:.1%}' for near, far in rows)} |")


@torch.inference_mode()
def shares(network: S3TokenizerV2, recordings: list[Audio]) -> list[tuple[float, float]]:
    """(share of equal codes near seams, elsewhere) for each overlap, over all recordings."""
    mels = [log_mel_spectrogram(torch.from_numpy(audio)) for audio in recordings]
    one_pass = [codes_of(network, mel) for mel in mels]
    found = []
    for overlap_s in OVERLAPS_S:
        cut = windows(len(one_pass[0]), WINDOW_FRAMES, round(25 * overlap_s))
        places = np.arange(len(one_pass[0]))
        near = np.any([np.abs(places - window.end) < NEAR_FRAMES for window in cut[:-1]], axis=0)
        equal = np.stack([joined_codes(network, mel, cut) == codes for mel, codes in zip(mels, one_pass, strict=True)])
        found.append((float(equal[:, near].mean()), float(equal[:, ~near].mean())))
    return found


def joined_codes(network: S3TokenizerV2, mel: torch.Tensor, cut: list[Window]) -> np.ndarray:
    passes = [codes_of(network, mel[:, FRAMES_PER_CODE * window.start : FRAMES_PER_CODE * window.stop]) for window in cut]
    return np.concatenate([codes[window.kept] for codes, window in zip(passes, cut, strict=True)])


def codes_of(network: S3TokenizerV2, mel: torch.Tensor) -> np.ndarray:
    hidden, lengths = network.encoder(mel[None], torch.tensor([mel.shape[1]]))
    return network.quantizer.encode(hidden)[0, : int(lengths[0])].numpy()


def train(network: S3TokenizerV2, audio: Audio, steps: int) -> None:
    """Rebuild the log-mel from the quantised dimensions, on crops of 3 to 30 s."""
    random = np.random.default_rng(0)
    decoder = nn.Sequential(
        nn.Conv1d(8, WIDTH, 3, padding=1),
        *(ResidualBlock(WIDTH) for _ in range(2)),
        ChannelNorm(WIDTH),
        nn.Conv1d(WIDTH, FRAMES_PER_CODE * NUM_MELS, 1),
    )
    parameters = [*network.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for _ in range(steps):
        samples = int(random.integers(3, 31)) * MODEL_RATE_HZ
        starts = random.integers(0, len(audio) - samples, size=max(1, 30 * MODEL_RATE_HZ // samples))
        mel_BMN = torch.stack([log_mel_spectrogram(torch.from_numpy(audio[start : start + samples])) for start in starts])
        hidden, _ = network.encoder(mel_BMN, torch.full((len(starts),), mel_BMN.shape[2]))
        out = decoder(quantise(network.quantizer._codebook.project_down(hidden).transpose(1, 2)))
        rebuilt_BMN = out.unflatten(1, (NUM_MELS, FRAMES_PER_CODE)).transpose(2, 3).flatten(2)
        loss = (rebuilt_BMN - mel_BMN).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main()
