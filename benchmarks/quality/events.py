"""What the measured part of paralinguistics says of sounds that are no speech, and of whispers: a table, and few claims."""

from __future__ import annotations

import numpy as np

from annotators.caption import english, known
from benchmarks.quality.figures import Section, share
from benchmarks.quality.material import Item, Material
from benchmarks.quality.stored_features import layers_of

LAYERS = ("prosody", "signal", "rhythm", "style", "paralinguistics")
READ_EVERY = 5  # a fifth of the read speech is enough for an interval of a few per cent

PROSE = """Events are named by classifiers alone (`kind: audio_classifier` or `fitted_classifier`), and no weights of one come with the dependencies: with
what ships, `event`, `scenario` and `timbre` are null, and nothing is claimed of them. The test data have 7 event clips of 6 kinds, far below the 30 that
a claim on any label needs. The table says what the offline parts make of them: silero hears no speech in them, so no voice is described; singing alone is
taken for speech. A whisper is speech of which less than a tenth is voiced; of the two recordings that are called one, the second has a voice in
nearly half of its frames and is not found. Two are too few for a claim, so only false alarms are a figure."""


def measure(material: Material) -> Section:
    shown = material.testdata(lambda facts: not facts.get("defect") and _is_shown(facts))
    spoken = [*material.speech("emotion"), *material.speech("read")[::READ_EVERY]]
    layers = layers_of(spoken, LAYERS)
    styles = [tag["value"] if tag else None for tag in layers["paralinguistics"]["speaking_style"].to_pylist()]
    heard = np.array(layers["clip"]["speech_samples"]) > 0
    figures = [
        share(
            "voiced speech taken for a whisper", [style == "whispered" for style in styles], "clips", "emotion and read speech"
        ),
        share("speech in which VAD hears none", ~heard, "clips", "emotion and read speech"),
    ]
    return Section("Sound events and whispers", PROSE, figures, _table(shown))


def _is_shown(facts: dict[str, object]) -> bool:
    return bool(facts.get("events")) or facts.get("style") == "whisper"


def _table(items: list[Item]) -> str:
    layers = layers_of(items, LAYERS)
    rows = ["| clip | reference | speech that VAD hears | caption, first phrasing |", "|---|---|---|---|"]
    for item, clip, tags in zip(items, layers["clip"].to_pylist(), layers["paralinguistics"].to_pylist(), strict=True):
        labels = [event["label"] for event in item.facts.get("events") or ()] or [item.facts["style"]]
        part = clip["speech_samples"] / max(1, clip["end_sample"])
        rows.append(f"| {item.name} | {', '.join(labels)} | {part:.0%} | {english(known(tags), 0) or '–'} |")
    return "\n".join(rows)
