"""``corpus pack``: a snapshot, a clip set, layers and filters, or plain text, to a shuffled training set with its funnel.

The content follows from (snapshot or text, recipe, tokenizer) alone; ``pipeline.shuffle`` says how, in what memory. What
is under way lies in ``<out>/packing``: an interrupted pack goes on from there, and two at once share the work.
``pack.json`` is written last: without it there is no pack.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow.parquet as pq

from manifests.console import counted, progress, say
from manifests.corpus import Corpus
from manifests.errors import RequestError, StoreError, WorkError
from manifests.ids import digest_json
from manifests.packs import FORMAT_VERSION, Pack
from manifests.recipes import resolved
from manifests.remote import refusal
from manifests.schema import DOCUMENTS
from manifests.snapshots import INGEST, clips_output
from manifests.store import READ_AT_ONCE, Store, json_bytes
from manifests.tombstones import TABLE as TAKEDOWNS
from pipeline.candidates import check_recipe
from pipeline.claims import claim, clean
from pipeline.clip_documents import clip_parts
from pipeline.engines import InlineEngine
from pipeline.facts import LinksTask, Ties, find_links, find_pair_sides, ties_of, unit_groups
from pipeline.leave_out import check_found, named_by_runs
from pipeline.recipe import PackRecipe
from pipeline.shuffle import ShardTask, cut_shards, make_shard
from pipeline.spills import SPILL_BYTES, Part, Spilled, SpillTask, Tally, spill
from pipeline.split_counts import SplitCounts
from pipeline.text_documents import text_files, text_lineage, text_parts
from tokenization.artifact import Tokenizer

Result = TypeVar("Result")
# Runs a function on many items, here or elsewhere, as ``Engine.map`` says.
Map = Callable[[Callable[[Any], Any], Sequence[Any], Callable[[Any], None]], list[Any]]
INLINE = InlineEngine()


@dataclass(frozen=True)
class PackResult:
    """What a pack holds."""

    pack_uri: str
    pack_id: str
    is_new: bool  # False when the same pack was there already
    num_documents: dict[str, int]  # by split
    kinds: dict[str, dict[str, int]]  # of each split its documents by kind
    hours: dict[str, float]
    funnel: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """The result for people."""
        head = f"pack {self.pack_uri} ({self.pack_id[:12]}){'' if self.is_new else ': was there already'}"
        splits = [
            f"  {s}: {counted(n, 'document')}{self._kinds(s)}, {self.hours[s]:.3f} h" for s, n in self.num_documents.items()
        ]
        drops = [
            f"  dropped for {r['reason']}: {counted(r['num'], 'clip')}, {r['hours']:.3f} h"
            for r in self.funnel
            if r["step"] == "dropped"
        ]
        return [head, *splits, *drops]

    def _kinds(self, split: str) -> str:
        found = self.kinds[split]
        return f" ({', '.join(f'{kind} {num}' for kind, num in found.items())})" if len(found) > 1 else ""


def pack(
    source: str | Sequence[str],
    out: str,
    recipe: PackRecipe,
    tokenizer: str | None = None,
    run: Map = INLINE.map,
    *,
    leave_out: Sequence[str] = (),
) -> PackResult:
    """Pack a corpus, or text: .jsonl or .parquet files with ``text``, as files, folders or globs, or .txt.

    ``leave_out``: ``spikes.jsonl`` of runs, whose documents the pack does without. ``run`` says where the parts and shards are made; without it, here, one after the other. Raises RequestError and leaves
    nothing behind when the request is wrong; after any other end the same call goes on.
    """
    sources = [source] if isinstance(source, str) else list(source)
    opened = Tokenizer.open(tokenizer) if tokenizer else None
    try:
        is_corpus = len(sources) == 1 and Store(sources[0]).exists("corpus.json")
    except OSError as error:
        raise refusal(f"source {sources[0]!r}", error) from error
    files = [] if is_corpus else text_files(sources)
    if files:
        if {config.kind for config in recipe.documents} != {"text"}:
            raise RequestError(
                f"recipe {recipe.name!r} makes documents of clips, and {sources[0]!r} is plain text; use the recipe `text`"
            )
        if recipe.filters or recipe.codes_from or recipe.tags_from:
            raise RequestError(f"recipe {recipe.name!r} names layers, and {sources[0]!r} is plain text; use the recipe `text`")
        recipe = _without(recipe, named_by_runs(leave_out, None))
        parts = text_parts(files, recipe, tokenizer)
        if not parts:
            raise RequestError(f"text corpus {sources[0]!r} holds no rows in {len(files)} files; a pack needs some")
        with progress() as bars:
            lineage = text_lineage(files, bars.task("read", sum(file.num_bytes for file in files), "bytes"))
        head, has_funnel = _head(recipe, opened, lineage), bool(recipe.leave_out_named)
        return write_pack(
            out, head, dict, lambda _: parts, recipe, run, has_funnel=has_funnel, check=partial(_check_texts, recipe)
        )
    corpus = Corpus.open(sources[0])
    recipe = _without(recipe, named_by_runs(leave_out, corpus))
    check_recipe(corpus, recipe, tokenizer)
    head = _head(recipe, opened, _corpus_lineage(corpus, recipe))
    return write_pack(
        out,
        head,
        lambda: _ties(corpus, recipe, run).to_json(),
        lambda ties: clip_parts(corpus, recipe, tokenizer, Ties.from_json(ties)),
        recipe,
        run,
        has_funnel=True,
    )


def _check_texts(recipe: PackRecipe, spilled: Sequence[Spilled]) -> None:
    """Raises RequestError where a name was not found: a row of text has one key, and nothing but its name leaves it out."""
    check_found(recipe.leave_out_named, sum(num for part in spilled for (reason, _), num in part.num_rows.items() if reason))


def _without(recipe: PackRecipe, named: Mapping[str, str]) -> PackRecipe:
    """The recipe with more that it leaves out by name; as the rest of it, that decides the pack's id."""
    return recipe.model_copy(update={"leave_out_named": {**named, **recipe.leave_out_named}})


def _corpus_lineage(corpus: Corpus, recipe: PackRecipe) -> dict[str, Any]:
    tables = [*([recipe.speakers_from] if recipe.speakers_from != "source" else []), *recipe.leave_out]
    tables += [TAKEDOWNS] if TAKEDOWNS in corpus.snapshot.tables else []
    return {
        "corpus_id": corpus.corpus_id,
        "snapshot": corpus.snapshot.number,
        "snapshot_digest": digest_json([corpus.snapshot.units, corpus.snapshot.current]),
        "inputs_digest": _inputs_digest(corpus),
        "clip_set": corpus.clip_set,
        "clips_fingerprint": corpus.fingerprint(clips_output(corpus.clip_set)),
        "layers": corpus.layers(),
        **({"tables": {name: corpus.decision_table(name).fingerprint for name in tables}} if tables else {}),
    }


def _inputs_digest(corpus: Corpus) -> str:
    """Changes with the facts that came with any input: units are named by their inputs' keys alone."""
    fingerprint, units = corpus.fingerprint(INGEST), corpus.snapshot.units
    digests = []
    for start in range(0, len(units), READ_AT_ONCE):
        keys = [(INGEST, fingerprint, unit) for unit in units[start : start + READ_AT_ONCE] if corpus.has(INGEST, unit)]
        corpus.tables.load(keys)
        digests += [corpus.commit(*key).objects["inputs"].digest for key in keys]
    return digest_json(digests)


def _ties(corpus: Corpus, recipe: PackRecipe, run: Map) -> Ties:
    """What of the snapshot hangs together. Raises RequestError where licences of equal bytes, or pairs, disagree."""
    place = (corpus.store.uri, corpus.snapshot.number)
    tasks = [LinksTask(*place, units, recipe.speakers_from) for units in unit_groups(corpus)]
    links = [link for found in _each(run, find_links, tasks, "inputs", "parts") for link in found]
    makes_pairs = any(config.kind == "pair" for config in recipe.documents)
    sides = _each(run, find_pair_sides, tasks, "pairs", "parts") if makes_pairs else []
    return ties_of(links, (side for found in sides for side in found))


def _head(recipe: PackRecipe, tokenizer: Tokenizer | None, lineage: dict[str, Any]) -> dict[str, Any]:
    """``pack.json`` without what only the documents tell."""
    head = {
        "format_version": FORMAT_VERSION,
        "sample_rate_hz": recipe.sample_rate_hz,
        "splits": list(recipe.splits),
        "recipe": resolved(recipe),
        "lineage": lineage,
        "tokenizer_id": tokenizer.tokenizer_id if tokenizer else None,
        "vocabulary_hash": tokenizer.vocabulary.layout_hash if tokenizer else None,
        "codec_fingerprint": tokenizer.codec_fingerprint if tokenizer and recipe.codes_from else None,
    }
    # Where it lies and which corpus id it had do not decide the content: equal content, equal id.
    content = {**head, "lineage": {k: v for k, v in lineage.items() if k not in ("corpus_id", "snapshot")}}
    return {**head, "pack_id": digest_json(content)}


def write_pack(
    out: str,
    head: Mapping[str, Any],
    find_ties: Callable[[], dict[str, Any]],
    parts_of: Callable[[dict[str, Any]], Sequence[Part]],
    recipe: PackRecipe,
    run: Map = INLINE.map,
    *,
    has_funnel: bool = False,
    check: Callable[[Sequence[Spilled]], None] | None = None,
    spill_bytes: int = SPILL_BYTES,
) -> PackResult:
    """Write the pack that ``head`` describes, unless it is there; ``parts_of(find_ties())`` are its documents.

    Raises RequestError when ``out`` holds something else, and where ``check`` does of what all parts became.
    """
    store, work, pack_id = Store(out), Store(f"{out.rstrip('/')}/packing"), str(head["pack_id"])
    try:
        found = _standing(store, pack_id)
    except OSError as error:
        raise refusal(f"output {out!r}", error) from error
    if found:
        clean(store, work)
        return found
    ties = claim(store, work, pack_id, find_ties)
    splits = tuple(head["splits"])
    try:
        tasks = [SpillTask(work.uri, pack_id, part, recipe.seed, splits, spill_bytes) for part in parts_of(ties)]
        spilled = _each(run, spill, tasks, "spill", "parts")
        if check:
            check(spilled)
        names = [name for part in spilled for name in part.spills]
        shards = cut_shards(store.uri, work, pack_id, names, splits, recipe.shard_bytes)
        done = set(work.objects("manifest"))
        _each(run, make_shard, [task for task in shards if task.manifest_path not in done], "shards", "shards")
        counts = {s: write_manifest(store, work, s, [t for t in shards if t.split == s], recipe.sample_rate_hz) for s in splits}
        whole = {**head, "counts": counts, "funnel": funnel(spilled) if has_funnel else []}
        is_first = store.create("pack.json", json_bytes(whole))
    except RequestError:  # rows that are wrong stay wrong: what was spilled of them serves nothing
        clean(store, work)
        raise
    except (OSError, StoreError) as error:
        # Whoever finishes first clears away what the others still read.
        if not _standing(store, pack_id):
            raise WorkError(f"the pack at {out!r} was cut off ({error}); run the same command again to go on") from error
        is_first = False
    clean(store, work)
    if not is_first:
        say(f"another run finished the same pack at {out!r} first")
    return _result(out, Pack.open(out).head, is_new=is_first)


def _each(run: Map, function: Callable[[Any], Result], items: Sequence[Any], title: str, unit: str) -> list[Result]:
    with progress() as bars:
        bar = bars.task(title, len(items), unit)
        return run(function, items, lambda _: bar.advance())


def funnel(parts: Iterable[Spilled]) -> list[dict[str, Any]]:
    """How many clips and hours came in, were dropped for each reason, and are in documents. Each clip counts once."""
    rows, samples = Tally(), Tally()
    for part in parts:
        rows += part.num_rows
        samples += part.num_samples

    def row(step: str, reason: str | None, keys: Iterable[tuple[str | None, int]]) -> dict[str, Any]:
        # Whole samples by rate, in one order: the sum must not depend on how the work was cut.
        kept = sorted(keys, key=lambda key: (key[0] or "", key[1]))
        seconds = sum(samples[key] / key[1] for key in kept)
        return {"step": step, "reason": reason, "num": sum(rows[key] for key in kept), "hours": seconds / 3600}

    reasons = sorted({reason for reason, _ in rows if reason is not None})
    drops = [row("dropped", reason, [key for key in rows if key[0] == reason]) for reason in reasons]
    return [row("clips", None, rows), *drops, row("packed", None, [key for key in rows if key[0] is None])]


def write_manifest(store: Store, work: Store, split: str, shards: Sequence[ShardTask], sample_rate_hz: int) -> dict[str, Any]:
    """Write ``manifest/<split>.parquet``, a row group a shard, one in memory at a time; return the split's counts.

    Raises WorkError when something else wrote it.
    """
    counts = SplitCounts()
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        with pq.ParquetWriter(file.name, DOCUMENTS, compression="zstd", write_statistics=True) as writer:
            for shard in shards:
                table = work.read_table(shard.manifest_path)
                writer.write_table(table)
                counts.add(table)
        path = f"manifest/{split}.parquet"
        if not store.create_file(path, file.name) and not store.holds(path, file.name):
            raise WorkError(f"{path!r} at {store.uri!r} was written by something else meanwhile; pack again with another --out")
    return counts.to_json(sample_rate_hz)


def _standing(store: Store, pack_id: str) -> PackResult | None:
    """The pack, when it is there. Raises RequestError when another one is."""
    if not store.exists("pack.json"):
        return None
    there = Pack.open(store.uri)
    if there.pack_id != pack_id:
        raise RequestError(f"{store.uri!r} holds another pack ({there.pack_id[:12]}); choose another --out or remove it")
    return _result(store.uri, there.head, is_new=False)


def _result(out: str, head: Mapping[str, Any], *, is_new: bool) -> PackResult:
    num = {split: int(counts["num_documents"]) for split, counts in head["counts"].items()}
    hours = {split: float(counts["hours"]) for split, counts in head["counts"].items()}
    kinds = {split: dict(counts["kinds"]) for split, counts in head["counts"].items()}
    return PackResult(out, head["pack_id"], is_new, num, kinds, hours, head["funnel"])
