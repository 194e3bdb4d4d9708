"""No take of the test split is behind a checkpoint, its pack or its codec; a chain that hears one is found out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.digits.lineage import Rests, corpus_takes, packed_takes, run_rests_on
from benchmarks.digits.recogniser import Recogniser
from benchmarks.digits.strings import Part, Take, draw_strings, write_strings
from benchmarks.verbs import build_corpus, stepwell, train_run
from manifests.corpus import Corpus
from manifests.errors import MismatchError
from manifests.packs import Pack
from training import checkpoint
from training.published import FACTS

FEW = {Part.TEST: 8, Part.TUNING: 8, Part.TRAIN: 16}
HEARD = frozenset({("george", Take(7, 12))})
SPEAKERS = ("george", "jackson", "lucas", "nicolas")
SETTINGS = Path(__file__).parents[2] / "benchmarks" / "digits" / "settings"
TOKENIZER = """
name: test
text: {kind: bpe, vocab_size: 280, text_from: [source]}
codec: {kind: fsq, network: {width: 16}, training: {steps: 2}}
"""
TRAINING = """
model: micro
threads: 1
stages:
  - {name: hear, kind: ctc, steps: 2, batch_documents: 2, train: {encoder: {lr: 1.0e-3}, ctc_head: {lr: 1.0e-3}}}
"""


@pytest.fixture(scope="module")
def chain(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment in small, by the same verbs: two corpora, a codec and a pack of each, a run on the training pack."""
    out = tmp_path_factory.mktemp("digits")
    manifests = write_strings(out / "strings", shared / "speech", FEW)
    for name, text in (("tokenizer.yaml", TOKENIZER), ("training.yaml", TRAINING)):
        (out / name).write_text(text)
    for part in (Part.TRAIN, Part.TEST):
        corpus, tokenizer = out / f"corpus-{part}", out / f"tokenizer-{part}"
        build_corpus(manifests[part], corpus)
        stepwell("tokenizer", "train", corpus, "--out", tokenizer, "--recipe", out / "tokenizer.yaml")
    for part in (Part.TRAIN, Part.TEST):
        corpus, tokenizer = out / f"corpus-{part}", out / f"tokenizer-{Part.TRAIN}"
        stepwell("tokenizer", "encode", corpus, "--tokenizer", tokenizer, "--engine", "local")
        stepwell(
            "corpus", "pack", corpus, "--out", out / f"pack-{part}", "--recipe", SETTINGS / "pack.yaml", "--tokenizer", tokenizer
        )
    train_run(out / "training.yaml", out / f"pack-{Part.TRAIN}", out / f"tokenizer-{Part.TRAIN}", out / "run")
    stepwell("train", "export", "--run", out / "run", "--out", out / "exported", "--dtype", "float32")
    Recogniser(HEARD).save(out / "recogniser")
    return out


def rests(
    chain: Path,
    *,
    pack: Part = Part.TRAIN,
    tokenizer: Part = Part.TRAIN,
    corpora: tuple[Part, ...] = tuple(Part)[::2],
    exported: str = "exported",
    recogniser: str = "recogniser",
) -> Rests:
    named = [str(chain / f"corpus-{part}") for part in corpora]
    made = (str(chain / "run"), str(chain / f"pack-{pack}"), str(chain / f"tokenizer-{tokenizer}"))
    return run_rests_on(*made, named, str(chain / exported), chain / recogniser)


@pytest.mark.slow
def test_everything_rests_on_training_takes_alone(chain: Path) -> None:
    found = rests(chain)
    assert found.packed == found.codec
    assert found.recogniser == HEARD
    assert found.packed == {(own.speaker, take) for own in draw_strings(SPEAKERS, FEW)[Part.TRAIN] for take in own.takes}
    for part in (Part.TEST, Part.TUNING):
        found.check(part)
    with pytest.raises(MismatchError, match=r"the pack rests on .* takes of split 'train'"):
        found.check(Part.TRAIN)


@pytest.mark.slow
def test_a_test_take_in_the_codec_or_in_the_pack_is_found(chain: Path) -> None:
    train, test = (Corpus.open(str(chain / f"corpus-{part}")) for part in (Part.TRAIN, Part.TEST))
    with pytest.raises(MismatchError, match=r"the codec rests on .* takes of split 'test'"):
        Rests(corpus_takes(train), corpus_takes(test), HEARD).check(Part.TEST)
    tested = packed_takes(Pack.open(str(chain / f"pack-{Part.TEST}")), test)
    assert tested == {(own.speaker, take) for own in draw_strings(SPEAKERS, FEW)[Part.TEST] for take in own.takes}
    with pytest.raises(MismatchError, match=r"the pack rests on .* takes of split 'test'"):
        Rests(tested, corpus_takes(train), HEARD).check(Part.TEST)


def test_a_test_take_in_the_recogniser_is_found() -> None:
    rests = Rests(frozenset(), frozenset(), HEARD | {("lucas", Take(4, 2))})
    rests.check(Part.TUNING)
    with pytest.raises(MismatchError, match=r"the recogniser rests on 1 takes of split 'test'"):
        rests.check(Part.TEST)


@pytest.mark.slow
def test_what_was_measured_is_the_newest_checkpoint_and_began_with_nothing(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(chain / "exported", tmp_path / "older")
    facts = json.loads((tmp_path / "older" / FACTS).read_text())
    (tmp_path / "older" / FACTS).write_text(json.dumps({**facts, "checkpoint": "00-hear-0000001"}))
    with pytest.raises(MismatchError, match=r"have checkpoint '00-hear-0000001', the run's newest checkpoint '00-hear-0000002'"):
        rests(chain, exported=str(tmp_path / "older"))
    Recogniser().save(tmp_path / "silent")
    with pytest.raises(MismatchError, match="names no takes"):
        rests(chain, recogniser=str(tmp_path / "silent"))
    real = checkpoint.load_state

    def started(path: str) -> checkpoint.CheckpointState:
        state = real(path)
        return replace(state, identity=replace(state.identity, start_digest="ab" * 16))

    monkeypatch.setattr(checkpoint, "load_state", started)
    with pytest.raises(MismatchError, match=r"began with weights abab.* from elsewhere"):
        rests(chain)


@pytest.mark.slow
def test_what_was_not_made_together_is_refused(chain: Path) -> None:
    with pytest.raises(MismatchError, match=r"has pack .* give the one"):
        rests(chain, pack=Part.TEST)
    with pytest.raises(MismatchError, match=r"has codec .* give the one"):
        rests(chain, tokenizer=Part.TEST)
    with pytest.raises(MismatchError, match="is none of those given"):
        rests(chain, corpora=(Part.TEST,))
