"""What the pipeline says of audio that is no clean reading: a small corpus is built, and its rows are written down.

The tables come from the corpus. What stands above each was written by hand after reading it, and says whether it is right.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from annotators.espeak_voice import EspeakConfig
from annotators.paralinguistics_schema import DIMENSIONS
from benchmarks.quality.figures import Section
from benchmarks.quality.material import Item, Material
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.corpus import Corpus
from manifests.recipes import load_recipe
from pipeline.build import build
from pipeline.recipe import BuildRecipe

RECIPE = "offline"
# Parts that the tables show, where the recipe has none of that name.
MORE = {name: {"kind": name} for name in ("text", "rhythm", "integrity", "sound_gate", "paralinguistics", "caption")}
SHOWN_CHARS = 90
DASH = "–"
MIXED_TEXT = "我们明天用 machine learning 做一个新的 project，请你准备好 slides。"

PROSE = """
Built with the parts of the recipe `{recipe}` and `sound_gate` from {num_files} files; the tables are what the corpus' rows hold, and the
text above each is a reading of them, written by hand. Scores are means over a recording's clips, weighted by duration; tags are those of its
longest clip; a dash is an abstention. The recogniser is pocketsphinx, which knows English alone: its column says what a
weak recogniser does on such audio, and nothing about Whisper. One to three clips a case show what happens; they measure nothing.
"""

# (what it is called here, layer, column, format)
SCORES = (
    ("DNSMOS", "dnsmos", "dnsmos_ovrl", "{:.1f}"),
    ("BAK", "dnsmos", "dnsmos_bak", "{:.1f}"),
    ("SNR", "signal", "snr_db", "{:.0f} dB"),
    ("C50", "signal", "c50_db", "{:.0f} dB"),
    ("band", "signal", "bandwidth_hz", "{:.0f} Hz"),
    ("voiced", "prosody", "voiced_ratio", "{:.0%}"),
)
FLAGS = (
    ("sound_gate", "is_music"),
    ("sound_gate", "is_steady"),
    ("integrity", "is_garbled"),
    ("integrity", "is_wrong_speed"),
    ("integrity", "is_narrowband"),
)


@dataclass(frozen=True)
class Case:
    """A kind of audio: files with what they are (ids of the test data, or names of MADE), and a reading of the result."""

    title: str
    comment: str
    files: Mapping[str, str]


def digital_silence(_: Material) -> Audio:
    return np.zeros(10 * MODEL_RATE_HZ, np.float32)


def hiss(_: Material) -> Audio:
    return (10.0 ** (-70.0 / 20.0) * np.random.default_rng(0).standard_normal(10 * MODEL_RATE_HZ)).astype(np.float32)


def two_readers(material: Material) -> Audio:
    left, right = (audio_of(material, name) for name in ("ls_367-130732-0003", "ls_1998-15444-0002"))
    length = min(len(left), len(right))
    return left[:length] + right[:length] * np.float32(left[:length].std() / right[:length].std())


def mixed_languages(_: Material) -> Audio:
    said = EspeakConfig(voice="cmn", variant="f3").build().synthesise(MIXED_TEXT)
    return resample(said.audio, said.sample_rate_hz, MODEL_RATE_HZ)


def audio_of(material: Material, name: str) -> Audio:
    return item_of(material, name).audio()


def item_of(material: Material, name: str) -> Item:
    return material.testdata(lambda facts: facts["id"] == name)[0]


MADE: dict[str, Callable[[Material], Audio]] = {
    "digital_silence": digital_silence,
    "hiss": hiss,
    "two_readers": two_readers,
    "espeak_zh_en": mixed_languages,
}

CASES: tuple[Case, ...] = (
    Case(
        "Silence",
        "Right. VAD hears nothing, so no clip is cut and no model makes up a text. There is nothing to filter; "
        "the recordings' rows say how loud they are.",
        {"digital_silence": "10 s of zeros", "hiss": "10 s of white noise at -70 dBFS"},
    ),
    Case(
        "Noise",
        "Right in all four, the babble of a café and loud white noise among them: no speech, no clip.",
        {
            "cafe_short": "a café, babble",
            "sbnoise_2": "noise of a corpus for augmentation",
            "sbnoise_3": "likewise",
            "broken_white_noise": "white noise, loud",
        },
    ),
    Case(
        "Music",
        "Nearly right. The trumpet is left alone; of a minute of band music 2.3 s pass for speech, and the recogniser writes words there; "
        "`sound_gate` hears the music, so no voice is described. The filter: `sound_gate.is_music`, or `dnsmos.dnsmos_bak` below 2, which no other clip of this page has.",
        {
            "librosa_kevin_macleod_vibe_ace": "a band without a singer, a minute",
            "librosa_sorohanro_solo_trumpet_06": "a trumpet alone",
        },
    ),
    Case(
        "Singing",
        "Taken for speech by VAD throughout; `sound_gate` calls it music, so no tag and no caption say that somebody speaks. The text has no reference, and does not read like one. "
        "DNSMOS does not mind (3.2). `sound_gate.is_music` is the one fact that tells it; a `speaking_style` needs a classifier, which no package ships.",
        {"vocadito_10": "one voice without instruments"},
    ),
    Case(
        "A child",
        "VAD and the single voice are right, and so is the high pitch; the text is wrong in most words, with confidence between 0.53 and 0.76. "
        "Age is null, since no classifier ships that tells it: a filter for children has nothing here but `style.pitch_level`, which women share.",
        {
            "so762_000010011": "aged 6, “we call it bear”",
            "so762_000050003": "aged 6, “mike likes the white one”",
            "so762_000060015": "aged 6, “jayme is going to see hen”",
        },
    ),
    Case(
        "A whisper",
        "The German whisper is found by VAD, has no voiced frame and is tagged `whispered`: right. The Chinese clip is called a whisper by its source, "
        "but half of its frames are voiced and it is loud; it gets no tag. No text is right (neither is English). "
        "The filter: `paralinguistics.speaking_style`, or `prosody.voiced_ratio` below 0.1; DNSMOS alone would drop the real whisper (1.9).",
        {"thorsten_whisper": "German, a real whisper", "editx_whisper_prompt": "Chinese, labelled a whisper"},
    ),
    Case(
        "Two people at once",
        "Of two readers summed, diarization finds the overlap in 3.8 s of 8.8 s and gives all to one label; the recogniser writes nothing, and the caption knows one person. "
        "In the meeting VAD finds 5.4 s of 10.2 s, which is quiet (about -40 dBFS) and far away, and two of four voices. Stereo talkers are kept apart by channel: right. "
        "The filter: `clip.overlap_share`; nothing here shows speech that VAD missed.",
        {
            "two_readers": "two read sentences summed at equal power, 9 s",
            "ami_EN2006a_0-30": "a meeting of four; 10.2 s of speech, 1.5 s of it overlapped",
            "stereo_two_speakers": "a voice on each channel",
        },
    ),
    Case(
        "Chinese with English inside",
        "VAD and the single voice are right. The recogniser knows only English and writes English over everything, with a confidence (0.51, 0.55) like that of the "
        "children's English: neither text nor language can be used, and no column says so. Such audio needs a recogniser that tells languages apart (`whisperx`); "
        "`text.num_scripts` marks mixed text once there is a right one.",
        {"espeak_zh_en": f"synthetic: “{MIXED_TEXT}”", "aishell_BAC009S0150W0013": "Chinese alone: “星巴克咖啡(虹桥西航二店)”"},
    ),
    Case(
        "8 kHz telephone",
        "VAD and the two sides of the call are right, and the bandwidth says 4000 Hz at a rate of 8 kHz; the text is mostly wrong. DNSMOS (2.4 to 2.9) is that of the children's "
        "16 kHz clips and does not tell a telephone. The filter: `signal.bandwidth_hz`, or the recording's rate; `integrity.is_narrowband` speaks only where the file promises more than a telephone.",
        {
            "tel_1688-142285-0006_pcm8k": "a read sentence, 300 to 3400 Hz, 16 bits",
            "tel_367-130732-0006_alaw": "likewise, A-law",
            "call_td_stereo": "a call, a talker a channel, mu-law",
        },
    ),
)


def measure(material: Material) -> Section:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for case in CASES:
            write_files(case, material, source)
        build([str(source)], f"{folder}/corpus", recipe())
        found = recordings_of(Corpus.open(f"{folder}/corpus"))
    details = "\n\n".join(f"### {case.title}\n\n{case.comment}\n\n{table(case, found)}" for case in CASES)
    prose = PROSE.format(recipe=RECIPE, num_files=sum(len(case.files) for case in CASES))
    return Section("Hard cases: what the pipeline does", prose, details=details)


def recipe() -> BuildRecipe:
    shipped = load_recipe(BuildRecipe, "pipeline", RECIPE).model_dump(mode="json")
    return BuildRecipe.model_validate({**shipped, "annotators": MORE | shipped["annotators"]})


def write_files(case: Case, material: Material, source: Path) -> None:
    """Put the case's files into the folder, those of the test data as they are."""
    for name in case.files:
        if name in MADE:
            soundfile.write(source / f"{name}.wav", MADE[name](material), MODEL_RATE_HZ)
        else:
            path = item_of(material, name).path
            shutil.copy(path, source / f"{name}{Path(path).suffix}")


@dataclass(frozen=True)
class Recording:
    """What a corpus holds of one recording."""

    facts: dict[str, Any]  # RECORDINGS row
    speech_s: float  # that the VAD hears, over all channels
    clips: list[dict[str, Any]]  # CLIPS rows
    layers: dict[str, list[dict[str, Any]]]  # name -> rows of the clips

    @property
    def durations_s(self) -> list[float]:
        return [(clip["end_sample"] - clip["start_sample"]) / clip["sample_rate_hz"] for clip in self.clips]

    def mean(self, layer: str, column: str) -> float | None:
        """Over the clips that have a value, weighted by duration."""
        rows = self.layers.get(layer, [])
        known = [(row[column], length) for row, length in zip(rows, self.durations_s, strict=True) if row.get(column) is not None]
        return float(np.average([value for value, _ in known], weights=[length for _, length in known])) if known else None

    def of_longest(self, layer: str, column: str) -> Any:
        """The value of the longest clip."""
        rows = self.layers.get(layer, [])
        return rows[int(np.argmax(self.durations_s))].get(column) if rows else None


def recordings_of(corpus: Corpus) -> dict[str, Recording]:
    """By the name of the file without its suffix."""
    clips = corpus.clips().to_pylist()
    layers = {name: corpus.layer(name).to_pylist() for name in corpus.layers()}
    vad = corpus.spans("vad").to_pylist()
    facts = {row["recording_id"]: row for row in corpus.recordings().to_pylist()}
    found = {}
    for row in corpus.inputs().to_pylist():
        key = row["recording_id"]
        mine = [i for i, clip in enumerate(clips) if clip["recording_id"] == key]
        spans = [span for span in vad if span["recording_id"] == key]
        speech_s = sum((span["end_sample"] - span["start_sample"]) / span["sample_rate_hz"] for span in spans)
        rows = {name: [layer[i] for i in mine] for name, layer in layers.items()}
        found[Path(row["uri"]).stem] = Recording(facts[key], speech_s, [clips[i] for i in mine], rows)
    return found


def table(case: Case, found: Mapping[str, Recording]) -> str:
    """One row a file; Markdown."""
    lines = ["| file | VAD | diarization | text | quality | tags |", "|---|---|---|---|---|---|"]
    for name, what in case.files.items():
        recording = found[name]
        cells = [vad_cell(recording), turns_cell(recording), text_cell(recording), scores_cell(recording), tags_cell(recording)]
        lines.append(f"| `{name}`: {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def vad_cell(recording: Recording) -> str:
    heard_s = recording.facts["num_samples"] / recording.facts["sample_rate_hz"] * len(recording.facts["heard_channels"])
    return f"{recording.speech_s:.1f} s of {heard_s:.1f} s, {len(recording.clips)} clips"


def turns_cell(recording: Recording) -> str:
    labels = {(clip["channel"], clip["speaker_label"]) for clip in recording.clips if clip["speaker_label"]}
    overlap_s = sum(clip["overlap_samples"] / clip["sample_rate_hz"] for clip in recording.clips)
    if not labels:
        return "not run: no second voice suspected" if recording.clips else DASH
    return f"{len(labels)} {'voice' if len(labels) == 1 else 'voices'}, {overlap_s:.1f} s overlapped"


def text_cell(recording: Recording) -> str:
    rows = recording.layers.get("asr", [])
    said = " / ".join(row["text"] for row in rows if row["text"])
    if not said:
        return "nothing" if rows else DASH
    shown = said if len(said) <= SHOWN_CHARS else f"{said[:SHOWN_CHARS]} …"
    confidence, uncovered = recording.mean("asr", "confidence"), recording.mean("text", "uncovered_speech_share")
    return f"“{shown}”, confidence {shown_number('{:.2f}', confidence)}, without words {shown_number('{:.0%}', uncovered)}"


def scores_cell(recording: Recording) -> str:
    if not recording.clips:
        return DASH
    values = [f"{name} {shown_number(shape, recording.mean(layer, column))}" for name, layer, column, shape in SCORES]
    flags = [flag for layer, flag in FLAGS if recording.of_longest(layer, flag)]
    return ", ".join([*values, *flags])


def tags_cell(recording: Recording) -> str:
    """The tags of the longest clip that are known, and the sentence that they make."""
    if not recording.clips:
        return DASH
    tags = {dimension: recording.of_longest("paralinguistics", dimension) for dimension in DIMENSIONS}
    known = [f"{dimension} {tag['value']}" for dimension, tag in tags.items() if tag and tag["value"]]
    return f"{', '.join(known) or DASH}. “{recording.of_longest('caption', 'caption_en') or DASH}”"


def shown_number(shape: str, value: float | None) -> str:
    return DASH if value is None else shape.format(value)
