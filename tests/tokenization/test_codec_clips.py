from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.schema import field, layer_schema
from tokenization.codec_clips import CorpusClips, clip_texts, sample_clips, split_clips


@given(st.integers(0, 300))
def test_every_tenth_clip_is_held_out_once_there_are_ten(num_clips: int) -> None:
    learnt, held_out = split_clips(num_clips)
    assert sorted(learnt + held_out) == list(range(num_clips))
    assert len(held_out) == num_clips // 10


@given(lengths=st.lists(st.floats(0.1, 30), max_size=30), room=st.floats(1, 200), seed=st.integers(0, 5))
def test_a_sample_fits_and_leaves_out_only_what_does_not(lengths: list[float], room: float, seed: int) -> None:
    chosen = sample_clips(lengths, room, seed)
    assert chosen == sorted(set(chosen))
    taken = sum(lengths[i] for i in chosen)
    assert taken <= room + 1e-6
    left = [length for i, length in enumerate(lengths) if i not in chosen]
    assert all(length > room - taken - 1e-6 for length in left)


def test_a_corpus_is_heard_at_sixteen_kilohertz_with_its_words(corpus_uri: str) -> None:
    corpus = Corpus.open(corpus_uri)
    clips = list(CorpusClips(corpus, ["source", "asr"], 100.0, seed=0))
    assert [len(clip.audio) for clip in clips] == [16_001, 26_231] * 3
    assert all(clip.audio.dtype == np.float32 for clip in clips)
    # The recordings have two clips each: their sources' transcripts are no clip's own.
    assert [clip.text for clip in clips] == [f"guess {number}" for number in range(6)]
    sampled = CorpusClips(corpus, ["asr"], 3.0, seed=0)
    assert sum(len(clip.audio) for clip in sampled) <= 3 * 16_000
    assert len(sampled) == len(list(sampled))


def test_texts_come_from_the_first_origin_that_has_one(corpus_uri: str, add_layer: Callable[..., None]) -> None:
    corpus = Corpus.open(corpus_uri)
    adds = pa.schema([field("text", pa.string(), "transcript")])
    ids = corpus.clips().column("clip_id").to_pylist()
    told = [None, " ", "third", None, "fifth", None]
    rows = [{"clip_id": clip, "status": "ok", "text": text} for clip, text in zip(ids, told, strict=True)]
    add_layer(corpus_uri, "people", pa.Table.from_pylist(rows, schema=layer_schema(adds)))
    corpus = Corpus.open(corpus_uri)
    guesses = [f"guess {number}" for number in range(6)]
    assert clip_texts(corpus, ["people", "asr"]) == [*guesses[:2], "third", guesses[3], "fifth", guesses[5]]
    assert clip_texts(corpus, ["source"]) == [None] * 6
    assert clip_texts(corpus, []) == [None] * 6
    with pytest.raises(RequestError, match=r"layer 'whisper'; the corpus has \['asr', 'people'\]"):
        clip_texts(corpus, ["whisper"])
    adds = pa.schema([field("loudness", pa.float32(), "how loud")])
    rows = [{"clip_id": clip, "status": "ok", "loudness": 0.0} for clip in ids]
    add_layer(corpus_uri, "loud", pa.Table.from_pylist(rows, schema=layer_schema(adds)))
    with pytest.raises(RequestError, match="layer 'loud' has no column 'text'"):
        clip_texts(Corpus.open(corpus_uri), ["loud"])
