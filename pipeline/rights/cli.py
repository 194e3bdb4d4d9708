"""Verbs of rights: ``manifest rights`` and ``manifest takedown``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from manifests.console import answer, counted
from manifests.errors import RequestError

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RIGHTS_EXAMPLE = "Example: stepwell manifest rights ./corpus"
TAKEDOWN_EXAMPLE = (
    'Example: stepwell manifest takedown ./corpus --speaker "Jane Doe" --reason "asked to" --pack ./pack --rewrite --prove'
)


def rights(uri: Annotated[str, typer.Argument(help="URI of the corpus.")], as_json: Json = False) -> None:
    """What may be used: hours by source, licence, consent and what they allow, and the gaps in what sources say."""
    from manifests.corpus import Corpus
    from pipeline.rights.ledger import read_ledger

    found = read_ledger(Corpus.open(uri))
    answer(found.to_json(), as_json, found.lines())


def takedown(
    uri: Annotated[str, typer.Argument(help="URI of the corpus.")],
    recording: Annotated[list[str] | None, typer.Option("--recording", metavar="ID", help="A recording.")] = None,
    clip: Annotated[list[str] | None, typer.Option("--clip", metavar="ID", help="A clip: its span of the recording.")] = None,
    input_id: Annotated[
        list[str] | None, typer.Option("--input", metavar="ID", help="An input, and what its bytes became.")
    ] = None,
    speaker: Annotated[
        list[str] | None,
        typer.Option("--speaker", metavar="NAME_OR_ID", help="speaker_label of inputs (or source:label), or a speaker_id."),
    ] = None,
    source: Annotated[list[str] | None, typer.Option("--source", metavar="NAME", help="A whole source.")] = None,
    uri_pattern: Annotated[
        list[str] | None, typer.Option("--uri-pattern", metavar="GLOB", help="Inputs whose address matches; * takes / too.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept with the tombstones.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take; write nothing.")] = False,
    rewrite: Annotated[
        bool,
        typer.Option(
            "--rewrite", help="Take all that has tombstones off the store, at once; nobody may read or build meanwhile."
        ),
    ] = False,
    pack: Annotated[
        list[str] | None, typer.Option("--pack", metavar="URI", help="A pack made of the corpus; may be repeated.")
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="DIR", help="A training run, whose checkpoints are listed; may be repeated."),
    ] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Read every live object again and write down that nothing is left.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take something out for good: tombstones at once, which readers, packs and ingest heed; on request off the disk, proven.

    With --rewrite or --prove alone it goes on with what has tombstones already. Exit code 1 where a proof finds something.
    """
    from pipeline.rights.matching import Rule

    given = {
        "recording": recording,
        "clip": clip,
        "input": input_id,
        "speaker": speaker,
        "source": source,
        "uri_pattern": uri_pattern,
    }
    rules = [Rule.parse(option, value) for option, values in given.items() for value in values or ()]
    if not rules and not (rewrite or prove):
        raise RequestError("nothing to take down; give --recording, --clip, --input, --speaker, --source or --uri-pattern")
    if rules and not reason:
        raise RequestError("a takedown needs its --reason: it is kept with the tombstones")
    if dry_run and (rewrite or prove):
        raise RequestError("--dry-run writes nothing; leave out --rewrite and --prove")
    from pipeline.rights.takedown import take_down

    done = take_down(uri, rules, reason or "", pack or (), run or (), is_dry=dry_run)
    value, lines = {"takedown": asdict(done)}, done.lines()
    if rewrite:
        from pipeline.rights.pack_takedown import rewrite_pack
        from pipeline.rights.rewriting import rewrite as rewrite_corpus

        rewritten = rewrite_corpus(uri)
        num_documents = {target: rewrite_pack(target) for target in pack or ()}
        value["rewritten"] = {**asdict(rewritten), "num_documents": num_documents}
        lines += rewritten.lines()
        lines += [
            f"pack {target} rewritten: {counted(num, 'document')} out of its shards" for target, num in num_documents.items()
        ]
    num_findings = 0
    if prove:
        from manifests.corpus import Corpus
        from pipeline.rights.proof import prove as write_proof

        proof = write_proof(Corpus.open(uri), pack or [])
        num_findings = proof.num_findings
        value["proof"] = {"path": proof.path, "num_findings": num_findings}
        lines += proof.lines()
    answer(value, as_json, lines)
    if num_findings:
        raise typer.Exit(1)
