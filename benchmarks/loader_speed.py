"""Reading documents of a pack beside plain ``webdataset`` and ``lhotse`` Shar over the same clips, in one run.

    .venv/bin/python -m benchmarks.loader_speed
    .venv/bin/python -m benchmarks.loader_speed --clips 300 --rounds 2

All of ``../shared/speech/read``, in shards of 500 clips, once with audio and once with codes and texts alone. Each loader
gives the same of every clip: its text, its codes (uint16) and, in the packs with audio, its samples (float32), decoded from FLAC by
soundfile. One thread, one process; files are in the cache of the operating system after a first pass that is not
counted; the loaders take turns, and the fastest pass of each counts. ``webdataset`` and ours read the same shards, in the
order of the files; lhotse reads shards of its own with the same clips in the same order.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.speech_pack import Clip, read_clips, write_speech_pack
from manifests.audio import encode_flac
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.packs import Pack

Decoded = tuple[str, np.ndarray, np.ndarray | None]  # text, codes uint16 [frames], audio float32 [S]
Loader = Callable[[str], Iterator[Decoded]]  # of a folder that ``write_all`` has filled
OURS, LIMITS = "stepwell", {"audio, codes, text": 0.95, "codes, text": 2.0}  # times the fastest of the others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=None, help="take so many; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    clips = read_clips(["read"], options.clips)
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(report(compare(clips, options.rounds, folder), len(clips))))


def compare(clips: Sequence[Clip], rounds: int, folder: str) -> dict[str, dict[str, dict[str, float]]]:
    """Of each material and loader the least CPU and wall seconds of a pass. Raises ValueError where loaders differ in what they give."""
    found = {}
    for material in LIMITS:
        at, with_audio = f"{folder}/{material.replace(', ', '-')}", "audio" in material
        write_all(at, clips, with_audio)
        digests = {name: digest(loader(at)) for name, loader in LOADERS.items()}
        if len(set(digests.values())) > 1:
            raise ValueError(f"loaders give different documents: {digests}")
        passes: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
        for _ in range(rounds):
            for name, loader in LOADERS.items():
                passes[name].append(timed(loader(at)))
        found[material] = {
            name: dict(zip(("cpu_s", "wall_s"), map(min, zip(*times, strict=True)), strict=True))
            for name, times in passes.items()
        }
    return found


def digest(documents: Iterator[Decoded]) -> str:
    """Of everything that is decoded, in order."""
    found = hashlib.sha256()
    for text, codes, audio in documents:
        found.update(repr((text, codes.dtype, codes.shape, None if audio is None else (audio.dtype, audio.shape))).encode())
        found.update(codes.tobytes() + (b"" if audio is None else audio.tobytes()))
    return found.hexdigest()


def timed(documents: Iterator[Decoded]) -> tuple[float, float]:
    """CPU and wall seconds of a pass."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    deque(documents, maxlen=0)
    return time.process_time() - cpu_s, time.perf_counter() - wall_s


def report(found: dict[str, dict[str, dict[str, float]]], num_clips: int) -> list[str]:
    """A table, and ours beside the fastest of the others."""
    lines = [f"| {num_clips:,} clips | loader | CPU, µs a clip | clips a CPU second | clips a second |", "|---|---|---|---|---|"]
    ratios = []
    for material, rows in found.items():
        for name, row in rows.items():
            cpu, wall = (num_clips / row[column] for column in ("cpu_s", "wall_s"))
            lines.append(f"| {material} | {name} | {1e6 / cpu:.0f} | {cpu:,.0f} | {wall:,.0f} |")
        others = min(row["cpu_s"] for name, row in rows.items() if name != OURS)
        ratio = others / rows[OURS]["cpu_s"]
        ratios.append(f"{material}: {OURS} / fastest of the others, by CPU {ratio:.2f} (limit {LIMITS[material]:.2f})")
    return [*lines, "", *ratios]


def write_all(folder: str, clips: Sequence[Clip], with_audio: bool) -> None:
    """The clips as a pack, and as Shar."""
    from lhotse import Recording, SupervisionSegment
    from lhotse.cut import MonoCut
    from lhotse.shar import SharWriter

    uri, _ = write_speech_pack(folder, clips, with_audio=with_audio)
    Path(folder, "shar").mkdir()
    fields = {"codes": "numpy"} | ({"recording": "flac"} if with_audio else {})
    pack = Pack.open(uri)
    with SharWriter(f"{folder}/shar", fields, shard_size=500, warn_unused_fields=False) as writer:
        for clip, row in zip(clips, pack.documents("train").to_pylist(), strict=True):
            document, length_s = pack.read(row["shard"], row["key"]), len(clip.audio) / MODEL_RATE_HZ
            text = SupervisionSegment(row["key"], row["key"], 0, length_s, text=document.turns[0].text)
            recording = Recording.from_bytes(flac(document.turns[0].audio), row["key"]) if with_audio else None
            cut = MonoCut(row["key"], 0, length_s, 0, [text], recording=recording)
            writer.write(cut.attach_tensor("codes", document.turns[0].codes))


def flac(audio: Audio | None) -> bytes:
    """Of audio that has 16 bits, with these bits."""
    assert audio is not None
    return encode_flac((audio * 32768.0).astype(np.int16), MODEL_RATE_HZ)


def stepwell(folder: str) -> Iterator[Decoded]:
    """As the trainer reads: document by document, by shard and key."""
    pack = Pack.open(f"{folder}/pack")
    rows = pack.documents("train").select(["shard", "key"]).to_pylist()
    for row in rows:
        (turn,) = pack.read(row["shard"], row["key"]).turns
        assert turn.text is not None
        assert turn.codes is not None
        yield turn.text, turn.codes, turn.audio


def webdataset(folder: str) -> Iterator[Decoded]:
    """Its decoders of JSON and NumPy; FLAC by soundfile, as ours."""
    import webdataset as wds

    def decoded(key: str, data: bytes) -> Any:
        return soundfile.read(io.BytesIO(data), dtype="float32")[0] if key.endswith("flac") else None

    shards = sorted(str(path) for path in Path(folder, "pack", "shards").glob("*.tar"))
    for sample in wds.WebDataset(shards, shardshuffle=False).decode(decoded):
        yield sample["json"]["turns"][0]["text"], sample["0.codes.npy"], sample.get("0.flac")


def shar(folder: str) -> Iterator[Decoded]:
    """As a user of lhotse reads: cut by cut, data loaded from each."""
    from lhotse import CutSet

    for cut in CutSet.from_shar(in_dir=f"{folder}/shar"):
        audio = cut.load_audio()[0] if cut.has_recording else None
        yield cut.supervisions[0].text, cut.load_codes(), audio


LOADERS: dict[str, Loader] = {OURS: stepwell, "webdataset": webdataset, "lhotse Shar": shar}


if __name__ == "__main__":
    main()
