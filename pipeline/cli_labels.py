"""Verbs of voices and labels: ``corpus synthesize | link-speakers | fit-classifier``."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import answer
from manifests.errors import RequestError
from pipeline.cli_options import Json

app = typer.Typer()


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
