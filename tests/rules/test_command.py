from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["torch", "ray", "onnxruntime", "transformers", "whisperx", "pyannote.audio", "datasets", "webdataset"]
LIGHT_FOLDERS = ["manifests", "annotators", "tokenization", "pipeline", "training"]


def loaded_after(program: str, repository: Path) -> list[str]:
    """Which heavy packages a fresh interpreter holds after running ``program``."""
    report = f"import json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{report}"], cwd=repository, capture_output=True, text=True, check=True, timeout=120
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


# Whoever runs the tests in the background may have them started with SIGINT ignored, and children inherit that.
HEEDS_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
# Ctrl-C while a package loads, while help is shown, and in the middle of a verb.
INTERRUPTIONS = {
    "import": """
import sys
class Stops:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stops())
import stepwell
""",
    "help": """
import os, signal, sys
import typer.rich_utils
typer.rich_utils.rich_format_help = lambda **_: os.kill(os.getpid(), signal.SIGINT)
import stepwell
sys.argv = ["stepwell", "--help"]
stepwell.main()
""",
    "verb": """
import os, signal, sys
import pipeline.status
pipeline.status.read_status = lambda uri: os.kill(os.getpid(), signal.SIGINT)
import stepwell
sys.argv = ["stepwell", "corpus", "status", "./corpus"]
stepwell.main()
""",
}


@pytest.mark.parametrize("moment", INTERRUPTIONS)
def test_an_interruption_is_one_line_and_exit_code_1_whenever_it_comes(moment: str, repository: Path) -> None:
    program = f"{HEEDS_INTERRUPTS}\n{INTERRUPTIONS[moment]}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert done.stdout.strip() == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: interrupted; ")


def test_the_command_is_light(repository: Path) -> None:
    program = """
import sys
import stepwell
sys.argv = ["stepwell", "--help"]
try:
    stepwell.main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_after(program, repository) == []


@pytest.mark.parametrize("folder", LIGHT_FOLDERS)
def test_verbs_and_recipes_of_a_folder_are_light(folder: str, repository: Path) -> None:
    modules = [f"{folder}.{name}" for name in ("cli", "recipe", "catalog") if (repository / folder / f"{name}.py").exists()]
    assert modules
    assert loaded_after("\n".join(f"import {module}" for module in modules), repository) == []


# What the trainer must do without. `annotators` will be called by rewards that listen; a step of today's stages must not need it.
ABSENT = [
    *("whisperx", "pyannote", "silero_vad", "pocketsphinx", "speechmos", "onnxruntime", "ray", "scipy", "pyloudnorm"),
    *("torchaudio", "s3tokenizer", "av", "datasets", "webdataset", "librosa", "transformers", "annotators", "pipeline"),
]


@pytest.mark.slow
def test_the_trainer_takes_a_step_without_the_annotators_packages(repository: Path) -> None:
    """DESIGN section 5: trainer code runs where whisperx, pyannote and Ray are not installed."""
    program = f"""
import importlib, pathlib, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {ABSENT!r} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for path in sorted(pathlib.Path("training").glob("*.py")):
    importlib.import_module(f"training.{{path.stem}}")

import numpy as np, torch
from manifests.packs import Document, Turn
from tokenization.interleave import Ratio
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary
from training.batches import collate
from training.config import model_config
from training.entries import entry_of
from training.examples import ExampleMaker
from training.layouts import Layouts
from training.model import StepAudio2
from training.prompts import Prompts
from training.recipe import LossWeights, PretrainStage, Task
from training.trainer import StageTrainer
torch.set_num_threads(1)
text = TextTokenizer.train([], 256)
vocabulary = Vocabulary.small(256)
rate = {{"lr": 1e-3}}
shape = dict(steps=1, sequence_length=256, sequences_per_step=2)
stage = PretrainStage(kind="pretrain", name="tts", tasks={{"tts": 1, "asr": 1}}, train={{"adaptor": rate, "decoder": rate}}, **shape)
model = StepAudio2(model_config("micro"), vocabulary.num_rows, vocabulary.text_size)
trainer = StageTrainer(model, stage, vocabulary)
maker = ExampleMaker(Layouts(text, vocabulary, Ratio(), Prompts()), LossWeights())
heard = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
turn = dict(role=None, text="hi", language=None, num_samples=8000, num_codes=9, num_text_tokens=None, caption_en=None, caption_zh=None)
entry = entry_of(dict(key="a", shard="s", relation=None, tasks=["asr", "tts"], turns=[turn]), text)
document = Document("a", {{}}, (Turn(None, "hi", None, None, heard, np.arange(9), {{}}),), None)
row_of = [maker.make(task, entry, document) for task in (Task.ASR, Task.TTS)]
row = trainer.train_step([collate([row_of], 128, 40, vocabulary.pad)])
assert row["step"] == 1 and row["loss"] > 0
"""
    loaded = loaded_after(program, repository)
    assert set(loaded) == {"torch"}
