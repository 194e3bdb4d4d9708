"""Training on the real speech beside the checkout, outside the hour of the digits: ``make bench-speech``.

    .venv/bin/python -m benchmarks.speech --out benchmarks/results/speech [speakers curves by_heart]

- speakers: single digits of each of four speakers by a model that learnt from the other three, beside a plain convolutional
  classifier that learnt from the same audio.
- curves: losses of a small run on read sentences, of its own speakers and of others.
- by_heart: sixteen sentences, trained on until free decoding makes no error in them.

Corpora, tokenizers, packs and models are made by Stepwell's own verbs. What was done is not done again. Writes ``results.json``
and ``results.md``, with the parts of former calls.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.speech.chain import read_manifest
from benchmarks.speech.sentences import BY_HEART, MEASURED, OTHERS, measure_by_heart, measure_curves
from benchmarks.speech.speakers import CHOSEN_ON, figures, measure_speaker
from manifests.cpu_clock import spent_s

SPEAKERS = "speakers "  # before a speaker's name
PARTS = ("speakers", "curves", "by_heart")


class Results:
    """What was measured, kept as it comes, with the CPU seconds that it took."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def measure(self, name: str, part: Callable[[], Any]) -> Any:
        """``part``'s value, or the one that was kept under that name."""
        if name not in self.found:
            print(f"── {name}", flush=True)
            before = spent_s()
            value = part()
            self.found[name] = {"value": value, "cpu_s": round(spent_s() - before)}
            self._path.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        return self.found[name]["value"]

    def cpu_s(self, start: str) -> int:
        """Of all that was measured under names that start so."""
        return sum(row["cpu_s"] for name, row in self.found.items() if name.startswith(start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them unless named")
    parser.add_argument("--speech", type=Path, default=Path(__file__).parents[3] / "shared" / "speech")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"part {unknown[0]!r} is none of {', '.join(PARTS)}")
    torch.set_num_threads(1)
    out, chosen = options.out.resolve(), options.parts or PARTS
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "results.json")
    if "speakers" in chosen:
        for speaker in sorted({one.speaker for one in read_manifest(options.speech, "digits")}):
            results.measure(f"{SPEAKERS}{speaker}", lambda own=speaker: measure_speaker(own, options.speech, out))
    if "curves" in chosen:
        results.measure("curves", lambda: measure_curves(options.speech, out))
    if "by_heart" in chosen:
        results.measure("by_heart", lambda: measure_by_heart(options.speech, out))
    lines = result_lines(results)
    (out / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def result_lines(results: Results) -> list[str]:
    """Of every part that was ever measured, whichever this call asked for."""
    values, lines = {name: row["value"] for name, row in results.found.items()}, []
    rights = {name.removeprefix(SPEAKERS): values[name] for name in sorted(values) if name.startswith(SPEAKERS)}
    if rights:
        lines += speaker_lines(rights, results.cpu_s(SPEAKERS))
    if "curves" in values:
        lines += curve_lines(values["curves"], results.cpu_s("curves"))
    if "by_heart" in values:
        lines += heart_lines(values["by_heart"], results.cpu_s("by_heart"))
    return lines


def speaker_lines(rights: Mapping[str, Any], cpu_s: int) -> list[str]:
    rows = [f"| {' | '.join(figure.cells()[:4])} |" for figure in figures(rights)]
    return [
        f"**A speaker left out** ({cpu_s} s of CPU)",
        "",
        "| single digits right | | 95 % | items |",
        "|---|---|---|---|",
        *rows,
        "",
        "The model learns from audio that is changed in speed, ends, noise and spectrum; the classifier from the audio as it is. What is "
        f"changed and how long it learns were chosen by looking at {' and '.join(CHOSEN_ON)}, so their figures flatter the model. Intervals "
        "are over a speaker's clips; a few speakers give none for their mean.",
        "",
    ]


def curve_lines(rows: list[dict[str, Any]], cpu_s: int) -> list[str]:
    cells = [f"| {row['stage']} | {row['step']} | {row['train']:.3f} | {row[OTHERS]:.3f} |" for row in rows]
    title = f"**Read sentences** ({cpu_s} s of CPU): loss on {MEASURED} clips of each side"
    return [title, "", "| stage | step | speakers learnt from | others |", "|---|---|---|---|", *cells, ""]


def heart_lines(found: Mapping[str, Any], cpu_s: int) -> list[str]:
    errors = found["substitutions"] + found["deletions"] + found["insertions"]
    title = f"**{BY_HEART} sentences by heart** ({cpu_s} s of CPU): {errors} of {found['num_words']} words wrong, decoding freely"
    return [title, *(f"- {row['said']!r} became {row['written']!r}" for row in found["wrong"]), ""]


if __name__ == "__main__":
    main()
