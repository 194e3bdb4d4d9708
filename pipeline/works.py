"""What is done to a unit: one *work* an output. Each reads what earlier works committed and commits its own output.

A work is light to pickle; its model is set up once per process. Works hand on references (commits), never waveforms:
decoding FLAC again costs far less than moving audio between processes.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import ids
from manifests.audio import AudioReader, resample
from manifests.commits import Attempt, read_commit
from manifests.contracts import MODEL_RATE_HZ, Annotator, Audio, ChannelAudio, ClipBatch, Hearing, Resources, Segmenter
from manifests.corpus import INGEST, clips_output, layer_output, spans_output
from manifests.errors import ContractError, StepwellError, WorkError
from manifests.lineage import fingerprint
from manifests.schema import CLIPS, INPUTS, QUARANTINE, RECORDINGS, SPANS, check_table, layer_schema, table_of
from manifests.spans import Span, clamp, rescale
from manifests.store import Store
from manifests.tars import TarWriter
from pipeline import clipset, ingest
from pipeline.clipset import ClipSetConfig, cut_clips
from pipeline.ingest import StoreConfig
from pipeline.units import Unit


@dataclass
class Meter:
    """What one unit of work cost; ``model`` is a context that counts CPU seconds inside the model."""

    audio_s: float = 0.0
    gated_audio_s: float = 0.0
    carried_audio_s: float = 0.0
    num_rows: int = 0
    num_errors: int = 0
    model_cpu_s: float = 0.0
    _began: float = field(default=0.0, repr=False)

    def __enter__(self) -> Meter:
        self._began = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.model_cpu_s += time.process_time() - self._began


class Work(Protocol):
    """One output of a build."""

    @property
    def output(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def reads(self) -> Mapping[str, str]:
        """Output -> fingerprint of everything that it reads."""
        ...

    @property
    def resources(self) -> Resources: ...
    def setup(self) -> None: ...
    def run(self, store: Store, unit: Unit, attempt: Attempt, meter: Meter) -> None:
        """Put the unit's objects into ``attempt``; the caller commits it."""
        ...


def do(work: Work, store: Store, unit: Unit) -> dict[str, Any]:
    """Run a work on a unit, commit, and return its LEDGER row."""
    started_at_s, wall, cpu = time.time(), time.perf_counter(), time.process_time()
    work.setup()
    setup_s = time.perf_counter() - wall
    meter = Meter()
    attempt = Attempt(store, work.output, work.fingerprint, unit.unit_id, dict(work.reads))
    try:
        work.run(store, unit, attempt, meter)
    except BaseException:
        attempt.discard()
        raise
    num_bytes = sum(fact.num_bytes for fact in attempt.objects.values())
    attempt.commit()
    return {
        "part": work.output,
        "unit": unit.unit_id,
        "audio_s": meter.audio_s,
        "gated_audio_s": meter.gated_audio_s,
        "carried_audio_s": meter.carried_audio_s,
        "started_at_s": started_at_s,
        "wall_s": (wall_s := time.perf_counter() - wall),
        "cpu_s": time.process_time() - cpu,
        "gpu_s": wall_s * work.resources.num_gpus,
        "setup_s": setup_s,
        "model_cpu_s": meter.model_cpu_s,
        "num_rows": meter.num_rows,
        "num_errors": meter.num_errors,
        "num_bytes": num_bytes,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
    }


@dataclass(frozen=True)
class IngestWork:
    """Inputs to stored recordings."""

    config: StoreConfig
    output: ClassVar[str] = INGEST
    reads: ClassVar[Mapping[str, str]] = {}
    resources: ClassVar[Resources] = Resources()

    @property
    def fingerprint(self) -> str:
        return fingerprint("ingest", ingest.VERSION, self.config.model_dump(mode="json"))

    def setup(self) -> None:
        """Nothing to load."""

    def run(self, store: Store, unit: Unit, attempt: Attempt, meter: Meter) -> None:
        tar, stored = TarWriter(), dict[bytes, str | None]()
        results = [ingest.ingest(item, self.config, tar, stored) for item in unit.inputs]
        inputs = table_of([result.input_row for result in results], INPUTS)
        recordings = table_of([r.recording_row for r in results if r.recording_row is not None], RECORDINGS)
        quarantine = table_of([row for result in results for row in result.quarantine_rows], QUARANTINE)
        attempt.put_table("inputs", "inputs", inputs)
        attempt.put_table("recordings", "recordings", recordings)
        attempt.put_table("quarantine", "quarantine", quarantine)
        if tar.members:
            data, index = tar.close()
            attempt.put("audio", "audio", ".tar", data)
            attempt.put("audio_index", "audio", ".tar.idx", index)
        meter.num_rows, meter.num_errors = inputs.num_rows, pc.sum(pc.equal(inputs["outcome"], "refused")).as_py() or 0
        meter.audio_s = sum(row["num_samples"] / row["sample_rate_hz"] for row in recordings.to_pylist())


@dataclass(frozen=True)
class SegmentWork:
    """Spans of every heard channel. With ``only_where``, channels in which that segmenter found nothing are left out."""

    name: str
    segmenter: Segmenter
    ingest_fingerprint: str
    only_where: str | None = None
    only_where_fingerprint: str | None = None

    @property
    def output(self) -> str:
        return spans_output(self.name)

    @property
    def reads(self) -> Mapping[str, str]:
        gate = {spans_output(self.only_where): self.only_where_fingerprint or ""} if self.only_where else {}
        return {INGEST: self.ingest_fingerprint, **gate}

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.segmenter.name, self.segmenter.version, {"part": self.segmenter.fingerprint()}, reads=self.reads)

    @property
    def resources(self) -> Resources:
        return self.segmenter.resources

    def setup(self) -> None:
        self.segmenter.setup()

    def run(self, store: Store, unit: Unit, attempt: Attempt, meter: Meter) -> None:
        facts = _UnitFacts(store, unit, self.reads)
        audio = facts.audio()
        wanted = None
        if self.only_where:
            found = facts.table(spans_output(self.only_where), "spans")
            wanted = set(zip(found["recording_id"].to_pylist(), found["channel"].to_pylist(), strict=True))
        rows: list[dict[str, Any]] = []
        for recording in facts.table(INGEST, "recordings").to_pylist():
            for channel in recording["heard_channels"]:
                if wanted is None or (recording["recording_id"], channel) in wanted:
                    rows += self._segment(recording, channel, audio, meter)
        meter.num_rows = len(rows)
        attempt.put_table("spans", self.output + "/" + self.fingerprint, table_of(rows, SPANS))

    def _segment(self, recording: dict[str, Any], channel: int, audio: AudioReader, meter: Meter) -> list[dict[str, Any]]:
        rate, num_samples = recording["sample_rate_hz"], recording["num_samples"]
        stored = audio.read(recording["recording_id"], channel, rate, 0, num_samples)
        heard = ChannelAudio(recording["recording_id"], channel, resample(stored, rate, MODEL_RATE_HZ))
        with meter:
            spans = self.segmenter.segment(heard)
        meter.audio_s += num_samples / rate
        rows = []
        for found in spans:
            for span in clamp([rescale(found.span, MODEL_RATE_HZ, rate)], num_samples):
                rows.append(
                    {
                        "recording_id": recording["recording_id"],
                        "channel": channel,
                        "sample_rate_hz": rate,
                        "start_sample": span.start_sample,
                        "end_sample": span.end_sample,
                        "speaker_label": found.speaker_label,
                        "speech_prob": found.speech_prob,
                    }
                )
        return rows


@dataclass(frozen=True)
class ClipWork:
    """The clip set: what the segmenters found, cut into clips."""

    config: ClipSetConfig
    ingest_fingerprint: str
    spans_fingerprints: Mapping[str, str]  # segmenter -> fingerprint
    resources: ClassVar[Resources] = Resources()

    @property
    def clip_set(self) -> str:
        """Its name and what it was cut by: another VAD or bound is another clip set beside this one."""
        return f"{self.config.name}-{self.fingerprint[:8]}"

    @property
    def output(self) -> str:
        return clips_output(self.clip_set)

    @property
    def reads(self) -> Mapping[str, str]:
        used = {spans_output(name): self.spans_fingerprints[name] for name in (self.config.speech, self.config.turns) if name}
        return {INGEST: self.ingest_fingerprint, **used}

    @property
    def fingerprint(self) -> str:
        return fingerprint("clips", clipset.VERSION, self.config.model_dump(mode="json"), reads=self.reads)

    def setup(self) -> None:
        """Nothing to load."""

    def run(self, store: Store, unit: Unit, attempt: Attempt, meter: Meter) -> None:
        facts = _UnitFacts(store, unit, self.reads)
        speech = _by_channel(facts.table(spans_output(self.config.speech), "spans"))
        turns = _by_channel(facts.table(spans_output(self.config.turns), "spans")) if self.config.turns else {}
        rows: list[dict[str, Any]] = []
        for recording in facts.table(INGEST, "recordings").to_pylist():
            for channel in recording["heard_channels"]:
                key = (recording["recording_id"], channel)
                rows += self._cut(recording, channel, [span for span, _ in speech.get(key, [])], turns.get(key, []))
            meter.audio_s += recording["num_samples"] / recording["sample_rate_hz"]
        meter.num_rows = len(rows)
        attempt.put_table("clips", self.output, table_of(rows, CLIPS))

    def _cut(
        self, recording: dict[str, Any], channel: int, speech: list[Span], turns: list[tuple[Span, str]]
    ) -> Iterator[dict[str, Any]]:
        rate = recording["sample_rate_hz"]
        for clip in cut_clips(speech, turns, recording["num_samples"], rate, self.config):
            place = (recording["recording_id"], channel, rate, clip.span.start_sample, clip.span.end_sample)
            names = ("recording_id", "channel", "sample_rate_hz", "start_sample", "end_sample")
            yield {
                "clip_id": ids.clip_id(*place),
                **dict(zip(names, place, strict=True)),
                "speaker_label": clip.speaker_label,
                "speech_samples": clip.speech_samples,
                "overlap_samples": clip.overlap_samples,
            }


@dataclass(frozen=True)
class AnnotateWork:
    """One layer: the annotator's columns for every clip of the unit, in the order of the clip part."""

    name: str
    annotator: Annotator
    clip_set: str
    ingest_fingerprint: str
    clips_fingerprint: str
    layer_fingerprints: Mapping[str, str]  # of the layers that it reads

    @property
    def output(self) -> str:
        return layer_output(self.clip_set, self.name)

    @property
    def reads(self) -> Mapping[str, str]:
        layers = {layer_output(self.clip_set, name): f for name, f in self.layer_fingerprints.items()}
        return {INGEST: self.ingest_fingerprint, clips_output(self.clip_set): self.clips_fingerprint, **layers}

    @property
    def fingerprint(self) -> str:
        # Without the clip set: a layer row depends on its clip alone, so unchanged clips can carry it over.
        reads = {"audio": self.ingest_fingerprint, **self.layer_fingerprints}
        return fingerprint(self.annotator.name, self.annotator.version, {"part": self.annotator.fingerprint()}, reads=reads)

    @property
    def resources(self) -> Resources:
        return self.annotator.resources

    def setup(self) -> None:
        self.annotator.setup()

    def run(self, store: Store, unit: Unit, attempt: Attempt, meter: Meter) -> None:
        facts = _UnitFacts(store, unit, self.reads)
        clips = facts.table(clips_output(self.clip_set), "clips")
        layers = {name: facts.table(layer_output(self.clip_set, name), "layer") for name in self.annotator.reads}
        schema = layer_schema(self.annotator.adds)
        reader = None if self.annotator.hears is Hearing.NOTHING else facts.audio()
        parts = [schema.empty_table()]
        for start, length in batches(clips, self.resources.batch_audio_s):
            rows = clips.slice(start, length)
            audio, rates = self._hear(rows, reader)
            batch = ClipBatch(rows, audio, rates, {name: table.slice(start, length) for name, table in layers.items()})
            with meter:
                parts.append(self._annotate(batch, schema))
        table = pa.concat_tables(parts)
        meter.num_rows = table.num_rows
        meter.num_errors = pc.sum(pc.equal(table["status"], "error")).as_py() or 0
        meter.audio_s = float(sum(_durations_s(clips)))
        attempt.put_table("layer", self.output + "/" + self.fingerprint, table)

    def _hear(self, rows: pa.Table, reader: AudioReader | None) -> tuple[list[Audio], list[int]]:
        if reader is None:
            return [], []
        audio, rates = [], []
        for row in rows.to_pylist():
            rate = row["sample_rate_hz"]
            heard = reader.read(row["recording_id"], row["channel"], rate, row["start_sample"], row["end_sample"])
            to_rate = rate if self.annotator.hears is Hearing.NATIVE else MODEL_RATE_HZ
            audio.append(resample(heard, rate, to_rate))
            rates.append(to_rate)
        return audio, rates

    def _annotate(self, batch: ClipBatch, schema: pa.Schema) -> pa.Table:
        """A batch's rows; where the annotator raises, its clips run one by one and the one that fails is an error row."""
        try:
            return self._checked(self.annotator.annotate(batch), batch, schema)
        except (StepwellError, MemoryError):
            raise
        except Exception as error:
            if len(batch) > 1:
                return pa.concat_tables([self._annotate(batch.slice(i, 1), schema) for i in range(len(batch))])
            clip = batch.clips["clip_id"][0].as_py()
            message = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            return table_of([{"clip_id": clip, "status": "error", "error": message}], schema)

    def _checked(self, table: pa.Table, batch: ClipBatch, schema: pa.Schema) -> pa.Table:
        what = f"layer {self.name!r} ({self.annotator.name})"
        table = check_table(table, schema, what)
        if not table["clip_id"].combine_chunks().equals(batch.clips["clip_id"].combine_chunks()):
            raise ContractError(f"{what}: rows are not those of the batch, in order; return one row a clip")
        return table


class _UnitFacts:
    """What earlier works committed of one unit."""

    def __init__(self, store: Store, unit: Unit, reads: Mapping[str, str]) -> None:
        self._store, self._unit, self._reads = store, unit, reads

    def _commit(self, output: str) -> Any:
        found = read_commit(self._store, output, self._reads[output], self._unit.unit_id)
        if found is None:
            raise WorkError(
                f"unit {self._unit.unit_id}: {output!r} is not committed yet; works run in the order of what they read"
            )
        return found

    def table(self, output: str, role: str) -> pa.Table:
        return self._store.read_table(self._commit(output).objects[role].path)

    def audio(self) -> AudioReader:
        objects = self._commit(INGEST).objects
        return AudioReader(self._store, [objects["audio"].path] if "audio" in objects else [])


def _by_channel(spans: pa.Table) -> dict[tuple[bytes, int], list[tuple[Span, str]]]:
    found: dict[tuple[bytes, int], list[tuple[Span, str]]] = {}
    for row in spans.to_pylist():
        span = Span(row["start_sample"], row["end_sample"])
        found.setdefault((row["recording_id"], row["channel"]), []).append((span, row["speaker_label"]))
    return found


def _durations_s(clips: pa.Table) -> np.ndarray:
    lengths = np.asarray(clips["end_sample"]) - np.asarray(clips["start_sample"])
    return lengths / np.maximum(1, np.asarray(clips["sample_rate_hz"]))


def batches(clips: pa.Table, batch_audio_s: float) -> Iterator[tuple[int, int]]:
    """(start, length) of runs of clips with at most ``batch_audio_s`` of audio, at least one clip each, in row order."""
    start, held = 0, 0.0
    for i, duration_s in enumerate(_durations_s(clips)):
        if i > start and held + duration_s > batch_audio_s:
            yield start, i - start
            start, held = i, 0.0
        held += float(duration_s)
    if clips.num_rows > start:
        yield start, clips.num_rows - start
