"""What every test folder shares: thread counts and the material beside the checkout."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from pipeline.recipe import BuildRecipe

# Before any test imports numpy or torch: their pools read these once. Telemetry stays off (DESIGN section 5).
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OTEL_SDK_DISABLED"] = "true"
os.environ["PYANNOTE_METRICS_ENABLED"] = "0"

# Two busy cores make any deadline a matter of luck; what hypothesis looks for is in the values.
settings.register_profile("stepwell", deadline=None)
settings.load_profile("stepwell")

REPOSITORY = Path(__file__).parents[1]
WHISPER_LANGUAGES = 99
WHISPER_TEXT_TOKENS = 50_257
WHISPER_TIMESTAMPS = 1501
WRITING_METHODS = ("PUT", "POST", "DELETE")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the checkout (testdata, speech); skips where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("test material is not here: no folder `shared` beside the checkout")
    return folder


@pytest.fixture(scope="session")
def conversation() -> np.ndarray:
    """The conversation that ships in pyannote.audio: float32 [S], 30 s, two speakers, 16 kHz."""
    import soundfile

    from annotators.weights import packaged_path

    audio, rate = soundfile.read(packaged_path("pyannote", "audio", "sample", "sample.wav"), dtype="float32")
    assert rate == 16_000
    return audio


Application = Callable[[dict[str, Any], Any], Iterable[bytes]]  # WSGI


@contextmanager
def _serving(application: Application) -> Iterator[str]:
    """Address on loopback at which the application answers."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None: ...

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def serve() -> Iterator[Callable[[Application], str]]:
    """``serve(application)``: the address at which a WSGI application answers until the test ends."""
    with ExitStack() as stack:
        yield lambda application: stack.enter_context(_serving(application))


class S3:
    """moto's S3 on loopback. ``s3://`` URIs reach it from this process and from those it starts, by the environment."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def bucket(self) -> str:
        """URI of a new, empty bucket, without a slash at its end."""
        import fsspec

        uri = f"s3://test-{uuid.uuid4().hex[:12]}"
        fsspec.filesystem("s3").mkdir(uri)
        return uri


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 server: ``f"{s3.bucket()}/corpus"`` is a store, a source, an output; see ``S3``."""
    import s3fs
    from moto.server import DomainDispatcherApplication, create_backend_app

    backend, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_writer_at_a_time(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        # S3 decides a conditional put atomically; moto looks and then writes, so two threads of it could both win.
        if environ["REQUEST_METHOD"] in WRITING_METHODS:
            with lock:
                return list(backend(environ, start_response))
        return backend(environ, start_response)

    # No profile and no metadata service of the machine that runs the tests plays a part.
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with _serving(one_writer_at_a_time) as address, pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield S3(one_writer_at_a_time)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3_at(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """``s3_at(address)``: until the test ends, ``s3://`` is what answers there, e.g. ``serve`` of a wrapped application."""
    import s3fs

    def point(address: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        s3fs.S3FileSystem.clear_instance_cache()

    yield point
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def tiny_whisper_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a transformers Whisper checkpoint with random weights: real loading and decoding, no meaning.

    The vocabulary has the published multilingual size and order; its text part is the 256 bytes, fillers, and the empty token
    by which CTranslate2 tells multilingual checkpoints.
    """
    pytest.importorskip("whisperx")
    import torch
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    codes = [code for code in _LANGUAGE_CODES if code != "yue"][:WHISPER_LANGUAGES]
    special = ["endoftext", "startoftranscript", *codes, "translate", "transcribe", "startoflm", "startofprev"]
    special = [f"<|{name}|>" for name in (*special, "nospeech", "notimestamps")]
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = [*bytes_, *(f"Ġw{i}" for i in range(WHISPER_TEXT_TOKENS - len(bytes_) - 1)), ""]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(text)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*special, *(f"<|{i * 0.02:.2f}|>" for i in range(WHISPER_TIMESTAMPS))])

    torch.manual_seed(7)
    ids = {token: tokenizer.token_to_id(token) for token in special}
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        **{f"{name}_token_id": ids["<|endoftext|>"] for name in ("bos", "eos", "pad")},
    )
    network = WhisperForConditionalGeneration(config)
    with torch.no_grad():  # what is written ends after 20 tokens: an empty text or an endless one would test little
        end = network.model.decoder.embed_tokens.weight[ids["<|endoftext|>"]].normal_(std=config.init_std)
        network.model.decoder.embed_positions.weight[24:] += 100 * end
    network.generation_config._from_model_config = False  # what is set here, and not what the network's config implies
    wordless = range(ids["<|startoftranscript|>"], tokenizer.get_vocab_size())
    network.generation_config.suppress_tokens = [tokenizer.token_to_id(""), *wordless]
    network.generation_config.begin_suppress_tokens = [ids["<|endoftext|>"]]
    network.generation_config.lang_to_id = {f"<|{code}|>": ids[f"<|{code}|>"] for code in codes}
    network.generation_config.alignment_heads = [[0, 0], [0, 1]]
    folder = str(tmp_path_factory.mktemp("whisper"))
    network.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_whisper(tiny_whisper_checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same checkpoint as CTranslate2 reads it."""
    pytest.importorskip("whisperx")
    from ctranslate2.converters import TransformersConverter

    converted = tmp_path_factory.mktemp("whisper") / "ctranslate2"
    TransformersConverter(tiny_whisper_checkpoint, copy_files=["tokenizer.json"]).convert(str(converted))
    return str(converted)


@pytest.fixture(scope="session")
def tiny_ctc(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a wav2vec2 CTC checkpoint over letters and digits with random weights."""
    pytest.importorskip("transformers")
    import json

    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder = tmp_path_factory.mktemp("ctc")
    letters = ["<pad>", "<unk>", "|", "'", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None)
    tokenizer.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    convolutions = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), **sizes, **convolutions)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a wav2vec2 classifier that was trained to tell a tone from noise: labels "Pure tone" and "White noise"."""
    pytest.importorskip("transformers")
    import numpy as np
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    names = ["Pure tone", "White noise"]
    convolutions = {"conv_dim": (16, 16), "conv_kernel": (40, 16), "conv_stride": (20, 8), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "classifier_proj_size": 16,
    }
    no_dropout = dict.fromkeys(("mask_time_prob", "hidden_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.0)
    config = Wav2Vec2Config(
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        **convolutions,
        **positions,
        **sizes,
        **no_dropout,
    )
    features = Wav2Vec2FeatureExtractor()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, random = Wav2Vec2ForSequenceClassification(config), np.random.default_rng(0)
        optimiser, seconds = torch.optim.Adam(network.parameters(), 3e-3), np.arange(8000) / 16_000
        for _ in range(45):
            tones = [np.sin(2 * np.pi * hz * seconds) * random.uniform(0.05, 0.5) for hz in random.uniform(150, 2000, 8)]
            noises = [random.normal(0.0, level, len(seconds)) for level in random.uniform(0.02, 0.2, 8)]
            heard = features([np.float32(x_S) for x_S in (*tones, *noises)], sampling_rate=16_000, return_tensors="pt")
            optimiser.zero_grad()
            network(**heard, labels=torch.tensor([0] * 8 + [1] * 8)).loss.backward()
            optimiser.step()
    folder = str(tmp_path_factory.mktemp("classifier"))
    network.save_pretrained(folder)
    features.save_pretrained(folder)
    return folder


# Small real recordings and small real recipes: parts that need no heavy model, on speech that ships with the wheels.
RECIPE = """
name: light
units: {max_inputs: 1}
segmenters: {vad: {kind: silero}}
clip_set: {turns: null}
annotators: {signal: {kind: signal}, prosody: {kind: prosody}, style: {kind: style}}
"""


@pytest.fixture(scope="session")
def light() -> Callable[..., BuildRecipe]:
    """``light(**changes)``: a recipe without diarization and ASR, with some fields replaced."""
    import yaml

    from manifests.recipes import decode_recipe
    from pipeline.recipe import BuildRecipe

    return lambda **changes: decode_recipe(BuildRecipe, yaml.safe_dump({**yaml.safe_load(RECIPE), **changes}), "light")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings: two utterances, ten seconds of conversation at 8 kHz, a tone; and a file that is not audio."""
    import numpy as np
    import soundfile

    from pipeline.shipped_speech import conversation_path, utterances_folder

    folder = tmp_path_factory.mktemp("recordings")
    for name in ("BAC009S0764W0121.wav", "BAC009S0764W0122.wav"):
        shutil.copy(Path(utterances_folder()) / name, folder)
    audio, rate = soundfile.read(conversation_path(), dtype="float32")
    soundfile.write(folder / "conversation.wav", audio[: 20 * rate : rate // 8000][-80_000:], 8000)
    soundfile.write(folder / "tone.flac", 0.1 * np.sin(np.arange(32_000) * 0.3), 16_000)
    (folder / "broken.wav").write_bytes(b"not audio at all")
    return folder


def _tables(uri: str) -> dict[str, pa.Table]:
    """Every table of a corpus' newest snapshot."""
    from manifests.corpus import Corpus

    corpus = Corpus.open(uri)
    found = {
        "inputs": corpus.inputs(),
        "recordings": corpus.recordings(),
        "quarantine": corpus.quarantine(),
        "clips": corpus.clips(),
    }
    segmenters = [output.removeprefix("spans/") for output in corpus.snapshot.current if output.startswith("spans/")]
    return {
        **found,
        **{name: corpus.spans(name) for name in segmenters},
        **{f"layer {name}": corpus.layer(name) for name in corpus.layers()},
    }


def _committed_bytes(uri: str) -> dict[tuple[str, str, str, str], str]:
    """(output, fingerprint, unit, role) -> digest of the committed object."""
    from manifests.commits import list_commits, read_commit
    from manifests.store import Store

    store = Store(uri)
    found = {}
    for (output, fingerprint), units in list_commits(store).items():
        for unit in units:
            commit = read_commit(store, output, fingerprint, unit)
            assert commit is not None
            found |= {(output, fingerprint, unit, role): fact.digest for role, fact in commit.objects.items()}
    return found


def _assert_equal(left: str, right: str) -> None:
    assert _committed_bytes(left) == _committed_bytes(right)
    ours, theirs = _tables(left), _tables(right)
    assert ours.keys() == theirs.keys()
    for name, table in ours.items():
        assert table.equals(theirs[name]), name


@pytest.fixture(scope="session")
def assert_equal_corpora() -> Callable[[str, str], None]:
    """Same commits with the same bytes, and the same rows in the same order."""
    return _assert_equal


@pytest.fixture(scope="session")
def rows_of() -> Callable[[str], dict[str, Any]]:
    """Every row of the newest snapshot's tables, by table."""
    return lambda uri: {name: table.to_pylist() for name, table in _tables(uri).items()}
