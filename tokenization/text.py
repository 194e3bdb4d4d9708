"""Text to ids and back: a byte-level BPE, either trained here or a published ``tokenizer.json`` of the Qwen2.5 kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from manifests.errors import RequestError
from manifests.ids import digest_bytes

MIN_VOCAB_SIZE = 256

# The split before merges that GPT-4-like and Qwen2.5 tokenizers use: contractions, letters with one leading mark,
# single digits, runs of marks, newlines, spaces.
SPLIT_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class TextTokenizer:
    """A ``tokenizers`` BPE. Every Unicode text has ids, and NFC text comes back exactly."""

    def __init__(self, data: str) -> None:
        """``data``: the content of a ``tokenizer.json``. Raises RequestError when it is none."""
        from tokenizers import Tokenizer

        try:
            self._bpe: Any = Tokenizer.from_str(data)
        except Exception as error:  # the binding raises bare Exception for every fault in the file
            raise RequestError(f"text tokenizer cannot be read: {error}; give a tokenizer.json of `tokenizers`") from error
        if self._bpe.get_vocab_size(with_added_tokens=False) == 0:
            raise RequestError("text tokenizer has no ids; give a tokenizer.json of `tokenizers`")
        # A transcript that happens to spell an added token is text; specials come from the vocabulary alone. Published
        # files call some of theirs not special (<tool_call>), which would be read out of texts for all that.
        self._added = {token.content: number for number, token in self._bpe.get_added_tokens_decoder().items()}
        self._bpe.add_special_tokens(list(self._bpe.get_added_tokens_decoder().values()))
        self._bpe.encode_special_tokens = True
        self._data = data

    def __reduce__(self) -> tuple[type[TextTokenizer], tuple[str]]:
        return (TextTokenizer, (self._data,))

    @staticmethod
    def load(path: str) -> TextTokenizer:
        """From a local file. Raises RequestError when it is absent or unreadable."""
        try:
            with open(path, encoding="utf-8") as file:
                return TextTokenizer(file.read())
        except OSError as error:
            raise RequestError(f"text tokenizer {path!r} cannot be opened: {error.strerror}; give a tokenizer.json") from error
        except UnicodeDecodeError as error:
            raise RequestError(f"text tokenizer {path!r} is no UTF-8 ({error}); give a tokenizer.json of `tokenizers`") from error
        except RequestError as error:
            raise RequestError(f"{path!r}: {error}") from error

    @staticmethod
    def train(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
        """Byte-level BPE over the texts, at most ``vocab_size`` ids, the first 256 of them the bytes.

        Few texts give fewer merges than asked, so read ``vocab_size`` from the result. The same texts in the same order
        give the same file. Raises RequestError for a size below 256.
        """
        if vocab_size < MIN_VOCAB_SIZE:
            raise RequestError(f"vocab_size {vocab_size} is below {MIN_VOCAB_SIZE}; the bytes alone need that many ids")
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        bpe: Any = Tokenizer(models.BPE())
        bpe.normalizer = normalizers.NFC()
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[],
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        return TextTokenizer(bpe.to_str())

    def save(self, path: str) -> None:
        """Write the ``tokenizer.json`` to a local path."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._data)

    @property
    def data(self) -> str:
        """The ``tokenizer.json`` itself."""
        return self._data

    @property
    def digest(self) -> str:
        """Hex digest of the file."""
        return digest_bytes(self._data.encode()).hex()

    @property
    def vocab_size(self) -> int:
        """One past the largest id, added tokens included."""
        return 1 + max(self._bpe.get_vocab(with_added_tokens=True).values())

    @property
    def bpe_size(self) -> int:
        """One past the largest id that a text can have: added tokens do not count."""
        return 1 + max(self._bpe.get_vocab(with_added_tokens=False).values())

    @property
    def added(self) -> Mapping[str, int]:
        """Tokens that the file adds to its BPE. They are never read out of texts: ids of theirs come from the vocabulary."""
        return self._added

    def encode(self, text: str) -> list[int]:
        """Ids without any special token around them; an empty text has none."""
        return list(self._bpe.encode(text, add_special_tokens=False).ids)

    def token(self, number: int) -> str | None:
        """The token of an id as the file spells it, which tells apart ids that are parts of a character; None for an id that is not there."""
        found: str | None = self._bpe.id_to_token(number)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Text of BPE ids; a byte sequence cut inside a character comes back as U+FFFD."""
        return str(self._bpe.decode([int(i) for i in ids], skip_special_tokens=False))
