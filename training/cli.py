"""``stepwell train``: ``plan`` says what a recipe would do with a pack, ``run`` does it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import answer
from training.recipe import load_training_recipe

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
