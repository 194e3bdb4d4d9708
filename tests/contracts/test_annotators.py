"""What every annotator keeps, run against each variant of the catalog and the layer of codes."""

from __future__ import annotations

import pickle
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from annotators.audio_classifier import AudioClassifierConfig
from annotators.caption import CaptionConfig
from annotators.catalog import AnnotatorConfig
from annotators.consensus import ConsensusConfig
from annotators.content import ContentConfig
from annotators.custom import CustomAnnotatorConfig
from annotators.dnsmos import DnsmosConfig
from annotators.fitted_classifier import FittedClassifierConfig
from annotators.hf_asr import HfAsrConfig
from annotators.integrity import IntegrityConfig
from annotators.linear_classifier import Feature, FeatureLayer, save_classifier
from annotators.paralinguistics import ParalinguisticsConfig
from annotators.pocketsphinx_asr import PocketsphinxConfig
from annotators.prosody import ProsodyConfig
from annotators.rhythm import RhythmConfig
from annotators.signal import SignalConfig
from annotators.sound_gate import SoundGateConfig
from annotators.speaker_embedding import SpeakerEmbeddingConfig
from annotators.spectrum import NUM_VALUES as SPECTRUM_VALUES
from annotators.spectrum import SpectrumConfig
from annotators.style import StyleConfig
from annotators.text_facts import TextConfig
from annotators.whisperx_asr import WhisperxConfig
from manifests.audio import resample
from manifests.contracts import FACTS, MODEL_RATE_HZ, Annotator, Audio, ClipBatch, Hearing
from manifests.ids import clip_id
from manifests.schema import CLIPS, RECORDINGS, check_table, layer_schema
from manifests.store import Store
from pipeline.classifier_fit import Examples, fit
from pipeline.fit_classifier import card_of
from tokenization.artifact import codec_facts, write_tokenizer
from tokenization.codec import WEIGHTS, FsqCodec, FsqConfig, build_network, save_codec
from tokenization.codes import CodesAnnotator, CodesConfig
from tokenization.interleave import Ratio
from tokenization.text import MIN_VOCAB_SIZE, TextTokenizer
from tokenization.vocabulary import Vocabulary

# One entry a variant of the union; the first test fails when one is missing. Fixtures make what
# whisperx and codes read.
CONFIGS: dict[str, Any] = {
    "content": ContentConfig(),
    "dnsmos": DnsmosConfig(),
    "integrity": IntegrityConfig(),
    "pocketsphinx": PocketsphinxConfig(),
    "prosody": ProsodyConfig(),
    "signal": SignalConfig(),
    "sound_gate": SoundGateConfig(),
    "speaker_embedding": SpeakerEmbeddingConfig(),
    "style": StyleConfig(),
    "spectrum": SpectrumConfig(),
    "text": TextConfig(),
    "consensus": ConsensusConfig(layers=("asr", "asr_b")),
    "rhythm": RhythmConfig(),
    "paralinguistics": ParalinguisticsConfig(asr="asr"),
    "caption": CaptionConfig(),
    "custom": CustomAnnotatorConfig(target="annotators.signal:Signal", parameters={"config": SignalConfig()}),
    "whisperx": None,
    "hf_asr": None,
    "audio_classifier": None,
    "fitted_classifier": None,
    "codes": None,
}
# What makes the layers that parts read, by the name they are read by.
READ_LAYERS: dict[str, Any] = {
    "prosody": ProsodyConfig(),
    "spectrum": SpectrumConfig(),
    "style": StyleConfig(),
    "signal": SignalConfig(),
    "rhythm": RhythmConfig(),
    "paralinguistics": ParalinguisticsConfig(),
    "asr": PocketsphinxConfig(),
    "asr_b": PocketsphinxConfig(max_active_hmms=1000),
}
_LAYERS: dict[tuple[str, tuple[bytes, ...]], pa.Table] = {}
RECORDING = b"\1" * 16


def variants() -> set[str]:
    union = typing.get_args(typing.get_args(AnnotatorConfig)[0])
    return {config.model_fields["kind"].default for config in union}


def test_every_variant_has_an_entry() -> None:
    assert set(CONFIGS) == variants() | {CodesAnnotator.name}


@pytest.fixture(scope="module")
def tokenizer_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer with a small codec of random weights."""
    import torch

    store = Store(str(tmp_path_factory.mktemp("tokenizer")))
    config = FsqConfig(num_mels=40, width=32, encoder_blocks=1, decoder_blocks=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_codec(store, config, build_network(config))
    text = TextTokenizer.train(["the cat sat on the mat"], MIN_VOCAB_SIZE)
    facts = codec_facts("fsq", WEIGHTS, FsqCodec(store.uri))
    write_tokenizer(store, text, Vocabulary.small(text.vocab_size), Ratio(), facts, {})
    return store.uri


@pytest.fixture(scope="module")
def fitted_classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classifier of gender over `spectrum`, fitted on random numbers."""
    folder = str(tmp_path_factory.mktemp("fitted"))
    random, labels = np.random.default_rng(0), np.array(["female", "male"] * 100)
    features = random.normal(size=(200, SPECTRUM_VALUES)) + 2.0 * (labels == "male")[:, None]
    groups, sizes = np.array([f"s{i // 10}" for i in range(200)]), np.full(SPECTRUM_VALUES, SPECTRUM_VALUES)
    examples = Examples(features, labels, groups, sizes)
    fitted, read = fit(examples, 0.9), [Feature(layer="spectrum", column="spectrum", width=SPECTRUM_VALUES)]
    layers = {"spectrum": FeatureLayer(fingerprint="0" * 16, part="spectrum", version="1", models=[])}
    save_classifier(folder, card_of("gender", read, layers, fitted, examples, 0.9, "CC0-1.0"), fitted.model)
    return folder


@pytest.fixture(scope="module")
def configs(
    tiny_whisper: str, tiny_whisper_checkpoint: str, tiny_classifier: str, fitted_classifier: str, tokenizer_uri: str
) -> dict[str, Any]:
    return CONFIGS | {
        "whisperx": WhisperxConfig(model=tiny_whisper, beam_size=2, batch_size=4),
        "hf_asr": HfAsrConfig(model=tiny_whisper_checkpoint, beam_size=2, batch_size=4),
        "audio_classifier": AudioClassifierConfig(dimension="event", model=tiny_classifier),
        "fitted_classifier": FittedClassifierConfig(model=fitted_classifier),
        "codes": CodesConfig(kind="codes", tokenizer=tokenizer_uri),
    }


@pytest.fixture(scope="module")
def parts(configs: dict[str, Any]) -> dict[str, Annotator]:
    return {kind: config.build() for kind, config in configs.items()}


@pytest.fixture(params=sorted(CONFIGS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def part(kind: str, parts: dict[str, Annotator]) -> Annotator:
    return parts[kind]


@pytest.fixture(scope="module")
def clips(conversation: Audio) -> list[tuple[Audio, int]]:
    """(audio, rate): two speakers, one alone, clipped, 8 kHz, 48 kHz, silence, one sample, none."""
    alone = conversation[350_000:390_000]
    return [
        (conversation[120_000:184_000], MODEL_RATE_HZ),
        (alone, MODEL_RATE_HZ),
        (np.clip(alone * 30.0, -1.0, 1.0).astype(np.float32), MODEL_RATE_HZ),
        (resample(alone, MODEL_RATE_HZ, 8000), 8000),
        (resample(alone, MODEL_RATE_HZ, 48_000), 48_000),
        (np.zeros(16_000, np.float32), MODEL_RATE_HZ),
        (np.ones(1, np.float32), MODEL_RATE_HZ),
        (np.zeros(0, np.float32), MODEL_RATE_HZ),
    ]


def batch_of(part: Annotator, clips: Sequence[tuple[Audio, int]]) -> ClipBatch:
    """The batch that an engine would hand to the part; layers that it reads are made by their annotators, once for all parts."""
    rows, start = [], 0
    for audio, rate in clips:
        end = start + len(audio)
        rows.append(
            {
                "clip_id": clip_id(RECORDING, 0, rate, start, end),
                "recording_id": RECORDING,
                "channel": 0,
                "sample_rate_hz": rate,
                "start_sample": start,
                "end_sample": end,
                "speech_samples": len(audio),
                "overlap_samples": 0,
                "speech_spans": [{"start_sample": 0, "end_sample": len(audio)}] if len(audio) else [],
                "overlap_spans": [],
            }
        )
        start = end
    table = pa.Table.from_pylist(rows, schema=CLIPS)
    heard, rates = hearing(part, clips)
    read = {name: table if name == "clip" else layer_of(name, clips, table) for name in part.reads}
    return ClipBatch(table, heard, rates, read)


def hearing(part: Annotator, clips: Sequence[tuple[Audio, int]]) -> tuple[list[Audio], list[int]]:
    """What the part hears of the clips, with the rates."""
    if part.hears is Hearing.NOTHING:
        return [], []
    if part.hears is Hearing.NATIVE:
        return [audio for audio, _ in clips], [rate for _, rate in clips]
    return [resample(audio, rate, MODEL_RATE_HZ) for audio, rate in clips], [MODEL_RATE_HZ] * len(clips)


def layer_of(name: str, clips: Sequence[tuple[Audio, int]], table: pa.Table) -> pa.Table:
    """Rows of a layer that some part reads; ``recording`` is RECORDINGS with a row for each clip."""
    if name == "recording":
        return recordings_of(clips)
    key = (name, tuple(table["clip_id"].to_pylist()))
    if key not in _LAYERS:
        part = READ_LAYERS[name].build()
        below = {read: table if read == "clip" else layer_of(read, clips, table) for read in part.reads}
        _LAYERS[key] = part.annotate(ClipBatch(table, *hearing(part, clips), below))
    return _LAYERS[key]


def recordings_of(clips: Sequence[tuple[Audio, int]]) -> pa.Table:
    rows = [
        {
            "recording_id": RECORDING,
            "num_samples": len(audio),
            "sample_rate_hz": rate,
            "num_channels": 1,
            "heard_channels": [0],
            "source_sample_rate_hz": rate,
            "codec": "pcm_16",
            "container": "wav",
            "stored_bits": 16,
            "stored_scale": 1.0,
            "peak": float(np.abs(audio).max(initial=0.0)),
            "rms_dbfs": -30.0,
            "bandwidth_hz": rate / 2,
            "declared_num_samples": len(audio),
            "is_truncated": False,
            "is_interleaved": False,
        }
        for audio, rate in clips
    ]
    return pa.Table.from_pylist(rows, schema=RECORDINGS)


class Answers(dict[str, pa.Table]):
    """What each part says of the clips, asked the first time that somebody looks."""

    def __init__(self, parts: dict[str, Annotator], clips: list[tuple[Audio, int]]) -> None:
        super().__init__()
        self._parts, self._clips = parts, clips

    def __missing__(self, kind: str) -> pa.Table:
        part = self._parts[kind]
        self[kind] = part.annotate(batch_of(part, self._clips))
        return self[kind]


@pytest.fixture(scope="module")
def answers(parts: dict[str, Annotator], clips: list[tuple[Audio, int]]) -> dict[str, pa.Table]:
    return Answers(parts, clips)


def test_satisfies_the_protocol_and_pickles_before_setup(kind: str, part: Annotator, configs: dict[str, Any]) -> None:
    assert isinstance(part, Annotator)
    again = pickle.loads(pickle.dumps(configs[kind].build()))
    assert (again.name, again.version, again.fingerprint()) == (part.name, part.version, part.fingerprint())
    assert all(f.metadata and f.metadata[b"description"] for f in part.adds)
    assert all(model.name and model.digest for model in part.models)


def test_declared_columns_and_no_others_one_row_a_clip_in_order(
    kind: str, part: Annotator, answers: dict[str, pa.Table], clips: list[tuple[Audio, int]]
) -> None:
    table = check_table(answers[kind], layer_schema(part.adds), kind)
    assert table.column("clip_id").to_pylist() == batch_of(part, clips).clips.column("clip_id").to_pylist()
    assert set(table.column("status").to_pylist()) <= {"ok", "abstained"}


def test_speech_gets_values_and_nothing_gets_none(kind: str, part: Annotator, answers: dict[str, pa.Table]) -> None:
    rows = answers[kind].to_pylist()
    assert rows[0]["status"] == "ok"
    assert any(rows[0][name] is not None for name in part.adds.names)
    assert rows[-1]["status"] == "abstained"
    assert all(rows[-1][name] is None for name in part.adds.names)


def test_no_value_is_nan_or_infinite(kind: str, answers: dict[str, pa.Table]) -> None:
    assert all(map(np.isfinite, floats_in(answers[kind].to_pylist())))


def floats_in(value: Any) -> list[float]:
    """The floats in a value, at any depth."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [number for each in inner for number in floats_in(each)]
    return [value] if isinstance(value, float) else []


def test_empty_batch(kind: str, part: Annotator) -> None:
    table = part.annotate(batch_of(part, []))
    assert check_table(table, layer_schema(part.adds), kind).num_rows == 0


def test_rows_of_an_error_or_a_gate_in_what_is_read_are_abstentions(
    kind: str, part: Annotator, clips: list[tuple[Audio, int]], answers: dict[str, pa.Table]
) -> None:
    batch = batch_of(part, clips)
    layers = [name for name in part.reads if name not in FACTS]
    if not layers:
        return
    for lost in (*((name,) for name in layers), layers):
        tables = {**batch.layers, **{name: without_values(batch.layers[name]) for name in lost}}
        table = part.annotate(ClipBatch(batch.clips, batch.audio, batch.sample_rates_hz, tables))
        check_table(table, layer_schema(part.adds), kind)
        assert len(table) == len(clips)
    if part.hears is Hearing.NOTHING and len(layers) == len(part.reads):  # nothing is left that it could speak of
        assert set(table["status"].to_pylist()) == {"abstained"}
        assert answers[kind]["status"][0].as_py() == "ok"


def without_values(layer: pa.Table) -> pa.Table:
    """The rows of a layer as the engine writes them where a part failed: every column but the keys is null."""
    rows = [{"clip_id": clip, "status": "error", "error": "it failed"} for clip in layer["clip_id"].to_pylist()]
    return pa.Table.from_pylist(rows, schema=layer.schema)


def test_batch_of_one_equals_batch_of_many(kind: str, part: Annotator, answers: dict[str, pa.Table], clips: Any) -> None:
    whole = batch_of(part, clips)
    for i, expected in enumerate(answers[kind].to_pylist()):
        alone = part.annotate(whole.slice(i, 1)).to_pylist()[0]
        for name, value in expected.items():
            assert alone[name] == _within(value, part.batch_tolerance), name


def _within(value: Any, tolerance: float) -> Any:
    """What equals the value but for its floats, at any depth, which may differ by the tolerance."""
    if isinstance(value, dict):
        return {name: _within(inner, tolerance) for name, inner in value.items()}
    if isinstance(value, list):
        return [_within(inner, tolerance) for inner in value]
    return pytest.approx(value, abs=tolerance, rel=0.0) if isinstance(value, float) else value
