"""The command: gathers the verbs of the folders, nothing else. Importing it imports neither torch nor ray."""

from __future__ import annotations

import sys

import typer

import manifests.cli
import pipeline.cli
import tokenization.cli
import training.cli
from manifests.console import say
from manifests.errors import StepwellError

app = typer.Typer(
    help="Raw recordings to a Step-Audio-2-class speech model: corpus, packs, trainer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(pipeline.cli.app, name="corpus")
app.add_typer(manifests.cli.app, name="manifest")
app.add_typer(tokenization.cli.app, name="tokenizer")
app.add_typer(training.cli.app, name="train")
# Codes are a layer, made by the engines of the pipeline; a user looks for the verb beside `tokenizer train`.
tokenization.cli.app.command("encode", epilog="Example: stepwell tokenizer encode ./corpus --tokenizer ./tokenizer")(
    pipeline.cli.encode
)


def main() -> None:
    """Run the command: exit code 0, 1 (the work failed) or 2 (the request was wrong), errors as one line."""
    try:
        app()
    except StepwellError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
