"""Verbs of copies: ``manifest dedup`` and ``manifest decontaminate``."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from manifests.console import answer
from manifests.errors import RequestError
from pipeline.copies.recipe import KEEP, DecontaminateConfig, DedupConfig

DEDUP_EXAMPLE = (
    "Example: stepwell manifest dedup ./corpus     or, texts too: stepwell manifest dedup ./corpus --by exact,near,text"
)
DECONTAMINATE_EXAMPLE = "Example: stepwell manifest decontaminate ./corpus --registry ./evaluation-sets --proof ./proof.json"
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ContentLayer = Annotated[str, typer.Option("--content-layer", help="Layer of kind `content`.")]
Scratch = Annotated[
    str | None,
    typer.Option("--scratch", help="Folder for temporary files, 3 kB a clip of 10 s; workers of --scheduler must see it."),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="Dask scheduler to work on; threads of this process by default."),
]


def dedup(
    uri: Annotated[str, typer.Argument(help="URI of the corpus.")],
    content_layer: ContentLayer = "content",
    by: Annotated[
        str, typer.Option("--by", help="Of exact (equal samples), near (the same recording in another form) and text.")
    ] = "exact,near",
    least_share: Annotated[
        float, typer.Option("--least-share", help="Share of a clip that a copy must have for the clip to be left out.")
    ] = 0.8,
    keep: Annotated[
        str, typer.Option("--keep", help="Which copy stays: COLUMN:highest|lowest|stated|lossless, the first counts most.")
    ] = ",".join(KEEP),
    text: Annotated[str, typer.Option("--text", help="Column of the texts: input.text, or asr.text of a layer.")] = "input.text",
    least_similarity: Annotated[
        float, typer.Option("--least-similarity", help="Jaccard similarity from which on two texts are the same.")
    ] = 0.9,
    leave_out_text: Annotated[
        Literal["none", "same_speaker", "any"],
        typer.Option("--leave-out-text", help="Leave out clips whose text another clip says: of its speaker, or of anybody."),
    ] = "none",
    scratch: Scratch = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Find copies among the clips and say which one stays: the decision table `duplicates`. Nothing is deleted.

    A part that two clips share (a jingle, an advert) is written down with its place, and leaves out nobody.
    """
    from pipeline.copies import dedup as job

    try:
        config = DedupConfig(
            content_layer=content_layer,
            by=tuple(filter(None, by.split(","))),  # type: ignore[arg-type]
            least_share=least_share,
            keep=tuple(filter(None, keep.split(","))),
            text_column=text,
            least_similarity=least_similarity,
            leave_out_text=leave_out_text,
        )
    except ValidationError as error:
        raise _refused(error) from error
    result = job.dedup(uri, config, scratch=scratch, scheduler=scheduler)
    answer(asdict(result), as_json, result.lines())


def decontaminate(
    uri: Annotated[str, typer.Argument(help="URI of the corpus.")],
    registry: Annotated[
        list[str] | None,
        typer.Option("--registry", metavar="URI", help="Corpus of evaluation sets (`build --recipe registry`); may be repeated."),
    ] = None,
    content_layer: ContentLayer = "content",
    by: Annotated[str, typer.Option("--by", help="Of near (a stretch of the same recording) and text.")] = "near,text",
    text: Annotated[
        str,
        typer.Option("--text", help="Columns of the corpus that hold texts: input.text, or input.text,asr.text with a layer's."),
    ] = "input.text",
    ngram: Annotated[int, typer.Option("--ngram", help="Words (characters, where no spaces are written) in a row.")] = 13,
    least_ngram_share: Annotated[
        float, typer.Option("--least-ngram-share", help="Part of an evaluation text's n-grams that a clip must have; 0: any one.")
    ] = 0.0,
    allow_unreadable: Annotated[
        bool, typer.Option("--allow-unreadable", help="Compare although nobody can read some inputs of a registry.")
    ] = False,
    proof: Annotated[str | None, typer.Option("--proof", metavar="FILE", help="Write a proof that --check reads.")] = None,
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="FILE", help="Compare nothing: say whether this proof still holds of the corpus."),
    ] = None,
    scratch: Scratch = None,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Find clips that evaluation sets hold too: the decision table `contamination`. Nothing is deleted.

    Exit code 1 when a proof that is checked no longer holds.
    """
    from pipeline.copies import contamination_proof as proofs
    from pipeline.copies import decontaminate as job

    if check is not None:
        if registry or proof:
            raise RequestError("--check compares nothing; leave out --registry and --proof")
        faults = proofs.check(check, uri)
        answer({"proof": check, "holds": not faults, "faults": faults}, as_json, faults or [f"proof {check} holds of {uri}"])
        if faults:
            raise typer.Exit(1)
        return
    try:
        config = DecontaminateConfig(
            content_layer=content_layer,
            by=tuple(filter(None, by.split(","))),  # type: ignore[arg-type]
            text_columns=tuple(filter(None, text.split(","))),
            ngram=ngram,
            least_ngram_share=least_ngram_share,
        )
    except ValidationError as error:
        raise _refused(error) from error
    if proof is not None and (os.path.isdir(proof) or not os.path.isdir(os.path.dirname(proof) or ".")):
        raise RequestError(f"--proof {proof!r} cannot be written: give a file in a folder that is there")
    result = job.decontaminate(
        uri, registry or [], config, allow_unreadable=allow_unreadable, scratch=scratch, scheduler=scheduler
    )
    if proof is not None:
        with open(proof, "wb") as file:
            file.write(proofs.Proof.of(result, config).to_json())
    answer(asdict(result), as_json, [*result.lines(), *([f"proof: {proof}"] if proof else [])])


def _refused(error: ValidationError) -> RequestError:
    first = error.errors()[0]
    option = "--" + str(first["loc"][0]).removesuffix("_columns").removesuffix("_column").replace("_", "-")
    return RequestError(f"{option} {first['input']!r}: {first['msg'].removeprefix('Value error, ')}")
