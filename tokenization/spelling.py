"""Ids for people: text in quotes, other tokens by their names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby

from tokenization.text import TextTokenizer
from tokenization.vocabulary import Vocabulary


def spelled(ids: Sequence[int], text: TextTokenizer, vocabulary: Vocabulary) -> str:
    """Text as JSON writes it, other tokens by their names; of equal ones in a row the number."""
    names = {number: token for token, number in vocabulary.specials}
    words = []
    for name, same in groupby(ids, lambda token: _audio_name(token, vocabulary) or names.get(token)):
        run = list(same)
        if name is None:
            words.append(json.dumps(text.decode(run), ensure_ascii=False))
        else:
            words.append(f"{name} x {len(run)}" if len(run) > 1 else name)
    return " ".join(words)


def _audio_name(token: int, vocabulary: Vocabulary) -> str | None:
    """Of a code, or of the audio padding token behind the last one."""
    is_audio = vocabulary.audio_base <= token <= vocabulary.audio_pad_id
    return f"<audio_{token - vocabulary.audio_base}>" if is_audio else None
