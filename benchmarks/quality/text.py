"""Topic text: language of a text, normal and spoken form, known hallucinations, and the consensus of recognisers."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr

from annotators.asr_schema import ASR_ADDS
from annotators.consensus import ConsensusConfig
from annotators.hallucinations import find_hallucination
from annotators.pocketsphinx_asr import Pocketsphinx, PocketsphinxConfig
from annotators.silero import SileroConfig
from annotators.spoken_form import spoken_form
from annotators.text_facts import TextConfig
from annotators.text_language import LanguageModel, letter_bytes
from annotators.text_normal import normalised
from benchmarks.quality.figures import FEWEST_ITEMS, Figure, Section, ratio, share, statistic
from benchmarks.quality.limits import Found, cross_validated, limits_table
from benchmarks.quality.material import Item, Material
from manifests.contracts import MODEL_RATE_HZ, ChannelAudio, ClipBatch
from manifests.schema import CLIPS, layer_schema
from manifests.scoring import WordScore, score_words, scored_tokens
from manifests.spans import total

NUM_READ_CLIPS = 80  # of speech/read; each is heard three times
NUM_CORRUPTED = 400
ERROR_RATE = 0.15
PRECEDENT = 0.05  # StepAudio 2.5 drops above this disagreement
LENGTHS = ((0, 12), (12, 20), (20, 40), (40, 10**6))  # bytes of letters

# Decoders that differ in more than a beam: another weight of the language model, a second pass over the lattice.
SETTINGS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "second pass, language weight 9.5": {"fwdflat": True, "lw": 9.5},
    "language weight 4": {"lw": 4.0},
}

PROSE = """
Language of text: py3langid among the languages that Whisper writes, no guess for a text with too few bytes of letters or a posterior
that is too low. Both limits are fitted in five folds of transcripts, and a transcript is given a language by limits that were fitted
without it: at most 0.5 % of the guesses that are made may be wrong; of the limits that keep to that, those that give most transcripts
their language; of those that tie, the middle. Nearly all transcripts are English. The list of languages is one of two that were tried by
hand on these transcripts, and no fold chose it.
Language of audio: no model in the installed packages hears it; nothing is claimed. An ASR layer's `language` is what its recogniser says.

Consensus: pocketsphinx is the only recogniser whose weights are in the wheels, so the three systems are three settings of one
decoder over one acoustic model, and their errors are far from independent. They are three of six that were tried on 20 clips of
speech/read, taken because they differ (two others wrote the same text as the shipped one), not by error rate. What the vote itself gains shows only in the figures
marked constructed, where words of true transcripts are replaced, left out or doubled independently in each of three copies.
Error rates are of words as `manifests.scoring` counts them, pooled over clips.
"""


class Heard(NamedTuple):
    """What one system, or the consensus, says of a clip."""

    row: dict[str, Any]
    score: WordScore


def measure(material: Material) -> Section:
    transcripts = _transcripts(material)
    language = _language(transcripts)
    figures = [*language.figures, *_normal_form(transcripts), *_spoken_form(), *_hallucinations(transcripts)]
    read = {"English read clips of testdata": _read_testdata(material), "speech/read": _read(material)}
    for what, items in read.items():
        clips = _recognised(items)
        figures += _uncovered(what, items, [clip[0].row for clip in clips]) + _consensus(what, clips, list(SETTINGS))
    copies = [f"copy {i}" for i in (1, 2, 3)]
    figures += _consensus("corrupted transcripts (constructed)", _corrupted(transcripts), copies)
    return Section("Text and consensus", PROSE, figures, f"{limits_table(language.rows)}\n\n{_language_table(transcripts)}")


def _transcripts(material: Material) -> list[tuple[str, str]]:
    """(language, transcript), each text once; none whose licence lets no limit be fitted on it."""
    items = [item for item in (*material.testdata(), *material.speech("read")) if item.may_be_fitted_on]
    return sorted(
        {(i.facts["language"], i.facts["transcript"]) for i in items if i.facts.get("transcript") and i.facts["language"]}
    )


def _language(transcripts: Sequence[tuple[str, str]]) -> Found:
    """Guesses by limits that are fitted on the other folds' transcripts."""
    config, model = TextConfig(), LanguageModel()
    guesses = [model.guess(text) for _, text in transcripts]
    truth_N = np.array([language for language, _ in transcripts])
    is_right_N = np.array([guess.language for guess in guesses]) == truth_N
    grid = {"min_letter_bytes": range(0, 31, 2), "min_language_prob": np.round(np.arange(0.0, 1.0, 0.05), 2)}
    is_long = np.array([letter_bytes(text) for _, text in transcripts]) >= np.array(grid["min_letter_bytes"])[:, None, None]
    is_sure = np.array([guess.prob for guess in guesses]) >= grid["min_language_prob"][:, None]
    calls = is_long & is_sure
    fitted = cross_validated(lambda _: calls, grid, is_right_N, [text for _, text in transcripts], among="called")
    shipped = {"min_letter_bytes": config.min_letter_bytes, "min_language_prob": config.min_language_prob}
    is_made_N, note = fitted.called, fitted.note(shipped)
    counts = Counter(truth_N[is_made_N].tolist())
    few = ", ".join(f"{language} {count}" for language, count in counts.most_common() if count < FEWEST_ITEMS)
    what = f"different transcripts of testdata and speech/read, {counts['en']} of them English; too few for a claim of their own: {few}"
    is_foreign_N = is_made_N & (truth_N != "en")
    return Found(
        [
            share("text language: right, of those given one", is_right_N[is_made_N], "transcripts", f"{note}; {what}"),
            share("text language: given one", is_made_N, "transcripts", note),
            share(
                "text language: right, of those not English", is_right_N[is_foreign_N], "transcripts", "all languages together"
            ),
        ],
        fitted.rows(shipped),
    )


def _language_table(transcripts: Sequence[tuple[str, str]]) -> str:
    """Best guesses by length, without either limit."""
    model, rows = LanguageModel(), defaultdict(list)
    for language, text in transcripts:
        guess = model.guess(text)
        low, high = next((low, high) for low, high in LENGTHS if low <= letter_bytes(text) < high)
        rows[low, high].append((guess.language == language, guess.prob))
    lines = ["Best guess of the text's language by length, whatever its posterior:", ""]
    lines += ["| bytes of letters | transcripts | right | posterior of the right ones, median |", "|---|---|---|---|"]
    for low, high in LENGTHS:
        found = rows[low, high]
        right = [prob for is_right, prob in found if is_right]
        name = f"{low} to {high - 1}" if high < 10**6 else f"{low} and more"
        lines.append(f"| {name} | {len(found)} | {len(right)} | {np.median(right) if right else float('nan'):.2f} |")
    return "\n".join(lines)


def _normal_form(transcripts: Sequence[tuple[str, str]]) -> list[Figure]:
    english = [text for language, text in transcripts if language == "en"]
    plain = [" ".join(scored_tokens(text, "en")) == normalised(text, "en") for text in english]
    note = "the rest: numbers to digits, contractions written out, British spelling, fillers, and every 's read as is"
    return [share("normal form: English transcript unchanged but for case and marks", plain, "transcripts", note)]


def _spoken_form() -> list[Figure]:
    """Numbers written in digits and read aloud must have one normal form."""
    draw = random.Random(0)
    patterns: dict[str, list[Callable[[], str]]] = {
        "en": [
            lambda: f"it was {draw.randrange(10 ** draw.randrange(1, 7))} of them",
            lambda: f"about {draw.randrange(100)}% more",
            lambda: f"it cost ${draw.randrange(1, 1000)}",
            lambda: f"in {draw.randrange(1100, 2100)}",
            lambda: f"the {draw.randrange(4, 20)}th",
        ],
        "zh": [
            lambda: f"一共{draw.randrange(10 ** draw.randrange(1, 8))}人",
            lambda: f"增长了{draw.randrange(1, 100)}.{draw.randrange(1, 10)}%",
            lambda: f"{draw.randrange(1100, 2100)}年{draw.randrange(1, 13)}月{draw.randrange(1, 29)}日",
            lambda: f"{draw.randrange(2, 12)}个苹果",
        ],
    }
    figures = []
    for language, makers in patterns.items():
        texts = [maker() for maker in makers for _ in range(100)]
        same = [normalised(spoken_form(text, language) or "", language) == normalised(text, language) for text in texts]
        note = "constructed: numbers, percentages, money, years, dates, counts"
        figures.append(share(f"spoken form has the normal form of what is written ({language})", same, "texts", note))
    return figures


def _hallucinations(transcripts: Sequence[tuple[str, str]]) -> list[Figure]:
    config = TextConfig()
    flagged = [find_hallucination(text, 10.0, config.hallucination_share, config.little_speech_s) for _, text in transcripts]
    note = f"true transcripts, all of them speech: {', '.join(sorted({m.phrase.phrase for m in flagged if m})) or 'none'} found"
    return [share("hallucination list: false alarms", [match is not None for match in flagged], "transcripts", note)]


def _uncovered(what: str, items: Sequence[Item], rows: Sequence[dict[str, Any]]) -> list[Figure]:
    """Speech that VAD heard and no word covers, of all words with a time and of the first half of them."""
    vad = SileroConfig().build()
    spans = [[s.span for s in vad.segment(ChannelAudio(b"\0" * 16, 0, item.audio()))] for item in items]
    clips = pa.table(
        {
            "clip_id": pa.array([b"\0" * 16] * len(items), pa.binary(16)),
            "sample_rate_hz": pa.array([MODEL_RATE_HZ] * len(items), pa.int32()),
            "speech_spans": pa.array([[span._asdict() for span in flat] for flat in spans], CLIPS.field("speech_spans").type),
        }
    )
    figures = []
    for kept, share_kept in (("every word", 1.0), ("the second half of the words left out", 0.5)):
        cut = [row | {"words": (row["words"] or [])[: round(share_kept * len(row["words"] or []))]} for row in rows]
        layers = {"asr": pa.Table.from_pylist(cut, layer_schema(ASR_ADDS)), "clip": clips}
        facts = TextConfig().build().annotate(ClipBatch(clips, layers=layers)).to_pylist()
        known = [(fact["uncovered_speech_s"], total(flat)) for fact, flat in zip(facts, spans, strict=True)]
        seconds = [uncovered or 0.0 for uncovered, _ in known]
        speech = [num_samples / MODEL_RATE_HZ for _, num_samples in known]
        figures.append(ratio(f"uncovered speech, {what}: {kept}", seconds, speech, "clips", "times of pocketsphinx, VAD silero"))
    return figures


def _read_testdata(material: Material) -> list[Item]:
    return material.testdata(lambda facts: "en_read" in facts["kinds"] and bool(facts.get("transcript")))


def _read(material: Material) -> list[Item]:
    return random.Random(0).sample(material.speech("read"), NUM_READ_CLIPS)


def _recognised(items: Sequence[Item]) -> list[list[Heard]]:
    """Of each clip what the three systems and the consensus say."""
    recognisers = [_Variant(options) for options in SETTINGS.values()]
    heard = []
    for item in items:
        batch = ClipBatch(pa.table({"clip_id": pa.array([b"\0" * 16], pa.binary(16))}), [item.audio()], [MODEL_RATE_HZ])
        rows = [recogniser.annotate(batch).to_pylist()[0] for recogniser in recognisers]
        heard.append(_with_consensus(rows, item.facts["transcript"]))
    return heard


class _Variant(Pocketsphinx):
    """pocketsphinx with other settings than a recipe offers."""

    def __init__(self, changed: dict[str, Any]) -> None:
        super().__init__(PocketsphinxConfig())
        self._changed = changed

    @property
    def options(self) -> dict[str, Any]:
        return super().options | self._changed


def _corrupted(transcripts: Sequence[tuple[str, str]]) -> list[list[Heard]]:
    """Three copies of English transcripts, a share ERROR_RATE of each one's words wrong, independently of the others."""
    draw = random.Random(1)
    sentences = [scored_tokens(text, "en") for language, text in transcripts if language == "en"]
    vocabulary = sorted({word for sentence in sentences for word in sentence})
    chosen = draw.sample([sentence for sentence in sentences if len(sentence) >= 4], NUM_CORRUPTED)

    def corrupt(sentence: list[str]) -> dict[str, Any]:
        words: list[str] = []
        for word in sentence:
            kind = draw.choice(("substitution", "deletion", "insertion")) if draw.random() < ERROR_RATE else None
            words += {None: [word], "substitution": [draw.choice(vocabulary)], "deletion": []}.get(
                kind, [word, draw.choice(vocabulary)]
            )
        return {"text": " ".join(words), "language": "en", "words": None, "confidence": None}

    return [_with_consensus([corrupt(sentence) for _ in range(3)], " ".join(sentence)) for sentence in chosen]


def _with_consensus(rows: Sequence[dict[str, Any]], transcript: str) -> list[Heard]:
    names = tuple("abc"[: len(rows)])
    clip = {"clip_id": b"\0" * 16, "status": "ok"}
    layers = {
        name: pa.Table.from_pylist(
            [clip | {key: row[key] for key in ("text", "language", "words", "confidence")}], layer_schema(ASR_ADDS)
        )
        for name, row in zip(names, rows, strict=True)
    }
    batch = ClipBatch(pa.table({"clip_id": pa.array([clip["clip_id"]], pa.binary(16))}), layers=layers)
    voted = ConsensusConfig(layers=names).build().annotate(batch).to_pylist()[0]
    return [Heard(row, score_words("", transcript, row["text"] or "", "en")) for row in (*rows, voted)]


def _consensus(what: str, clips: Sequence[Sequence[Heard]], systems: Sequence[str]) -> list[Figure]:
    """Error rates before and after the vote, and how well the disagreement tells right text from wrong."""
    errors = np.array([[heard.score.num_errors for heard in clip] for clip in clips], float)  # [num_clips, systems + consensus]
    words = np.array([clip[0].score.num_reference for clip in clips], float)
    far = np.array([clip[-1].row["disagreement"] for clip in clips])
    figures = [ratio(f"WER, {what}: {name}", errors[:, i], words, "clips") for i, name in enumerate([*systems, "consensus"])]
    best = int(errors[:, :-1].sum(axis=0).argmin())
    gain = np.column_stack([errors[:, best] - errors[:, -1], words])
    figures.append(
        statistic(
            f"WER that the vote takes off the best single system, {what}",
            gain,
            lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()),
            "clips",
            note=f"best in hindsight: {systems[best]}; negative: the vote is worse",
        )
    )
    ranked = np.column_stack([far, errors[:, -1] / words, errors[:, -1], words])
    figures.append(
        statistic(
            f"Spearman of disagreement and the consensus' error rate, {what}",
            ranked,
            lambda rows: float(spearmanr(rows[:, 0], rows[:, 1]).statistic),
            "clips",
            unit="",
        )
    )
    middle = float(np.median(far))
    for side, chosen in (("up to", far <= middle), ("above", far > middle)):
        name = f"WER of the consensus, disagreement {side} the median ({middle:.2f}), {what}"
        figures.append(ratio(name, errors[chosen, -1], words[chosen], "clips"))
    agreeing = np.array([clip[-1].row["num_agreeing"] for clip in clips])
    kept = (far <= PRECEDENT) & (agreeing >= 2)
    figures.append(share(f"kept by the precedent, {what}", kept, "clips", f"disagreement up to {PRECEDENT}, two systems agree"))
    figures.append(ratio(f"WER of the consensus where kept, {what}", errors[kept, -1], words[kept], "clips"))
    return figures
