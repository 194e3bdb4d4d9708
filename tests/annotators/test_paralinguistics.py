from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from annotators.asr_schema import ASR_ADDS
from annotators.paralinguistics import ADDS, ParalinguisticsConfig, voted
from annotators.paralinguistics_schema import CLASSIFIER_ADDS, DIMENSIONS, LABELS, age_label, is_label, snake
from annotators.prosody import ADDS as PROSODY
from annotators.rhythm import ADDS as RHYTHM
from annotators.signal import ADDS as SIGNAL
from annotators.sound_gate import ADDS as SOUND_GATE
from annotators.style import ADDS as STYLE
from manifests.contracts import ClipBatch
from manifests.errors import RequestError
from manifests.schema import CLIPS, layer_schema

SCHEMAS = {
    "style": STYLE,
    "prosody": PROSODY,
    "rhythm": RHYTHM,
    "signal": SIGNAL,
    "asr": ASR_ADDS,
    "sound_gate": SOUND_GATE,
}
CLIP = {
    "clip_id": bytes(16),
    "recording_id": bytes(16),
    "channel": 0,
    "sample_rate_hz": 8000,
    "start_sample": 0,
    "end_sample": 32_000,
    "speech_samples": 24_000,
    "overlap_samples": 0,
    "speech_spans": [],
    "overlap_spans": [],
}


def guess(value: str | None, source: str = "m", age_years: float | None = None, **probs: float) -> dict[str, Any]:
    posterior = [{"label": label, "prob": prob} for label, prob in probs.items()]
    return {"value": value, "confidence": max(probs.values()), "posterior": posterior, "source": source, "age_years": age_years}


def said(layers: dict[str, dict[str, Any]], clip: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """The row of a clip with 3 s of speech in 4 s, and these layers."""
    part = ParalinguisticsConfig(**config).build()
    tables = {"clip": pa.Table.from_pylist([{**CLIP, **(clip or {})}], schema=CLIPS)}
    for name in set(part.reads) - {"clip"}:
        row = {"clip_id": bytes(16), "status": "ok", **layers.get(name, {})}
        tables[name] = pa.Table.from_pylist([row], layer_schema(SCHEMAS.get(name, CLASSIFIER_ADDS)))
    row = part.annotate(ClipBatch(tables["clip"], layers=tables)).to_pylist()[0]
    assert set(row) == {"clip_id", "status", "error", *ADDS.names}
    return row


def values(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name]["value"] for name in DIMENSIONS if row[name] and row[name]["value"]}


def test_the_eleven_dimensions_of_the_report() -> None:
    assert len(DIMENSIONS) == 11
    assert all(is_label(dimension, label) for dimension, labels in LABELS.items() for label in labels or ())
    assert [is_label("emotion", label) for label in ("sad", "other", "melancholic")] == [True, True, False]
    assert [is_label("event", label) for label in ("dog_bark", "Dog bark")] == [True, False]
    assert snake("Male speech, man speaking") == "male_speech_man_speaking"
    assert [age_label(years) for years in (0, 12, 13, 17, 18, 59.9, 60)] == ["child"] * 2 + ["teen"] * 2 + ["adult"] * 2 + [
        "elderly"
    ]


def test_what_is_measured() -> None:
    row = said(
        {
            "style": {"pitch_level": "low", "rate_level": "fast"},
            "rhythm": {"npvi": 41.9, "num_pauses": 0, "pause_ratio": 0.0},
            "prosody": {"voiced_ratio": 0.4},
            "signal": {"silence_ratio": 0.2},
        }
    )
    assert values(row) == {"pitch": "low", "rhythm": "even", "speaking_speed": "fast", "vocal_activity": "speech"}
    assert {name: row[name]["source"] for name in values(row)} == {
        "pitch": "style",
        "rhythm": "rhythm",
        "speaking_speed": "style",
        "vocal_activity": "clip",
    }
    assert (row["pitch"]["confidence"], row["pitch"]["posterior"], row["emotion"]) == (None, None, None)


def test_rhythm_at_its_borders() -> None:
    rows = [{"npvi": n, "num_pauses": 0, "pause_ratio": 0.0} for n in (43.9, 44.0, 54.9, 55.0)]
    rows += [{"npvi": 41.0, "num_pauses": p, "pause_ratio": r} for p, r in ((1, 0.5), (2, 0.24), (2, 0.25))]
    rows += [{"npvi": None, "num_pauses": 3, "pause_ratio": 0.3}]
    found = [values(said({"rhythm": row}))["rhythm"] for row in rows]
    assert found == ["even", "moderate", "moderate", "varied", "even", "even", "halting", "halting"]
    assert "rhythm" not in values(said({"rhythm": {"npvi": None, "num_pauses": 0, "pause_ratio": 0.0}}))


def test_without_speech_no_voice_is_described() -> None:
    layers = {"style": {"pitch_level": "low", "rate_level": "slow"}, "signal": {"silence_ratio": 0.3}}
    noise = said(layers, {"speech_samples": 0})
    assert (noise["status"], values(noise)) == ("abstained", {})
    assert values(said(layers, {"speech_samples": 6000})) == {}  # 0.75 s in 4 s: the pitch may be that of the music
    silence = said({"signal": {"silence_ratio": 1.0}}, {"speech_samples": 0})
    assert values(silence) == {"vocal_activity": "silence"}


def test_in_music_and_steady_noise_nothing_of_a_voice_is_measured() -> None:
    layers = {"style": {"pitch_level": "low", "rate_level": "slow"}}
    of_speech = {"pitch": "low", "speaking_speed": "slow", "vocal_activity": "speech"}
    for is_music, is_steady, expected in (
        (True, False, {}),
        (False, True, {}),
        (False, False, of_speech),
        (None, None, of_speech),
    ):
        gate = {"is_music": is_music, "is_steady": is_steady}
        assert values(said({**layers, "sound_gate": gate}, sound_gate="sound_gate")) == expected


def test_a_whisper_is_speech_without_voice_and_has_no_speed_by_voice() -> None:
    layers = {"style": {"rate_level": "slow"}, "prosody": {"voiced_ratio": 0.05}}
    assert values(said(layers)) == {"speaking_style": "whispered", "vocal_activity": "speech"}
    assert "speaking_style" not in values(
        said({"prosody": {"voiced_ratio": 0.08}})
    )  # of 3 s of speech in 4 s: 0.107 of the speech


@pytest.mark.parametrize(
    ("language", "words", "speed"),
    [
        ("en", ["word"] * 7, "slow"),  # 2.33 a second
        ("en", ["word"] * 8, "normal"),
        ("en", ["word"] * 11, "fast"),  # 3.67
        ("zh", ["你好"] * 4 + ["，"], "slow"),  # 2.67 characters a second
        ("zh", ["你"] * 10, "normal"),
        ("zh", ["你好吗"] * 5, "fast"),
        ("fi", ["sana"] * 7, "normal"),  # no borders: by syllables
        ("en", [], "normal"),
    ],
)
def test_speed_by_words_where_an_asr_has_them(language: str, words: list[str], speed: str) -> None:
    heard = {"language": language, "words": [{"word": word} for word in words]}
    row = said({"asr": heard, "style": {"rate_level": "normal"}}, asr="asr")
    assert row["speaking_speed"]["value"] == speed
    assert row["speaking_speed"]["source"] == ("asr" if language != "fi" and words else "style")


def test_layers_that_failed_say_nothing() -> None:
    row = said(
        {}, asr="asr", sound_gate="sound_gate", classifiers={"gender": ["a", "b"], "age": ["c"]}
    )  # all their columns are null
    assert values(row) == {"vocal_activity": "speech"}
    assert (row["gender"], row["age"], row["age_years"]) == (None, None, None)


def test_words_without_a_time_were_said_too() -> None:
    heard = {"language": "en", "words": [{"word": "word"}] * 7, "num_unaligned_words": 4}
    assert values(said({"asr": heard}, asr="asr"))["speaking_speed"] == "fast"


def test_one_classifier_is_taken_as_it_is() -> None:
    heard = {"a": guess("sad", "ser@1", sad=0.7, happy=0.3), "b": guess(None, "g", male=0.55, female=0.45)}
    row = said(heard, classifiers={"emotion": ["a"], "gender": ["b"]})
    emotion, gender = row["emotion"], row["gender"]
    assert (emotion["value"], emotion["source"], emotion["agreement"]) == ("sad", "ser@1", 1.0)
    assert emotion["confidence"] == pytest.approx(0.7)
    # Abstained, and what it thought is kept: also where nothing else is known of the clip.
    alone = said({"b": heard["b"]}, {"speech_samples": 0}, classifiers={"gender": ["b"]})
    assert (alone["status"], alone["gender"]) == ("ok", gender)
    assert (gender["value"], [entry["label"] for entry in gender["posterior"]]) == (None, ["male", "female"])


def test_classifiers_vote() -> None:
    a, b = guess("sad", "a", sad=0.6, happy=0.3, calm=0.1), guess("happy", "b", happy=0.8, sad=0.2)
    c = guess(None, "c", sad=0.5, happy=0.5)
    both = voted("emotion", [a, b])
    assert both is not None
    # The common labels' means: happy 0.55, sad 0.4; half of the voters is no majority.
    assert [(e["label"], pytest.approx(e["prob"])) for e in both["posterior"]] == [("sad", 0.4), ("happy", 0.55)]
    assert (both["value"], both["agreement"], both["source"]) == (None, 0.5, "a + b")
    three = voted("emotion", [guess("happy", happy=0.9, sad=0.1), b, c])
    assert three is not None
    assert (three["value"], three["agreement"]) == ("happy", pytest.approx(2 / 3))
    # Whoever abstains does not make the others abstain; where all do, nothing is stated.
    assert voted("emotion", [c, c])["value"] is None  # type: ignore[index]
    nothing = {"value": None, "posterior": None, "source": None}
    assert voted("emotion", [b, nothing])["source"] == "b"  # type: ignore[index]
    assert voted("emotion", [nothing]) is None
    assert voted("emotion", [guess("sad", sad=1.0), guess("calm", calm=1.0)]) is None  # no common label


def test_a_classifier_speaks_before_the_measurement_and_yields_to_it_where_it_abstains() -> None:
    laughs = said({"v": guess("laughter", laughter=0.9, speech=0.1)}, classifiers={"vocal_activity": ["v"]})
    unsure = said({"v": guess(None, laughter=0.5, speech=0.5)}, classifiers={"vocal_activity": ["v"]})
    assert (laughs["vocal_activity"]["value"], unsure["vocal_activity"]["value"]) == ("laughter", "speech")
    assert unsure["vocal_activity"]["source"] == "clip"


def test_years_come_with_a_stated_age_alone() -> None:
    stated = said({"a": guess("child", age_years=8.0, child=0.9, adult=0.1)}, classifiers={"age": ["a"]})
    unsure = said({"a": guess(None, age_years=None, child=0.5, adult=0.5)}, classifiers={"age": ["a"]})
    assert (stated["age_years"], unsure["age_years"]) == (8.0, None)


def test_a_layer_of_another_dimension_is_an_error_that_says_so() -> None:
    with pytest.raises(RequestError, match="says 'male', which is no emotion"):
        said({"a": guess("male", male=0.9)}, classifiers={"emotion": ["a"]})
    with pytest.raises(RequestError, match="has no posterior"):
        said({"asr": {"text": ""}}, classifiers={"emotion": ["asr"]})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"classifiers": {"mood": ["a"]}}, "Input should be"),
        ({"classifiers": {"emotion": ["a", "a"]}}, "name at least one layer, and none twice"),
        ({"rhythm_even_npvi": 60.0}, "must be below rhythm_varied_npvi"),
    ],
)
def test_a_config_that_cannot_be_meant(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ParalinguisticsConfig(**config)
