"""Verbs that look into a corpus or a pack: ``manifest show``, ``query``; those of the folders below are registered here."""

from __future__ import annotations

from typing import Annotated

import typer

from manifests.audit import cli as audit_cli
from manifests.console import answer, counted
from manifests.export import cli as export_cli

app = typer.Typer(help="Look into corpora and packs.", no_args_is_help=True)

Uri = Annotated[str, typer.Argument(help="URI of a corpus or a pack.")]
SnapshotNumber = Annotated[int | None, typer.Option("--snapshot", min=0, help="Snapshot of the corpus; the newest by default.")]
Scheduler = Annotated[str | None, typer.Option("--scheduler", help="Address of a Dask scheduler; threads by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command(
    epilog="Example: stepwell manifest show ./corpus --where \"language = 'zh' and dnsmos_ovrl < 2.5\" --group-by source,speaker"
)
def show(
    uri: Uri,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            help="clips, recordings, inputs, quarantine, spans:NAME, layer:NAME, table:NAME or table:NAME/ROLE; of a pack, a split.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", help='Condition, e.g. "snr_db < 10 or asr.text is null"; of clips, or a pack\'s documents.'),
    ] = None,
    columns: Annotated[str | None, typer.Option("--columns", help="Columns to print, between commas; all by default.")] = None,
    group_by: Annotated[str | None, typer.Option("--group-by", help="Count rows and hours by these columns.")] = None,
    sort: Annotated[str | None, typer.Option("--sort", help="Columns to sort by; a minus in front: falling.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of the table to print.")] = 10,
    snapshot: SnapshotNumber = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Say what is in a corpus or a pack: counts, hours, layers with their fingerprints; or print rows of a table, or their groups."""
    from manifests.show import place_facts, row_facts

    if any((table, where, columns, group_by, sort)):
        options = {"where": where, "columns": columns, "group_by": group_by, "sort": sort}
        value, lines = row_facts(uri, table, snapshot, **options, limit=rows, scheduler=scheduler)
    else:
        value, lines = place_facts(uri, snapshot)
    answer(value, as_json, lines)


@app.command(epilog='Example: stepwell manifest query ./corpus "SELECT source, sum(duration_s) / 3600 FROM clips GROUP BY 1"')
def query(
    uri: Uri,
    sql: Annotated[
        str, typer.Argument(help="One SELECT over clips, recordings, inputs, quarantine, spans_NAME, …; documents of a pack.")
    ],
    out: Annotated[str | None, typer.Option("--out", help="Write all rows to this .parquet or .csv file.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows to print.")] = 50,
    snapshot: SnapshotNumber = None,
    as_json: Json = False,
) -> None:
    """Ask the tables of a corpus or a pack in SQL (DuckDB): only the columns that the statement needs are read."""
    from manifests.open_rows import all_rows
    from manifests.query import query as ask
    from manifests.query import query_to
    from manifests.show import answer_facts

    tables = all_rows(uri, snapshot)
    if out is not None:
        num_rows = query_to(tables, sql, out)
        answer({"out": out, "num_rows": num_rows}, as_json, [f"{counted(num_rows, 'row')}: {out}"])
        return
    value, lines = answer_facts(ask(tables, sql, rows))
    answer(value, as_json, lines)


app.command("audit", epilog="Example: stepwell manifest audit ./corpus --html audit.html --listen 40")(audit_cli.audit)


@app.command(epilog="Example: stepwell manifest expect ./corpus --rules rules.yaml --junit expectations.xml")
def expect(
    uri: Uri,
    rules: Annotated[str, typer.Option("--rules", help="YAML file of rules, e.g. `rules: [snr_db p05 >= 10]`.")],
    junit: Annotated[str | None, typer.Option("--junit", help="Write the outcomes to this file as JUnit XML too.")] = None,
    snapshot: SnapshotNumber = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Check rules on columns and aggregates; exit code 1 where one fails, with the rows that are to blame."""
    from dataclasses import asdict

    from manifests.expectations import check as expectations
    from manifests.open_rows import open_rows
    from manifests.show import readable

    asked = expectations.read_expectations(rules)
    outcomes = expectations.check(open_rows(uri, asked.table, snapshot), asked, scheduler)
    if junit is not None:
        with open(junit, "wb") as file:
            file.write(expectations.junit(outcomes, uri))
    has_failed = expectations.has_failed(outcomes)
    value = {"has_failed": has_failed, "rules": [readable(asdict(outcome)) for outcome in outcomes]}
    answer(value, as_json, [outcome.line() for outcome in outcomes])
    if has_failed:
        raise typer.Exit(1)


@app.command(
    epilog="Example: stepwell manifest diff ./corpus@3 ./corpus   or   stepwell manifest diff ./pack-of-may ./pack-of-june"
)
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Corpus, corpus@SNAPSHOT or pack.")],
    after: Annotated[str, typer.Argument(metavar="B", help="What it is compared with, of the same kind.")],
    table: Annotated[
        str | None,
        typer.Option("--table", help="clips, recordings or inputs; of packs, a split. Clips and all documents by default."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Columns to compare, between commas; all that both have by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which rows were added, removed and changed, which columns of them, which hours moved where, and why."""
    from manifests.diff.diff import diff as compare
    from manifests.diff.diff import diff_lines, open_side
    from manifests.show import names_in

    value = compare(open_side(before), open_side(after), table, names_in(columns) if columns else ())
    answer(value, as_json, diff_lines(value))


@app.command(epilog="Example: stepwell manifest lineage ./corpus 9cebbebca13a5c176466c9448fe300c5 --pack ./packs")
def lineage(
    uri: Annotated[str, typer.Argument(help="URI of a corpus.")],
    key: Annotated[
        str,
        typer.Argument(help="Key of a document, id of a clip, recording or input, URI of an input, or source:NAME."),
    ],
    pack: Annotated[
        list[str] | None, typer.Option("--pack", help="A pack, or a folder that holds packs; may be repeated.")
    ] = None,
    run: Annotated[list[str] | None, typer.Option("--run", help="A training run; may be repeated.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Recordings, inputs, clips and documents to print.")] = 5,
    snapshot: SnapshotNumber = None,
    as_json: Json = False,
) -> None:
    """Say where one thing came from (recording, source, licence, models, parameters, run) and where it went (clips, packs)."""
    from manifests import provenance
    from manifests.corpus import Corpus
    from manifests.provenance_tree import lineage_lines

    packs = [found for place in pack or () for found in provenance.packs_below(place)]
    value = provenance.lineage(Corpus.open(uri, snapshot), key, packs, run or (), rows)
    answer(value, as_json, lineage_lines(value))


app.command("card", epilog="Example: stepwell manifest card ./corpus --out ./speech")(export_cli.card)
app.command("export", epilog="Example: stepwell manifest export ./corpus --to datasets --out ./speech")(export_cli.export)
