"""``manifest export``: rows of a corpus or a pack, part by part, in the format of another library.

``<out>/.stepwell/request.json`` is created first, only if absent, and says what is written there; a part that is done leaves its
counts in ``.stepwell/parts``, and ``contents.json`` is last. The same command goes on where it was interrupted; a folder that holds anything
else is refused. Each CPU has a thread that writes a part; memory holds the facts of their rows, and of the audio what the format gathers.
"""

from __future__ import annotations

import functools
import json
import operator
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from manifests.console import counted, hours, progress
from manifests.errors import RequestError, WorkError
from manifests.export.contents import Contents
from manifests.export.corpus_reader import CorpusReader
from manifests.export.formats import ExportFormat, make_format
from manifests.export.lines import STATE
from manifests.export.pack_reader import PackReader
from manifests.export.row import ExportRow, Part, RowReader
from manifests.fold import num_threads
from manifests.open_rows import open_place
from manifests.packs import Pack
from manifests.remote import refusal
from manifests.store import Store, json_bytes

FORMAT_VERSION = 2  # rises when the same rows would be written otherwise
REQUEST, CONTENTS = f"{STATE}/request.json", f"{STATE}/contents.json"
NOTE_EVERY_S = 2.0  # how old the count of rows behind the bar may be


@dataclass(frozen=True)
class ExportResult:
    """What an export holds."""

    out: str
    format: str
    is_new: bool  # False when the same export was there already
    contents: Contents

    def to_json(self) -> dict[str, Any]:
        licences = [{"licence": licence, **sums} for licence, sums in self.contents.by_licence().items()]
        left_out = {"num_silent": self.contents.num_silent, "num_withheld": self.contents.num_withheld}
        return {"out": self.out, "format": self.format, "splits": self.contents.by_split(), "licences": licences, **left_out}

    def lines(self) -> list[str]:
        """The result for people."""
        head = f"{self.format} at {self.out}{'' if self.is_new else ': was there already'}"
        splits = [f"  {split}: {_sums(sums)}" for split, sums in self.contents.by_split().items()]
        licences = [f"  licence {licence or 'not stated'}: {_sums(sums)}" for licence, sums in self.contents.by_licence().items()]
        reasons = {"without audio": self.contents.num_silent, "consent withheld": self.contents.num_withheld}
        left_out = [f"  left out, {reason}: {counted(num, 'row')}" for reason, num in reasons.items() if num]
        return [head, *splits, *licences, *left_out]


def _sums(sums: dict[str, Any]) -> str:
    return f"{counted(sums['num'], 'row')}, {hours(sums['hours'])}"


def export(
    uri: str,
    format_name: str,
    out: str,
    *,
    splits: Sequence[str] | None = None,
    columns: Sequence[str] = (),
    text_from: Sequence[str] | None = None,
    where: str | None = None,
    snapshot: int | None = None,
    with_audio: bool = True,
) -> ExportResult:
    """Write the rows of what lies at ``uri``. Raises RequestError, and leaves nothing behind, when the request is wrong."""
    made = make_format(format_name, with_audio=with_audio)
    reader = _reader(uri, made, splits, columns, text_from, where, snapshot)
    request = {"format_version": FORMAT_VERSION, "format": format_name, "with_audio": with_audio, "rows": reader.identity}
    store = Store(out)
    try:
        is_done = _claim(store, request)
    except OSError as error:
        raise refusal(f"output {out!r}", error) from error
    if not is_done:
        _write(store, made, reader, with_audio=with_audio)
    contents = Contents.from_json(json.loads(store.read(CONTENTS)))
    return ExportResult(out, format_name, not is_done, contents)


def _reader(
    uri: str,
    made: ExportFormat,
    splits: Sequence[str] | None,
    columns: Sequence[str],
    text_from: Sequence[str] | None,
    where: str | None,
    snapshot: int | None,
) -> RowReader:
    place = open_place(uri, snapshot)
    if isinstance(place, Pack):
        if text_from:
            raise RequestError(f"{uri!r} is a pack: its texts are chosen; leave out --text-from")
        return PackReader(place, splits, columns, where, keeps_documents=made.keeps_documents)
    if splits:
        raise RequestError(f"{uri!r} is no pack and has no splits; leave out --split, or pack the corpus and export that")
    return CorpusReader(place, columns, text_from, where)


def _claim(store: Store, request: dict[str, Any]) -> bool:
    """Take the folder for the request; whether all is there already. Raises RequestError where something else is."""
    if not store.exists(REQUEST):
        if there := store.objects(""):
            raise RequestError(
                f"output {store.uri!r} holds {counted(len(there), 'object')} (e.g. {there[0]!r}) and no export; choose another --out"
            )
        store.check_exclusive()
        store.create(REQUEST, json_bytes(request))
    standing = json.loads(store.read(REQUEST))
    if standing != request:
        differing = sorted(key for key in request if standing.get(key) != request[key])
        raise RequestError(
            f"output {store.uri!r} holds an export of another request ({', '.join(differing)} differ); choose another --out"
        )
    return store.exists(CONTENTS)


def _write(store: Store, made: ExportFormat, reader: RowReader, *, with_audio: bool) -> None:
    parts = reader.parts()
    done = set(store.objects(f"{STATE}/parts"))
    counts = {part: Contents() for part in parts if _counts_path(part) not in done}
    stop = threading.Event()

    def write_part(part: Part) -> None:
        rows = _until(stop, reader.rows(part, with_audio=with_audio))
        made.write(store, part, counts[part].counted(part.split, rows, needs_audio=made.needs_audio), reader.schema)
        store.replace(_counts_path(part), json_bytes(counts[part].to_json()))

    with progress() as bars, ThreadPoolExecutor(num_threads()) as pool:
        bar = bars.task("export", len(counts), "parts")
        pending = {pool.submit(write_part, part) for part in counts}
        try:
            while pending:
                finished, pending = wait(pending, NOTE_EVERY_S, FIRST_COMPLETED)
                for future in finished:
                    future.result()
                num_rows = sum(sum(contents.num_rows.copy().values()) for contents in counts.values())
                bar.advance(len(finished), note=counted(num_rows, "row"))
        except BaseException as error:  # parts that are being written come to their end, but for Ctrl-C
            if not isinstance(error, Exception):
                stop.set()
            for future in pending:
                future.cancel()
            raise
    told = [Contents.from_json(json.loads(data)) for _, data in store.read_all([_counts_path(part) for part in parts])]
    contents = functools.reduce(operator.add, told, Contents())
    made.finish(store, parts, contents)
    store.replace(CONTENTS, json_bytes(contents.to_json()))
    for path in store.objects(f"{STATE}/pieces"):
        store.remove(path)


def _until(stop: threading.Event, rows: Iterable[ExportRow]) -> Iterator[ExportRow]:
    """The rows, until somebody sets ``stop``: Ctrl-C reaches no thread but the first."""
    for row in rows:
        if stop.is_set():
            raise WorkError("the export was interrupted; run the same command to go on")
        yield row


def _counts_path(part: Part) -> str:
    return f"{STATE}/parts/{part.number:06d}.json"
