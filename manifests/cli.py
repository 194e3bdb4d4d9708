"""Verbs of the contracts: ``manifest show``, what is in a corpus or a pack."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manifests.console import answer
from manifests.errors import RequestError
from manifests.export import cli as export_cli

if TYPE_CHECKING:
    import pyarrow as pa

    from manifests.corpus import Corpus
    from manifests.packs import Pack

app = typer.Typer(help="Look into corpora and packs.", no_args_is_help=True)

app.command("export", epilog="Example: stepwell manifest export ./corpus --to datasets --out ./speech")(export_cli.export)

CORPUS_TABLES = ("inputs", "recordings", "quarantine", "clips")
CELL_CHARS = 60


@app.callback()
def _verbs() -> None:
    """Keeps ``show`` a verb of its own while it is the only one."""


@app.command(epilog="Example: stepwell manifest show ./corpus --table layer:asr --rows 5")
def show(
    uri: Annotated[str, typer.Argument(help="URI of a corpus or a pack.")],
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            help="clips, recordings, inputs, quarantine, spans:NAME, layer:NAME, table:NAME or table:NAME/ROLE; of a pack, a split.",
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of the table to print.")] = 10,
    snapshot: Annotated[
        int | None, typer.Option("--snapshot", min=0, help="Snapshot of the corpus; the newest by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say what is in a corpus or a pack: counts, hours, layers with their fingerprints; or print rows of a table."""
    from manifests.store import Store

    store = Store(uri)
    if store.exists("pack.json") and not store.exists("corpus.json"):
        from manifests.packs import Pack

        pack = Pack.open(uri)
        value, lines = pack_facts(pack) if table is None else table_facts(pack.documents(table), table, rows)
    else:
        from manifests.corpus import Corpus

        corpus = Corpus.open(uri, snapshot)
        value, lines = corpus_facts(corpus) if table is None else table_facts(corpus_table(corpus, table), table, rows)
    answer(value, as_json, lines)


def corpus_facts(corpus: Corpus) -> tuple[dict[str, Any], list[str]]:
    """(facts as JSON, the same as lines)."""
    from manifests.figures import clip_lengths_s

    inputs, recordings, clips = corpus.inputs(), corpus.recordings().to_pylist(), corpus.clips()
    outcomes = inputs["outcome"].to_pylist()
    value = {
        "corpus_id": corpus.corpus_id,
        "snapshot": corpus.snapshot.number,
        "num_units": len(corpus.snapshot.units),
        "clip_set": corpus.clip_set,
        "num_inputs": inputs.num_rows,
        "num_refused": outcomes.count("refused"),
        "num_partial": outcomes.count("partial"),
        "num_recordings": len(recordings),
        "recording_hours": sum(row["num_samples"] / row["sample_rate_hz"] for row in recordings) / 3600,
        "num_clips": clips.num_rows,
        "clip_hours": sum(clip_lengths_s(clips)) / 3600,
        "outputs": dict(sorted(corpus.snapshot.current.items())),
        "models": {
            output: [asdict(model) for model in part.models]
            for output in sorted(corpus.snapshot.current)
            if (part := corpus.part(output)) is not None and part.models
        },
        "tables": {
            name: {"fingerprint": head.fingerprint, "snapshot": head.snapshot, "roles": head.roles}
            for name in sorted(corpus.snapshot.tables)
            if (head := corpus.decision_table(name))
        },
        "units_done": {
            output: len(corpus.snapshot.outputs.get(output, {}).get(mark, []))
            for output, mark in sorted(corpus.snapshot.current.items())
        },
    }
    lines = [
        f"corpus {corpus.corpus_id}, snapshot {value['snapshot']}, {value['num_units']} units, clip set {corpus.clip_set!r}",
        f"  {value['num_inputs']} inputs: {value['num_refused']} refused, {value['num_partial']} kept in part",
        f"  {value['num_recordings']} recordings, {value['recording_hours']:.4g} h; "
        f"{value['num_clips']} clips, {value['clip_hours']:.4g} h",
    ]
    width = max(map(len, value["outputs"]), default=0)
    for output, mark in value["outputs"].items():
        lines.append(f"  {output:<{width}}  {mark}  {value['units_done'][output]}/{value['num_units']} units")
        # Several files of one package are one line for people; the JSON has each.
        lines += dict.fromkeys(f"  {'':<{width}}    {_model_line(model)}" for model in value["models"].get(output, ()))
    for name, head in value["tables"].items():
        lines.append(f"  table {name}  {head['fingerprint']}  over snapshot {head['snapshot']}: {', '.join(head['roles'])}")
    return value, lines


def _model_line(model: dict[str, str | None]) -> str:
    at = f" at {model['revision']}" if model["revision"] else ""
    return f"model {model['name']}{at}, licence {model['licence'] or 'not stated'}"


def pack_facts(pack: Pack) -> tuple[dict[str, Any], list[str]]:
    """(facts as JSON, the same as lines)."""
    from manifests.figures import pack_figures

    figures = pack_figures(pack)
    lineage = {key: pack.head.get(key) for key in ("tokenizer_id", "vocabulary_hash", "codec_fingerprint", "lineage")}
    value = {"pack_id": pack.pack_id, "sample_rate_hz": pack.sample_rate_hz, **figures, **lineage}
    lines = [f"pack {pack.pack_id}, {pack.sample_rate_hz} Hz: {figures['num_documents']} documents, {figures['hours']:.4g} h"]
    for row in figures["splits"]:
        codes, tokens = row["num_codes"] or 0, row["num_text_tokens"] or 0
        lines.append(f"  {row['split']}: {row['num_documents']} documents, {codes} codes, {tokens} text tokens")
    for row in figures["funnel"]:
        reason = f" ({row['reason']})" if row["reason"] else ""
        lines.append(f"  funnel: {row['step']}{reason} {row['num']}, {row['hours']:.4g} h")
    for key in ("tokenizer_id", "vocabulary_hash", "codec_fingerprint"):
        lines.append(f"  {key.replace('_', ' ')}: {lineage[key] or 'none'}")
    return value, lines


def corpus_table(corpus: Corpus, name: str) -> pa.Table:
    """A table of a corpus by the name that ``--table`` takes. Raises RequestError naming those there are."""
    kind, _, part = name.partition(":")
    if kind == "layer" and part in corpus.layers():
        return corpus.layer(part)
    if kind == "spans" and f"spans/{part}" in corpus.snapshot.current:
        return corpus.spans(part)
    if kind == "table" and part:
        table, _, role = part.partition("/")
        return corpus.decisions(table, role or None)
    if name in CORPUS_TABLES:
        found: pa.Table = getattr(corpus, name)()
        return found
    spans = [output.replace("spans/", "spans:") for output in sorted(corpus.snapshot.current) if output.startswith("spans/")]
    tables = [f"table:{table}/{role}" for table in sorted(corpus.snapshot.tables) for role in corpus.decision_table(table).roles]
    names = [*CORPUS_TABLES, *spans, *(f"layer:{layer}" for layer in corpus.layers()), *tables]
    raise RequestError(f"table {name!r} is not one of {', '.join(names)}")


def table_facts(table: pa.Table, name: str, rows: int) -> tuple[dict[str, Any], list[str]]:
    """The first rows; ids as hex. As lines: one block a row, a column on a line, nulls left out."""
    shown = [{key: readable(value) for key, value in row.items()} for row in table.slice(0, rows).to_pylist()]
    lines = [f"{name}: {table.num_rows} rows, {table.num_columns} columns"]
    width = max(map(len, table.column_names), default=0)
    for number, row in enumerate(shown):
        lines.append(f"row {number}")
        lines += [f"  {key:<{width}}  {shortened(value)}" for key, value in row.items() if value is not None]
    return {"table": name, "num_rows": table.num_rows, "columns": table.column_names, "rows": shown}, lines


def readable(value: Any) -> Any:
    """The value as JSON can hold it: bytes as hex, in lists and structs too."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [readable(item) for item in value]
    if isinstance(value, dict):
        return {key: readable(item) for key, item in value.items()}
    return value


def shortened(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= CELL_CHARS else f"{text[: CELL_CHARS - 1]}…"
