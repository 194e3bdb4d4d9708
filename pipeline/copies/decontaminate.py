"""``manifest decontaminate``: clips that share audio or text with evaluation sets, as the decision table ``contamination``.

A *registry* is a corpus of evaluation sets (``corpus build --recipe registry``); only tables are compared. Audio: any
stretch that a clip of a registry and a clip of the corpus share, by the join of ``near``. Text: n-grams of the normalised
texts, by ``ngrams``; whose text it is says ``manifests.clip_texts``, as for ``dedup``. Audio counts before text where both
are found. Nothing is deleted: ``leave_out: [contamination]`` of a pack's recipe leaves the clips out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from annotators.acoustic_fingerprint import HOP_S
from manifests.clip_texts import SOURCE_TEXT, clip_texts, num_untold, text_needs
from manifests.console import Progress, counted, hours
from manifests.corpus import Corpus
from manifests.decision_tables import Draft, until_published
from manifests.errors import RequestError
from manifests.ids import digest_blocks, digest_json
from manifests.open_rows import corpus_rows
from manifests.schema import CONTAMINATION
from manifests.tombstones import TABLE as TAKEDOWNS
from pipeline.copies.clip_numbers import ClipNumbers, basis, check_layer, full_text_names, read_clips, table_marks
from pipeline.copies.frames import Frames, FramesWriter
from pipeline.copies.near import find_stretches
from pipeline.copies.ngrams import RegistryTexts, TextMatch
from pipeline.copies.pairs import PairSide
from pipeline.copies.publication import described, publish_made
from pipeline.copies.recipe import DecontaminateConfig

TABLE = "contamination"
VERSION = "2"  # rises when the same clips would be decided otherwise
AUDIO, TEXT = "contaminated_audio", "contaminated_text"
REGISTRY_TEXT, REGISTRY_SET = SOURCE_TEXT, "input.source"
MOST_NAMED = 3  # unreadable inputs in an error


@dataclass(frozen=True)
class Registry:
    """What was compared with, as a proof states it."""

    uri: str
    corpus_id: str
    snapshot: int
    reads: dict[str, str]
    digest: str  # of the units and what they hold
    clips: dict[str, int]  # evaluation set -> clips
    num_unreadable: int  # inputs in quarantine, allowed by who asked
    num_unheard: int  # recordings without a clip: nobody speaks in them, and nothing is compared with them


@dataclass(frozen=True)
class DecontaminateResult:
    """What a table says. Hours are of clips."""

    corpus_uri: str
    corpus_id: str
    snapshot: int  # that the table was made over
    fingerprint: str
    is_new: bool  # False when the table was there already
    registries: list[Registry]
    num_clips: int
    contaminated: dict[str, dict[str, int]]  # evaluation set -> drop_reason -> clips
    contaminated_h: float
    table_digest: str  # hex, over the rows
    num_untold: int  # recordings of several clips with a source's transcript, which is the text of none and was not compared

    @property
    def num_contaminated(self) -> int:
        return sum(sum(reasons.values()) for reasons in self.contaminated.values())

    def lines(self) -> list[str]:
        """The result for people."""
        again = "" if self.is_new else ": was there already"
        sets = {name: n for registry in self.registries for name, n in registry.clips.items()}
        found = [
            f"  {name}, {counted(num, 'clip')}: "
            + (", ".join(f"{reason} {n:,}" for reason, n in self.contaminated.get(name, {}).items()) or "nothing of it is here")
            for name, num in sorted(sets.items())
        ]
        unheard = sum(registry.num_unheard for registry in self.registries)
        notes = [f"{counted(unheard, 'recording')} of the registries in which no speech was heard"] if unheard else []
        if self.num_untold:
            whole = f"the source's transcript of {counted(self.num_untold, 'recording')} of several clips"
            notes.append(f"{whole}; a transcript of each clip is compared with `--text input.text,asr.text`")
        return [
            f"corpus {self.corpus_uri}, snapshot {self.snapshot}: table {TABLE} ({self.fingerprint}){again}",
            *found,
            *(f"  not compared: {note}" for note in notes),
            f"  {counted(self.num_contaminated, 'clip')} of {self.num_clips:,} to be left out, {hours(self.contaminated_h)}",
            f"leave them out of a pack with `leave_out: [{TABLE}]` in its recipe",
        ]


def decontaminate(
    uri: str,
    registries: Sequence[str],
    config: DecontaminateConfig,
    *,
    allow_unreadable: bool = False,
    scratch: str | None = None,
    scheduler: str | None = None,
) -> DecontaminateResult:
    """Make the table over the newest snapshots, unless one of the same content, registries and config is there.

    Raises RequestError where a registry has inputs that nobody could read (``allow_unreadable`` goes on without them),
    where a layer or column is not there, or no scheduler answers; then nothing has changed.
    """

    def attempt() -> DecontaminateResult | None:
        opened = [Corpus.open(registry) for registry in registries]
        return _Run(Corpus.open(uri), opened, config, allow_unreadable, scratch, scheduler).execute()

    return until_published(attempt, "looked for contamination")


class _Run:
    """One attempt over one snapshot of each. Clips go by their numbers, those of the registries first."""

    def __init__(
        self,
        corpus: Corpus,
        registries: Sequence[Corpus],
        config: DecontaminateConfig,
        allow_unreadable: bool,
        scratch: str | None,
        scheduler: str | None,
    ) -> None:
        if not registries:
            raise RequestError("decontaminate compares with evaluation sets; name a corpus of them with --registry")
        self._corpus, self._registries, self._config = corpus, registries, config
        self._scratch, self._scheduler = scratch, scheduler
        for each in (corpus, *registries):
            check_layer(each, config.content_layer)
        self._text_columns = full_text_names(corpus, config.text_columns) if "text" in config.by else []
        self._facts = [check_registry(registry, config, allow_unreadable=allow_unreadable) for registry in registries]
        self._reads = basis(corpus, config.content_layer, [*self._text_columns, "clip.language"])

    def execute(self) -> DecontaminateResult | None:
        """None when another run has published a table meanwhile."""
        registries = digest_json([registry.digest for registry in self._facts])
        head = described(self._corpus, TABLE, VERSION, self._config, self._reads, {"registries": registries})
        made = publish_made(self._corpus, head, self._scratch, self._make)
        return None if made is None else self._result(*made)

    def _make(self, draft: Draft, folder: str, bars: Progress) -> None:
        writer = FramesWriter(folder) if "near" in self._config.by else None
        bar = bars.task("contamination: read", 0, "slices")
        registry = [read_clips(corpus, self._config.content_layer, writer, bar) for corpus in self._registries]
        clips = read_clips(self._corpus, self._config.content_layer, writer, bar)
        ids = [bytes(clip).hex() for part in registry for clip in part.ids]
        sets = [name for corpus in self._registries for name in _column(corpus, REGISTRY_SET)]
        found = dict[int, dict[str, Any]]()
        if self._text_columns:
            for clip, match in self._text_matches(bars):
                found[clip] = {"drop_reason": TEXT, "registry": match.number, "ngram_share": match.share}
        if writer is not None:
            for clip, row in self._audio_matches(clips, len(ids), writer.close(), bars):
                found[clip] = {**found.get(clip, {}), **row, "drop_reason": AUDIO}
        self._write_rows(draft, found, ids, sets, bars)

    def _audio_matches(
        self, clips: ClipNumbers, num_left: int, frames: Frames, bars: Progress
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Of each clip the longest stretch that it shares with a registry."""
        table = find_stretches(frames, bars, num_left=num_left, scheduler=self._scheduler)
        left, right, left_frame, right_frame, num, compared, errors = (table[name].to_numpy() for name in table.column_names)
        side = PairSide.stretch(right - num_left, right_frame, num, compared, clips, frames, num_left)
        for row in np.lexsort((left, compared)).tolist():  # the longest comes last, and stays
            yield (
                int(side.number[row]),
                {
                    "registry": int(left[row]),
                    "start_sample": int(side.start[row]),
                    "end_sample": int(side.end[row]),
                    "registry_start_s": float(left_frame[row] * HOP_S),
                    "overlap_s": float(num[row] * HOP_S),
                    "bit_error_rate": float(errors[row]),
                },
            )

    def _text_matches(self, bars: Progress) -> Iterator[tuple[int, TextMatch]]:
        texts = RegistryTexts(self._config)
        for registry in self._registries:
            # All of a registry's texts: what an evaluation set asks must be found, by whichever clip it is named.
            texts.add(zip(_column(registry, REGISTRY_TEXT), _column(registry, "clip.language"), strict=True))
        rows, number = corpus_rows(self._corpus), 0
        bar = bars.task("contamination: texts", len(rows.slices), "slices")
        for part in rows.slices:
            table = rows.read(part, [*text_needs(self._text_columns), "clip.language"])
            own = zip(*(clip_texts(table, name).to_pylist() for name in self._text_columns), strict=True)
            for said, language in zip(own, table["clip.language"].to_pylist(), strict=True):
                matches = [match for text in said if (match := texts.match(text, language))]
                if matches:
                    yield number, max(matches, key=lambda match: (match.share, -match.number))
                number += 1
            bar.advance()

    def _write_rows(
        self, draft: Draft, found: dict[int, dict[str, Any]], ids: Sequence[str], sets: Sequence[str], bars: Progress
    ) -> None:
        bar, first = bars.task("contamination: write", len(self._corpus.snapshot.units), "units"), 0
        for view in self._corpus.views():
            rows = list[dict[str, Any]]()
            for number, clip in enumerate(view.clips(["clip_id"])["clip_id"].to_pylist(), first):
                match = dict(found.get(number, {}))
                registry = match.pop("registry", None)
                named = {} if registry is None else {"evaluation_set": sets[registry], "registry_clip_id": ids[registry]}
                rows.append({"clip_id": clip, **named, **match})
            draft.append("clips", view.unit_id, pa.Table.from_pylist(rows, schema=CONTAMINATION), CONTAMINATION)
            first += len(rows)
            bar.advance()

    def _result(self, corpus: Corpus, is_new: bool) -> DecontaminateResult:
        contaminated, seconds = dict[str, dict[str, int]](), 0.0
        for view in corpus.views():
            rows = view.decisions(TABLE, "clips", ["drop_reason", "evaluation_set"]).to_pylist()
            place = view.clips(["start_sample", "end_sample", "sample_rate_hz"]).to_pylist()
            for row, clip in zip(rows, place, strict=True):
                if row["drop_reason"] is not None:
                    reasons = contaminated.setdefault(row["evaluation_set"], {})
                    reasons[row["drop_reason"]] = reasons.get(row["drop_reason"], 0) + 1
                    seconds += (clip["end_sample"] - clip["start_sample"]) / clip["sample_rate_hz"]
        source = text_needs([SOURCE_TEXT]) if SOURCE_TEXT in self._text_columns else []
        untold = sum(num_untold(table) for table in _tables(corpus, source)) if source else 0
        head = corpus.decision_table(TABLE)
        return DecontaminateResult(
            corpus.store.uri,
            corpus.corpus_id,
            head.snapshot,
            head.fingerprint,
            is_new,
            self._facts,
            sum(part_rows for part in head.parts for part_rows in part.num_rows),
            {name: dict(sorted(reasons.items())) for name, reasons in sorted(contaminated.items())},
            seconds / 3600,
            table_digest(corpus),
            untold,
        )


def check_registry(registry: Corpus, config: DecontaminateConfig, *, allow_unreadable: bool) -> Registry:
    """Raises RequestError where it has inputs that nobody could read, or no clips."""
    uri, refused = registry.store.uri, registry.quarantine()
    if refused.num_rows and not allow_unreadable:
        named = [f"{row['uri']!r} ({row['reason']})" for row in refused.slice(0, MOST_NAMED).to_pylist()]
        more = f" and {refused.num_rows - MOST_NAMED} more" if refused.num_rows > MOST_NAMED else ""
        raise RequestError(
            f"registry {uri!r} has unreadable audio: {', '.join(named)}{more}; nobody can say whether the corpus holds it. "
            "Mend the files and build the registry again, or give --allow-unreadable"
        )
    counts = dict[str, int]()
    for name in _column(registry, REGISTRY_SET):
        counts[name] = counts.get(name, 0) + 1
    if not counts:
        raise RequestError(f"registry {uri!r} has no clips; build it of evaluation sets with `--recipe registry`")
    snapshot = registry.snapshot
    reads = {**basis(registry, config.content_layer, [REGISTRY_TEXT, "clip.language"]), **table_marks(registry, [TAKEDOWNS])}
    digest = digest_json([snapshot.units, snapshot.shadowed, snapshot.superseded, reads])
    num_unheard = registry.recordings().num_rows - len(set(_column(registry, "clip.recording_id")))
    sets = dict(sorted(counts.items()))
    return Registry(uri, registry.corpus_id, snapshot.number, reads, digest, sets, refused.num_rows, num_unheard)


def table_digest(corpus: Corpus) -> str:
    """Hex digest over the rows of the table, in the order of the clips: what a proof names."""

    def blocks() -> Iterator[bytes]:
        for view in corpus.views():
            for row in view.decisions(
                TABLE, "clips", ["clip_id", "drop_reason", "evaluation_set", "registry_clip_id"]
            ).to_pylist():
                yield repr(tuple(row.values())).encode()

    return digest_blocks(blocks()).hex()


def _column(corpus: Corpus, name: str) -> list[Any]:
    """One column of all clips."""
    return [value for table in _tables(corpus, [name]) for value in table[name].to_pylist()]


def _tables(corpus: Corpus, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of all clips, a slice at a time."""
    rows = corpus_rows(corpus)
    return (rows.read(part, columns) for part in rows.slices)
