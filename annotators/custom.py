"""Parts from outside: ``kind: custom`` names a class, ``parameters`` are its keyword arguments."""

from __future__ import annotations

import importlib
from typing import Any, Literal

from pydantic import Field

from manifests.contracts import Annotator, Segmenter, Synthesiser
from manifests.errors import RequestError
from manifests.gates import AnnotatorConfigBase, SegmenterConfigBase
from manifests.recipes import RecipeModel

TARGET = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class CustomSegmenterConfig(SegmenterConfigBase):
    """A segmenter from any installed package."""

    kind: Literal["custom"] = "custom"
    target: str = Field(pattern=TARGET, description="package.module:Class")
    parameters: dict[str, Any] = Field(default_factory=dict)

    def build(self) -> Segmenter:
        """Raises RequestError when the class cannot be had or is no Segmenter."""
        part = _construct(self.target, self.parameters)
        if not isinstance(part, Segmenter):
            raise RequestError(
                f"custom target {self.target!r} is no Segmenter: it lacks {_lacking(part, Segmenter)}; see manifests.contracts"
            )
        return part


class CustomAnnotatorConfig(AnnotatorConfigBase):
    """An annotator from any installed package."""

    kind: Literal["custom"] = "custom"
    target: str = Field(pattern=TARGET, description="package.module:Class")
    parameters: dict[str, Any] = Field(default_factory=dict)

    def build(self) -> Annotator:
        """Raises RequestError when the class cannot be had or is no Annotator."""
        part = _construct(self.target, self.parameters)
        if not isinstance(part, Annotator):
            raise RequestError(
                f"custom target {self.target!r} is no Annotator: it lacks {_lacking(part, Annotator)}; see manifests.contracts"
            )
        return part


class CustomVoiceConfig(RecipeModel):
    """A synthesiser from any installed package."""

    kind: Literal["custom"] = "custom"
    target: str = Field(pattern=TARGET, description="package.module:Class")
    parameters: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the class")

    def build(self) -> Synthesiser:
        """Raises RequestError when the class cannot be had or is no Synthesiser."""
        part = _construct(self.target, self.parameters)
        if not isinstance(part, Synthesiser):
            raise RequestError(
                f"custom target {self.target!r} is no Synthesiser: it lacks {_lacking(part, Synthesiser)}; "
                "see manifests.contracts"
            )
        return part


def _lacking(part: object, protocol: type) -> str:
    wanted = {name for kind in protocol.__mro__ for name in vars(kind) if not name.startswith("_")}
    return ", ".join(sorted(name for name in wanted if not hasattr(part, name)))


def _construct(target: str, parameters: dict[str, Any]) -> object:
    module, _, name = target.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RequestError(
            f"custom target {target!r} cannot be imported: {error}; install its package or mend the name"
        ) from error
    try:
        return kind(**parameters)
    except TypeError as error:
        raise RequestError(f"custom target {target!r} does not take parameters {sorted(parameters)}: {error}") from error
