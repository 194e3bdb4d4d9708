"""The FSQ codec as a part: 16 kHz audio to 25 codes a second, trained on the user's own corpus.

Importing this module is light; torch loads in ``setup``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from manifests.contracts import MODEL_RATE_HZ, Audio, AudioCodec, ModelFact, Resources, check_codes
from manifests.errors import ContractError, MismatchError, ModelUnavailable
from manifests.ids import digest_bytes
from manifests.lineage import fingerprint
from manifests.recipes import RecipeModel, decode_recipe
from manifests.store import Store, json_bytes
from tokenization.mel import HOP_SAMPLES, griffin_lim, log_mel
from tokenization.vocabulary import NUM_CODES

if TYPE_CHECKING:
    from tokenization.fsq import FsqNetwork

CONFIG = "codec.json"
WEIGHTS = "codec.safetensors"
FRAME_SAMPLES = 4 * HOP_SAMPLES  # 40 ms


class FsqConfig(RecipeModel):
    """Shape of the FSQ codec's network; ``codec.json`` is this and nothing else."""

    num_mels: int = Field(default=80, ge=20, le=128)
    width: int = Field(default=256, ge=16, le=2048)
    encoder_blocks: int = Field(default=3, ge=1, le=32)
    decoder_blocks: int = Field(default=4, ge=1, le=32)


class FsqCodec:
    """Satisfies ``manifests.contracts.AudioCodec``; reads ``codec.json`` and ``codec.safetensors`` of a folder."""

    name = "fsq"
    version = "1"
    frame_rate_hz = MODEL_RATE_HZ / FRAME_SAMPLES
    num_codes = NUM_CODES
    sample_rate_hz = MODEL_RATE_HZ
    resources = Resources(pool="codec", num_cpus=1.0, memory_bytes=1 << 30, batch_audio_s=300.0)

    def __init__(self, folder_uri: str) -> None:
        self.folder_uri = folder_uri
        self._network: FsqNetwork | None = None
        self._num_mels = 0
        self._fingerprint: str | None = None

    def __reduce__(self) -> tuple[type[FsqCodec], tuple[str]]:
        # Weights do not travel between processes; each loads its own.
        return (FsqCodec, (self.folder_uri,))

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (ModelFact(self.folder_uri, None, digest_bytes(self._read(WEIGHTS)).hex(), None),)

    def fingerprint(self) -> str:
        """Over the code's version, the configuration and the weights.

        Raises ModelUnavailable where the files are absent, MismatchError where the configuration is cut.
        """
        if self._fingerprint is None:
            config, weights = self._read(CONFIG), self._read(WEIGHTS)
            try:
                shape = json.loads(config)
            except ValueError as error:
                raise MismatchError(
                    f"codec {self.folder_uri!r}: {CONFIG} is damaged ({error}); restore the file, or train the tokenizer again"
                ) from error
            self._fingerprint = fingerprint(self.name, self.version, shape, digest_bytes(weights).hex())
        return self._fingerprint

    def setup(self) -> None:
        """Raises ModelUnavailable where the files are absent, MismatchError where weights do not fit the configuration."""
        if self._network is not None:
            return
        from safetensors.torch import load

        config = decode_recipe(FsqConfig, self._read(CONFIG).decode(), CONFIG)
        network = build_network(config)
        try:
            network.load_state_dict(load(self._read(WEIGHTS)))
        except RuntimeError as error:
            raise MismatchError(
                f"codec {self.folder_uri!r}: {WEIGHTS} does not fit {CONFIG} ({' '.join(str(error).split())[:200]}); "
                "train the tokenizer again"
            ) from error
        self._network, self._num_mels = network.eval(), config.num_mels

    def expected_frames(self, num_samples: int) -> int:
        """``ceil(num_samples / 640)``: the last frame is filled with silence; no samples, no frames."""
        return -(-num_samples // FRAME_SAMPLES)

    def encode(self, audio: Sequence[Audio]) -> list[np.ndarray]:
        """Codes uint16 ``[F]`` of each item at 16 kHz; each item runs alone, so that no other can move its bits."""
        self.setup()
        return [check_codes(self._encode(item), len(item), self) for item in audio]

    def decode(self, codes: np.ndarray) -> Audio:
        """Audio float32 ``[640 F]`` for codes ``[F]``: the decoder's mel through Griffin-Lim.

        Raises ContractError for a code that does not exist.
        """
        import torch

        self.setup()
        assert self._network is not None
        if len(codes) == 0:
            return np.zeros(0, np.float32)
        check_decodable(codes, self)
        with torch.inference_mode(), one_thread():
            mel = self._network.decode(torch.from_numpy(np.asarray(codes, np.int64))[None])[0].numpy()
        return griffin_lim(mel)

    def _encode(self, item: Audio) -> np.ndarray:
        import torch

        assert self._network is not None
        if len(item) == 0:
            return np.zeros(0, np.uint16)
        mel = log_mel(padded(item), self._num_mels)
        with torch.inference_mode(), one_thread():
            codes = self._network.encode(torch.from_numpy(mel)[None])[0]
        return codes.numpy().astype(np.uint16)

    def _read(self, name: str) -> bytes:
        try:
            return Store(self.folder_uri).read(name)
        except FileNotFoundError as error:
            raise ModelUnavailable(
                f"codec: {name} is not in {self.folder_uri!r}; train one with `stepwell tokenizer train CORPUS --out DIR`"
            ) from error


def check_decodable(codes: np.ndarray, codec: AudioCodec) -> None:
    """Raises ContractError for a code that the codec does not have; codes ``[F]``, F > 0."""
    lowest, highest = int(np.min(codes)), int(np.max(codes))
    if lowest < 0 or highest >= codec.num_codes:
        raise ContractError(
            f"codec {codec.name!r}: codes from {lowest} to {highest}; they are 0..{codec.num_codes - 1}: "
            "give the codes as this codec made them"
        )


def padded(item: Audio) -> Audio:
    """The item with silence behind it up to whole code frames."""
    return np.pad(np.asarray(item, np.float32), (0, -len(item) % FRAME_SAMPLES))


def build_network(config: FsqConfig) -> FsqNetwork:
    """An untrained network of that shape."""
    from tokenization.fsq import FsqNetwork

    return FsqNetwork(config.num_mels, config.width, config.encoder_blocks, config.decoder_blocks)


def save_codec(store: Store, config: FsqConfig, network: FsqNetwork) -> None:
    """Write ``codec.json`` and ``codec.safetensors``."""
    from safetensors.torch import save

    weights: dict[str, Any] = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    store.write(CONFIG, json_bytes(config.model_dump(mode="json")))
    store.write(WEIGHTS, save(weights))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside the block: the order of a sum, and with it a code on an edge, depends on the threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
