from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.training import made_documents as documents
from tests.training.made_documents import Made, turn
from tokenization.interleave import Ratio
from training.cost import Work
from training.documents import serve
from training.examples import ExampleMaker
from training.features import log_mel
from training.recipe import LossWeights, Task
from training.workload import Assumptions, assumed_work, example_work, measured_work

LAYOUTS = documents.layouts()
MADE = [
    documents.clip("so la", 9000, 14, key="clip", caption_en="loud", caption_zh="大声"),
    documents.clip("mi", 420_000, 13, key="long"),  # two pieces
    documents.pair(turn("so la", 9000, 14, 1, language="fr"), turn("mi re", 8000, 12, 2, language="en"), key="pair"),
    documents.continuation("so", "la mi", "re", "do", key="continuation"),
    documents.conversation("so", "la mi", "re", "do", "ti", key="conversation"),
    documents.made("text", [turn("so la mi re do ti")], key="text"),
]
SERVED = serve("train", [made.entry() for made in MADE], LAYOUTS, list(Task), 2000)
WHOLE: dict[str, Made] = {made.row["key"]: made for made in MADE}


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.REPEAT])
def test_work_is_that_of_the_examples_themselves(task: Task) -> None:
    maker = ExampleMaker(LAYOUTS, LossWeights())
    works = []
    assert SERVED.eligible[task]
    for place in SERVED.eligible[task]:
        entry = SERVED.entries[place]
        example, work = maker.make(task, entry, WHOLE[entry.key].document), example_work(task, entry, LAYOUTS)
        assert work.mel_frames == sum(log_mel(torch.from_numpy(audio), 8).shape[1] for audio in example.audio)
        if task is not Task.CTC:  # the encoder's labels are no positions of the decoder
            assert (work.positions, work.targets) == (len(example.ids), int((example.weights > 0).sum()))
            # The adaptor runs over the two frames too that do not count as audio: at most one patch more of a piece.
            assert 0 <= work.patches - int(example.is_heard.sum()) <= len(example.audio)
        works.append(work)
    mean = measured_work(task, SERVED, LAYOUTS)
    assert mean.encoder_pairs == pytest.approx(np.mean([work.encoder_pairs for work in works]))
    assert mean.pairs == pytest.approx(np.mean([work.pairs for work in works]))


@pytest.mark.parametrize("task", list(Task))
def test_assumed_documents_are_laid_out_as_real_ones_of_that_size(task: Task) -> None:
    assumed = Assumptions(utterance_s=2.0, text_tokens_per_s=5.0, turns=4, text_document_tokens=10)
    said: dict[str, Any] = {"text": "ten bytes!", "num_samples": 32_000, "num_codes": 50}
    pair = documents.pair(turn(**said, language="fr"), turn(**said, language="en"))
    same = {
        Task.TEXT: documents.made("text", [turn("ten bytes!")]),
        Task.CAPTIONING: documents.clip(**said, caption_en="ten bytes!"),
        Task.CONTINUATION: documents.continuation(*["ten bytes!"] * 4, num_samples=32_000, num_codes=50),
        Task.CONTINUATION_TEXT: documents.continuation(*["ten bytes!"] * 4, num_samples=32_000, num_codes=50),
        Task.CONVERSATION: documents.conversation(*["ten bytes!"] * 4, num_samples=32_000, num_codes=50),
        **dict.fromkeys((Task.S2TT, Task.T2ST, Task.S2ST), pair),
    }
    real = example_work(task, same.get(task, documents.clip(**said)).entry(), LAYOUTS)
    stated = assumed_work(task, Ratio(), assumed)
    slack = 4 if task is Task.CONTINUATION_TEXT else 0  # what stands between lines
    assert stated.positions == pytest.approx(real.positions, abs=slack)
    assert stated.targets == pytest.approx(real.targets, abs=slack)
    for name in ("mel_frames", "encoder_pairs", "patches"):
        assert getattr(stated, name) == getattr(real, name)


def test_sums_and_multiples_of_work_are_work() -> None:
    one = Work.of_example(10, 4, [16_000])
    assert one + one == one * 2
    assert (one + Work()) == one
