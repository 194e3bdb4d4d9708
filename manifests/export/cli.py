"""Verbs of what leaves: ``manifest export`` and ``manifest card``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import answer


def export(
    uri: Annotated[str, typer.Argument(help="URI of a corpus or a pack.")],
    to: Annotated[str, typer.Option("--to", help="datasets, lhotse, lhotse_shar, energon, nemo or jsonl.")],
    out: Annotated[str, typer.Option("--out", help="URI of the export; an interrupted one is continued.")],
    split: Annotated[list[str] | None, typer.Option("--split", help="Split of a pack, by default all; may be repeated.")] = None,
    columns: Annotated[
        str, typer.Option("--columns", help="Columns besides the usual facts, e.g. dnsmos.dnsmos_ovrl,recording.codec.")
    ] = "",
    text_from: Annotated[
        str, typer.Option("--text-from", help="Of a corpus: source or layers, the first that has text; by default source,asr.")
    ] = "",
    where: Annotated[
        str | None, typer.Option("--where", help="Only rows that meet a condition: \"language = 'zh' and snr_db >= 10\".")
    ] = None,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Facts alone (datasets, energon, jsonl).")] = False,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", min=0, help="Snapshot of the corpus; the newest by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write clips or documents in the format of another library, the licence with every row.

    Run the same command after an interruption: what is done is not done again.
    """
    from manifests.export import work

    made = work.export(
        uri,
        to,
        out,
        splits=split,
        columns=_names(columns),
        text_from=_names(text_from),
        where=where,
        snapshot=snapshot,
        with_audio=not no_audio,
    )
    answer(made.to_json(), as_json, made.lines())


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def card(
    uri: Annotated[str, typer.Argument(help="URI of a corpus or a pack.")],
    out: Annotated[
        str, typer.Option("--out", help="Folder for README.md, plots and croissant.json: of its own, of an export, or the pack.")
    ] = "card",
    name: Annotated[str | None, typer.Option("--name", help="Name of the data; the last part of the URI by default.")] = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Of a pack: the corpus that it was made from, which knows the models.")
    ] = None,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", min=0, help="Snapshot of the corpus; the newest by default.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Address of a Dask scheduler; threads here by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a dataset card with the hub's front matter, plots and Croissant, all from the facts."""
    from manifests.export.card import write_card

    made = write_card(uri, out, name=name, corpus_uri=corpus, snapshot=snapshot, scheduler=scheduler)
    answer(asdict(made), as_json, made.lines())
