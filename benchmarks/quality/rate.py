"""Speaking rate against transcripts: syllables by the pronouncing dictionary of the pocketsphinx wheel, a vowel each; and rhythm."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from annotators.paralinguistics import ParalinguisticsConfig
from annotators.style import StyleConfig, level
from annotators.weights import packaged_path
from benchmarks.quality.figures import Figure, Section, share, statistic
from benchmarks.quality.limits import Fitted, Found, limits_table, quantile_borders
from benchmarks.quality.material import Item, Material
from benchmarks.quality.stored_features import layers_of

VOWELS = frozenset(["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"])
CLIPS_A_SPEAKER = 2
BORDERS = ("rhythm_even_npvi", "rhythm_varied_npvi")

PROSE = """`prosody.syllable_rate_hz` counts nuclei in the signal and knows no words; the reference counts the vowels of the transcript's words in CMU's
dictionary, over the seconds in which silero hears speech. Speaking time is not the same on both sides (the annotator leaves out pauses of 0.3 s by level), and
readers leave out and add syllables, so a part of the error is the reference's. The words slow, normal and fast are those of `style` on both rates.

**Rhythm** has no reference: nobody labels it. `even`, `moderate` and `varied` are the thirds of `speech/read` by `rhythm.npvi`, so that no
accuracy can be claimed; what can be measured is how far the borders depend on the speakers. They are fitted in five folds of speakers, and
the shares are those of clips by borders of the other folds' speakers: thirds, if the borders hold. `halting` is a definition: two pauses and
a quarter of the time."""


def measure(material: Material) -> Section:
    syllables = _dictionary()
    items = [item for item in _some_of_each(material.speech("read")) if all(word in syllables for word in _words(item))]
    layers = layers_of(items, ("prosody", "style"))
    true_hz, heard_hz, labels = [], [], []
    rows = zip(items, layers["clip"].to_pylist(), layers["prosody"].to_pylist(), layers["style"].to_pylist(), strict=True)
    for item, clip, prosody, style in rows:
        if clip["speech_samples"] and prosody["syllable_rate_hz"]:
            true_hz.append(sum(syllables[word] for word in _words(item)) * clip["sample_rate_hz"] / clip["speech_samples"])
            heard_hz.append(prosody["syllable_rate_hz"])
            labels.append(style["rate_level"])
    rates = np.column_stack([true_hz, heard_hz])
    rhythm = _rhythm(material.speech("read"))
    figures = [*_errors(rates), *_levels(rates, labels), _found(len(rates), len(items)), *rhythm.figures]
    return Section("Speaking rate and rhythm", PROSE, figures, limits_table(rhythm.rows))


def _rhythm(items: list[Item]) -> Found:
    """Thirds of the material by npvi, and where their borders lie."""
    rows = layers_of(items, ("rhythm",))["rhythm"].to_pylist()
    known = [(item.group, row["npvi"]) for item, row in zip(items, rows, strict=True) if row["npvi"] is not None]
    by_fold, on_all, third_N = quantile_borders(
        np.array([npvi for _, npvi in known]), (1 / 3, 2 / 3), [group for group, _ in known]
    )
    config = ParalinguisticsConfig()
    shipped = (config.rhythm_even_npvi, config.rhythm_varied_npvi)
    figures = [
        share(f"rhythm: {word}", third_N == third, "clips", "borders of the other folds' speakers; a third by definition")
        for third, word in enumerate(("even", "moderate", "varied"))
    ]
    paused = [row for row in rows if row["num_pauses"] is not None]
    halting = [row["num_pauses"] >= 2 and row["pause_ratio"] >= config.halting_pause_ratio for row in paused]
    figures.append(share("rhythm: halting", halting, "clips", "speech/read; by definition"))
    fitted = Fitted(
        third_N == 1, [dict(zip(BORDERS, borders, strict=True)) for borders in by_fold], dict(zip(BORDERS, on_all, strict=True))
    )
    return Found(figures, fitted.rows(dict(zip(BORDERS, shipped, strict=True))))


def _errors(rates: np.ndarray) -> list[Figure]:
    note = f"speech/read, {CLIPS_A_SPEAKER} sentences a speaker"
    return [
        statistic(
            "syllable rate, median of measured / reference",
            rates,
            lambda r: float(np.median(r[:, 1] / r[:, 0])),
            "clips",
            "",
            note,
        ),
        statistic(
            "error of the rate, median", rates, lambda r: float(np.median(np.abs(r[:, 1] / r[:, 0] - 1))), "clips", "%", note
        ),
        statistic("rank correlation with the reference", rates, _spearman, "clips", "", "Spearman"),
    ]


def _levels(rates: np.ndarray, labels: list[str]) -> list[Figure]:
    config = StyleConfig()
    truth = [level(hz, config.rate_slow_hz, config.rate_fast_hz, ("slow", "normal", "fast")) for hz in rates[:, 0]]
    pairs = list(zip(truth, labels, strict=True))
    return [
        share("style.rate_level as by the reference", [a == b for a, b in pairs], "clips"),
        share(
            "style.rate_level two words off",
            [{a, b} == {"slow", "fast"} for a, b in pairs],
            "clips",
            "slow for fast, or fast for slow",
        ),
    ]


def _found(num_measured: int, num_items: int) -> Figure:
    return share("sentences that get a rate", [True] * num_measured + [False] * (num_items - num_measured), "clips")


def _spearman(rates: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(rates[:, side])) for side in (0, 1)]
    return float(np.corrcoef(*ranks)[0, 1]) if len(rates) > 1 else math.nan


def _dictionary() -> Mapping[str, int]:
    """Word in lower case -> syllables of its first pronunciation."""
    with open(packaged_path("pocketsphinx", "model", "en-us", "cmudict-en-us.dict"), encoding="utf-8") as file:
        rows = [line.split() for line in file]
    return {word: sum(phone in VOWELS for phone in phones) for word, *phones in rows}


def _words(item: Item) -> list[str]:
    return str(item.facts["transcript"]).lower().split()


def _some_of_each(items: list[Item]) -> list[Item]:
    """The first CLIPS_A_SPEAKER sentences of each speaker."""
    taken: dict[str, int] = {}
    chosen = []
    for item in items:
        speaker = item.facts["speaker"]
        taken[speaker] = taken.get(speaker, 0) + 1
        if taken[speaker] <= CLIPS_A_SPEAKER:
            chosen.append(item)
    return chosen
