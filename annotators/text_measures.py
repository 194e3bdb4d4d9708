"""Measures of a text that show loops and runs of invented words. All take the tokens or the text alone."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence


def repeated_ngram_ratio(words: Sequence[str], size: int) -> float | None:
    """Share of tokens that lie in an n-gram of ``size`` tokens that occurs more than once; None under ``size`` tokens.

    After the duplicate n-gram share of Rae et al. (Gopher, 2021, table A1), which counts characters instead of tokens.
    """
    starts = range(len(words) - size + 1)
    if not starts:
        return None
    counts = Counter(tuple(words[i : i + size]) for i in starts)
    inside = {j for i in starts if counts[tuple(words[i : i + size])] > 1 for j in range(i, i + size)}
    return len(inside) / len(words)


def longest_repeat(words: Sequence[str], longest: int) -> int:
    """How often in a row the most repeated n-gram of 1 to ``longest`` tokens stands; 1 without a repeat, 0 without tokens."""
    best = min(1, len(words))
    for size in range(1, min(longest, len(words) // 2) + 1):
        run = 0  # tokens in a row that equal the one ``size`` before them
        for i in range(size, len(words)):
            run = run + 1 if words[i] == words[i - size] else 0
            best = max(best, run // size + 1)
    return best


def compression_ratio(text: str) -> float | None:
    """Bytes of the UTF-8 text over bytes after zlib at its default level, as Whisper computes it; None for an empty text.

    Whisper decodes again above 2.4 (Radford et al. 2022, section 4.5). Under some 50 bytes zlib's header alone makes it small.
    """
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data)) if data else None


def unique_ratio(words: Sequence[str]) -> float | None:
    """Different tokens over all tokens; None without tokens. It falls with the length of any text."""
    return len(set(words)) / len(words) if words else None
