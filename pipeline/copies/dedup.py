"""``manifest dedup``: copies among the clips of a corpus, as the decision table ``duplicates``.

Equal samples (``exact``), the same recording in another form (``near``) and, where asked for, the same text. Tables by role:
``clips`` (DUPLICATES, by unit) and ``pairs`` (COPY_PAIRS): whatever two clips share, a jingle too, which makes nobody a copy.
Nothing is deleted: ``leave_out: [duplicates]`` of a pack's recipe leaves out what has a drop_reason.

A table is made of the whole snapshot: of one that is there already, ids would stay but any clip's best copy may be a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotators.acoustic_fingerprint import HOP_S
from manifests.clip_texts import clip_texts, text_needs
from manifests.console import Progress, counted, hours
from manifests.corpus import Corpus
from manifests.decision_tables import Draft, until_published
from manifests.errors import RequestError
from manifests.gates import clip_column
from manifests.open_rows import corpus_rows
from manifests.rows import Rows
from manifests.schema import COPY_PAIRS, DUPLICATES
from manifests.tombstones import TABLE as TAKEDOWNS
from pipeline.copies.clip_numbers import (
    NO_HASH,
    ClipNumbers,
    basis,
    check_layer,
    full_names,
    full_text_names,
    read_clips,
    rows_of,
    table_marks,
)
from pipeline.copies.frames import Frames, FramesWriter
from pipeline.copies.groups import Components, CopyPair, Decision, decide
from pipeline.copies.near import find_stretches
from pipeline.copies.pairs import PairSide, exact_pairs, pair_table, smallest_ids, text_table, with_ids
from pipeline.copies.publication import described, publish_made
from pipeline.copies.recipe import Criterion, DedupConfig, criteria
from pipeline.copies.texts import SameText, same_texts

TABLE = "duplicates"
VERSION = "2"  # rises when the same clips would be decided otherwise
EXACT, NEAR, TEXT = "exact_copy", "near_copy", "same_text"


@dataclass(frozen=True)
class DedupResult:
    """What a table says. Hours are of clips."""

    corpus_uri: str
    snapshot: int
    fingerprint: str
    is_new: bool  # False when the table was there already
    num_clips: int
    num_groups: int  # of clips that are copies of one another
    num_text_groups: int
    num_pairs: int  # of clips that share anything
    left_out: dict[str, int] = field(default_factory=dict)  # drop_reason -> clips
    left_out_h: dict[str, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The result for people."""
        again = "" if self.is_new else ": was there already"
        return [
            f"corpus {self.corpus_uri}, snapshot {self.snapshot}: table {TABLE} ({self.fingerprint}){again}",
            f"  {counted(self.num_clips, 'clip')}: {counted(self.num_groups, 'group')} of copies, "
            f"{counted(self.num_text_groups, 'group')} of the same text, {counted(self.num_pairs, 'pair')} that share audio or text",
            *(f"  {reason}: {counted(n, 'clip')}, {hours(self.left_out_h[reason])}" for reason, n in self.left_out.items()),
            f"leave them out of a pack with `leave_out: [{TABLE}]` in its recipe",
        ]


def dedup(uri: str, config: DedupConfig, *, scratch: str | None = None, scheduler: str | None = None) -> DedupResult:
    """Make the table over the newest snapshot, unless one of the same content and config is there.

    Temporary files lie in ``scratch`` (the system's folder by default), which the workers of a ``scheduler`` must see.
    Raises RequestError where a layer or column is not there, or no scheduler answers.
    """
    return until_published(lambda: _Run(Corpus.open(uri), config, scratch, scheduler).execute(), "looked for copies")


class _Shared(NamedTuple):
    """What a clip shares with its closest copy."""

    overlap_s: float
    bit_error_rate: float


class _Run:
    """One attempt over one snapshot. Clips go by their numbers."""

    def __init__(self, corpus: Corpus, config: DedupConfig, scratch: str | None, scheduler: str | None) -> None:
        self._corpus, self._config, self._scratch, self._scheduler = corpus, config, scratch, scheduler
        check_layer(corpus, config.content_layer)
        given = criteria(config.keep)
        names = full_names(corpus, [criterion.column for criterion in given])
        self._criteria = [_on(criterion, name, corpus_rows(corpus)) for criterion, name in zip(given, names, strict=True)]
        self._text_columns = (
            [*full_text_names(corpus, [config.text_column]), "clip.language", "clip.speaker"] if "text" in config.by else []
        )
        # Who was to stay may have been taken down: then another copy has to.
        self._reads = {**basis(corpus, config.content_layer, [*names, *self._text_columns]), **table_marks(corpus, [TAKEDOWNS])}

    def execute(self) -> DedupResult | None:
        """None when another run has published a table meanwhile."""
        head = described(self._corpus, TABLE, VERSION, self._config, self._reads)
        made = publish_made(self._corpus, head, self._scratch, self._make)
        return None if made is None else self._result(*made)

    def _make(self, draft: Draft, folder: str, bars: Progress) -> None:
        writer = FramesWriter(folder) if "near" in self._config.by else None
        clips = read_clips(self._corpus, self._config.content_layer, writer, bars.task("copies: read", 0, "slices"))
        pairs = [self._exact_table(clips)] if "exact" in self._config.by else []
        if writer is not None:
            frames = writer.close()
            pairs.append(self._near_table(clips, frames, find_stretches(frames, bars, scheduler=self._scheduler)))
        decided, shared = self._decided(clips, pairs)
        texts, speakers = self._same_texts(clips)
        pairs.append(text_table(texts))
        sayers = self._text_groups(clips, texts, speakers, decided)
        self._write_rows(draft, clips, decided, shared, sayers, bars)
        draft.put("pairs", [with_ids(table, clips) for table in pairs], COPY_PAIRS)

    def _exact_table(self, clips: ClipNumbers) -> pa.Table:
        one, two = exact_pairs(clips.hashes)
        left, right = PairSide.whole(one, clips), PairSide.whole(two, clips)
        return pair_table("exact", left, right, np.ones(len(one), bool), clips.seconds[one], np.zeros(len(one)))

    def _near_table(self, clips: ClipNumbers, frames: Frames, near: pa.Table) -> pa.Table:
        """Numbers in place of ids, as all of these have."""
        left, right, left_frame, right_frame, num, compared, errors = (near[name].to_numpy() for name in near.column_names)
        one = PairSide.stretch(left, left_frame, num, compared, clips, frames)
        two = PairSide.stretch(right, right_frame, num, compared, clips, frames)
        is_whole = np.maximum(one.share, two.share) >= self._config.least_share
        return pair_table("near", one, two, is_whole, num * HOP_S, errors)

    def _decided(self, clips: ClipNumbers, pairs: Sequence[pa.Table]) -> tuple[dict[int, Decision], dict[int, _Shared]]:
        least, shared, copies = self._config.least_share, dict[int, _Shared](), list[CopyPair]()
        for table in pairs:
            columns = ["clip_id", "other_clip_id", "share", "other_share", "overlap_s", "bit_error_rate"]
            whole = table.filter(table["is_whole"]).select(columns)
            for left, right, share, other_share, overlap_s, errors in zip(*(c.to_pylist() for c in whole.columns), strict=True):
                copies.append(CopyPair(left, right, share >= least, other_share >= least))
                for clip in (left, right):
                    found = _Shared(overlap_s, errors)
                    shared[clip] = max(shared.get(clip, found), found, key=lambda known: (known.overlap_s, -known.bit_error_rate))
        ranks = self._ranks(clips, sorted({clip for pair in copies for clip in pair[:2]}))
        return decide(copies, lambda clip: float(clips.seconds[clip]), ranks.__getitem__), shared

    def _ranks(self, clips: ClipNumbers, numbers: Sequence[int]) -> dict[int, tuple[Any, ...]]:
        """The smaller, the better; no two alike."""
        columns = [criterion.column for criterion in self._criteria]
        return {
            number: (*(c.rank(v) for c, v in zip(self._criteria, values, strict=True)), bytes(clips.ids[number]))
            for number, values in rows_of(self._corpus, clips, numbers, columns)
        }

    def _same_texts(self, clips: ClipNumbers) -> tuple[list[SameText], list[str | None]]:
        if not self._text_columns:
            return [], []
        text, *others = self._text_columns
        rows, columns = corpus_rows(self._corpus), tuple[list[str | None], ...](([], [], []))
        for part, _ in clips.slices:
            table = rows.read(part, [*text_needs([text]), *others])
            for kept, values in zip(columns, (clip_texts(table, text), *(table[name] for name in others)), strict=True):
                kept += values.to_pylist()
        texts, languages, speakers = columns
        return same_texts(texts, languages, self._config.least_similarity), speakers

    def _text_groups(
        self, clips: ClipNumbers, texts: Sequence[SameText], speakers: Sequence[str | None], decided: dict[int, Decision]
    ) -> dict[int, tuple[int, int | None]]:
        """Clip -> (text group, the clip that stays for it where the config leaves out whoever says the same)."""
        groups = Components()
        for pair in texts:
            groups.join(pair.left, pair.right)
        left_out = self._config.leave_out_text
        members = dict[tuple[int, str | None], list[int]]()
        for clip in groups.parents:
            speaker = speakers[clip] if left_out == "same_speaker" else None
            is_free = clip not in decided or decided[clip].kept is None
            if is_free and (left_out == "any" or (left_out == "same_speaker" and speaker is not None)):
                members.setdefault((groups.root(clip), speaker), []).append(clip)
        ranks = self._ranks(clips, sorted(clip for some in members.values() for clip in some))
        kept = dict[int, int]()
        for some in members.values():
            best = min(some, key=ranks.__getitem__)
            kept |= {clip: best for clip in some if clip != best}
        return {clip: (groups.root(clip), kept.get(clip)) for clip in groups.parents}

    def _write_rows(
        self,
        draft: Draft,
        clips: ClipNumbers,
        decided: dict[int, Decision],
        shared: dict[int, _Shared],
        sayers: dict[int, tuple[int, int | None]],
        bars: Progress,
    ) -> None:
        ids, hashes = clips.ids, clips.hashes
        group_of = smallest_ids({clip: found.group for clip, found in decided.items()}, ids)
        text_group_of = smallest_ids({clip: group for clip, (group, _) in sayers.items()}, ids)
        bar = bars.task("copies: write", len(self._corpus.snapshot.units), "units")
        first = 0
        for view in self._corpus.views():
            own = view.clips(["clip_id"])["clip_id"]
            columns: dict[str, list[Any]] = {name: [None] * len(own) for name in DUPLICATES.names[1:]}
            for at in range(len(own)):
                clip = first + at
                kept = decided[clip].kept if clip in decided else None
                if kept is not None:
                    is_exact = bytes(hashes[clip]) == bytes(hashes[kept]) != NO_HASH
                    columns["drop_reason"][at] = EXACT if is_exact else NEAR
                elif clip in sayers and sayers[clip][1] is not None:
                    kept, columns["drop_reason"][at] = sayers[clip][1], TEXT
                columns["kept_clip_id"][at] = None if kept is None else bytes(ids[kept])
                columns["group_id"][at], columns["text_group_id"][at] = group_of.get(clip), text_group_of.get(clip)
                if clip in shared:
                    columns["overlap_s"][at], columns["bit_error_rate"][at] = shared[clip]
            arrays = [own, *(pa.array(columns[f.name], f.type) for f in list(DUPLICATES)[1:])]
            draft.append("clips", view.unit_id, pa.table(arrays, schema=DUPLICATES), DUPLICATES)
            first += len(own)
            bar.advance()

    def _result(self, corpus: Corpus, is_new: bool) -> DedupResult:
        seconds = dict[str, float]()
        counts, groups, text_groups, num_clips = dict[str, int](), set[bytes](), set[bytes](), 0
        for view in corpus.views():
            rows = view.decisions(TABLE, "clips", ["group_id", "drop_reason", "text_group_id"])
            place = view.clips(["start_sample", "end_sample", "sample_rate_hz"])
            num_clips += rows.num_rows
            groups.update(pc.unique(rows["group_id"].drop_null()).to_pylist())
            text_groups.update(pc.unique(rows["text_group_id"].drop_null()).to_pylist())
            lengths = clip_column(place, "duration_s").to_pylist()
            for reason, length_s in zip(rows["drop_reason"].to_pylist(), lengths, strict=True):
                if reason is not None:
                    counts[reason] = counts.get(reason, 0) + 1
                    seconds[reason] = seconds.get(reason, 0.0) + length_s
        head = corpus.decision_table(TABLE)
        return DedupResult(
            corpus.store.uri,
            corpus.snapshot.number,
            head.fingerprint,
            is_new,
            num_clips,
            len(groups),
            len(text_groups),
            head.wholes["pairs"].num_rows or 0,
            dict(sorted(counts.items())),
            {reason: seconds[reason] / 3600 for reason in sorted(seconds)},
        )


def _on(criterion: Criterion, column: str, rows: Rows) -> Criterion:
    """The criterion on a column by its full name. Raises RequestError where nothing in it is higher or lower."""
    kind = rows.schema.field(column).type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if criterion.direction in ("highest", "lowest") and not is_number:
        raise RequestError(
            f"criterion '{criterion.column}:{criterion.direction}': column {column!r} holds {kind} and no numbers; "
            "name one that does, or use `stated`"
        )
    return criterion._replace(column=column)
