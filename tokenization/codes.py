"""The layer of codes: a codec run over clips as an annotator like any other."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from manifests.audio import resample
from manifests.contracts import AudioCodec, ClipBatch, Hearing, ModelFact, Resources, check_codes
from manifests.gates import AnnotatorConfigBase
from manifests.lineage import fingerprint
from manifests.schema import CODES, field
from tokenization.artifact import Tokenizer


class CodesConfig(AnnotatorConfigBase):
    """Codes of a tokenizer's codec; ``tokenizer`` is the URI of its folder."""

    kind: Literal["codes"]
    tokenizer: str

    def build(self) -> CodesAnnotator:
        return CodesAnnotator(self)


class CodesAnnotator:
    """Adds ``codes`` and ``num_codes`` to each clip; abstains on a clip without samples."""

    name = "codes"
    version = "2"
    hears = Hearing.NATIVE  # the rate that a codec takes is its own: 16 or 24 kHz
    reads: tuple[str, ...] = ()
    batch_tolerance = 0.0
    resources = Resources(pool="codec", num_cpus=1.0, memory_bytes=2 << 30, batch_audio_s=300.0)
    adds = pa.schema(
        [
            field("codes", CODES, "codes of the clip, in time order, at the codec's frame rate"),
            field("num_codes", pa.int32(), "length of codes"),
        ]
    )

    def __init__(self, config: CodesConfig) -> None:
        self.config = config
        self._codec: AudioCodec | None = None
        self._fingerprint: str | None = None

    def __reduce__(self) -> tuple[type[CodesAnnotator], tuple[CodesConfig]]:
        return (CodesAnnotator, (self.config,))

    @property
    def models(self) -> tuple[ModelFact, ...]:
        return (ModelFact(self.config.tokenizer, None, Tokenizer.open(self.config.tokenizer).codec_fingerprint, None),)

    def fingerprint(self) -> str:
        """Over the codec alone: another text tokenizer, or the same folder elsewhere, gives the same codes.

        Raises RequestError where there is no tokenizer.
        """
        if self._fingerprint is None:
            codec = Tokenizer.open(self.config.tokenizer).codec_fingerprint
            self._fingerprint = fingerprint(self.name, self.version, {}, weights=codec)
        return self._fingerprint

    def setup(self) -> None:
        """Raises RequestError where there is no tokenizer, ModelUnavailable where its codec's weights are not here,
        MismatchError where they are not those that the tokenizer was made with.
        """
        if self._codec is None:
            self._codec = Tokenizer.open(self.config.tokenizer).loaded_codec()

    def annotate(self, batch: ClipBatch) -> pa.Table:
        """A row a clip. Raises ContractError when a clip's codes have another length or range than the codec states."""
        self.setup()
        assert self._codec is not None
        rates = zip(batch.audio, batch.sample_rates_hz, strict=True)
        heard = [resample(audio, rate, self._codec.sample_rate_hz) for audio, rate in rates]
        pairs = zip(self._codec.encode(heard), heard, strict=True)
        checked = [check_codes(codes, len(audio), self._codec) for codes, audio in pairs]
        rows = [{"codes": codes.tolist(), "num_codes": len(codes)} if len(codes) else None for codes in checked]
        return batch.table(rows, self.adds)
