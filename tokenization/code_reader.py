"""What a supervised codec's own head reads off its codes: the words that the codes carry, as far as it learned them.

It is kept beside the codec and is no part of it: the codec's fingerprint does not depend on it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from manifests.errors import MismatchError
from manifests.store import Store, json_bytes
from tokenization.letters import Letters

if TYPE_CHECKING:
    from tokenization.fsq import TextHead

CONFIG = "codec_reader.json"
WEIGHTS = "codec_reader.safetensors"


class CodeReader:
    """Codes of one FSQ codec to text."""

    def __init__(self, head: TextHead, letters: Letters) -> None:
        self.head, self.letters = head, letters

    @staticmethod
    def open(store: Store) -> CodeReader | None:
        """The reader of a tokenizer folder; None where nothing supervised its codec. Raises MismatchError for files that do not fit."""
        import torch
        from safetensors.torch import load

        from tokenization.fsq import TextHead

        try:
            shape, weights = json.loads(store.read(CONFIG)), load(store.read(WEIGHTS))
        except FileNotFoundError:
            return None
        letters = Letters(shape["letters"])
        with torch.device("meta"):  # weights that are drawn would move the random numbers of whoever opens it
            head = TextHead(letters.num_labels, shape["width"], shape["blocks"])
        try:
            head.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise MismatchError(f"{store.uri!r}: {WEIGHTS} does not fit {CONFIG}; train the tokenizer again") from error
        return CodeReader(head.eval(), letters)

    def save(self, store: Store) -> None:
        """Write ``codec_reader.json`` and ``codec_reader.safetensors``."""
        from safetensors.torch import save

        shape = {"letters": self.letters.alphabet, "width": self.head.width, "blocks": self.head.num_blocks}
        store.write(CONFIG, json_bytes(shape))
        store.write(WEIGHTS, save({name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}))

    def read(self, codes: np.ndarray) -> str:
        """Text in the normal form for codes ``[F]``, the likeliest letter of each frame."""
        import torch

        from tokenization.fsq import digits_of_codes

        if len(codes) == 0:
            return ""
        with torch.inference_mode():
            log_probs_BFL = self.head(digits_of_codes(torch.from_numpy(np.asarray(codes, np.int64))[None]))
        return self.letters.read(log_probs_BFL[0].argmax(dim=-1).tolist())
