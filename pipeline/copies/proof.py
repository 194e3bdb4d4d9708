"""The proof of a decontamination: what was compared with what, and what came of it, to be checked again at any time."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.recipes import resolved
from pipeline.copies.decontaminate import TABLE, DecontaminateResult, check_registry, table_digest
from pipeline.copies.recipe import DecontaminateConfig

FORMAT_VERSION = 1


def proof_of(result: DecontaminateResult, config: DecontaminateConfig) -> dict[str, Any]:
    """The proof as JSON."""
    return {
        "format_version": FORMAT_VERSION,
        "corpus": {"uri": result.corpus_uri, "corpus_id": result.corpus_id, "snapshot": result.snapshot},
        "registries": [asdict(registry) for registry in result.registries],
        "config": resolved(config),
        "table": {"name": TABLE, "fingerprint": result.fingerprint, "digest": result.table_digest},
        "num_clips": result.num_clips,
        "contaminated": result.contaminated,
    }


def read_proof(path: str) -> dict[str, Any]:
    """Raises RequestError for what is not a proof."""
    try:
        with open(path, encoding="utf-8") as file:
            proof = json.load(file)
        if proof["format_version"] != FORMAT_VERSION:
            raise RequestError(f"proof {path!r} has format version {proof['format_version']}; this is version {FORMAT_VERSION}")
        _ = proof["corpus"]["uri"], proof["table"]["digest"], proof["registries"], proof["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"proof {path!r} cannot be read ({type(error).__name__}: {error}); name one that --proof wrote"
        ) from error
    return dict(proof)


def check(path: str, uri: str | None = None) -> list[str]:
    """What no longer holds of a proof, one line each; nothing when all does.

    The table of the corpus (at ``uri``, or where the proof says) must be the one that was proved, of every clip that the corpus
    has now; and the registries must be what they were. Raises RequestError for what is no proof, or a corpus that is not there.
    """
    proof = read_proof(path)
    corpus = Corpus.open(uri or proof["corpus"]["uri"])
    faults = []
    if corpus.corpus_id != proof["corpus"]["corpus_id"]:
        faults.append(f"corpus {corpus.store.uri!r} is {corpus.corpus_id}, the proof is of {proof['corpus']['corpus_id']}")
    if TABLE not in corpus.snapshot.tables:
        return [*faults, f"corpus {corpus.store.uri!r} has no decision table {TABLE!r} any more"]
    head = corpus.decision_table(TABLE)
    if head.fingerprint != proof["table"]["fingerprint"]:
        faults.append(f"the table is {head.fingerprint} by now, proved was {proof['table']['fingerprint']}")
    lacking = [unit for unit in corpus.snapshot.units if head.find("clips", unit, corpus.snapshot) is None]
    if lacking:
        faults.append(f"{len(lacking)} units came or changed after it (first: {lacking[0]}); decontaminate again")
    elif table_digest(corpus) != proof["table"]["digest"]:
        faults.append("the rows of the table are not those that were proved")
    config = DecontaminateConfig.model_validate(proof["config"])
    for stated in proof["registries"]:
        now = check_registry(Corpus.open(stated["uri"]), config, allow_unreadable=True)
        if now.digest != stated["digest"]:
            faults.append(f"registry {stated['uri']!r} was at snapshot {stated['snapshot']}, and holds something else by now")
    return faults
