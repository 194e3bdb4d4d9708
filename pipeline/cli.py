"""The verbs of the pipeline: ``stepwell corpus ...``."""

from __future__ import annotations

import typer

from pipeline import cli_build, cli_labels, cli_upkeep

app = typer.Typer(help="Build, annotate and pack corpora.", no_args_is_help=True)
for verbs in (cli_build.app, cli_labels.app, cli_upkeep.app):
    app.add_typer(verbs)
