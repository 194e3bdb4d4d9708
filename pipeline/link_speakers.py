"""``corpus link-speakers``: one person found again across recordings, as the decision table ``speaker_id``.

The voices of units that the table does not know yet are linked with one another and with the persons that it knows
(``pipeline.speaker_linking``). A person keeps its id for good: a voice joins it or founds another, and rows of units that
were linked before stay as they are. Of two ids that prove to be one person the older stays and the other becomes its alias.
Whom diarization told apart within a recording is never made one.

Tables by role: ``clips`` (CLIP_SPEAKERS, by unit), ``speakers`` (SPEAKERS, the oldest first), ``aliases`` (SPEAKER_ALIASES).
In memory are a vector a person and a new voice, and four bytes a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.clip_rows import SPEAKERS_TABLE, speaker_aliases
from manifests.compacted import CompactedPart
from manifests.console import Progress, counted, progress
from manifests.corpus import Corpus, UnitView
from manifests.decision_tables import DecisionTable, Draft, until_published
from manifests.errors import RequestError
from manifests.ids import digest_json
from manifests.lineage import fingerprint
from manifests.schema import CLIP_SPEAKERS, ID, SPEAKER_ALIASES, SPEAKERS
from manifests.snapshots import clips_output, layer_output
from pipeline.new_voices import NewVoices, read_new_voices, scenes_of, together
from pipeline.people import LENGTHS, People, Tally
from pipeline.speaker_linking import TYPICAL, VoiceMeans, link
from pipeline.voices import COLUMNS, EMBEDDING, Embeddings

VERSION = "1"  # rises when the same clips would be linked otherwise
THRESHOLD = 0.74  # docs/quality.md, topic speakers


@dataclass(frozen=True)
class LinkResult:
    """What a run linked. ``num_clips`` of the corpus have an id, ``num_unknown`` none."""

    corpus_uri: str
    snapshot: int
    fingerprint: str
    threshold: float
    is_new: bool  # False when there was nothing to link
    num_units: int  # looked at
    num_voices: int  # found in them
    num_speakers: int
    num_found: int  # speakers that were not there before
    num_merged: int  # ids that became aliases
    num_clips: int
    num_unknown: int

    def lines(self) -> list[str]:
        """The result for people."""
        what = f"{counted(self.num_speakers, 'speaker')} ({self.fingerprint}), threshold {self.threshold:g}"
        head = f"corpus {self.corpus_uri}, snapshot {self.snapshot}: {what}"
        if not self.is_new:
            return [head, "nothing to link: the table knows every unit"]
        return [
            head,
            f"  {counted(self.num_voices, 'voice')} in {counted(self.num_units, 'unit')}: "
            f"{counted(self.num_found, 'new speaker')}, {counted(self.num_merged, 'id')} merged",
            f"  {counted(self.num_clips, 'clip')} with a speaker, {self.num_unknown:,} without",
        ]


def link_speakers(
    uri: str,
    layer: str = "speaker_embedding",
    threshold: float | None = None,
    *,
    is_anew: bool = False,
    num_threads: int = 1,
) -> LinkResult:
    """Bring the table up to the newest snapshot. Without a ``threshold`` the table's own holds, or THRESHOLD.

    ``is_anew`` forgets the table that is there, ids and aliases. Raises RequestError where the layer is not there, or the
    table was made by another layer or threshold.
    """
    return until_published(lambda: _Run(Corpus.open(uri), layer, threshold, is_anew, num_threads).execute(), "linked speakers")


class _Run:
    """One attempt over one snapshot."""

    def __init__(self, corpus: Corpus, layer: str, threshold: float | None, is_anew: bool, num_threads: int) -> None:
        self._corpus, self._layer, self._num_threads = corpus, layer, num_threads
        there = corpus.decision_table(SPEAKERS_TABLE) if SPEAKERS_TABLE in corpus.snapshot.tables else None
        self._parent = None if is_anew else there
        given = there.parameters["threshold"] if there and not is_anew else THRESHOLD
        self._threshold = given if threshold is None else threshold
        if not 0 < self._threshold < TYPICAL:
            raise RequestError(
                f"threshold {self._threshold:g}: clips of one person have a cosine of {TYPICAL} on average; stay above 0 and below {TYPICAL}"
            )
        self._reads = self._checked_reads()
        self._check_parent()
        units = corpus.snapshot.units
        linked = {unit for unit in units if self._parent and self._parent.find("clips", unit, corpus.snapshot)}
        self._fresh = [unit for unit in units if unit not in linked]
        self._gone = self._parent.units - linked if self._parent else set()  # what rows of them say counts no more

    def _checked_reads(self) -> dict[str, str]:
        corpus, layers = self._corpus, self._corpus.layers()
        if self._layer not in layers:
            raise RequestError(
                f"layer {self._layer!r} is not in the corpus, which has {', '.join(layers) or 'none'}; mend the name, or add a layer of speaker "
                f"embeddings with `stepwell corpus annotate {corpus.store.uri} --layer speaker_embedding`"
            )
        output = layer_output(corpus.clip_set, self._layer)
        lacking = [unit for unit in corpus.snapshot.units if not corpus.has(output, unit)]
        if lacking:
            raise RequestError(
                f"layer {self._layer!r} lacks {len(lacking)} of {len(corpus.snapshot.units)} units; build again to finish it"
            )
        for unit in corpus.snapshot.units[:1]:
            if missing := {*EMBEDDING} - {*UnitView(corpus, unit).layer(self._layer).column_names}:
                raise RequestError(f"layer {self._layer!r} has no column {min(missing)!r}; name one of speaker embeddings")
        return {output: corpus.fingerprint(output) for output in (clips_output(corpus.clip_set), output)}

    def _check_parent(self) -> None:
        there = {**self._parent.reads, **self._parent.parameters} if self._parent else {}
        for name, asked in {**self._reads, **self._parameters}.items() if there else ():
            if there.get(name) != asked:
                raise RequestError(
                    f"table {SPEAKERS_TABLE!r} was made with {name} {there.get(name)}, asked is {asked}: the ids of both would not go "
                    "together; keep to what it was made with, or give --anew to forget them"
                )

    @property
    def _parameters(self) -> dict[str, Any]:
        return {"threshold": self._threshold}

    @property
    def _fingerprint(self) -> str:
        snapshot = self._corpus.snapshot
        parent = {"parent": self._parent.fingerprint} if self._parent else {}
        reads = {**self._reads, "units": digest_json([snapshot.units, snapshot.shadowed]), **parent}
        return fingerprint(SPEAKERS_TABLE, VERSION, self._parameters, reads=reads)

    def execute(self) -> LinkResult | None:
        """None when another run has published a table meanwhile."""
        if self._parent is not None and not self._fresh and not self._gone:
            return self._nothing_new(self._parent)
        head = DecisionTable(
            SPEAKERS_TABLE,
            self._fingerprint,
            self._corpus.snapshot.number,
            self._reads,
            self._parameters,
            self._parent.fingerprint if self._parent else None,
            self._corpus.snapshot.shadowed,
            parts=self._kept_parts(),
        )
        with progress() as bars, Draft(self._corpus.store, head) as draft:
            return self._make(draft, bars)

    def _make(self, draft: Draft, bars: Progress) -> LinkResult | None:
        known = People.read(self._corpus.store, self._parent.wholes["speakers"].path if self._parent else None)
        voices = self._read_voices(bars)
        people, person_N = self._linked(known, voices, bars)
        tally = Tally(len(people.ids))
        self._write_rows(draft, people, voices, person_N, tally, bars)
        self._count_linked(people, tally, bars)
        draft.put("speakers", people.rows(tally), SPEAKERS)
        draft.put("aliases", [self._alias_rows(people)], SPEAKER_ALIASES)
        published = draft.publish(self._corpus.snapshot.tables.get(SPEAKERS_TABLE))
        if published is None:
            return None
        num_living = len(people.living)
        num_found = len(people.ids) - len(known.ids)
        return LinkResult(
            self._corpus.store.uri,
            published.number,
            self._fingerprint,
            self._threshold,
            is_new=True,
            num_units=len(self._fresh),
            num_voices=len(person_N),
            num_speakers=num_living,
            num_found=num_found,
            num_merged=len(people.ids) - num_living,
            num_clips=int(tally.num_clips.sum()),
            num_unknown=tally.num_unknown,
        )

    def _nothing_new(self, there: DecisionTable) -> LinkResult:
        speakers = self._corpus.decisions(SPEAKERS_TABLE, "speakers", ["num_clips"])
        num_clips = pc.sum(speakers["num_clips"]).as_py() or 0
        num_all = sum(view.clips(["channel"]).num_rows for view in self._corpus.views())
        return LinkResult(
            self._corpus.store.uri,
            self._corpus.snapshot.number,
            there.fingerprint,
            self._threshold,
            is_new=False,
            num_units=0,
            num_voices=0,
            num_speakers=speakers.num_rows,
            num_found=0,
            num_merged=0,
            num_clips=num_clips,
            num_unknown=num_all - num_clips,
        )

    def _kept_parts(self) -> list[CompactedPart]:
        """The rows of the table before that still count."""
        parts = [part.without(self._gone) for part in self._parent.parts] if self._parent else []
        return [part for part in parts if part.units]

    def _read_voices(self, bars: Progress) -> NewVoices:
        """The voices of the units that the table does not know."""
        bar = bars.task("speakers: voices", len(self._fresh), "units")
        return read_new_voices(self._fresh_embeddings(), self._threshold, self._ids_before(), bar.advance)

    def _ids_before(self) -> dict[bytes, bytes]:
        """Clip -> the id that it had, of units whose rows count no more: a recording may belong to another unit by now."""
        found: dict[bytes, bytes] = {}
        for unit in sorted(self._gone):
            where = self._parent.held("clips", unit) if self._parent else None
            if where is not None:
                rows = self._corpus.tables.row_group(where, ["clip_id", "speaker_id"])
                rows = rows.filter(pc.is_valid(rows["speaker_id"]))
                found |= dict(zip(rows["clip_id"].to_pylist(), rows["speaker_id"].to_pylist(), strict=True))
        return found

    def _fresh_embeddings(self) -> Iterator[tuple[UnitView, Embeddings]]:
        for unit in self._fresh:
            view = UnitView(self._corpus, unit)
            yield view, Embeddings.of(view.layer(self._layer, EMBEDDING))

    def _linked(self, known: People, voices: NewVoices, bars: Progress) -> tuple[People, np.ndarray]:
        """The persons with those that were found, and the person of each voice."""
        num_known, places = len(known.ids), self._places(known)
        person_N = np.full(len(voices.ids), -1)
        for voice, speaker_id in voices.given.items():
            person_N[voice] = places[speaker_id]
        free = np.flatnonzero(person_N < 0)
        sounds = VoiceMeans.concatenated([known.sounds, voices.sounds.take(free)])
        bar = bars.task("speakers: link", 0, "searches")

        def advance(done: int, more: int) -> None:
            bar.total += more
            bar.advance(done)

        is_new_N = np.arange(len(sounds)) >= num_known
        place_N = person_N.copy()  # of each voice among those that are linked: itself, or the person that it is known to be
        place_N[free] = np.arange(num_known, len(sounds))
        told_apart = [
            *self._known_apart(places, bars),
            *([int(place_N[voice]) for voice in group] for group in voices.told_apart),
        ]
        first_N = link(sounds, self._threshold, is_new_N, scenes_of(told_apart), num_threads=self._num_threads, advance=advance)
        founders = np.flatnonzero((first_N == np.arange(len(first_N))) & is_new_N)
        kept = np.concatenate([np.arange(num_known), founders])
        now_N = np.where(first_N < num_known, first_N, num_known + np.searchsorted(founders, first_N))
        person_N[free] = now_N[num_known:]
        person_N = np.where(person_N < num_known, now_N[person_N], person_N)
        ids = [*known.ids, *(voices.ids[voice] for voice in free[founders - num_known])]
        since = [*known.since, *[self._corpus.snapshot.number] * len(founders)]
        return People(ids, since, sounds.take(kept), now_N[kept]), person_N

    def _known_apart(self, places: Mapping[bytes, int], bars: Progress) -> Iterator[list[int]]:
        """Persons of one recording and channel, of the units that were linked before."""
        for view in self._linked_views(bars, "speakers: known"):
            scenes = zip(*(column.to_pylist() for column in view.clips(COLUMNS[1:]).columns), strict=True)
            ids = view.decisions(SPEAKERS_TABLE, "clips", ["speaker_id"])["speaker_id"].to_pylist()
            labelled = ((scene, speaker) for scene, speaker in zip(scenes, ids, strict=True) if scene[2] is not None and speaker)
            yield from together((scene[:2], places[speaker]) for scene, speaker in labelled)

    def _linked_views(self, bars: Progress, title: str) -> Iterator[UnitView]:
        """The units that were linked before."""
        fresh = set(self._fresh)
        bar = bars.task(title, len(self._corpus.snapshot.units) - len(fresh), "units")
        for view in self._corpus.views():
            if view.unit_id not in fresh:
                yield view
                bar.advance()

    def _places(self, people: People) -> dict[bytes, int]:
        """Id, also one that is an alias by now -> the person's place."""
        places = {speaker_id: int(now) for speaker_id, now in zip(people.ids, people.now, strict=True)}
        if self._parent is not None:
            places |= {alias: places[speaker_id] for alias, speaker_id in speaker_aliases(self._corpus).items()}
        return places

    def _write_rows(
        self, draft: Draft, people: People, voices: NewVoices, person_N: np.ndarray, tally: Tally, bars: Progress
    ) -> None:
        """CLIP_SPEAKERS of the units that the table did not know."""
        bar = bars.task("speakers: write", len(self._fresh), "units")
        for (view, embeddings), voice_C in zip(self._fresh_embeddings(), voices.of_clips, strict=True):
            person_C = np.append(person_N, -1)[voice_C]  # voice -1 is nobody
            has_both = (embeddings.rows >= 0) & (person_C >= 0)
            similarity_C = np.zeros(len(person_C), np.float32)
            if has_both.any():  # without an embedded clip nobody knows how wide a vector is
                vectors_MD = embeddings.vectors[embeddings.rows[has_both]]
                similarity_C[has_both] = np.einsum("md,md->m", vectors_MD, people.sounds.means[person_C[has_both]])
            columns = [
                view.clips(["clip_id"])["clip_id"],
                pa.array([people.ids[person] if person >= 0 else None for person in person_C.tolist()], ID),
                pa.array(similarity_C, mask=~has_both),
            ]
            draft.append("clips", view.unit_id, pa.table(columns, names=CLIP_SPEAKERS.names), CLIP_SPEAKERS)
            tally.add(view.clips(LENGTHS), person_C)
            bar.advance()

    def _count_linked(self, people: People, tally: Tally, bars: Progress) -> None:
        """Count the clips of the units that were linked before."""
        places = self._places(people)
        for view in self._linked_views(bars, "speakers: count"):
            ids = view.decisions(SPEAKERS_TABLE, "clips", ["speaker_id"])["speaker_id"].to_pylist()
            tally.add(view.clips(LENGTHS), np.array([places.get(speaker_id, -1) for speaker_id in ids], np.int64))

    def _alias_rows(self, people: People) -> pa.Table:
        """Those of the table before, brought to who counts now, and those that were merged."""
        before = self._corpus.decisions(SPEAKERS_TABLE, "aliases") if self._parent else SPEAKER_ALIASES.empty_table()
        places = self._places(people)
        merged = np.flatnonzero(people.now != np.arange(len(people.ids))).tolist()
        ids = [*before["alias"].to_pylist(), *(people.ids[person] for person in merged)]
        since = [*before["since_snapshot"].to_pylist(), *[self._corpus.snapshot.number] * len(merged)]
        return pa.table([ids, [people.ids[places[alias]] for alias in ids], since], schema=SPEAKER_ALIASES)
