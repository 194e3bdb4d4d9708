"""Topic asr: word error rates of the recognisers that run here, and how far their word times err."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rapidfuzz.distance import Levenshtein

from annotators.espeak_voice import EspeakConfig
from annotators.pocketsphinx_asr import Pocketsphinx, PocketsphinxConfig
from annotators.text_normal import normalised
from benchmarks.quality.figures import FEWEST_ITEMS, Figure, Section, ratio, statistic
from benchmarks.quality.material import Item, Material
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch
from manifests.scoring import WordScore, score_words

LANGUAGE = "en"
TELEPHONE_HZ = 8000
NOISE_SNR_DB = 10.0
NUM_DEGRADED = 60  # clips of speech/read that are heard again through a telephone and in noise
NUM_SPOKEN = 60  # sentences that eSpeak says
ADULT_AGE = 18
SPEAKERS = ("m1", "m2", "m3", "m5", "m7", "m8", "f1", "f2", "f3", "f4", "f5")

PROSE = """
Word error rates after Whisper's English normaliser (`annotators.text_normal`) on both sides, pooled over clips. One clip a
speaker of speech/read: English read by Mandarin speakers, children and adults. Telephone and noise are made from the first of
them. pocketsphinx is the only recogniser whose weights are in a wheel: it writes English, proves the chain and labels nothing.
No bundled recogniser writes Chinese or any other language: no character error rate is claimed.

Word times: no file here has times of single words of real speech, so they are measured on sentences that eSpeak NG says, which
tells where each word begins and ends; synthetic speech is not natural speech. Only words that were recognised count, matched in
order; the error of a word is that of its start, or of its end.
"""

BACKENDS = """
| backend | weights here | what is measured |
|---|---|---|
| `pocketsphinx` | in its wheel | this page |
| `whisperx` with any Whisper and wav2vec2 aligners | none | tests alone, on checkpoints that they make or train |
| `hf_asr` with any Whisper or CTC checkpoint | none | tests alone, on checkpoints that they make or train |
"""


class Spoken(NamedTuple):
    """A sentence and where its words lie, ``(start sample, end sample)`` at MODEL_RATE_HZ."""

    audio: Audio
    words: list[str]
    edges: list[tuple[int, int]]


def measure(material: Material) -> Section:
    recogniser = PocketsphinxConfig().build()
    read = _one_a_speaker(material.speech("read"))
    clips = [item.audio() for item in read]
    scores = [_score(recogniser, item, audio_S) for item, audio_S in zip(read, clips, strict=True)]
    is_adult = [item.facts["age"] >= ADULT_AGE for item in read]
    figures = [
        _wer("pocketsphinx, speech/read", scores),
        _wer("pocketsphinx, speech/read, adults", [s for s, adult in zip(scores, is_adult, strict=True) if adult]),
        _wer("pocketsphinx, speech/read, children", [s for s, adult in zip(scores, is_adult, strict=True) if not adult]),
        _wer(f"pocketsphinx, first {NUM_DEGRADED} of speech/read as they are", scores[:NUM_DEGRADED]),
    ]
    for name, degrade in (("through 8 kHz A-law", _telephone), (f"in white noise at {NOISE_SNR_DB:.0f} dB", _noisy)):
        heard = [_score(recogniser, item, degrade(audio_S)) for item, audio_S in zip(read[:NUM_DEGRADED], clips, strict=False)]
        figures.append(_wer(f"pocketsphinx, the same {name}", heard))
    figures += _word_times(
        recogniser, [_speak(item.facts["transcript"], number) for number, item in enumerate(read[:NUM_SPOKEN])]
    )
    details = "\n\n".join([BACKENDS.strip(), _few(recogniser, material), _sonnet(recogniser, material)])
    return Section("Speech recognition", PROSE, figures, details)


def _one_a_speaker(items: Sequence[Item]) -> list[Item]:
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault(item.facts["speaker"], item)
    return list(first.values())


def _recognise(recogniser: Pocketsphinx, audio_S: Audio) -> dict[str, Any]:
    batch = ClipBatch(pa.table({"clip_id": pa.array([b"\0" * 16], pa.binary(16))}), [audio_S], [MODEL_RATE_HZ])
    row: dict[str, Any] = recogniser.annotate(batch).to_pylist()[0]
    return row


def _score(recogniser: Pocketsphinx, item: Item, audio_S: Audio) -> WordScore:
    found = _recognise(recogniser, audio_S)["text"] or ""
    return score_words(item.name, normalised(item.facts["transcript"], LANGUAGE), normalised(found, LANGUAGE), LANGUAGE)


def _wer(name: str, scores: Sequence[WordScore]) -> Figure:
    errors, words = [score.num_errors for score in scores], [score.num_reference for score in scores]
    return ratio(f"WER: {name}", errors, words, "clips", f"{sum(words)} words")


def _telephone(audio_S: Audio) -> Audio:
    """Through 8 kHz and A-law (ITU-T G.711's curve, 8 bits)."""
    narrow_S = np.clip(resample(audio_S, MODEL_RATE_HZ, TELEPHONE_HZ), -1.0, 1.0)
    steepness = 87.6
    loud_S = np.abs(narrow_S) * steepness
    curve_S = np.where(loud_S < 1.0, loud_S, 1.0 + np.log(np.maximum(loud_S, 1.0))) / (1.0 + np.log(steepness))
    coded_S = np.round(curve_S * 127.0) / 127.0 * (1.0 + np.log(steepness))
    plain_S = np.sign(narrow_S) * np.where(coded_S < 1.0, coded_S, np.exp(coded_S - 1.0)) / steepness
    return resample(plain_S.astype(np.float32), TELEPHONE_HZ, MODEL_RATE_HZ)


def _noisy(audio_S: Audio) -> Audio:
    noise_S = np.random.default_rng(len(audio_S)).standard_normal(len(audio_S))
    scale = np.sqrt(np.mean(np.square(audio_S, dtype=np.float64))) * 10 ** (-NOISE_SNR_DB / 20)
    return (audio_S + noise_S * scale).astype(np.float32)


def _speak(transcript: str, number: int) -> Spoken:
    """The sentence as one of eSpeak's speakers says it, half a second after the start."""
    draw = random.Random(number)
    config = EspeakConfig(
        variant=draw.choice(SPEAKERS), rate_wpm=draw.randint(130, 190), pitch=draw.randint(35, 65), range=draw.randint(30, 70)
    )
    speech = config.build().synthesise(transcript.lower())
    lead = MODEL_RATE_HZ // 2
    step = MODEL_RATE_HZ / speech.sample_rate_hz
    audio_S = np.concatenate([np.zeros(lead, np.float32), resample(speech.audio, speech.sample_rate_hz, MODEL_RATE_HZ)])
    words = speech.words or ()
    edges = [(lead + round(word.start_sample * step), lead + round(word.end_sample * step)) for word in words]
    hiss_S = np.random.default_rng(number).standard_normal(len(audio_S)) * 1e-3  # digital silence is nothing that is recorded
    return Spoken((audio_S + hiss_S).astype(np.float32), [word.word.lower() for word in words], edges)


def _word_times(recogniser: Pocketsphinx, sentences: Sequence[Spoken]) -> list[Figure]:
    starts, ends, scores = [], [], []
    for number, sentence in enumerate(sentences):
        found = _recognise(recogniser, sentence.audio)["words"] or []
        said = " ".join(sentence.words)
        scores.append(score_words(str(number), said, " ".join(word["word"] for word in found), LANGUAGE))
        for (start, end), word in _matched(sentence.words, sentence.edges, found):
            starts.append(abs(word["start_sample"] - start) / MODEL_RATE_HZ)
            ends.append(abs(word["end_sample"] - end) / MODEL_RATE_HZ)
    figures = [_wer("pocketsphinx, sentences said by eSpeak", scores)]
    for name, errors in (("start", starts), ("end", ends)):
        for what, quantile in (("median", 0.5), ("90th percentile", 0.9)):
            figures.append(
                statistic(
                    f"word time: error of a word's {name}, {what}",
                    np.array(errors),
                    lambda rows, quantile=quantile: float(np.quantile(rows, quantile)),
                    "words",
                    "s",
                    f"of {sum(score.num_reference for score in scores)} said by eSpeak, those that were recognised",
                )
            )
    return figures


def _matched(
    said: Sequence[str], edges: Sequence[tuple[int, int]], found: Sequence[dict[str, Any]]
) -> list[tuple[tuple[int, int], dict[str, Any]]]:
    """Words that were recognised: where they lie, and what was found."""
    pairs = []
    for block in Levenshtein.opcodes(list(said), [word["word"] for word in found]):
        if block.tag == "equal":
            pairs += zip(edges[block.src_start : block.src_end], found[block.dest_start : block.dest_end], strict=True)
    return pairs


def _few(recogniser: Pocketsphinx, material: Material) -> str:
    """Kinds of the test data, each with fewer clips than a claim needs."""
    english = material.testdata(
        lambda facts: facts.get("language") == LANGUAGE and facts.get("transcript") and not {"dup_of", "defect"} & facts.keys()
    )
    kinds = {
        "LibriSpeech, clean": lambda kinds: kinds == {"en_read"},
        "accented (three children, three adults)": lambda kinds: "accented" in kinds,
        "noisy, 0 to 10 dB": lambda kinds: "noisy" in kinds,
        "telephone, 8 kHz": lambda kinds: "telephone_8k" in kinds,
    }
    lines = [
        f"Kinds of testdata, each with fewer than {FEWEST_ITEMS} clips; no claim is made on them (pocketsphinx):",
        "",
        "| kind | clips | words | WER |",
        "|---|---|---|---|",
    ]
    for name, belongs in kinds.items():
        items = [item for item in english if belongs(set(item.facts["kinds"]))]
        scores = [_score(recogniser, item, item.audio()) for item in items]
        errors, words = sum(score.num_errors for score in scores), sum(score.num_reference for score in scores)
        lines.append(f"| {name} | {len(items)} | {words} | {100 * errors / max(1, words):.0f} % |")
    return "\n".join(lines)


def _sonnet(recogniser: Pocketsphinx, material: Material) -> str:
    """Fragments of the one real recording with times, a line of verse each: where the first word that was recognised starts."""
    item = next(item for item in material.testdata() if item.facts.get("alignment"))
    with open(material.label_path(item.facts["alignment"]), encoding="utf-8") as file:
        fragments = json.load(file)["fragments"]
    found = _recognise(recogniser, item.audio())["words"] or []
    said: list[str] = []
    begins: dict[int, int] = {}
    for fragment in fragments:
        begins[len(said)] = round(float(fragment["begin"]) * MODEL_RATE_HZ)
        said += normalised(" ".join(fragment["lines"]), LANGUAGE).split()
    edges = [(begins.get(position, -1), 0) for position in range(len(said))]
    errors = [
        abs(word["start_sample"] - begin) / MODEL_RATE_HZ for (begin, _), word in _matched(said, edges, found) if begin >= 0
    ]
    worst = f", median error {np.median(errors):.2f} s, largest {max(errors):.2f} s" if errors else ""
    return (
        f"The one real recording with times of fragments ({item.name}, {len(fragments)} lines of verse): the first word was recognised "
        f"in {len(errors)}{worst}. Too few for a claim."
    )
