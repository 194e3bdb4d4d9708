"""``stepwell train``: ``plan`` says what a recipe would do with a pack, ``run`` does it, ``show`` shows an example."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import answer
from training.recipe import Task, load_training_recipe

app = typer.Typer(help="Train the model on a pack, stage by stage.", no_args_is_help=True)

RecipeName = Annotated[str, typer.Option("--recipe", help="Name of a shipped recipe, or a .yaml file.")]
PackUri = Annotated[str, typer.Option("--pack", help="URI of the pack.")]
TokenizerUri = Annotated[str, typer.Option("--tokenizer", help="Folder that `stepwell tokenizer train` wrote.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command(epilog="Example: stepwell train plan --recipe demo --pack ./pack --tokenizer ./tokenizer")
def plan(recipe: RecipeName, pack: PackUri, tokenizer: TokenizerUri, as_json: AsJson = False) -> None:
    """Print the stages, what each trains at which rate, and the documents that serve its tasks. Writes nothing."""
    decoded = load_training_recipe(recipe)
    from training.plan import make_plan, open_inputs

    made = make_plan(open_inputs(decoded, pack, tokenizer))
    answer(made.to_json(), as_json, made.lines())


@app.command(epilog="Example: stepwell train run --recipe demo --pack ./pack --tokenizer ./tokenizer --run ./run --until align")
def run(
    recipe: RecipeName,
    pack: PackUri,
    tokenizer: TokenizerUri,
    run_dir: Annotated[str, typer.Option("--run", help="Folder of the run: checkpoints, metrics, summary.")],
    until: Annotated[str | None, typer.Option("--until", help="Stop after this stage.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in the run folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the recipe's stages one after the other; ``--resume`` goes on exactly where a run stopped."""
    decoded = load_training_recipe(recipe)
    from training.run import train

    result = train(decoded, pack, tokenizer, run_dir, until=until, resume=resume)
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
