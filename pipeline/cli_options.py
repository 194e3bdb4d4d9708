"""Options that several verbs of ``stepwell corpus`` share, and the engine that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from manifests.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.engines import Engine
    from pipeline.pools import PoolConfig

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
