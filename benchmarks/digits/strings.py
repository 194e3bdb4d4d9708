"""Spoken strings of digits: one to five takes of one speaker of ``speech/digits``, with short silences between them.

    .venv/bin/python -m benchmarks.digits.strings --speech ../shared/speech --out ./digits

Writes a folder and a manifest a split (``test.jsonl``, ``tuning.jsonl``, ``train.jsonl``). No take is in two splits: test
strings are made of takes 0 to 4, the set's own test split, tuning strings of takes 45 to 49, training strings of all others. An
order of two and more digits is in one split alone as well; of single digits there are ten, which all splits share.

A recording's name says what it is made of, ``george_7-05_0-31.flac``, and no table that names it can lose that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE_HZ = 8000  # of the set
LICENCE = "CC-BY-SA-4.0"
LONGEST = 5  # digits of a string
GAP_S = (0.05, 0.3)  # before, between and behind takes
NUM_PAIRS = 10**2
HELD_OUT_PAIRS = 0.2  # of the orders of two digits, what each split but training has for itself


class Part(StrEnum):
    """A split of the strings, and of the takes that they are made of."""

    TEST = "test"
    TUNING = "tuning"
    TRAIN = "train"

    @property
    def takes(self) -> range:
        """Numbers of the takes, the same of every digit and speaker."""
        return {Part.TEST: range(5), Part.TUNING: range(45, 50), Part.TRAIN: range(5, 45)}[self]


NUM_STRINGS: Mapping[Part, int] = {Part.TEST: 400, Part.TUNING: 200, Part.TRAIN: 7000}


@dataclass(frozen=True, order=True)
class Take:
    """One recording of one digit."""

    digit: int
    number: int


@dataclass(frozen=True)
class DigitString:
    """What is said by whom, and of which takes it is made."""

    speaker: str
    takes: tuple[Take, ...]

    @property
    def order(self) -> tuple[int, ...]:
        return tuple(take.digit for take in self.takes)

    @property
    def text(self) -> str:
        return " ".join(WORDS[digit] for digit in self.order)

    @property
    def file_name(self) -> str:
        return "_".join([self.speaker, *(f"{take.digit}-{take.number:02d}" for take in self.takes)]) + ".flac"

    @staticmethod
    def of_uri(uri: str) -> DigitString:
        """The string that a recording with that name is. Raises ValueError for a name of another form."""
        speaker, *takes = PurePosixPath(uri).stem.split("_")
        if not takes:
            raise ValueError(f"recording {uri!r} does not name its takes; names are like george_7-05_0-31.flac")
        return DigitString(speaker, tuple(Take(int(digit), int(number)) for digit, number in (take.split("-") for take in takes)))


def draw_strings(
    speakers: Sequence[str], num_strings: Mapping[Part, int] = NUM_STRINGS, seed: int = 0
) -> dict[Part, list[DigitString]]:
    """Strings of each split, all different, as many of each length and speaker as of another.

    Orders go to test and tuning first; training draws others. A function of the arguments alone. Raises ValueError where there
    are too few takes for so many single digits.
    """
    random = np.random.default_rng(seed)
    pairs = [(int(pair) // 10, int(pair) % 10) for pair in random.permutation(NUM_PAIRS)]
    own = round(HELD_OUT_PAIRS * NUM_PAIRS)
    pairs_of = {Part.TEST: pairs[:own], Part.TUNING: pairs[own : 2 * own], Part.TRAIN: pairs[2 * own :]}
    taken: set[tuple[int, ...]] = set()  # orders of the splits before
    strings: dict[Part, list[DigitString]] = {}
    for part in Part:
        drawn: dict[DigitString, None] = {}
        singles, there = num_strings[part] // LONGEST, len(WORDS) * len(part.takes) * len(speakers)
        if singles > 0.9 * there:  # drawing what is left would take for ever
            raise ValueError(f"split {part.value!r}: {singles} strings of one digit out of {there} takes; ask for fewer")
        while len(drawn) < num_strings[part]:
            number = len(drawn)
            length, speaker = 1 + number // len(speakers) % LONGEST, speakers[number % len(speakers)]
            order = (
                pairs_of[part][random.integers(len(pairs_of[part]))]
                if length == 2
                else tuple(random.integers(10, size=length).tolist())
            )
            if length > 2 and order in taken:
                continue
            numbers = part.takes.start + random.integers(len(part.takes), size=length)
            drawn[DigitString(speaker, tuple(map(Take, order, numbers.tolist())))] = None
        strings[part] = list(drawn)
        taken |= {string.order for string in strings[part]}
    return strings


def write_strings(out: Path, speech: Path, num_strings: Mapping[Part, int] = NUM_STRINGS, seed: int = 0) -> dict[Part, Path]:
    """The recordings (FLAC, 8 kHz) and a manifest a split; returns the manifests. What is there is written again, the same."""
    takes = read_takes(speech)
    strings = draw_strings(sorted({speaker for speaker, _ in takes}), num_strings, seed)
    manifests = {}
    for part, own in strings.items():
        (out / part).mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([seed, list(Part).index(part)])
        for string in own:
            audio = spoken([takes[string.speaker, take] for take in string.takes], random)
            soundfile.write(out / part / string.file_name, audio, RATE_HZ, subtype="PCM_16")
        manifests[part] = out / f"{part}.jsonl"
        manifests[part].write_text("".join(json.dumps(row) + "\n" for row in rows(part, own)), encoding="utf-8")
    return manifests


def read_takes(speech: Path) -> dict[tuple[str, Take], np.ndarray]:
    """int16 ``[S]`` at RATE_HZ by speaker and take."""
    takes = {}
    for path in sorted((speech / "digits").glob("*/*.flac")):
        digit, speaker, number = path.stem.split("_")
        takes[speaker, Take(int(digit), int(number))] = soundfile.read(path, dtype="int16")[0]
    return takes


def spoken(takes: Iterable[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """int16 ``[S]``: the takes, with a silence of its own length before, between and behind them."""
    parts = [_silence(random)]
    for take in takes:
        parts += [take, _silence(random)]
    return np.concatenate(parts)


def rows(part: Part, strings: Iterable[DigitString]) -> list[dict[str, str]]:
    """The manifest of a split, as ``corpus build`` reads it."""
    return [
        {
            "uri": f"{part}/{string.file_name}",
            "text": string.text,
            "speaker_label": string.speaker,
            "language": "en",
            "source": f"digits-{part}",
            "licence": LICENCE,
        }
        for string in strings
    ]


def _silence(random: np.random.Generator) -> np.ndarray:
    return np.zeros(round(random.uniform(*GAP_S) * RATE_HZ), np.int16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path(__file__).parents[3] / "shared" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for part, manifest in write_strings(options.out, options.speech, seed=options.seed).items():
        print(f"{part}: {NUM_STRINGS[part]} strings, {manifest}")


if __name__ == "__main__":
    main()
