"""What made an output, for whoever must say where a label comes from: the part, its models, their licences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from manifests.contracts import ModelFact
from manifests.errors import parsing
from manifests.store import Store, json_bytes

FOLDER = "parts"


@dataclass(frozen=True)
class PartFacts:
    """The part behind one output and fingerprint: written before its first unit runs, changed never."""

    name: str
    version: str
    models: tuple[ModelFact, ...]
    reads: Mapping[str, str]  # output -> fingerprint

    @staticmethod
    def path(output: str, fingerprint: str) -> str:
        return f"{FOLDER}/{output}/{fingerprint}.json"

    def write(self, store: Store, output: str, fingerprint: str) -> None:
        """Write the facts unless they are there."""
        path = self.path(output, fingerprint)
        if not store.exists(path):
            store.create(path, json_bytes(asdict(self)))

    @staticmethod
    def read(store: Store, output: str, fingerprint: str) -> PartFacts | None:
        """The facts of an output; None of what no part made (ingest, clips). Raises WorkError where they are damaged."""
        path = PartFacts.path(output, fingerprint)
        try:
            data = store.read(path)
        except FileNotFoundError:
            return None
        with parsing(store.uri, path):
            return parse_part_facts(data)


def parse_part_facts(data: bytes) -> PartFacts:
    """Facts from their bytes. Raises ValueError, KeyError, TypeError or AttributeError on anything that is not a whole file of them."""
    row = json.loads(data)
    return PartFacts(**{**row, "models": tuple(ModelFact(**model) for model in row["models"])})


def model_lines(models: Iterable[Mapping[str, Any]]) -> list[str]:
    """Models (ModelFact as JSON) for people; several files of one package are one line."""
    lines = []
    for model in models:
        at = model["revision"] or (model["digest"] or "")[:12]
        lines.append(f"model {model['name']}{f' at {at}' if at else ''}, licence {model['licence'] or 'not stated'}")
    return list(dict.fromkeys(lines))
