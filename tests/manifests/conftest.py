"""A tiny corpus and a tiny pack, written with the same commits that the pipeline writes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from manifests.audio import PIECE_S, encode_flac, piece_name
from manifests.commits import Attempt
from manifests.ids import clip_id, digest_bytes, input_id, recording_id
from manifests.packs import FORMAT_VERSION as PACK_FORMAT
from manifests.schema import (
    CLIPS,
    DOCUMENTS,
    FAILURES,
    INPUTS,
    LEDGER,
    QUARANTINE,
    RECORDINGS,
    SPANS,
    field,
    layer_schema,
    table_of,
)
from manifests.snapshots import FORMAT_VERSION, INGEST, Snapshot, clips_output, layer_output, publish_snapshot, spans_output
from manifests.store import Store, json_bytes, table_bytes
from manifests.tars import TarWriter

RATE_HZ = 8_000
LONG_S = 130  # three pieces
RTTM = """SPEAKER talk 1 1.000 4.000 <NA> <NA> ada <NA> <NA>
SPEAKER talk 1 6.000 4.000 <NA> <NA> bob <NA> <NA>
SPEAKER talk 1 70.000 10.000 <NA> <NA> ada <NA> <NA>
"""
STM = """;; comment
talk 1 ada 1.00 5.00 Hello there.
talk 1 bob 6.00 10.00 <NA> Well, hello!
talk 1 ada 70.00 80.00 How do you do?
"""
# What "diarization" says: the first turn ends 1 s early (missed), the third is given to the wrong speaker.
TURNS = [(1.0, 4.0, "A"), (6.0, 10.0, "B"), (70.0, 80.0, "B")]
LAYERS: dict[str, pa.Schema] = {
    "asr": pa.schema([field("text", pa.string(), "words"), field("confidence", pa.float32(), "0 to 1")]),
    "dnsmos": pa.schema([field(f"dnsmos_{part}", pa.float32(), "1 to 5") for part in ("sig", "bak", "ovrl", "p808")]),
    "signal": pa.schema([field("snr_db", pa.float32(), "dB"), field("clipped_ratio", pa.float32(), "0 to 1")]),
    "style": pa.schema([field(f"{part}_level", pa.string(), "tag") for part in ("pitch", "rate", "loudness")]),
}


def recording_bytes(name: str) -> bytes:
    """Stands for the bytes of the acquired file; ids are made of it."""
    return recording_id(digest_bytes(name.encode()))


def long_audio() -> np.ndarray:
    """Float32 ``[LONG_S * RATE_HZ]`` with a value of its own at every sample of any 4 s."""
    return ((np.arange(LONG_S * RATE_HZ) % 32_000) / 32_768).astype(np.float32)


class CorpusBuilder:
    """Writes units of a corpus one by one, then the snapshot that names them."""

    def __init__(self, uri: str, inputs_folder: Path) -> None:
        self.store, self.folder = Store(uri), inputs_folder
        self.outputs: dict[str, dict[str, list[str]]] = {}
        self.units: list[str] = []
        self.store.write(
            "corpus.json", json_bytes({"format_version": FORMAT_VERSION, "corpus_id": "c0", "sample_rate": "native"})
        )

    def unit(
        self,
        name: str,
        audio: dict[str, np.ndarray],
        inputs: list[dict[str, Any]],
        turns: dict[str, list[tuple[float, float, str]]],
        layers: Callable[[str, int], list[dict[str, Any]]],
        refused: list[dict[str, Any]] = [],  # noqa: B006 (never changed)
    ) -> None:
        """One unit: recordings by name at RATE_HZ, a clip for each turn, ``layers(name, clips)`` rows of each layer."""
        self.units.append(name)
        ingest = self._attempt(INGEST, name)
        ingest.put_table("inputs", "inputs", table_of(inputs, INPUTS))
        ingest.put_table("recordings", "recordings", table_of([self._recording(n, a) for n, a in audio.items()], RECORDINGS))
        ingest.put_table("quarantine", "quarantine", table_of(refused, QUARANTINE))
        self._put_audio(ingest, audio)
        ingest.commit()
        spans = [
            {**self._place(recording, start, end), "speaker_label": label}
            for recording, found in turns.items()
            for start, end, label in found
        ]
        for segmenter in ("vad", "diarization"):
            rows = spans if segmenter == "diarization" else [{**row, "speaker_label": None} for row in spans]
            self._commit_tables(spans_output(segmenter), name, spans=table_of(rows, SPANS), failures=table_of([], FAILURES))
        clips = [
            {
                **row,
                "clip_id": clip_id(row["recording_id"], 0, RATE_HZ, row["start_sample"], row["end_sample"]),
                "speech_samples": row["end_sample"] - row["start_sample"],
                "overlap_samples": 0,
                "speech_spans": [{"start_sample": 0, "end_sample": row["end_sample"] - row["start_sample"]}],
                "overlap_spans": [],
            }
            for row in spans
        ]
        self._commit_tables(clips_output("turns"), name, clips=table_of(clips, CLIPS))
        for layer, adds in LAYERS.items():
            rows = [
                {"clip_id": clip["clip_id"], "status": "ok", **facts}
                for clip, facts in zip(clips, layers(layer, len(clips)), strict=True)
            ]
            self._commit_tables(layer_output("turns", layer), name, layer=table_of(rows, layer_schema(adds)))

    def publish(self, shadowed: dict[str, list[str]]) -> None:
        current = {output: next(iter(made)) for output, made in self.outputs.items()}
        assert publish_snapshot(self.store, Snapshot(0, self.units, self.outputs, current, "turns", shadowed))

    def _attempt(self, output: str, unit: str) -> Attempt:
        fingerprint = digest_bytes(output.encode()).hex()[:16]
        self.outputs.setdefault(output, {}).setdefault(fingerprint, []).append(unit)
        return Attempt(self.store, output, fingerprint, unit)

    def _commit_tables(self, output: str, unit: str, **tables: pa.Table) -> None:
        attempt = self._attempt(output, unit)
        for role, table in tables.items():
            folder = output.replace("spans/", "failures/") if role == "failures" else output
            attempt.put_table(role, f"{folder}/{attempt.fingerprint}", table)
        assert attempt.commit()

    def _put_audio(self, attempt: Attempt, audio: dict[str, np.ndarray]) -> None:
        tar = TarWriter()
        for name, samples in audio.items():
            step = PIECE_S * RATE_HZ
            for piece, start in enumerate(range(0, len(samples), step)):
                data = encode_flac(samples[start : start + step], RATE_HZ)
                tar.add(piece_name(recording_bytes(name), 0, piece), data)
        data, index = tar.close()
        attempt.put("audio", "audio", ".tar", data)
        attempt.put("audio_index", "audio", ".tar.idx", index)

    @staticmethod
    def _place(recording: str, start_s: float, end_s: float) -> dict[str, Any]:
        return {
            "recording_id": recording_bytes(recording),
            "channel": 0,
            "sample_rate_hz": RATE_HZ,
            "start_sample": round(start_s * RATE_HZ),
            "end_sample": round(end_s * RATE_HZ),
        }

    @staticmethod
    def _recording(name: str, audio: np.ndarray) -> dict[str, Any]:
        return {
            "recording_id": recording_bytes(name),
            "num_samples": len(audio),
            "sample_rate_hz": RATE_HZ,
            "num_channels": 1,
            "heard_channels": [0],
            "source_sample_rate_hz": RATE_HZ,
            "codec": "pcm_s16le",
            "container": "wav",
            "stored_bits": 16,
            "stored_scale": 1.0,
            "peak": float(np.abs(audio).max(initial=0)),
            "rms_dbfs": -20.0,
            "bandwidth_hz": 8000.0,
            "is_truncated": False,
            "is_interleaved": False,
        }


def input_row(name: str, recording: str | None, **facts: Any) -> dict[str, Any]:
    row = {"uri": f"memory://in/{name}", "num_bytes": 1, "version": "1", "source": "test", "language": "en"}
    row["recording_id"] = None if recording is None else recording_bytes(recording)
    row["outcome"] = "refused" if recording is None else "stored"
    return {**row, "input_id": input_id(row["uri"], 1, "1"), **facts}


def layer_rows(layer: str, num_clips: int) -> list[dict[str, Any]]:
    texts = ["Hello, there", "well jello", "how do you do"]
    rows: dict[str, Callable[[int], dict[str, Any]]] = {
        "asr": lambda i: {"text": texts[i % 3], "confidence": 0.5},
        "dnsmos": lambda i: {f"dnsmos_{part}": 2.0 + i / 2 for part in ("sig", "bak", "ovrl", "p808")},
        "signal": lambda i: {"snr_db": 10.0 + 5 * i, "clipped_ratio": 0.0},
        "style": lambda i: {"pitch_level": ["low", "mid", "high"][i % 3], "rate_level": "normal", "loudness_level": "quiet"},
    }
    return [rows[layer](i) for i in range(num_clips)]


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a corpus of two units; recording ``note`` came with both and belongs to the first."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "talk.rttm").write_text(RTTM)
    (folder / "talk.stm").write_text(STM)
    builder = CorpusBuilder(str(folder / "corpus"), folder)
    tone = np.sin(np.arange(4 * RATE_HZ) / 7).astype(np.float32) / 2
    builder.unit(
        "u0",
        {"talk": long_audio(), "note": tone},
        [
            input_row(
                "talk.wav", "talk", reference_rttm_uri=str(folder / "talk.rttm"), reference_stm_uri=str(folder / "talk.stm")
            ),
            input_row("note.wav", "note", text="Well, hello"),
        ],
        {"talk": TURNS, "note": [(0.5, 2.5, "A")]},
        layer_rows,
    )
    bad = input_row("bad.wav", None)
    quarantine = {"input_id": bad["input_id"], "uri": bad["uri"], "stage": "probe", "reason": "not_audio", "message": "not audio"}
    builder.unit(
        "u1",
        {"other": tone / 2},
        [
            input_row("copy-of-note.wav", "note", text="Well, hello"),
            input_row("other.wav", "other", language="zh", text="你好"),
            bad,
        ],
        {"note": [(0.5, 2.5, "A")], "other": [(0.0, 1.0, "A"), (2.0, 3.5, "B")]},
        layer_rows,
        [{**quarantine, "outcome": "refused"}],
    )
    builder.publish({"u1": [recording_bytes("note").hex()]})
    ledger = {"unit": "u0", "audio_s": 134.0, "wall_s": 2.0, "cpu_s": 1.5, "model_cpu_s": 1.0, "num_rows": 4}
    ledger |= dict.fromkeys(("gated_audio_s", "carried_audio_s", "started_at_s", "gpu_s", "setup_s"), 0.0)
    ledger |= {"peak_rss_bytes": 200 << 20, "worker": "here:1"}
    ledger |= {"num_errors": 0, "num_bytes": 1000}
    rows = [{"part": part, **ledger} for part in ("ingest", "spans/vad", "layers/turns/asr")]
    builder.store.write("runs/r0/ledger.parquet", table_bytes(table_of(rows, LEDGER)))
    return builder.store.uri


def told_of(text: str) -> bytes:
    """K.json of a document of one turn."""
    return json_bytes({"kind": "clip", "relation": None, "turns": [{"text": text}]})


@pytest.fixture
def tiny_pack(tmp_path: Path) -> str:
    """URI of a pack of one spoken and one text document."""
    store = Store(str(tmp_path / "pack"))
    tar, rows = TarWriter(), []
    audio, codes = (np.arange(1600) / 3200).astype(np.float32), np.arange(3, dtype=np.uint16)
    sink = io.BytesIO()
    np.save(sink, codes)
    for key, members in {
        "d0": {"json": told_of("hello"), "0.flac": encode_flac(audio, 16_000), "0.codes.npy": sink.getvalue()},
        "d1": {"json": told_of("plain")},
    }.items():
        start = tar.num_bytes
        for suffix, data in members.items():
            tar.add(f"{key}.{suffix}", data)
        spoken = "0.flac" in members
        row = {"key": key, "shard": "train-000000.tar", "offset": start, "num_bytes": tar.num_bytes - start}
        row |= {"kind": "clip" if spoken else "text", "tasks": ["asr"] if spoken else ["text"]}
        turn = {"text": "hello", "num_samples": 1600 if spoken else None, "clips": []}
        rows.append({**row, "turns": [turn], "num_samples": turn["num_samples"]})
    data, index = tar.close()
    store.write("shards/train-000000.tar", data)
    store.write("shards/train-000000.tar.idx", index)
    store.write("manifest/train.parquet", table_bytes(table_of(rows, DOCUMENTS)))
    funnel = [
        {"step": "clips", "reason": None, "num": 6, "hours": 0.006},
        {"step": "dropped", "reason": "no_text", "num": 4, "hours": 0.004},
        {"step": "packed", "reason": None, "num": 2, "hours": 0.002},
    ]
    counts = {"train": {"num_documents": 2, "hours": 0.1 / 3600, "num_codes": 3, "num_text_tokens": 4}}
    head = {"format_version": PACK_FORMAT, "pack_id": "p0", "splits": ["train"], "sample_rate_hz": 16_000, "funnel": funnel}
    head |= {"counts": counts, "tokenizer_id": "t0", "vocabulary_hash": "v0", "codec_fingerprint": None}
    store.write("pack.json", json_bytes(head))
    return store.uri
