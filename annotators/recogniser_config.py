"""What the configs of recognisers that run a checkpoint share, and what is refused before audio is read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from annotators.checkpoints import Checkpoint
from manifests.errors import ModelUnavailable
from manifests.gates import AnnotatorConfigBase


class RecogniserConfigBase(AnnotatorConfigBase):
    """Where the checkpoint comes from, where it runs, and what it is told."""

    revision: str | None = Field(default=None, description="commit of the hub id, so that the fingerprint pins the weights")
    may_download: bool = Field(default=False, description="fetch hub ids that are not in the cache")
    language: str | None = Field(
        default=None, description="ISO 639-1; null: Whisper detects it, a CTC network's text has no stated language"
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the networks run")
    batch_size: int = Field(default=16, ge=1, description="windows of 30 s heard together")


def check_language(found: Checkpoint, language: str | None, known: Collection[str]) -> None:
    """Raises ModelUnavailable where a Whisper is told a language that it does not know."""
    if language is not None and language not in known:
        raise ModelUnavailable(
            f"model {found.name!r} has no language {language!r}; it has {', '.join(sorted(known))}: "
            "name one of these, leave `language` out, or give a checkpoint that has it"
        )
