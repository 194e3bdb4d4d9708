"""The consensus of several ASR layers, voted word by word, and how far they disagree.

It adds the columns of any recogniser, so that a pack may take its text (``text_from: [source, consensus]``), and the
disagreement beside it. The published precedent (StepAudio 2.5): three recognisers, of which at least two agree; text with
a disagreement above 0.05 is dropped. Here nothing is dropped: the columns are for filters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from annotators.asr_schema import ASR_ADDS, Word, asr_row
from annotators.rover import Ballot, Winner, vote
from annotators.text_language import written_language
from annotators.text_normal import normalised, table_versions
from annotators.text_tokens import Token, keys, tokens, written
from manifests.contracts import ClipBatch, Hearing, ModelFact, Resources
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import field

ADDS = pa.schema(
    [
        *ASR_ADDS,
        field(
            "disagreement",
            pa.float32(),
            "0 to 1: mean over the systems that vote of the edit distance to the consensus, normalised tokens, "
            "over the longer length; null with one",
        ),
        field(
            "num_systems", pa.int16(), "systems that vote: those with a text (an empty one is one) in the language of the most"
        ),
        field("num_agreeing", pa.int16(), "of them, those whose whole text is the consensus after normalisation"),
        field("num_other_language", pa.int16(), "systems with a text in another language than the most; they have no vote"),
        field("unsupported_ratio", pa.float32(), "share of the consensus' tokens that only one system says; null without tokens"),
        field("closest_pair_disagreement", pa.float32(), "smallest distance of two systems that vote, measured as disagreement"),
        field("widest_pair_disagreement", pa.float32(), "largest distance of two systems that vote"),
    ]
)


class ConsensusConfig(AnnotatorConfigBase):
    """The vote of the layers ``layers``; of equals in score, the one listed first wins, so the best recogniser comes first."""

    kind: Literal["consensus"] = "consensus"
    layers: tuple[str, ...] = Field(default=("asr", "asr_b", "asr_c"), min_length=2, description="ASR layers that vote")
    min_systems: int = Field(default=2, ge=1, description="with fewer texts in one language there is no consensus: null text")
    alpha: float = Field(
        default=0.8, ge=0, le=1, description="weight of how many say it against confidence; above 0.75 two of three always win"
    )
    null_confidence: float = Field(
        default=0.5, ge=0, le=1, description="confidence of saying nothing, and of words that come without"
    )

    @model_validator(mode="after")
    def _can_vote(self) -> ConsensusConfig:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers {list(self.layers)} names one twice; a recogniser has one vote")
        if self.min_systems > len(self.layers):
            raise ValueError(f"min_systems = {self.min_systems} is more than the {len(self.layers)} layers")
        return self

    def build(self) -> Consensus:
        return Consensus(self)


class Piece(NamedTuple):
    """A token of a hypothesis with what its recogniser knows of it."""

    token: Token
    confidence: float | None
    start_sample: int | None  # at 16 kHz, relative to the start of the clip
    end_sample: int | None


class Consensus:
    """Annotator: ASR columns by vote. Abstains on a clip for which too few systems gave a text; counts stay."""

    name = "consensus"
    version = "1"
    hears = Hearing.NOTHING
    adds = ADDS
    batch_tolerance = 0.0
    resources = Resources(pool="signal", num_cpus=1.0, memory_bytes=256 << 20)

    def __init__(self, config: ConsensusConfig) -> None:
        self.config = config

    @property
    def reads(self) -> tuple[str, ...]:
        return self.config.layers

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return ()

    def fingerprint(self) -> str:
        return fingerprint(self.name, self.version, {**self.config.identity(), "tables": table_versions()})

    def setup(self) -> None:
        """Nothing to load."""

    def annotate(self, batch: ClipBatch) -> pa.Table:
        columns = ("text", "language", "words", "confidence")
        layers = [batch.layers[name].select(columns).to_pylist() for name in self.config.layers]
        return batch.table([self._row(heard) for heard in zip(*layers, strict=True)], self.adds)

    def _row(self, heard: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """The consensus of what each layer says of one clip; None where none has a text."""
        spoke = [row for row in heard if row["text"] is not None]
        if not spoke:
            return None
        language = majority_language(spoke)
        voters = [row for row in spoke if _may_vote(row, language)]
        counts = {"num_systems": len(voters), "num_other_language": len(spoke) - len(voters)}
        if len(voters) < self.config.min_systems:
            return {"status": "abstained", **counts}
        hypotheses = _one_writing([pieces(row, language) for row in voters], [row["text"] for row in voters], language)
        ballots = [[Ballot(piece.token.key, piece.confidence) for piece in hypothesis] for hypothesis in hypotheses]
        winners = vote(ballots, self.config.alpha, self.config.null_confidence)
        chosen = [hypotheses[system][position] for system, position in (winner.said_by[0] for winner in winners)]
        text = written([piece.token for piece in chosen])
        words = _timed_words(winners, hypotheses)
        unaligned = None if words is None else len(winners) - len(words)
        row = asr_row(text, language, words, _mean_score(winners), None, num_unaligned_words=unaligned)
        alone = sum(len(winner.said_by) == 1 for winner in winners)
        row["unsupported_ratio"] = alone / len(winners) if winners else None
        return row | counts | disagreements(text, [voter["text"] for voter in voters], language)


def majority_language(spoke: Sequence[dict[str, Any]]) -> str | None:
    """The language that most non-empty texts are in, as the first of them calls it; of equals the first. None where none says.

    Codes of one written language (zh and yue) count together.
    """
    named = [row["language"] for row in spoke if row["text"].strip() and row["language"]]
    counts = Counter(map(written_language, named))
    return max(named, key=lambda language: counts[written_language(language)], default=None)


def _may_vote(row: dict[str, Any], language: str | None) -> bool:
    """An empty text is in any language; so is one whose recogniser names none."""
    if not row["text"].strip() or row["language"] is None or language is None:
        return True
    return written_language(row["language"]) == written_language(language)


def pieces(row: dict[str, Any], language: str | None) -> list[Piece]:
    """The tokens of a recogniser's text, with the time and confidence of the word that each is from.

    Words and text may differ (a word that could not be aligned is in the text alone): tokens that the words lack have no
    time. A word of several tokens shares its time evenly among them. Where a word has no confidence, the row's stands in.
    """
    from rapidfuzz.distance import Levenshtein

    said = tokens(row["text"], language)
    timed = [piece for word in row["words"] or () for piece in _word_pieces(word, language)]
    found: list[Piece | None] = [None] * len(said)
    for block in Levenshtein.opcodes(keys(said), _keys(timed)):
        if block.tag == "equal":
            found[block.src_start : block.src_end] = timed[block.dest_start : block.dest_end]
    pairs = ((token, piece or Piece(token, None, None, None)) for token, piece in zip(said, found, strict=True))
    return [
        piece._replace(token=token, confidence=row["confidence"] if piece.confidence is None else piece.confidence)
        for token, piece in pairs
    ]


def _one_writing(hypotheses: list[list[Piece]], texts: Sequence[str], language: str | None) -> list[list[Piece]]:
    """The hypotheses, where two of one normal form but with other tokens (21, twenty-one) both stand as the first is written.

    Only whole texts are compared: a number that two different texts write in two ways is two different words in the vote.
    """
    first: dict[str, list[Piece]] = {}
    same = []
    for hypothesis, text in zip(hypotheses, texts, strict=True):
        like = first.setdefault(normalised(text, language), hypothesis)
        same.append(hypothesis if _keys(hypothesis) == _keys(like) else like)
    return same


def _keys(hypothesis: Sequence[Piece]) -> list[str]:
    return [piece.token.key for piece in hypothesis]


def _word_pieces(word: dict[str, Any], language: str | None) -> list[Piece]:
    parts = tokens(word["word"], language)
    edges = np.linspace(word["start_sample"], word["end_sample"], len(parts) + 1).round().astype(int).tolist()
    return [Piece(token, word["confidence"], *edges[i : i + 2]) for i, token in enumerate(parts)]


def _timed_words(winners: Sequence[Winner], hypotheses: Sequence[Sequence[Piece]]) -> list[Word] | None:
    """The words that won and have a time: written as by the first system that said them, at the time of the first that has one.

    None where no word has a time. Words of different systems may overlap by as much as their times err.
    """
    words = []
    for winner in winners:
        said = [hypotheses[system][position] for system, position in winner.said_by]
        timed = next((piece for piece in said if piece.start_sample is not None), None)
        if timed is not None and timed.start_sample is not None and timed.end_sample is not None:
            words.append(Word(said[0].token.surface, timed.start_sample, timed.end_sample, winner.score))
    return words if words or not winners else None


def _mean_score(winners: Sequence[Winner]) -> float | None:
    return sum(winner.score for winner in winners) / len(winners) if winners else None


def disagreements(consensus: str, texts: Sequence[str], language: str | None) -> dict[str, Any]:
    """How far texts are from the consensus and from each other.

    The distance of two texts is Levenshtein's over the tokens of their normal forms (twenty-one and 21 are the same),
    divided by the number of tokens of the longer: 0 for equal texts, 1 where they share nothing.
    """
    from rapidfuzz.distance import Levenshtein

    target, *hypotheses = (keys(tokens(normalised(text, language), language)) for text in (consensus, *texts))
    far = [Levenshtein.normalized_distance(hypothesis, target) for hypothesis in hypotheses]
    pairs = [Levenshtein.normalized_distance(one, other) for one, other in combinations(hypotheses, 2)]
    return {
        "disagreement": sum(far) / len(far) if len(far) > 1 else None,  # one system says nothing of itself
        "num_agreeing": sum(hypothesis == target for hypothesis in hypotheses),
        "closest_pair_disagreement": min(pairs, default=None),
        "widest_pair_disagreement": max(pairs, default=None),
    }
