"""``manifest audit`` from a URI to figures on the terminal and in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from manifests.audit.figures import AuditFigures, audit, parse_figures
from manifests.audit.listening import ListeningSample
from manifests.audit.packs import DocumentRows
from manifests.audit.page import Listening, render_audit
from manifests.audit.recipe import AuditRecipe
from manifests.audit.rules import LEFT_OUT_FOR
from manifests.audit.tables import figure_tables
from manifests.audit.verdicts import read_verdicts
from manifests.console import aligned, counted, hours, number, say, share
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.fold import fold
from manifests.open_rows import corpus_rows, open_place
from manifests.packs import Pack
from manifests.recipes import decode_recipe, load_recipe, parse_recipe, read_recipe, recipe_names, shipped_recipe
from manifests.rows import Rows
from manifests.store import Store, json_bytes, place_of, table_bytes

SHOWN = 8  # rows of a table on the terminal
PACK_RECIPES = "pipeline"  # package that ships them
DEFAULT_LISTEN = 40  # clips, where verdicts come without a number


def audit_uri(
    uri: str,
    recipe: str = "audit",
    *,
    filters: str | None = None,
    figures: str | None = None,
    against: str | None = None,
    split: str | None = None,
    snapshot: int | None = None,
    scheduler: str | None = None,
) -> AuditFigures:
    """The figures of what lies at ``uri``; written to the folder ``figures`` where one is given.

    Raises RequestError when there is nothing to audit, or a recipe or earlier figures cannot be read.
    """
    asked = load_recipe(AuditRecipe, "manifests", recipe)
    if filters is not None:
        asked = with_filters(asked, filters)
    before = None if against is None else _read_figures(against)
    made = audit(rows_at(uri, split, snapshot), asked, scheduler, before)
    if figures is not None:
        store = Store(figures)
        store.write("audit.json", json_bytes(made.to_json()))
        for name, table in figure_tables(made).items():
            store.write(f"{name}.parquet", table_bytes(table))
        say(f"wrote audit.json and Parquet tables to {figures}")
    return made


def write_page(
    made: AuditFigures, path: str, *, listen: int = 0, verdicts: str | None = None, scheduler: str | None = None
) -> None:
    """The page of an audit, with a sample of ``listen`` clips to hear and what listeners said in the file ``verdicts``.

    Raises RequestError where what was audited has no stored audio, or a verdict cannot be read.
    """
    listening = None
    if listen or verdicts:
        if "corpus_id" not in made.about:
            raise RequestError(f"--listen: {made.about['uri']!r} is a pack; listen to its corpus")
        corpus = Corpus.open(made.about["uri"], made.about["snapshot"])
        rows, rules = corpus_rows(corpus), AuditRecipe(**made.about["recipe"]).listen
        there = {*rows.schema.names}
        sample = ListeningSample(
            [name for name in rules.strata if name in there],
            listen or DEFAULT_LISTEN,
            rules.seed,
            [name for name in rules.shows if name in there],
        )
        (drawn,) = fold(rows, [sample], scheduler, "sample")
        said = [] if verdicts is None else read_verdicts(_read(verdicts, "--verdicts"), verdicts)
        listening = Listening.of(drawn, corpus.audio(), said)
    store, name = place_of(path)
    store.replace(name, render_audit(made, listening).encode())
    say(f"wrote {path}")


def rows_at(uri: str, split: str | None = None, snapshot: int | None = None) -> Rows:
    """Clips of a corpus, documents of a pack. Raises RequestError where there is neither."""
    place = open_place(uri, snapshot)
    if isinstance(place, Pack):
        return DocumentRows(place, split)
    if split is not None:
        raise RequestError(f"--split {split!r} names a split of a pack; {uri!r} is none, leave it out")
    return corpus_rows(place)


def with_filters(recipe: AuditRecipe, name_or_path: str) -> AuditRecipe:
    """The audit with what a pack recipe, by its name or file, leaves out.

    A pack recipe is a contract of the pipeline, which this folder may not import: only these keys of it are read.
    """
    raw = parse_recipe(read_recipe(PACK_RECIPES, name_or_path, _pack_recipes), name_or_path)
    funnel = {"filters": [], "require_text": True, "text_from": recipe.text_from, "leave_out": [], "codes_from": None}
    asked = {key: raw.get(key, value) for key, value in funnel.items()}
    return decode_recipe(AuditRecipe, yaml.safe_dump({**recipe.model_dump(mode="json"), **asked}), name_or_path)


def _pack_recipes() -> str:
    """Names of those that ship, by a key that recipes of builds lack."""
    texts = {name: shipped_recipe(PACK_RECIPES, name) for name in recipe_names(PACK_RECIPES)}
    return ", ".join(name for name, text in texts.items() if "text_from" in parse_recipe(text, name))


def _read(path: str, option: str, hint: str = "give the file") -> bytes:
    store, name = place_of(path)
    try:
        return store.read(name)
    except FileNotFoundError as error:
        raise RequestError(f"{option} {path!r} does not exist; {hint}") from error


def _read_figures(path: str) -> AuditFigures:
    return parse_figures(_read(path, "--against", "`stepwell manifest audit URI --figures FOLDER` writes audit.json"), path)


def lines_of(made: AuditFigures) -> list[str]:
    """The figures for people, the longest lists cut."""
    totals, about = made.totals, made.about
    what = counted(totals["num_clips"], about["table"].removesuffix("s"))
    speech = f", {hours(totals['speech_h'])} of speech" if totals["speech_h"] is not None else ""
    lines = [f"{about['uri']}: {what}, {hours(totals['clip_h'])}{speech}"]
    for group in made.groups:
        rows = [[_key(row["key"]), hours(row["clip_h"]), share(row["share"])] for row in group["rows"][:SHOWN]]
        more = group["num_groups"] - len(rows)
        lines += _table(f"hours by {group['name']}", rows, more)
    if made.speakers:
        s = made.speakers
        over = f"{s['num_over_cap']} of them speak more than {s['cap_h']:g} h each, {hours(s['beyond_cap_h'])} beyond that"
        lines.append(f"speakers: {s['num_speakers']:,}; {over}; nobody is named for {hours(s['unknown']['clip_h'])}")
    lines += _table("numbers", [_spread(row) for row in made.distributions])
    lines += _table("layers", [_layer(row) for row in made.layers])
    broken = [row for row in made.rules if row["num_clips"]]
    rules = [[row["rule"], f"{row['num_clips']:,}", hours(row["clip_h"]), _first(row)] for row in broken]
    lines += _table("impossible rows", rules) or [f"impossible rows: none by {len(made.rules)} rules"]
    if made.funnel:
        f = made.funnel
        steps = [[row["filter"], f"-{hours(row['dropped_h'])}", hours(row["kept_h"])] for row in f["steps"]]
        lines += _table(f"filters keep {hours(f['kept_h'])} of {hours(f['all_h'])}", steps)
    drifts = [row for row in made.drift["rows"] if row["is_drift"]]
    rows = [
        [row["kind"], row["column"], row["group"], f"{row['distance']:.2f}", f"{row['shift_std']:+.2f} sd"]
        for row in drifts[:SHOWN]
    ]
    lines += _table(f"drift: {len(drifts)} of {made.drift['num_tests']} tests", rows, len(drifts) - len(rows))
    if made.left_out:
        missing = dict.fromkeys(name for row in made.left_out for name in row["why"].removeprefix(LEFT_OUT_FOR).split(", "))
        lines.append(f"left out, for there is no {', '.join(missing)}")
    return lines


def _table(title: str, rows: Sequence[Sequence[str]], more: int = 0) -> list[str]:
    if not rows:
        return []
    return [title, *(f"  {line}" for line in aligned(rows)), *([f"  and {more:,} more"] if more > 0 else [])]


def _key(values: Sequence[str | None]) -> str:
    return ", ".join("unknown" if value is None else value for value in values)


def _spread(row: dict[str, Any]) -> list[str]:
    marks = [f"{name} {number(row['quantiles'][name])}" for name in ("p05", "p50", "p95")]
    return [row["column"], f"{row['num_clips']:,}", *marks]


def _layer(row: dict[str, Any]) -> list[str]:
    names = ("ok", "abstained", "gated", "error", "not_made")
    return [row["layer"], *(f"{name} {row['statuses'].get(name, {}).get('num_clips', 0):,}" for name in names)]


def _first(row: dict[str, Any]) -> str:
    return f"first {row['first'][0]['clip_id']}" if row["first"] else ""
