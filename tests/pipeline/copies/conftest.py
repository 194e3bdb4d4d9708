"""Speech of two voices with copies of every kind planted among it, as files and as a corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from annotators.espeak_voice import EspeakConfig
from benchmarks.quality.copies import COPIES, encoded
from manifests.audio import resample
from pipeline.build import build
from pipeline.recipe import BuildRecipe

RATE_HZ = 16_000
TEXTS = [
    "A lantern swung above the crooked harbour while the tide crept slowly over the stones.",
    "Nobody in the village remembered who had painted the blue door behind the bakery.",
    "Seven tired geologists argued about the colour of limestone until the lamps went out.",
    "Please forward the invoice to our accounting department before Thursday afternoon.",
    "The orchestra tuned their instruments as snow gathered on the glass roof of the hall.",
    "Her grandmother kept a jar of brass buttons and told a different tale about each one.",
    "Engineers measured the vibration of the bridge every morning throughout the winter.",
    "If the weather holds, we could walk along the ridge and camp near the upper lake.",
    "A curious magpie stole the silver spoon and hid it underneath a pile of autumn leaves.",
    "Most passengers slept quietly while the night train rattled across the frozen plain.",
]
JINGLE = "Buy Doctor Harrison's famous ginger biscuits, now in every station shop and on the ferry."
ENCODED = (("libmp3lame", "mp3", 64_000), ("libopus", "ogg", 24_000))
COPIED = ("gain -12 dB, 16 bits", "resampled to 8 kHz", "trimmed at both ends", "telephone band, mu-law")


@dataclass(frozen=True)
class Planted:
    """What was written into a folder: names are those of the files, without their ends."""

    folder: Path
    manifest: Path
    copies: dict[str, str]  # copy -> what it is a copy of
    exact: dict[str, str]

    @property
    def groups(self) -> set[frozenset[str]]:
        found: dict[str, set[str]] = {}
        for copy, of in {**self.copies, **self.exact}.items():
            found.setdefault(of, {of}).add(copy)
        return {frozenset(group) for group in found.values()}


def speak(text: str, variant: str = "m3", rate_wpm: int = 165) -> np.ndarray:
    """Float32 ``[S]`` at RATE_HZ."""
    speech = EspeakConfig(voice="en-us", variant=variant, rate_wpm=rate_wpm).build().synthesise(text)
    return resample(speech.audio, speech.sample_rate_hz, RATE_HZ)


def plant(folder: Path) -> Planted:
    """Ten texts by one voice and the same by another, a copy or two of six of them, and a jingle in two recordings."""
    random, rows = np.random.default_rng(3), list[dict[str, str]]()

    def write(name: str, audio_S: np.ndarray, rate: int, text: str, speaker: str, kind: str = "WAV") -> None:
        path = folder / f"{name}.{kind.lower()}"
        samples_S = np.clip(np.rint(audio_S * 32768), -32768, 32767).astype(np.int16)  # of floats a FLAC would get others
        soundfile.write(path, samples_S, rate, subtype="PCM_16", format=kind)
        rows.append({"path": path.name, "text": text, "speaker_label": speaker, "language": "en", "source": "made"})

    copies, exact = dict[str, str](), dict[str, str]()
    for number, text in enumerate(TEXTS):
        audio_S = speak(text)
        write(f"adam-{number}", audio_S, RATE_HZ, text, "adam")
        write(f"beth-{number}", speak(text, "f2", 180), RATE_HZ, text, "beth")
        if number < len(ENCODED):
            path = folder / f"copy-{number}.{ENCODED[number][1]}"
            path.write_bytes(encoded(audio_S, RATE_HZ, *ENCODED[number]))
            rows.append({**rows[-2], "path": path.name})
        elif number < len(ENCODED) + len(COPIED):
            write(f"copy-{number}", *COPIES[COPIED[number - len(ENCODED)]](audio_S, random), text, "adam")
        if number < len(ENCODED) + len(COPIED):
            copies[f"copy-{number}"] = f"adam-{number}"
        if number == 1:
            write("exact-1", audio_S, RATE_HZ, text, "adam", "FLAC")
            exact["exact-1"] = "adam-1"
    jingle_S = speak(JINGLE, "m7", 150)
    for number, name in enumerate(("show-0", "show-1")):
        parts = [speak(TEXTS[8 - number], "f4", 140), jingle_S, speak(TEXTS[7 - number * 3], "f4", 200)]
        write(name, np.concatenate(parts), RATE_HZ, "", "carl")
    (folder / "ad.mp3").write_bytes(encoded(jingle_S, RATE_HZ, "libmp3lame", "mp3", 64_000))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Planted(folder, manifest, copies, exact)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def recipe(light: Callable[..., BuildRecipe]) -> BuildRecipe:
    """Whole files as clips, with their content; small units, so that copies lie in different ones."""
    return light(
        units={"max_inputs": 7},
        clip_set={"turns": None, "max_s": 600, "max_pause_s": 600},
        annotators={"content": {"kind": "content"}},
    )


@pytest.fixture(scope="session")
def corpus(planted: Planted, recipe: BuildRecipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of the planted corpus."""
    out = str(tmp_path_factory.mktemp("copies") / "corpus")
    build([str(planted.manifest)], out, recipe)
    return out


@pytest.fixture(scope="session")
def names() -> Callable[[str], list[str]]:
    """``names(uri)``: of every clip the name of its file, in the order of the clips."""

    def read(uri: str) -> list[str]:
        from manifests.corpus import Corpus
        from manifests.open_rows import corpus_rows

        rows = corpus_rows(Corpus.open(uri))
        uris = [uri for part in rows.slices for uri in rows.read(part, ["input.uri"])["input.uri"].to_pylist()]
        return [Path(uri).stem for uri in uris]

    return read
