"""Which takes a measured model, its codec and its judge rest on, walked from the model back to the recordings, whose names say it.

exported weights ── name and identity ──▶ newest checkpoint
checkpoint ── pack id ──▶ pack ── recording ids ──▶ corpus ──▶ names of recordings
    └── codec's fingerprint ──▶ tokenizer ── corpus id ──▶ corpus ──▶ names of recordings
recogniser ──▶ the takes that it says it heard
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.digits.recogniser import Recogniser
from benchmarks.digits.strings import DigitString, Part, Take
from manifests.corpus import Corpus
from manifests.errors import MismatchError
from manifests.packs import Pack
from tokenization.artifact import Tokenizer
from training import checkpoint
from training.checkpoint import CheckpointState
from training.published import FACTS

SpokenTake = tuple[str, Take]  # with its speaker


@dataclass(frozen=True)
class Rests:
    """What scores rest on: the takes that the pack's splits were cut from, those that codec and text tokenizer learned from, and the judge's."""

    packed: frozenset[SpokenTake]
    codec: frozenset[SpokenTake]
    recogniser: frozenset[SpokenTake]

    def check(self, part: Part) -> None:
        """Raises MismatchError where anything rests on takes of that split."""
        for what, takes in (("pack", self.packed), ("codec", self.codec), ("recogniser", self.recogniser)):
            if found := sorted(take for take in takes if take[1].number in part.takes):
                raise MismatchError(
                    f"the {what} rests on {len(found)} takes of split {part.value!r}, the first {found[0]}; train without them"
                )


def run_rests_on(run: str, pack_uri: str, tokenizer_uri: str, corpora: Collection[str], exported: str, recogniser: Path) -> Rests:
    """Of all checkpoints of the run, the newest of which was exported, and of the recogniser that was kept.

    Raises MismatchError where a checkpoint is of another pack or began with weights from elsewhere, where the exported weights are
    not the newest checkpoint's, the pack is of another codec, a corpus is missing, or the recogniser says nothing of what it heard.
    """
    pack, tokenizer = Pack.open(pack_uri), Tokenizer.open(tokenizer_uri)
    states = {name: checkpoint.load_state(checkpoint.path_of(run, name)) for name in checkpoint.complete(run)}
    for name, state in states.items():
        _check_same(f"checkpoint {name!r}", "pack", state.identity.pack_id, pack.pack_id)
        if state.identity.start_digest:
            raise MismatchError(
                f"checkpoint {name!r} began with weights {state.identity.start_digest} from elsewhere; train from none"
            )
    _check_exported(exported, run, states)
    _check_same(f"pack {pack_uri!r}", "codec", pack.head["codec_fingerprint"], tokenizer.codec_fingerprint)
    opened = {corpus.corpus_id: corpus for corpus in map(Corpus.open, corpora)}
    packed = packed_takes(pack, _among(opened, pack.head["lineage"]["corpus_id"]))
    codec = corpus_takes(_among(opened, tokenizer.lineage["corpus_id"]))
    heard = Recogniser.load(recogniser).takes
    if not heard:
        raise MismatchError(f"recogniser {str(recogniser)!r} names no takes; remove the folder and let it learn again")
    return Rests(packed, codec, heard)


def packed_takes(pack: Pack, corpus: Corpus) -> frozenset[SpokenTake]:
    """Of the recordings that documents of any split are made from."""
    documents = [row for split in pack.splits for row in pack.documents(split).column("turns").to_pylist()]
    return _takes(corpus, {turn["recording_id"] for turns in documents for turn in turns})


def corpus_takes(corpus: Corpus) -> frozenset[SpokenTake]:
    """Of all recordings, whether clips were cut from them or not."""
    return _takes(corpus, None)


def _takes(corpus: Corpus, recordings: Collection[bytes] | None) -> frozenset[SpokenTake]:
    """Of these recordings, or of all; an input that was folded into another's bytes is one of its names."""
    rows = corpus.inputs().select(["uri", "recording_id"]).to_pylist()
    named = [DigitString.of_uri(row["uri"]) for row in rows if recordings is None or row["recording_id"] in recordings]
    return frozenset((string.speaker, take) for string in named for take in string.takes)


def _check_exported(exported: str, run: str, states: Mapping[str, CheckpointState]) -> None:
    """Raises MismatchError where what ``train export`` wrote beside the weights is not of the newest of these checkpoints."""
    if not states:
        raise MismatchError(f"run {run!r} has no checkpoint; give the one that was exported")
    newest = max(states)
    facts = json.loads((Path(exported) / FACTS).read_text(encoding="utf-8"))
    for what, here in {"checkpoint": newest, **asdict(states[newest].identity)}.items():
        if facts.get(what) != here:
            raise MismatchError(
                f"exported weights {exported!r} have {what} {facts.get(what)!r}, the run's newest checkpoint {here!r}; remove the folder and "
                "export again"
            )


def _among(corpora: Mapping[str, Corpus], corpus_id: str) -> Corpus:
    if corpus_id not in corpora:
        raise MismatchError(f"corpus {corpus_id} is none of those given ({', '.join(sorted(corpora))}); give it as well")
    return corpora[corpus_id]


def _check_same(holder: str, what: str, held: str, given: str) -> None:
    if held != given:
        raise MismatchError(f"{holder} has {what} {held}, the {what} given is {given}; give the one that it was made with")
