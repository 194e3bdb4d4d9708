"""``tokenizer check``: are the files those the head was written for, and do the codes of a corpus fit its clips."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from manifests.audio import AudioReader, resample
from manifests.clip_texts import SOURCE
from manifests.contracts import Audio, AudioCodec
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.store import Store
from tokenization.artifact import Tokenizer
from tokenization.code_reader import CodeReader
from tokenization.codec_clips import clip_texts
from tokenization.codec_measures import code_stability, code_statistics, text_errors

LAYER = "codes"
SAMPLE_CLIPS = 16
TEXT_FROM = (SOURCE, "asr")  # words of the clips, from the first that has any; what the corpus lacks is left out


@dataclass(frozen=True)
class LayerCheck:
    """How a layer of codes fits the clips and the codec."""

    layer: str
    num_clips: int
    num_without_codes: int  # rows with a status other than ok
    num_wrong_length: int
    num_out_of_range: int
    num_encoded_again: int
    num_changed: int  # of the clips encoded again, those whose codes came out otherwise
    # Of the clips encoded again: share of their codes that come back when they are decoded and encoded once more (None for
    # a codec that does not decode), and errors of what the codec's own reader spells, against the corpus' words (None
    # where there are no words, or no reader: nothing supervised the codec).
    stability: float | None
    letter_error: float | None
    word_error: float | None
    codebook_use: float
    perplexity: float
    num_codes: int

    @property
    def is_sound(self) -> bool:
        return not (self.num_wrong_length or self.num_out_of_range or self.num_changed)


@dataclass(frozen=True)
class CheckResult:
    """What ``check_tokenizer`` found. The hashes fit, or it raised."""

    tokenizer_uri: str
    tokenizer_id: str
    layout_hash: str
    codec_kind: str
    codec_fingerprint: str
    layer: LayerCheck | None

    def to_json(self) -> dict[str, Any]:
        """The result for machines; ``is_sound`` is what decides the exit code."""
        return {**asdict(self), "is_sound": self.layer is None or self.layer.is_sound}

    def lines(self) -> list[str]:
        """The result for people."""
        lines = [
            f"tokenizer {self.tokenizer_uri} ({self.tokenizer_id}): files fit the head",
            f"  vocabulary layout {self.layout_hash}, codec {self.codec_kind} {self.codec_fingerprint}",
        ]
        if found := self.layer:
            lines += [
                f"layer {found.layer}: {found.num_clips} clips, {found.num_codes} codes, {found.num_without_codes} without codes",
                f"  {found.num_wrong_length} of wrong length, {found.num_out_of_range} out of range",
                f"  {found.num_encoded_again} encoded again, {found.num_changed} came out otherwise",
                *([] if found.stability is None else [f"  {found.stability:.1%} of their codes come back through decoding"]),
                *([] if found.word_error is None else [_text_line(found)]),
                f"  {found.codebook_use:.1%} of the codes in use, perplexity {found.perplexity:.0f}",
            ]
        return lines


def check_tokenizer(tokenizer_uri: str, corpus_uri: str | None = None, layer: str = LAYER) -> CheckResult:
    """Hashes of the folder; with a corpus also lengths, range, use and stability of its layer of codes.

    Raises RequestError where either is absent, ModelUnavailable where the codec's weights are, MismatchError where files
    do not fit the head.
    """
    tokenizer = Tokenizer.open(tokenizer_uri)
    facts, codec = tokenizer.codec_facts, tokenizer.loaded_codec()
    found = _check_layer(tokenizer, codec, Corpus.open(corpus_uri), layer) if corpus_uri else None
    return CheckResult(
        tokenizer.uri, tokenizer.tokenizer_id, tokenizer.vocabulary.layout_hash, facts.kind, facts.fingerprint, found
    )


def _check_layer(tokenizer: Tokenizer, codec: AudioCodec, corpus: Corpus, layer: str) -> LayerCheck:
    if layer not in corpus.layers():
        raise RequestError(
            f"corpus {corpus.store.uri!r} has no layer {layer!r} (it has {sorted(corpus.layers())}); "
            f"run `stepwell tokenizer encode {corpus.store.uri} --tokenizer {tokenizer.uri}`"
        )
    clips, rows = corpus.clips().to_pylist(), corpus.layer(layer).to_pylist()
    counts = np.zeros(codec.num_codes, np.int64)
    wrong_length = out_of_range = 0
    coded: list[int] = []
    for index, (clip, row) in enumerate(zip(clips, rows, strict=True)):
        if row["status"] != "ok":
            continue
        coded.append(index)
        codes = np.asarray(row["codes"], np.int64)
        wrong_length += len(codes) != codec.expected_frames(_num_heard(clip, codec.sample_rate_hz))
        inside = codes < codec.num_codes
        out_of_range += not bool(inside.all())
        counts += np.bincount(codes[inside], minlength=codec.num_codes)
    again = [coded[i] for i in np.unique(np.linspace(0, len(coded) - 1, SAMPLE_CLIPS).astype(int))] if coded else []
    stored = corpus.audio()
    audio = [_heard(stored, clips[i], codec.sample_rate_hz) for i in again]
    encoded = codec.encode(audio)
    changed = [codes.tolist() != rows[i]["codes"] for i, codes in zip(again, encoded, strict=True)]
    texts = clip_texts(corpus, [origin for origin in TEXT_FROM if origin in (SOURCE, *corpus.layers())])
    reader = CodeReader.open(Store(tokenizer.uri))
    errors = text_errors((texts[i] or "", reader.read(codes)) for i, codes in zip(again, encoded, strict=True) if reader)
    return LayerCheck(
        layer=layer,
        num_clips=len(clips),
        num_without_codes=len(clips) - len(coded),
        num_wrong_length=wrong_length,
        num_out_of_range=out_of_range,
        num_encoded_again=len(again),
        num_changed=sum(changed),
        stability=code_stability(codec, encoded),
        num_codes=int(counts.sum()),
        **code_statistics(counts),
        letter_error=errors["letter_error"],
        word_error=errors["word_error"],
    )


def _num_heard(clip: dict[str, Any], to_rate: int) -> int:
    """Samples of a clip as the codec hears it: soxr rounds the resampled length to the nearest, halves up."""
    rate = clip["sample_rate_hz"]
    return (2 * (clip["end_sample"] - clip["start_sample"]) * to_rate + rate) // (2 * rate)


def _heard(stored: AudioReader, clip: dict[str, Any], to_rate: int) -> Audio:
    rate = clip["sample_rate_hz"]
    audio = stored.read(clip["recording_id"], clip["channel"], rate, clip["start_sample"], clip["end_sample"])
    return resample(audio, rate, to_rate)


def _text_line(found: LayerCheck) -> str:
    return f"  read off them: {found.letter_error:.1%} of the letters wrong, {found.word_error:.1%} of the words"
