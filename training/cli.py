"""``stepwell train``: ``plan`` says what a recipe would do, ``run`` does it, ``report`` draws its curves, ``show`` shows an example,
``export`` writes weights."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import answer
from manifests.errors import RequestError
from training.config import Dtype, Part
from training.recipe import Task, load_training_recipe

app = typer.Typer(help="Train the model on a pack, stage by stage.", no_args_is_help=True)

RecipeName = Annotated[str, typer.Option("--recipe", help="Name of a shipped recipe, or a .yaml file.")]
PackUri = Annotated[str, typer.Option("--pack", help="URI of the pack.")]
TokenizerUri = Annotated[str, typer.Option("--tokenizer", help="Folder that `stepwell tokenizer train` wrote.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command(
    epilog="Examples: stepwell train plan --recipe demo --pack ./pack --tokenizer ./tokenizer     "
    "stepwell train plan --recipe step_audio_2 --machine h100x8"
)
def plan(
    recipe: RecipeName,
    pack: Annotated[str | None, typer.Option("--pack", help="URI of the pack; without one, documents are assumed.")] = None,
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="Folder of its tokenizer.")] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", help="h100xN, h200xN, a100xN, cpuN, or a .yaml file of one; this one if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print each stage's mix as it really is, tokens, steps, operations, memory and hours on a machine. Writes nothing.

    Without a pack, that of it which needs none. Refuses what cannot work or does not fit, and says what would.
    """
    if (pack is None) != (tokenizer is None):
        raise RequestError("--pack and --tokenizer go together; give both, or neither to plan what needs no pack")
    decoded = load_training_recipe(recipe)
    from training.inputs import open_inputs
    from training.machines import find_machine, this_machine
    from training.plan import make_plan, make_plan_without_pack
    from training.workload import Assumptions

    chosen = find_machine(machine) if machine else this_machine(decoded.threads)
    if pack is None or tokenizer is None:
        made = make_plan_without_pack(decoded, chosen, Assumptions())
    else:
        made = make_plan(open_inputs(decoded, pack, tokenizer), chosen)
    answer(made.to_json(), as_json, made.lines())


@app.command(
    epilog="Examples: stepwell train run --recipe demo --pack ./pack --tokenizer ./tokenizer --run ./run --until align     "
    "torchrun --nproc-per-node 8 -m -- stepwell train run --recipe ...     stepwell train run --workers 8 --address auto --recipe ..."
)
def run(
    recipe: RecipeName,
    pack: PackUri,
    tokenizer: TokenizerUri,
    run_dir: Annotated[str, typer.Option("--run", help="Folder of the run: checkpoints, metrics, summary.")],
    until: Annotated[str | None, typer.Option("--until", help="Stop after this stage.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in the run folder.")] = False,
    allow_inexact: Annotated[
        bool,
        typer.Option(
            "--allow-inexact",
            help="Also with another number of processes, threads, torch, device, precision, recompute or compile: last bits will differ.",
        ),
    ] = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Train on so many workers of a Ray cluster.")] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster to join; without it one is started here. With --workers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the recipe's stages one after the other; ``--resume`` goes on exactly where a run stopped.

    In one process, in those that torchrun starts, or in workers of Ray: the same documents in the same order, and the same
    figures but for the rounding of sums.
    """
    if address is not None and workers is None:
        raise RequestError("--address goes with --workers; say how many workers of the cluster are to train")
    try:
        decoded = load_training_recipe(recipe)
    except RequestError as error:
        if os.environ.get("RANK", "0") != "0":  # all ranks of a launcher meet it; the first says it
            raise SystemExit(error.exit_code) from error
        raise
    from training.launch import Request, answer_on_ray

    request = Request(decoded, pack, tokenizer, run_dir, until, resume, allow_inexact)
    result, is_first = request.answer() if workers is None else (answer_on_ray(request, workers, address), True)
    if is_first:
        answer(asdict(result), as_json, result.lines())


@app.command(epilog="Example: stepwell train show --pack ./pack --tokenizer ./tokenizer --task asr --index 0")
def show(
    pack: PackUri,
    tokenizer: TokenizerUri,
    task: Annotated[Task, typer.Option("--task", help="Task whose example is shown.")],
    index: Annotated[int, typer.Option("--index", help="Which of the task's examples, from 0 in the order of the split.")] = 0,
    split: Annotated[str, typer.Option("--split", help="Split of the pack.")] = "train",
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Recipe whose prompts count; the published ones without.")
    ] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Stage of the recipe whose weights and length count.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print one example as the model gets it: what stands where, of which kind it is, and what its loss weighs."""
    decoded = load_training_recipe(recipe) if recipe else None
    from training.show import show_example

    shown = show_example(pack, tokenizer, task, index, split, decoded, stage)
    answer(shown.to_json(), as_json, shown.lines())


@app.command(epilog="Example: stepwell train report --run ./run")
def report(
    run_dir: Annotated[str, typer.Option("--run", help="Folder of the run; it may be under way.")],
    out: Annotated[
        str | None, typer.Option("--out", help="File of the page; report.html in the run's folder if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an HTML page of a run's curves: loss by kind, held-out documents, speed, learning rates, gradients, steps that rang."""
    from training.run_report import write_run_report

    made = write_run_report(run_dir, out)
    answer({"page": made.page, **made.figures}, as_json, made.lines())


@app.command(epilog="Example: stepwell train export --run ./run --out ./exported     or, for transformers: --part decoder")
def export(
    run_dir: Annotated[str, typer.Option("--run", help="Folder of the run.")],
    out: Annotated[str, typer.Option("--out", help="Folder to write; it must not be there yet.")],
    part: Annotated[
        Part, typer.Option("--part", help="The model in the published layout, or its decoder as Qwen2 for transformers.")
    ] = Part.MODEL,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Type of the weights written.")] = Dtype.BFLOAT16,
    checkpoint: Annotated[str | None, typer.Option("--checkpoint", help="Name of one; the newest if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's weights as safetensors with their config.json, under the published names."""
    from training.export import export_run

    result = export_run(run_dir, out, part, dtype, checkpoint)
    answer(asdict(result), as_json, result.lines())
