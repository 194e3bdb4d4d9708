"""Texts and dialogues to synthetic speech: FLAC files with a manifest that ``corpus build`` takes as a source.

A file is named by what it says and who says it, and carries the mark of synthetic speech in its own tags. ``said.jsonl``
has what a manifest does not: words, turns and their samples. It grows by a line a file as they are made, so that an
interrupted run is continued; the manifest is written at the end. Both are in the order of the texts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile

from manifests.audio import resample
from manifests.console import counted, progress
from manifests.contracts import Audio, SpokenWord, Synthesiser
from manifests.synthetic import mark_of
from pipeline.recipe import VoicesRecipe
from pipeline.scripts import Script, read_scripts

SAID, MANIFEST = "said.jsonl", "manifest.jsonl"
FACTS = ("uri", "text", "language", "speaker_label", "synthesizer", "licence", "reference_rttm_uri", "reference_stm_uri")


@dataclass(frozen=True)
class Synthesis:
    """What a run did."""

    manifest: str
    num_files: int
    num_made: int  # by this run
    num_repeated: int  # rows that say what an earlier one says, in the same voice
    audio_s: float

    def lines(self) -> list[str]:
        repeated = f"; {counted(self.num_repeated, 'row repeats', 'rows repeat')} another one" if self.num_repeated else ""
        made = f"{self.num_made} made, {self.num_files - self.num_made} were there"
        return [
            f"{self.manifest}: {counted(self.num_files, 'file')}, {self.audio_s:.1f} s of synthetic speech ({made}{repeated})"
        ]


@dataclass(frozen=True)
class Part:
    """A turn as it was said; samples at the recipe's rate, relative to the start of the file."""

    role: str | None
    speaker_label: str
    channel: int
    start_sample: int
    end_sample: int
    text: str


def synthesise(texts: str, out: str, recipe: VoicesRecipe) -> Synthesis:
    """Say every row of ``texts`` (JSONL) into the folder ``out``; the same rows and recipe give the same bytes.

    Raises RequestError for rows that cannot be said, ModelUnavailable for voices that do not load: both before anything is
    written. Raises WorkError for a text that a voice has no sounds for.
    """
    voices = {name: config.build() for name, config in recipe.voices.items()}
    for voice in voices.values():
        voice.setup()
    listed = read_scripts(texts, voices, recipe)
    scripts = {script.key: script for script in listed}
    os.makedirs(out, exist_ok=True)
    rows = {key: row for key, row in _rows_there(out).items() if key in scripts}
    waiting = [script for key, script in scripts.items() if key not in rows]
    _write(os.path.join(out, SAID), [_line(row) for row in rows.values()])  # without the line that an interruption cut
    with progress() as bars, open(os.path.join(out, SAID), "a", encoding="utf-8") as said:
        bar = bars.task("synthesis", len(waiting), "files")
        for script in waiting:
            rows[script.key] = _say(script, out, voices, recipe)
            print(_line(rows[script.key]), file=said, flush=True)
            bar.advance()
    ordered = [rows[key] for key in scripts]
    _write(os.path.join(out, SAID), [_line(row) for row in ordered])
    manifest = os.path.join(out, MANIFEST)
    _write(manifest, [_line({name: row[name] for name in FACTS if row.get(name) is not None}) for row in ordered])
    audio_s = sum(row["num_samples"] for row in rows.values()) / recipe.sample_rate_hz
    return Synthesis(manifest, len(scripts), len(waiting), len(listed) - len(scripts), audio_s)


def _rows_there(out: str) -> dict[str, dict[str, Any]]:
    """Key -> row of SAID, of the files that are there; a line that an interruption cut counts as none."""
    try:
        with open(os.path.join(out, SAID), encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            row = json.loads(line)
            uri = str(row["uri"])
        except (ValueError, KeyError, TypeError):
            continue
        if os.path.exists(os.path.join(out, uri)):
            found[os.path.splitext(uri)[0]] = row
    return found


def _say(script: Script, out: str, voices: Mapping[str, Synthesiser], recipe: VoicesRecipe) -> dict[str, Any]:
    """The script's file, with its references beside it where it is a dialogue; returns its row of SAID."""
    audio_SC, parts, words = _rendered(script, voices, recipe)
    synthesizer = "; ".join(dict.fromkeys(voices[turn.voice].label for turn in script.turns))
    row: dict[str, Any] = {
        "uri": f"{script.key}.flac",
        "text": " ".join(turn.text for turn in script.turns),
        "language": script.language,
        "speaker_label": None if script.is_dialogue else script.turns[0].voice,
        "synthesizer": synthesizer,
        "licence": recipe.licence,
        "sample_rate_hz": recipe.sample_rate_hz,
        "num_samples": len(audio_SC),
        "words": None if words is None else [asdict(word) for word in words],
    }
    if script.is_dialogue:
        row["turns"] = [asdict(part) for part in parts]
        for kind, line in (("rttm", _rttm_line), ("stm", _stm_line)):
            row[f"reference_{kind}_uri"] = f"{script.key}.{kind}"
            lines = [line(script.key, part, recipe.sample_rate_hz) for part in parts]
            _write(os.path.join(out, f"{script.key}.{kind}"), lines)
    path = os.path.join(out, f"{script.key}.flac")
    with soundfile.SoundFile(f"{path}.part", "w", recipe.sample_rate_hz, audio_SC.shape[1], "PCM_16", format="FLAC") as file:
        file.comment = mark_of(synthesizer)
        file.write(audio_SC)
    os.replace(f"{path}.part", path)
    return row


def _rendered(
    script: Script, voices: Mapping[str, Synthesiser], recipe: VoicesRecipe
) -> tuple[np.ndarray, list[Part], list[SpokenWord] | None]:
    """(audio float32 ``[S, C]``, turns, words or None where a voice tells no times), all at the recipe's rate."""
    rate_hz, roles = recipe.sample_rate_hz, list(dict.fromkeys(turn.role for turn in script.turns))
    said: list[tuple[Audio, Part]] = []
    words: list[SpokenWord] | None = []
    start = 0
    for turn in script.turns:
        speech = voices[turn.voice].synthesise(turn.text)
        audio_S, scale = resample(speech.audio, speech.sample_rate_hz, rate_hz), rate_hz / speech.sample_rate_hz
        channel = roles.index(turn.role) if recipe.one_channel_a_role else 0
        said.append((audio_S, Part(turn.role, turn.voice, channel, start, start + len(audio_S), turn.text)))
        if words is None or speech.words is None:
            words = None
        else:
            words += [_moved(word, scale, start) for word in speech.words]
        start += len(audio_S) + round(recipe.gap_s * rate_hz)
    audio_SC = np.zeros((said[-1][1].end_sample, len(roles) if recipe.one_channel_a_role else 1), np.float32)
    for audio_S, part in said:
        audio_SC[part.start_sample : part.end_sample, part.channel] = audio_S
    return audio_SC, [part for _, part in said], words


def _moved(word: SpokenWord, scale: float, start: int) -> SpokenWord:
    return SpokenWord(word.word, start + round(word.start_sample * scale), start + round(word.end_sample * scale))


def _rttm_line(name: str, part: Part, rate_hz: int) -> str:
    start_s, length_s = part.start_sample / rate_hz, (part.end_sample - part.start_sample) / rate_hz
    return f"SPEAKER {name} {part.channel + 1} {start_s:.3f} {length_s:.3f} <NA> <NA> {part.speaker_label} <NA> <NA>"


def _stm_line(name: str, part: Part, rate_hz: int) -> str:
    start_s, end_s, text = part.start_sample / rate_hz, part.end_sample / rate_hz, " ".join(part.text.split())
    return f"{name} {part.channel + 1} {part.speaker_label} {start_s:.3f} {end_s:.3f} {text}"


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _write(path: str, lines: Sequence[str]) -> None:
    """The file, whole or not at all."""
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    os.replace(f"{path}.part", path)
