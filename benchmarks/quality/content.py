"""Near-duplicates by acoustic fingerprint: recall on transformed copies, false pairs among strangers, bit error rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from annotators.acoustic_fingerprint import HOP_S, LEAST_EVIDENCE, QUIET, Stretch, acoustic_fingerprint, best_match, num_audible
from benchmarks.quality.copies import COPIES
from benchmarks.quality.figures import Figure, Section, ratio, share
from benchmarks.quality.material import Item, Material
from manifests.contracts import MODEL_RATE_HZ, Audio

NUM_SPEAKERS = 100  # of the read set: one clip each, and the longest and shortest clips beside them
NUM_LONG, NUM_SHORT = 30, 30
LONGEST_S = 30.0
CLAIMED_S = 3.0
NUM_FOLDS = 5
NUM_JINGLES = 60
FEW_AUDIBLE = 30  # frames
# Copies of other clips of the test data, clips that are in the read set too, and files in which nobody speaks.
LEFT_OUT = {"formats", "telephone_8k", "noisy", "stereo", "broken", "noise_only", "accented"}
NOTHING_SHARED = (0.0, float("nan"), float("nan"))
GROUPS = ("same sentence, other speaker", "same sentence, same speaker, other take", "other text, same speaker", "strangers")

PROSE = """
`content` gives each clip an exact hash and Haitsma-Kalker sub-fingerprints; two clips are the same recording where the best
stretch that their fingerprints share has an *evidence* of at least {threshold}: (1 - 2 x bit error rate) x sqrt(frames compared).
Every source clip is transformed {num_copies} ways. Negatives are all pairs of the read set and all pairs of the acted set
(two sentences by twelve actors in eight emotions, each said twice and more); none of them is a copy of another.
Recall and false pairs are out of fold: the threshold of a fold lies midway between the best stranger and the first
percentile of the copies of at least 3 s, both of the other four folds; a pair with a clip of the fold teaches nothing, and
the acted set is scored alone, since its licence lets nothing be fitted on it. The
folds chose {fitted}; everything together chooses {all_together:.1f}, and {threshold} is shipped.
"""


class Clip(NamedTuple):
    """A clip with its fingerprint."""

    name: str
    duration_s: float
    values: np.ndarray  # uint32 [F]


class Copied(NamedTuple):
    """What the comparison of a source clip and one copy of it gave."""

    source: int
    copy: str
    duration_s: float  # of the shorter one
    evidence: float  # 0 where nothing is shared
    bit_error_rate: float  # of the best stretch; nan where nothing is shared
    unchanged: float  # share of its compared frames whose 32 bits are all the same; nan likewise
    shares_value: bool  # the same 32 bits somewhere in both


class Strangers(NamedTuple):
    """Comparisons of clips that are not copies: indices of the clips, group, evidence; arrays ``[P]``."""

    left: np.ndarray
    right: np.ndarray
    group: np.ndarray
    evidence: np.ndarray
    num_sharing: int  # pairs with the same 32 bits somewhere


def measure(material: Material) -> Section:
    sources = source_items(material)
    audio = [item.audio()[: int(LONGEST_S * MODEL_RATE_HZ)] for item in sources]
    copies = compare_copies(audio)
    read = [*material.speech("read")]
    acted = [*material.speech("emotion")]
    strangers = [compare_strangers(read), compare_strangers(acted)]
    claimed = np.array([copied.duration_s >= CLAIMED_S for copied in copies])
    evidence = np.array([copied.evidence for copied in copies])
    folds = np.array([copied.source % NUM_FOLDS for copied in copies])
    thresholds = [fitted_threshold(evidence[claimed & (folds != fold)], strangers[0], fold) for fold in range(NUM_FOLDS)]
    found = evidence >= np.array(thresholds)[folds]
    figures = [
        *recall_figures(copies, found, len(sources)),
        *stranger_figures(strangers, thresholds, int(found[claimed].sum())),
        *jingle_figures([item.audio() for item in read]),
    ]
    few = sum(num_audible(acoustic_fingerprint(audio_S, MODEL_RATE_HZ)) < FEW_AUDIBLE for audio_S in audio)
    prose = PROSE.format(
        threshold=LEAST_EVIDENCE,
        num_copies=len(COPIES),
        all_together=fitted_threshold(evidence[claimed], strangers[0], None),
        fitted=f"{min(thresholds):.1f} to {max(thresholds):.1f}",
    )
    details = f"{error_table(copies)}\n\n{few} of {len(sources)} source clips have fewer than {FEW_AUDIBLE} audible frames; they are counted."
    return Section("Identity of content: near-duplicates", prose, figures, details)


def source_items(material: Material) -> list[Item]:
    """Read clips of many speakers and lengths, and the test data's clips of 1 to 30 s that are not copies of one another."""
    read = sorted(material.speech("read"), key=duration_s)
    firsts = {item.facts["speaker"]: item for item in material.speech("read")}
    chosen = {item.path: item for item in (*list(firsts.values())[:NUM_SPEAKERS], *read[-NUM_LONG:], *read[:NUM_SHORT])}
    varied = material.testdata(
        lambda facts: 1.0 <= (facts.get("duration_s") or 0.0) <= LONGEST_S and not LEFT_OUT & {*facts["kinds"]}
    )
    return [*chosen.values(), *(item for item in varied if item.may_be_fitted_on)]


def duration_s(item: Item) -> float:
    return float(item.facts["num_samples"] / item.facts["sample_rate"])


def compare_copies(audio: Sequence[Audio]) -> list[Copied]:
    """Every source clip against every copy of it."""
    random = np.random.default_rng(0)
    found = []
    for source, audio_S in enumerate(audio):
        original = acoustic_fingerprint(audio_S, MODEL_RATE_HZ)
        for name, copy in COPIES.items():
            copy_S, rate = copy(audio_S, random)
            values = acoustic_fingerprint(copy_S, rate)
            match = best_match(original, values)
            shortest_s = min(len(audio_S) / MODEL_RATE_HZ, len(copy_S) / rate)
            facts = (match.evidence, match.bit_error_rate, unchanged(original, values, match)) if match else NOTHING_SHARED
            found.append(Copied(source, name, shortest_s, *facts, shares_value(original, values)))
    return found


def unchanged(left: np.ndarray, right: np.ndarray, match: Stretch) -> float:
    """Share of the compared frames of a stretch that are equal."""
    left = left[match.left_frame : match.left_frame + match.num_frames]
    right = right[match.right_frame : match.right_frame + match.num_frames]
    return float(np.mean((left == right)[(left != QUIET) & (right != QUIET)]))


def compare_strangers(items: Sequence[Item]) -> Strangers:
    """All pairs of clips of a set in which no clip is a copy of another."""
    values = [acoustic_fingerprint(item.audio(), MODEL_RATE_HZ) for item in items]
    left, right = np.triu_indices(len(items), 1)
    evidence = np.zeros(len(left))
    num_sharing = 0
    for pair, (i, j) in enumerate(zip(left, right, strict=True)):
        match = best_match(values[i], values[j])
        evidence[pair] = match.evidence if match else 0.0
        num_sharing += shares_value(values[i], values[j])
    speakers = np.unique([item.facts["speaker"] for item in items], return_inverse=True)[1]
    texts = np.unique([item.facts["transcript"] for item in items], return_inverse=True)[1]
    same_speaker, same_text = speakers[left] == speakers[right], texts[left] == texts[right]
    group = np.where(same_text, np.where(same_speaker, 1, 0), np.where(same_speaker, 2, 3))
    return Strangers(left, right, group, evidence, num_sharing)


def shares_value(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.isin(left[left != QUIET], right).any())


def fitted_threshold(copies_evidence: np.ndarray, strangers: Strangers, fold: int | None) -> float:
    """Midway between the best stranger and the first percentile of the copies, to a tenth; pairs with a clip of the fold are left out."""
    is_kept = (strangers.left % NUM_FOLDS != fold) & (strangers.right % NUM_FOLDS != fold)
    return round(float((strangers.evidence[is_kept].max() + np.percentile(copies_evidence, 1.0)) / 2.0), 1)


def recall_figures(copies: Sequence[Copied], found: np.ndarray, num_sources: int) -> list[Figure]:
    """Recall by length, a source clip being the item, and by copy."""
    source = np.array([copied.source for copied in copies])
    length_s = np.array([copied.duration_s for copied in copies])
    name = np.array([copied.copy for copied in copies])
    figures = []
    for label, low, high in (
        ("at least 3 s", 3.0, np.inf),
        ("under 3 s", 0.0, 3.0),
        ("3 to 10 s", 3.0, 10.0),
        ("over 10 s", 10.0, np.inf),
    ):
        chosen = (length_s >= low) & (length_s < high)
        hits = np.bincount(source[chosen], found[chosen], num_sources)
        wholes = np.bincount(source[chosen], minlength=num_sources)
        seen = wholes > 0
        note = f"{int(wholes.sum())} copies; bootstrap over source clips"
        figures.append(ratio(f"recall, {label}", hits[seen], wholes[seen], "clips", note))
    figures += [
        share(f"recall, at least 3 s: {copy}", found[(length_s >= CLAIMED_S) & (name == copy)], "clips") for copy in COPIES
    ]
    shared = np.array([copied.shares_value for copied in copies])
    note = "what a join on equal values can find at all"
    figures.append(
        share("copies of at least 3 s that share 32 equal bits with their source", shared[length_s >= CLAIMED_S], "copies", note)
    )
    return figures


def stranger_figures(strangers: Sequence[Strangers], thresholds: Sequence[float], num_true: int) -> list[Figure]:
    """False pairs by group, and the precision of the pairs that are called the same."""
    false = [found.evidence >= np.array(thresholds)[found.left % NUM_FOLDS] for found in strangers]
    figures = []
    for group, label in enumerate(GROUPS):
        hits = np.concatenate([part[found.group == group] for part, found in zip(false, strangers, strict=True)])
        best = max((found.evidence[found.group == group].max(initial=0.0) for found in strangers), default=0.0)
        figures.append(share(f"false pairs: {label}", hits, "pairs", f"best evidence {best:.2f}"))
    num_false = int(sum(part.sum() for part in false))
    called = np.arange(num_true + num_false) < num_true
    note = f"copies of at least 3 s among {sum(map(len, false))} pairs of strangers"
    sharing = np.arange(sum(map(len, false))) < sum(found.num_sharing for found in strangers)
    return [
        share("pair precision", called, "pairs called the same", note),
        *figures,
        share("strangers that share 32 equal bits", sharing, "pairs", "the candidates that a join has to check"),
    ]


def jingle_figures(read: Sequence[Audio]) -> list[Figure]:
    """A jingle of 3 to 6 s in two recordings of about half a minute: is it found, and at the right offset?"""
    random = np.random.default_rng(1)
    jingles = [i for i, audio_S in enumerate(read) if CLAIMED_S <= len(audio_S) / MODEL_RATE_HZ <= 6.0]
    found, off_s = [], []
    for jingle in random.choice(jingles, NUM_JINGLES, replace=False):
        others = random.choice(np.delete(np.arange(len(read)), jingle), 16, replace=False)
        starts_s, values = [], []
        for copy, around in (("MP3 64 kb/s", others[:8]), ("Opus 24 kb/s", others[8:])):
            before = np.concatenate([read[i] for i in around[:4]])
            host_S, rate = COPIES[copy](np.concatenate([before, read[jingle], *(read[i] for i in around[4:])]), random)
            starts_s.append(len(before) / MODEL_RATE_HZ)
            values.append(acoustic_fingerprint(host_S, rate))
        match = best_match(*values)
        found.append(match is not None and match.evidence >= LEAST_EVIDENCE)
        if match and found[-1]:
            off_s.append(abs((match.right_frame - match.left_frame) * HOP_S - (starts_s[1] - starts_s[0])))
    note = f"one MP3 64 kb/s, one Opus 24 kb/s; threshold as shipped; offset wrong by {max(off_s, default=0.0):.3f} s at most"
    return [share("a jingle of 3 to 6 s inside two other recordings is found", found, "pairs of recordings", note)]


def error_table(copies: Sequence[Copied]) -> str:
    """Bit error rates by copy, of the best stretch, for clips of at least 3 s; Markdown."""
    lines = [
        "Bit error rate of the best stretch, and share of its frames whose 32 bits are all unchanged; clips of at least 3 s:\n",
        "| copy | clips | mean | p5 | p50 | p95 | p99 | largest | frames unchanged |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for copy in COPIES:
        chosen = [found for found in copies if found.copy == copy and found.duration_s >= CLAIMED_S]
        errors = np.array([found.bit_error_rate for found in chosen])
        values = (np.nanmean(errors), *np.nanpercentile(errors, [5, 50, 95, 99]), np.nanmax(errors))
        same = float(np.nanmean([found.unchanged for found in chosen]))
        lines.append(f"| {copy} | {len(chosen)} | {' | '.join(f'{value:.3f}' for value in values)} | {100 * same:.0f} % |")
    return "\n".join(lines)
