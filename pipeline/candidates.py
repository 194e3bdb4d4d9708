"""Clips on their way into a pack: each with its text, its facts and its layers, kept or dropped for a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from manifests.audio import AudioReader, resample
from manifests.clip_rows import SPEAKERS_TABLE
from manifests.corpus import Corpus, UnitView
from manifests.errors import MismatchError, RequestError
from manifests.gates import CLIP_COLUMNS, longest_pause_s
from manifests.licences import find_licence
from manifests.snapshots import INGEST, clips_output, layer_output
from pipeline.annotate_work import AnnotateWork
from pipeline.documents import MadeTurn, document_of
from pipeline.facts import RecordingFacts, group_of, unit_facts, unit_groups
from pipeline.leave_out import check_tables, drop_reasons
from pipeline.recipe import FilterConfig, PackRecipe
from pipeline.speaker_ids import clip_speakers
from pipeline.spills import Decision
from tokenization.artifact import Tokenizer
from tokenization.codes import CodesConfig

PLACE = ["sample_rate_hz", "start_sample", "end_sample"]


@dataclass(frozen=True)
class Candidate:
    """One clip on its way into the pack."""

    clip: Mapping[str, Any]  # CLIPS
    text: str | None
    text_source: str | None
    facts: RecordingFacts
    layers: Mapping[str, Mapping[str, Any]]  # name -> its row
    group: str  # what a split keeps together
    speaker_id: str | None = None  # hex; None unless the recipe takes speakers from the table, and it knows who speaks
    left_out: str | None = None  # what a decision table of the recipe has against it

    @property
    def num_samples(self) -> int:
        return int(self.clip["end_sample"] - self.clip["start_sample"])

    @property
    def language(self) -> str | None:
        """As the source says, else as the model heard that gave the text."""
        return self.facts["language"] or self._heard("language")

    @property
    def words(self) -> Any:
        """Words with times, of the model that gave the text."""
        return self._heard("words")

    def value(self, column: str) -> float | None:
        """A filter's column: of a layer, or one of CLIP_COLUMNS."""
        layer, name = column.split(".")
        if layer != "clip":
            value = self.layers[layer].get(name)
            return None if value is None else float(value)
        if name == "duration_s":
            return self.num_samples / float(self.clip["sample_rate_hz"])
        if name == "longest_pause_s":
            return longest_pause_s(self.clip)
        share = {"speech_share": "speech_samples", "overlap_share": "overlap_samples"}
        return float(self.clip[share[name]]) / self.num_samples

    def _heard(self, name: str) -> Any:
        return self.layers.get(self.text_source or "", {}).get(name)


@dataclass(frozen=True)
class ClipsPart:
    """Some units of a corpus as decisions; picklable, opens what it needs where it runs."""

    name: str
    corpus: str
    snapshot: int
    units: tuple[str, ...]
    recipe: PackRecipe
    tokenizer: str | None
    groups: Mapping[str, str]  # speaker_groups of the whole snapshot

    def decisions(self, skip: int) -> Iterator[Decision]:
        """One a clip, in the order of the units' clips, without the first ``skip``. Audio is read of kept clips only."""
        corpus = Corpus.open(self.corpus, self.snapshot)
        tokenizer = _opened(self.tokenizer) if self.tokenizer else None
        passed = 0
        for view, facts in unit_facts(corpus, self.units, self.recipe.speakers_from):
            # What was taken down is counted as left out, and nothing else of it is read.
            for clip in view.taken_clips(PLACE).to_pylist():
                passed += 1
                if passed > skip:
                    num_samples = clip["end_sample"] - clip["start_sample"]
                    yield Decision((), next(iter(self.recipe.splits)), "taken_down", num_samples, clip["sample_rate_hz"])
            reader = view.audio() if self.recipe.include_audio else None
            for candidate in candidates(view, facts, self.recipe, self.groups):
                passed += 1
                if passed > skip:
                    yield decide(candidate, self.recipe, reader, tokenizer)


@lru_cache(maxsize=1)
def _opened(tokenizer: str) -> Tokenizer:
    """A worker packs many parts with one tokenizer, and a large vocabulary takes a second to load."""
    return Tokenizer.open(tokenizer)


def clip_parts(corpus: Corpus, recipe: PackRecipe, tokenizer: str | None, groups: Mapping[str, str]) -> list[ClipsPart]:
    """All units of the snapshot in order."""
    corpus_uri, snapshot = corpus.store.uri, corpus.snapshot.number
    return [
        ClipsPart(f"{number:06d}", corpus_uri, snapshot, units, recipe, tokenizer, groups)
        for number, units in enumerate(unit_groups(corpus))
    ]


def check_recipe(corpus: Corpus, recipe: PackRecipe, tokenizer: str | None) -> None:
    """Raises RequestError or MismatchError unless all that the recipe names is there, and the codes are the tokenizer's."""
    layers = corpus.layers()
    if missing := sorted(recipe.layers - layers.keys()):
        hint = "run `stepwell tokenizer encode` first" if missing == [recipe.codes_from] else "build the corpus with them"
        raise RequestError(f"recipe {recipe.name!r} names layers {missing}; the corpus has {sorted(layers)}, {hint}")
    units = corpus.snapshot.units
    for layer in sorted(recipe.layers):
        output = layer_output(corpus.clip_set, layer)
        if lacking := sum(not corpus.has(output, unit) for unit in units):
            raise RequestError(f"layer {layer!r} lacks {lacking} of {len(units)} units; build again to finish it")
    if recipe.speakers_from == "speaker_id":
        table = corpus.decision_table(SPEAKERS_TABLE)
        if lacking := sum(table.find("clips", unit, corpus.snapshot) is None for unit in units):
            raise RequestError(
                f"decision table {SPEAKERS_TABLE!r} lacks {lacking} of {len(units)} units; run `stepwell corpus link-speakers {corpus.store.uri}`"
            )
    check_tables(corpus, recipe.leave_out)
    for config in recipe.filters if units else ():
        layer, column = config.column.split(".")
        columns = CLIP_COLUMNS if layer == "clip" else UnitView(corpus, units[0]).layer(layer).column_names
        if column not in columns:
            raise RequestError(f"filter column {config.column!r} does not exist; {layer} has {', '.join(columns)}")
        if config.column == "clip.longest_pause_s":
            UnitView(corpus, units[0]).clips(["speech_spans"])  # raises where clips were cut before they had them
    if recipe.codes_from:
        if tokenizer is None:
            raise RequestError(f"recipe {recipe.name!r} packs codes; give the tokenizer that made them with --tokenizer DIR")
        ingest, clips = corpus.fingerprint(INGEST), corpus.fingerprint(clips_output(corpus.clip_set))
        annotator = CodesConfig(kind="codes", tokenizer=tokenizer).build()
        asked = AnnotateWork(recipe.codes_from, annotator, corpus.clip_set, ingest, clips, {}).fingerprint
        if asked != layers[recipe.codes_from]:
            raise MismatchError(
                f"layer {recipe.codes_from!r} was made by another codec than that of {tokenizer!r}; "
                "encode the corpus with this tokenizer first"
            )


def candidates(
    view: UnitView, facts: Mapping[bytes, RecordingFacts], recipe: PackRecipe, groups: Mapping[str, str]
) -> Iterator[Candidate]:
    """Every clip of the unit with its text, the facts of its recording and the layers that the recipe names."""
    clips = view.clips().to_pylist()
    layers = {name: _layer_rows(view.layer(name), name == recipe.codes_from) for name in sorted(recipe.layers)}
    num_clips: dict[bytes, int] = {}
    for clip in clips:
        num_clips[clip["recording_id"]] = num_clips.get(clip["recording_id"], 0) + 1
    speakers = clip_speakers(view) if recipe.speakers_from == "speaker_id" else [None] * len(clips)
    reasons = drop_reasons(view, recipe.leave_out)
    for i, (clip, speaker, left_out) in enumerate(zip(clips, speakers, reasons, strict=True)):
        own = {name: rows[i] for name, rows in layers.items()}
        fact = facts[clip["recording_id"]]
        text, origin = _text(fact, own, recipe, is_whole=num_clips[clip["recording_id"]] == 1)
        group = group_of(clip["recording_id"], fact.speakers, groups)
        yield Candidate(clip, text, origin, fact, own, group, speaker.hex() if speaker else None, left_out)


def _layer_rows(table: pa.Table, is_codes: bool) -> list[dict[str, Any]]:
    """Rows of a layer; codes stay arrays: as Python integers they would take most of the time."""
    if not is_codes:
        return list(table.to_pylist())
    rows = table.drop_columns(["codes"]).to_pylist()
    for row, codes in zip(rows, table["codes"], strict=True):
        row["codes"] = codes.values.to_numpy() if codes.is_valid else None
    return list(rows)


def _text(
    facts: RecordingFacts, layers: Mapping[str, Mapping[str, Any]], recipe: PackRecipe, *, is_whole: bool
) -> tuple[str | None, str | None]:
    """(text, where it is from). A source's transcript speaks of the whole input: it fits only a recording's single clip."""
    for origin in recipe.text_from:
        text = (facts["text"] if is_whole else None) if origin == "source" else layers[origin].get("text")
        if text and text.strip():
            return text.strip(), origin
    return None, None


def decide(candidate: Candidate, recipe: PackRecipe, reader: AudioReader | None, tokenizer: Tokenizer | None) -> Decision:
    """The candidate's document, or the first reason that holds against it. Without a ``reader`` no audio is packed."""
    clip = candidate.clip
    rate, split = clip["sample_rate_hz"], recipe.split_of(candidate.group)
    reason = drop_reason(candidate, recipe)
    if reason is not None:
        return Decision((), split, reason, candidate.num_samples, rate)
    turn = made_turn(candidate, recipe, reader, tokenizer)
    document = document_of(clip["clip_id"].hex(), "clip", None, [turn], recipe.sample_rate_hz, candidate.group)
    return Decision((document,), split, None, candidate.num_samples, rate)


def drop_reason(candidate: Candidate, recipe: PackRecipe) -> str | None:
    """The code of the funnel under which the candidate is left out; None when it stays."""
    consent, licence = candidate.facts["consent"], candidate.facts["licence"]
    if consent == "withheld":
        return "consent_withheld"
    if recipe.require_consent and consent not in ("granted", "not_needed"):
        return "no_consent"
    if recipe.licences and not _is_among(licence, recipe.licences):
        return "licence_not_allowed" if licence else "no_licence"
    if candidate.left_out is not None:
        return candidate.left_out
    if recipe.require_text and candidate.text is None:
        return "no_text"
    if recipe.codes_from and candidate.layers[recipe.codes_from]["status"] != "ok":
        return f"{recipe.codes_from}.error"
    return next((config.drop_reason for config in recipe.filters if _is_outside(candidate.value(config.column), config)), None)


def _is_among(licence: str | None, allowed: Sequence[str]) -> bool:
    """Whether it is one of them, as it is written or as a known licence in another spelling."""
    known = find_licence(licence)
    return licence in allowed or (known is not None and any(find_licence(text) == known for text in allowed))


def _is_outside(value: float | None, config: FilterConfig) -> bool:
    if value is None:
        return config.drop_null
    return (config.min is not None and value < config.min) or (config.max is not None and value > config.max)


def made_turn(candidate: Candidate, recipe: PackRecipe, reader: AudioReader | None, tokenizer: Tokenizer | None) -> MadeTurn:
    """The clip as a turn. Without a ``reader`` it has no audio."""
    clip, text = candidate.clip, candidate.text
    rate = clip["sample_rate_hz"]
    audio = None
    if reader is not None:
        stored = reader.read(clip["recording_id"], clip["channel"], rate, clip["start_sample"], clip["end_sample"])
        audio = resample(stored, rate, recipe.sample_rate_hz)
    num_samples = round(candidate.num_samples * recipe.sample_rate_hz / rate) if audio is None else len(audio)
    return MadeTurn(
        facts=_facts(candidate, recipe),
        audio=audio,
        codes=candidate.layers[recipe.codes_from]["codes"] if recipe.codes_from else None,
        num_text_tokens=len(tokenizer.text.encode(text)) if tokenizer and text is not None else None,
        recording_id=clip["recording_id"],
        clips=[(clip["clip_id"], num_samples)],
    )


def _facts(candidate: Candidate, recipe: PackRecipe) -> dict[str, Any]:
    """A turn of K.json: what is said, where it is from, and the clip with its words and the layers asked for."""
    clip, facts = candidate.clip, candidate.facts
    return {
        "text": candidate.text,
        "text_source": candidate.text_source,
        "language": candidate.language,
        "speaker_label": clip["speaker_label"],
        "speaker": candidate.group,
        "recording_id": clip["recording_id"].hex(),
        **{name: facts[name] for name in ("uri", "source", "licence", "attribution", "synthesizer")},
        "clips": [_clip_facts(candidate, recipe)],
    }


def _clip_facts(candidate: Candidate, recipe: PackRecipe) -> dict[str, Any]:
    clip = candidate.clip
    keys = ("channel", "sample_rate_hz", "start_sample", "end_sample", "speech_samples", "overlap_samples")
    tags = {
        name: {k: v for k, v in candidate.layers[name].items() if k not in ("clip_id", "status", "error")}
        for name in recipe.tags_from
    }
    return {
        "clip_id": clip["clip_id"].hex(),
        **{key: clip[key] for key in keys},
        **({"speaker_id": candidate.speaker_id} if recipe.speakers_from == "speaker_id" else {}),
        "text": candidate.text,
        "words": candidate.words,
        "tags": tags,
    }
