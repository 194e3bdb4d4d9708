"""``corpus pack``: a snapshot, a clip set, layers and filters to a shuffled training set with its funnel.

The content follows from (snapshot, recipe, tokenizer) alone: order by a seeded hash of the clip, splits by a hash of the
speaker. ``pack.json`` is written last: without it there is no pack.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from fsspec.core import url_to_fs

from manifests.audio import AudioReader, resample
from manifests.console import ProgressBar, progress
from manifests.corpus import INGEST, Corpus, clips_output
from manifests.errors import MismatchError, RequestError, WorkError
from manifests.ids import digest_bytes, digest_json
from manifests.packs import FORMAT_VERSION, Pack
from manifests.recipes import resolved
from manifests.store import Store, json_bytes
from pipeline.recipe import FilterConfig, PackRecipe
from pipeline.shards import PackedDocument, write_split
from pipeline.sources import read_jsonl
from pipeline.works import AnnotateWork
from tokenization.artifact import Tokenizer
from tokenization.codes import CodesConfig

TEXT_SUFFIXES = (".jsonl", ".parquet")
# Columns of the clip itself that filters may name.
CLIP_COLUMNS = ("duration_s", "speech_share", "overlap_share")


@dataclass(frozen=True)
class PackResult:
    """What a pack holds."""

    pack_uri: str
    pack_id: str
    is_new: bool  # False when the same pack was there already
    num_documents: dict[str, int]  # by split
    hours: dict[str, float]
    funnel: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """The result for people."""
        head = f"pack {self.pack_uri} ({self.pack_id[:12]}){'' if self.is_new else ': was there already'}"
        splits = [f"  {s}: {n} documents, {self.hours[s]:.3f} h" for s, n in self.num_documents.items()]
        drops = [
            f"  dropped for {r['reason']}: {r['num']} clips, {r['hours']:.3f} h" for r in self.funnel if r["step"] == "dropped"
        ]
        return [head, *splits, *drops]


@dataclass
class _Candidate:
    """One clip on its way into the pack."""

    clip: dict[str, Any]
    text: str | None
    text_source: str | None
    facts: dict[str, Any]
    layers: dict[str, dict[str, Any]]

    @property
    def duration_s(self) -> float:
        return float((self.clip["end_sample"] - self.clip["start_sample"]) / self.clip["sample_rate_hz"])

    @property
    def group(self) -> str:
        """What a split keeps together: the speaker that the source names, else the whole recording."""
        speaker = self.facts.get("speaker_label")
        return f"{self.facts.get('source')}:{speaker}" if speaker else self.clip["recording_id"].hex()

    def value(self, column: str) -> float | None:
        """A filter's column: of a layer, or one of CLIP_COLUMNS."""
        layer, name = column.split(".")
        if layer != "clip":
            value = self.layers[layer].get(name)
            return None if value is None else float(value)
        num_samples = self.clip["end_sample"] - self.clip["start_sample"]
        share = {"speech_share": "speech_samples", "overlap_share": "overlap_samples"}
        return self.duration_s if name == "duration_s" else self.clip[share[name]] / num_samples


def pack(source: str, out: str, recipe: PackRecipe, tokenizer: str | None = None) -> PackResult:
    """Pack a corpus, or a text file (.jsonl or .parquet with a ``text`` column). Raises RequestError before writing."""
    text_tokenizer = Tokenizer.open(tokenizer) if tokenizer else None
    if source.endswith(TEXT_SUFFIXES):
        if recipe.filters or recipe.codes_from or recipe.tags_from:
            raise RequestError(f"recipe {recipe.name!r} names layers, and {source!r} is plain text; use the recipe `text`")
        return _write(out, recipe, text_tokenizer, _text_lineage(source), _text_documents(source, recipe, text_tokenizer), [])
    corpus = Corpus.open(source)
    _check(corpus, recipe, tokenizer)
    candidates = list(_candidates(corpus, recipe))
    kept, funnel = _filter(candidates, recipe)
    kept.sort(key=lambda c: digest_bytes(f"{recipe.seed}:".encode() + c.clip["clip_id"]))
    lineage = {
        "corpus_id": corpus.corpus_id,
        "snapshot": corpus.snapshot.number,
        "snapshot_digest": digest_json([corpus.snapshot.units, corpus.snapshot.current]),
        "clip_set": corpus.clip_set,
        "clips_fingerprint": corpus.fingerprint(clips_output(corpus.clip_set)),
        "layers": corpus.layers(),
    }
    splits: dict[str, list[_Candidate]] = {split: [] for split in recipe.splits}
    for candidate in kept:
        splits[_split_of(candidate.group, recipe)].append(candidate)
    reader = corpus.audio()
    with progress() as bars:
        bar = bars.task("pack", max(1, len(kept)), "documents")
        documents = {s: _clip_documents(group, reader, recipe, text_tokenizer, bar) for s, group in splits.items()}
        return _write(out, recipe, text_tokenizer, lineage, documents, funnel)


def _check(corpus: Corpus, recipe: PackRecipe, tokenizer: str | None) -> None:
    """Everything that the recipe names is there, and the codes are those of the tokenizer."""
    layers = corpus.layers()
    if missing := sorted(recipe.layers - layers.keys()):
        hint = "run `stepwell tokenizer encode` first" if missing == [recipe.codes_from] else "build the corpus with them"
        raise RequestError(f"recipe {recipe.name!r} names layers {missing}; the corpus has {sorted(layers)}, {hint}")
    for config in recipe.filters:
        layer, column = config.column.split(".")
        columns = CLIP_COLUMNS if layer == "clip" else corpus.layer(layer).column_names
        if column not in columns:
            raise RequestError(f"filter column {config.column!r} does not exist; {layer} has {', '.join(columns)}")
    if recipe.codes_from:
        if tokenizer is None:
            raise RequestError(f"recipe {recipe.name!r} packs codes; give the tokenizer that made them with --tokenizer DIR")
        ingest, clips = corpus.fingerprint(INGEST), corpus.fingerprint(clips_output(corpus.clip_set))
        annotator = CodesConfig(kind="codes", tokenizer=tokenizer).build()
        asked = AnnotateWork(recipe.codes_from, annotator, corpus.clip_set, ingest, clips, {}).fingerprint
        if asked != layers[recipe.codes_from]:
            raise MismatchError(
                f"layer {recipe.codes_from!r} was made by another codec than that of {tokenizer!r}; "
                "encode the corpus with this tokenizer first"
            )


def _candidates(corpus: Corpus, recipe: PackRecipe) -> Iterator[_Candidate]:
    """Every clip of the snapshot with its text, the facts of its input and the layers that the recipe names."""
    clips = corpus.clips().to_pylist()
    facts = _facts(corpus)
    layers = {name: corpus.layer(name).to_pylist() for name in sorted(recipe.layers)}
    num_clips: dict[bytes, int] = {}
    for clip in clips:
        num_clips[clip["recording_id"]] = num_clips.get(clip["recording_id"], 0) + 1
    for i, clip in enumerate(clips):
        own = {name: rows[i] for name, rows in layers.items()}
        fact = facts[clip["recording_id"]]
        text, origin = _text(fact, own, recipe, is_whole=num_clips[clip["recording_id"]] == 1)
        yield _Candidate(clip, text, origin, fact, own)


def _facts(corpus: Corpus) -> dict[bytes, dict[str, Any]]:
    """Recording -> facts of its inputs: of each the first that is known, in plan order.

    Raises RequestError where two inputs of the same bytes state different licences: a pack must not choose one.
    """
    facts: dict[bytes, dict[str, Any]] = {}
    for row in corpus.inputs().to_pylist():
        if row["recording_id"] is None:
            continue
        known = facts.setdefault(row["recording_id"], row)
        if known["licence"] and row["licence"] and known["licence"] != row["licence"]:
            raise RequestError(
                f"{known['uri']!r} and {row['uri']!r} hold the same bytes under licences {known['licence']!r} and "
                f"{row['licence']!r}; settle which one holds"
            )
        facts[row["recording_id"]] = {name: known[name] if known[name] is not None else row[name] for name in known}
    return facts


def _text(
    fact: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]], recipe: PackRecipe, *, is_whole: bool
) -> tuple[str | None, str | None]:
    """(text, where it is from). A source's transcript speaks of the whole input: it fits only a recording's single clip."""
    for origin in recipe.text_from:
        text = (fact["text"] if is_whole else None) if origin == "source" else layers[origin].get("text")
        if text and text.strip():
            return text.strip(), origin
    return None, None


def _filter(candidates: list[_Candidate], recipe: PackRecipe) -> tuple[list[_Candidate], list[dict[str, Any]]]:
    """What stays, and the funnel in hours: each clip is dropped once, for the first reason that holds."""
    kept: list[_Candidate] = []
    dropped: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        reason = _drop_reason(candidate, recipe)
        if reason is None:
            kept.append(candidate)
        else:
            dropped.setdefault(reason, []).append(candidate)
    rows = [_funnel_row("clips", None, candidates)]
    rows += [_funnel_row("dropped", reason, group) for reason, group in sorted(dropped.items())]
    return kept, [*rows, _funnel_row("documents", None, kept)]


def _funnel_row(step: str, reason: str | None, group: list[_Candidate]) -> dict[str, Any]:
    return {"step": step, "reason": reason, "num": len(group), "hours": sum(c.duration_s for c in group) / 3600}


def _drop_reason(candidate: _Candidate, recipe: PackRecipe) -> str | None:
    if recipe.require_text and candidate.text is None:
        return "no_text"
    if recipe.codes_from and candidate.layers[recipe.codes_from]["status"] != "ok":
        return f"{recipe.codes_from}.error"
    return next((config.drop_reason for config in recipe.filters if _is_outside(candidate.value(config.column), config)), None)


def _is_outside(value: float | None, config: FilterConfig) -> bool:
    if value is None:
        return config.drop_null
    return (config.min is not None and value < config.min) or (config.max is not None and value > config.max)


def _split_of(group: str, recipe: PackRecipe) -> str:
    """Split of a speaker or recording, by a hash of its name: the same as the corpus grows."""
    point = int.from_bytes(digest_bytes(group.encode())[:8], "big") / 2**64
    edge = 0.0
    for split, share in recipe.splits.items():
        edge += share
        if point < edge:
            return split
    return list(recipe.splits)[-1]


def _clip_documents(
    candidates: Iterable[_Candidate], reader: AudioReader, recipe: PackRecipe, tokenizer: Tokenizer | None, bar: ProgressBar
) -> Iterator[PackedDocument]:
    for candidate in candidates:
        clip = candidate.clip
        rate = clip["sample_rate_hz"]
        audio = codes = None
        if recipe.include_audio:
            stored = reader.read(clip["recording_id"], clip["channel"], rate, clip["start_sample"], clip["end_sample"])
            audio = resample(stored, rate, recipe.sample_rate_hz)
        if recipe.codes_from:
            codes = np.asarray(candidate.layers[recipe.codes_from]["codes"], dtype=np.uint16)
        yield PackedDocument(_clip_row(candidate, audio, codes, tokenizer), _clip_facts(candidate, recipe), audio, codes)
        bar.advance()


def _clip_row(candidate: _Candidate, audio: Any, codes: Any, tokenizer: Tokenizer | None) -> dict[str, Any]:
    has_text = candidate.text is not None
    tasks = {"asr": has_text and audio is not None, "tts": has_text and codes is not None, "text": has_text}
    return {
        "key": candidate.clip["clip_id"].hex(),
        "kind": "clip",
        "tasks": [task for task, can in tasks.items() if can],
        "num_samples": None if audio is None else len(audio),
        "num_codes": None if codes is None else len(codes),
        "num_text_tokens": len(tokenizer.text.encode(candidate.text)) if tokenizer and candidate.text is not None else None,
        "clip_id": candidate.clip["clip_id"],
        "recording_id": candidate.clip["recording_id"],
        "speaker": candidate.group,
        "language": _language(candidate),
        "text": candidate.text,
        "text_source": candidate.text_source,
    }


def _language(candidate: _Candidate) -> str | None:
    """As the source says, else as the model heard that gave the text."""
    heard = candidate.layers.get(candidate.text_source or "", {}).get("language")
    return candidate.facts.get("language") or heard


def _clip_facts(candidate: _Candidate, recipe: PackRecipe) -> dict[str, Any]:
    """K.json: where the clip is from, its text and words, and the layers asked for."""
    clip, fact = candidate.clip, candidate.facts
    keys = ("channel", "sample_rate_hz", "start_sample", "end_sample", "speaker_label", "speech_samples", "overlap_samples")
    words = candidate.layers.get(candidate.text_source or "", {}).get("words")
    tags = {
        name: {k: v for k, v in candidate.layers[name].items() if k not in ("clip_id", "status", "error")}
        for name in recipe.tags_from
    }
    return {
        **{key: clip[key] for key in keys},
        "clip_id": clip["clip_id"].hex(),
        "recording_id": clip["recording_id"].hex(),
        "uri": fact["uri"],
        "source": fact["source"],
        "licence": fact["licence"],
        "speaker": candidate.group,
        "language": _language(candidate),
        "text": candidate.text,
        "text_source": candidate.text_source,
        "words": words,
        "tags": tags,
    }


def _text_lineage(source: str) -> dict[str, Any]:
    fs, path = url_to_fs(source)
    if not fs.exists(path):
        raise RequestError(f"text corpus {source!r} does not exist; give a .jsonl or .parquet file with a `text` column")
    return {"text_digest": digest_bytes(fs.cat_file(path)).hex(), "text_name": posixpath.basename(path)}


def _text_documents(source: str, recipe: PackRecipe, tokenizer: Tokenizer | None) -> dict[str, Iterator[PackedDocument]]:
    """Every row of a text file as a document: order and split by a hash of its number and text."""
    store, name = Store(posixpath.dirname(source) or "."), posixpath.basename(source)
    rows = (
        [row for _, row in read_jsonl(store.read(name), source)]
        if name.endswith(".jsonl")
        else store.read_table(name).to_pylist()
    )
    if not rows or any(not isinstance(row.get("text"), str) for row in rows):
        raise RequestError(f"text corpus {source!r}: {len(rows)} rows, not all with `text`; each row needs one")
    keys = [digest_bytes(f"{number}:{row['text']}".encode()).hex() for number, row in enumerate(rows)]
    shuffled = sorted(zip(keys, rows, strict=True), key=lambda pair: digest_bytes(f"{recipe.seed}:{pair[0]}".encode()))

    def documents(split: str) -> Iterator[PackedDocument]:
        for key, row in shuffled:
            if _split_of(key, recipe) != split:
                continue
            facts = {"text": row["text"], "language": row.get("language"), "text_source": "source"}
            count = len(tokenizer.text.encode(row["text"])) if tokenizer else None
            yield PackedDocument({"key": key, "kind": "text", "tasks": ["text"], "num_text_tokens": count, **facts}, facts)

    return {split: documents(split) for split in recipe.splits}


def _write(
    out: str,
    recipe: PackRecipe,
    tokenizer: Tokenizer | None,
    lineage: dict[str, Any],
    documents: Mapping[str, Iterator[PackedDocument]],
    funnel: list[dict[str, Any]],
) -> PackResult:
    head = {
        "format_version": FORMAT_VERSION,
        "sample_rate_hz": recipe.sample_rate_hz,
        "splits": list(documents),
        "recipe": resolved(recipe),
        "lineage": lineage,
        "tokenizer_id": tokenizer.tokenizer_id if tokenizer else None,
        "vocabulary_hash": tokenizer.vocabulary.layout_hash if tokenizer else None,
        "codec_fingerprint": tokenizer.codec_fingerprint if tokenizer and recipe.codes_from else None,
    }
    # Where it lies and which corpus id it had do not decide the content: equal content, equal id.
    head["pack_id"] = digest_json({**head, "lineage": {k: v for k, v in lineage.items() if k not in ("corpus_id", "snapshot")}})
    store = Store(out)
    if store.exists("pack.json"):
        there = Pack.open(out)
        if there.pack_id != head["pack_id"]:
            raise RequestError(f"{out!r} holds another pack ({there.pack_id[:12]}); choose another --out or remove it")
        return _result(out, there.head, is_new=False)
    store.check_exclusive()
    # Without a head there is no pack: what lies here was left by one that was cut short, and would be read by a glob.
    for path in [*store.objects("shards"), *store.objects("manifest")]:
        store.remove(path)
    counts: dict[str, Any] = {}
    for split, group in documents.items():
        table = write_split(store, split, group, recipe.sample_rate_hz, recipe.shard_bytes)
        counts[split] = _counts(table, recipe.sample_rate_hz)
    head |= {"counts": counts, "funnel": funnel}
    if not store.create("pack.json", json_bytes(head)):
        raise WorkError(f"another run made a pack at {out!r} meanwhile; pack again with another --out")
    return _result(out, head, is_new=True)


def _counts(table: pa.Table, sample_rate_hz: int) -> dict[str, float]:
    samples = sum(n or 0 for n in table["num_samples"].to_pylist())
    codes = sum(n or 0 for n in table["num_codes"].to_pylist())
    tokens = sum(n or 0 for n in table["num_text_tokens"].to_pylist())
    hours = samples / sample_rate_hz / 3600
    return {"num_documents": table.num_rows, "hours": hours, "num_codes": codes, "num_text_tokens": tokens}


def _result(out: str, head: Mapping[str, Any], *, is_new: bool) -> PackResult:
    num = {split: int(counts["num_documents"]) for split, counts in head["counts"].items()}
    hours = {split: float(counts["hours"]) for split, counts in head["counts"].items()}
    return PackResult(out, head["pack_id"], is_new, num, hours, head["funnel"])
