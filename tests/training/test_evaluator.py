"""Measures within a run: where they are taken, that a resumed run has the same, what forgetting does, and what the board shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from manifests.errors import WorkError
from training import code_reading
from training.journal import BOARD, read_rows
from training.recipe import TrainingRecipe
from training.run import train
from training.trainer import CLOCK_COLUMNS, StageTrainer

Recipes = Callable[..., TrainingRecipe]
Curriculum = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def quick_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_reading, "STEPS", 5)


def measuring(stages: list[dict[str, Any]], every: int | None = 2) -> list[dict[str, Any]]:
    """``decoder_text`` measures text at its end, ``tts`` text and speech behind every so many steps."""
    added = {"decoder_text": {"measures": ["text"]}, "tts": {"measures": ["text", "tts"], "evaluate_every": every}}
    return [{**stage, **added.get(stage["name"], {})} for stage in stages]


def measured(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(str(run)) if "measured" in row]


@pytest.mark.slow
def test_measures_are_taken_within_a_stage_and_a_resumed_run_has_the_same(
    chord_pack: Any, make_recipe: Recipes, curriculum_of: Curriculum, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(measuring(curriculum_of(5)), checkpoint_every=3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(whole))
    assert [(row["stage"], row["step"]) for row in measured(whole)] == [("decoder_text", 5), ("tts", 2), ("tts", 4), ("tts", 5)]
    own = measured(whole)
    assert own[1]["test_text_rise"] == pytest.approx(own[1]["test_text_loss"] / own[0]["test_text_loss"] - 1)
    assert "test_text_rise" not in own[0]
    assert {"test_tts_wer", "test_tts_real_wer", "test_tts_finished", "test_tts_length_ratio"} <= own[-1].keys()

    # Cut behind the measure of step 4, whose checkpoint is that of step 3.
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(parts), until="align")
    step = StageTrainer.train_step

    def dying(self: StageTrainer, batches: Any) -> Any:
        if self.stage.name == "tts" and self.step == 4:
            raise KeyboardInterrupt
        return step(self, batches)

    with monkeypatch.context() as cut:
        cut.setattr(StageTrainer, "train_step", dying)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, chord_pack.pack, chord_pack.tokenizer, str(parts), resume=True)
    assert measured(parts)[-1]["step"] == 4
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(parts), resume=True)
    plain = [[{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in read_rows(str(run))] for run in (whole, parts)]
    assert plain[0] == plain[1]


@pytest.mark.slow
def test_a_stage_that_forgets_is_told_and_stopped_where_the_recipe_says_so(
    chord_pack: Any, make_recipe: Recipes, curriculum_of: Curriculum, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = measuring(curriculum_of(5))
    stages[3] |= {"tasks": {"tts": 1}, "train": {"decoder": {"lr": 0.1}}}
    kept = train(
        make_recipe(stages, evaluation={"forgetting": 1e-6}), chord_pack.pack, chord_pack.tokenizer, str(tmp_path / "warned")
    )
    forgotten = json.loads(Path(kept.summary).read_text())["forgotten"]
    rises = [row for row in measured(tmp_path / "warned") if row.get("test_text_rise", 0) > 1e-6]
    assert rises
    assert [(alarm["stage"], alarm["step"], alarm["rise"]) for alarm in forgotten] == [
        (row["stage"], row["step"], row["test_text_rise"]) for row in rises
    ]
    assert capfd.readouterr().err.count("above its lowest so far") == len(rises)

    stopping = make_recipe(stages, evaluation={"forgetting": 1e-6, "on_forgetting": "stop"}, checkpoint_every=100)
    run = tmp_path / "stopped"
    with pytest.raises(WorkError, match=r"evaluation\.on_forgetting is stop; the checkpoint behind that step is written"):
        train(stopping, chord_pack.pack, chord_pack.tokenizer, str(run))
    stopped_at = measured(run)[-1]["global_step"]
    assert stopped_at == rises[0]["global_step"]
    # Who resumes has decided to go on: the alarm of that step does not stop the run again, the next one may.
    for _ in rises[1:]:
        with pytest.raises(WorkError, match="on_forgetting"):
            train(stopping, chord_pack.pack, chord_pack.tokenizer, str(run), resume=True)
    train(stopping, chord_pack.pack, chord_pack.tokenizer, str(run), resume=True)
    assert measured(run) == measured(tmp_path / "warned")


def test_steps_are_metered_and_the_summary_says_of_what_peak(
    chord_pack: Any, make_recipe: Recipes, curriculum_of: Curriculum, tmp_path: Path
) -> None:
    result = train(make_recipe(curriculum_of(2)), chord_pack.pack, chord_pack.tokenizer, str(tmp_path / "run"))
    peak = json.loads(Path(result.summary).read_text())["peak"]
    assert peak["is_measured"]
    for row in read_rows(str(tmp_path / "run")):
        assert row["mfu"] == pytest.approx(row["flops"] / row["wall_s"] / peak["flops_per_s"])
        assert 0 < row["mfu"] <= row["hfu"] < 1


def test_the_board_has_curves_of_stages_and_of_held_out_splits_and_the_recipe_once(
    chord_pack: Any, make_recipe: Recipes, curriculum_of: Curriculum, tmp_path: Path
) -> None:
    recipe = make_recipe(measuring(curriculum_of(2), every=None))
    run = tmp_path / "run"
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(run), until="decoder_text")
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(run), resume=True)
    board = EventAccumulator(str(run / BOARD), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    rows = list(read_rows(str(run)))
    # Held-out text is one curve through all stages that measure it; the loss of each stage is its own.
    shown = [(event.step, event.value) for event in board.Scalars("held_out/test_text_loss")]
    assert shown == [(row["global_step"], pytest.approx(row["test_text_loss"])) for row in measured(run)]
    assert len(shown) == 2
    for stage in ("encoder_ctc", "decoder_text", "align", "tts"):
        shown = [(event.step, event.value) for event in board.Scalars(f"{stage}/loss")]
        assert shown == [
            (row["global_step"], pytest.approx(row["loss"])) for row in rows if row["stage"] == stage and "loss" in row
        ]
    groups = {tag.split("/")[0] for tag in board.Tags()["scalars"]}
    assert groups == {"encoder_ctc", "decoder_text", "align", "tts", "held_out"}
    (text,) = board.Tensors("recipe/text_summary")
    assert '"model": "micro"' in text.tensor_proto.string_val[0].decode()
