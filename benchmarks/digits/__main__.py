"""The digits experiment, from takes to scores: ``make digits``, within an hour on two cores.

    .venv/bin/python -m benchmarks.digits --out benchmarks/results/digits

Strings of takes become corpora, a codec, packs and a trained model by Stepwell's own verbs; then the model writes down test
strings (ASR, greedy, of nothing but the audio) and reads their texts aloud (TTS: codes, mel, Griffin-Lim), and the recogniser
of ``recogniser.py``, which learned real training takes by itself on the other core, says how many digits it hears. What
was done is not done again; a training that was cut off goes on. Writes ``results.json``, ``results.md`` and ``digits.html``.

Everything was chosen on tuning strings (``strings.py``); test strings are packed after training, to be measured alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import soundfile
import torch

from benchmarks.digits.judging import Score, judge
from benchmarks.digits.lineage import run_rests_on
from benchmarks.digits.measures import Trained
from benchmarks.digits.page import write_page
from benchmarks.digits.phases import Phases, module
from benchmarks.digits.recogniser import TAKES, Recogniser
from benchmarks.digits.strings import Part, write_strings
from benchmarks.verbs import ROOT, build_corpus, make_pack, stepwell, train_run
from manifests.contracts import MODEL_RATE_HZ, Audio
from manifests.packs import Pack
from training.data import DocumentReader
from training.recipe import load_training_recipe

SETTINGS = Path(__file__).parent / "settings"
MEASURED = (Part.TUNING, Part.TEST)
WAITING = "waiting for the recogniser, all of its CPU"
FEWEST_DIGITS = 2  # of a string whose order can be absent from training
WER_LIMIT, RIGHT_LIMIT, WALL_LIMIT_S = 0.03, 0.85, 3600.0
HEARD = 40  # spoken strings that are kept as audio


class Experiment:
    """Where everything lies, and the steps in their order."""

    def __init__(self, out: Path, speech: Path, recipe: str) -> None:
        self.out, self.speech, self.recipe_name = out, speech, recipe
        self.recipe = load_training_recipe(recipe)
        self.tokenizer, self.run, self.exported = out / "tokenizer", out / "run", out / "exported"
        self.recogniser, self.results = out / "recogniser", out / "results.json"
        out.mkdir(parents=True, exist_ok=True)
        self.phases = Phases(out / "costs.json")

    def corpus(self, part: Part) -> Path:
        return self.out / "corpora" / part

    def pack(self, part: Part) -> Path:
        return self.out / "packs" / part

    def make_corpora(self) -> None:
        """Strings, and of each split a corpus of its own, so that a codec cannot meet what it must not hear."""
        with self.phases.phase("strings", self.out / "strings" / f"{list(Part)[-1]}.jsonl"):
            manifests = write_strings(self.out / "strings", self.speech)
        with self.phases.phase("corpora", self.corpus(list(Part)[-1])):
            for part, manifest in manifests.items():
                build_corpus(manifest, self.corpus(part))

    def train_codec(self) -> None:
        with self.phases.phase("codec", self.tokenizer):
            stepwell(
                "tokenizer", "train", self.corpus(Part.TRAIN), "--out", self.tokenizer, "--recipe", SETTINGS / "tokenizer.yaml"
            )

    def make_pack(self, part: Part) -> None:
        with self.phases.phase(f"codes and pack, {part}", self.pack(part)):
            stepwell("tokenizer", "encode", self.corpus(part), "--tokenizer", self.tokenizer, "--engine", "local")
            make_pack(self.corpus(part), self.pack(part), SETTINGS / "pack.yaml", part, self.tokenizer)

    def train(self) -> None:
        with self.phases.phase("stages 0 to 4", self.run):
            train_run(self.recipe_name, self.pack(Part.TRAIN), self.tokenizer, self.run)
        with self.phases.phase("export", self.exported):
            if not self.exported.exists():
                stepwell("train", "export", "--run", self.run, "--out", self.exported, "--dtype", "float32")

    @contextmanager
    def judge_in_training(self) -> Iterator[None]:
        """The recogniser learns beside what is done in the block; all its CPU seconds are of the phase that waits for it."""
        words = module("benchmarks.digits.recogniser", "--speech", self.speech, "--out", self.recogniser)
        with open(self.out / "recogniser.log", "a", encoding="utf-8") as log:
            is_there = (self.recogniser / TAKES).exists()  # what is written last
            learning = None if is_there else subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)
            try:
                yield
            finally:
                if learning is not None:
                    with self.phases.phase(WAITING):
                        if learning.wait():
                            raise subprocess.CalledProcessError(learning.returncode, words)

    def check_lineage(self) -> None:
        """Raises MismatchError where model, codec or judge rest on takes that they are measured on, or on what nothing can tell."""
        with self.phases.phase("lineage", self.results):
            corpora = [str(self.corpus(Part.TRAIN))]
            pack, tokenizer = str(self.pack(Part.TRAIN)), str(self.tokenizer)
            rests = run_rests_on(str(self.run), pack, tokenizer, corpora, str(self.exported), self.recogniser)
            for part in MEASURED:
                rests.check(part)

    def measure(self) -> dict[str, Any]:
        """ASR and TTS of the trained model, on tuning and on test strings."""
        with self.phases.phase("opening the model and the recogniser", self.results):
            trained = Trained.open(str(self.exported), str(self.tokenizer), self.recipe)
            recogniser = Recogniser.load(self.recogniser)
        found: dict[str, Any] = {"parameters": sum(p.numel() for p in trained.model.parameters())}
        for part in MEASURED:
            with self.phases.phase(f"hearing, {part}", self.results):
                pack = Pack.open(str(self.pack(part)))
                found[f"asr_{part}"] = trained.hear(pack, {"all": 1, "new_orders": FEWEST_DIGITS})
            with self.phases.phase(f"speaking, {part}", self.results):
                found[f"tts_{part}"] = {
                    name: score.to_json() for name, score in self._speak(trained, pack, part, recogniser).items()
                }
        return found

    def _speak(self, trained: Trained, pack: Pack, part: Part, recogniser: Recogniser) -> dict[str, Score]:
        """What the recogniser hears of real strings, of their codes, and of what the model says for their texts."""
        spoken = trained.speak(pack, FEWEST_DIGITS)
        texts = [entry.text for entry, _ in spoken]
        reader, codec = DocumentReader(pack, 1), trained.tokenizer.loaded_codec()
        turns = [reader.read(entry).turns[0] for entry, _ in spoken]
        waves = {
            "real": [turn.audio for turn in turns if turn.audio is not None],
            "codec": [codec.decode(turn.codes) for turn in turns if turn.codes is not None],
            "spoken": [codec.decode(speech.codes) for _, speech in spoken],
        }
        for name, own in waves.items():
            keep(self.out / "audio" / part / name, own[:HEARD], texts)
        return {name: judge(recogniser.read, own, texts) for name, own in waves.items()}


def keep(folder: Path, waves: Sequence[Audio], texts: Sequence[str]) -> None:
    """As WAV, named by their texts."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (wave, text) in enumerate(zip(waves, texts, strict=False)):
        soundfile.write(folder / f"{number:03d}_{text.replace(' ', '_')}.wav", wave, MODEL_RATE_HZ, subtype="PCM_16")


def lines(found: Mapping[str, Any], phases: Phases) -> list[str]:
    """The figures as Markdown."""
    rows = ["| | tuning | test | limit |", "|---|---|---|---|"]
    for name, title in (("new_orders", "ASR, WER, orders absent from training"), ("all", "ASR, WER, single digits too")):
        cells = [f"{own['wer']:.2%} of {own['words']} words" for own in (found[f"asr_{part}"][name] for part in MEASURED)]
        rows.append(f"| {title} | {' | '.join(cells)} | {WER_LIMIT:.0%} |")
    told = {"real": "real audio", "codec": "real audio through the codec", "spoken": "TTS of unseen strings"}
    for name, title in told.items():
        cells = [Score(**found[f"tts_{part}"][name]).line() for part in MEASURED]
        rows.append(
            f"| digits right by the recogniser, {title} | {' | '.join(cells)} | {f'{RIGHT_LIMIT:.0%}' if name == 'spoken' else ''} |"
        )
    costs = ["", "| phase | wall, s | CPU, s |", "|---|---|---|"]
    costs += [f"| {cost.title} | {cost.wall_s:.0f} | {cost.cpu_s:.0f} |" for cost in phases.costs]
    costs += [f"| all | {phases.wall_s:.0f} of {WALL_LIMIT_S:.0f} | {phases.cpu_s:.0f} |"]
    return rows + costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=ROOT.parent / "shared" / "speech")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "digits")
    parser.add_argument("--recipe", default="digit_strings", help="of the training; a shipped one or a .yaml file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiment = Experiment(options.out.resolve(), options.speech.resolve(), options.recipe)
    with experiment.judge_in_training():
        experiment.make_corpora()
        experiment.train_codec()
        experiment.make_pack(Part.TRAIN)
        experiment.train()
    for part in MEASURED:
        experiment.make_pack(part)
    experiment.check_lineage()
    found = experiment.measure()
    phases = experiment.phases
    result = {**found, "wall_s": phases.wall_s, "cpu_s": phases.cpu_s, "costs": [asdict(cost) for cost in phases.costs]}
    experiment.results.write_text(json.dumps(result, indent=2), encoding="utf-8")
    text = lines(found, phases)
    (experiment.out / "results.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))
    write_page(experiment.out)


if __name__ == "__main__":
    main()
