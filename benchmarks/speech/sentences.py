"""Read sentences: what a small run makes of them, on the speakers that it learns from and on others; and sixteen of them by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.digits.judging import score
from benchmarks.speech.chain import TRAIN, Chain, Listener, read_manifest
from training import checkpoint
from training.recipe import CtcStage

OTHERS = "others"  # speakers that nothing learnt from
EVERY = 5  # of the speakers one is held out
MEASURED = 64  # clips of each side that a loss is taken on
BY_HEART = 16


def measure_curves(speech: Path, out: Path) -> list[dict[str, Any]]:
    """A row a checkpoint: stage, step, and the loss on clips of the speakers learnt from and on others', all as they are.

    CTC's in nats a label for the encoder's stage, the text's and the stop's in nats a target for those that hear; stages that read
    texts alone have no row.
    """
    read = read_manifest(speech, "read")
    held_out = set(sorted({one.speaker for one in read})[::EVERY])
    chain = Chain(out / "curves", "read")
    chain.prepare(
        **{
            TRAIN: [one for one in read if one.speaker not in held_out],
            OTHERS: [one for one in read if one.speaker in held_out],
        }
    )
    chain.train()
    kinds = {stage.name: isinstance(stage, CtcStage) for stage in chain.recipe.stages if "text" not in stage.tasks}
    rows = []
    for name in checkpoint.complete(str(chain.run)):
        state = checkpoint.load_state(checkpoint.path_of(str(chain.run), name))
        if state.stage in kinds:
            listener = Listener(chain, name)
            loss = listener.ctc_loss if kinds[state.stage] else listener.asr_loss
            rows.append({"stage": state.stage, "step": state.step, **{split: loss(split, MEASURED) for split in (TRAIN, OTHERS)}})
    return rows


def measure_by_heart(speech: Path, out: Path) -> dict[str, Any]:
    """Word errors of free decoding on the sixteen sentences that the model was trained on."""
    read = read_manifest(speech, "read")
    chosen = [read[place * len(read) // BY_HEART] for place in range(BY_HEART)]
    chain = Chain(out / "by_heart", "overfit")
    chain.prepare(**{TRAIN: chosen})
    chain.train()
    listener = Listener(chain)
    texts = [entry.text for entry, _ in listener.documents(TRAIN)]
    written = listener.transcribe(TRAIN)
    wrong = [{"said": said, "written": own} for said, own in zip(texts, written, strict=True) if said != own]
    return {**score(written, texts).to_json(), "wrong": wrong}
