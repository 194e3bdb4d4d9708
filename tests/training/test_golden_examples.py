"""One example a task, position by position, over the published ids: what the trainer sees must not move unnoticed.

Meant to move? ``STEPWELL_WRITE_GOLDEN=1 pytest tests/training/test_golden_examples.py`` writes them anew; say why in the commit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training import made_documents as documents
from tests.training.made_documents import Made, turn
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training.examples import ExampleMaker
from training.layouts import WITHOUT_HEARING, Layouts
from training.prompts import Prompts
from training.recipe import LossWeights, Task
from training.show import stretches_of

FOLDER = Path(__file__).parents[1] / "golden" / "examples"
TEXT = TextTokenizer.load(str(FOLDER / "text_tokenizer.json"))  # a byte-level BPE of 400 ids
WEIGHTS = LossWeights(text=1.0, audio_code=0.5, tts_pad=0.25, audio_pad=0.125, special=2.0)

CLIP = documents.clip("It is raining again.", 8000, 13, language="en", caption_en="A calm, low voice.")
PAIR = documents.pair(
    turn("It is raining again.", 8000, 13, seed=1, language="en"), turn("又下雨了。", 9000, 15, seed=2, language="zh")
)
MADE: dict[Task, Made] = {
    Task.CTC: CLIP,
    Task.TEXT: documents.made("text", [turn("It is raining again.\n又下雨了。")]),
    Task.REPEAT: documents.made("text", [turn("It is raining again.")]),
    Task.ASR: CLIP,
    Task.TTS: CLIP,
    Task.S2TT: PAIR,
    Task.T2ST: PAIR,
    Task.S2ST: PAIR,
    Task.CONTINUATION: documents.continuation("It is raining again.", "Take a coat.", "好的。"),
    Task.CONTINUATION_TEXT: documents.continuation("It is raining again.", "Take a coat.", "好的。"),
    Task.CONVERSATION: documents.conversation("It is raining again.", "Take a coat.", "好的。", "再见。"),
    Task.CAPTIONING: CLIP,
}


def built(task: Task) -> dict[str, Any]:
    layouts = Layouts(TEXT, Vocabulary.published(), documents.layouts().ratio, Prompts())
    maker, entry = ExampleMaker(layouts, WEIGHTS), MADE[task].entry(TEXT)
    if task is Task.REPEAT:
        example = maker.repeat(entry.key, entry.turns[0].text_ids, 12, np.random.default_rng(0))
    else:
        example = maker.make(task, entry, MADE[task].document)
    return {
        "task": task.value,
        "shown": [f"{s.kind} {s.weight:g} {s.text}" for s in stretches_of(example, TEXT, layouts.vocabulary)],
        **{name: getattr(example, name).tolist() for name in ("ids", "kinds", "weights", "positions", "is_heard")},
        "audio_samples": [len(audio) for audio in example.audio],
    }


@pytest.mark.parametrize("task", list(Task))
def test_the_example_is_the_committed_one(task: Task) -> None:
    path, found = FOLDER / f"{task.value}.json", built(task)
    assert bool(found["audio_samples"]) == (task not in WITHOUT_HEARING)
    if os.environ.get("STEPWELL_WRITE_GOLDEN"):
        shown = ",\n  ".join(json.dumps(line, ensure_ascii=False) for line in found["shown"])
        rest = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items() if name != "shown")
        path.write_text("{\n" + ",\n".join(rest) + f',\n"shown": [\n  {shown}\n]\n}}\n', encoding="utf-8")
    golden = json.loads(path.read_text(encoding="utf-8"))
    assert golden.keys() == found.keys()
    for name, value in golden.items():
        assert found[name] == value, name


def test_every_task_has_its_golden_example_and_nothing_else_lies_there() -> None:
    expected = {f"{task.value}.json" for task in Task} | {"text_tokenizer.json"}
    assert {path.name for path in FOLDER.iterdir()} == expected
