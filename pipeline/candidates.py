"""Clips on their way into a pack: each with its text, its facts and its layers, kept or dropped for a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests.clip_rows import SPEAKERS_TABLE
from manifests.clip_texts import RECORDING, SOURCE, SOURCE_TEXT, first_texts
from manifests.corpus import Corpus, UnitView
from manifests.errors import MismatchError, RequestError
from manifests.gates import CLIP_COLUMNS, longest_pause_s
from manifests.licences import compared_licence
from manifests.snapshots import INGEST, clips_output, layer_output
from pipeline.annotate_work import AnnotateWork
from pipeline.facts import RecordingFacts, group_of
from pipeline.leave_out import check_tables, drop_reasons
from pipeline.recipe import FilterConfig, PackRecipe
from pipeline.speaker_ids import clip_speakers
from tokenization.codes import CodesConfig

PLACE = ["sample_rate_hz", "start_sample", "end_sample"]


@dataclass(frozen=True)
class Candidate:
    """One clip on its way into the pack."""

    unit: str
    clip: Mapping[str, Any]  # CLIPS
    text: str | None
    text_source: str | None
    facts: RecordingFacts
    layers: Mapping[str, Mapping[str, Any]]  # name -> its row
    group: str  # what a split keeps together
    speaker_label: str | None  # who speaks, local to the recording: by diarization, or of several channels by the channel
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
    if any(config.kind == "text" for config in recipe.documents):
        raise RequestError(
            f"recipe {recipe.name!r} makes documents of plain text, and {corpus.store.uri!r} is a corpus; use the recipe `speech`"
        )
    check_tables(corpus, recipe.leave_out)
    if recipe.captions_from and units and "caption_en" not in UnitView(corpus, units[0]).layer(recipe.captions_from).column_names:
        raise RequestError(f"recipe {recipe.name!r}: captions_from names layer {recipe.captions_from!r}, which has no captions")
    for name in recipe.text_from if units else ():
        if name != SOURCE and "text" not in UnitView(corpus, units[0]).layer(name).column_names:
            raise RequestError(
                f"recipe {recipe.name!r}: text_from names layer {name!r}, which has no text; name one of transcripts"
            )
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
    clips, tables = view.clips(), {name: view.layer(name) for name in sorted(recipe.layers)}
    layers = {name: _layer_rows(table, name == recipe.codes_from) for name, table in tables.items()}
    texts, origins = (found.to_pylist() for found in first_texts(_said(clips, facts, tables, recipe), recipe.text_from))
    speakers = clip_speakers(view) if recipe.speakers_from == "speaker_id" else [None] * len(clips)
    reasons = drop_reasons(view, recipe.leave_out, recipe.leave_out_named)
    channels: dict[bytes, set[int]] = {}
    for recording, channel in zip(clips["recording_id"].to_pylist(), clips["channel"].to_pylist(), strict=True):
        channels.setdefault(recording, set()).add(channel)
    for i, (clip, speaker, left_out) in enumerate(zip(clips.to_pylist(), speakers, reasons, strict=True)):
        own = {name: rows[i] for name, rows in layers.items()}
        fact = facts[clip["recording_id"]]
        group = group_of(clip["recording_id"], fact.speakers, groups)
        label = _label(clip, len(channels[clip["recording_id"]]) > 1)
        speaker_id = speaker.hex() if speaker else None
        yield Candidate(view.unit_id, clip, texts[i], origins[i], fact, own, group, label, speaker_id, left_out)


def whole_recordings(clips: Sequence[Candidate]) -> list[tuple[int, ...]]:
    """The numbers of all clips of each recording, in order of time; without recordings that speak on several channels."""
    found: dict[bytes, list[int]] = {}
    for number, clip in enumerate(clips):
        found.setdefault(clip.clip["recording_id"], []).append(number)
    return [
        tuple(sorted(numbers, key=lambda number: clips[number].clip["start_sample"]))
        for numbers in found.values()
        if len({clips[number].clip["channel"] for number in numbers}) == 1
    ]


def _label(clip: Mapping[str, Any], is_one_of_channels: bool) -> str | None:
    """Labels are local to a channel too. Of a channel without any, diarization heard one voice, or did not run."""
    parts = [f"channel {clip['channel']}" if is_one_of_channels else None, clip["speaker_label"]]
    return " ".join(part for part in parts if part) or None


def _layer_rows(table: pa.Table, is_codes: bool) -> list[dict[str, Any]]:
    """Rows of a layer; codes stay arrays: as Python integers they would take most of the time."""
    if not is_codes:
        return list(table.to_pylist())
    rows = table.drop_columns(["codes"]).to_pylist()
    for row, codes in zip(rows, table["codes"], strict=True):
        row["codes"] = codes.values.to_numpy() if codes.is_valid else None
    return list(rows)


def _said(clips: pa.Table, facts: Mapping[bytes, RecordingFacts], layers: Mapping[str, pa.Table], recipe: PackRecipe) -> pa.Table:
    """What ``first_texts`` chooses from, under the names that rows of a corpus have."""
    recordings = clips["recording_id"]
    told = pa.array([facts[recording]["text"] for recording in recordings.to_pylist()], pa.string())
    heard = {f"{name}.text": layers[name]["text"] for name in recipe.text_from if name != SOURCE}
    return pa.table({RECORDING: recordings, SOURCE_TEXT: told, **heard})


def drop_reason(candidate: Candidate, recipe: PackRecipe) -> str | None:
    """The code of the funnel under which the candidate is left out; None when it stays."""
    consent, licence = candidate.facts["consent"], candidate.facts["licence"]
    if consent == "withheld":
        return "consent_withheld"
    if recipe.require_consent and consent not in ("granted", "not_needed"):
        return "no_consent"
    if recipe.licences and compared_licence(licence) not in map(compared_licence, recipe.licences):
        return "licence_not_allowed" if compared_licence(licence) else "no_licence"
    if candidate.left_out is not None:
        return candidate.left_out
    if recipe.require_text and candidate.text is None:
        return "no_text"
    if recipe.codes_from and candidate.layers[recipe.codes_from]["status"] != "ok":
        return f"{recipe.codes_from}.error"
    return next((config.drop_reason for config in recipe.filters if _is_outside(candidate.value(config.column), config)), None)


def _is_outside(value: float | None, config: FilterConfig) -> bool:
    if value is None:
        return config.drop_null
    return (config.min is not None and value < config.min) or (config.max is not None and value > config.max)
