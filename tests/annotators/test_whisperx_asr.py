from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotators.whisperx_asr import WhisperxConfig
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch
from manifests.errors import ModelUnavailable

ANY_LANGUAGE = "te"  # what the checkpoint of random weights hears in everything
CLIP_S = 10  # enough for what it writes to have fewer letters than frames


def recognise(config: WhisperxConfig, *clips: Audio) -> list[dict[str, Any]]:
    ids = pa.array([bytes([i]) * 16 for i in range(len(clips))], pa.binary(16))
    return config.build().annotate(ClipBatch(pa.table({"clip_id": ids}), clips, [MODEL_RATE_HZ] * len(clips))).to_pylist()


@pytest.mark.parametrize("model", ["nobody/no-such-model", "large-v3", "no-such-size"])
def test_a_model_that_is_not_here_is_refused_with_the_remedy(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("whisperx")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    named = {"large-v3": "Systran/faster-whisper-large-v3"}.get(model, model)
    with pytest.raises(ModelUnavailable, match=f"'{named}' is not on this machine; fetch it with") as refusal:
        WhisperxConfig(model=model).build().fingerprint()
    assert "\n" not in str(refusal.value)


def lacks_weights(folder: Path) -> None:
    (folder / "model.bin").unlink()


def is_cut_short(folder: Path) -> None:
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:-1000])


def holds_a_pickle(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"\x80\x04K\x01.")


def lacks_its_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("harm", "remedy"),
    [
        (lacks_weights, r"has no model\.bin; give .* or convert one with `ct2-transformers-converter`"),
        (is_cut_short, r"model\.bin is damaged .*; fetch it again"),
        (holds_a_pickle, r"its model\.bin is no file of CTranslate2; give .* or convert one"),
        (lacks_its_tokenizer, r"has no tokenizer\.json; copy that of the checkpoint it was converted from"),
    ],
)
def test_a_bad_checkpoint_is_refused_before_any_audio_is_read(
    harm: Callable[[Path], None], remedy: str, tiny_whisper: str, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(tiny_whisper, folder)
    harm(folder)
    with pytest.raises(ModelUnavailable, match=remedy) as refusal:
        WhisperxConfig(model=str(folder)).build().fingerprint()
    assert "\n" not in str(refusal.value)


def test_an_aligner_that_is_no_ctc_network_is_refused(tiny_whisper: str, tiny_classifier: str) -> None:
    with pytest.raises(ModelUnavailable, match=r"Wav2Vec2ForSequenceClassification, which is no CTC speech recogniser"):
        WhisperxConfig(model=tiny_whisper, align_models={"en": tiny_classifier}).build().fingerprint()


def test_a_gpu_that_is_not_there_is_refused(tiny_whisper: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ModelUnavailable, match="no CUDA GPU; say `device: cpu`"):
        WhisperxConfig(model=tiny_whisper, device="cuda").build().setup()


def test_real_decoding_and_language_detection(tiny_whisper: str, conversation: Audio) -> None:
    detected, again = recognise(WhisperxConfig(model=tiny_whisper, beam_size=2), conversation[:48_000], conversation[:48_000])
    assert detected["status"] == "ok"
    assert detected["text"] == again["text"]
    assert detected["language"] == ANY_LANGUAGE
    assert 1 / 99 < detected["language_prob"] < 0.02  # random weights know one language as well as the other
    assert (detected["words"], detected["num_unaligned_words"], detected["align_error"]) == (None, None, None)
    assert detected["avg_logprob"] < 0
    assert 0.0 <= detected["confidence"] <= 1.0
    assert 0.0 < detected["no_speech_prob"] < 1e-3
    stated = recognise(WhisperxConfig(model=tiny_whisper, beam_size=1, language="de"), conversation[:48_000])[0]
    assert (stated["language"], stated["language_prob"]) == ("de", None)


def test_a_batch_of_several_languages_reads_each_clip_in_its_own(tiny_whisper: str, conversation: Audio) -> None:
    part = WhisperxConfig(model=tiny_whisper, beam_size=1).build()
    part.setup()
    windows, languages = [(row, 0, conversation[:48_000]) for row in range(3)], ["de", None, "zh"]
    together = part._transcribe(windows, languages)
    assert [heard.language for heard in together] == ["de", ANY_LANGUAGE, "zh"]
    assert len({heard.text for heard in together}) > 1  # else this would test nothing
    for window, language, heard in zip(windows, languages, together, strict=True):
        assert heard.text == part._transcribe([window], [language])[0].text


def test_silence_and_clicks_are_not_decoded(tiny_whisper: str) -> None:
    silence, click = recognise(WhisperxConfig(model=tiny_whisper), np.zeros(16_000, np.float32), np.ones(100, np.float32))
    assert (silence["status"], silence["text"], silence["words"], silence["language"]) == ("ok", "", [], None)
    assert click["status"] == "abstained"


def test_a_clip_over_30_s_is_heard_to_its_end(tiny_whisper: str, tiny_ctc: str, conversation: Audio) -> None:
    config = WhisperxConfig(model=tiny_whisper, beam_size=1, language="en", align_models={"en": tiny_ctc}, batch_size=1)
    tail_S = conversation[: CLIP_S * MODEL_RATE_HZ]
    long, head, tail = recognise(config, np.concatenate([conversation, tail_S]), conversation[:480_000], tail_S)
    assert long["text"] == f"{head['text']} {tail['text']}"
    later = [{**word, "start_sample": word["start_sample"] + 480_000} for word in tail["words"]]
    moved = [{**word, "end_sample": word["end_sample"] + 480_000} for word in later]
    assert long["words"] == head["words"] + moved
    assert long["num_unaligned_words"] == 0


def test_words_stand_in_the_clip_in_order(tiny_whisper: str, tiny_ctc: str, conversation: Audio) -> None:
    clip = conversation[: CLIP_S * MODEL_RATE_HZ]
    row = recognise(WhisperxConfig(model=tiny_whisper, align_models={ANY_LANGUAGE: tiny_ctc}), clip)[0]
    assert [word["word"] for word in row["words"]] == row["text"].split()
    assert (row["num_unaligned_words"], row["align_error"]) == (0, None)
    edges = [edge for word in row["words"] for edge in (word["start_sample"], word["end_sample"])]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(clip)
    assert row["confidence"] == pytest.approx(np.mean([word["confidence"] for word in row["words"]]), rel=1e-4)


def test_why_words_have_no_time_is_said(tiny_whisper: str, tiny_ctc: str, conversation: Audio) -> None:
    short, long = conversation[:16_000], conversation[: CLIP_S * MODEL_RATE_HZ]
    crowded = recognise(WhisperxConfig(model=tiny_whisper, align_models={ANY_LANGUAGE: tiny_ctc}), short)[0]
    assert (crowded["words"], crowded["align_error"]) == (None, "more letters than frames")
    assert crowded["num_unaligned_words"] == len(crowded["text"].split())
    foreign = recognise(WhisperxConfig(model=tiny_whisper, align_models={"en": tiny_ctc}), long)[0]
    assert (foreign["words"], foreign["align_error"]) == (None, f"no alignment model for language {ANY_LANGUAGE!r}")
    assert foreign["num_unaligned_words"] == len(foreign["text"].split())


def test_the_fingerprint_is_of_the_weights_not_of_the_place(tiny_whisper: str, tiny_ctc: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_whisper, copy)
    original = WhisperxConfig(model=tiny_whisper).build().fingerprint()
    assert WhisperxConfig(model=str(copy), batch_size=3).build().fingerprint() == original
    assert WhisperxConfig(model=tiny_whisper, beam_size=1).build().fingerprint() != original
    assert WhisperxConfig(model=tiny_whisper, device="cuda").build().fingerprint() == original
    aligned = WhisperxConfig(model=tiny_whisper, align_models={"en": tiny_ctc}).build()
    assert aligned.fingerprint() != original
    assert [model.name for model in aligned.models] == [tiny_whisper, tiny_ctc]
    other = tmp_path / "other"
    shutil.copytree(tiny_whisper, other)
    (other / "model.bin").write_bytes((other / "model.bin").read_bytes()[:-1] + b"x")
    assert WhisperxConfig(model=str(other)).build().fingerprint() != original


def test_a_language_that_the_checkpoint_lacks_is_refused_before_audio(tiny_whisper: str) -> None:
    with pytest.raises(ModelUnavailable, match=r"has no language 'tlh'; it has af, .* name one of these, leave `language` out"):
        WhisperxConfig(model=tiny_whisper, language="tlh").build().setup()


def test_a_checkpoint_of_english_is_asked_for_english_alone(tiny_whisper: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_whisper, tmp_path / "english")
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    assert vocabulary.count("") == 1  # CTranslate2 knows multilingual checkpoints by it
    (folder / "vocabulary.json").write_text(json.dumps(["\u0120english" if token == "" else token for token in vocabulary]))
    WhisperxConfig(model=str(folder), language="en").build().setup()
    with pytest.raises(ModelUnavailable, match="has no language 'de'; it has en: name one of these"):
        WhisperxConfig(model=str(folder), language="de").build().setup()
