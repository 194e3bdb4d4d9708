"""The proof of a decontamination: what was compared with what, and what came of it, to be checked again at any time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.store import Store
from pipeline.copies.decontaminate import TABLE, DecontaminateResult, Registry, check_registry, table_digest
from pipeline.copies.recipe import DecontaminateConfig
from pipeline.leave_out import changed_reads


@dataclass(frozen=True)
class ProvedCorpus:
    """What was searched. URIs of a proof hold wherever it is read: a local path is a whole one."""

    uri: str
    corpus_id: str
    snapshot: int


@dataclass(frozen=True)
class ProvedTable:
    """What was found."""

    name: str
    fingerprint: str
    digest: str  # over the rows


@dataclass(frozen=True)
class Proof:
    """As a file holds it, in JSON."""

    corpus: ProvedCorpus
    registries: list[Registry]
    config: DecontaminateConfig
    table: ProvedTable
    num_clips: int
    num_untold: int
    contaminated: dict[str, dict[str, int]]  # evaluation set -> drop_reason -> clips
    format_version: Literal[2] = 2

    @staticmethod
    def of(result: DecontaminateResult, config: DecontaminateConfig) -> Proof:
        """The proof of what ``decontaminate`` found with that config."""
        return Proof(
            ProvedCorpus(Store(result.corpus_uri).full_uri, result.corpus_id, result.snapshot),
            [replace(registry, uri=Store(registry.uri).full_uri) for registry in result.registries],
            config,
            ProvedTable(TABLE, result.fingerprint, result.table_digest),
            result.num_clips,
            result.num_untold,
            result.contaminated,
        )

    def to_json(self) -> bytes:
        return _PROOF.dump_json(self, indent=2)


_PROOF = TypeAdapter(Proof)


def read_proof(path: str) -> Proof:
    """Raises RequestError for what is not a proof, or one of another format."""
    try:
        with open(path, "rb") as file:
            return _PROOF.validate_json(file.read())
    except OSError as error:
        raise RequestError(
            f"proof {path!r} cannot be read ({type(error).__name__}: {error}); name one that --proof wrote"
        ) from error
    except ValidationError as error:
        # A proof of another format may lack anything: that it is one tells more.
        first = min(error.errors(), key=lambda found: found["loc"] != ("format_version",))
        where = ".".join(str(step) for step in first["loc"])
        what = f"{where}: {first['msg']}" if where else first["msg"]
        raise RequestError(f"proof {path!r} cannot be read ({what}); name one that --proof wrote, or write it again") from error


def check(path: str, uri: str | None = None) -> list[str]:
    """What no longer holds of a proof, one line each; nothing when all does.

    The table of the corpus (at ``uri``, or where the proof says) must be the one that was proved, of every clip that the corpus
    has now and of what was read of them; and the registries must be what they were. Raises RequestError for what is no proof, or
    a corpus that is not there.
    """
    proof = read_proof(path)
    corpus = Corpus.open(uri or proof.corpus.uri)
    faults = []
    if corpus.corpus_id != proof.corpus.corpus_id:
        faults.append(f"corpus {corpus.store.uri!r} is {corpus.corpus_id}, the proof is of {proof.corpus.corpus_id}")
    if TABLE not in corpus.snapshot.tables:
        return [*faults, f"corpus {corpus.store.uri!r} has no decision table {TABLE!r} any more"]
    head = corpus.decision_table(TABLE)
    if head.fingerprint != proof.table.fingerprint:
        faults.append(f"the table is {head.fingerprint} by now, proved was {proof.table.fingerprint}")
    faults += [
        f"it was made of {read!r} ({head.reads[read]}), which is {mark} by now; decontaminate again"
        for read, mark in changed_reads(corpus, head).items()
    ]
    lacking = [unit for unit in corpus.snapshot.units if head.find("clips", unit, corpus.snapshot) is None]
    if lacking:
        faults.append(f"{len(lacking)} units came or changed after it (first: {lacking[0]}); decontaminate again")
    elif table_digest(corpus) != proof.table.digest:
        faults.append("the rows of the table are not those that were proved")
    for stated in proof.registries:
        now = check_registry(Corpus.open(stated.uri), proof.config, allow_unreadable=True)
        if now.digest != stated.digest:
            faults.append(f"registry {stated.uri!r} was at snapshot {stated.snapshot}, and holds something else by now")
    return faults
