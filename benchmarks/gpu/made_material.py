"""The file that ``python3 -m benchmarks.gpu`` trains on, made where the project's environment is.

    .venv/bin/python -m benchmarks.gpu.made_material

Sequences of half heard, two fifths spoken and one tenth written documents of ``../shared/speech/read``, in the published layout of the
vocabulary. Texts are split by a tokenizer of a thousand ids of their own, for Qwen's is not at hand; codes are drawn.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.gpu.material import FILE, Material, save
from benchmarks.speech_pack import read_clips, write_speech_pack
from benchmarks.trainer_speed import HEARD, recipe_of, stage_of
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from tokenization.vocabulary import Vocabulary
from training.config import model_config
from training.cost import Work, stage_flops
from training.data import Batching, DocumentReader, PackedData, stage_data
from training.documents import read_split
from training.examples import ExampleMaker
from training.layouts import Layouts
from training.metering import needed_work
from training.recipe import Group

SIZES = ("0.5b", "1.5b", "3b")
TRAINED = (Group.ADAPTOR, Group.DECODER, Group.EMBEDDING, Group.HEAD)
LENGTH, SEQUENCES = 8192, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    save(make(SIZES, LENGTH, SEQUENCES), options.out)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB")


def make(
    sizes: tuple[str, ...], length: int, sequences: int, vocabulary: Vocabulary | None = None, clips: int | None = None
) -> Material:
    """Batches of one sequence each, for models of these sizes, which hear alike."""
    vocabulary, config = vocabulary or Vocabulary.published(), model_config(sizes[0])
    recipe = recipe_of(sizes[0], HEARD, length, 1, sequences)
    stage = stage_of(recipe)
    with tempfile.TemporaryDirectory() as folder:
        pack_uri, tokenizer_uri = write_speech_pack(folder, read_clips(["read"], clips), with_audio=True)
        tokenizer, pack = Tokenizer.open(tokenizer_uri), Pack.open(pack_uri)
        layouts = Layouts(tokenizer.text, vocabulary, tokenizer.ratio, recipe.prompts)
        split = read_split(pack, "train", layouts, list(stage.tasks), length)
        reader, maker = DocumentReader(pack, recipe.data.cached_audio_bytes), ExampleMaker(layouts, stage.loss_weights)
        data = stage_data(split, reader, maker, recipe, stage, Batching(config.encoder.num_mels, vocabulary.pad))
        assert isinstance(data, PackedData)
        batches = tuple(batch for _ in range(sequences) for batch in data.next_step())
    work = sum((needed_work(batch) for batch in batches), Work())
    flops = {
        size: sum(
            part.total
            for part in stage_flops(model_config(size), vocabulary.num_rows, vocabulary.text_size, work, TRAINED).values()
        )
        for size in sizes
    }
    source = f"{sequences} sequences of {length} tokens: {', '.join(f'{share:.0%} {task}' for task, share in HEARD.items())}"
    return Material(vocabulary.num_rows, config.encoder.num_mels, source, flops, batches)


if __name__ == "__main__":
    main()
