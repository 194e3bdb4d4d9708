"""Single digits of a speaker that nothing learnt from: the model's ASR, trained on the other three, beside a plain classifier of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.quality.figures import Figure, share, statistic
from benchmarks.speech.chain import TRAIN, Chain, Listener, read_manifest
from benchmarks.speech.classifier import classify

HELD_OUT = "held_out"
CHOSEN_ON = ("fsdd-george", "fsdd-lucas")  # left out while the recipe's settings were chosen
Rights = list[tuple[bool, bool]]  # of each clip of a speaker: does the model get it right, does the classifier


def measure_speaker(speaker: str, speech: Path, out: Path) -> Rights:
    """Both learn from the digits of all other speakers, from the same packed audio, and are told no more of this one than its clips.

    The model's recipe changes that audio (``curricula/digits.yaml``, ``augment``); the classifier hears it as it is.
    """
    digits = read_manifest(speech, "digits")
    chain = Chain(out / speaker, "digits")
    splits = {
        TRAIN: [one for one in digits if one.speaker != speaker],
        HELD_OUT: [one for one in digits if one.speaker == speaker],
    }
    chain.prepare(**splits)
    chain.train()
    listener = Listener(chain)
    (learnt, words), (told, texts) = (
        zip(*((document.turns[0].audio, entry.text) for entry, document in listener.documents(split)), strict=True)
        for split in splits
    )
    heard, classified = listener.transcribe(HELD_OUT), classify(learnt, words, told)
    return [(one == text, other == text) for one, other, text in zip(heard, classified, texts, strict=True)]


def figures(rights: Mapping[str, Rights]) -> list[Figure]:
    """Shares of digits right by speaker, and how much more the model gets right than the classifier; then means over speakers.

    Means have no interval: four speakers are too few to draw from.
    """
    found = []
    for speaker, own in rights.items():
        both = np.array(own, float)
        found += [share(f"{speaker}: {name}", both[:, place] > 0, "clips") for place, name in enumerate(("model", "classifier"))]
        found.append(
            statistic(f"{speaker}: model − classifier", both[:, 0] - both[:, 1], lambda rows: float(rows.mean()), "clips")
        )
    means = np.array([np.mean(own, axis=0) for own in rights.values()])
    for name, values in (("model", means[:, 0]), ("classifier", means[:, 1]), ("model − classifier", means[:, 0] - means[:, 1])):
        found.append(Figure(f"mean: {name}", float(values.mean()), None, None, len(values), "speakers"))
    return found
