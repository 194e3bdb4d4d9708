"""``manifest lineage``: where one thing came from, and where it went.

Back from a clip (or a document of a pack, which has its clip's id) to the recording, its inputs with source and licence, and to what
made each output of its unit: part, models, parameters, run. Forwards from a recording, an input or a source to clips, packs
and the checkpoints that were trained on those. Tables are read slice by slice, only their columns of ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.open_rows import corpus_rows
from manifests.pack_rows import PackRows
from manifests.packs import Pack
from manifests.rows import Rows, Slice
from manifests.schema import ID
from manifests.selection import length_of
from manifests.snapshots import clips_output, layer_output
from manifests.sql_tables import ahead
from manifests.store import Store
from manifests.trained import read_checkpoints

SHOWN = 5
SOURCE = "source:"
ID_CHARS = 32
NOWHERE = Slice(())
# Where a recipe keeps the config of an output, by the first word of the output, in the order in which outputs are made.
CONFIGS = {"ingest": ("store",), "spans": ("segmenters",), "clips": ("clip_set",), "layers": ("annotators", "layers")}
CLIP_FACTS = ("channel", "sample_rate_hz", "start_sample", "end_sample", "speaker_label", "duration_s", "speaker", "language")
RECORDING_FACTS = ("num_samples", "sample_rate_hz", "num_channels", "codec", "container", "source_sample_rate_hz")


def lineage(
    corpus: Corpus, asked: str, packs: Sequence[Pack] = (), runs: Sequence[str] = (), limit: int = SHOWN
) -> dict[str, Any]:
    """All that is known of ``asked``: the id of a clip, a recording or an input (hex), the URI of an input, ``source:NAME``, or the key of
    a document of one of the ``packs``.

    Raises RequestError where the corpus has no such thing.
    """
    place = _found(corpus, asked)
    document = None if place else next((row for pack in packs if (row := _document(pack, asked)) is not None), None)
    if place is None and document is None:
        what = "the id of a clip, a recording or an input, or the key of a document of a pack that was given"
        what = what if _id(asked) else "the URI of an input (ids have 32 hexadecimal digits)"
        raise RequestError(
            f"{asked!r} is not {what} of snapshot {corpus.snapshot.number} of {corpus.store.uri!r}; see `manifest show`"
        )
    kind, key, part = place or ("document", b"", NOWHERE)
    if document is None:
        inputs = _inputs(corpus, kind, key, asked)
        named = [key] if kind == "recording" else [row["recording_id"] for row in inputs]
    else:
        named = document["recording_ids"]
        inputs = [row for recording in dict.fromkeys(named) for row in _inputs(corpus, "recording", recording, asked)]
    recordings = list(dict.fromkeys(recording for recording in named if recording))
    found: dict[str, Any] = {
        "asked": asked,
        "kind": kind,
        "corpus": {"uri": corpus.store.uri, "corpus_id": corpus.corpus_id, "snapshot": corpus.snapshot.number},
        "inputs": {"num": len(inputs), "first": [_told(row) for row in inputs[:limit]]},
        "recordings": {"num": len(recordings), "first": []},
        "clip": None,
        "outputs": [],
    }
    if kind == "clip":
        found["clip"] = _clip(corpus, key, part)
        recordings = [bytes.fromhex(found["clip"]["recording_id"])]
        inputs = _inputs(corpus, "recording", recordings[0], asked)
        found["inputs"] = {"num": len(inputs), "first": [_told(row) for row in inputs[:limit]]}
        found["recordings"]["num"] = 1
    found["recordings"]["first"] = [_recording(corpus, recording) for recording in recordings[:limit]]
    if len(recordings) == 1:
        unit = found["recordings"]["first"][0]["unit"]
        found["outputs"] = list(_outputs(corpus, unit, (found["clip"] or {}).get("statuses", {})))
    column, ids = ("clip_id", [key]) if kind == "clip" else ("recording_id", recordings)
    if document:
        column, ids = "clip_id", document["clip_ids"]
    if found["clip"]:
        found["clips"] = {"num_rows": 1, "hours": found["clip"]["duration_s"] / 3600, "first": [key.hex()]}
    else:
        found["clips"] = _held(corpus_rows(corpus), f"clip.{column}", ids, "clip.clip_id", limit)
    found["packs"] = [told for pack in packs if (told := _in_pack(corpus, pack, f"{column}s", ids, limit))["num_rows"]]
    holders = {told["pack_id"] for told in found["packs"]}
    trained_on = {pack_id for pack in packs if pack.pack_id in holders for pack_id in pack.all_ids}
    found["checkpoints"] = [asdict(made) for run in runs for made in read_checkpoints(run) if made.pack_id in trained_on]
    return found


def packs_below(uri: str) -> list[Pack]:
    """The pack at a URI, or every pack in a folder. Raises RequestError where there is none."""
    store = Store(uri)
    paths = ["pack.json"] if store.exists("pack.json") else [p for p in store.objects("") if p.endswith("/pack.json")]
    if not paths:
        raise RequestError(f"no pack at or below {uri!r} (no pack.json); name a pack, or a folder that holds some")
    return [Pack.open(f"{uri.rstrip('/')}/{path}".removesuffix("/pack.json")) for path in paths]


def _document(pack: Pack, asked: str) -> dict[str, Any] | None:
    """What the document of that key was made from, if it was made from several clips: one of a clip is known as the clip."""
    rows = PackRows(pack)
    part = _place(rows, "key", asked) if _id(asked) else None
    if part is None:
        return None
    table = rows.read(part, ["key", "clip_ids", "recording_ids", "kind"])
    row = table.filter(pc.equal(table["key"], asked)).to_pylist()[0]
    return row if row["kind"] not in ("clip", "text") else None


def _found(corpus: Corpus, asked: str) -> tuple[str, bytes, Slice] | None:
    """(clip | recording | input | source, its id, the slice it is in); nothing but the first of a source, or of a URI.

    None where the corpus has no such thing.
    """
    if asked.startswith(SOURCE):
        return "source", b"", NOWHERE
    key = _id(asked)
    places = {"recording": ("recordings", "recording_id"), "input": ("inputs", "input_id"), "clip": ("clips", "clip.clip_id")}
    if key is not None:
        for kind, (table, column) in places.items():
            if (part := _place(corpus_rows(corpus, table), column, key)) is not None:
                return kind, key, part
    if key is None and _place(corpus_rows(corpus, "inputs"), "uri", asked) is not None:
        return "input", b"", NOWHERE
    return None


def _id(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text) if len(text) == ID_CHARS else None
    except ValueError:
        return None


def _place(rows: Rows, column: str, value: bytes | str | None) -> Slice | None:
    """The slice of the first row that has the value."""
    wanted = pa.scalar(value, rows.schema.field(column).type)
    tables = ahead(lambda part: rows.read(part, [column]), rows.slices)
    for part, table in zip(rows.slices, tables, strict=False):
        if pc.any(pc.equal(table[column], wanted)).as_py():
            return part
    return None


def _inputs(corpus: Corpus, kind: str, key: bytes, asked: str) -> list[dict[str, Any]]:
    """INPUTS rows of a recording, of one input, or of a source; of a clip none, whose recording is not known yet."""
    if kind == "clip":
        return []
    rows = corpus_rows(corpus, "inputs")
    columns = {"recording": ("recording_id", key), "source": ("source", asked.removeprefix(SOURCE))}
    column, value = columns.get(kind, ("input_id", key) if key else ("uri", asked))
    names = rows.schema.names if kind != "source" else ["recording_id", "input_id", "uri", "source", "licence", "outcome"]
    wanted = pa.scalar(value, rows.schema.field(column).type)
    tables = [t.filter(pc.equal(t[column], wanted)) for t in ahead(lambda part: rows.read(part, names), rows.slices)]
    found: list[dict[str, Any]] = [row for table in tables for row in table.to_pylist()]
    if not found:
        raise RequestError(f"no input of snapshot {corpus.snapshot.number} of {corpus.store.uri!r} is of {asked!r}")
    return found


def _clip(corpus: Corpus, key: bytes, part: Slice) -> dict[str, Any]:
    """The clip with its unit, and the status of every layer."""
    rows = corpus_rows(corpus)
    statuses = {name: f"{name}.status" for name in corpus.layers() if f"{name}.status" in rows.schema.names}
    columns = ["clip.clip_id", "clip.recording_id", "clip.unit", *(f"clip.{name}" for name in CLIP_FACTS), *statuses.values()]
    table = rows.read(part, columns)
    row = table.filter(pc.equal(table["clip.clip_id"], pa.scalar(key, ID))).to_pylist()[0]
    facts = {name.removeprefix("clip."): value for name, value in row.items() if name.startswith("clip.")}
    return {**_told(facts), "statuses": {name: row[full] for name, full in statuses.items()}}


def _recording(corpus: Corpus, recording: bytes) -> dict[str, Any]:
    """The recording with the unit that owns it."""
    rows = corpus_rows(corpus, "recordings")
    part = _place(rows, "recording_id", recording)
    if part is None:
        raise RequestError(f"recording {recording.hex()} is hidden in snapshot {corpus.snapshot.number}: it was taken down")
    for unit in part.units:
        table = rows.read(Slice((unit,)), ["recording_id", *RECORDING_FACTS])
        found = table.filter(pc.equal(table["recording_id"], pa.scalar(recording, ID)))
        if found.num_rows:
            return {**_told(found.to_pylist()[0]), "unit": unit}
    raise AssertionError(f"recording {recording.hex()} is in a slice and in none of its units")


def _outputs(corpus: Corpus, unit: str, statuses: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    """What made each output of the unit, in the order in which outputs are made."""
    runs = _runs(corpus.store, unit)
    clips = clips_output(corpus.clip_set)
    prefix = layer_output(corpus.clip_set, "")
    for output in sorted(corpus.snapshot.current, key=_made_in_order):
        is_of_another_clip_set = output.startswith(("clips/", "layers/")) and output != clips and not output.startswith(prefix)
        if is_of_another_clip_set or not corpus.has(output, unit):
            continue
        part = corpus.part(output)
        made = runs.get(output, [])
        yield {
            "output": output,
            "fingerprint": corpus.fingerprint(output),
            "part": None if part is None else {"name": part.name, "version": part.version},
            "models": [] if part is None else [asdict(model) for model in part.models],
            "reads": {} if part is None else dict(part.reads),
            "status": statuses.get(output.removeprefix(prefix)),
            # Of runs that worked on the output under other fingerprints too nothing but the time tells: the newest.
            "run": made[-1] if made else None,
            "num_runs": len(made),
            "parameters": _parameters(corpus.store, made[-1], output) if made else None,
        }


def _made_in_order(output: str) -> tuple[int, str]:
    """Outputs in the order in which they are made; those that this version does not know come last."""
    kinds, kind = list(CONFIGS), output.split("/")[0]
    return (kinds.index(kind) if kind in CONFIGS else len(kinds), output)


def _runs(store: Store, unit: str) -> dict[str, list[str]]:
    """Output -> runs that worked on it in this unit, the oldest first, as their ledgers say."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in store.objects("runs") if path.endswith("/ledger.parquet")):
        with store.open(path) as file:
            table = pq.read_table(file, columns=["part"], filters=[("unit", "=", unit)])
        for part in dict.fromkeys(table["part"].to_pylist()):
            found.setdefault(part, []).append(path.split("/")[1])
    return found


def _parameters(store: Store, run: str, output: str) -> Any:
    """The config of an output in the resolved recipe of a run; None where the recipe is gone or has none."""
    try:
        recipe = json.loads(store.read(f"runs/{run}/recipe.json"))
    except FileNotFoundError:
        return None
    kind, _, name = output.partition("/")
    for key in CONFIGS.get(kind, ()):
        if key in recipe:
            return recipe[key] if kind in ("ingest", "clips") else recipe[key].get(name.rpartition("/")[2])
    return None


def _held(rows: Rows, column: str, ids: Sequence[bytes], name: str, limit: int) -> dict[str, Any]:
    """Rows whose ``column``, an id or a list of them, has one of the ids: how many, their hours, the first by name."""
    wanted = pa.array(list(ids), ID)
    length = length_of(rows)
    columns = list(dict.fromkeys([column, name, *(length.columns if length else ())]))
    num_rows, seconds, first = 0, 0.0, list[str]()
    for table in ahead(lambda part: rows.read(part, columns), rows.slices):
        found = table.filter(_has_one(table[column], wanted))
        num_rows += found.num_rows
        seconds += float(pc.sum(length.seconds(found)).as_py() or 0.0) if length else 0.0
        first += [_text(key) for key in found[name].slice(0, max(0, limit - len(first))).to_pylist()]
    return {"num_rows": num_rows, "hours": seconds / 3600, "first": first}


def _has_one(ids: pa.ChunkedArray, wanted: pa.Array) -> pa.Array | pa.ChunkedArray:
    """Bool a row: whether its id, or one of its list of ids, is wanted."""
    if not pa.types.is_list(ids.type):
        return pc.is_in(ids, value_set=wanted)
    rows = pc.list_parent_indices(ids).filter(pc.is_in(pc.list_flatten(ids), value_set=wanted))
    return pc.is_in(pa.array(range(len(ids)), pa.int64()), value_set=rows.combine_chunks())


def _in_pack(corpus: Corpus, pack: Pack, column: str, ids: Sequence[bytes], limit: int) -> dict[str, Any]:
    """Documents of the pack that were made from what has the ids, by split, and what the pack was made over."""
    splits = {split: _held(PackRows(pack, split), column, ids, "key", limit) for split in pack.splits}
    told = pack.head.get("lineage") or {}
    now = corpus.layers()
    return {
        "uri": pack.store.uri,
        "pack_id": pack.pack_id,
        "snapshot": told.get("snapshot"),
        "is_of_corpus": told.get("corpus_id") == corpus.corpus_id,
        "num_rows": sum(held["num_rows"] for held in splits.values()),
        "hours": sum(held["hours"] for held in splits.values()),
        "splits": {split: held for split, held in splits.items() if held["num_rows"]},
        # Layers that the pack was made from and that were made anew since: name -> fingerprint in the pack.
        "other_layers": {name: mark for name, mark in (told.get("layers") or {}).items() if now.get(name) != mark},
    }


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a row, ids as hex."""
    return {name: _text(value) if isinstance(value, bytes) else value for name, value in row.items() if value is not None}


def _text(key: Any) -> str:
    return key.hex() if isinstance(key, bytes) else str(key)
