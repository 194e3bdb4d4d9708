"""A tokenizer on disk: what ``tokenizer train`` writes and everything else opens.

    tokenizer.json        head: format, tokenizer_id, what each part is and its hash, lineage
    text_tokenizer.json   the BPE, as `tokenizers` writes it
    codec.json            FSQ codec: its configuration and mel statistics (kind fsq)
    codec.safetensors     FSQ codec: its weights (kind fsq)
    codec_reader.*        what supervised the FSQ codec: reads words off its codes (where its clips had any)
    recipe.json           the resolved recipe
    metrics.json          final figures; metrics.jsonl has the curve

The head is written last, so a folder with a head is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from manifests.contracts import AudioCodec
from manifests.errors import MismatchError, RequestError, StepwellError
from manifests.ids import digest_bytes, digest_json
from manifests.store import Store, json_bytes
from tokenization.interleave import Ratio
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary

FORMAT_VERSION = 1
HEAD = "tokenizer.json"
TEXT = "text_tokenizer.json"
ID_CHARS = 16


@dataclass(frozen=True)
class CodecFacts:
    """What the head says of the codec. ``weights``: a file of the folder (fsq) or a local path elsewhere (s3, mimi)."""

    kind: str
    weights: str
    fingerprint: str
    frame_rate_hz: float
    num_codes: int
    sample_rate_hz: int


@dataclass(frozen=True)
class Head:
    """``tokenizer.json``."""

    tokenizer_id: str
    text_file: str
    text_digest: str
    vocabulary: Vocabulary
    ratio: Ratio
    codec: CodecFacts
    lineage: Mapping[str, Any]

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Head:
        """Of what ``write_tokenizer`` wrote. Raises what Python does where something of it is not there."""
        return Head(
            tokenizer_id=value["tokenizer_id"],
            text_file=value["text"]["file"],
            text_digest=value["text"]["digest"],
            vocabulary=Vocabulary.from_json(value["vocabulary"]),
            ratio=Ratio.parse(value["interleave"]["ratio"]),
            codec=CodecFacts(**value["codec"]),
            lineage=value["lineage"],
        )


@dataclass(frozen=True)
class Tokenizer:
    """An opened tokenizer folder. Light: the codec's weights load in ``loaded_codec()``; picklable."""

    uri: str
    tokenizer_id: str
    text: TextTokenizer
    vocabulary: Vocabulary
    ratio: Ratio
    codec_facts: CodecFacts
    lineage: Mapping[str, Any]

    @staticmethod
    def open(uri: str) -> Tokenizer:
        """The tokenizer in a folder, on any fsspec URI.

        Raises RequestError where there is none, MismatchError when a file is not the one that the head was written for.
        """
        store = Store(uri)
        head = read_head(store)
        if head is None:
            raise RequestError(
                f"no tokenizer at {uri!r} (no {HEAD}); make one with `stepwell tokenizer train CORPUS --out {uri}`"
            )
        data = _part(store, head.text_file)
        if (digest := digest_bytes(data).hex()) != head.text_digest:
            raise MismatchError(
                f"tokenizer {uri!r}: {head.text_file} has digest {digest}, the head states {head.text_digest}; "
                "train the tokenizer again or restore the file"
            )
        text = TextTokenizer(data.decode())
        found = tokenizer_id(text, head.vocabulary, head.ratio, head.codec)
        if found != head.tokenizer_id:
            raise MismatchError(
                f"tokenizer {uri!r}: its parts make the id {found}, the head states {head.tokenizer_id}; train it again"
            )
        opened = Tokenizer(store.uri, found, text, head.vocabulary, head.ratio, head.codec, head.lineage)
        if head.codec.kind == "fsq":  # its weights are files of the folder; those of others may lie on other machines only
            opened._check(opened.codec())
        return opened

    @property
    def codec_fingerprint(self) -> str:
        """Fingerprint of the codec's weights and configuration; packs and checkpoints carry it."""
        return self.codec_facts.fingerprint

    def metrics(self) -> dict[str, Any] | None:
        """Figures of the codec's training as in ``metrics.json``; None for a codec that was not trained here."""
        try:
            found: dict[str, Any] = json.loads(Store(self.uri).read("metrics.json"))
        except FileNotFoundError:
            return None
        return found

    def codec(self) -> AudioCodec:
        """A codec of its own for the caller, not yet set up; ``loaded_codec`` is the one to make codes with."""
        if self.codec_facts.kind == "fsq":
            from tokenization.codec import FsqCodec

            return FsqCodec(self.uri)
        if self.codec_facts.kind == "mimi":
            from tokenization.mimi import MimiCodec, MimiConfig

            return MimiCodec(MimiConfig(kind="mimi", checkpoint=self.codec_facts.weights))
        from tokenization.s3 import S3Codec, S3Config

        return S3Codec(S3Config(kind="s3", weights_path=self.codec_facts.weights))

    def loaded_codec(self) -> AudioCodec:
        """A codec of its own for the caller, set up, with the weights that the head was written for.

        Raises ModelUnavailable where the weights are absent, MismatchError where they are others: their codes would be
        taken for those of the stated fingerprint.
        """
        codec = self.codec()
        self._check(codec)
        codec.setup()
        return codec

    def _check(self, codec: AudioCodec) -> None:
        found = codec.fingerprint()
        if found != self.codec_fingerprint:
            raise MismatchError(
                f"tokenizer {self.uri!r}: codec files have fingerprint {found}, the head states {self.codec_fingerprint}; "
                f"train the tokenizer again or restore {self.codec_facts.weights}"
            )


def codec_facts(kind: str, weights: str, codec: AudioCodec) -> CodecFacts:
    """What the head says of a codec that can be fingerprinted (its weights are there)."""
    return CodecFacts(kind, weights, codec.fingerprint(), codec.frame_rate_hz, codec.num_codes, codec.sample_rate_hz)


def tokenizer_id(text: TextTokenizer, vocabulary: Vocabulary, ratio: Ratio, codec: CodecFacts) -> str:
    """16 hex characters over everything that decides which ids come out. Where the codec's weights lie does not."""
    content = {
        "text": text.digest,
        "vocabulary": vocabulary.layout_hash,
        "ratio": str(ratio),
        "codec": [codec.kind, codec.fingerprint],
    }
    return digest_json(content)[:ID_CHARS]


def read_head(store: Store) -> Head | None:
    """The head, or None where there is no tokenizer.

    Raises RequestError for a format of another version, MismatchError where it is not whole.
    """
    try:
        data = store.read(HEAD)
    except FileNotFoundError:
        return None
    with _parsing(store):
        value = dict(json.loads(data))
    if (version := value.get("format_version")) != FORMAT_VERSION:
        # A bare Qwen tokenizer.json is the likeliest file to be taken for a tokenizer folder's head.
        raise RequestError(
            f"tokenizer {store.uri!r} has format {version!r}; this version reads {FORMAT_VERSION}, "
            "a folder that `stepwell tokenizer train` wrote"
        )
    with _parsing(store):
        return Head.from_json(value)


@contextmanager
def _parsing(store: Store) -> Iterator[None]:
    """Raises MismatchError where the head, read in the block, is not as it was written."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, StepwellError) as error:
        raise MismatchError(
            f"tokenizer {store.uri!r}: {HEAD} is damaged ({type(error).__name__}: {error}); restore the file, or remove it and train again"
        ) from error


def write_tokenizer(
    store: Store,
    text: TextTokenizer,
    vocabulary: Vocabulary,
    ratio: Ratio,
    codec: CodecFacts,
    lineage: Mapping[str, Any],
) -> str:
    """Write the BPE and the head over what lies in the folder already (codec files, metrics); returns the tokenizer id.

    Raises MismatchError when the text ids or the codes do not fit the vocabulary.
    """
    check_text(text, vocabulary)
    if codec.num_codes != vocabulary.num_codes:
        raise MismatchError(f"codec has {codec.num_codes} codes, the vocabulary {vocabulary.num_codes}; they must be equal")
    made = tokenizer_id(text, vocabulary, ratio, codec)
    head = {
        "format_version": FORMAT_VERSION,
        "tokenizer_id": made,
        "text": {"file": TEXT, "digest": text.digest, "vocab_size": text.vocab_size},
        "vocabulary": vocabulary.to_json(with_hash=True),
        "interleave": {"ratio": str(ratio)},
        "codec": dict(codec.__dict__),
        "lineage": dict(lineage),
    }
    store.write(TEXT, text.data.encode())
    store.write(HEAD, json_bytes(head))
    return made


def check_text(text: TextTokenizer, vocabulary: Vocabulary) -> None:
    """Raises MismatchError where the text's ids reach into the vocabulary's own, or the two disagree on what an id is.

    The published checkpoint's file names specials and codes itself: they are held against the table.
    """
    codes = {f"<audio_{code}>": vocabulary.audio_base + code for code in range(vocabulary.num_codes + 1)}
    ids = {**dict(vocabulary.specials), **codes}
    names = {number: token for token, number in ids.items()}
    for token, number in text.added.items():
        if ids.get(token, number) != number or names.get(number, token) != token:
            raise MismatchError(
                f"text tokenizer: {token!r} is {number}; in the vocabulary it is {ids.get(token)}, and {number} is {names.get(number)!r}: "
                "use a tokenizer that the vocabulary is laid out for"
            )
    if text.bpe_size > vocabulary.text_size:
        raise MismatchError(
            f"text tokenizer has {text.bpe_size} ids, the vocabulary room for {vocabulary.text_size}; use one laid out for it"
        )


def _part(store: Store, path: str) -> bytes:
    try:
        return store.read(path)
    except FileNotFoundError as error:
        raise MismatchError(
            f"tokenizer {store.uri!r}: its head names {path}, which is not there; restore it or train again"
        ) from error
