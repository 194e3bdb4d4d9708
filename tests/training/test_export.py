from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from manifests.errors import MismatchError, RequestError
from tests.training.test_run import tensors
from tokenization.artifact import Tokenizer
from tokenization.text import TextTokenizer
from training import checkpoint
from training.config import Dtype, Part
from training.export import export_run
from training.inputs import open_inputs
from training.published import FACTS
from training.recipe import TrainingRecipe
from training.run import train
from training.run_folder import VOCABULARY
from training.start import TEXT_PARTS
from training.tensors import POLICY

# A whole run, and others that start from it.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(
    chord_pack: Any, make_recipe: Callable[..., TrainingRecipe], curriculum_of: Any, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Four stages of one step."""
    stages = [{**stage, "warmup_steps": 0, "measure_swap": False} for stage in curriculum_of(1)]
    stages = [{name: value for name, value in stage.items() if name != "measure_swap"} for stage in stages]
    path = str(tmp_path_factory.mktemp("exported") / "run")
    train(make_recipe(stages), chord_pack.pack, chord_pack.tokenizer, path)
    return path


def saved(run: str, number: int = -1) -> dict[str, torch.Tensor]:
    """The model's weights in one of the run's checkpoints."""
    found = tensors(str(Path(run) / checkpoint.FOLDER / checkpoint.complete(run)[number]))
    prefix = f"{POLICY}.model."
    return {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}


def test_an_export_is_the_newest_checkpoint_under_the_published_names(run: str, chord_pack: Any, tmp_path: Path) -> None:
    result = export_run(run, str(tmp_path / "out"), dtype=Dtype.FLOAT32)
    assert (result.checkpoint, result.stage) == (checkpoint.complete(run)[-1], "tts")
    exported, own = load_file(tmp_path / "out" / "model.safetensors"), saved(run)
    assert set(exported) == {name for name in own if not name.startswith("ctc_head.")}
    assert all(torch.equal(exported[name], own[name]) for name in exported)
    assert result.parameters == sum(tensor.numel() for tensor in exported.values())
    facts = json.loads((tmp_path / "out" / FACTS).read_text())
    vocabulary = Tokenizer.open(chord_pack.tokenizer).vocabulary
    assert facts["vocabulary"]["layout_hash"] == facts["vocabulary_hash"] == vocabulary.layout_hash
    assert facts["checkpoint"] == result.checkpoint
    assert facts["trained"] == ["adaptor", "ctc_head", "decoder", "embedding", "encoder", "head"]


def test_an_earlier_checkpoint_and_a_narrow_type_may_be_asked_for(run: str, tmp_path: Path) -> None:
    first = checkpoint.complete(run)[0]
    export_run(run, str(tmp_path / "out"), name=first)
    exported = load_file(tmp_path / "out" / "model.safetensors")
    own = saved(run, 0)
    assert all(torch.equal(tensor, own[name].to(torch.bfloat16)) for name, tensor in exported.items())


def test_an_exported_decoder_loads_in_transformers(run: str, chord_pack: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    export_run(run, str(tmp_path / "out"), Part.DECODER, Dtype.FLOAT32)
    theirs = Qwen2ForCausalLM.from_pretrained(tmp_path / "out")
    own = saved(run)
    assert all(torch.equal(tensor, own[name]) for name, tensor in theirs.state_dict().items())
    words, text = "so la mi re do ti", Tokenizer.open(chord_pack.tokenizer).text
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(words)["input_ids"] == list(text.encode(words))
    assert TextTokenizer.load(str(tmp_path / "out" / "tokenizer.json")).digest == text.digest


def test_a_run_starts_from_an_export(
    run: str, chord_pack: Any, make_recipe: Callable[..., TrainingRecipe], curriculum_of: Any, tmp_path: Path
) -> None:
    export_run(run, str(tmp_path / "out"), dtype=Dtype.FLOAT32)
    align = {**curriculum_of(1)[2], "warmup_steps": 0}
    del align["measure_swap"]
    recipe = make_recipe([align], start={"model": str(tmp_path / "out")}, seed=77)
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(tmp_path / "next"))
    before, after = saved(run), saved(str(tmp_path / "next"))
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"adapter", "ctc_head"}  # trained, and no part of the layout
    moved = max(float((after[name] - before[name]).abs().max()) for name in after if name.startswith("adapter."))
    assert moved < 0.02  # one step away, and not another draw
    weights = tmp_path / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")  # another number, of the same shape
    with pytest.raises(MismatchError, match=r"^checkpoint '00-align-0000001' has start_digest [0-9a-f]{32}, this run "):
        train(recipe, chord_pack.pack, chord_pack.tokenizer, str(tmp_path / "next"), resume=True)


def test_parts_that_no_run_has_trained_are_known_as_such_from_export_to_export(
    run: str, chord_pack: Any, make_recipe: Callable[..., TrainingRecipe], curriculum_of: Any, tmp_path: Path
) -> None:
    """An export has all parts, also those that are as they were drawn: nothing can be aligned with them."""
    ctc, text, align, _ = (
        {k: v for k, v in {**stage, "warmup_steps": 0}.items() if k != "measure_swap"} for stage in curriculum_of(1)
    )
    inputs, wrote = (chord_pack.pack, chord_pack.tokenizer), str(tmp_path / "wrote")
    train(make_recipe([text]), *inputs, wrote)
    export_run(wrote, str(tmp_path / "out"))
    start = {"model": str(tmp_path / "out")}
    with pytest.raises(RequestError, match="over an encoder that no stage before it trains and start does not bring trained"):
        open_inputs(make_recipe([align], start=start), *inputs)
    open_inputs(make_recipe([ctc, align], start=start), *inputs)
    # What a run starts from counts in its own exports.
    train(make_recipe([ctc], start=start), *inputs, str(tmp_path / "heard"))
    export_run(str(tmp_path / "heard"), str(tmp_path / "both"))
    assert open_inputs(make_recipe([align], start={"model": str(tmp_path / "both")}), *inputs).start.trained == TEXT_PARTS | {
        "encoder"
    }
    # An earlier checkpoint, and the decoder alone.
    export_run(run, str(tmp_path / "first"), Part.DECODER, name=checkpoint.complete(run)[0])
    with pytest.raises(RequestError, match="over a decoder that no stage before it trains and start does not bring trained"):
        open_inputs(make_recipe([ctc, align], start={"decoder": str(tmp_path / "first")}), *inputs)
    # From elsewhere, all of it is taken for trained.
    (tmp_path / "first" / FACTS).unlink()
    open_inputs(make_recipe([ctc, align], start={"decoder": str(tmp_path / "first")}), *inputs)


def test_a_run_starts_from_parts_and_draws_what_they_lack(
    run: str, chord_pack: Any, make_recipe: Callable[..., TrainingRecipe], curriculum_of: Any, tmp_path: Path
) -> None:
    export_run(run, str(tmp_path / "text"), Part.DECODER, Dtype.FLOAT32)
    ctc, _, align, _ = ({k: v for k, v in stage.items() if k != "measure_swap"} for stage in curriculum_of(1))
    recipe = make_recipe([{**ctc, "warmup_steps": 0}, {**align, "warmup_steps": 0}], start={"decoder": str(tmp_path / "text")})
    train(recipe, chord_pack.pack, chord_pack.tokenizer, str(tmp_path / "next"))
    before, after = saved(run), saved(str(tmp_path / "next"))
    vocabulary = Tokenizer.open(chord_pack.tokenizer).vocabulary
    rows = vocabulary.num_text_rows
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(after[name][:rows], before[name][:rows])
        assert not (after[name][rows:] == before[name][rows:]).all(1).any()
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("model.layers."))


def test_the_vocabulary_grows_where_a_stage_first_has_all_of_it(
    chord_pack: Any, make_recipe: Callable[..., TrainingRecipe], curriculum_of: Any, tmp_path: Path
) -> None:
    ctc, text, align, tts = ({k: v for k, v in stage.items() if k != "measure_swap"} for stage in curriculum_of(1))
    of_text = [{**stage, "vocabulary": "text", "warmup_steps": 0} for stage in (text, align)]
    tts = {**tts, "warmup_steps": 0, "train": {"adaptor": {"lr": 1e-3}}}  # so that rows are as they were drawn
    recipe = make_recipe([{**ctc, "warmup_steps": 0}, *of_text, tts])
    run = str(tmp_path / "run")
    for until in ("align", "tts"):  # growth is at the stage's start, also where a run goes on there
        train(recipe, chord_pack.pack, chord_pack.tokenizer, run, until=until, resume=until == "tts")
    before, after = saved(run, -2), saved(run)
    known = torch.from_numpy(Tokenizer.open(chord_pack.tokenizer).vocabulary.known_rows(wrappers=True))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal((before[name] == after[name]).all(1), known)


def test_what_cannot_be_exported_is_refused(run: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no checkpoint; give the folder of a run that saved one"):
        export_run(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(RequestError, match="has no checkpoint 'other'; it has 00-encoder_ctc-0000001"):
        export_run(run, str(tmp_path / "out"), name="other")
    table = Path(run) / VOCABULARY
    whole = table.read_text()
    try:
        table.write_text(json.dumps({**json.loads(whole), "text_size": 1}))
        with pytest.raises(MismatchError, match="its file states"):
            export_run(run, str(tmp_path / "out"))
        table.unlink()
        with pytest.raises(RequestError, match=r"vocabulary\.json cannot be read"):
            export_run(run, str(tmp_path / "out"))
    finally:
        table.write_text(whole)
    export_run(run, str(tmp_path / "out"))
    with pytest.raises(RequestError, match="is there already; an export is a new folder"):
        export_run(run, str(tmp_path / "out"))
