"""Which takes a checkpoint and its codec rest on, walked from the checkpoint back to the recordings, whose names say it.

checkpoint ── pack id ──▶ pack ── recording ids ──▶ corpus ──▶ names of recordings
    └── codec's fingerprint ──▶ tokenizer ── corpus id ──▶ corpus ──▶ names of recordings
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from benchmarks.digits.strings import DigitString, Part, Take
from manifests.corpus import Corpus
from manifests.errors import MismatchError
from manifests.packs import Pack
from manifests.trained import read_checkpoints
from tokenization.artifact import Tokenizer

SpokenTake = tuple[str, Take]  # with its speaker


@dataclass(frozen=True)
class Rests:
    """What a run rests on: the takes that its pack's splits were cut from, and those that its codec and text tokenizer learned from."""

    packed: frozenset[SpokenTake]
    codec: frozenset[SpokenTake]

    def check(self, part: Part) -> None:
        """Raises MismatchError where anything rests on takes of that split."""
        for what, takes in (("pack", self.packed), ("codec", self.codec)):
            if found := sorted(take for take in takes if take[1].number in part.takes):
                raise MismatchError(
                    f"the {what} rests on {len(found)} takes of split {part.value!r}, the first {found[0]}; train without them"
                )


def run_rests_on(run: str, pack_uri: str, tokenizer_uri: str, corpora: Collection[str]) -> Rests:
    """Of all checkpoints of the run. Raises MismatchError where one is of another pack, the pack of another codec, or a corpus is missing."""
    pack, tokenizer = Pack.open(pack_uri), Tokenizer.open(tokenizer_uri)
    for made in read_checkpoints(run):
        _check_same(f"checkpoint {made.name!r}", "pack", made.pack_id, pack.pack_id)
    _check_same(f"pack {pack_uri!r}", "codec", pack.head["codec_fingerprint"], tokenizer.codec_fingerprint)
    opened = {corpus.corpus_id: corpus for corpus in map(Corpus.open, corpora)}
    packed = packed_takes(pack, _among(opened, pack.head["lineage"]["corpus_id"]))
    return Rests(packed, corpus_takes(_among(opened, tokenizer.lineage["corpus_id"])))


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


def _among(corpora: Mapping[str, Corpus], corpus_id: str) -> Corpus:
    if corpus_id not in corpora:
        raise MismatchError(f"corpus {corpus_id} is none of those given ({', '.join(sorted(corpora))}); give it as well")
    return corpora[corpus_id]


def _check_same(holder: str, what: str, held: str, given: str) -> None:
    if held != given:
        raise MismatchError(f"{holder} has {what} {held}, the {what} given is {given}; give the one that it was made with")
