"""Verbs of rights: ``manifest rights``."""

from __future__ import annotations

from typing import Annotated

import typer

from manifests.console import answer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RIGHTS_EXAMPLE = "Example: stepwell manifest rights ./corpus"


def rights(uri: Annotated[str, typer.Argument(help="URI of the corpus.")], as_json: Json = False) -> None:
    """What may be used: hours by source, licence, consent and what they allow, and the gaps in what sources say."""
    from manifests.corpus import Corpus
    from pipeline.rights.ledger import read_ledger

    found = read_ledger(Corpus.open(uri))
    answer(found.to_json(), as_json, found.lines())
