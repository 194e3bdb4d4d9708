from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from manifests.errors import MismatchError
from manifests.recipes import resolved
from tests.training.launched import Launched
from tests.training.test_exact_resume import curve, tensors
from training import checkpoint
from training.ranks import joined
from training.recipe import TrainingRecipe, load_training_recipe
from training.run import train
from training.run_folder import SUMMARY
from training.trainer import StageTrainer

# Whole runs over several processes: tens of seconds, so left out of `make check`.
pytestmark = pytest.mark.slow

# Loss, and what is summed over targets: sums in another order differ in last bits, and AdamW carries that on.
TOLERANCE = 1e-4


def leg(recipe: str, pack: str, tokenizer: str, run: str, stop: str, resume: str, seen: str) -> None:
    """Trains, over the ranks that a launcher started, up to the start of step ``stop`` ("stage 3"; "" for the end), where every rank
    is interrupted. Of each step, writes down the documents of this rank."""
    whole = StageTrainer.train_step

    def train_step(self: StageTrainer, batches: Any) -> dict[str, Any]:
        if f"{self.stage.name} {self.step}" == stop:
            raise KeyboardInterrupt
        with open(f"{seen}.{self.ranks.rank}", "a", encoding="utf-8") as file:
            keys = [key for batch in batches for key in batch.document_ids]
            file.write(json.dumps([self.stage.name, self.step, keys]) + "\n")
        return whole(self, batches)

    StageTrainer.train_step = train_step  # type: ignore[method-assign]
    with joined() as ranks:
        try:
            train(load_training_recipe(recipe), pack, tokenizer, run, resume=resume == "resume", allow_inexact=True, ranks=ranks)
        except KeyboardInterrupt:
            assert stop


class Legs:
    """Parts of runs, each by a number of ranks."""

    def __init__(self, pack: Any, recipe: TrainingRecipe, folder: Path) -> None:
        self.folder = folder
        (folder / "recipe.yaml").write_text(yaml.safe_dump(resolved(recipe)))
        self.inputs = [str(folder / "recipe.yaml"), pack.pack, pack.tokenizer]

    def go(self, run: str, world: int, stop: str = "", *, resume: bool = False) -> dict[tuple[str, int], list[str]]:
        """Document ids of each step that was trained: in their order over all ranks, or sorted where that has no meaning."""
        seen = str(self.folder / f"{run}-{world}-{stop}")
        arguments = [*self.inputs, self.run(run), stop, "resume" if resume else "", seen]
        program = "import sys; from tests.training.test_ranks_resume import leg; leg(*sys.argv[1:])"
        Launched(["-c", program, *arguments], world).outputs(300)
        found: dict[tuple[str, int], list[str]] = {}
        for rank in range(world):
            for line in Path(f"{seen}.{rank}").read_text().splitlines():
                stage, step, keys = json.loads(line)
                found.setdefault((stage, step), []).extend(keys)
        # By CTC a rank's documents of a step lie by length.
        return {where: sorted(keys) if where[0] == "encoder_ctc" else keys for where, keys in found.items()}

    def run(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def recipe(make_recipe: Callable[..., TrainingRecipe], curriculum_of: Callable[..., Any]) -> TrainingRecipe:
    """A stage by CTC and one of packed sequences with all kinds of tokens, six steps each, that four ranks can share."""
    encoder, _, _, spoken = curriculum_of(6)
    return make_recipe([encoder, {**spoken, "micro_batches": 1}], checkpoint_every=2)


@pytest.fixture(scope="module")
def legs(chord_pack: Any, recipe: TrainingRecipe, tmp_path_factory: pytest.TempPathFactory) -> Legs:
    return Legs(chord_pack, recipe, tmp_path_factory.mktemp("legs"))


def test_a_run_goes_on_over_1_2_4_and_1_ranks(legs: Legs, chord_pack: Any, recipe: TrainingRecipe) -> None:
    expected = legs.go("unbroken", 1)
    assert len(expected) == 12
    # Interrupted inside each stage, one step behind a checkpoint.
    found = legs.go("run", 1, "encoder_ctc 3")
    for world, stop in ((2, "tts 3"), (4, "tts 5")):
        again = legs.go("run", world, stop, resume=True)
        assert set(again) & set(found), "it goes on from a checkpoint, behind which a step was lost"
        found |= again
    with pytest.raises(MismatchError, match=r"^checkpoint '01-tts-0000004' was computed with world 4 \(here 1\): "):
        train(recipe, chord_pack.pack, chord_pack.tokenizer, legs.run("run"), resume=True)
    found |= legs.go("run", 1, resume=True)
    assert found == expected
    ours, theirs = curve(legs.run("run")), curve(legs.run("unbroken"))
    assert [(row["stage"], row["step"], row["tokens"]) for row in ours] == [(r["stage"], r["step"], r["tokens"]) for r in theirs]
    for ours_row, row in zip(ours, theirs, strict=True):
        assert ours_row["loss"] == pytest.approx(row["loss"], abs=TOLERANCE), (row["stage"], row["step"])
    newest = checkpoint.load_state(checkpoint.path_of(legs.run("run"), "01-tts-0000006"))
    summary = json.loads((Path(legs.run("run")) / SUMMARY).read_text())
    assert summary["inexact_resumes"] == newest.inexact_resumes
    assert summary["inexact_resumes"] == [
        {"global_step": 2, "differing": {"world": [1, 2]}},
        {"global_step": 8, "differing": {"world": [2, 4]}},
        {"global_step": 10, "differing": {"world": [4, 1]}},
    ]


def test_the_same_ranks_go_on_bit_for_bit(legs: Legs) -> None:
    expected = legs.go("unbroken2", 2)
    found = legs.go("broken2", 2, "encoder_ctc 3")
    found |= legs.go("broken2", 2, "tts 3", resume=True)
    found |= legs.go("broken2", 2, resume=True)
    assert found == expected
    assert curve(legs.run("broken2")) == curve(legs.run("unbroken2"))
    ours, theirs = tensors(legs.run("broken2")), tensors(legs.run("unbroken2"))
    assert {"rng.0.cpu", "rng.1.cpu"} <= ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert json.loads((Path(legs.run("broken2")) / SUMMARY).read_text())["inexact_resumes"] == []
