"""From a recipe to the tallies that a table has columns for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from manifests.audit.distributions import Spread
from manifests.audit.drift import SOURCE, Periods
from manifests.audit.funnel import MOST_FILTERS, Funnel, TextNeed
from manifests.audit.outliers import Ends
from manifests.audit.recipe import AuditRecipe, Distribution, Threshold
from manifests.audit.rules import Offenders, rules_for
from manifests.audit.slices import DURATION, SPEECH_SHARE, Bounds, bounds_of
from manifests.audit.tallies import AuditTally, Distinct, GroupSums, LayerStatus, SliceTally, Totals
from manifests.errors import RequestError
from manifests.rows import Rows

WHAT_IF_BINS = 80


@dataclass(frozen=True)
class Plan:
    """The tallies of an audit by kind; ``tally`` is all of them."""

    tally: AuditTally
    left_out: list[dict[str, str]]
    group_names: list[str]
    totals: Totals
    groups: list[GroupSums]
    speakers: GroupSums | None
    spreads: list[Spread]
    distinct: list[Distinct]
    layers: list[LayerStatus]
    offenders: list[Offenders]
    ends: list[Ends]
    funnel: Funnel | None
    periods: Periods | None

    def with_counted(self, counted: AuditTally) -> Plan:
        """The plan with each tally as the fold gave it back."""
        back = {id(empty): full for empty, full in zip(self.tally.tallies, counted.tallies, strict=True)}
        many = {
            name: [back[id(t)] for t in getattr(self, name)]
            for name in ("groups", "spreads", "distinct", "layers", "offenders", "ends")
        }
        one = {name: back.get(id(getattr(self, name))) for name in ("totals", "speakers", "funnel", "periods")}
        return replace(self, tally=counted, **many, **one)


def plan_audit(rows: Rows, recipe: AuditRecipe) -> Plan:
    """Raises RequestError where the table has no durations, or a filter's column is not there or holds no numbers."""
    schema = rows.schema
    names = {*schema.names}
    left_out: list[dict[str, str]] = []
    if DURATION not in names:
        raise RequestError(f"the {rows.table} of {rows.uri!r} have no {DURATION!r}; audit the clips of a corpus, or a pack")

    def there(what: str, name: str, columns: Sequence[str]) -> bool:
        missing = [column for column in columns if column not in names]
        if missing:
            left_out.append({"what": what, "name": name, "why": f"there is no {', '.join(missing)}"})
        return not missing

    bands = [band for band in recipe.bands if there("band", band.name, [band.column])]
    banded = {band.name: band.column for band in recipe.bands}
    wanted = [group for group in recipe.groups if there("group", group.name, [banded.get(c, c) for c in group.columns])]
    spreads = [d for d in recipe.distributions if there("distribution", d.column, [d.column])]
    rules, no_rules = rules_for(recipe, schema)
    layers = sorted({name.partition(".")[0] for name in names if name.endswith(".status")})
    plan = Plan(
        tally=AuditTally([], [], DURATION, None),
        left_out=left_out + no_rules,
        group_names=[group.name for group in wanted],
        totals=Totals(),
        groups=[GroupSums(group.columns, list(banded)) for group in wanted],
        speakers=GroupSums([recipe.speakers]) if there("speakers", recipe.speakers, [recipe.speakers]) else None,
        spreads=[Spread(d) for d in spreads],
        distinct=[Distinct(name) for name in recipe.distinct if there("distinct", name, [name])],
        layers=[LayerStatus(layer, _measured(schema, layer)) for layer in layers],
        offenders=[Offenders(rule, recipe.num_offenders) for rule in rules],
        ends=[Ends(name, recipe.num_outliers) for name in recipe.outliers if there("outliers", name, [name])],
        funnel=_funnel(recipe, rows, there),
        periods=_periods(recipe, rows, spreads, there),
    )
    kept: list[SliceTally] = [plan.totals, *plan.groups, *plan.spreads, *plan.distinct, *plan.layers, *plan.offenders, *plan.ends]
    kept += [tally for tally in (plan.speakers, plan.funnel, plan.periods) if tally is not None]
    return replace(plan, tally=AuditTally(kept, bands, DURATION, SPEECH_SHARE if SPEECH_SHARE in names else None))


def _measured(schema: pa.Schema, layer: str) -> list[str]:
    """Columns of a layer that hold numbers or yes and no."""
    kinds = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
    return [f.name for f in schema if f.name.startswith(f"{layer}.") and any(is_kind(f.type) for is_kind in kinds)]


def _funnel(recipe: AuditRecipe, rows: Rows, there: Callable[[str, str, Sequence[str]], bool]) -> Funnel | None:
    kept = [f for f in recipe.filters if there("filter", f.drop_reason, [f.column])]
    for f in kept:
        kind = rows.schema.field(f.column).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise RequestError(f"filter: column {f.column!r} holds {kind}; min and max bound numbers, name another column")
    text = None
    if recipe.require_text:
        layers = [name for name in recipe.text_from if name != "source" and there("text", name, [f"{name}.text"])]
        of_source = "source" in recipe.text_from and there("text", "source", ["input.text", "clip.recording_id"])
        text = TextNeed(tuple(layers), of_source)
    if len(kept) + (text is not None) > MOST_FILTERS:
        raise RequestError(
            f"recipe {recipe.name!r} has {len(kept)} filters; an audit weighs at most {MOST_FILTERS} against each other"
        )
    return Funnel(kept, [_scale(f, recipe.distributions) for f in kept], text) if kept or text else None


def _scale(f: Threshold, distributions: Sequence[Distribution]) -> Bounds:
    """Thresholds that are tried: those of the column's histogram, else from half to twice the bounds."""
    for d in distributions:
        if d.column == f.column:
            return bounds_of(d)
    bounds = [value for value in (f.min, f.max) if value is not None]
    low, high = min([*bounds, 0.0]), max(bounds)
    reach = max(abs(low), abs(high), 1e-3)
    return low - reach * (low < 0), high + reach, WHAT_IF_BINS


def _periods(
    recipe: AuditRecipe, rows: Rows, spreads: list[Distribution], there: Callable[[str, str, Sequence[str]], bool]
) -> Periods | None:
    if not spreads or not there("drift", "over time", ["clip.unit", "clip.recording_id"]):
        return None
    units = [unit for part in rows.slices for unit in part.units]
    return Periods(spreads, units, recipe.drift, SOURCE in rows.schema.names)
