"""``manifest rights``: what each source says of its rights, in hours, and where it says nothing or contradicts itself.

A recording counts for every source that an input of its bytes names; in the totals it counts once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manifests.console import aligned, counted, hours, progress
from manifests.corpus import Corpus, UnitView
from manifests.facts import consent_of
from manifests.licences import Licence, compared_licence, find_licence

CLAIM = ["uri", "source", "licence", "consent", "terms", "attribution", "origin_uri", "recording_id"]
QUESTIONS = {"commercial": "allows_commercial", "derivatives": "allows_derivatives", "share_alike": "is_share_alike"}
GAPS = ("no_licence", "conflicting_licences", "no_consent", "consent_withheld", "no_attribution", "no_origin")
SHOWN = 20  # conflicts in full
SHOWN_LICENCES, CELL_CHARS = 2, 28  # of a line of the table
Row = Mapping[str, Any]
Seconds = defaultdict[Any, float]  # by what was said; None where nothing was


@dataclass
class SourceLedger:
    """Hours of one source, or of all together, by what was said."""

    source: str
    num_inputs: int = 0
    num_recordings: int = 0
    seconds: float = 0.0
    licences: Seconds = field(default_factory=lambda: defaultdict(float))
    consents: Seconds = field(default_factory=lambda: defaultdict(float))
    terms: Seconds = field(default_factory=lambda: defaultdict(float))
    attributions: Seconds = field(default_factory=lambda: defaultdict(float))
    origins: Seconds = field(default_factory=lambda: defaultdict(float))
    answers: Seconds = field(default_factory=lambda: defaultdict(float))  # of (question, yes | no | unknown)
    gaps: Seconds = field(default_factory=lambda: defaultdict(float))

    def add(self, claims: Sequence[Row], seconds: float, is_conflicting: bool) -> None:
        """A recording, and what its inputs say."""
        licence, consent = next(iter(_licences(claims)), None), consent_of(row["consent"] for row in claims)
        known = None if is_conflicting else find_licence(licence)
        self.num_recordings += 1
        self.seconds += seconds
        self.licences[licence] += seconds
        self.consents[consent] += seconds
        for name, counts in (("terms", self.terms), ("attribution", self.attributions), ("origin_uri", self.origins)):
            if (text := _first(claims, name)) is not None:
                counts[text] += seconds
        for question, name in QUESTIONS.items():
            self.answers[question, _answer(known, name)] += seconds
        holds = {
            "no_licence": licence is None,
            "conflicting_licences": is_conflicting,
            "no_consent": consent in (None, "unknown"),
            "consent_withheld": consent == "withheld",
            "no_attribution": bool(known and known.needs_attribution and _first(claims, "attribution") is None),
            "no_origin": _first(claims, "origin_uri") is None,
        }
        for name in GAPS:
            self.gaps[name] += seconds * holds[name]

    def to_json(self) -> dict[str, Any]:
        def by(counts: Seconds) -> list[dict[str, Any]]:
            return [{"value": value, "hours": counts[value] / 3600} for value in _ordered(counts)]

        return {
            "source": self.source,
            "num_inputs": self.num_inputs,
            "num_recordings": self.num_recordings,
            "hours": self.seconds / 3600,
            "licences": by(self.licences),
            "consents": by(self.consents),
            "terms": by(self.terms),
            "attributions": by(self.attributions),
            "origins": by(self.origins),
            "allows": {
                question: {answer: self.answers[question, answer] / 3600 for answer in ("yes", "no", "unknown")}
                for question in QUESTIONS
            },
            "gap_hours": {name: self.gaps[name] / 3600 for name in GAPS},
        }

    def cells(self) -> list[str]:
        """One line of the table for people: long words are cut, and a gap of all its hours has no figure."""
        gaps = ", ".join(self._gap(name) for name in GAPS if self.gaps[name])
        licences = [_cut(licence or "none") for licence in _ordered(self.licences)]
        more = [f"{len(licences) - SHOWN_LICENCES} more"] if len(licences) > SHOWN_LICENCES else []
        return [
            _cut(self.source),
            hours(self.seconds / 3600),
            " | ".join([*licences[:SHOWN_LICENCES], *more]),
            " | ".join(consent or "not said" for consent in _ordered(self.consents)),
            *(self._said(question) for question in QUESTIONS),
            gaps or "-",
        ]

    def _gap(self, name: str) -> str:
        is_whole = abs(self.gaps[name] - self.seconds) < 1e-6
        return name if is_whole else f"{name} {hours(self.gaps[name] / 3600)}"

    def _said(self, question: str) -> str:
        return " | ".join(answer for answer in ("yes", "no", "unknown") if self.answers[question, answer])


def _cut(word: str) -> str:
    return word if len(word) <= CELL_CHARS else f"{word[: CELL_CHARS - 1]}…"


@dataclass(frozen=True)
class RightsLedger:
    """The sources by their names, all of them together, and equal bytes under several licences."""

    corpus_uri: str
    snapshot: int
    sources: list[SourceLedger]
    total: SourceLedger
    conflicts: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        rows = [source.to_json() for source in self.sources]
        head = {"corpus_uri": self.corpus_uri, "snapshot": self.snapshot}
        return {**head, "sources": rows, "total": self.total.to_json(), "conflicts": self.conflicts}

    def lines(self) -> list[str]:
        """The ledger for people."""
        total = self.total
        lines = [
            f"corpus {self.corpus_uri}, snapshot {self.snapshot}: {counted(len(self.sources), 'source')}, "
            f"{counted(total.num_recordings, 'recording')}, {hours(total.seconds / 3600)}"
        ]
        head = ["source", "hours", "licence", "consent", *(question.replace("_", " ") for question in QUESTIONS), "gaps"]
        lines += aligned([head, *(source.cells() for source in self.sources)])
        lines += [
            f"recording {row['recording_id']}: licences {' | '.join(row['licences'])}; settle which one holds ({', '.join(row['uris'])})"
            for row in self.conflicts[:SHOWN]
        ]
        more = len(self.conflicts) - SHOWN
        return [*lines, f"{more} more, all in --json"] if more > 0 else lines


def read_ledger(corpus: Corpus) -> RightsLedger:
    """The ledger of a snapshot; what readers do not see is not in it."""
    sources, total, conflicts = dict[str, SourceLedger](), SourceLedger("all"), list[dict[str, Any]]()
    for recording, seconds, claims in _recordings(corpus, sources):
        licences = sorted(_licences(claims))
        if len(licences) > 1:
            conflicts.append({"recording_id": recording.hex(), "licences": licences, "uris": [row["uri"] for row in claims]})
        total.add(claims, seconds, len(licences) > 1)
        for name in dict.fromkeys(row["source"] for row in claims):
            own = [row for row in claims if row["source"] == name]
            sources[name].add(own, seconds, len(licences) > 1)
    total.num_inputs = sum(source.num_inputs for source in sources.values())
    ordered = [sources[name] for name in sorted(sources)]
    return RightsLedger(corpus.store.uri, corpus.snapshot.number, ordered, total, conflicts)


def _recordings(corpus: Corpus, sources: dict[str, SourceLedger]) -> Iterator[tuple[bytes, float, list[Row]]]:
    """Each recording with its seconds and its inputs' rows, in plan order; counts the inputs of each source on the way."""
    shared = {bytes.fromhex(recording) for recordings in corpus.snapshot.shadowed.values() for recording in recordings}
    held: dict[bytes, list[Row]] = {recording: [] for recording in shared}
    lengths_s: dict[bytes, float] = {}
    with progress() as bars:
        bar = bars.task("rights", len(corpus.snapshot.units), "units")
        for view in corpus.views():
            claims = _claims(view, sources)
            for recording, seconds in _lengths_s(view):
                if recording in shared:
                    lengths_s[recording] = seconds
                else:
                    yield recording, seconds, claims[recording]
            for recording in claims.keys() & shared:
                held[recording] += claims[recording]
            bar.advance()
    for recording, seconds in lengths_s.items():
        yield recording, seconds, held[recording]


def _claims(view: UnitView, sources: dict[str, SourceLedger]) -> dict[bytes, list[Row]]:
    found: dict[bytes, list[Row]] = {}
    for row in view.inputs(CLAIM).to_pylist():
        sources.setdefault(row["source"], SourceLedger(row["source"])).num_inputs += 1
        if row["recording_id"] is not None:
            found.setdefault(row["recording_id"], []).append(row)
    return found


def _lengths_s(view: UnitView) -> Iterator[tuple[bytes, float]]:
    for row in view.recordings(["recording_id", "num_samples", "sample_rate_hz"]).to_pylist():
        yield row["recording_id"], row["num_samples"] / row["sample_rate_hz"]


def _ordered(counts: Seconds) -> list[Any]:
    """What was said, by hours."""
    return sorted(counts, key=lambda value: (-counts[value], str(value)))


def _licences(claims: Sequence[Row]) -> list[str]:
    """What the claims state, each licence once, in their order."""
    stated = (compared_licence(row["licence"]) for row in claims)
    return list(dict.fromkeys(licence for licence in stated if licence is not None))


def _first(claims: Sequence[Row], name: str) -> str | None:
    return next((row[name] for row in claims if row[name] is not None), None)


def _answer(licence: Licence | None, name: str) -> str:
    return "unknown" if licence is None else "yes" if getattr(licence, name) else "no"
