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
        typer.Option("--filters", help="File of a pack recipe whose filters the funnel weighs, instead of the audit's."),
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

    Reads manifests only, no audio.
    """
    from manifests.audit import work

    made = work.audit_uri(
        uri, recipe, filters=filters, figures=figures, against=against, split=split, snapshot=snapshot, scheduler=scheduler
    )
    answer(made.to_json(), as_json, work.lines_of(made))
