"""From a recipe to the tallies that a table has columns for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import pyarrow as pa

from manifests.audit.distributions import Spread
from manifests.audit.drift import RECORDING, SOURCE, UNIT, Periods, period_edges
from manifests.audit.funnel import MOST_FILTERS, CodesNeed, Funnel, LeftOut, PlainFilter, TextNeed
from manifests.audit.outliers import Ends
from manifests.audit.packs import PACKED, PACKED_TEXT
from manifests.audit.recipe import AuditRecipe, Band, Distribution, Threshold
from manifests.audit.rules import LEFT_OUT_FOR, Offenders, rules_for
from manifests.audit.slices import DURATION, SPEECH_SHARE, Bounds, SliceColumns, bounds_of
from manifests.audit.tallies import Distinct, GroupSums, LayerStatus, SliceTally, Totals, banded
from manifests.clip_texts import text_columns, text_needs
from manifests.errors import RequestError
from manifests.rows import Rows

WHAT_IF_BINS = 80


@dataclass
class AuditTally:
    """All that an audit counts as one tally of a ``fold``: a slice becomes ``SliceColumns`` once, for all of them."""

    bands: list[Band]
    speech_share: str | None  # column
    groups: dict[str, GroupSums]
    speakers: GroupSums | None
    spreads: list[Spread]
    distinct: list[Distinct]
    layers: list[LayerStatus]
    offenders: list[Offenders]
    ends: list[Ends]
    funnel: Funnel | None
    periods: Periods | None
    recordings: Distinct | None = None  # of a pack: the tables of a corpus count its own
    totals: Totals = field(default_factory=Totals)

    @property
    def tallies(self) -> list[SliceTally]:
        """Those that count a slice."""
        some: list[SliceTally] = [self.totals, *self.groups.values(), *self.spreads, *self.distinct, *self.layers]
        some += [*self.offenders, *self.ends]
        return [*some, *(tally for tally in (self.speakers, self.funnel, self.periods, self.recordings) if tally is not None)]

    @property
    def columns(self) -> Sequence[str]:
        own = [DURATION, *([self.speech_share] if self.speech_share else []), *(band.column for band in self.bands)]
        return list(dict.fromkeys([*own, *(name for tally in self.tallies for name in tally.columns)]))

    def add(self, table: pa.Table) -> None:
        if not table.num_rows:  # units whose inputs were all refused
            return
        slice_ = SliceColumns(table, DURATION, self.speech_share)
        for band in self.bands:
            slice_.put_coded(band.name, banded(slice_.floats(band.column), band))
        for tally in self.tallies:
            tally.add(slice_)

    def merge(self, other: Self) -> None:
        for tally, more in zip(self.tallies, other.tallies, strict=True):
            tally.merge(more)


@dataclass(frozen=True)
class Plan:
    """What is counted, and what the table has no columns for: ``[what, name, why]``."""

    tally: AuditTally
    left_out: list[dict[str, str]]


def plan_audit(rows: Rows, recipe: AuditRecipe) -> Plan:
    """Raises RequestError where the table has no durations, or a column holds something else than it is asked for."""
    schema = rows.schema
    names = {*schema.names}
    left_out: list[dict[str, str]] = []
    if DURATION not in names:
        raise RequestError(f"the {rows.table} of {rows.uri!r} have no {DURATION!r}; audit the clips of a corpus, or a pack")

    def there(what: str, name: str, columns: Sequence[str]) -> bool:
        missing = [column for column in columns if column not in names]
        if missing:
            left_out.append({"what": what, "name": name, "why": f"{LEFT_OUT_FOR}{', '.join(missing)}"})
        return not missing

    numeric = [band.column for band in recipe.bands] + [d.column for d in recipe.distributions] + recipe.outliers
    numeric += [f.column for f in recipe.filters] + [name for limit in recipe.limits for name in limit.columns]
    for name in numeric:
        if name in names and not _is_number(kind := schema.field(name).type):
            raise RequestError(
                f"recipe {recipe.name!r}: column {name!r} holds {kind}, and is asked for numbers; name another one"
            )
    for name in recipe.distinct:
        if name in names and pa.types.is_nested(kind := schema.field(name).type):
            raise RequestError(f"recipe {recipe.name!r}: column {name!r} holds {kind}, whose values are not counted")
    for name in (name for group in recipe.groups for name in group.columns):
        if name in names and not _is_key(kind := schema.field(name).type):
            raise RequestError(f"recipe {recipe.name!r}: column {name!r} holds {kind}, which nothing can be grouped by")
    bands = [band for band in recipe.bands if there("band", band.name, [band.column])]
    banded_columns = {band.name: band.column for band in recipe.bands}
    wanted = [group for group in recipe.groups if there("group", group.name, [banded_columns.get(c, c) for c in group.columns])]
    spreads = [d for d in recipe.distributions if there("distribution", d.column, [d.column])]
    rules, no_rules = rules_for(recipe, schema)
    layers = sorted({name.partition(".")[0] for name in names if name.endswith(".status")})
    tally = AuditTally(
        bands=bands,
        speech_share=SPEECH_SHARE if SPEECH_SHARE in names else None,
        groups={group.name: GroupSums(group.columns, list(banded_columns)) for group in wanted},
        speakers=GroupSums([recipe.speakers]) if there("speakers", recipe.speakers, [recipe.speakers]) else None,
        spreads=[Spread(d) for d in spreads],
        distinct=[Distinct(name) for name in recipe.distinct if there("distinct", name, [name])],
        layers=[LayerStatus(layer, _measured(schema, layer)) for layer in layers],
        offenders=[Offenders(rule, recipe.num_offenders) for rule in rules],
        ends=[Ends(name, recipe.num_outliers) for name in recipe.outliers if there("outliers", name, [name])],
        funnel=_funnel(recipe, rows, there),
        periods=_periods(recipe, rows, spreads, there),
        recordings=Distinct(RECORDING) if rows.table == PACKED and RECORDING in names else None,
    )
    return Plan(tally, left_out + no_rules)


def _measured(schema: pa.Schema, layer: str) -> list[str]:
    """Columns of a layer that hold numbers or yes and no."""
    return [f.name for f in schema if f.name.startswith(f"{layer}.") and _is_number(f.type)]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_key(kind: pa.DataType) -> bool:
    """A tag is one by its ``value``."""
    return not pa.types.is_nested(kind) or (pa.types.is_struct(kind) and kind.get_field_index("value") >= 0)


def _funnel(recipe: AuditRecipe, rows: Rows, there: Callable[[str, str, Sequence[str]], bool]) -> Funnel | None:
    kept = [f for f in recipe.filters if there("filter", f.drop_reason, [f.column])]
    plain: list[PlainFilter] = []
    for left_out in (LeftOut(table) for table in recipe.leave_out):
        plain += [left_out] if there("leave_out", left_out.table, left_out.columns) else []
    if recipe.require_text:
        # Documents of a pack have theirs from wherever its recipe took it.
        texts = [PACKED_TEXT] if rows.table == PACKED else text_columns(recipe.text_from)
        plain.append(TextNeed(tuple(name for name in texts if there("text", name, text_needs([name])))))
    if recipe.codes_from is not None and there("codes", recipe.codes_from, CodesNeed(recipe.codes_from).columns):
        plain.append(CodesNeed(recipe.codes_from))
    if (num := len(kept) + len(plain)) > MOST_FILTERS:
        raise RequestError(f"recipe {recipe.name!r} has {num} filters; an audit weighs at most {MOST_FILTERS} against each other")
    return Funnel(kept, [_scale(f, recipe.distributions) for f in kept], tuple(plain)) if kept or plain else None


def _scale(f: Threshold, distributions: Sequence[Distribution]) -> Bounds:
    """Thresholds that are tried: those of the column's histogram, else from half to twice the bounds."""
    for d in distributions:
        if d.column == f.column:
            return bounds_of(d)
    bounds = [value for value in (f.min, f.max) if value is not None] or [0.0]  # without bounds it is of nulls alone
    low, high = min([*bounds, 0.0]), max(bounds)
    reach = max(abs(low), abs(high), 1e-3)
    return low - reach * (low < 0), high + reach, WHAT_IF_BINS


def _periods(
    recipe: AuditRecipe, rows: Rows, spreads: list[Distribution], there: Callable[[str, str, Sequence[str]], bool]
) -> Periods | None:
    if not spreads or not there("drift", "over time", [UNIT, RECORDING]):
        return None
    # Slices of a pack name its splits, and its shards are shuffled: there is no time in them.
    is_packed = rows.table == PACKED
    units = [] if is_packed else [unit for part in rows.slices for unit in part.units]
    edges = period_edges(units, recipe.drift.num_periods)
    return Periods(spreads, edges, recipe.drift, SOURCE in rows.schema.names, is_shuffled=is_packed)
