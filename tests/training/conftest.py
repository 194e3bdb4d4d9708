"""Small packs for the trainer's tests: synthetic ones (each word is a chord), and the real speech beside the checkout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ
from manifests.ids import digest_json
from manifests.packs import FORMAT_VERSION, Pack
from manifests.schema import DOCUMENTS, table_of
from manifests.store import Store, json_bytes, table_bytes
from pipeline.documents import MadeTurn, document_of
from pipeline.shards import TarredDocument, shard_name, write_shard
from tokenization.artifact import CodecFacts, Tokenizer, write_tokenizer
from tokenization.interleave import Ratio
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training.config import model_config
from training.data import Batching, DocumentReader, StageData, stage_data
from training.documents import read_split
from training.examples import ExampleMaker
from training.layouts import Layouts
from training.model import StepAudio2
from training.recipe import Stage, TrainingRecipe
from training.spikes import SpikeWatch
from training.trainer import StageTrainer

Spoken = tuple[str, str, np.ndarray]  # key, text, float32 [S] at 16 kHz
Content = Spoken | TarredDocument
WORDS = {"so": 300.0, "la": 500.0, "mi": 800.0, "re": 1200.0, "do": 1800.0, "ti": 2600.0}
FRAME_SAMPLES = 640  # 25 codes a second


@dataclass(frozen=True)
class MadePack:
    """URIs of a pack and of the tokenizer that it was made with."""

    pack: str
    tokenizer: str


PackMaker = Callable[..., MadePack]
Bench = Callable[..., tuple[StageTrainer, StageData]]


def chords(text: str, rng: np.random.Generator) -> np.ndarray:
    """0.2 s of two tones a word, with a little noise."""
    time_s = np.arange(int(0.2 * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    tones = [np.sin(2 * np.pi * WORDS[word] * time_s) + np.sin(3 * np.pi * WORDS[word] * time_s) for word in text.split()]
    audio = 0.2 * np.concatenate(tones)
    return (audio + rng.normal(0, 0.003, len(audio))).astype(np.float32)


def loudness_codes(audio: np.ndarray) -> np.ndarray:
    """uint16 ``[frames]``: a code of each frame that depends on what is heard, so that it can be learned."""
    frames = np.pad(audio, (0, -len(audio) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
    level = np.clip((10 * np.log10((frames**2).mean(1) + 1e-8) + 80).astype(int), 0, 80)
    crossings = np.clip((np.abs(np.diff(np.sign(frames), axis=1)).mean(1) * 40).astype(int), 0, 80)
    return (level * 81 + crossings).astype(np.uint16)


def write_pack(folder: Path, splits: dict[str, Sequence[Content]], vocab_size: int, head: dict[str, Any]) -> MadePack:
    """A tokenizer trained on the splits' texts, and a pack of them as ``corpus pack`` writes it."""
    store = Store(str(folder / "tokenizer"))
    made = {
        split: [item if isinstance(item, TarredDocument) else document(*item) for item in items]
        for split, items in splits.items()
    }
    documents = [item.row for items in made.values() for item in items]
    text = TextTokenizer.train([turn["text"] for row in documents for turn in row["turns"] if turn["text"]], vocab_size)
    facts = CodecFacts("s3", "absent.onnx", "c0de" * 4, 25.0, 6561, MODEL_RATE_HZ)
    tokenizer_id = write_tokenizer(store, text, Vocabulary.small(text.vocab_size), Ratio(), facts, {})
    opened = Tokenizer.open(store.uri)
    pack = Store(str(folder / "pack"))
    for split, items in made.items():
        rows = write_shard(pack, shard_name(split, 0), items)
        pack.write(f"manifest/{split}.parquet", table_bytes(table_of(rows, DOCUMENTS)))
    full = {
        "format_version": FORMAT_VERSION,
        "pack_id": digest_json([sorted(splits), tokenizer_id, [row["key"] for row in documents]]),
        "sample_rate_hz": MODEL_RATE_HZ,
        "splits": list(splits),
        "tokenizer_id": tokenizer_id,
        "vocabulary_hash": opened.vocabulary.layout_hash,
        "codec_fingerprint": opened.codec_fingerprint,
        **head,
    }
    pack.create("pack.json", json_bytes(full))
    return MadePack(pack.uri, store.uri)


def document(key: str, text: str, audio: np.ndarray) -> TarredDocument:
    turn = MadeTurn({"text": text, "text_source": "source"}, audio, loudness_codes(audio))
    return document_of(key, "clip", None, [turn], MODEL_RATE_HZ)


@pytest.fixture(scope="session")
def make_pack(tmp_path_factory: pytest.TempPathFactory) -> PackMaker:
    """``make_pack(splits, vocab_size=320, **head)``."""

    def make(splits: dict[str, Sequence[Content]], vocab_size: int = 320, **head: Any) -> MadePack:
        return write_pack(tmp_path_factory.mktemp("pack"), splits, vocab_size, head)

    return make


@pytest.fixture(scope="session")
def chord_pack(make_pack: PackMaker) -> MadePack:
    """Twelve documents of two to four words, six in a split ``test``."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list(WORDS), size=rng.integers(2, 5))) for _ in range(18)]
    spoken = [(f"d{number:02d}", text, chords(text, rng)) for number, text in enumerate(texts)]
    return make_pack({"train": spoken[:12], "test": spoken[12:]})


@pytest.fixture(scope="session")
def read_speech(shared: Path) -> list[Spoken]:
    """Fifteen short clips of read speech, English and Mandarin, about 44 s."""
    spoken: list[Spoken] = []
    with open(shared / "testdata" / "manifest.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    short = [
        r for r in rows if r.get("transcript") and 1.5 < r["duration_s"] < 4.5 and set(r["kinds"]) & {"en_read", "accented", "zh"}
    ]
    for row in short[:15]:
        audio, rate = soundfile.read(shared / "testdata" / row["path"], dtype="float32", always_2d=True)
        heard = resample(np.ascontiguousarray(audio[:, 0]), rate, MODEL_RATE_HZ)
        spoken.append((row["id"].replace(".", "_"), row["transcript"], heard))
    return spoken


@pytest.fixture(scope="session")
def real_pack(make_pack: PackMaker, read_speech: list[Spoken]) -> MadePack:
    """``read_speech`` as a pack."""
    return make_pack({"train": read_speech}, vocab_size=512)


@pytest.fixture(scope="session")
def deaf_pack(make_pack: PackMaker, read_speech: list[Spoken]) -> MadePack:
    """``real_pack`` with noise in place of all audio: each clip keeps its length and says nothing."""
    rng = np.random.default_rng(0)
    noise = [(key, text, rng.normal(0, 0.05, len(audio)).astype(np.float32)) for key, text, audio in read_speech]
    return make_pack({"train": noise}, vocab_size=512)


def recipe_of(stages: list[dict[str, Any]], **changes: Any) -> TrainingRecipe:
    """A strict recipe from plain values, for the smallest model on one thread, without the prompts that are a token a byte."""
    plain = {"model": "micro", "seed": 3, "threads": 1, "prompts": {"asr": "", "tts": ""}}
    return TrainingRecipe.model_validate({**plain, "stages": stages, **changes})


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., TrainingRecipe]:
    return recipe_of


def curriculum(steps: int = 6) -> list[dict[str, Any]]:
    """The four stages of the demo, each of a few steps."""
    rate = {"lr": 3e-3, "lr_end": 3e-4}
    decoder = {"decoder": rate, "embedding": rate, "head": rate}
    every = {"steps": steps, "warmup_steps": 1}
    packed = {"kind": "pretrain", "sequence_length": 256, "sequences_per_step": 4, **every}
    return [
        {"name": "encoder_ctc", "kind": "ctc", "train": {"encoder": rate, "ctc_head": rate}, "batch_documents": 4, **every},
        {"name": "decoder_text", "tasks": {"text": 1, "repeat": 2}, "train": decoder, **packed},
        {"name": "align", "tasks": {"asr": 1}, "train": {"adaptor": rate}, "measure_swap": True, **packed},
        {"name": "tts", "tasks": {"tts": 3, "asr": 1}, "train": {"adaptor": rate, **decoder}, "micro_batches": 2, **packed},
    ]


@pytest.fixture(scope="session")
def demo_recipe() -> TrainingRecipe:
    """The whole curriculum in miniature: four stages of six steps, a checkpoint every second."""
    return recipe_of(curriculum(), checkpoint_every=2)


@pytest.fixture(scope="session")
def curriculum_of() -> Callable[[int], list[dict[str, Any]]]:
    """The four stages at a number of steps each."""
    return curriculum


@pytest.fixture(scope="session")
def bench(chord_pack: MadePack) -> Bench:
    """``bench(recipe, stage, watch=None)`` gives a fresh model under the stage, and its data."""
    pack, tokenizer = Pack.open(chord_pack.pack), Tokenizer.open(chord_pack.tokenizer)
    vocabulary = tokenizer.vocabulary

    def make(recipe: TrainingRecipe, stage: Stage, watch: SpikeWatch | None = None) -> tuple[StageTrainer, StageData]:
        torch.manual_seed(0)
        config = model_config(recipe.model)
        model = StepAudio2(config, vocabulary.num_rows, vocabulary.text_size)
        model.model.recomputes = recipe.recompute
        layouts = Layouts(tokenizer.text, vocabulary, tokenizer.ratio, recipe.prompts)
        split = read_split(pack, "train", layouts, stage.tasks, recipe.longest_sequence)
        maker, batching = ExampleMaker(layouts, stage.loss_weights), Batching(config.encoder.num_mels, vocabulary.pad)
        data = stage_data(split, DocumentReader(pack, 1 << 24), maker, recipe, stage, batching)
        return StageTrainer(model, stage, vocabulary, watch=watch), data

    return make
