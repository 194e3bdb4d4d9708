from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from annotators.espeak_voice import EspeakConfig
from annotators.pitch import pitch_hz
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, SynthesisedSpeech
from manifests.errors import ModelUnavailable, WorkError

pytest.importorskip("espeakng_loader")
TEXT = "Hello there, big 23 world. Right; it's done - (well) 3.5 hours!"


def digest(speech: SynthesisedSpeech) -> str:
    return hashlib.sha256(speech.audio.tobytes()).hexdigest()


def test_words_are_those_that_people_write_and_follow_each_other() -> None:
    speech = EspeakConfig().build().synthesise(TEXT)
    assert [word.word for word in speech.words] == [
        "Hello",
        "there",
        "big",
        "23",
        "world",
        "Right",
        "it's",
        "done",
        "well",
        "3.5",
        "hours",
    ]
    edges = [edge for word in speech.words for edge in (word.start_sample, word.end_sample)]
    assert edges == sorted(edges)
    assert edges[-1] <= len(speech.audio)


def test_chinese_words_are_cut_without_spaces_and_english_inside_is_whole() -> None:
    words = [word.word for word in EspeakConfig(voice="cmn").build().synthesise("你好世界，我们去 ABC 学校。").words]
    assert "".join(words) == "你好世界我们去ABC学校"
    assert "ABC" in words
    assert len(words) > 5


def test_sound_is_where_the_words_are() -> None:
    """Between the words of two sentences there is silence, and in every word there is sound."""
    speech = EspeakConfig(voice="de").build().synthesise("Guten Morgen. Schönen Abend.")
    morning, evening = speech.words[1], speech.words[2]
    pause = speech.audio[morning.end_sample + speech.sample_rate_hz // 20 : evening.start_sample]
    assert len(pause) > speech.sample_rate_hz // 10
    assert np.sqrt(np.mean(pause**2)) < 1e-3
    for word in speech.words:
        assert np.sqrt(np.mean(speech.audio[word.start_sample : word.end_sample] ** 2)) > 0.02, word


def test_equal_texts_are_equal_bits_whatever_was_said_before_and_beside() -> None:
    """The library itself says a text a few samples longer or shorter by what it said last."""
    voice = EspeakConfig(variant="f3").build()
    alone = digest(voice.synthesise(TEXT))
    others = [
        EspeakConfig(voice="de", variant="whisper", rate_wpm=300).build(),
        EspeakConfig(voice="fr", variant="croak").build(),
    ]
    with ThreadPoolExecutor(4) as threads:
        said = list(threads.map(lambda n: (voice if n % 2 else others[n % 4 // 2]).synthesise(TEXT), range(24)))
    assert {digest(speech) for speech in said[1::2]} == {alone}
    code = (
        "import hashlib; from annotators.espeak_voice import EspeakConfig; "
        f"print(hashlib.sha256(EspeakConfig(variant='f3').build().synthesise({TEXT!r}).audio.tobytes()).hexdigest())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == alone


def test_settings_do_what_they_say() -> None:
    normal = EspeakConfig(variant="m3").build().synthesise("one two three four five six seven")
    fast = EspeakConfig(variant="m3", rate_wpm=350).build().synthesise("one two three four five six seven")
    assert len(fast.audio) < 0.7 * len(normal.audio)
    low, high = (median_pitch_hz(EspeakConfig(variant="m3", pitch=pitch)) for pitch in (20, 80))
    assert low * 1.5 < high
    assert median_pitch_hz(EspeakConfig(variant="m3")) * 1.3 < median_pitch_hz(EspeakConfig(variant="f2"))


def median_pitch_hz(config: EspeakConfig) -> float:
    speech = config.build().synthesise("oh no no no no")
    return float(np.nanmedian(pitch_hz(resample(speech.audio, speech.sample_rate_hz, MODEL_RATE_HZ))))


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "..."])
def test_what_cannot_be_said_is_refused(text: str) -> None:
    with pytest.raises(WorkError, match="give words"):
        EspeakConfig().build().synthesise(text)


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        (EspeakConfig(voice="xx"), "espeak has no voice 'xx'; give one as"),
        (EspeakConfig(variant="zz"), "espeak variant 'zz' does not exist; there are Alex,"),
    ],
)
def test_voices_that_do_not_exist_are_refused_with_the_remedy(config: EspeakConfig, remedy: str) -> None:
    with pytest.raises(ModelUnavailable, match=remedy):
        config.build().setup()


def test_the_label_says_engine_version_and_voice() -> None:
    voice = EspeakConfig(voice="cmn", variant="f2").build()
    assert voice.label == "espeak-ng 1.52.0 (cmn+f2)"
    assert voice.language == "zh"
