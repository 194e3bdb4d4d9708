"""Checkpoints for timing, made on this machine: speed and agreement of two wrappers do not need a network that knows anything.

The CTC network and the classifier have the published size of wav2vec2-base (95 million weights) and random weights, as good
as any where nothing is generated. Whisper writes until it says that it is done, so a small one is trained
(``tests/checkpoints``, minutes once a machine).
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests.contracts import MODEL_RATE_HZ, Audio
from tests.checkpoints.spoken_words import HELD_OUT_SPEAKERS, phrases
from tests.checkpoints.trained import trained

BELOW = Path(__file__).parent / "results" / "checkpoints"  # git-ignored
LABELS = ["<pad>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
EVENTS = {0: "speech", 1: "music"}


def ctc_folder() -> str:
    """A ``Wav2Vec2ForCTC`` over English letters."""
    return _made("ctc", _write_ctc)


def classifier_folder() -> str:
    """A ``Wav2Vec2ForSequenceClassification`` of EVENTS."""
    return _made("classifier", _write_classifier)


def whisper_folder(form: str) -> str:
    """A trained Whisper, in the form ``transformers`` or ``ctranslate2``."""
    BELOW.mkdir(parents=True, exist_ok=True)
    return str(trained("whisper", BELOW) / form)


def phrase_clips(minutes: float) -> list[Audio]:
    """Speech of the words that the trained Whisper knows, by voices that it was not trained on."""
    clips: list[Audio] = []
    for phrase in phrases(math.ceil(minutes * 60), seed=5, speakers=HELD_OUT_SPEAKERS):
        if sum(map(len, clips)) >= minutes * 60 * MODEL_RATE_HZ:
            break
        clips.append(phrase.audio)
    return clips


def _made(name: str, write: Callable[[Path], None]) -> str:
    folder = BELOW / name
    if not folder.exists():
        BELOW.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=BELOW))
        write(making)
        os.replace(making, folder)  # whole or not at all
    return str(folder)


def _write_ctc(folder: Path) -> None:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC, Wav2Vec2Processor

    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(LABELS), pad_token_id=0)).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({label: number for number, label in enumerate(LABELS)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    Wav2Vec2Processor(_extractor(), tokenizer).save_pretrained(folder)


def _write_classifier(folder: Path) -> None:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(0)
    config = Wav2Vec2Config(id2label=EVENTS, label2id={label: number for number, label in EVENTS.items()})
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    _extractor().save_pretrained(folder)


def _extractor() -> Any:
    from transformers import Wav2Vec2FeatureExtractor

    return Wav2Vec2FeatureExtractor(sampling_rate=MODEL_RATE_HZ, return_attention_mask=False)
