"""What the inputs say of recordings, put together over all inputs of the same bytes, as tables.

A recording belongs to one unit; others may hold inputs of the same bytes (``Snapshot.shadowed``), and what those say
counts as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.licences import compared_licences
from manifests.schema import CONSENTS, INPUTS
from manifests.snapshots import INGEST


class FactsReader:
    """Facts of the recordings of one snapshot. Threads may share one."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        # recording -> units that hold an input of its bytes without owning it
        self._guests: dict[bytes, list[str]] = {}
        for unit, recordings in corpus.snapshot.shadowed.items():
            for recording in recordings:
                self._guests.setdefault(bytes.fromhex(recording), []).append(unit)

    def of_units(self, units: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """``first_known`` of ``inputs``, a row a recording: whole for those that the units own. Of others of which they hold an
        input there is a row too, without what their owners say."""
        return first_known(self.inputs(units, ["recording_id", *columns]), columns)

    def inputs(self, units: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """``columns`` of INPUTS, ``recording_id`` among them, in plan order: of all inputs that became recordings in the units, and of
        those that other units hold of the same bytes without owning them."""
        read = list(columns)
        rows = self._inputs(units, read)
        if self._guests:
            told = set(rows["recording_id"].to_pylist())
            others = {unit for recording in told & self._guests.keys() for unit in self._guests[recording]} - {*units}
            held = {unit: UnitView(self._corpus, unit).inputs(read) for unit in others}
            if held:
                own = {unit: UnitView(self._corpus, unit).inputs(read) for unit in units}
                rows = pa.concat_tables([table for _, table in sorted((held | own).items())])  # the order of ids is plan order
        return rows.filter(pc.is_valid(rows["recording_id"]))

    def _inputs(self, units: Sequence[str], columns: list[str]) -> pa.Table:
        corpus = self._corpus
        views = [UnitView(corpus, unit) for unit in units]
        committed = [unit for unit in units if corpus.has(INGEST, unit)]
        if not committed or any(view.hidden_inputs or view.is_cut for view in views):
            parts = [view.inputs(columns) for view in views]
            return pa.concat_tables([INPUTS.empty_table().select(columns), *parts])
        return corpus.tables.read_many(INGEST, corpus.fingerprint(INGEST), committed, "inputs", columns)[0]


def first_known(inputs: pa.Table, columns: Sequence[str]) -> pa.Table:
    """``recording_id`` and ``columns``, a row a recording: of each fact the first that is known (an empty text is no licence); of consent, as CONSENTS says."""
    if "licence" in columns:
        stated = pc.if_else(pc.is_valid(compared_licences(inputs["licence"])), inputs["licence"], pa.scalar(None, pa.string()))
        inputs = inputs.set_column(inputs.column_names.index("licence"), INPUTS.field("licence"), stated)
    # One thread: only then is the first of a group the first of the table.
    grouped = inputs.group_by("recording_id", use_threads=False).aggregate([(name, "first") for name in columns])
    facts = grouped.rename_columns({f"{name}_first": name for name in columns})
    if "consent" not in columns:
        return facts
    ranks = pa.table([inputs["recording_id"], pc.index_in(inputs["consent"], pa.array(CONSENTS))], ["recording_id", "rank"])
    first = ranks.group_by("recording_id", use_threads=False).aggregate([("rank", "min")])  # groups in the order of before
    consents = pa.array(CONSENTS).take(first["rank_min"].combine_chunks())
    return facts.set_column(facts.column_names.index("consent"), "consent", consents)


def consent_of(said: Iterable[str | None]) -> str | None:
    """What several inputs of one recording say together: the first of CONSENTS that any of them says."""
    known = set(said)
    return next((value for value in CONSENTS if value in known), None)


def check_licences(inputs: pa.Table) -> None:
    """Raises RequestError where inputs (``recording_id``, ``licence``, ``uri``) of the same bytes state different licences.

    Nobody may choose one: not a pack, not an export.
    """
    stated = inputs.select(["recording_id", "licence", "uri"]).append_column("compared", compared_licences(inputs["licence"]))
    stated = stated.filter(pc.is_valid(stated["compared"]))
    pairs = stated.group_by(["recording_id", "compared"], use_threads=False).aggregate([("uri", "first"), ("licence", "first")])
    counts = pairs.group_by("recording_id", use_threads=False).aggregate([([], "count_all")])
    torn = counts.filter(pc.greater(counts["count_all"], 1))["recording_id"]
    if len(torn):
        one, other = pairs.filter(pc.equal(pairs["recording_id"], torn[0])).slice(0, 2).to_pylist()
        raise RequestError(
            f"{one['uri_first']!r} and {other['uri_first']!r} hold the same bytes under licences {one['licence_first']!r} and "
            f"{other['licence_first']!r}; settle which one holds"
        )
