"""``tokenizer train``: from a corpus to a tokenizer folder, reusing one that was made from the same content."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from manifests.clip_texts import SOURCE
from manifests.console import ProgressBar, progress
from manifests.contracts import AudioCodec
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.ids import canonical_json, digest_bytes
from manifests.recipes import recipe_digest, resolved
from manifests.snapshots import INGEST
from manifests.store import Store, json_bytes
from tokenization.artifact import CodecFacts, Tokenizer, codec_facts, read_head, write_tokenizer
from tokenization.codec import WEIGHTS, FsqCodec, save_codec
from tokenization.codec_clips import CorpusClips, SpokenClip
from tokenization.codec_state import KeptState
from tokenization.codec_training import train_codec
from tokenization.mimi import MimiCodec, MimiConfig
from tokenization.recipe import FsqPart, TokenizerRecipe, TrainedText
from tokenization.s3 import S3Codec, S3Config
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenizerResult:
    """What ``build_tokenizer`` made or found."""

    tokenizer_uri: str
    tokenizer_id: str
    is_new: bool  # False when the same tokenizer was there already
    text_vocab_size: int
    num_rows: int
    layout_hash: str
    codec_kind: str
    codec_fingerprint: str
    metrics: dict[str, Any] | None  # of the fsq codec, as in metrics.json

    def lines(self) -> list[str]:
        """The result for people."""
        head = f"tokenizer {self.tokenizer_uri} ({self.tokenizer_id}){'' if self.is_new else ': was there already'}"
        lines = [
            head,
            f"  text: {self.text_vocab_size} ids, joint vocabulary {self.num_rows} rows (layout {self.layout_hash[:12]})",
        ]
        if self.metrics:
            lines += [f"  codec fsq ({self.codec_fingerprint}): {_figures(self.metrics)}"]
            if self.metrics["held_out"]:
                lines += [f"  on clips it did not learn from: {_figures(self.metrics['held_out'])}"]
        else:
            lines += [f"  codec {self.codec_kind} ({self.codec_fingerprint})"]
        return lines


def build_tokenizer(corpus_uri: str, out: str, recipe: TokenizerRecipe) -> TokenizerResult:
    """Train what the recipe says on the newest snapshot and write the folder ``out``.

    A folder that was made from the same clips, texts and recipe is left as it is. Raises RequestError for a missing
    corpus, layer or weights, for an output that holds another tokenizer, and for one that cannot be written.
    """
    corpus = Corpus.open(corpus_uri)
    texts = corpus_texts(corpus, recipe.text) if isinstance(recipe.text, TrainedText) else []
    clips = _codec_clips(corpus, recipe)
    lineage = {
        "corpus_id": corpus.corpus_id,
        "clip_set": corpus.clip_set,
        "ingest": corpus.fingerprint(INGEST),
        "clips": digest_bytes(b"".join(corpus.clips().column("clip_id").to_pylist())).hex(),
        "texts": digest_bytes(canonical_json(texts).encode()).hex(),
        "codec_texts": clips.texts_digest if clips is not None else None,
        "recipe": recipe_digest(recipe),
    }
    store = Store(out)
    if (head := read_head(store)) is not None:
        if head.lineage != lineage:
            raise RequestError(
                f"output {out!r} holds tokenizer {head.tokenizer_id} of another corpus, snapshot or recipe; choose another --out"
            )
        return _result(Tokenizer.open(out), is_new=False)
    if isinstance(recipe.codec, FsqPart):
        assert clips is not None
        text, vocabulary = _text_and_vocabulary(recipe, texts, FsqCodec.num_codes)
        store.check_exclusive()
        facts = _train_fsq(clips, store, recipe.codec, recipe.seed, lineage)
    else:
        facts = _published_codec(recipe.codec)
        text, vocabulary = _text_and_vocabulary(recipe, texts, facts.num_codes)
        store.check_exclusive()
    store.write("recipe.json", json_bytes({**resolved(recipe), "digest": recipe_digest(recipe)}))
    write_tokenizer(store, text, vocabulary, recipe.ratio, facts, lineage)
    return _result(Tokenizer.open(out), is_new=True)


def corpus_texts(corpus: Corpus, config: TrainedText) -> list[str]:
    """Texts that the BPE learns from: transcripts of the inputs, layers' texts, extra files; in that order, none empty.

    Raises RequestError for a layer or file that is not there.
    """
    texts: list[str | None] = []
    for origin in config.text_from:
        if origin == SOURCE:
            texts += corpus.inputs().column("text").to_pylist()
            continue
        if origin not in corpus.layers():
            raise RequestError(
                f"recipe takes text from layer {origin!r}; the corpus has {sorted(corpus.layers())}. "
                "Build it with that layer, or mend text.text_from"
            )
        layer = corpus.layer(origin)
        if "text" not in layer.column_names:
            raise RequestError(f"layer {origin!r} has no column 'text' (it has {layer.column_names}); mend text.text_from")
        texts += layer.column("text").to_pylist()
    for path in config.extra_texts:
        try:
            with open(path, encoding="utf-8") as file:
                texts += [line.strip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"extra text {path!r} cannot be read ({error}); mend text.extra_texts") from error
    return [text for text in texts if text]


def _text_and_vocabulary(recipe: TokenizerRecipe, texts: list[str], num_codes: int) -> tuple[TextTokenizer, Vocabulary]:
    if isinstance(recipe.text, TrainedText):
        # Without any text the BPE is its 256 bytes: still every text has ids.
        text = TextTokenizer.train(texts, recipe.text.vocab_size)
        return text, Vocabulary.small(text.vocab_size, num_codes)
    published = Vocabulary.published()
    if num_codes != published.num_codes:
        raise RequestError(
            f"recipe {recipe.name!r}: the codec has {num_codes} codes, the published vocabulary {published.num_codes}; "
            "use a codec of that size, or text of kind bpe, whose vocabulary is laid out for the codec"
        )
    return TextTokenizer.load(recipe.text.path), published


def _codec_clips(corpus: Corpus, recipe: TokenizerRecipe) -> CorpusClips | None:
    """What the codec learns from; None where it comes trained."""
    if not isinstance(recipe.codec, FsqPart):
        return None
    training = recipe.codec.training
    text_from = training.text_from
    if text_from is None:
        text_from = recipe.text.text_from if isinstance(recipe.text, TrainedText) else [SOURCE]
    return CorpusClips(corpus, text_from if training.text_weight else [], training.max_audio_s, recipe.seed)


def _published_codec(config: S3Config | MimiConfig) -> CodecFacts:
    """A codec on weights from elsewhere; weights that do not fit are found here, not when the first clip is encoded."""
    if isinstance(config, S3Config):
        codec: AudioCodec = S3Codec(config)
        weights = config.weights_path
    else:
        codec, weights = MimiCodec(config), config.checkpoint
    codec.setup()
    return codec_facts(config.kind, os.path.abspath(weights), codec)


def _train_fsq(clips: CorpusClips, store: Store, part: FsqPart, seed: int, lineage: Mapping[str, str | None]) -> CodecFacts:
    """Train, or go on with a training that was cut off, and write weights, configuration, curve and figures."""
    training, kept = part.training, KeptState(store, lineage)
    step, state = kept.read()
    with progress() as bars:
        hearing = bars.task("clips of the codec", len(clips), "clips")
        bar = bars.task("codec", training.steps - step, "steps")

        def log(row: dict[str, Any]) -> None:
            note = f"mel error {row['mel_error'] / row['mean_frame_error']:.0%} of the mean frame's"
            words = "" if row["text_loss"] is None else f", text {row['text_loss']:.2f} nats a letter"
            bar.advance(row["step"] - step - bar.done, note + words)

        trained = train_codec(_counted(clips, hearing), part.network, training, seed, log, kept.write, state)
    save_codec(store, part.network, trained.network)
    if trained.reader is not None:
        trained.reader.save(store)
    store.write("metrics.jsonl", "".join(canonical_json(row) + "\n" for row in trained.rows).encode())
    codec = FsqCodec(store.uri)
    store.write("metrics.json", json_bytes(trained.metrics))
    kept.remove()
    return codec_facts("fsq", WEIGHTS, codec)


def _counted(clips: CorpusClips, bar: ProgressBar) -> Iterator[SpokenClip]:
    for clip in clips:
        yield clip
        bar.advance()


def _result(tokenizer: Tokenizer, *, is_new: bool) -> TokenizerResult:
    facts = tokenizer.codec_facts
    return TokenizerResult(
        tokenizer.uri,
        tokenizer.tokenizer_id,
        is_new,
        tokenizer.text.vocab_size,
        tokenizer.vocabulary.num_rows,
        tokenizer.vocabulary.layout_hash,
        facts.kind,
        facts.fingerprint,
        tokenizer.metrics(),
    )


def _figures(metrics: dict[str, Any]) -> str:
    line = (
        f"mel error {metrics['mel_error']:.3f}, {metrics['mel_error_ratio']:.0%} of the mean frame's; "
        f"{metrics['codebook_use']:.1%} of the codes in use, perplexity {metrics['perplexity']:.0f}"
    )
    if metrics["letter_error"] is None:
        return line
    return f"{line}; its own reader gets {metrics['letter_error']:.0%} of the letters and {metrics['word_error']:.0%} of the words wrong"
