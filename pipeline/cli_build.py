"""Verbs that make: ``corpus build | annotate | pack`` and ``tokenizer encode``."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import answer
from manifests.errors import RequestError
from pipeline.cli_options import Address, EngineName, Json, NumCpus, make_engine

app = typer.Typer()


@app.command(epilog="Example: stepwell corpus build ./recordings --out ./corpus --recipe offline")
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Files, folders, globs, .txt lists, .jsonl or .parquet manifests, .tar shards, hf:NAME; local or any URI.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="URI of the corpus; an existing one is continued.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Name (offline, standard) or a .yaml file.")] = "offline",
    engine: EngineName = "ray",
    address: Address = None,
    num_cpus: NumCpus = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="FACT=COLUMN", help="Column of the sources that is a fact: text=transcript; may be repeated."
        ),
    ] = None,
    rights: Annotated[
        str | None,
        typer.Option(
            "--rights", metavar="FILE", help="YAML: licence, consent, terms, attribution and origin_uri of whole sources."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; write nothing.")] = False,
    sample: Annotated[
        str | None,
        typer.Option(
            "--sample", help="With --dry-run: build 0.1% of the inputs, or 20 of them, elsewhere and predict the whole."
        ),
    ] = None,
    pack_recipe: Annotated[
        str | None, typer.Option("--pack-recipe", help="With --sample: predict this recipe's pack too.")
    ] = None,
    retry_quarantined: Annotated[
        list[str] | None,
        typer.Option("--retry-quarantined", metavar="REASON", help="Take inputs again that were refused for this reason."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take recordings into a corpus: store, segment, cut clips, annotate.

    What is committed already is not done again: run the same command after an interruption, or with more sources.
    """
    from manifests.recipes import load_recipe
    from pipeline import build as job
    from pipeline.recipe import BuildRecipe
    from pipeline.rights.source_rights import RightsFile
    from pipeline.sources import ColumnMap

    decoded, columns = load_recipe(BuildRecipe, "pipeline", recipe), ColumnMap.parse(column or ())
    told = RightsFile.read(rights) if rights else None
    if sample is not None and not dry_run:
        raise RequestError(f"--sample {sample} only predicts; give it together with --dry-run")
    if dry_run and sample is None:
        plan = job.dry_run(sources, out, decoded, columns, told)
        answer(asdict(plan), as_json, plan.lines())
        return
    runner = make_engine(engine, address, num_cpus, decoded.pools)
    if sample is not None:
        from pipeline.forecast import forecast
        from pipeline.recipe import PackRecipe

        packing = load_recipe(PackRecipe, "pipeline", pack_recipe) if pack_recipe else None
        predicted = forecast(sources, decoded, sample, runner, columns=columns, pack_recipe=packing, num_cpus=num_cpus)
        answer(asdict(predicted), as_json, predicted.lines())
        return
    result = job.build(sources, out, decoded, runner, columns=columns, rights=told, retry_quarantined=retry_quarantined or ())
    notice = [f"note: {' '.join(decoded.notice.split())}"] if decoded.notice else []
    answer(asdict(result), as_json, [*result.lines(), *notice])


@app.command(epilog="Example: stepwell corpus annotate ./corpus --layer dnsmos --recipe offline")
def annotate(
    corpus: Annotated[str, typer.Argument(help="URI of the corpus.")],
    layer: Annotated[list[str], typer.Option("--layer", help="Layer to add, as the recipe names it; may be repeated.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Recipe that says how the layer is made.")] = "offline",
    engine: EngineName = "ray",
    address: Address = None,
    num_cpus: NumCpus = None,
    as_json: Json = False,
) -> None:
    """Add layers to the current clip set of an existing corpus."""
    from manifests.recipes import load_recipe
    from pipeline import build as job
    from pipeline.recipe import BuildRecipe

    decoded = load_recipe(BuildRecipe, "pipeline", recipe)
    if unknown := [name for name in layer if name not in decoded.annotators]:
        raise RequestError(f"layer {unknown[0]!r} is not in recipe {recipe!r}; it has {', '.join(decoded.annotators)}")
    layers = {name: decoded.annotators[name] for name in layer}
    result = job.annotate(corpus, layers, make_engine(engine, address, num_cpus, decoded.pools), decoded.limits)
    answer(asdict(result), as_json, result.lines())


@app.command(epilog="Example: stepwell corpus pack ./corpus --out ./pack --recipe speech --tokenizer ./tokenizer")
def pack(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="URI of a corpus; or text: .jsonl, .parquet and .txt files, folders or globs."),
    ],
    out: Annotated[str, typer.Option("--out", help="URI of the pack; one that was interrupted is continued.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Name (speech, text) or a .yaml file.")] = "speech",
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="Folder of the tokenizer that made the codes.")] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="FILE", help="spikes.jsonl of a run: leave out what it blames; may be repeated."),
    ] = None,
    engine: EngineName = "inline",
    address: Address = None,
    num_cpus: NumCpus = None,
    as_json: Json = False,
) -> None:
    """Make the training set: shuffled WebDataset shards with indexes, a manifest and the funnel."""
    from manifests.recipes import load_recipe
    from pipeline import pack as job
    from pipeline.recipe import PackRecipe

    with closing(make_engine(engine, address, num_cpus)) as runner:
        decoded = load_recipe(PackRecipe, "pipeline", recipe)
        result = job.pack(sources, out, decoded, tokenizer, runner.map, leave_out=leave_out or ())
    answer(asdict(result), as_json, result.lines())


def encode(
    corpus: Annotated[str, typer.Argument(help="URI of the corpus.")],
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Folder of a trained tokenizer.")],
    layer: Annotated[str, typer.Option("--layer", help="Name of the layer of codes.")] = "codes",
    engine: EngineName = "ray",
    address: Address = None,
    num_cpus: NumCpus = None,
    as_json: Json = False,
) -> None:
    """Encode every clip of a corpus to audio codes: a layer like any other."""
    from pipeline import build as job
    from tokenization.codes import CodesConfig

    config = CodesConfig(kind="codes", tokenizer=os.path.abspath(tokenizer))
    result = job.annotate(corpus, {layer: config}, make_engine(engine, address, num_cpus))
    answer(asdict(result), as_json, result.lines())
