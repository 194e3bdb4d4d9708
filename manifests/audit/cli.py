"""The verb of audits: ``manifest audit``."""

from __future__ import annotations

from typing import Annotated

import typer

from manifests.console import answer


def audit(
    uri: Annotated[str, typer.Argument(help="URI of a corpus or a pack.")],
    recipe: Annotated[
        str, typer.Option("--recipe", help="Name or file of an audit recipe: columns, limits, thresholds, caps.")
    ] = "audit",
    filters: Annotated[
        str | None,
        typer.Option("--filters", help="Name or file of a pack recipe whose filters the funnel weighs, instead of the audit's."),
    ] = None,
    html: Annotated[str | None, typer.Option("--html", help="Write the page to this file: all figures, drawn.")] = None,
    listen: Annotated[
        int, typer.Option("--listen", min=0, max=400, help="Clips to draw for human ears; their audio goes into the page.")
    ] = 0,
    verdicts: Annotated[
        str | None, typer.Option("--verdicts", help="File of verdicts that the page saved: how much is wrong, with intervals.")
    ] = None,
    figures: Annotated[
        str | None, typer.Option("--figures", help="Write audit.json and a Parquet table of each kind of figures to this folder.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="audit.json of another run, corpus or pack, to test for drift.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Of a pack: one of its splits.")] = None,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", min=0, help="Snapshot of the corpus; the newest by default.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="Address of a Dask scheduler; threads by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Say what is in a corpus or a pack: hours, distributions, gaps, impossible rows, what filters cost, drift.

    Reads manifests only, and audio only for --listen.
    """
    from manifests.audit import work
    from manifests.errors import RequestError

    if html is None and (listen or verdicts):
        raise RequestError("--listen and --verdicts go into the page; give --html FILE")
    made = work.audit_uri(
        uri, recipe, filters=filters, figures=figures, against=against, split=split, snapshot=snapshot, scheduler=scheduler
    )
    if html is not None:
        work.write_page(made, html, listen=listen, verdicts=verdicts, scheduler=scheduler)
    answer(made.to_json(), as_json, work.lines_of(made))
