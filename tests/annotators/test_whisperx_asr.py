from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from annotators.whisperx_asr import WhisperxConfig
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch
from manifests.errors import ModelUnavailable


@pytest.fixture
def sentence_splitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nltk's English sentence splitter without a single abbreviation: its files, empty."""
    import nltk

    folder = tmp_path / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (folder / name).touch()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])


def make_tiny_aligner(folder: Path) -> str:
    """A wav2vec2 CTC checkpoint over letters with random weights."""
    import json

    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    letters = ["<pad>", "<unk>", "|", "'", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=MODEL_RATE_HZ, do_normalize=False)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    convolutions = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), **sizes, **convolutions)).save_pretrained(folder)
    return str(folder)


def recognise(config: WhisperxConfig, *clips: Audio) -> list[dict[str, Any]]:
    ids = pa.array([bytes([i]) * 16 for i in range(len(clips))], pa.binary(16))
    return config.build().annotate(ClipBatch(pa.table({"clip_id": ids}), clips, [MODEL_RATE_HZ] * len(clips))).to_pylist()


@pytest.mark.parametrize("model", ["nobody/no-such-model", "large-v3", "no-such-size"])
def test_a_model_that_is_not_here_is_refused_with_the_remedy(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("whisperx")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match=f"'{model}' is not on this machine; fetch it with") as refusal:
        WhisperxConfig(model=model).build().setup()
    assert "\n" not in str(refusal.value)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"does not load.*give a folder with a CTranslate2 Whisper checkpoint"):
        WhisperxConfig(model=str(tmp_path)).build().setup()


def test_real_decoding_and_language_detection(tiny_whisper: str, conversation: Audio) -> None:
    detected, again = recognise(WhisperxConfig(model=tiny_whisper, beam_size=2), conversation[:48_000], conversation[:48_000])
    assert detected["status"] == "ok"
    assert detected["text"] == again["text"]
    assert len(detected["language"]) in (2, 3)
    assert detected["words"] is None
    assert detected["avg_logprob"] < 0
    assert 0.0 <= detected["confidence"] <= 1.0
    assert recognise(WhisperxConfig(model=tiny_whisper, beam_size=1, language="de"), conversation[:48_000])[0]["language"] == "de"


def test_silence_and_clicks_are_not_decoded(tiny_whisper: str) -> None:
    silence, click = recognise(WhisperxConfig(model=tiny_whisper), np.zeros(16_000, np.float32), np.ones(100, np.float32))
    assert (silence["status"], silence["text"], silence["words"], silence["language"]) == ("ok", "", [], None)
    assert click["status"] == "abstained"


def test_a_clip_over_30_s_is_heard_to_its_end(tiny_whisper: str, conversation: Audio) -> None:
    config = WhisperxConfig(model=tiny_whisper, beam_size=1, language="en")
    long, head, tail = recognise(
        config, np.concatenate([conversation, conversation[:32_000]]), conversation[:480_000], conversation[:32_000]
    )
    assert long["text"] == f"{head['text']} {tail['text']}".strip()


def test_alignment_gives_words_in_the_clip(
    tiny_whisper: str, conversation: Audio, tmp_path: Path, sentence_splitter: None
) -> None:
    part = WhisperxConfig(model=tiny_whisper, beam_size=1, language="en", align_model=make_tiny_aligner(tmp_path)).build()
    part.setup()
    audio = conversation[:160_000]
    words = part._words(
        audio, [(0, "hello there"), (80_000, "general kenobi")]
    )  # what the tiny Whisper writes is too long for any audio
    assert words is not None
    assert [word.word for word in words] == ["hello", "there", "general", "kenobi"]
    edges = [edge for word in words for edge in (word.start_sample, word.end_sample)]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(audio)
    assert part._words(audio, [(0, "a" * 1000)]) is None
    assert part._words(audio, [(0, "")]) == []


def test_alignment_without_its_data_is_refused_before_the_work(
    tiny_whisper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    config = WhisperxConfig(model=tiny_whisper, language="en", align_model=make_tiny_aligner(tmp_path))
    with pytest.raises(ModelUnavailable, match=r"nltk\.downloader punkt_tab"):
        config.build().setup()


def test_alignment_needs_a_stated_language() -> None:
    with pytest.raises(ValidationError, match=r"knows one language; state it as `language`"):
        WhisperxConfig(align_model="x")


def test_the_fingerprint_is_of_the_weights_not_of_the_place(tiny_whisper: str, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_whisper, copy)
    original = WhisperxConfig(model=tiny_whisper).build().fingerprint()
    assert WhisperxConfig(model=str(copy), batch_size=3).build().fingerprint() == original
    assert WhisperxConfig(model=tiny_whisper, beam_size=1).build().fingerprint() != original
    assert WhisperxConfig(model=tiny_whisper, device="cuda").build().fingerprint() != original
    other = tmp_path / "other"
    shutil.copytree(tiny_whisper, other)
    (other / "model.bin").write_bytes((other / "model.bin").read_bytes()[:-1] + b"x")
    assert WhisperxConfig(model=str(other)).build().fingerprint() != original


def test_a_model_that_is_not_here_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The fingerprint needs the weights: a build with this part stops before it writes anything."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="is not on this machine"):
        WhisperxConfig(model="nobody/nothing").build().fingerprint()
