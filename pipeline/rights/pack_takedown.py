"""Takedown in packs: documents are refused by the reader at once, and leave the shards when they are rewritten.

A shard is rewritten under its own name, then its index, then the rows of its split, ``pack.json`` last of all: whoever is
killed does it again from the tars, which say themselves what they hold. Nobody may read the pack meanwhile.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.ids import digest_bytes
from manifests.packs import TAKEN, Pack, TakenDocuments, taken_pack_id, write_taken
from manifests.schema import ID
from manifests.store import Store, json_bytes
from manifests.tars import BLOCK_BYTES, TarWriter
from manifests.tombstones import Cut
from manifests.trained import TrainedCheckpoint
from manifests.turns import clips_of, derived, stored_paths
from pipeline.split_counts import SplitCounts


@dataclass(frozen=True)
class TakenFromPack:
    """What a takedown finds in one pack. ``history`` are the ids that it had and has, each with what was taken of it next."""

    pack_uri: str
    keys: list[str]
    num_before: int  # documents that takedowns took before this one
    history: list[tuple[str, int]]

    def num_trained_on(self, checkpoint: TrainedCheckpoint) -> int | None:
        """Documents of the checkpoint's pack that were taken down; None where it was trained on another pack."""
        ids = [pack_id for pack_id, _ in self.history]
        if checkpoint.pack_id not in ids:
            return None
        return sum(num for _, num in self.history[ids.index(checkpoint.pack_id) :])


def find_documents(pack: Pack, recordings: Collection[bytes], cuts: Mapping[bytes, Sequence[Cut]]) -> dict[str, list[int]]:
    """Key -> the turns that are made of these, of the documents that have some, of all splits; those taken before too.

    A document with one such turn goes whole: without it the others are no conversation.
    """
    found = {}
    touched = pa.array([*recordings, *cuts], ID)
    for split in pack.splits:
        rows = _rows(pack, split)
        ids = derived(rows["turns"], "recording_ids")
        numbers = pc.list_parent_indices(ids).filter(pc.is_in(ids.flatten(), value_set=touched))
        for row in rows.take(numbers.unique()).to_pylist():
            turns = [number for number, turn in enumerate(row["turns"]) if turn["recording_id"] in {*recordings, *cuts}]
            # Of a document that readers refuse nothing is read: a rewriting that was killed may have taken it out.
            if row["key"] not in pack.taken_keys:
                turns = _touched(pack, row, turns, recordings, cuts)
            if turns:
                found[row["key"]] = turns
    return dict(sorted(found.items()))


def _rows(pack: Pack, split: str) -> pa.Table:
    """Of each document what a takedown asks of it."""
    return pack.store.read_table(f"manifest/{split}.parquet", ["key", "shard", *stored_paths("recording_ids")])


def _touched(
    pack: Pack,
    row: Mapping[str, Any],
    turns: Sequence[int],
    recordings: Collection[bytes],
    cuts: Mapping[bytes, Sequence[Cut]],
) -> list[int]:
    """Those of the turns, all of recordings of which something goes, that hold some of it."""
    whole = [number for number in turns if row["turns"][number]["recording_id"] in recordings]
    if len(whole) == len(turns):
        return whole
    told = json.loads(pack.member(row["shard"], f"{row['key']}.json"))["turns"]
    return [number for number in turns if number in whole or _is_cut(told[number], cuts[row["turns"][number]["recording_id"]])]


def _is_cut(turn: Mapping[str, Any], cuts: Sequence[Cut]) -> bool:
    """Whether a span that is gone is in one of the turn's clips, whose places K.json has."""
    places = [(clip["channel"], clip["start_sample"], clip["end_sample"]) for clip in turn["clips"]]
    return any(cut.overlaps(*place) for cut in cuts for place in places)


def audio_digests(pack: Pack, found: Mapping[str, Sequence[int]]) -> Iterator[tuple[bytes, bytes]]:
    """(recording, digest of the bytes) of the audio members of these turns, but for documents that readers refuse already.

    Whoever had them refused has kept their digests, and the shards may hold them no more.
    """
    fresh = pa.array(sorted(found.keys() - pack.taken_keys), pa.string())
    for split in pack.splits:
        rows = _rows(pack, split)
        for row in rows.filter(pc.is_in(rows["key"], value_set=fresh)).to_pylist():
            members = set(pack.members(row["shard"], row["key"]))
            for number in found[row["key"]]:
                if (name := f"{row['key']}.{number}.flac") in members:
                    yield row["turns"][number]["recording_id"], digest_bytes(pack.member(row["shard"], name))


def take_documents(pack: Pack, keys: Collection[str], taken: TakenDocuments, *, is_dry: bool) -> TakenFromPack:
    """Have readers refuse the documents from now on, as ``taken`` says why; those that they refuse already stay as they are."""
    fresh = sorted(set(keys) - pack.taken_keys)
    every = [*pack.taken, *([replace(taken, pack_id=pack.pack_id, keys=fresh)] if fresh else [])]
    if fresh and not is_dry:
        write_taken(pack.store, every)
    rewritten = [(row["pack_id"], row["num_documents"]) for row in pack.head.get("takedowns", ())]
    now = taken_pack_id(pack.head["pack_id"], pack.taken_keys | set(fresh))
    history = [*rewritten, *((row.pack_id, len(row.keys)) for row in every), (now, 0)]
    return TakenFromPack(pack.store.uri, fresh, len(set(keys)) - len(fresh), history)


def rewrite_pack(uri: str) -> int:
    """Take the documents that readers refuse out of shards, indexes and manifests; their number. Run again, it goes on."""
    pack = Pack.open(uri)
    store, counts, clips = pack.store, {}, []
    for split in pack.splits if pack.taken else ():
        path = f"manifest/{split}.parquet"
        rows = store.read_table(path)
        left = pack.without_taken(rows)
        held = SplitCounts()
        held.add(left)
        counts[split] = held.to_json(pack.sample_rate_hz)
        clips.append(clips_of(left["turns"]))
        if left.num_rows < rows.num_rows:
            gone = rows.filter(pc.is_in(rows["key"], value_set=pa.array(sorted(pack.taken_keys), pa.string())))
            places = {shard: _rewrite_shard(store, shard, pack.taken_keys) for shard in gone["shard"].unique().to_pylist()}
            store.replace(path, _manifest_bytes(left, places))
    if pack.taken:
        store.replace("pack.json", json_bytes(_head_without(pack, counts, pa.concat_tables(clips))))
    store.remove(TAKEN)
    return len(pack.taken_keys)


def _head_without(pack: Pack, counts: dict[str, dict[str, Any]], clips: pa.Table) -> dict[str, Any]:
    """``pack.json`` of what is left, ``clips`` among it: another id, its counts, and what each takedown took in numbers."""
    funnel = [dict(row) for row in pack.head["funnel"]]
    for row in [row for row in funnel if row["step"] == "packed"]:
        # A clip of a document that went may be in another one.
        left = clips.group_by("clip_id").aggregate([("num_samples", "min")])
        left_h = (pc.sum(left["num_samples_min"]).as_py() or 0) / pack.sample_rate_hz / 3600
        gone = {"num": row["num"] - left.num_rows, "hours": row["hours"] - left_h}
        row["num"], row["hours"] = left.num_rows, left_h
        funnel.insert(-1, {"step": "dropped", "reason": "taken_down_later", **gone})
    history = [{k: v for k, v in asdict(row).items() if k != "keys"} | {"num_documents": len(row.keys)} for row in pack.taken]
    takedowns = [*pack.head.get("takedowns", ()), *history]
    return {**pack.head, "pack_id": pack.pack_id, "counts": counts, "funnel": funnel, "takedowns": takedowns}


def _manifest_bytes(rows: pa.Table, places: Mapping[str, Mapping[str, Mapping[str, int]]]) -> bytes:
    """The manifest of a split, a row group a shard; ``places`` are those of the documents of shards that were rewritten."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, rows.schema, compression="zstd", write_statistics=True) as writer:
        for shard in rows["shard"].unique().to_pylist():
            own = rows.filter(pc.equal(rows["shard"], shard))
            if shard in places:
                placed = [{**row, **places[shard][row["key"]]} for row in own.to_pylist()]
                own = pa.Table.from_pylist(placed, schema=rows.schema)
            writer.write_table(own)
    return sink.getvalue()


def _rewrite_shard(store: Store, shard: str, gone: Collection[str]) -> dict[str, dict[str, int]]:
    """Write the shard without the documents, and its index; offset and bytes of those that stay. Without any, it is removed."""
    path, writer, places = f"shards/{shard}", TarWriter(), dict[str, dict[str, int]]()
    try:
        whole = io.BytesIO(store.read(path))
    except FileNotFoundError:  # an earlier attempt found nothing that stays
        return places
    with tarfile.open(fileobj=whole, mode="r:") as tar:
        for member in tar:
            key, file = member.name.partition(".")[0], tar.extractfile(member)
            if key in gone or file is None:
                continue
            offset = writer.add(member.name, file.read()).offset - BLOCK_BYTES
            place = places.setdefault(key, {"offset": offset, "num_bytes": 0})
            place["num_bytes"] = writer.num_bytes - place["offset"]
    if not places:
        store.remove(f"{path}.idx")
        store.remove(path)
        return places
    data, index = writer.close()
    store.replace(path, data)
    store.replace(f"{path}.idx", index)
    return places
