"""The figures of an audit: everything in one pass over the clips, and small ones over inputs and recordings.

``audit(uri, recipe)`` gives an ``AuditFigures``, whose fields are plain JSON values with units in their names (``_h`` hours,
``_s`` seconds, ``num_`` counts, ``_share`` 0 to 1). A clip's hours are its length; a null key of a group is ``None``.

``about``          uri, table (clips | documents), corpus_id or pack_id, snapshot, clip_set, recipe (resolved)
``totals``         num_clips, clip_h, speech_h (None where no VAD is known, as in packs), num_units, num_recordings
                   (of a pack an estimate); of a corpus recording_h, num_inputs, num_refused too
``left_out``       [what, name, why]: parts of the recipe that this corpus has no columns for
``groups``         [name, columns, num_groups, rows: [key: [..], num_clips, clip_h, speech_h, share], rest: the same without
                   key, of the groups beyond ``most_groups``, or None]; most hours first; share is of all hours
``speakers``       None, or num_speakers, unknown: [num_clips, clip_h], cap_h, num_over_cap, over_cap_h (hours of those),
                   beyond_cap_h (what a cap would leave out), over_cap: [speaker, num_clips, clip_h] (most first, 1,000 at most),
                   top: the same of the first 50, clip_h_quantiles of a speaker, top_share: {"1%": share of hours, "10%": ..}
``distributions``  [column, title, num_clips, num_null, num_not_finite, min, max, mean, std, quantiles: {p01, p05, ..},
                   quantile_rank_error, edges, num_clips_by_bin, clip_h_by_bin, num_below, num_above]
``distinct``       [column, num, num_low, num_high]: estimates with 95 % bounds
``layers``         [layer, fingerprint, models: [name, revision, licence], statuses: {ok | error | abstained | gated | not_made:
                   [num_clips, clip_h]}, errors: [code, num_clips], columns: [column, num_known, missing_share (of rows
                   that are ok)]]
``rules``          [rule, title, columns, num_checked, num_clips, clip_h, first: [clip_id, unit, values: {column: value}, and where
                   it is known recording_id, start_s, end_s, uri]]: impossible rows
``licence_disagreements``  None, or num_recordings, first: [recording_id, licences]
``outliers``       [column, end: low | high, rows: as in ``first``]
``funnel``         None, or filters: [name], columns: [column | None], all_clips, all_h, kept_clips, kept_h;
                   steps: [filter, dropped_clips, dropped_h, kept_clips, kept_h], in order, each of what is left;
                   alone: [filter, dropped_clips, dropped_h], of all clips; only: the same of clips that fail no other filter;
                   without: [filter, kept_clips, kept_h], kept if this one were not; sets: [failed: [filter], num_clips, clip_h],
                   clips by exactly which filters they fail: sums over these answer any choice of filters;
                   what_ifs: [filter, column, bound: min | max, at, thresholds, num_clips_kept, clip_h_kept], with
                   one bound moved and all else as it is
``drift``          test, alpha, smallest_distance, num_tests, rows: [kind: source | time | model | run, column, group, against,
                   num_clips, num_recordings, against_clips, against_recordings, distance, stability_index, shift_std, p, p_holm,
                   is_drift], drifts first, those between sources last
``holdings``       None, or inputs: [source, licence, outcome, num, num_bytes], recordings: [codec, sample_rate_hz, num_channels,
                   is_truncated, num, recording_h], quarantine: [stage, reason, outcome, num]
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.audit.drift import TEST, Compared, compare_periods, compare_runs, judged
from manifests.audit.holdings import RECORDING_H, Disagreements, Sums
from manifests.audit.places import add_places
from manifests.audit.plan import plan_audit
from manifests.audit.recipe import AuditRecipe
from manifests.audit.revisions import Both, RevisionRows, revisions
from manifests.audit.rules import Offenders
from manifests.audit.tallies import GroupSums, LayerStatus
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.fold import fold
from manifests.open_rows import corpus_rows
from manifests.recipes import resolved
from manifests.rows import Rows
from manifests.snapshots import layer_output

TOP_SPEAKERS, MOST_OVER_CAP = 50, 1000
SPEAKER_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FORMAT_VERSION = 2


@dataclass(frozen=True)
class AuditFigures:
    """As the module's docstring says."""

    about: dict[str, Any]
    totals: dict[str, Any]
    left_out: list[dict[str, str]]
    groups: list[dict[str, Any]]
    speakers: dict[str, Any] | None
    distributions: list[dict[str, Any]]
    distinct: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    licence_disagreements: dict[str, Any] | None
    outliers: list[dict[str, Any]]
    funnel: dict[str, Any] | None
    drift: dict[str, Any]
    holdings: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **asdict(self)}


def parse_figures(data: bytes, what: str) -> AuditFigures:
    """Figures that ``to_json`` gave; ``what`` names them in errors. Raises RequestError where they are of another format."""
    try:
        row = json.loads(data)
        version = row.pop("format_version")
        if version != FORMAT_VERSION:
            raise RequestError(f"figures {what!r} have format {version!r}; this version reads {FORMAT_VERSION}; audit again")
        return AuditFigures(**row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{what!r} holds no figures of an audit ({type(error).__name__}: {error}); give an audit.json"
        ) from error


def audit(rows: Rows, recipe: AuditRecipe, scheduler: str | None = None, before: AuditFigures | None = None) -> AuditFigures:
    """The figures of a corpus' clips (``manifests.clip_rows.ClipRows``) or a pack's documents (``manifests.audit.packs``).

    ``before`` are those of another run, corpus or pack that this one is compared with. Raises RequestError as ``fold`` does.
    """
    plan = plan_audit(rows, recipe)
    (done,) = fold(rows, [plan.tally], scheduler, "audit")
    corpus = getattr(rows, "corpus", None)
    ingested = _Ingested.count(corpus, recipe, scheduler) if corpus is not None else None
    rules, outliers = [_rule(o) for o in done.offenders], [row for ends in done.ends for row in ends.figures()]
    add_places(rows, [row for found in rules for row in found["first"]] + [row for found in outliers for row in found["rows"]])
    totals = {
        "num_clips": done.totals.num_clips,
        "clip_h": done.totals.clip_s / 3600,
        "speech_h": done.totals.speech_s / 3600 if done.speech_share else None,
        "num_units": len({unit for part in rows.slices for unit in part.units}),
        **(ingested.totals() if ingested else {}),
        **({"num_recordings": done.recordings.figures()["num"]} if done.recordings else {}),
    }
    distributions = [spread.figures() for spread in done.spreads]
    tests = [] if done.periods is None else compare_periods(done.periods)
    tests += _revision_tests(corpus, recipe, scheduler) if corpus is not None else []
    if before is not None:
        names = str(rows.uri), str(before.about["uri"])
        sizes = totals["num_recordings"], before.totals["num_recordings"]
        tests += compare_runs(distributions, before.distributions, names, sizes, recipe.drift.fewest_recordings)
    return AuditFigures(
        about=_about(rows, recipe),
        totals=totals,
        left_out=plan.left_out,
        groups=[_group(name, sums, recipe.most_groups, totals) for name, sums in done.groups.items()],
        speakers=_speakers(done.speakers, recipe.speaker_cap_h) if done.speakers else None,
        distributions=distributions,
        distinct=[distinct.figures() for distinct in done.distinct],
        layers=[_layer(corpus, status) for status in done.layers],
        rules=rules,
        licence_disagreements=ingested.disagreements.figures() if ingested else None,
        outliers=outliers,
        funnel=done.funnel.figures() if done.funnel else None,
        drift=_drift(judged(tests, recipe.drift), recipe),
        holdings=ingested.figures() if ingested else None,
    )


def _about(rows: Rows, recipe: AuditRecipe) -> dict[str, Any]:
    corpus, pack = getattr(rows, "corpus", None), getattr(rows, "pack", None)
    facts: dict[str, Any] = {"uri": rows.uri, "table": rows.table}
    if corpus is not None:
        facts |= {"corpus_id": corpus.corpus_id, "snapshot": corpus.snapshot.number, "clip_set": corpus.clip_set}
    if pack is not None:
        facts |= {"pack_id": pack.pack_id}
    return {**facts, "recipe": resolved(recipe)}


def _group(name: str, sums: GroupSums, most: int, totals: Mapping[str, Any]) -> dict[str, Any]:
    table = sums.rows()
    keys = [table[f"key_{place}"].slice(0, most).to_pylist() for place in range(len(sums.keys))]
    figures = [_sums(table, place, totals) for place in range(min(most, table.num_rows))]
    rows = [{"key": list(key), **row} for key, row in zip(zip(*keys, strict=True), figures, strict=True)]
    rest = table.slice(most)
    summed = (
        pa.table({name: [pc.sum(rest[name]).as_py()] for name in ("num_clips", "clip_s", "speech_s")}) if rest.num_rows else None
    )
    return {
        "name": name,
        "columns": list(sums.keys),
        "num_groups": table.num_rows,
        "rows": rows,
        "rest": _sums(summed, 0, totals) if summed else None,
    }


def _sums(table: pa.Table, place: int, totals: Mapping[str, Any]) -> dict[str, Any]:
    num, clip_s, speech_s = (table[name][place].as_py() for name in ("num_clips", "clip_s", "speech_s"))
    share = clip_s / 3600 / totals["clip_h"] if totals["clip_h"] else 0.0
    speech_h = None if totals["speech_h"] is None else speech_s / 3600
    return {"num_clips": num, "clip_h": clip_s / 3600, "speech_h": speech_h, "share": share}


def _speakers(sums: GroupSums, cap_h: float) -> dict[str, Any]:
    table = sums.rows()
    is_known = pc.is_valid(table["key_0"])
    unknown, known = table.filter(pc.invert(is_known)), table.filter(is_known)
    hours = known["clip_s"].to_numpy() / 3600  # falling
    over = int(np.count_nonzero(hours > cap_h))
    total = float(hours.sum())

    def named(num: int) -> list[dict[str, Any]]:
        rows = known.slice(0, num).to_pylist()
        return [{"speaker": row["key_0"], "num_clips": row["num_clips"], "clip_h": row["clip_s"] / 3600} for row in rows]

    quantiles = np.quantile(hours, SPEAKER_QUANTILES).tolist() if len(hours) else [None] * len(SPEAKER_QUANTILES)
    return {
        "num_speakers": known.num_rows,
        "unknown": {
            "num_clips": pc.sum(unknown["num_clips"]).as_py() or 0,
            "clip_h": (pc.sum(unknown["clip_s"]).as_py() or 0.0) / 3600,
        },
        "cap_h": cap_h,
        "num_over_cap": over,
        "over_cap_h": float(hours[:over].sum()),
        "beyond_cap_h": float((hours[:over] - cap_h).sum()),
        "over_cap": named(min(over, MOST_OVER_CAP)),
        "top": named(TOP_SPEAKERS),
        "clip_h_quantiles": {f"p{round(q * 100):02d}": v for q, v in zip(SPEAKER_QUANTILES, quantiles, strict=True)},
        "top_share": {
            f"{percent}%": float(hours[: -(-len(hours) * percent // 100)].sum()) / total if total else None for percent in (1, 10)
        },
    }


def _layer(corpus: Corpus | None, status: LayerStatus) -> dict[str, Any]:
    output = layer_output(corpus.clip_set, status.layer) if corpus else ""
    part = corpus.part(output) if corpus else None
    models = [{"name": m.name, "revision": m.revision, "licence": m.licence} for m in (part.models if part else ())]
    num_ok = status.statuses.get("ok", [0, 0.0])[0]
    return {
        "layer": status.layer,
        "fingerprint": corpus.fingerprint(output) if corpus else None,
        "models": models,
        "statuses": {name: {"num_clips": int(num), "clip_h": s / 3600} for name, (num, s) in sorted(status.statuses.items())},
        "errors": [
            {"code": code, "num_clips": num} for code, num in sorted(status.errors.items(), key=lambda item: (-item[1], item[0]))
        ],
        "columns": [
            {"column": name, "num_known": num, "missing_share": max(0.0, 1 - num / num_ok) if num_ok else None}
            for name, num in status.num_known.items()
        ],
    }


def _rule(offenders: Offenders) -> dict[str, Any]:
    return {
        "rule": offenders.rule.name,
        "title": offenders.rule.title,
        "columns": list(offenders.rule.columns),
        "num_checked": offenders.num_checked,
        "num_clips": offenders.num_clips,
        "clip_h": offenders.clip_s / 3600,
        "first": offenders.first,
    }


def _drift(tests: Sequence[Compared], recipe: AuditRecipe) -> dict[str, Any]:
    rules = recipe.drift
    limits = {"alpha": rules.alpha, "smallest_distance": rules.smallest_distance}
    return {"test": TEST, **limits, "num_tests": len(tests), "rows": [asdict(test) for test in tests]}


def _revision_tests(corpus: Corpus, recipe: AuditRecipe, scheduler: str | None) -> Iterable[Compared]:
    """Of every layer that an earlier fingerprint has units of."""
    found = list[Compared]()
    for revision in revisions(corpus):
        rows = RevisionRows(corpus, revision)
        mine = [d for d in recipe.distributions if d.column.partition(".")[0] == revision.layer]
        tally = Both(mine)
        if mine and {*tally.columns} <= {*rows.schema.names}:
            (counted,) = fold(rows, [tally], scheduler, f"{revision.layer}, {revision.then}")
            found += counted.tests(revision, recipe.drift.fewest_recordings)
    return found


@dataclass(frozen=True)
class _Ingested:
    """What the tables of inputs, recordings and quarantine add up to."""

    inputs: Sums
    recordings: Sums
    quarantine: Sums
    disagreements: Disagreements

    @staticmethod
    def count(corpus: Corpus, recipe: AuditRecipe, scheduler: str | None) -> _Ingested:
        shared = frozenset(bytes.fromhex(r) for hidden in corpus.snapshot.shadowed.values() for r in hidden)
        tallies: dict[str, list[Any]] = {
            "inputs": [Sums(("source", "licence", "outcome"), "num_bytes"), Disagreements(shared, recipe.num_offenders)],
            "recordings": [Sums(("codec", "sample_rate_hz", "num_channels", "is_truncated"), RECORDING_H)],
            "quarantine": [Sums(("stage", "reason", "outcome"))],
        }
        counted = {name: fold(corpus_rows(corpus, name), of, scheduler, name) for name, of in tallies.items()}
        return _Ingested(counted["inputs"][0], counted["recordings"][0], counted["quarantine"][0], counted["inputs"][1])

    def totals(self) -> dict[str, Any]:
        inputs, recordings = self.inputs.rows(), self.recordings.rows()
        return {
            "num_recordings": sum(row["num"] for row in recordings),
            "recording_h": sum(row["recording_h"] for row in recordings),
            "num_inputs": sum(row["num"] for row in inputs),
            "num_refused": sum(row["num"] for row in inputs if row["outcome"] == "refused"),
        }

    def figures(self) -> dict[str, Any]:
        return {"inputs": self.inputs.rows(), "recordings": self.recordings.rows(), "quarantine": self.quarantine.rows()}
