"""One unit without what was taken down of it, committed under another name.

Every output that the unit ever committed is written again, whichever fingerprint it has; rows that stay are the same, in
the same order. Of a recording that is gone as a whole nothing stays. Where a span is gone, the recording keeps its length:
the span's samples become zeros, in its channel and in those that no model hears (copies of a heard one, as a rule), and
the transcript that came with the source goes.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile

from manifests.audio import PIECE_S, encode_flac
from manifests.commits import Attempt, Commit, commit_path, read_commit
from manifests.errors import WorkError
from manifests.schema import ID, INPUTS
from manifests.snapshots import INGEST, table_roles
from manifests.store import Store
from manifests.tables import UnitTables
from manifests.tars import TarWriter, read_index, read_member
from manifests.tombstones import Cut, Tombstones
from pipeline.units import Unit

Output = tuple[str, str]  # output, fingerprint
INPUT_RECORDINGS = pa.schema([INPUTS.field("input_id"), INPUTS.field("recording_id")])


class UnitRewriting:
    """The outputs of ``old`` written again as ``new``; ``tables`` reads the old ones wherever they lie."""

    def __init__(self, store: Store, tables: UnitTables, tombstones: Tombstones, old: str, new: Unit) -> None:
        self._store, self._tables, self._tombstones, self._old, self._new = store, tables, tombstones, old, new
        self._inputs = {item.input_id for item in new.inputs}
        self._gone_recordings = set(tombstones.recordings)
        self._gone_clips = set[bytes]()

    def run(self, outputs: Iterable[Output]) -> None:
        """Commit the outputs anew. Raises WorkError where a commit is not there, or a table of it."""
        outputs = list(outputs)
        rows = pa.concat_tables([INPUT_RECORDINGS.empty_table(), *committed_inputs(self._tables, outputs, self._old)]).to_pylist()
        kept = {row["recording_id"] for row in rows if row["input_id"] in self._inputs}
        # With an input goes what became of it, also by an earlier way to ingest it.
        self._gone_recordings |= {row["recording_id"] for row in rows} - kept - {None}
        # Clips tell which rows of layers go.
        for output, mark in sorted(outputs, key=lambda key: (key[0].startswith("layers/"), key)):
            commit = self._tables.commit(output, mark, self._old)
            attempt = Attempt(self._store, output, mark, self._new.unit_id, commit.reads)
            try:
                self._put(commit, attempt)
            except BaseException:
                attempt.discard()
                raise
            attempt.commit()

    def _put(self, commit: Commit, attempt: Attempt) -> None:
        for role in table_roles(commit.output):
            table = self._tables.read(commit.output, commit.fingerprint, self._old, role)
            attempt.put_table(role, commit.objects[role].path.rpartition("/")[0], self._left(role, table))
        if "audio" in commit.objects:
            self._put_audio(commit, attempt)

    def _left(self, role: str, table: pa.Table) -> pa.Table:
        """The rows that stay."""
        if role in ("inputs", "quarantine"):
            kept = table.filter(pc.is_in(table["input_id"], value_set=pa.array([*self._inputs], ID)))
            return self._tombstones.unsaid(kept) if role == "inputs" else kept
        if role == "layer":
            return table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=pa.array([*self._gone_clips], ID))))
        kept = table.filter(pc.invert(pc.is_in(table["recording_id"], value_set=pa.array([*self._gone_recordings], ID))))
        if role == "spans":
            return self._tombstones.outside(kept)
        if role == "clips":
            kept = kept.filter(self._tombstones.shown(kept))
            self._gone_clips |= {*table["clip_id"].to_pylist()} - {*kept["clip_id"].to_pylist()}
        return kept

    def _put_audio(self, commit: Commit, attempt: Attempt) -> None:
        columns = ["recording_id", "sample_rate_hz", "num_channels", "heard_channels", "stored_bits"]
        rows = self._tables.read(INGEST, commit.fingerprint, self._old, "recordings", columns).to_pylist()
        recordings = {row["recording_id"].hex(): row for row in rows}
        tar = commit.objects["audio"].path
        with tempfile.TemporaryFile() as file:
            writer = TarWriter(file)
            for member in read_index(self._store, tar):
                name, channel, piece, _ = member.name.split(".")
                identity = bytes.fromhex(name)
                if identity in self._gone_recordings:
                    continue
                data = read_member(self._store, tar, member)
                if identity in self._tombstones.cuts:
                    heard, bits = recordings[name]["heard_channels"], recordings[name]["stored_bits"]
                    cuts = [cut for cut in self._tombstones.cuts[identity] if cut.is_in(int(channel), heard)]
                    data = without_cuts(data, cuts, int(piece), bits)
                writer.add(member.name, data)
            if writer.members:
                index = writer.finish()
                attempt.put_file("audio", "audio", ".tar", writer.file)
                attempt.put("audio_index", "audio", ".tar.idx", index)


def without_cuts(data: bytes, cuts: Iterable[Cut], piece: int, bits: int) -> bytes:
    """The FLAC bytes of a piece with zeros in the cuts; the same bytes where none of them touches it."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16" if bits == 16 else "int32")
    base = piece * PIECE_S * rate
    spans = [(max(0, cut.start_sample - base), min(len(samples), cut.end_sample - base)) for cut in cuts]
    touched = [(start, end) for start, end in spans if start < end]
    if not touched:
        return data
    silenced = np.array(samples)
    for start, end in touched:
        silenced[start:end] = 0
    return encode_flac(silenced, int(rate), bits)


def discard_commit(store: Store, output: str, mark: str, unit: str) -> None:
    """Remove a commit with its objects; no complaint where there is none."""
    commit = read_commit(store, output, mark, unit)
    if commit is None:
        return
    store.remove(commit_path(output, mark, unit))  # first: what it names must not be missing
    for fact in commit.objects.values():
        store.remove(fact.path)


def committed_inputs(tables: UnitTables, outputs: Iterable[Output], unit: str) -> list[pa.Table]:
    """``input_id`` and ``recording_id`` of the unit's inputs, for each way in which it was ingested."""
    try:
        return [
            tables.read(output, mark, unit, "inputs", ["input_id", "recording_id"])
            for output, mark in outputs
            if output == INGEST
        ]
    except WorkError as error:
        raise WorkError(f"{error}; what was taken down stays hidden until then") from error
