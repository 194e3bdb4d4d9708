from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import MismatchError, ModelUnavailable, RequestError, StepwellError
from manifests.store import Store
from tokenization.artifact import CodecFacts, Tokenizer, check_text, codec_facts, write_tokenizer
from tokenization.check import check_tokenizer
from tokenization.codec import FsqCodec, FsqConfig, build_network, save_codec
from tokenization.codes import CodesConfig
from tokenization.interleave import Ratio
from tokenization.s3 import S3Codec, S3Config
from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary

SHAPE = FsqConfig(num_mels=40, width=16, encoder_blocks=1, decoder_blocks=1)
TEXT = TextTokenizer.train(["the cat sat on the mat"], 280)
S3_FACTS = CodecFacts("s3", "/nowhere/s3.onnx", "0123456789abcdef", 25.0, 6561, 16_000)


def write(folder: Path, seed: int = 0, ratio: Ratio = Ratio()) -> str:  # noqa: B008 (frozen)
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    store = Store(str(folder))
    save_codec(store, SHAPE, build_network(SHAPE))
    facts = codec_facts("fsq", "codec.safetensors", FsqCodec(store.uri))
    return write_tokenizer(store, TEXT, Vocabulary.small(TEXT.vocab_size), ratio, facts, {"corpus_id": "c"})


def test_what_was_written_opens(tmp_path: Path) -> None:
    made = write(tmp_path, ratio=Ratio(1, 5))
    for opened in (Tokenizer.open(str(tmp_path)), Tokenizer.open(f"file://{tmp_path}")):
        assert opened.tokenizer_id == made
        assert opened.text.digest == TEXT.digest
        assert opened.vocabulary == Vocabulary.small(TEXT.vocab_size)
        assert opened.ratio == Ratio(1, 5)
        assert opened.codec_fingerprint == opened.loaded_codec().fingerprint()
        assert opened.lineage == {"corpus_id": "c"}
        assert opened.metrics() is None
    assert pickle.loads(pickle.dumps(opened)).tokenizer_id == made


def test_ids_tell_content_apart_and_not_places(tmp_path: Path) -> None:
    same = [write(tmp_path / name) for name in ("a", "b")]
    assert same[0] == same[1]
    assert len({same[0], write(tmp_path / "c", seed=1), write(tmp_path / "d", ratio=Ratio(1, 5))}) == 3


def test_a_file_that_was_exchanged_is_found(tmp_path: Path) -> None:
    write(tmp_path / "a")
    TextTokenizer.train(["other"], 260).save(str(tmp_path / "a" / "text_tokenizer.json"))
    with pytest.raises(MismatchError, match=r"text_tokenizer\.json has digest"):
        Tokenizer.open(str(tmp_path / "a"))
    write(tmp_path / "b")
    write(tmp_path / "c", seed=1)
    weights = (tmp_path / "c" / "codec.safetensors").read_bytes()
    (tmp_path / "b" / "codec.safetensors").write_bytes(weights)
    with pytest.raises(MismatchError, match="codec files have fingerprint"):
        Tokenizer.open(str(tmp_path / "b"))
    (tmp_path / "c" / "text_tokenizer.json").unlink()
    with pytest.raises(MismatchError, match="which is not there"):
        Tokenizer.open(str(tmp_path / "c"))


def test_a_head_that_was_changed_is_found(tmp_path: Path) -> None:
    write(tmp_path)
    head = json.loads((tmp_path / "tokenizer.json").read_text())
    cases = [
        ({**head, "interleave": {"ratio": "1:5"}}, "its parts make the id"),
        ({**head, "vocabulary": {**head["vocabulary"], "num_rows": 9999}}, "vocabulary table has layout"),
    ]
    for changed, message in cases:
        (tmp_path / "tokenizer.json").write_text(json.dumps(changed))
        with pytest.raises(MismatchError, match=message):
            Tokenizer.open(str(tmp_path))


def test_a_head_that_is_cut_or_lacks_something_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "tokenizer.json"
    whole = file.read_bytes()
    head = json.loads(whole)
    lacking = [{key: value for key, value in head.items() if key != name} for name in head if name != "format_version"]
    inner = [{**head, name: {}} for name in ("text", "vocabulary", "interleave", "codec")]
    cut = [whole[:0], whole[: len(whole) // 2], whole[:-3], whole[:-3] + b"\xff\xfe}\n", b"[]", b"7"]
    for damaged in [*cut, *(json.dumps(value).encode() for value in [*lacking, *inner, {**head, "interleave": {"ratio": "4"}}])]:
        file.write_bytes(damaged)
        with pytest.raises(StepwellError, match=r"tokenizer\.json is damaged \(.*restore the file|has format None") as raised:
            Tokenizer.open(str(tmp_path))
        assert str(tmp_path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_part_that_is_cut_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    for name, message in (("codec.json", r"codec\.json is damaged"), ("text_tokenizer.json", r"text_tokenizer\.json has digest")):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(StepwellError, match=message):
            Tokenizer.open(str(tmp_path))
        (tmp_path / name).write_bytes(whole)


def test_where_there_is_none_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="stepwell tokenizer train"):
        Tokenizer.open(str(tmp_path))
    # A bare BPE file carries the same name; it is not a tokenizer folder.
    TEXT.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(RequestError, match="has format None"):
        Tokenizer.open(str(tmp_path))


def test_parts_that_do_not_belong_together_are_not_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(MismatchError, match="room for 10"):
        write_tokenizer(store, TEXT, Vocabulary.small(10), Ratio(), S3_FACTS, {})
    with pytest.raises(MismatchError, match="they must be equal"):
        write_tokenizer(store, TEXT, Vocabulary.small(300, 100), Ratio(), S3_FACTS, {})
    assert list(tmp_path.iterdir()) == []


def test_s3_opens_without_its_weights_and_says_so_when_they_are_needed(tmp_path: Path) -> None:
    write_tokenizer(Store(str(tmp_path)), TEXT, Vocabulary.small(TEXT.vocab_size), Ratio(), S3_FACTS, {})
    opened = Tokenizer.open(str(tmp_path))
    assert opened.codec_fingerprint == S3_FACTS.fingerprint
    for load in (opened.codec().setup, opened.loaded_codec):
        with pytest.raises(ModelUnavailable, match=r"/nowhere/s3\.onnx"):
            load()


def test_s3_weights_that_were_exchanged_make_no_codes(tmp_path: Path) -> None:
    torch, model_v2 = pytest.importorskip("torch"), pytest.importorskip("s3tokenizer.model_v2")
    shape = model_v2.ModelConfig(n_mels=128, n_audio_state=64, n_audio_head=1, n_audio_layer=1)
    network = model_v2.S3TokenizerV2("speech_tokenizer_v2_25hz", shape)
    weights_path, uri = str(tmp_path / "s3.pt"), str(tmp_path / "tokenizer")
    torch.save(network.state_dict(), weights_path)
    facts = codec_facts("s3", weights_path, S3Codec(S3Config(kind="s3", weights_path=weights_path)))
    write_tokenizer(Store(uri), TEXT, Vocabulary.small(TEXT.vocab_size), Ratio(), facts, {})
    assert len(Tokenizer.open(uri).loaded_codec().encode([np.zeros(16_000, np.float32)])[0]) == 25

    torch.nn.init.normal_(network.encoder.conv1.weight)
    torch.save(network.state_dict(), weights_path)
    for use in (Tokenizer.open(uri).loaded_codec, CodesConfig(kind="codes", tokenizer=uri).build().setup):
        with pytest.raises(MismatchError, match=r"the head states .* restore .*s3\.pt"):
            use()
    with pytest.raises(MismatchError, match="the head states"):
        check_tokenizer(uri)


def added_to(text: TextTokenizer, *tokens: str) -> TextTokenizer:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Bpe

    bpe = Bpe.from_str(text.data)
    bpe.add_tokens([AddedToken(token, special=False) for token in tokens])
    return TextTokenizer(bpe.to_str())


def test_tokens_that_the_text_names_too_must_have_the_vocabularys_ids() -> None:
    """As the published checkpoint's file does, which goes on behind Qwen2.5's with the table's own names."""
    vocabulary = Vocabulary.small(TEXT.vocab_size)
    names = [token for token, _ in vocabulary.specials]
    codes = [f"<audio_{code}>" for code in range(3)]
    check_text(added_to(TEXT, *names, *codes), vocabulary)
    with pytest.raises(MismatchError, match=rf"'<\|pad\|>' is {TEXT.vocab_size}; in the vocabulary it is {vocabulary.pad}"):
        check_text(added_to(TEXT, *names[1:]), vocabulary)
    with pytest.raises(MismatchError, match=rf"it is None, and {vocabulary.pad} is '<\|pad\|>'"):
        check_text(added_to(TEXT, names[0], "<|im_start|>"), vocabulary)
