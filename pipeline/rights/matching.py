"""What a takedown takes: from rules to recordings, spans, inputs, and the digests by which they are known.

A rule on inputs (their id, address, source, speaker) takes the bytes: the recording, and every other input of it. A rule
on clips, or on who was found to speak, takes spans; a recording in which nobody else was found goes as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests.audio import PIECE_S, piece_name
from manifests.clip_rows import speaker_aliases
from manifests.console import Progress
from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.ids import digest_bytes
from manifests.schema import ID, SAID
from manifests.snapshots import INGEST, layer_output
from manifests.tars import read_index, read_member
from manifests.tombstones import Cut, NameRule, name_digest
from pipeline.holdings import held_by, read_holdings
from pipeline.speaker_ids import clip_speakers

ID_RULES = ("recording", "clip", "input")
CLIP = ["clip_id", "recording_id", "channel", "start_sample", "end_sample"]
_ID = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True)
class Rule:
    """One rule of a request. ``value`` is what is kept of it: of a speaker's name the digest alone."""

    rule: str
    value: str
    asked: str  # as the request said it

    @property
    def takedown_id(self) -> bytes:
        return digest_bytes(f"{self.rule}:{self.value}".encode())

    @staticmethod
    def parse(option: str, value: str) -> Rule:
        """From an option (``recording``, ``speaker``, …) and its value. Raises RequestError for an id that is none."""
        asked = f"--{option.replace('_', '-')} {value}"
        if option in ID_RULES and not _ID.fullmatch(value):
            raise RequestError(f"{asked}: an id has 32 hexadecimal digits; `stepwell manifest show` prints them")
        if option == "speaker":
            is_id = _ID.fullmatch(value) is not None
            return Rule("speaker_id", value.lower(), asked) if is_id else Rule("speaker", name_digest(value).hex(), asked)
        return Rule(option, value.lower() if option in ID_RULES else value, asked)


@dataclass
class Match:
    """What one rule takes."""

    recordings: set[bytes] = field(default_factory=set)
    inputs: set[bytes] = field(default_factory=set)
    clips: dict[bytes, tuple[bytes, Cut]] = field(default_factory=dict)  # clip -> recording, span
    people: set[bytes] = field(default_factory=set)  # speaker ids, aliases too

    @property
    def is_empty(self) -> bool:
        return not (self.recordings or self.inputs or self.clips)


def find_matches(corpus: Corpus, rules: Sequence[Rule], bars: Progress) -> dict[Rule, Match]:
    """What each rule takes of the snapshot. What was taken down before is found again, as long as it lies there."""
    found = {rule: Match() for rule in rules}
    of_inputs = [rule for rule in rules if rule.rule not in ("clip", "speaker_id")]
    of_clips = {bytes.fromhex(rule.value): found[rule] for rule in rules if rule.rule == "clip"}
    people = _people(corpus, [rule for rule in rules if rule.rule == "speaker_id"])
    committed = Committed(corpus)
    bar = bars.task("takedown: look", len(corpus.snapshot.units), "units")
    for view in corpus.views():
        for row in committed.inputs(view.unit_id) if of_inputs else ():
            for rule in of_inputs:
                if _holds(rule, row):
                    found[rule].inputs.add(row["input_id"])
                    found[rule].recordings |= {row["recording_id"]} - {None}
        for clip in committed.clips(view.unit_id) if of_clips else ():
            if (match := of_clips.get(clip["clip_id"])) is not None:
                match.clips[clip["clip_id"]] = (clip["recording_id"], _cut(clip))
        if people:
            _add_speech(view, people, found)
        bar.advance()
    return found


def _holds(rule: Rule, row: Mapping[str, Any]) -> bool:
    if rule.rule in ("recording", "input"):
        identity = row[f"{rule.rule}_id"]
        return identity is not None and identity.hex() == rule.value
    return NameRule(rule.rule, rule.value).holds(row["uri"], row["source"], row["speaker_label"])


def _people(corpus: Corpus, rules: Sequence[Rule]) -> dict[bytes, Rule]:
    """Speaker id that counts now -> the rule. Raises RequestError where nobody has linked speakers."""
    now = speaker_aliases(corpus) if rules else {}
    return {now.get(value, value): rule for rule in rules for value in [bytes.fromhex(rule.value)]}


def _add_speech(view: UnitView, people: Mapping[bytes, Rule], found: Mapping[Rule, Match]) -> None:
    """The clips that the persons speak; a recording where nobody else was found counts as a whole."""
    by_recording: dict[bytes, list[tuple[bytes | None, dict[str, Any]]]] = {}
    for speaker, clip in zip(clip_speakers(view), view.clips(CLIP).to_pylist(), strict=True):
        by_recording.setdefault(clip["recording_id"], []).append((speaker, clip))
    for recording, clips in by_recording.items():
        heard = {speaker for speaker, _ in clips if speaker is not None}
        for person in heard & people.keys():
            match = found[people[person]]
            match.people |= {person, *(alias for alias, now in speaker_aliases(view.corpus).items() if now == person)}
            if heard == {person}:
                match.recordings.add(recording)
            else:
                match.clips |= {clip["clip_id"]: (recording, _cut(clip)) for speaker, clip in clips if speaker == person}


def _cut(clip: Mapping[str, Any]) -> Cut:
    return Cut(clip["channel"], clip["start_sample"], clip["end_sample"])


def tombstones_of(corpus: Corpus, takedown_id: bytes, match: Match) -> Iterator[dict[str, Any]]:
    """TOMBSTONES of what one takedown takes: ids, spans, and the digests of addresses, stored audio and texts."""

    def row(kind: str, identity: bytes, recording: bytes | None, cut: Cut | None = None) -> dict[str, Any]:
        return {"takedown_id": takedown_id, "kind": kind, "id": identity, "recording_id": recording} | (
            cut._asdict() if cut else {}
        )

    yield from (row("speaker", person, None) for person in sorted(match.people))
    yield from (row("recording", recording, recording) for recording in sorted(match.recordings))
    for identity, (recording, cut) in sorted(match.clips.items()):
        if recording not in match.recordings:
            yield row("clip", identity, recording, cut)
    cuts: dict[bytes, list[Cut]] = {}
    for recording, cut in match.clips.values():
        cuts.setdefault(recording, []).append(cut)
    committed = Committed(corpus)
    for unit in touched_units(corpus, [*match.recordings, *cuts], match.inputs):
        for item in committed.inputs(unit):
            is_gone = item["recording_id"] in match.recordings or item["input_id"] in match.inputs
            if is_gone:
                yield row("input", item["input_id"], item["recording_id"])
                yield row("uri", name_digest(item["uri"]), item["recording_id"])
            for text in (item[name] for name in SAID if is_gone or item["recording_id"] in cuts):
                if text:
                    yield row("text", name_digest(text), item["recording_id"])
        gone: dict[bytes, bytes] = {}
        for clip in committed.clips(unit):
            recording, cut = clip["recording_id"], _cut(clip)
            if recording in match.recordings or any(cut.overlaps(*other) for other in cuts.get(recording, ())):
                gone[clip["clip_id"]] = recording
        yield from (row("clip", identity, recording) for identity, recording in gone.items() if identity not in match.clips)
        for identity, text in committed.texts(unit, gone.keys()):
            yield row("text", name_digest(text), gone[identity])
        for recording, data in committed.pieces(unit, match.recordings, cuts):
            yield row("audio", digest_bytes(data), recording)


def touched_units(corpus: Corpus, recordings: Iterable[bytes], inputs: Iterable[bytes]) -> list[str]:
    """Units that hold some of the recordings or inputs, hidden or not, in plan order."""
    snapshot = corpus.snapshot
    if snapshot.holdings:
        rows = read_holdings(corpus.store, snapshot.holdings)
    else:
        done = [unit for unit in snapshot.units if corpus.has(INGEST, unit)]
        rows = held_by(corpus.tables, corpus.fingerprint(INGEST), done)
    is_touched = pc.or_(
        pc.is_in(rows["recording_id"], value_set=pa.array([*recordings], ID)),
        pc.is_in(rows["input_id"], value_set=pa.array([*inputs], ID)),
    )
    return sorted(set(rows.filter(is_touched)["unit"].to_pylist()))


class Committed:
    """What units committed, also what no reader sees any more."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus, self._tables = corpus, corpus.tables
        self._cut = {
            (output, mark): set(units)
            for output, made in corpus.snapshot.outputs.items()
            for mark, units in made.items()
            if output.startswith("clips/")
        }

    def inputs(self, unit: str) -> list[dict[str, Any]]:
        """INPUTS."""
        return self._ingested(unit, "inputs", ["input_id", "uri", "source", "speaker_label", *SAID, "recording_id"])

    def clips(self, unit: str) -> Iterator[dict[str, Any]]:
        """CLIPS of every clip set that the unit was ever cut into."""
        for (output, mark), units in self._cut.items():
            if unit in units:
                yield from self._tables.read(output, mark, unit, "clips", CLIP).to_pylist()

    def texts(self, unit: str, clips: Collection[bytes]) -> Iterator[tuple[bytes, str]]:
        """(clip, text) of these clips in the layers of the current clip set."""
        for name in self._corpus.layers() if clips else ():
            output = layer_output(self._corpus.clip_set, name)
            if not self._corpus.has(output, unit):
                continue
            rows = self._tables.read(output, self._corpus.fingerprint(output), unit, "layer")
            if "text" in rows.column_names and pa.types.is_string(rows.schema.field("text").type):
                for row in rows.select(["clip_id", "text"]).to_pylist():
                    if row["clip_id"] in clips and row["text"]:
                        yield row["clip_id"], row["text"]

    def pieces(
        self, unit: str, recordings: Collection[bytes], cuts: Mapping[bytes, Sequence[Cut]]
    ) -> Iterator[tuple[bytes, bytes]]:
        """(recording, FLAC bytes) of the stored pieces of the recordings, and of those that the cuts touch."""
        names: dict[str, bytes] = {}
        columns = ["recording_id", "num_samples", "sample_rate_hz", "num_channels", "heard_channels"]
        for row in self._ingested(unit, "recordings", columns):
            recording, size = row["recording_id"], PIECE_S * row["sample_rate_hz"]
            for channel in range(row["num_channels"]):
                spans = [(0, row["num_samples"])] if recording in recordings else []
                spans += [cut[1:] for cut in cuts.get(recording, ()) if cut.is_in(channel, row["heard_channels"])]
                pieces = {piece for start, end in spans for piece in range(start // size, -(-end // size))}
                names |= {piece_name(recording, channel, piece): recording for piece in pieces}
        for tar in UnitView(self._corpus, unit).audio_tars() if names else ():
            for member in read_index(self._corpus.store, tar):
                if member.name in names:
                    yield names[member.name], read_member(self._corpus.store, tar, member)

    def _ingested(self, unit: str, role: str, columns: list[str]) -> list[dict[str, Any]]:
        if not self._corpus.has(INGEST, unit):
            return []
        rows = self._tables.read(INGEST, self._corpus.fingerprint(INGEST), unit, role, columns)
        return list(rows.to_pylist())
