"""How well turns and words fit references: DER by pyannote.metrics, WER and CER by jiwer, pooled over recordings.

Settings are part of every figure. DER: no collar, overlap scored, the whole recording (Bredin, pyannote.metrics, Interspeech
2017). Words: lower case, no punctuation, one space between words; characters instead of words for Chinese, Japanese
and Korean, whose words have no agreed borders.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import fsspec

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.snapshots import layer_output, spans_output

CHARACTER_LANGUAGES = ("ja", "ko", "yue", "zh")


class Turn(NamedTuple):
    """One speaker's stretch, in seconds from the start of the recording."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class DiarizationScore:
    """Parts of the DER of one recording; speech of two speakers at once counts twice, as usual."""

    recording: str
    reference_s: float
    missed_s: float
    false_alarm_s: float
    confusion_s: float
    labels: dict[str, str] = field(default_factory=dict)  # hypothesis label -> reference label

    @property
    def error_s(self) -> float:
        return self.missed_s + self.false_alarm_s + self.confusion_s


@dataclass(frozen=True)
class WordScore:
    """Edits between reference and hypothesis of one recording, in words or (``unit``) in characters."""

    recording: str
    language: str | None
    unit: str  # words | characters
    num_reference: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def num_errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True)
class Scores:
    """Scores of a corpus; ``notes`` say what could not be scored and why."""

    diarization: list[DiarizationScore]
    words: list[WordScore]
    notes: list[str]
    collar_s: float = 0.0
    skip_overlap: bool = False

    @property
    def der(self) -> float | None:
        """Errors of all recordings over all reference speech; None without references."""
        reference_s = sum(score.reference_s for score in self.diarization)
        return sum(score.error_s for score in self.diarization) / reference_s if reference_s else None

    def word_rate(self, unit: str) -> float | None:
        """WER (``unit="words"``) or CER (``"characters"``), pooled; None without references."""
        chosen = [score for score in self.words if score.unit == unit]
        num_reference = sum(score.num_reference for score in chosen)
        return sum(score.num_errors for score in chosen) / num_reference if num_reference else None


def score_diarization(
    recording: str,
    reference: Sequence[Turn],
    hypothesis: Sequence[Turn],
    duration_s: float,
    collar_s: float = 0.0,
    *,
    skip_overlap: bool = False,
) -> DiarizationScore:
    """Parts of the DER over ``[0, duration_s)``; labels are matched so that the error is smallest."""
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotation(turns: Sequence[Turn]) -> Any:
        made = Annotation(uri=recording)
        for track, turn in enumerate(turns):
            made[Segment(turn.start_s, turn.end_s), track] = turn.label
        return made

    metric = DiarizationErrorRate(collar=collar_s, skip_overlap=skip_overlap)
    heard = Timeline([Segment(0.0, duration_s)])
    said, found = annotation(reference), annotation(hypothesis)
    parts = metric(said, found, uem=heard, detailed=True)
    labels = {str(mine): str(theirs) for mine, theirs in metric.optimal_mapping(said, found, uem=heard).items()}
    missed, false_alarm, confusion = (float(parts[name]) for name in ("missed detection", "false alarm", "confusion"))
    return DiarizationScore(recording, float(parts["total"]), missed, false_alarm, confusion, labels)


def scored_tokens(text: str, language: str | None) -> list[str]:
    """Words, or characters where the language has no agreed words: lower case, punctuation and symbols removed."""
    # Lower case may compose anew (J with a caron has no single capital), so it is normalised before and after.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower()).replace("’", "'")
    # Apostrophes belong to words (don't); everything else that Unicode calls punctuation or a symbol is a border.
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] not in "PSCZ" else " " for c in folded)
    words = [word for part in kept.split() if (word := part.strip("'"))]
    return list("".join(words).replace("'", "")) if language in CHARACTER_LANGUAGES else words


def score_words(recording: str, reference: str, hypothesis: str, language: str | None) -> WordScore:
    """Edits that turn the reference into the hypothesis, after ``scored_tokens``."""
    import jiwer

    said, found = scored_tokens(reference, language), scored_tokens(hypothesis, language)
    unit = "characters" if language in CHARACTER_LANGUAGES else "words"
    if not said:  # nothing to divide by; what was heard nevertheless still counts in the pool
        return WordScore(recording, language, unit, 0, 0, 0, len(found))
    # Tokens are joined by spaces, so jiwer's words are characters where characters are scored.
    edits = jiwer.process_words(" ".join(said), " ".join(found))
    return WordScore(recording, language, unit, len(said), edits.substitutions, edits.deletions, edits.insertions)


def read_rttm(uri: str) -> list[Turn]:
    """Turns of the SPEAKER lines. Raises RequestError on a line that is not RTTM."""
    turns = []
    for number, line in enumerate(_text(uri).splitlines(), 1):
        parts = line.split()
        if not parts or parts[0] != "SPEAKER":
            continue
        try:
            start_s, length_s = float(parts[3]), float(parts[4])
            turns.append(Turn(start_s, start_s + length_s, parts[7]))
        except (IndexError, ValueError) as error:
            raise RequestError(f"RTTM {uri!r} line {number} is {line!r}; SPEAKER lines have start, length and label") from error
    return turns


class Segment(NamedTuple):
    """What one speaker said, as an STM line gives it; seconds from the start of the recording."""

    start_s: float
    end_s: float
    speaker: str
    words: str


def read_stm(uri: str) -> list[Segment]:
    """The segments of an STM file in order of time; comments and segments marked not to be scored are left out.

    Raises RequestError on a line that is not STM.
    """
    segments = []
    for number, line in enumerate(_text(uri).splitlines(), 1):
        if not line.strip() or line.startswith(";;") or "ignore_time_segment_in_scoring" in line.lower():
            continue
        parts = line.split(maxsplit=5)
        try:
            start_s, end_s, words = float(parts[3]), float(parts[4]), parts[5] if len(parts) > 5 else ""
        except (IndexError, ValueError) as error:
            raise RequestError(
                f"STM {uri!r} line {number} is {line!r}; lines have file, channel, speaker, start, end and words"
            ) from error
        if words.startswith("<"):  # the optional label, e.g. <o,f0,male>
            words = words.partition(">")[2]
        segments.append(Segment(start_s, end_s, parts[2], words.strip()))
    return sorted(segments, key=lambda segment: segment.start_s)


def score_corpus(corpus: Corpus, segmenter: str = "diarization", asr: str = "asr") -> Scores:
    """Scores of every recording that has a reference in the inputs table; a recording counts once.

    Hypotheses: turns of ``segmenter`` over all heard channels; texts of layer ``asr`` in order of time. A clip without text
    counts as nothing heard.
    """
    scores = Scores([], [], [])
    turns = corpus_turns(corpus, segmenter) if spans_output(segmenter) in corpus.snapshot.current else None
    texts = _texts(corpus, asr) if layer_output(corpus.clip_set, asr) in corpus.snapshot.current else None
    duration_s = {row["recording_id"]: row["num_samples"] / row["sample_rate_hz"] for row in corpus.recordings().to_pylist()}
    seen: set[tuple[str, bytes]] = set()
    for row in corpus.inputs().to_pylist():
        recording, name = row["recording_id"], posixpath.basename(row["uri"])
        if recording is None:
            continue
        for kind, rest in (("turns", row["reference_rttm_uri"]), ("words", row["reference_stm_uri"] or row["text"])):
            if rest is None or (kind, recording) in seen:
                continue
            seen.add((kind, recording))
            try:
                if kind == "turns" and turns is not None:
                    found = turns.get(recording, [])
                    scores.diarization.append(score_diarization(name, read_rttm(rest), found, duration_s[recording]))
                elif kind == "words" and texts is not None:
                    said = " ".join(s.words for s in read_stm(rest)) if row["reference_stm_uri"] else rest
                    scores.words.append(score_words(name, said, texts.get(recording, ""), row["language"]))
            except (OSError, RequestError) as error:  # a reference that is gone or broken must not cost the other figures
                scores.notes.append(f"{name}: reference {rest!r} cannot be read ({error})")
    kinds = {kind for kind, _ in seen}
    if "turns" not in kinds:
        scores.notes.append("no DER: no input has reference turns")
    elif turns is None:
        scores.notes.append(f"no DER: the corpus has no spans of {segmenter!r}")
    if "words" not in kinds:
        scores.notes.append("no WER: no input has a reference transcript")
    elif texts is None:
        scores.notes.append(f"no WER: the corpus has no layer {asr!r}")
    return scores


def corpus_turns(corpus: Corpus, segmenter: str) -> dict[bytes, list[Turn]]:
    """Turns by recording in seconds; labels of different channels are different speakers."""
    turns: dict[bytes, list[Turn]] = {}
    for row in corpus.spans(segmenter).to_pylist():
        rate, label = row["sample_rate_hz"], row["speaker_label"] or "speech"
        if row["channel"]:
            label = f"{label} (channel {row['channel']})"
        turns.setdefault(row["recording_id"], []).append(Turn(row["start_sample"] / rate, row["end_sample"] / rate, label))
    return turns


def _texts(corpus: Corpus, asr: str) -> dict[bytes, str]:
    """What the ASR heard in each recording, clips in order of time."""
    columns = ["recording_id", "start_sample", "channel"]
    rows = zip(corpus.clips().select(columns).to_pylist(), corpus.layer(asr).column("text").to_pylist(), strict=True)
    heard: dict[bytes, list[tuple[int, int, str]]] = {}
    for clip, text in rows:
        heard.setdefault(clip["recording_id"], []).append((clip["start_sample"], clip["channel"], text or ""))
    return {recording: " ".join(text for _, _, text in sorted(parts)) for recording, parts in heard.items()}


def _text(uri: str) -> str:
    with fsspec.open(uri, "rb") as file:
        data: bytes = file.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"reference {uri!r} is not UTF-8 ({error}); convert it") from error
