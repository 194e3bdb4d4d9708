"""A codec of another rate and size, Mimi's first codebook, through pack, trainer and generation: neither is written into the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ
from manifests.ids import digest_json
from manifests.packs import FORMAT_VERSION, Pack
from manifests.schema import DOCUMENTS, table_of
from manifests.store import Store, json_bytes, table_bytes
from pipeline.documents import MadeTurn, document_of
from pipeline.shards import shard_name, write_shard
from tests.tokenization.small_codecs import write_mimi
from tokenization.artifact import Tokenizer, codec_facts, write_tokenizer
from tokenization.interleave import Ratio
from tokenization.mimi import MimiCodec, MimiConfig
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training import checkpoint
from training.config import model_config
from training.documents import read_split
from training.examples import ExampleMaker
from training.generation import Prompt, generate
from training.grammar import Grammar
from training.journal import read_rows
from training.layouts import Layouts
from training.model import StepAudio2
from training.prompts import Prompts
from training.recipe import LossWeights, Task, TrainingRecipe
from training.run import train
from training.sampling import Sampling
from training.workload import Assumptions, assumed_work

NUM_CODES, CLIP_S = 2048, 1.2
TEXTS = ["so la", "mi re do", "ti so mi"]


@pytest.fixture(scope="module")
def mimi(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Tokenizer]:
    """Three clips of noise with their text and Mimi's codes, 12.5 a second, and the tokenizer that names the codec."""
    folder = tmp_path_factory.mktemp("mimi")
    codec = MimiCodec(MimiConfig(kind="mimi", checkpoint=write_mimi(folder / "codec", num_codes=NUM_CODES)))
    text, store = TextTokenizer.train(TEXTS, 300), Store(str(folder / "tokenizer"))
    facts = codec_facts("mimi", codec.config.checkpoint, codec)
    vocabulary = Vocabulary.small(text.vocab_size, codec.num_codes)
    tokenizer_id = write_tokenizer(store, text, vocabulary, Ratio(), facts, {})
    draw, made = np.random.default_rng(0), []
    for number, said in enumerate(TEXTS):
        audio = draw.normal(0, 0.1, round(CLIP_S * MODEL_RATE_HZ)).astype(np.float32)
        (codes,) = codec.encode([resample(audio, MODEL_RATE_HZ, codec.sample_rate_hz)])
        turn = MadeTurn({"text": said, "text_source": "source"}, audio, codes)
        made.append(document_of(f"d{number}", "clip", None, [turn], MODEL_RATE_HZ))
    pack = Store(str(folder / "pack"))
    rows = write_shard(pack, shard_name("train", 0), made)
    pack.write("manifest/train.parquet", table_bytes(table_of(rows, DOCUMENTS)))
    head = {
        "format_version": FORMAT_VERSION,
        "pack_id": digest_json([tokenizer_id, TEXTS]),
        "sample_rate_hz": MODEL_RATE_HZ,
        "splits": ["train"],
        "tokenizer_id": tokenizer_id,
        "vocabulary_hash": vocabulary.layout_hash,
        "codec_fingerprint": facts.fingerprint,
    }
    pack.create("pack.json", json_bytes(head))
    return Pack.open(pack.uri), Tokenizer.open(store.uri)


@pytest.mark.slow
def test_documents_have_as_many_codes_as_the_codec_gives(mimi: tuple[Pack, Tokenizer]) -> None:
    pack, tokenizer = mimi
    assert (tokenizer.codec_facts.frame_rate_hz, tokenizer.codec_facts.num_codes) == (12.5, NUM_CODES)
    assert tokenizer.vocabulary.num_codes == NUM_CODES
    layouts = Layouts(tokenizer.text, tokenizer.vocabulary, tokenizer.ratio, Prompts(asr="", tts=""))
    split = read_split(pack, "train", layouts, [Task.TTS], 256)
    for entry in split.entries:
        example = ExampleMaker(layouts, LossWeights()).make(Task.TTS, entry, pack.read(entry.shard, entry.key))
        codes = example.ids[example.ids >= tokenizer.vocabulary.audio_base] - tokenizer.vocabulary.audio_base
        assert (codes < NUM_CODES).sum() == round(CLIP_S * 12.5)


def test_a_plan_assumes_the_rate_that_it_is_told() -> None:
    slow, fast = (assumed_work(Task.TTS, Ratio(), Assumptions(codes_hz=rate)) for rate in (12.5, 25.0))
    # 35 text ids in groups of one beside four codes: 125 codes need 35 groups, 250 need 63.
    assert fast.targets - slow.targets == 5 * (63 - 35)


@pytest.mark.slow
def test_it_is_trained_on_and_spoken_with(
    mimi: tuple[Pack, Tokenizer], make_recipe: Callable[..., TrainingRecipe], tmp_path: Path
) -> None:
    pack, tokenizer = mimi
    rate = {"lr": 3e-3}
    stage: dict[str, Any] = {
        "name": "tts",
        "kind": "pretrain",
        "tasks": {"tts": 1},
        "train": {"decoder": rate, "embedding": rate, "head": rate},
        "sequence_length": 128,
        "sequences_per_step": 2,
        "steps": 8,
    }
    result = train(make_recipe([stage]), pack.store.uri, tokenizer.uri, str(tmp_path / "run"))
    losses = [row["loss"] for row in read_rows(str(tmp_path / "run")) if "loss" in row]
    assert losses[-1] < losses[0]
    model = StepAudio2(model_config("micro"), tokenizer.vocabulary.num_rows, tokenizer.vocabulary.text_size)
    assert result.checkpoint is not None
    checkpoint.load_weights(result.checkpoint, model)
    vocabulary = tokenizer.vocabulary
    ids = np.array([*tokenizer.text.encode(TEXTS[0]), vocabulary.tts_start])
    grammar = Grammar(vocabulary, tokenizer.ratio, [vocabulary.end_of_text])
    prompts, drawn = [Prompt(ids, np.zeros(len(ids), bool))] * 4, Sampling(max_new_tokens=60, temperature=1.0)
    answers = generate(model, prompts, grammar, drawn, generator=torch.Generator().manual_seed(0))
    spoken = [grammar.speeches(np.append(vocabulary.tts_start, answer.ids))[0][1] for answer in answers]
    codes = np.concatenate(spoken).astype(np.uint16)
    assert len(codes) > 0
    assert codes.max() < NUM_CODES
    assert len(tokenizer.loaded_codec().decode(codes)) == len(codes) * 24_000 / 12.5
