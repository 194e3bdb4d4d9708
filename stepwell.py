"""The command: gathers the verbs of the folders. Importing it imports neither torch nor ray.

``stepwell demo`` is the one verb of its own, since only this layer may call all the others; it does nothing but call
them in order.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

INTERRUPTED = "error: interrupted; what was committed stays, run the same command to go on (`train run` with --resume)"
TYPER_INTERRUPTED = 130  # typer ends with it and without a word

try:
    import typer

    import manifests.cli
    import pipeline.cli
    import pipeline.cli_build
    import pipeline.copies.cli
    import pipeline.rights.cli
    import tokenization.cli
    import training.cli
    from manifests.console import answer, say
    from manifests.errors import StepwellError
    from pipeline.cli_options import EngineName, Json, make_engine
except KeyboardInterrupt:  # Ctrl-C while they load ends as it does later
    sys.exit(INTERRUPTED)


app = typer.Typer(
    help="Raw recordings to a Step-Audio-2-class speech model: corpus, packs, trainer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(pipeline.cli.app, name="corpus")
app.add_typer(manifests.cli.app, name="manifest")
app.add_typer(tokenization.cli.app, name="tokenizer")
app.add_typer(training.cli.app, name="train")
# Codes are a layer, made by the engines of the pipeline; a user looks for the verb beside `tokenizer train`.
tokenization.cli.app.command("encode", epilog="Example: stepwell tokenizer encode ./corpus --tokenizer ./tokenizer")(
    pipeline.cli_build.encode
)
# What changes a corpus needs the pipeline; a user looks for it beside the other verbs of manifests.
manifests.cli.app.command("rights", epilog=pipeline.rights.cli.RIGHTS_EXAMPLE)(pipeline.rights.cli.rights)
manifests.cli.app.command("takedown", epilog=pipeline.rights.cli.TAKEDOWN_EXAMPLE)(pipeline.rights.cli.takedown)
manifests.cli.app.command("dedup", epilog=pipeline.copies.cli.DEDUP_EXAMPLE)(pipeline.copies.cli.dedup)
manifests.cli.app.command("decontaminate", epilog=pipeline.copies.cli.DECONTAMINATE_EXAMPLE)(pipeline.copies.cli.decontaminate)


@app.command(epilog="Example: stepwell demo     or, on your own recordings: stepwell demo ./recordings --out ./demo-of-mine")
def demo(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]...", help="Recordings; else the speech that ships.")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Folder for all that the demo makes.")] = "demo",
    engine: EngineName = "ray",
    as_json: Json = False,
) -> None:
    """The whole chain on real speech: build, tokenizer, pack, train, report. Run again, it goes on where it stopped."""
    from manifests.recipes import load_recipe
    from manifests.report import write_report
    from pipeline.build import annotate, build
    from pipeline.pack import pack
    from pipeline.recipe import BuildRecipe, PackRecipe
    from pipeline.shipped_speech import write_manifest
    from tokenization.build import build_tokenizer
    from tokenization.codes import CodesConfig
    from tokenization.recipe import TokenizerRecipe
    from training.checkpoint import complete
    from training.recipe import TrainingRecipe
    from training.run import train

    corpus, tokenizer, packed, run = (os.path.join(out, name) for name in ("corpus", "tokenizer", "pack", "run"))
    costs = Costs(os.path.join(out, "costs.json"))
    runner = make_engine(engine)
    build_recipe = load_recipe(BuildRecipe, "pipeline", "offline")
    with costs.step("build") as did:
        built = build(sources or [write_manifest(os.path.join(out, "sources.jsonl"))], corpus, build_recipe, runner)
        did(built.lines(), built.run_id is not None)
    with costs.step("tokenizer") as did:
        made = build_tokenizer(corpus, tokenizer, load_recipe(TokenizerRecipe, "tokenization", "demo"))
        did(made.lines(), made.is_new)
    with costs.step("encode") as did:
        encoded = annotate(corpus, {"codes": CodesConfig(kind="codes", tokenizer=os.path.abspath(tokenizer))}, runner)
        did(encoded.lines()[:1], encoded.run_id is not None)
    with costs.step("pack") as did:
        result = pack(corpus, packed, load_recipe(PackRecipe, "pipeline", "speech"), os.path.abspath(tokenizer))
        did(result.lines(), result.is_new)
    with costs.step("train") as did:
        training_recipe = load_recipe(TrainingRecipe, "training", "demo")
        # In two goes, as a real run would be: to the end of alignment, then on from that checkpoint.
        first = train(training_recipe, packed, tokenizer, run, until="align", resume=bool(complete(run)))
        last = train(training_recipe, packed, tokenizer, run, resume=True)
        did(last.lines(), first.steps + last.steps > 0)
    with costs.step("report") as did:
        summary = write_report(out, corpus, packed, tokenizer, run, costs.rows)
        did([f"open {os.path.join(out, 'report.html')}; the same figures are in {os.path.join(out, 'summary.json')}"], False)
    answer(
        summary,
        as_json,
        [f"all steps together: {sum(row['wall_s'] for row in costs.rows):.0f} s: {os.path.join(out, 'report.html')}"],
    )


class Costs:
    """What each step of the demo cost. A step that found its work done keeps the figure of the run that did it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.rows = json.load(file)

    @contextmanager
    def step(self, name: str) -> Iterator[Any]:
        """Time a step; the body calls ``did(lines, is_new)`` with what it did."""
        say(f"── {name}")
        began = time.perf_counter()

        def did(lines: list[str], is_new: bool) -> None:
            wall_s = time.perf_counter() - began
            say("\n".join(f"   {line}" for line in lines))
            if is_new:
                self.rows = [*(row for row in self.rows if row["step"] != name), {"step": name, "wall_s": wall_s}]
                with open(self._path, "w", encoding="utf-8") as file:
                    json.dump(self.rows, file)

        yield did


def main() -> None:
    """Run the command: exit code 0, 1 (the work failed) or 2 (the request was wrong), errors as one line."""
    try:
        app()
    except StepwellError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except OSError as error:  # a disk or store that fails in the middle; what was committed stays
        say(f"error: {' '.join(str(error).split())} ({type(error).__name__}); run the same command to go on")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        sys.exit(INTERRUPTED if end.code == TYPER_INTERRUPTED else end.code)


if __name__ == "__main__":
    main()
