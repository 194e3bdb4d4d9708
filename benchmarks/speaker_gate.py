"""What the speaker-change gate lets through: recall of conversations, false alarms on single voices, cost beside diarization.

    .venv/bin/python benchmarks/speaker_gate.py --shared ../shared
    .venv/bin/python benchmarks/speaker_gate.py --shared ../shared --thresholds 0.34 0.36 0.38 0.4 0.42 --no-diarization

*Conversations*: channels of the test data whose label file has two voices or more, and pyannote's sample. *Pairs*: a sentence
each of two readers of one gender, half a second apart. *Single voices*: channels with one voice of the test data, and
read sentences.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from annotators.diarization import DiarizationConfig
from annotators.speaker_change import SpeakerChangeConfig
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio, HeardSpan, Segmenter
from manifests.scoring import read_rttm
from pipeline.shipped_speech import conversation_path

MIN_CONVERSATION_S = 5.0
PAUSE = np.zeros(MODEL_RATE_HZ // 2, np.float32)


@dataclass(frozen=True)
class Heard:
    """One channel and what is known of it."""

    name: str
    audio: Audio  # float32 [S] at 16 kHz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[SpeakerChangeConfig().threshold])
    parser.add_argument("--sample", type=int, default=150, help="read sentences, and pairs of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--diarization", action=argparse.BooleanOptionalAction, default=True, help="run it beside, for its cost")
    options = parser.parse_args()
    conversations, singles = reference_channels(options.shared / "testdata")
    read, pairs = read_sentences(options.shared / "speech", options.sample, random.Random(options.seed))
    groups = {"conversations": conversations, "pairs": pairs, "single, test data": singles, "single, read": read}
    for threshold in options.thresholds:
        part = SpeakerChangeConfig(threshold=threshold).build()
        part.setup()
        report(f"gate at {threshold}", part, groups, bool)
    if options.diarization:
        whole = DiarizationConfig().build()
        whole.setup()
        report("diarization itself", whole, groups, lambda spans: len({heard.speaker_label for heard in spans}) > 1)


def report(title: str, part: Segmenter, groups: dict[str, list[Heard]], says_two: Callable[[list[HeardSpan]], bool]) -> None:
    """Share of each group in which the part hears two voices, and its speed there."""
    print(
        f"\n{title}\n| channels | number | minutes | two voices | of the audio | audio-s per CPU-s |\n|---|---|---|---|---|---|"
    )
    for name, channels in groups.items():
        found, lengths, began = [], [len(channel.audio) / MODEL_RATE_HZ for channel in channels], time.process_time()
        for channel in channels:
            found.append(says_two(part.segment(ChannelAudio(b"", 0, channel.audio))))
        cpu_s = time.process_time() - began
        share = float(np.dot(found, lengths)) / sum(lengths)
        print(
            f"| {name} | {len(channels)} | {sum(lengths) / 60:.1f} | {np.mean(found):.1%} | {share:.1%} | {sum(lengths) / cpu_s:.0f} |"
        )
        if name == "conversations":
            print("missed:", ", ".join(c.name for c, two in zip(channels, found, strict=True) if not two) or "none")


def reference_channels(folder: Path) -> tuple[list[Heard], list[Heard]]:
    """Conversations (two labels or more in one channel's label file) and single voices of the test data."""
    sample, rate = soundfile.read(conversation_path(), dtype="float32")
    conversations, singles = [Heard("pyannote sample", resample(sample, rate, MODEL_RATE_HZ))], list[Heard]()
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "defect" in row or not row["n_speakers"] or "headerless" in row["kinds"]:
            continue
        try:
            audio, rate = soundfile.read(folder / row["path"], dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            print(f"left out, not a format of libsndfile: {row['id']}")
            continue
        channels = [
            Heard(f"{row['id']}.{c}", resample(np.ascontiguousarray(audio[:, c]), rate, MODEL_RATE_HZ))
            for c in range(audio.shape[1])
        ]
        one_a_channel = row["n_speakers"] == 1 or len(channels) == row["n_speakers"] == 2
        if one_a_channel:
            singles += channels
        elif not row["rttm"]:
            print(f"left out, no label file says who speaks when: {row['id']}")
        elif len({turn.label for turn in read_rttm(str(folder / row["rttm"]))}) > 1 and row["duration_s"] > MIN_CONVERSATION_S:
            conversations += channels
    return conversations, singles


def read_sentences(folder: Path, count: int, draw: random.Random) -> tuple[list[Heard], list[Heard]]:
    """A sample of read sentences, and as many pairs of two readers of one gender."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["path"].startswith("read/")]

    def load(row: dict[str, str]) -> Heard:
        audio, rate = soundfile.read(folder / row["path"], dtype="float32")
        return Heard(row["path"], resample(audio, rate, MODEL_RATE_HZ))

    read = [load(row) for row in draw.sample(rows, count)]
    pairs = []
    while len(pairs) < count:
        left, right = draw.sample(rows, 2)
        if left["gender"] == right["gender"] and left["speaker"] != right["speaker"]:
            a, b = load(left), load(right)
            pairs.append(Heard(f"{a.name} {b.name}", np.concatenate([a.audio, PAUSE, b.audio])))
    return read, pairs


if __name__ == "__main__":
    main()
