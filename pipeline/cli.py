"""Verbs of the pipeline: ``corpus build | synthesize | annotate | pack | status | simulate | ...`` and ``tokenizer encode``."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from manifests.console import answer
from manifests.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.engines import Engine
    from pipeline.pools import PoolConfig

app = typer.Typer(help="Build, annotate and pack corpora.", no_args_is_help=True)

EngineName = Annotated[
    Literal["ray", "local", "inline"],
    typer.Option("--engine", help="Where it runs: a Ray cluster, one child process, or (for debuggers) this process."),
]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster to join; without it one is started here.")]
NumCpus = Annotated[int | None, typer.Option("--num-cpus", min=1, help="CPUs that Ray may use; all of them by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
PriceCoreHour = Annotated[float | None, typer.Option("--price-core-hour", min=0, help="What an hour of one CPU costs.")]
PriceGpuHour = Annotated[float | None, typer.Option("--price-gpu-hour", min=0, help="What an hour of one GPU costs.")]
GraceHours = Annotated[
    float,
    typer.Option("--grace-hours", min=0, help="Nothing younger is removed; 0 only while nothing else works on the corpus."),
]
Currency = Annotated[str, typer.Option("--currency", help="Name of the money that prices are in.")]


@app.command(epilog="Example: stepwell corpus build ./recordings --out ./corpus --recipe offline")
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
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


@app.command(
    epilog="Example: stepwell corpus synthesize texts.jsonl --out ./said && stepwell corpus build ./said/manifest.jsonl --out ./corpus"
)
def synthesize(
    texts: Annotated[str, typer.Argument(help="JSONL: `text` and `language`, or a dialogue's `turns` of `role` and `text`.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the files and their manifest; one that was begun is continued.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Name (voices) or a .yaml file.")] = "voices",
    as_json: Json = False,
) -> None:
    """Say texts and dialogues by synthetic voices: FLAC files and a manifest that build takes as a source.

    What is said is marked as synthetic in the manifest and in every file. A row may name its `voice`.
    """
    from manifests.recipes import load_recipe
    from pipeline.recipe import VoicesRecipe
    from pipeline.synthesis import synthesise

    result = synthesise(texts, out, load_recipe(VoicesRecipe, "pipeline", recipe))
    answer(asdict(result), as_json, result.lines())


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


@app.command("link-speakers", epilog="Example: stepwell corpus link-speakers ./corpus")
def link_speakers(
    corpus: Annotated[str, typer.Argument(help="URI of the corpus.")],
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Cosine of two clips from which on voices are one person; 0.74 at first, below 0.79."),
    ] = None,
    layer: Annotated[str, typer.Option("--layer", help="Layer of speaker embeddings.")] = "speaker_embedding",
    anew: Annotated[bool, typer.Option("--anew", help="Forget the ids that there are; packs made before keep theirs.")] = False,
    num_threads: Annotated[
        int | None, typer.Option("--num-threads", min=1, help="Threads that look for neighbours; one a CPU by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find persons again across recordings: the decision table speaker_id, brought up to the newest snapshot.

    A person keeps its id; ids that prove to be one person become aliases of the oldest.
    """
    from pipeline import link_speakers as job

    result = job.link_speakers(corpus, layer, threshold, is_anew=anew, num_threads=num_threads or os.cpu_count() or 1)
    answer(asdict(result), as_json, result.lines())


@app.command(
    "fit-classifier",
    epilog="Example: stepwell corpus fit-classifier ./corpus --labels emotions.jsonl --dimension emotion --out ./emotion-classifier",
)
def fit_classifier(
    corpus: Annotated[str, typer.Argument(help="URI of a corpus of the labelled recordings, with the layers of features.")],
    labels: Annotated[str, typer.Option("--labels", help="JSONL: uri (or path) of an input, or recording_id, with its label.")],
    dimension: Annotated[str, typer.Option("--dimension", help="Dimension of paralinguistics: emotion, gender, age, event, ...")],
    out: Annotated[str, typer.Option("--out", help="Folder for the classifier; new or empty.")],
    features: Annotated[
        str, typer.Option("--features", help="Layers (or layer.column) with commas between.")
    ] = "speaker_embedding,prosody,spectrum",
    group: Annotated[
        str,
        typer.Option("--group", help="Who is never on both sides of a fold: a key of the labels, or speaker, source, recording."),
    ] = "speaker",
    label: Annotated[str, typer.Option("--label", help="Key of the label in each row.")] = "label",
    precision: Annotated[
        float, typer.Option("--precision", min=0, max=1, help="Share of stated labels that must be right.")
    ] = 0.9,
    fewest_items: Annotated[
        int, typer.Option("--fewest-items", min=2, help="Clips that a label needs; below 30 claims are void.")
    ] = 30,
    as_json: Json = False,
) -> None:
    """Fit a small calibrated classifier on labels and stored layers; `kind: fitted_classifier` makes a layer with it.

    It abstains below the confidence from which on the precision is reached on groups that it was not fitted on.
    """
    from annotators.paralinguistics_schema import DIMENSIONS
    from pipeline import fit_classifier as job

    if dimension not in DIMENSIONS:
        raise RequestError(f"dimension {dimension!r} is not one of {', '.join(DIMENSIONS)}")
    result = job.fit_classifier(
        corpus,
        labels,
        dimension,
        features.split(","),
        out,
        group=group,
        label_key=label,
        precision=precision,
        fewest_items=fewest_items,
    )
    answer(result.to_json(), as_json, result.lines())


@app.command(epilog="Example: stepwell corpus pack ./corpus --out ./pack --recipe speech --tokenizer ./tokenizer")
def pack(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="URI of a corpus; or text: .jsonl and .parquet files, folders or globs."),
    ],
    out: Annotated[str, typer.Option("--out", help="URI of the pack; one that was interrupted is continued.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Name (speech, text) or a .yaml file.")] = "speech",
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="Folder of the tokenizer that made the codes.")] = None,
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
        result = job.pack(sources, out, load_recipe(PackRecipe, "pipeline", recipe), tokenizer, runner.map)
    answer(asdict(result), as_json, result.lines())


@app.command(epilog="Example: stepwell corpus compact ./corpus")
def compact(
    corpus: Annotated[str, typer.Argument(help="URI of the corpus.")],
    grace_hours: GraceHours = 24.0,
    as_json: Json = False,
) -> None:
    """Merge the tables of many units into large ones and remove what nobody needs any more; no row changes.

    Safe beside a running build and running readers.
    """
    from pipeline import compact as job

    result = job.compact(corpus, grace_s=grace_hours * 3600)
    answer(asdict(result), as_json, result.lines())


@app.command(
    epilog="Example: stepwell corpus fsck ./corpus     or, to mend what is wrong: stepwell corpus fsck ./corpus --repair"
)
def fsck(
    corpus: Annotated[str, typer.Argument(help="URI of the corpus.")],
    repair: Annotated[bool, typer.Option("--repair", help="Mend it; what is broken is done again by the next build.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out the digests of audio and of compacted parts.")] = False,
    grace_hours: GraceHours = 24.0,
    as_json: Json = False,
) -> None:
    """Verify every checksum, schema, index and cross-reference. Exit code 1 when faults are found, or left by --repair."""
    from pipeline.fsck import check
    from pipeline.repair import repair as mend

    found = check(corpus, fast=fast, grace_s=grace_hours * 3600)
    done = mend(found, grace_hours * 3600) if repair else None
    mended = {"repaired": asdict(done)} if done else {}
    answer({**found.to_json(), **mended}, as_json, [*found.lines(), *(done.lines() if done else [])])
    if done.num_left if done else found.faults:
        raise typer.Exit(1)


@app.command(epilog="Example: stepwell corpus status ./corpus --watch     or, what it cost: --costs --price-core-hour 0.04")
def status(
    corpus: Annotated[str, typer.Argument(help="URI of the corpus.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 s until no run is at work.")] = False,
    costs: Annotated[bool, typer.Option("--costs", help="Add what all runs cost, part by part.")] = False,
    price_core_hour: PriceCoreHour = None,
    price_gpu_hour: PriceGpuHour = None,
    currency: Currency = "USD",
    as_json: Json = False,
) -> None:
    """Units done of each output, runs at work and runs that ended."""
    from pipeline import status as reader
    from pipeline.costs import Prices, cost_table

    if watch and as_json:
        raise RequestError("--watch shows lines for people; leave it out with --json, and call again")
    prices = Prices(price_core_hour, price_gpu_hour, currency)

    def lines(found: reader.CorpusStatus) -> list[str]:
        return reader.lines(found, cost_table(found.runs, prices) if costs else None)

    if watch:
        reader.watch(lambda: reader.read_status(corpus), lines)
        return
    found = reader.read_status(corpus)
    table = {"costs": asdict(cost_table(found.runs, prices))} if costs else {}
    answer({**found.to_json(), **table}, as_json, lines(found))


@app.command(epilog="Example: stepwell corpus simulate --from ./corpus --hours 1e6 --nodes 16 --cpus-per-node 64")
def simulate(
    measured: Annotated[str | None, typer.Option("--from", help="Corpus, or CORPUS/runs/ID, whose ledger has the rates.")] = None,
    rates: Annotated[str | None, typer.Option("--rates", help="File of rates; --json prints those of --from.")] = None,
    hours: Annotated[float, typer.Option("--hours", min=0.001, help="Hours of audio to build.")] = 1e6,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines, all alike.")] = 1,
    cpus_per_node: Annotated[int, typer.Option("--cpus-per-node", min=1)] = os.cpu_count() or 1,
    gpus_per_node: Annotated[float, typer.Option("--gpus-per-node", min=0)] = 0,
    unit_minutes: Annotated[
        float | None, typer.Option("--unit-minutes", min=0.001, help="Audio of a unit on average; as measured by default.")
    ] = None,
    price_core_hour: PriceCoreHour = None,
    price_gpu_hour: PriceGpuHour = None,
    currency: Currency = "USD",
    as_json: Json = False,
) -> None:
    """What a build of so many hours would take on a cluster: days, money, the bottleneck and the pools that balance it."""
    from pipeline import projection
    from pipeline.costs import Prices
    from pipeline.rates import measured_rates, read_rates

    if (measured is None) == (rates is None):
        raise RequestError("rates come from --from CORPUS or from --rates FILE; give one of the two")
    found = measured_rates(measured) if measured is not None else read_rates(rates or "")
    machines = projection.Nodes(nodes, cpus_per_node, gpus_per_node)
    prices = Prices(price_core_hour, price_gpu_hour, currency)
    projected = projection.project(found, hours, machines, prices, unit_minutes * 60 if unit_minutes else None)
    answer({**asdict(projected), "rates": found.model_dump(mode="json")}, as_json, projection.lines(projected))


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


def make_engine(
    name: str, address: str | None = None, num_cpus: int | None = None, pools: Mapping[str, PoolConfig] | None = None
) -> Engine:
    """The engine of that name. Raises RequestError for options that it does not take."""
    if name == "ray":
        from pipeline.ray_engine import RayEngine

        return RayEngine(address, num_cpus, pools)
    if address or num_cpus:
        raise RequestError(f"--address and --num-cpus go with --engine ray; --engine {name} does one task at a time")
    from pipeline.engines import InlineEngine, LocalEngine

    return InlineEngine() if name == "inline" else LocalEngine()
