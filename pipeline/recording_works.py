"""Works on whole recordings: ingest, segmenters, and the cutting of clips."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from manifests import ids
from manifests.audio import HEARD_VERSION, AudioReader, HeardAudio
from manifests.commits import Attempt
from manifests.contracts import MODEL_RATE_HZ, ChannelAudio, HeardSpan, ManyChannelSegmenter, Resources, Segmenter
from manifests.errors import ContractError, StepwellError
from manifests.gates import SpanGate
from manifests.lineage import fingerprint
from manifests.schema import CLIPS, FAILURES, INPUTS, QUARANTINE, RECORDINGS, SPANS, table_of
from manifests.snapshots import INGEST, clips_output, spans_output
from manifests.spans import Span, clamp, merge, rescale, total
from manifests.store import Store
from manifests.tars import TarWriter
from manifests.tombstones import Tombstones
from pipeline import clipset, ingest
from pipeline.annotate_work import cut_batches
from pipeline.clipset import ClipSetConfig, cut_clips
from pipeline.ingest import Ingested, StoreConfig
from pipeline.sources import Input
from pipeline.units import Unit
from pipeline.watch import Watch
from pipeline.works import UnitFacts, one_line

BYTES_A_SECOND = 32_000  # of 16-bit audio at 16 kHz: how long an input may take to decode, before its length is known


@dataclass(frozen=True)
class IngestWork:
    """Inputs to stored recordings. Items: the unit's inputs."""

    config: StoreConfig
    takedowns: str | None = None  # path of the table of what must not come in; what is made does not depend on it
    output: ClassVar[str] = INGEST
    reads: ClassVar[Mapping[str, str]] = {}
    part: ClassVar[None] = None
    resources: ClassVar[Resources] = Resources()

    @property
    def fingerprint(self) -> str:
        return fingerprint("ingest", ingest.VERSION, self.config.model_dump(mode="json"))

    def run(self, store: Store, unit: Unit, attempt: Attempt, watch: Watch) -> None:
        with tempfile.TemporaryFile() as file:
            tar, stored = TarWriter(file), dict[bytes, ingest.Stored]()
            tombstones = Tombstones.at(store, self.takedowns)
            results = [self._ingest(i, item, tar, stored, tombstones, watch) for i, item in enumerate(unit.inputs)]
            self._put([result for result in results if result is not None], tar, attempt, watch)

    def _ingest(
        self, i: int, item: Input, tar: TarWriter, stored: dict[bytes, ingest.Stored], tombstones: Tombstones, watch: Watch
    ) -> Ingested | None:
        if i in watch.poison:
            return ingest.poisoned(item, watch.poison[i])
        if not watch.takes(i):
            return None
        with watch.items(i, i + 1, item.num_bytes / BYTES_A_SECOND):
            return ingest.ingest(item, self.config, tar, stored, tombstones)

    def _put(self, results: list[Ingested], tar: TarWriter, attempt: Attempt, watch: Watch) -> None:
        inputs = table_of([result.input_row for result in results], INPUTS)
        recordings = table_of([r.recording_row for r in results if r.recording_row is not None], RECORDINGS)
        quarantine = table_of([row for result in results for row in result.quarantine_rows], QUARANTINE)
        watch.num_rows = inputs.num_rows
        refused = [row["message"] for row in quarantine.to_pylist() if row["outcome"] == "refused"]
        watch.failed(len(refused), refused[0] if refused else None)
        watch.audio_s = sum(row["num_samples"] / row["sample_rate_hz"] for row in recordings.to_pylist())
        if watch.only is not None:
            return
        attempt.put_table("inputs", "inputs", inputs)
        attempt.put_table("recordings", "recordings", recordings)
        attempt.put_table("quarantine", "quarantine", quarantine)
        if tar.members:
            index = tar.finish()
            attempt.put_file("audio", "audio", ".tar", tar.file)
            attempt.put("audio_index", "audio", ".tar.idx", index)


@dataclass(frozen=True)
class SegmentWork:
    """Spans of every heard channel that the gate lets pass. Items: the unit's heard channels, in order."""

    name: str
    segmenter: Segmenter
    ingest_fingerprint: str
    gate: SpanGate | None = None
    gate_fingerprint: str | None = None  # of the spans that the gate reads

    @property
    def part(self) -> Segmenter:
        return self.segmenter

    @property
    def output(self) -> str:
        return spans_output(self.name)

    @property
    def reads(self) -> Mapping[str, str]:
        gate = {spans_output(self.gate.spans): self.gate_fingerprint or ""} if self.gate else {}
        return {INGEST: self.ingest_fingerprint, **gate}

    @property
    def fingerprint(self) -> str:
        gate = {"gate": self.gate.model_dump(mode="json")} if self.gate else {}
        parameters = {"part": self.segmenter.fingerprint(), "heard": HEARD_VERSION, **gate}
        return fingerprint(self.segmenter.name, self.segmenter.version, parameters, reads=self.reads)

    @property
    def resources(self) -> Resources:
        return self.segmenter.resources

    def run(self, store: Store, unit: Unit, attempt: Attempt, watch: Watch) -> None:
        facts = UnitFacts(store, unit, self.reads)
        reader = facts.audio()
        is_open = self._gate(facts)
        rows: list[dict[str, Any]] = []
        failures: dict[int, dict[str, Any]] = {}
        todo: list[_Channel] = []
        for channel in _channels(facts.table(INGEST, "recordings")):
            watch.num_rows += 1
            if not is_open(channel.recording, channel.channel):
                watch.gated_audio_s += channel.duration_s
            elif channel.item in watch.poison:
                reason = watch.poison[channel.item]
                failures[channel.item] = channel.failure(reason, f"took the worker down {reason}")
            elif watch.takes(channel.item):
                todo.append(channel)
        for group in self._groups(todo):
            watch.load(self.segmenter.setup)
            for channel, found in zip(group, self._hear(group, reader, watch), strict=True):
                if isinstance(found, Exception):
                    reason = "out_of_memory" if isinstance(found, MemoryError) else "error"
                    failures[channel.item] = channel.failure(reason, one_line(found))
                else:
                    rows += found
                watch.audio_s += channel.duration_s
        failed = [failures[item] for item in sorted(failures)]
        watch.failed(len(failed), failed[0]["message"] if failed else None)
        if watch.only is not None:
            return
        attempt.put_table("spans", f"{self.output}/{self.fingerprint}", table_of(rows, SPANS))
        attempt.put_table("failures", f"failures/{self.name}/{self.fingerprint}", table_of(failed, FAILURES))

    def _groups(self, channels: Sequence[_Channel]) -> Iterator[Sequence[_Channel]]:
        """Channels that are heard at once, in order: one, but for a segmenter of many."""
        if not isinstance(self.segmenter, ManyChannelSegmenter):
            yield from ([channel] for channel in channels)
            return
        durations_s = np.array([channel.duration_s for channel in channels])
        for start, stop in cut_batches(durations_s, self.resources.batch_audio_s):
            yield channels[start:stop]

    def _hear(self, group: Sequence[_Channel], reader: AudioReader, watch: Watch) -> list[list[dict[str, Any]] | Exception]:
        """SPANS rows of each channel, or what it raised. Where a group raises, its channels run one by one."""
        heard = [channel.heard(reader) for channel in group]
        audio = [ChannelAudio(**channel.place, audio=of) for channel, of in zip(group, heard, strict=True)]
        seconds = sum(channel.duration_s for channel in group)
        try:
            with watch.items(group[0].item, group[-1].item + 1, seconds), watch.model(heard):
                found = self._segment(audio)
            return [_span_rows(spans, of.recording, of.channel) for spans, of in zip(found, group, strict=True)]
        except (StepwellError, OSError):
            raise
        except Exception as error:
            if len(group) > 1:
                return [outcome for channel in group for outcome in self._hear([channel], reader, watch)]
            return [error]

    def _segment(self, channels: Sequence[ChannelAudio]) -> list[list[HeardSpan]]:
        if len(channels) == 1 or not isinstance(self.segmenter, ManyChannelSegmenter):
            return [self.segmenter.segment(channel) for channel in channels]
        found = self.segmenter.segment_many(channels)
        if len(found) != len(channels):
            raise ContractError(
                f"segmenter {self.name!r} returned spans of {len(found)} channels for {len(channels)}; return one list a channel"
            )
        return found

    def _gate(self, facts: UnitFacts) -> Callable[[dict[str, Any], int], bool]:
        """Whether the segmenter hears a recording's channel."""
        if self.gate is None:
            return lambda recording, channel: True
        found = by_channel(facts.table(spans_output(self.gate.spans), "spans"))
        least_s = self.gate.min_total_s

        def is_open(recording: dict[str, Any], channel: int) -> bool:
            spans = merge([span for span, _ in found.get((recording["recording_id"], channel), [])])
            return total(spans) > least_s * recording["sample_rate_hz"]

        return is_open


@dataclass(frozen=True)
class _Channel:
    """A heard channel of the unit: its position, the RECORDINGS row, and the channel's number."""

    item: int
    recording: dict[str, Any]
    channel: int

    @property
    def place(self) -> dict[str, Any]:
        return {"recording_id": self.recording["recording_id"], "channel": self.channel}

    @property
    def duration_s(self) -> float:
        return float(self.recording["num_samples"] / self.recording["sample_rate_hz"])

    def heard(self, reader: AudioReader) -> HeardAudio:
        rate, num_samples = self.recording["sample_rate_hz"], self.recording["num_samples"]
        return HeardAudio(reader, self.recording["recording_id"], self.channel, rate, num_samples)

    def failure(self, reason: str, message: str) -> dict[str, Any]:
        """FAILURES row."""
        return {**self.place, "reason": reason, "message": message}


def _channels(recordings: pa.Table) -> Iterator[_Channel]:
    """The unit's heard channels, in order."""
    heard = ((row, channel) for row in recordings.to_pylist() for channel in row["heard_channels"])
    return (_Channel(i, row, channel) for i, (row, channel) in enumerate(heard))


def _span_rows(found: Iterable[HeardSpan], recording: dict[str, Any], channel: int) -> list[dict[str, Any]]:
    """SPANS rows at the stored rate."""
    rate, num_samples = recording["sample_rate_hz"], recording["num_samples"]
    return [
        {
            "recording_id": recording["recording_id"],
            "channel": channel,
            "sample_rate_hz": rate,
            "start_sample": span.start_sample,
            "end_sample": span.end_sample,
            "speaker_label": heard.speaker_label,
            "speech_prob": heard.speech_prob,
        }
        for heard in found
        for span in clamp([rescale(heard.span, MODEL_RATE_HZ, rate)], num_samples)
    ]


@dataclass(frozen=True)
class ClipWork:
    """The clip set: what the segmenters found, cut into clips."""

    config: ClipSetConfig
    ingest_fingerprint: str
    spans_fingerprints: Mapping[str, str]  # segmenter -> fingerprint
    part: ClassVar[None] = None
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

    def run(self, store: Store, unit: Unit, attempt: Attempt, watch: Watch) -> None:
        facts = UnitFacts(store, unit, self.reads)
        speech = by_channel(facts.table(spans_output(self.config.speech), "spans"))
        turns = by_channel(facts.table(spans_output(self.config.turns), "spans")) if self.config.turns else {}
        rows: list[dict[str, Any]] = []
        for recording in facts.table(INGEST, "recordings").to_pylist():
            for channel in recording["heard_channels"]:
                key = (recording["recording_id"], channel)
                rows += self._cut(recording, channel, [span for span, _ in speech.get(key, [])], turns.get(key, []))
            watch.audio_s += recording["num_samples"] / recording["sample_rate_hz"]
        watch.num_rows = len(rows)
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
                "speech_samples": total(clip.speech),
                "overlap_samples": total(clip.overlap),
                "speech_spans": [span._asdict() for span in clip.speech],
                "overlap_spans": [span._asdict() for span in clip.overlap],
            }


def by_channel(spans: pa.Table) -> dict[tuple[bytes, int], list[tuple[Span, str]]]:
    found: dict[tuple[bytes, int], list[tuple[Span, str]]] = {}
    for row in spans.to_pylist():
        span = Span(row["start_sample"], row["end_sample"])
        found.setdefault((row["recording_id"], row["channel"]), []).append((span, row["speaker_label"]))
    return found
