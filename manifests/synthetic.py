"""The mark of synthetic speech inside an audio file: what made it is still known when the file is copied without its manifest."""

from __future__ import annotations

MARK = "synthetic: "


def mark_of(synthesizer: str) -> str:
    """What the comment tag of a file says whose speech ``synthesizer`` made, e.g. ``synthetic: espeak-ng 1.52.0 (en-us+f3)``."""
    return f"{MARK}{' '.join(synthesizer.split())}"


def synthesizer_in(comment: str | None) -> str | None:
    """What a comment tag says that its speech was made by; None where no line of it is such a mark."""
    lines = (line.strip() for line in (comment or "").splitlines())
    return next((line.removeprefix(MARK).strip() for line in lines if line.startswith(MARK)), None)
