"""Verbs of upkeep and outlook: ``corpus compact | fsck | status | simulate``."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import answer
from manifests.errors import RequestError
from pipeline.cli_options import Currency, GraceHours, Json, PriceCoreHour, PriceGpuHour

app = typer.Typer()


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
