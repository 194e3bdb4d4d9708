"""The clips of a corpus by number: their place in the order of the snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.console import ProgressBar
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.open_rows import corpus_rows
from manifests.rows import Slice, resolve
from manifests.schema import ID
from manifests.snapshots import INGEST, clips_output, layer_output
from pipeline.copies.frames import FramesWriter

CONTENT = ("pcm_hash", "acoustic_fingerprint")
NO_HASH = bytes(16)


@dataclass
class ClipNumbers:
    """What is kept of every clip: some 50 bytes. Shape legend: N clips."""

    ids: np.ndarray  # V16 [N]
    hashes: np.ndarray  # V16 [N] pcm_hash; NO_HASH where the layer abstained
    rates: np.ndarray  # int32 [N] sample rate that a clip's samples count
    samples: np.ndarray  # int64 [N]
    slices: list[tuple[Slice, int]]  # with the number of the first clip of each

    @property
    def seconds(self) -> np.ndarray:
        """Float64 ``[N]``."""
        return self.samples / np.maximum(1, self.rates)

    def __len__(self) -> int:
        return len(self.ids)


def read_clips(corpus: Corpus, content_layer: str, writer: FramesWriter | None, bar: ProgressBar) -> ClipNumbers:
    """All clips of the corpus, their fingerprints appended to what is written; ``bar`` counts slices."""
    own = ["clip.clip_id", f"{content_layer}.pcm_hash", "clip.sample_rate_hz", "clip.start_sample", "clip.end_sample"]
    fingerprints = [f"{content_layer}.acoustic_fingerprint"] if writer else []
    rows, slices, number = corpus_rows(corpus), list[tuple[Slice, int]](), 0
    parts = [[np.zeros(0, kind)] for kind in ("V16", "V16", np.int32, np.int64)]
    bar.total += len(rows.slices)
    for part in rows.slices:
        table = rows.read(part, [*own, *fingerprints])
        slices.append((part, number))
        number += table.num_rows
        if writer:
            writer.append(table[fingerprints[0]])
        columns = [table[name] for name in own]
        lengths = np.asarray(columns[4]) - np.asarray(columns[3])
        found = (_ids(columns[0]), _ids(columns[1]), np.asarray(columns[2]), lengths)
        for kept, values in zip(parts, found, strict=True):
            kept.append(values)
        bar.advance()
    ids, hashes, rates, samples = (np.concatenate(kept) for kept in parts)
    return ClipNumbers(ids, hashes, rates, samples, slices)


def _ids(column: pa.ChunkedArray) -> np.ndarray:
    """``V16``: the bytes of each, NO_HASH for null."""
    filled = pc.fill_null(column, pa.scalar(NO_HASH, ID)).combine_chunks()
    data = np.frombuffer(filled.buffers()[1] or b"", "V16")
    return data[filled.offset : filled.offset + len(filled)]


def rows_of(
    corpus: Corpus, clips: ClipNumbers, numbers: Sequence[int], columns: Sequence[str]
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """(number, values of the columns) of some clips, in their order; only slices that hold one are read."""
    rows, wanted = corpus_rows(corpus), np.array(sorted(numbers), np.int64)
    if not columns:
        yield from ((number, ()) for number in wanted.tolist())
        return
    edges = [first for _, first in clips.slices] + [len(clips)]
    for place, (part, first) in enumerate(clips.slices):
        chosen = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, edges[place + 1])]
        if len(chosen):
            table = rows.read(part, list(columns)).take(pa.array(chosen - first))
            yield from zip(chosen.tolist(), zip(*(table[name].to_pylist() for name in columns), strict=True), strict=True)


def check_layer(corpus: Corpus, layer: str) -> None:
    """Raises RequestError where the layer of content is not there, lacks units or has other columns."""
    layers = corpus.layers()
    remedy = f"run `stepwell corpus annotate {corpus.store.uri} --layer {layer}` first"
    if layer not in layers:
        raise RequestError(
            f"layer {layer!r} is not in corpus {corpus.store.uri!r}, which has {', '.join(layers) or 'none'}; {remedy}"
        )
    output = layer_output(corpus.clip_set, layer)
    if lacking := sum(not corpus.has(output, unit) for unit in corpus.snapshot.units):
        raise RequestError(f"layer {layer!r} lacks {lacking} of {len(corpus.snapshot.units)} units; {remedy}")
    names = corpus_rows(corpus).schema.names
    if missing := [name for name in CONTENT if corpus.snapshot.units and f"{layer}.{name}" not in names]:
        raise RequestError(f"layer {layer!r} has no column {missing[0]!r}; name one of kind content")


def basis(corpus: Corpus, content_layer: str, columns: Sequence[str]) -> dict[str, str]:
    """``reads`` of a decision table over the clips, their content layer and these columns (full names).

    Maps output, or ``tables/NAME``, -> fingerprint. The language and the speaker of a clip depend on whatever tells them.
    """
    layers = corpus.layers()
    owners = {column.partition(".")[0] for column in columns} | {content_layer}
    owners |= {*layers} if "clip.language" in columns else set()
    owners |= {"speaker_id"} if "clip.speaker" in columns else set()
    clips = clips_output(corpus.clip_set)
    return {
        INGEST: corpus.fingerprint(INGEST),
        clips: corpus.fingerprint(clips),
        **{layer_output(corpus.clip_set, name): mark for name, mark in layers.items() if name in owners},
        **table_marks(corpus, sorted(owners & {*corpus.snapshot.tables})),
    }


def table_marks(corpus: Corpus, names: Sequence[str]) -> dict[str, str]:
    """``tables/NAME`` -> fingerprint of decision tables, "none" where there is none."""
    there = corpus.snapshot.tables
    return {f"tables/{name}": corpus.decision_table(name).fingerprint if name in there else "none" for name in names}


def full_names(corpus: Corpus, columns: Sequence[str]) -> list[str]:
    """Columns by their full names. Raises RequestError for one that is not there."""
    rows = corpus_rows(corpus)
    return [resolve(rows, name) for name in columns]


def full_text_names(corpus: Corpus, columns: Sequence[str]) -> list[str]:
    """``full_names`` of columns of texts, each once. Raises RequestError for one that holds something else, too."""
    names, schema = list(dict.fromkeys(full_names(corpus, columns))), corpus_rows(corpus).schema
    for name in names:
        if not pa.types.is_string(kind := schema.field(name).type):
            raise RequestError(f"column {name!r} holds {kind} and no texts; name one that does, e.g. input.text or asr.text")
    return names
