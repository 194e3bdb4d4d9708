"""Two codecs of the same rate and size are told apart by their weights alone: wherever codes go, the codec's hash goes along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from manifests.corpus import Corpus
from manifests.errors import MismatchError
from manifests.packs import Pack
from manifests.snapshots import INGEST, clips_output
from pipeline.annotate_work import AnnotateWork
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from tokenization.artifact import Tokenizer
from tokenization.build import build_tokenizer
from tokenization.codes import CodesConfig
from tokenization.recipe import TokenizerRecipe
from training.checkpoint import Identity
from training.inputs import check_belongs


class TwoCodecs(NamedTuple):
    """A corpus with codes of the first of two tokenizers that differ in the codec's weights alone."""

    corpus: str
    first: str
    second: str


@pytest.fixture
def two(
    corpus_uri: str,
    tmp_path: Path,
    make_recipe: Callable[..., TokenizerRecipe],
    recipe_text: str,
    add_layer: Callable[..., None],
    encode_corpus: Callable[[str, str], pa.Table],
) -> TwoCodecs:
    uris = [str(tmp_path / name) for name in ("first", "second")]
    for seed, uri in enumerate(uris):
        build_tokenizer(corpus_uri, uri, make_recipe(f"{recipe_text}\nseed: {seed}\n"))
    corpus = Corpus.open(corpus_uri)
    annotator = CodesConfig(kind="codes", tokenizer=uris[0]).build()
    clips = corpus.fingerprint(clips_output(corpus.clip_set))
    work = AnnotateWork("codes", annotator, corpus.clip_set, corpus.fingerprint(INGEST), clips, {})
    add_layer(corpus_uri, "codes", encode_corpus(corpus_uri, uris[0]), work.fingerprint)
    return TwoCodecs(corpus_uri, *uris)


def test_only_the_hash_tells_them_apart(two: TwoCodecs) -> None:
    first, second = Tokenizer.open(two.first), Tokenizer.open(two.second)
    rates = [(opened.codec_facts.frame_rate_hz, opened.codec_facts.num_codes) for opened in (first, second)]
    assert rates[0] == rates[1]
    assert first.vocabulary == second.vocabulary
    assert first.text.digest == second.text.digest
    assert first.codec_fingerprint != second.codec_fingerprint
    assert first.tokenizer_id != second.tokenizer_id


def test_neither_a_pack_nor_a_run_takes_codes_of_the_other(two: TwoCodecs, tmp_path: Path) -> None:
    recipe = PackRecipe(name="t", text_from=["asr"], codes_from="codes")
    with pytest.raises(MismatchError, match="layer 'codes' was made by another codec"):
        pack(two.corpus, str(tmp_path / "refused"), recipe, two.second)
    assert not (tmp_path / "refused").exists()
    pack(two.corpus, str(tmp_path / "pack"), recipe, two.first)
    made, first, second = Pack.open(str(tmp_path / "pack")), Tokenizer.open(two.first), Tokenizer.open(two.second)
    assert made.head["codec_fingerprint"] == first.codec_fingerprint
    check_belongs(made, first)
    with pytest.raises(MismatchError, match=f"codec_fingerprint {first.codec_fingerprint}.* {second.codec_fingerprint}"):
        check_belongs(made, second)


def test_a_checkpoint_of_the_other_is_refused(two: TwoCodecs) -> None:
    first, second = (
        Identity("recipe", opened.tokenizer_id, opened.vocabulary.layout_hash, opened.codec_fingerprint, "pack", "")
        for opened in (Tokenizer.open(two.first), Tokenizer.open(two.second))
    )
    first.check(first, "checkpoint 'a'")
    with pytest.raises(MismatchError, match=f"checkpoint 'a' has tokenizer_id {second.tokenizer_id}"):
        first.check(second, "checkpoint 'a'")
    # Also where the id were not looked at.
    with pytest.raises(MismatchError, match=f"has codec_fingerprint {second.codec_fingerprint}"):
        first.check(replace(second, tokenizer_id=first.tokenizer_id), "checkpoint 'a'")
