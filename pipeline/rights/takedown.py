"""``manifest takedown``: something has to go. Tombstones at once, so that no reader, pack or ingest takes it any more.

Whatever a rule takes becomes rows of the decision table ``takedowns`` (``manifests.tombstones``), which the newest
snapshot names; snapshots before it go, so that nobody opens one that still shows it. What lies on disk stays until
``pipeline.rights.rewriting`` takes it away.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.console import counted, hours, progress, say
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.packs import Pack, TakenDocuments
from manifests.schema import ID, TAKEDOWNS, table_of
from manifests.snapshots import INGEST, Snapshot, clips_output
from manifests.tombstones import TABLE
from manifests.trained import TrainedCheckpoint, read_checkpoints
from pipeline.holdings import held_by, read_holdings
from pipeline.rights.matching import CLIP, Committed, Match, Rule, find_matches, tombstones_of, touched_units
from pipeline.rights.pack_takedown import TakenFromPack, audio_digests, find_documents, take_documents
from pipeline.rights.takedown_table import draft_takedowns, drop_snapshots

DUPLICATES = "duplicates"  # decision table: clip_id, group_id
SHOWN = 5


@dataclass(frozen=True)
class TakedownResult:
    """What was taken down, or (``is_dry``) would be."""

    corpus_uri: str
    snapshot: int
    is_dry: bool
    rules: list[dict[str, Any]]  # rule, value, and what each takes
    num_recordings: int
    num_inputs: int
    num_clips: int
    hours: float  # of the clips of the current clip set that readers lose
    other_sources: list[str]  # of the same bytes: what they hold goes too
    copies: list[str]  # clips that stay, and that the table `duplicates` takes for copies of what goes
    packs: list[dict[str, Any]]
    checkpoints: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """The result for people."""
        what = (("recording", self.num_recordings), ("input", self.num_inputs), ("clip", self.num_clips))
        does = "would take down" if self.is_dry else "takes down"
        counts = ", ".join(counted(num, noun) for noun, num in what)
        lines = [f"corpus {self.corpus_uri}, snapshot {self.snapshot}: {does} {counts}, {hours(self.hours)} of clips"]
        for row in self.rules:
            takes = [counted(num, noun) for noun in ("recording", "input", "clip") if (num := row[f"num_{noun}s"])]
            lines.append(f"  {row['asked']}: {', '.join([*takes, *(['known already'] if row['is_known'] else [])])}")
        if self.other_sources:
            lines.append(f"  the same bytes came from {', '.join(map(repr, self.other_sources))} too: they go there as well")
        if self.copies:
            shown = ", ".join(self.copies[:SHOWN]) + (", …" if len(self.copies) > SHOWN else "")
            lines.append(
                f"  {counted(len(self.copies), 'clip')} with other bytes are copies of it and stay; name them too: {shown}"
            )
        for row in self.packs:
            before = f", {row['num_before']} were taken before" if row["num_before"] else ""
            lines.append(f"  pack {row['pack_uri']}: {counted(row['num_documents'], 'document')}{before}")
        for row in self.checkpoints:
            place = f"run {row['run_uri']}, checkpoint {row['name']} (stage {row['stage']}, step {row['step']})"
            seen = row["num_documents"]
            said = (
                "trained on another pack; give it with --pack to know"
                if seen is None
                else f"trained on {row['pack_uri']}, {seen}"
            )
            lines.append(f"  {place}: {said}" + (" of whose documents were taken down" if seen is not None else ""))
        return lines


def take_down(
    uri: str, rules: Sequence[Rule], reason: str, packs: Sequence[str] = (), runs: Sequence[str] = (), *, is_dry: bool = False
) -> TakedownResult:
    """Put tombstones on what the rules take, and have the packs' readers refuse its documents.

    Asked again, it finds what has come since and leaves the rest as it is; without rules, packs get the tombstones that are
    there. Raises RequestError, with nothing written, where a rule takes nothing that is or was there, or a pack or run is none.
    """
    opened = [Pack.open(pack) for pack in packs]
    trained = [checkpoint for run in runs for checkpoint in read_checkpoints(run)]
    while True:
        attempt = _Attempt(Corpus.open(uri), rules, reason, opened)
        snapshot = attempt.corpus.snapshot if is_dry else attempt.publish()
        if snapshot is not None:
            return attempt.result(snapshot.number, trained, is_dry)
        say("another run has published something meanwhile: starting again over all that there is now")


class _Overtaken(Exception):
    """Another run has published units since the snapshot was read: rules have to be held against those too."""


class _Attempt:
    """One attempt over one snapshot."""

    def __init__(self, corpus: Corpus, rules: Sequence[Rule], reason: str, packs: Sequence[Pack]) -> None:
        self.corpus, self._rules, self._reason, self._packs = corpus, rules, reason, packs
        self._before = corpus.tombstones
        self._decided_at = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        with progress() as bars:
            self._matches = find_matches(corpus, rules, bars)
        self._known = set(self._before.rules["takedown_id"].to_pylist())
        for rule, match in self._matches.items():
            if match.is_empty and rule.takedown_id not in self._known:
                raise RequestError(
                    f"{rule.asked} takes nothing: the corpus {corpus.store.uri!r} has no such thing; nothing was changed"
                )
        rules_after = pa.concat_tables([self._before.rules, self._new_rules()])
        found = (row for rule, match in self._matches.items() for row in tombstones_of(corpus, rule.takedown_id, match))
        self.after = replace(self._before, rules=rules_after).grown(found)
        self._keys = [find_documents(pack, self.after.recordings, self.after.cuts) for pack in packs]
        self._add_documents()

    def _new_rules(self) -> pa.Table:
        rows = [
            {
                "takedown_id": rule.takedown_id,
                "rule": rule.rule,
                "value": rule.value,
                "reason": self._reason,
                "decided_at": self._decided_at,
                "snapshot": self.corpus.snapshot.number,
            }
            for rule in self._rules
            if rule.takedown_id not in self._known
        ]
        return table_of(rows, TAKEDOWNS)

    def _add_documents(self) -> None:
        """What packs hold of it is known by its bytes too: their audio is another encoding than the corpus'."""
        whose = dict(zip(self.after.rows["recording_id"].to_pylist(), self.after.rows["takedown_id"].to_pylist(), strict=True))
        self.after = self.after.grown(
            {"takedown_id": whose[recording], "kind": "audio", "id": digest, "recording_id": recording}
            for pack, keys in zip(self._packs, self._keys, strict=True)
            for recording, digest in audio_digests(pack, keys)
        )

    def publish(self) -> Snapshot | None:
        """The snapshot with the tombstones, the packs' too; None when another takedown, or a build, was first."""
        corpus, snapshot = self.corpus, self.corpus.snapshot
        if self.after != self._before:
            try:
                with draft_takedowns(corpus, self.after) as draft:
                    published = draft.publish(snapshot.tables.get(TABLE), lambda made: self._hiding(made))
            except _Overtaken:
                return None
            if published is None:
                return None
            snapshot = published
        if self._rules:
            drop_snapshots(corpus.store, snapshot.number)
        return snapshot

    def _hiding(self, made: Snapshot) -> Snapshot:
        """The snapshot in which the tombstones hide what they are for, in every unit that it has.

        Raises _Overtaken where that is more than the rules were held against.
        """
        store = self.corpus.store
        if made.outputs.get(INGEST) != self.corpus.snapshot.outputs.get(INGEST):
            raise _Overtaken
        if made.holdings:
            rows = read_holdings(store, made.holdings)
        else:  # of an earlier version
            mark = made.current.get(INGEST, "")
            rows = held_by(self.corpus.tables, mark, made.outputs.get(INGEST, {}).get(mark, ()))
        return self.after.hidden(rows).in_snapshot(made)

    def result(self, snapshot: int, trained: Sequence[TrainedCheckpoint], is_dry: bool) -> TakedownResult:
        matched = list(self._matches.values())
        recordings = {r for match in matched for r in match.recordings}
        rules = self.after.rules.to_pylist()
        asked = {rule.takedown_id for rule in self._rules} or {row["takedown_id"] for row in rules}
        told = [row for row in rules if row["takedown_id"] in asked]
        reason = self._reason or "; ".join(dict.fromkeys(row["reason"] for row in told))
        why = TakenDocuments([row["takedown_id"].hex() for row in told], reason, self._decided_at.isoformat(), "", [])
        taken = [take_documents(*found, why, is_dry=is_dry) for found in zip(self._packs, self._keys, strict=True)]
        num_clips, clip_h, others = self._lost(recordings)
        return TakedownResult(
            self.corpus.store.uri,
            snapshot,
            is_dry,
            [self._told(rule, match) for rule, match in self._matches.items()],
            len(recordings),
            len({i for match in matched for i in match.inputs}),
            num_clips,
            clip_h,
            others,
            self._copies(),
            [
                {"pack_uri": row.pack_uri, "num_documents": len(row.keys), "num_before": row.num_before, "keys": row.keys}
                for row in taken
            ],
            [_trained_on(checkpoint, taken) for checkpoint in trained],
        )

    def _told(self, rule: Rule, match: Match) -> dict[str, Any]:
        return {
            "asked": rule.asked,
            "rule": rule.rule,
            "takedown_id": rule.takedown_id.hex(),
            "num_recordings": len(match.recordings),
            "num_inputs": len(match.inputs),
            "num_clips": len(match.clips),
            "is_known": rule.takedown_id in self._known,
        }

    def _lost(self, recordings: Collection[bytes]) -> tuple[int, float, list[str]]:
        """(clips of the current clip set that lie there and go, their hours, sources that no rule is about)."""
        corpus, matched = self.corpus, {i for match in self._matches.values() for i in match.inputs}
        cuts = {r for match in self._matches.values() for r, _ in match.clips.values()}
        committed, clips_of, others = Committed(corpus), clips_output(corpus.clip_set), set[str]()
        lengths_s: dict[bytes, float] = {}
        for unit in touched_units(corpus, [*recordings, *cuts], []):
            rows = [row for row in committed.inputs(unit) if row["recording_id"] in recordings]
            others |= {row["source"] for row in rows} - {row["source"] for row in rows if row["input_id"] in matched}
            if not corpus.has(clips_of, unit):
                continue
            columns = [*CLIP, "sample_rate_hz"]
            clips = corpus.tables.read(clips_of, corpus.fingerprint(clips_of), unit, "clips", columns)
            gone = pc.or_(
                pc.is_in(clips["recording_id"], value_set=pa.array([*recordings], ID)), pc.invert(self.after.shown(clips))
            )
            for clip in clips.filter(gone).to_pylist():
                lengths_s[clip["clip_id"]] = (clip["end_sample"] - clip["start_sample"]) / clip["sample_rate_hz"]
        return len(lengths_s), sum(lengths_s.values()) / 3600, sorted(others)

    def _copies(self) -> list[str]:
        """Clips that readers still see, of a group of copies of which some clip goes."""
        corpus, gone = self.corpus, pa.array(sorted(self.after.ids("clip")), ID)
        if DUPLICATES not in corpus.snapshot.tables:
            return []
        head = corpus.decision_table(DUPLICATES)
        places = [place for unit in corpus.snapshot.units if (place := head.held(head.roles[0], unit))]
        if not places:  # no unit of today was there when it was made
            return []
        rows = pa.concat_tables([corpus.tables.row_group(place, ["clip_id", "group_id"]) for place in places])
        is_gone = pc.is_in(rows["clip_id"], value_set=gone)
        groups = rows.filter(is_gone)["group_id"].drop_null().unique()
        left = rows.filter(pc.and_(pc.invert(is_gone), pc.is_in(rows["group_id"], value_set=groups)))
        return sorted(clip.hex() for clip in left["clip_id"].to_pylist())


def _trained_on(checkpoint: TrainedCheckpoint, packs: Sequence[TakenFromPack]) -> dict[str, Any]:
    found = [(pack.pack_uri, num) for pack in packs if (num := pack.num_trained_on(checkpoint)) is not None]
    uri, num = found[0] if found else (None, None)
    return {**asdict(checkpoint), "pack_uri": uri, "num_documents": num}
