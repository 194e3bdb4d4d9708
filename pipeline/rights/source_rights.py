"""What a file says of the rights of whole sources, so that nobody repeats it in every row of a manifest.

    sources:
      librispeech: {licence: CC-BY-4.0, consent: not_needed, origin_uri: "https://www.openslr.org/12", attribution: V. Panayotov}
      /data/calls/*: {licence: proprietary, consent: granted, terms: "contract 2031, appendix B"}

A source is named as inputs name it (``source`` of a manifest, else the folder), or by a pattern; a name goes before
patterns, and of two patterns the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, model_validator

from manifests.console import say
from manifests.errors import RequestError
from manifests.recipes import RecipeModel, decode_recipe
from pipeline.inputs import FACTS_FROM, Input


class SourceRights(RecipeModel):
    """What holds for every input of a source; what is left out stays as the rows have it."""

    licence: str | None = Field(default=None, min_length=1, description="SPDX id, or the licence in words")
    consent: Literal["granted", "withheld", "not_needed", "unknown"] | None = Field(
        default=None, description="of those who speak"
    )
    terms: str | None = Field(default=None, min_length=1, description="terms of use, or where they stand")
    attribution: str | None = Field(default=None, min_length=1, description="whom to name, and how")
    origin_uri: str | None = Field(default=None, min_length=1, description="page or publisher")

    @model_validator(mode="after")
    def _says_something(self) -> SourceRights:
        if not self.facts:
            raise ValueError(f"nothing is said; give some of {', '.join(type(self).model_fields)}")
        return self

    @property
    def facts(self) -> dict[str, str]:
        """As columns of INPUTS."""
        return self.model_dump(exclude_none=True)


class RightsFile(RecipeModel):
    """Rights by source."""

    sources: dict[str, SourceRights] = Field(min_length=1)

    @classmethod
    def read(cls, path: str) -> RightsFile:
        """Raises RequestError naming the key that is wrong, or where there is no such file."""
        try:
            with open(path, encoding="utf-8") as file:
                return decode_recipe(cls, file.read(), path)
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"rights file {path!r} cannot be read ({error}); give a YAML file of `sources`") from error

    def key_of(self, source: str) -> str | None:
        """The name or pattern that the source comes under; None where nothing is said of it."""
        if source in self.sources:
            return source
        return next((key for key in self.sources if fnmatchcase(source, key)), None)

    def applied(self, inputs: Iterable[Input]) -> list[Input]:
        """The inputs with what the file says of their sources.

        Raises RequestError where a row says something else: nobody but the user can say which is right.
        """
        made, used = list[Input](), set[str]()
        for item in inputs:
            key = self.key_of(item.source)
            if key is None:
                made.append(item)
                continue
            used.add(key)
            facts = self.sources[key].facts
            for name in facts.keys() & item.facts.keys():
                if item.facts[name] != facts[name]:
                    raise RequestError(
                        f"input {item.uri!r}: its row says {name} {item.facts[name]!r}, the rights file {facts[name]!r} for source "
                        f"{key!r}; settle which one holds"
                    )
            fresh = [name for name in facts if name not in item.facts]
            told = f"rights file ({', '.join(f'{name} of {key}' for name in fresh)})" if fresh else ""
            origins = "; ".join(text for text in (item.facts.get(FACTS_FROM), told) if text)
            made.append(replace(item, facts={**facts, **item.facts, FACTS_FROM: origins}))
        if unused := sorted(self.sources.keys() - used):
            say(f"note: no input is of source {', '.join(map(repr, unused))}, of which the rights file speaks")
        return made
