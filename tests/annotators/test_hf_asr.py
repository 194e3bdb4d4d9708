from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from annotators.checkpoints import find_checkpoint
from annotators.ctc_network import timed
from annotators.hf_asr import HfAsrConfig
from annotators.hf_ctc_reader import likeliest_labels, split
from annotators.hf_whisper_reader import WhisperReader, token_frames
from annotators.whisperx_asr import WhisperxConfig
from manifests.contracts import MODEL_RATE_HZ, Audio, ClipBatch
from manifests.errors import ModelUnavailable
from manifests.gates import AnnotatorConfigBase

ANY_LANGUAGE = "te"  # what the checkpoint of random weights hears in everything


def recognise(config: AnnotatorConfigBase, *clips: Audio) -> list[dict[str, Any]]:
    ids = pa.array([bytes([i]) * 16 for i in range(len(clips))], pa.binary(16))
    batch = ClipBatch(pa.table({"clip_id": ids}), clips, [MODEL_RATE_HZ] * len(clips))
    rows = config.build().annotate(batch).to_pylist()  # type: ignore[attr-defined]  # every annotator's config has it
    return [{name: value for name, value in row.items() if name != "clip_id"} for row in rows]


def edited(folder: str, copy: Path, name: str, **changes: Any) -> str:
    """A copy of a checkpoint with changes in one of its JSON files; None takes a key out."""
    shutil.copytree(folder, copy)
    kept = {**json.loads((copy / name).read_text()), **changes}
    (copy / name).write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
    return str(copy)


def test_two_readers_of_one_whisper_checkpoint_agree(
    tiny_whisper: str, tiny_whisper_checkpoint: str, conversation: Audio
) -> None:
    """CTranslate2 and transformers: the same text, language, and probabilities."""
    clips = conversation[:160_000], conversation[160_000:200_000]
    ours = recognise(HfAsrConfig(model=tiny_whisper_checkpoint), *clips)
    theirs = recognise(WhisperxConfig(model=tiny_whisper, beam_size=1), *clips)
    for one, other in zip(ours, theirs, strict=True):
        assert (one["text"], one["language"]) == (other["text"], other["language"])
        assert one["text"]
        assert one["language_prob"] == pytest.approx(other["language_prob"], rel=1e-4)
        assert one["no_speech_prob"] == pytest.approx(other["no_speech_prob"], rel=1e-3)
        # CTranslate2 counts probabilities after the tokens that may not be written are taken out.
        assert one["avg_logprob"] == pytest.approx(other["avg_logprob"], abs=0.1)


def test_a_batch_of_several_languages_reads_each_clip_in_its_own(tiny_whisper_checkpoint: str, conversation: Audio) -> None:
    reader = WhisperReader(find_checkpoint(tiny_whisper_checkpoint), "cpu", "float32", 1, None, with_words=True)
    clip, languages = conversation[:160_000], ["de", None, "zh"]
    together = reader.read([clip] * 3, languages)
    assert [heard.language for heard, _ in together] == ["de", ANY_LANGUAGE, "zh"]
    assert len({heard.text for heard, _ in together}) > 1  # else this would test nothing
    for language, (heard, _) in zip(languages, together, strict=True):
        assert heard.text == reader.read([clip], [language])[0][0].text


def test_words_of_whisper_are_its_text_in_order(tiny_whisper_checkpoint: str, conversation: Audio) -> None:
    clip = conversation[:160_000]
    row = recognise(HfAsrConfig(model=tiny_whisper_checkpoint, language="en"), clip)[0]
    assert [word["word"] for word in row["words"]] == row["text"].split()
    assert (row["language"], row["language_prob"]) == ("en", None)
    assert (row["num_unaligned_words"], row["align_error"]) == (0, None)
    edges = [edge for word in row["words"] for edge in (word["start_sample"], word["end_sample"])]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(clip)


def test_a_clip_over_30_s_is_heard_to_its_end(tiny_whisper_checkpoint: str, conversation: Audio) -> None:
    config = HfAsrConfig(model=tiny_whisper_checkpoint)
    tail_S = conversation[:160_000]
    long, head, tail = recognise(config, np.concatenate([conversation, tail_S]), conversation, tail_S)
    assert long["text"] == f"{head['text']} {tail['text']}"
    assert [word["start_sample"] for word in long["words"]] == [
        *(word["start_sample"] for word in head["words"]),
        *(word["start_sample"] + 480_000 for word in tail["words"]),
    ]


def test_words_that_were_not_asked_for_are_null(tiny_whisper_checkpoint: str, conversation: Audio) -> None:
    row = recognise(HfAsrConfig(model=tiny_whisper_checkpoint, words=False), conversation[:32_000])[0]
    assert (row["words"], row["num_unaligned_words"], row["align_error"]) == (None, None, None)
    assert row["confidence"] == pytest.approx(np.exp(row["avg_logprob"]))


def test_why_whisper_words_have_no_time_is_said(tiny_whisper_checkpoint: str, conversation: Audio, tmp_path: Path) -> None:
    crowded = recognise(HfAsrConfig(model=tiny_whisper_checkpoint), conversation[:4800])[0]
    assert (crowded["words"], crowded["align_error"]) == (None, "more tokens than frames")
    assert crowded["num_unaligned_words"] == len(crowded["text"].split())
    headless = edited(tiny_whisper_checkpoint, tmp_path / "headless", "generation_config.json", alignment_heads=None)
    row = recognise(HfAsrConfig(model=headless), conversation[:160_000])[0]
    assert (row["words"], row["align_error"]) == (None, "no alignment heads in the checkpoint's generation_config.json")


def test_tokens_lie_where_the_decoder_looked() -> None:
    """Silence for 20 frames, a token of 15 frames, a pause of 10, and a token of 25; then nobody speaks."""
    looked_TF = np.full((3, 90), 0.01)
    looked_TF[0, 20:35] = looked_TF[1, 45:70] = 0.2
    looked_TF[2] += 0.02  # while it writes the end it looks nowhere in particular
    assert token_frames(looked_TF[None]) == [(20, 35), (45, 70)]
    assert token_frames(looked_TF[None, :, :1]) is None


def test_ctc_words_have_the_frames_of_their_letters(tiny_ctc: str, conversation: Audio) -> None:
    clips = conversation[:32_000], conversation[32_000:64_000], conversation[:24_000]
    rows = recognise(HfAsrConfig(model=tiny_ctc, language="en", batch_size=2), *clips)
    for row, clip in zip(rows, clips, strict=True):
        assert row["text"] == " ".join(word["word"] for word in row["words"])
        assert row["language"] == "en"
        edges = [edge for word in row["words"] for edge in (word["start_sample"], word["end_sample"])]
        assert edges == sorted(edges)
        assert 0 <= edges[0] < edges[-1] <= len(clip)
        assert row["avg_logprob"] < 0
        alone = recognise(HfAsrConfig(model=tiny_ctc, language="en"), clip)[0]
        assert (alone["text"], alone["avg_logprob"]) == (row["text"], pytest.approx(row["avg_logprob"], abs=1e-4))


@pytest.mark.parametrize(
    ("frames", "is_spaceless", "words"),
    [
        ("_hh_i_|_tto|o_", False, [("hi", 1, 5), ("to", 8, 11), ("o", 12, 13)]),
        ("__▁a_b▁▁c_", False, [("ab", 2, 6), ("c", 6, 9)]),
        ("_你_好好_", True, [("你", 1, 2), ("好", 3, 5)]),
        ("_____", False, []),
    ],
)
def test_words_are_split_where_the_labels_say(frames: str, is_spaceless: bool, words: list[tuple[str, int, int]]) -> None:
    """One label a frame, ``_`` is the blank."""
    labels = ["_", *sorted(set(frames) - {"_"})]
    log_probs_FV = np.log(np.full((len(frames), len(labels)), 0.01))
    log_probs_FV[np.arange(len(frames)), [labels.index(label) for label in frames]] = np.log(0.5)
    spoken = likeliest_labels(log_probs_FV, dict(enumerate(labels[1:], start=1)))
    found = [
        timed("".join(label for label, _ in word), [span for _, span in word], 100.0) for word in split(spoken, is_spaceless)
    ]
    assert [(word.word, word.start_sample // 100, word.end_sample // 100) for word in found] == words
    assert all(word.confidence == pytest.approx(0.5) for word in found)


def is_cut_short(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])


def is_newer(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text()) | {"model_type": "whisper9", "transformers_version": "99.0"}
    (folder / "config.json").write_text(json.dumps(settings))


def has_no_decoder(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text()) | {"architectures": ["WhisperForAudioClassification"]}
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("harm", "remedy"),
    [
        (is_cut_short, r"model\.safetensors is damaged .*; fetch it again"),
        (is_newer, r"'whisper9', which this transformers does not know; .* install transformers >= 99\.0"),
        (has_no_decoder, r"WhisperForAudioClassification, which is no Whisper speech recogniser; give one"),
    ],
)
def test_a_bad_checkpoint_is_refused_before_any_audio_is_read(
    harm: Callable[[Path], None], remedy: str, tiny_whisper_checkpoint: str, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(tiny_whisper_checkpoint, folder)
    harm(folder)
    with pytest.raises(ModelUnavailable, match=remedy) as refusal:
        HfAsrConfig(model=str(folder)).build().fingerprint()
    assert "\n" not in str(refusal.value)


def test_a_path_that_is_not_there_and_a_classifier_are_refused(tiny_classifier: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no such folder exists; mend the path or give a hub id"):
        HfAsrConfig(model=str(tmp_path / "nowhere")).build().fingerprint()
    with pytest.raises(ModelUnavailable, match="Wav2Vec2ForSequenceClassification, which is no CTC speech recogniser"):
        HfAsrConfig(model=tiny_classifier).build().fingerprint()


def test_a_checkpoint_that_lacks_its_head_or_languages_is_refused(
    tiny_ctc: str, tiny_whisper_checkpoint: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    headless = tmp_path / "headless"
    shutil.copytree(tiny_ctc, headless)
    weights = load_file(headless / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "lm_head" not in name}, headless / "model.safetensors")
    with pytest.raises(ModelUnavailable, match=r"lacks the weights 'lm_head\.bias'; give one that was trained"):
        HfAsrConfig(model=str(headless)).build().setup()
    mute = edited(tiny_whisper_checkpoint, tmp_path / "mute", "generation_config.json", lang_to_id=None)
    with pytest.raises(ModelUnavailable, match=r"no lang_to_id in its generation_config\.json; take the file from"):
        HfAsrConfig(model=mute).build().setup()
    with pytest.raises(ModelUnavailable, match="has no language 'tlh'; it has af, am"):
        HfAsrConfig(model=tiny_whisper_checkpoint, language="tlh").build().setup()


def test_a_gpu_that_is_not_there_is_refused(tiny_ctc: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ModelUnavailable, match="no CUDA GPU; say `device: cpu`"):
        HfAsrConfig(model=tiny_ctc, device="cuda", dtype="float16").build().setup()
    with pytest.raises(ValidationError, match="needs device: cuda; on a CPU say float32"):
        HfAsrConfig(model=tiny_ctc, dtype="float16")
