"""What a run writes down and says of the steps that the watch rang at: ``spikes.jsonl``, and a line for people."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from manifests.console import counted, say
from manifests.errors import WorkError
from manifests.packs import Pack
from manifests.spikes import SPIKES, BlamedDocument, Spike, append_spike, keep_spikes
from training.blame import Blame, Suspect
from training.ranks import Ranks
from training.spikes import Rung, Verdict

SHOWN = 3  # documents of a line; the file has all

DONE = {Verdict.SKIP: "the step is skipped", Verdict.ROLL_BACK: "back to the last checkpoint"}


class SpikeLog:
    """The rows of one run. Documents are found in the pack's manifest down to their recordings when one is written."""

    def __init__(self, run_path: str, pack: Pack, split: str, ranks: Ranks, num_spikes: int) -> None:
        """``num_spikes``: rows that stay of those that are there; what follows them is of a part of the run that was lost."""
        self._run_path, self._pack, self._split, self._ranks = run_path, pack, split, ranks
        ranks.agree(lambda: keep_spikes(run_path, num_spikes) if ranks.is_first else None)

    def write(self, stage: str, global_step: int, rung: Rung, found: Blame) -> None:
        """A row of the step ``global_step``, and a line where the run goes on behind it. Every rank must call it; the first one writes.

        Raises WorkError on every rank, which says it all, where the verdict is to stop.
        """
        finding, lineage = rung.finding, self._pack.head.get("lineage", {})
        documents = self._documents(found.documents)
        spike = Spike(
            stage=stage,
            step=rung.step,
            global_step=global_step,
            cause=str(finding.cause),
            action=str(finding.verdict),
            loss=_finite(finding.loss),
            loss_z=finding.loss_z,
            grad_norm=_finite(finding.grad_norm),
            grad_z=finding.grad_z,
            num_documents=found.num_documents,
            documents=documents,
            pack_id=self._pack.pack_id,
            corpus_id=lineage.get("corpus_id"),
            clips_fingerprint=lineage.get("clips_fingerprint"),
        )
        self._ranks.agree(lambda: append_spike(self._run_path, spike) if self._ranks.is_first else None)
        happened = f"stage {stage!r} step {rung.step}: {finding.what}; {told(documents, found.num_documents)}"
        if finding.verdict is Verdict.STOP:
            raise WorkError(
                f"{happened}. Nothing was updated, and the run stops here by its recipe's spikes; pack again with "
                f"--leave-out {self._run_path}/{SPIKES}, lower the learning rate, or resume with other spikes"
            )
        if self._ranks.is_first:
            say(f"{happened}; {DONE[finding.verdict]}")

    def _documents(self, suspects: list[Suspect]) -> list[BlamedDocument]:
        """Each document once, with its place in the pack."""
        by_key = {suspect.key: suspect for suspect in reversed(suspects)}
        if not by_key:
            return []
        rows = self._pack.documents(self._split).select(["key", "shard", "turns"])
        named = rows.filter(pc.is_in(rows["key"], value_set=pa.array(list(by_key)))).to_pylist()
        places = {row["key"]: row for row in named}
        documents = []
        for key in dict.fromkeys(suspect.key for suspect in suspects):
            suspect, turns = by_key[key], places[key]["turns"]
            documents.append(
                BlamedDocument(
                    key=key,
                    shard=places[key]["shard"],
                    loss=_finite(suspect.mean_nll),
                    usual=suspect.usual,
                    grad_norm=_finite(suspect.grad_norm) or None,
                    clip_ids=[clip["clip_id"].hex() for turn in turns for clip in turn["clips"]],
                    recording_ids=list(dict.fromkeys(turn["recording_id"].hex() for turn in turns if turn["recording_id"])),
                )
            )
        return documents


def told(documents: list[BlamedDocument], num_documents: int) -> str:
    """The documents to blame in one phrase."""
    if not documents:
        return f"none of its {counted(num_documents, 'document')} stands out"
    shown = [_document(document) for document in documents[:SHOWN]]
    more = [f"{len(documents) - SHOWN} more"] if len(documents) > SHOWN else []
    return f"of {counted(num_documents, 'document')} to blame: {', '.join([*shown, *more])}"


def _document(document: BlamedDocument) -> str:
    loss = "loss not finite" if document.loss is None else f"loss {document.loss:.2f}"
    usual = "" if document.usual is None else f", usually {document.usual:.2f}"
    recordings = f"; recording {', '.join(document.recording_ids)}" if document.recording_ids else ""
    return f"document {document.key} ({loss}{usual}{recordings})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
