"""What every segmenter keeps, run against each variant of the catalog."""

from __future__ import annotations

import pickle
import subprocess
import sys
import typing
from typing import Any

import numpy as np
import pytest

from annotators.catalog import SegmenterConfig
from annotators.custom import CustomSegmenterConfig
from annotators.diarization import DiarizationConfig
from annotators.pyannote_pipeline import PyannotePipelineConfig
from annotators.pyannote_vad import PyannoteVadConfig
from annotators.silero import SileroConfig
from annotators.speaker_change import SpeakerChangeConfig
from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio, HeardSpan, ManyChannelSegmenter, Segmenter
from tests.annotators.pyannote_folders import pipeline_folder

# One entry a variant of the union; the first test fails when one is missing. A fixture makes what pyannote_pipeline reads.
CONFIGS: dict[str, Any] = {
    "silero": SileroConfig(),
    "speaker_change": SpeakerChangeConfig(),
    "pyannote": DiarizationConfig(),
    "pyannote_vad": PyannoteVadConfig(),
    "pyannote_pipeline": None,
    "custom": CustomSegmenterConfig(target="annotators.silero:Silero", parameters={"config": SileroConfig()}),
}
HEARS_SPEAKERS = {"pyannote"}
HEARS_TURNS = {"pyannote_pipeline"}  # its embedding is untrained here: turns have labels, and who they are means nothing
HEARS_CHANGES = {"speaker_change"}  # its spans are where voices differ, not where speech is


def variants() -> set[str]:
    union = typing.get_args(typing.get_args(SegmenterConfig)[0])
    return {config.model_fields["kind"].default for config in union}


def test_every_variant_has_an_entry() -> None:
    assert set(CONFIGS) == variants()


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = pipeline_folder(tmp_path_factory.mktemp("pyannote") / "pipeline", segmentation_step=0.5)
    return CONFIGS | {"pyannote_pipeline": PyannotePipelineConfig(model=str(folder))}


@pytest.fixture(scope="module")
def parts(configs: dict[str, Any]) -> dict[str, Segmenter]:
    return {kind: config.build() for kind, config in configs.items()}


@pytest.fixture(params=sorted(CONFIGS))
def part(request: pytest.FixtureRequest, parts: dict[str, Segmenter]) -> Segmenter:
    return parts[request.param]


def heard(part: Segmenter, audio: Audio) -> list[HeardSpan]:
    """The part's spans, checked for what holds of any audio."""
    spans = part.segment(ChannelAudio(b"\0" * 16, 0, audio.astype(np.float32)))
    starts = [found.span.start_sample for found in spans]
    assert starts == sorted(starts)
    assert all(0 <= found.span.start_sample < found.span.end_sample <= len(audio) for found in spans)
    assert all(found.speech_prob is None or 0.0 <= found.speech_prob <= 1.0 for found in spans)
    return spans


def test_satisfies_the_protocol_and_pickles_before_setup(part: Segmenter, configs: dict[str, Any]) -> None:
    assert isinstance(part, Segmenter)
    fresh = configs[part.name].build()
    again = pickle.loads(pickle.dumps(fresh))
    assert (again.name, again.version, again.fingerprint()) == (part.name, part.version, part.fingerprint())
    assert part.resources.num_cpus > 0
    assert part.models
    assert all(model.name and model.digest and model.licence for model in part.models)


@pytest.mark.parametrize("num_samples", [0, 1, 160, 8000, 48_000])
def test_silence_has_no_spans(part: Segmenter, num_samples: int) -> None:
    assert heard(part, np.zeros(num_samples)) == []


def test_one_loud_sample_has_no_spans(part: Segmenter) -> None:
    assert heard(part, np.ones(1)) == []


def test_two_speakers_are_heard(part: Segmenter, conversation: Audio) -> None:
    spans = heard(part, conversation)
    assert sum(found.span.num_samples for found in spans) > (0 if part.name in HEARS_CHANGES else 15 * MODEL_RATE_HZ)
    labels = {found.speaker_label for found in spans}
    if part.name in HEARS_TURNS:
        assert labels == {f"speaker_{i}" for i in range(len(labels))}
    else:
        assert labels == ({"speaker_0", "speaker_1"} if part.name in HEARS_SPEAKERS else {None})
    assert heard(part, conversation) == spans, "a second hearing differs"


def test_many_channels_are_heard_as_each_alone(part: Segmenter, conversation: Audio) -> None:
    if not isinstance(part, ManyChannelSegmenter):
        pytest.skip("hears one channel at a time")
    audio = [
        conversation[:90_000],
        np.zeros(0, np.float32),
        conversation,
        np.zeros(8000, np.float32),
        conversation[50_000:99_000],
    ]
    channels = [ChannelAudio(bytes([i]) * 16, 0, of.astype(np.float32)) for i, of in enumerate(audio)]
    together = part.segment_many(channels)
    assert together == [part.segment(channel) for channel in channels]
    assert together[2]
    assert part.segment_many([]) == []


def test_clipped_speech_is_still_speech(part: Segmenter, conversation: Audio) -> None:
    # A gate of changes hears the whole conversation: five seconds of it may hold one voice.
    piece = conversation if part.name in HEARS_CHANGES else conversation[120_000:200_000]
    assert heard(part, np.clip(piece * 30.0, -1.0, 1.0))


@pytest.mark.parametrize("rate_hz", [8000, 48_000])
def test_other_rates_brought_to_16_khz(part: Segmenter, conversation: Audio, rate_hz: int) -> None:
    piece = resample(resample(conversation, MODEL_RATE_HZ, rate_hz), rate_hz, MODEL_RATE_HZ)
    if part.name in HEARS_CHANGES:
        assert heard(part, piece)
    else:
        piece = piece[120_000:200_000]
        assert sum(found.span.num_samples for found in heard(part, piece)) > len(piece) // 2


def test_import_and_construction_load_no_model_library() -> None:
    code = (
        "import sys; from annotators.catalog import SegmenterConfig, AnnotatorConfig\n"
        "from annotators.diarization import DiarizationConfig; from annotators.silero import SileroConfig\n"
        "DiarizationConfig().build().fingerprint(); SileroConfig().build().fingerprint()\n"
        "from annotators.speaker_change import SpeakerChangeConfig; SpeakerChangeConfig().build().fingerprint()\n"
        "heavy = {'torch', 'ray', 'onnxruntime', 'pyannote.audio', 'whisperx', 'transformers', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
