"""Verbs of what leaves: ``manifest export`` and ``manifest card``."""

from __future__ import annotations

from typing import Annotated

import typer

from manifests.console import answer


def export(
    uri: Annotated[str, typer.Argument(help="URI of a corpus or a pack.")],
    to: Annotated[str, typer.Option("--to", help="datasets, lhotse, energon, nemo or jsonl.")],
    out: Annotated[str, typer.Option("--out", help="URI of the export; an interrupted one is continued.")],
    split: Annotated[list[str] | None, typer.Option("--split", help="Split of a pack, by default all; may be repeated.")] = None,
    columns: Annotated[
        str, typer.Option("--columns", help="Columns besides the usual facts, e.g. dnsmos.dnsmos_ovrl,recording.codec.")
    ] = "",
    text_from: Annotated[
        str, typer.Option("--text-from", help="Of a corpus: source or layers, the first that has text; by default source,asr.")
    ] = "",
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
        snapshot=snapshot,
        with_audio=not no_audio,
    )
    answer(made.to_json(), as_json, made.lines())


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]
