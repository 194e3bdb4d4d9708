"""What is to be said: rows of texts and dialogues, each with a voice for every role."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.contracts import Synthesiser
from manifests.errors import RequestError
from manifests.ids import digest_json
from pipeline.recipe import VoicesRecipe

VERSION = "1"  # rises when the same texts and voices become other audio


@dataclass(frozen=True)
class Turn:
    """What one voice says; ``voice`` is a name of the recipe, ``role`` is None outside dialogues."""

    text: str
    voice: str
    role: str | None


@dataclass(frozen=True)
class Script:
    """One file to be: a text, or the turns of a dialogue. ``key`` follows from what is said, how, and by which voices."""

    key: str
    language: str
    turns: tuple[Turn, ...]

    @property
    def is_dialogue(self) -> bool:
        return self.turns[0].role is not None


def read_scripts(texts: str, voices: Mapping[str, Synthesiser], recipe: VoicesRecipe) -> list[Script]:
    """One a row of a JSONL file, in order; equal rows have equal keys.

    Raises RequestError, naming the line, for a row that is no text or dialogue, or for which the recipe lacks voices.
    """
    prints = {name: voice.fingerprint() for name, voice in voices.items()}
    scripts = []
    for where, row in _rows(texts):
        turns = _turns(row, where, voices)
        settings = recipe.model_dump(mode="json", exclude={"name", "voices"})
        said = [[turn.text, turn.role, turn.voice, prints[turn.voice]] for turn in turns]
        scripts.append(Script(digest_json([VERSION, settings, row["language"], said])[:24], row["language"], turns))
    if not scripts:
        raise RequestError(f"texts {texts!r} has no row; each line is one JSON object with `text` or `turns`")
    return scripts


def _rows(texts: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for people, row)."""
    try:
        with open(texts, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{texts!r} line {number}"
                    yield where, _object(line, where)
    except OSError as error:
        raise RequestError(f"texts {texts!r} cannot be read: {error.strerror}; give a .jsonl file") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"texts {texts!r} is not UTF-8 ({error.reason}); convert it") from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where} is not JSON: {error}; each line is one object with `text` or `turns`") from error
    if not isinstance(row, dict) or ("text" in row) == ("turns" in row):
        raise RequestError(f"{where} has to be an object with one of `text` and `turns`")
    turns = row.get("turns", [row])
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise RequestError(f"{where}: `turns` has to be a list of objects with `role` and `text`")
    wanted = [(row, "language"), *((turn, "text") for turn in turns)]
    wanted += [(turn, "role") for turn in turns] if "turns" in row else []
    for place, name in wanted:
        if not isinstance(place.get(name), str) or not place[name].strip():
            raise RequestError(f"{where}: {name!r} is {place.get(name)!r}; it has to be a string with something in it")
    return row


def _turns(row: Mapping[str, Any], where: str, voices: Mapping[str, Synthesiser]) -> tuple[Turn, ...]:
    """The row's turns. A role without a voice gets one of the language that no other role has, by a digest of the row."""
    said: Sequence[Mapping[str, Any]] = row.get("turns", [row])
    chosen = {turn.get("role"): turn["voice"] for turn in said if turn.get("voice")}
    for name in chosen.values():
        if not isinstance(name, str) or name not in voices:
            raise RequestError(f"{where}: voice {name!r} is not in the recipe; it has {', '.join(sorted(voices))}")
    roles = [role for role in dict.fromkeys(turn.get("role") for turn in said) if role not in chosen]
    free = sorted(name for name, voice in voices.items() if voice.language == row["language"] and name not in chosen.values())
    if len(roles) > len(free):
        raise RequestError(
            f"{where} needs {len(roles)} voices of language {row['language']!r}; the recipe has {len(free)} "
            f"({', '.join(free) or 'none'}); add voices to the recipe"
        )
    first = int(digest_json(row)[:8], 16)
    chosen |= {role: free[(first + number) % len(free)] for number, role in enumerate(roles)}
    return tuple(Turn(turn["text"], chosen[turn.get("role")], turn.get("role")) for turn in said)
