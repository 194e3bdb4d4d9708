"""The drill: a corpus with a few bad recordings among good ones, trained by each action; what is named, and what the next pack does without."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from annotators.espeak_voice import EspeakConfig
from manifests.corpus import Corpus
from manifests.errors import WorkError
from manifests.packs import Document, Pack
from manifests.recipes import decode_recipe
from manifests.spikes import SPIKES, Spike, read_spikes
from pipeline.build import build
from pipeline.pack import PackResult, pack
from pipeline.recipe import BuildRecipe, PackRecipe
from tokenization.build import build_tokenizer
from tokenization.recipe import TokenizerRecipe
from training import checkpoint
from training.journal import read_rows
from training.recipe import TrainingRecipe
from training.run import train
from training.trainer import CLOCK_COLUMNS, StageTrainer

# A corpus is built, and runs are long enough to know what is usual.
pytestmark = pytest.mark.slow

WORDS = ["lantern", "harbour", "stone", "river", "window"]
NUM_RECORDINGS = 96
GARBLED, DEAFENING = (5, 29, 53, 77), 11  # numbers of bad recordings: transcripts of nothing that is said; audio that overflows
TOKENIZER = """
name: drill
text: {kind: bpe, vocab_size: 300, text_from: [source]}
codec: {kind: fsq, training: {steps: 2, batch_s: 5.0, text_from: [source], num_threads: 1}}
"""
PACK = "{name: drill, text_from: [source], require_text: true}"
CHECKPOINT_EVERY = 20


@dataclass(frozen=True)
class Drill:
    corpus: str
    tokenizer: str
    pack: str
    garbled: frozenset[str]  # recording ids, hex
    deafening: str

    @property
    def bad(self) -> frozenset[str]:
        return self.garbled | {self.deafening}


@pytest.fixture(scope="module")
def drill(light: Callable[..., BuildRecipe], tmp_path_factory: pytest.TempPathFactory) -> Drill:
    """Recordings of one word after another in a fixed order, so that each follows from the one before; bad ones say otherwise."""
    folder = tmp_path_factory.mktemp("drill")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(NUM_RECORDINGS):
        first = int(rng.integers(len(WORDS)))
        text = " ".join(WORDS[(first + place) % len(WORDS)] for place in range(3))
        speech = EspeakConfig(voice="en-us", rate_wpm=140 + number).build().synthesise(text)
        soundfile.write(folder / f"{number:02d}.flac", speech.audio, speech.sample_rate_hz)
        garbage = "".join(rng.choice(list("QXZJ#%&@+=0123456789"), size=24))
        rows.append({"uri": f"{number:02d}.flac", "text": garbage if number in GARBLED else text})
    (folder / "sources.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus, tokenizer, out = (str(folder / name) for name in ("corpus", "tokenizer", "pack"))
    build([str(folder / "sources.jsonl")], corpus, light(annotators={}, units={"max_inputs": 100}))
    build_tokenizer(corpus, tokenizer, decode_recipe(TokenizerRecipe, TOKENIZER, "drill"))
    pack(corpus, out, decode_recipe(PackRecipe, PACK, "drill"), tokenizer)
    inputs = {os.path.basename(row["uri"]): row["recording_id"].hex() for row in Corpus.open(corpus).inputs().to_pylist()}
    garbled = frozenset(inputs[f"{number:02d}.flac"] for number in GARBLED)
    return Drill(corpus, tokenizer, out, garbled, inputs[f"{DEAFENING:02d}.flac"])


@pytest.fixture
def overflow(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio of one document is read as if its decoder were broken: finite numbers whose squares overflow single precision."""
    whole = Pack.read

    def read(self: Pack, shard: str, key: str, *, with_audio: bool = True) -> Document:
        document = whole(self, shard, key, with_audio=with_audio)
        if not with_audio or document.turns[0].facts["recording_id"] != drill.deafening:
            return document
        return replace(document, turns=tuple(replace(turn, audio=turn.audio * np.float32(1e30)) for turn in document.turns))

    monkeypatch.setattr(Pack, "read", read)


def recipe_of(make_recipe: Callable[..., TrainingRecipe], action: str) -> TrainingRecipe:
    rate = {"lr": 5e-3, "lr_end": 5e-4}
    stage = {
        "name": "listen",
        "kind": "pretrain",
        "tasks": {"asr": 1},
        "train": dict.fromkeys(["adaptor", "decoder", "embedding", "head"], rate),
        "sequence_length": 256,
        "sequences_per_step": 1,
        "steps": 160,
        "warmup_steps": 5,
    }
    return make_recipe(
        [stage],
        checkpoint_every=CHECKPOINT_EVERY,
        data={"held_out_splits": ["train"]},
        spikes={"action": action, "window": 32, "patience": 5},
    )


def named(run: Path) -> list[Spike]:
    return list(read_spikes(str(run / SPIKES)))


def recordings(spikes: list[Spike]) -> list[str]:
    return [recording for spike in spikes for document in spike.documents for recording in document.recording_ids]


def packed_recordings(uri: str) -> set[str]:
    rows = Pack.open(uri).documents("train")["turns"].to_pylist()
    return {turn["recording_id"].hex() for turns in rows for turn in turns}


@pytest.mark.parametrize("action", ["skip", "roll_back"])
@pytest.mark.usefixtures("overflow")
def test_bad_recordings_are_named_and_the_next_pack_does_without_them(
    drill: Drill, make_recipe: Callable[..., TrainingRecipe], tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    result = train(recipe_of(make_recipe, action), drill.pack, drill.tokenizer, str(run))
    spikes = named(run)
    assert sorted(recordings(spikes)) == sorted(drill.bad)  # all of them, each once, and no other
    assert {spike.action for spike in spikes} == {action}
    assert [spike.cause for spike in spikes if drill.deafening in recordings([spike])] == ["loss_not_finite"]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stage 'listen' step")]
    assert len(told) == len(spikes)
    assert all(recordings([spike])[0] in line for spike, line in zip(spikes, told, strict=True))

    rows = [row for row in read_rows(str(run)) if "measured" not in row]
    assert result.is_finished
    assert result.last_losses["listen"] < 0.6  # of garbled transcripts alone it is 2.9
    assert rows[-1]["spikes"] == len(spikes)
    assert f"  5 spikes, 5 documents to blame: pack again with --leave-out {run}/spikes.jsonl" in result.lines()
    steps = [row["step"] for row in rows]
    skipped = {spike.step for spike in spikes} if action == "skip" else set()
    assert steps == [step for step in range(1, 161) if step not in skipped]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["spikes"] == len(spikes)
    assert summary["documents_left_out"] == [document.key for spike in spikes for document in spike.documents]

    again: PackResult = pack(
        drill.corpus,
        str(tmp_path / "pack"),
        decode_recipe(PackRecipe, PACK, "drill"),
        drill.tokenizer,
        leave_out=[str(run / SPIKES)],
    )
    assert packed_recordings(drill.pack) - packed_recordings(again.pack_uri) == drill.bad
    dropped = {row["reason"]: row["num"] for row in again.funnel if row["step"] == "dropped"}
    assert (dropped["spikes.loss_not_finite"], dropped["spikes.loss"]) == (1, len(GARBLED))


@pytest.mark.usefixtures("overflow")
def test_a_run_may_stop_instead_and_go_on_by_another_rule(
    drill: Drill, make_recipe: Callable[..., TrainingRecipe], tmp_path: Path
) -> None:
    run, stopping = str(tmp_path / "run"), short(make_recipe, "stop", checkpoint_every=2)
    for resume in (False, True):  # as often as it is tried
        with pytest.raises(
            WorkError, match=rf"step 7: loss is nan.*{drill.deafening}.*the run stops.*--leave-out {run}/spikes.jsonl"
        ):
            train(stopping, drill.pack, drill.tokenizer, run, resume=resume)
        assert [(spike.step, spike.action) for spike in named(tmp_path / "run")] == [(7, "stop")]
    assert train(short(make_recipe, "skip", checkpoint_every=2), drill.pack, drill.tokenizer, run, resume=True).is_finished
    assert [(spike.step, spike.action) for spike in named(tmp_path / "run")] == [(7, "skip")]


def short(make_recipe: Callable[..., TrainingRecipe], action: str, **changes: Any) -> TrainingRecipe:
    recipe = recipe_of(make_recipe, action)
    return recipe.model_copy(update={"stages": (recipe.stages[0].model_copy(update={"steps": 16}),), **changes})


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``dying(n)``: the n-th step from now on is Ctrl-C."""
    whole = StageTrainer.train_step

    def die(left: int) -> None:
        def train_step(self: StageTrainer, batches: Any) -> dict[str, Any]:
            nonlocal left
            left -= 1
            if left == 0:
                monkeypatch.setattr(StageTrainer, "train_step", whole)
                raise KeyboardInterrupt
            return whole(self, batches)

        monkeypatch.setattr(StageTrainer, "train_step", train_step)

    return die


def everything(run: str) -> Any:
    """All that a run leaves but what moves with the clock: rows, spikes, state and tensors of its last checkpoint."""
    rows = [{name: value for name, value in row.items() if name not in CLOCK_COLUMNS} for row in read_rows(run)]
    path = checkpoint.path_of(run, checkpoint.complete(run)[-1])
    state = checkpoint.load_state(path)
    return rows, list(read_spikes(os.path.join(run, SPIKES))), state.data, state.watch


# The spike is at step 7, checkpoints at 5 and 10: a kill before it, between it and the next checkpoint, and behind that.
@pytest.mark.parametrize("kills", [(7, 4), (9, 3), (12, 2)])
@pytest.mark.parametrize("action", ["skip", "roll_back"])
@pytest.mark.usefixtures("overflow")
def test_a_run_with_a_spike_that_is_killed_twice_is_the_unbroken_run(
    drill: Drill,
    make_recipe: Callable[..., TrainingRecipe],
    tmp_path: Path,
    dying: Callable[[int], None],
    action: str,
    kills: tuple[int, int],
) -> None:
    recipe = short(make_recipe, action, checkpoint_every=5)
    runs = [str(tmp_path / name) for name in ("unbroken", "killed")]
    train(recipe, drill.pack, drill.tokenizer, runs[0])
    for number, steps in enumerate(kills):
        dying(steps)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, drill.pack, drill.tokenizer, runs[1], resume=number > 0)
    train(recipe, drill.pack, drill.tokenizer, runs[1], resume=True)
    assert len(named(tmp_path / "unbroken")) == 1
    assert everything(runs[1]) == everything(runs[0])
    assert_same_tensors(runs)


def assert_same_tensors(runs: list[str]) -> None:
    from torch.distributed.checkpoint import filesystem, state_dict_loader

    found = []
    for run in runs:
        weights = os.path.join(checkpoint.path_of(run, checkpoint.complete(run)[-1]), checkpoint.WEIGHTS)
        held = filesystem.FileSystemReader(weights).read_metadata().state_dict_metadata
        tensors = {key: torch.zeros(entry.size, dtype=entry.properties.dtype) for key, entry in held.items()}
        state_dict_loader.load(tensors, checkpoint_id=weights, no_dist=True)
        found.append(tensors)
    assert found[0].keys() == found[1].keys()
    assert [key for key, tensor in found[0].items() if not torch.equal(tensor, found[1][key])] == []
