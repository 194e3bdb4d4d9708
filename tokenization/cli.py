"""Verbs ``tokenizer train | decode | chat | check``; ``tokenizer encode`` is a job of the pipeline and mounted there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import aligned, answer
from manifests.errors import ContractError, RequestError
from tokenization.chat import AnswerMode

app = typer.Typer(help="Train, use and check tokenizers: text and audio to ids and back.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Folder = Annotated[str, typer.Argument(metavar="TOKENIZER", help="Folder of a trained tokenizer.")]


@app.command(epilog="Example: stepwell tokenizer train ./corpus --out ./tokenizer --recipe small")
def train(
    corpus: Annotated[str, typer.Argument(help="URI of the corpus.")],
    out: Annotated[str, typer.Option("--out", help="Folder to write; one made from the same content is left as it is.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Name (small, demo) or a .yaml file.")] = "small",
    as_json: Json = False,
) -> None:
    """Train the text tokenizer and the audio codec on a corpus."""
    from manifests.recipes import load_recipe
    from tokenization.build import build_tokenizer
    from tokenization.recipe import TokenizerRecipe

    result = build_tokenizer(corpus, out, load_recipe(TokenizerRecipe, "tokenization", recipe))
    answer(asdict(result), as_json, result.lines())


@app.command(epilog="Example: stepwell tokenizer decode ./tokenizer codes.npy --out speech.wav")
def decode(
    tokenizer: Folder,
    codes: Annotated[str, typer.Argument(metavar="CODES.npy", help="Local .npy of codes, one dimension, whole numbers.")],
    out: Annotated[str, typer.Option("--out", help="Local .wav to write, 16 bits.")],
    as_json: Json = False,
) -> None:
    """Turn codes back into audio, through the codec's own decoder."""
    import numpy as np
    import soundfile

    from tokenization.artifact import Tokenizer

    codec = Tokenizer.open(tokenizer).loaded_codec()
    try:
        values = np.load(codes, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RequestError(f"codes {codes!r} cannot be read ({error}); give a .npy file of codes") from error
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or (len(values) and values.min() < 0):
        raise RequestError(
            f"codes {codes!r} are {values.dtype} {list(values.shape)}; they must be whole numbers from 0, [frames]"
        )
    if len(values) and int(values.max()) >= codec.num_codes:
        raise RequestError(f"codes {codes!r} hold {int(values.max())}; the codec's codes are 0..{codec.num_codes - 1}")
    audio = codec.decode(values)
    try:
        soundfile.write(out, audio, codec.sample_rate_hz, subtype="PCM_16", format="WAV")
    except (OSError, soundfile.LibsndfileError) as error:
        raise RequestError(f"output {out!r} cannot be written ({error}); choose another --out") from error
    seconds = len(audio) / codec.sample_rate_hz
    found = {"out": out, "num_codes": len(values), "audio_s": seconds, "sample_rate_hz": codec.sample_rate_hz}
    answer(found, as_json, [f"{out}: {seconds:.2f} s from {len(values)} codes"])


@app.command(epilog="Example: stepwell tokenizer chat ./tokenizer chat.json --answer speech")
def chat(
    tokenizer: Folder,
    messages: Annotated[str, typer.Argument(metavar="CHAT.json", help="Local file: messages, and tools if there are any.")],
    mode: Annotated[AnswerMode | None, typer.Option("--answer", help="Ask for an answer, instead of learning the last.")] = None,
    as_json: Json = False,
) -> None:
    """Show a chat as the template lays it out: what is tokenised by itself, of which kind it is, and where the loss is."""
    from tokenization.artifact import Tokenizer
    from tokenization.chat import ChatTemplate, described, read_chat

    read, opened = read_chat(messages), Tokenizer.open(tokenizer)
    template = ChatTemplate(opened.text, opened.vocabulary)
    stretches = described(template.prompt(read, mode) if mode else template.example(read), opened.text, opened.vocabulary)
    rows = [[row["kind"], "loss" if row["is_target"] else "-", row["text"]] for row in stretches]
    answer({"stretches": stretches}, as_json, aligned([["kind", "loss", "text"], *rows]))


@app.command(epilog="Example: stepwell tokenizer check ./tokenizer ./corpus")
def check(
    tokenizer: Folder,
    corpus: Annotated[str | None, typer.Argument(help="URI of a corpus with a layer of codes.")] = None,
    layer: Annotated[str, typer.Option("--layer", help="Name of the layer of codes.")] = "codes",
    as_json: Json = False,
) -> None:
    """Check a tokenizer's hashes; with a corpus also lengths, range, use and stability of its codes."""
    from tokenization.check import check_tokenizer

    result = check_tokenizer(tokenizer, corpus, layer)
    answer(result.to_json(), as_json, result.lines())
    if result.layer and not result.layer.is_sound:
        raise ContractError(
            f"layer {layer!r} does not fit tokenizer {tokenizer!r} (see the counts above); "
            "encode the corpus with this tokenizer again"
        )
