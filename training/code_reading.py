# ruff: noqa: N815 (fields that hold tensors carry shape suffixes too)
"""Who reads the codes that a model speaks: the reader that the tokenizer brings, else one that the run fits on the pack.

A reader errs by itself: its errors on real codes stand beside those on spoken ones wherever it is used. Where the tokenizer's codec
was trained without words, or elsewhere, a small network learns to spell the training split's texts from its codes (CTC, in a bounded
number of steps), once a run: it is kept in the run's folder. It never sees a held-out document.

Shapes: B documents, F code frames, Q digits of a code, L labels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from manifests.console import say
from manifests.errors import RequestError
from manifests.ids import digest_json
from manifests.store import Store
from tokenization.code_reader import CodeReader
from tokenization.fsq import TextHead, digits_of_codes
from tokenization.letters import Letters, shortest_frames
from training.data import DocumentReader
from training.documents import Split
from training.entries import Entry
from training.inputs import Inputs
from training.ranks import ALONE, Ranks
from training.recipe import Task

FOLDER = "code_reader"  # of a run
WIDTH, BLOCKS = 128, 2
STEPS, BATCH_DOCUMENTS, RATE, WARMUP_STEPS = 240, 16, 2e-3, 20
MOST_DOCUMENTS, MOST_FRAMES = 2000, 750  # that are learnt from, and of one of them: 30 s


@dataclass(frozen=True)
class CodesAndLabels:
    """One document to learn from: codes int64 ``[F]`` and the labels of its text."""

    codes_F: torch.Tensor
    labels: torch.Tensor  # int64


def find_code_reader(inputs: Inputs, run_path: str, reader: DocumentReader, ranks: Ranks = ALONE) -> CodeReader:
    """The tokenizer's own reader; else the one that the run's folder keeps, which the first rank fits where it is not there.

    Raises RequestError, on every rank, where no training document has codes and a text that they could spell.
    """
    own = CodeReader.open(Store(inputs.tokenizer.uri))
    if own is not None:
        return own
    what = digest_json([inputs.pack.pack_id, inputs.tokenizer.tokenizer_id, inputs.recipe.seed])[:16]
    store = Store(os.path.join(run_path, FOLDER, what))
    ranks.agree(lambda: _fit_unless_kept(store, inputs, reader) if ranks.is_first else None)
    kept = CodeReader.open(store)
    assert kept is not None
    return kept


def _fit_unless_kept(store: Store, inputs: Inputs, reader: DocumentReader) -> None:
    if CodeReader.open(store) is None:
        learnt, letters = read_documents(inputs.train, reader, inputs.recipe.seed)
        say(f"the tokenizer brings no reader of codes: fitting one on {len(learnt)} training documents, {STEPS} steps")
        fit(learnt, letters, inputs.recipe.seed).save(store)


def fit(learnt: Sequence[CodesAndLabels], letters: Letters, seed: int) -> CodeReader:
    """Train a text head from the start; the same bits for the same documents, seed and threads. Torch's generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = TextHead(letters.num_labels, WIDTH, BLOCKS)
    optimizer = torch.optim.AdamW(head.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rng = np.random.default_rng(seed)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / WARMUP_STEPS, 0.5 * (1.0 + math.cos(math.pi * step / STEPS)))
        chosen = [learnt[place] for place in rng.choice(len(learnt), min(BATCH_DOCUMENTS, len(learnt)), replace=False)]
        optimizer.zero_grad(set_to_none=True)
        _loss(head, chosen).backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
    return CodeReader(head.eval(), letters)


def _loss(head: TextHead, documents: Sequence[CodesAndLabels]) -> torch.Tensor:
    """CTC in nats a label."""
    frames_B = torch.tensor([len(document.codes_F) for document in documents])
    labels_B = torch.tensor([len(document.labels) for document in documents])
    digits_BQF = digits_of_codes(pad_sequence([document.codes_F for document in documents], batch_first=True))
    log_probs_BFL = head(digits_BQF, frames_B)
    labels = torch.cat([document.labels for document in documents])
    loss = F.ctc_loss(log_probs_BFL.transpose(0, 1), labels, frames_B, labels_B, blank=0, reduction="sum")
    return loss / labels_B.sum()


def read_documents(split: Split, reader: DocumentReader, seed: int) -> tuple[list[CodesAndLabels], Letters]:
    """Documents of the split in random order, as many as are learnt from, and the alphabet of their texts."""
    places = np.random.default_rng(seed).permutation(np.array(split.eligible.get(Task.TTS, ()), dtype=np.int64))
    entries = [split.entries[place] for place in places[:MOST_DOCUMENTS]]
    letters = Letters.of(entry.text for entry in entries)
    learnt = [document for entry in entries if (document := _document(entry, reader, letters)) is not None]
    if not learnt:
        raise RequestError(
            f"split {split.name!r} has no TTS document of at most {MOST_FRAMES} codes that a reader could learn to spell, and the tokenizer "
            "brings none; take tts out of the stages' measures, or train the tokenizer's codec with texts"
        )
    return learnt, letters


def _document(entry: Entry, reader: DocumentReader, letters: Letters) -> CodesAndLabels | None:
    """None where CTC could not spell the text in so few frames, where there is nothing to spell, and for very long ones."""
    labels = letters.labels(entry.text)
    if not labels or not shortest_frames(labels) <= (entry.turns[0].num_codes or 0) <= MOST_FRAMES:
        return None
    codes_F = real_codes(entry, reader)
    return CodesAndLabels(torch.from_numpy(codes_F.astype(np.int64)), torch.tensor(labels))


def real_codes(entry: Entry, reader: DocumentReader) -> np.ndarray:
    """uint16 ``[F]`` of a document with one turn, as the pack has them."""
    codes = reader.read(entry, with_audio=False).turns[entry.turns[0].number].codes
    assert codes is not None, "a TTS document has codes; ``serves`` said so"
    return codes
