"""Tags of a document's audio as numbers of a recipe's labels: what the layers of the corpus say, out of K.json, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from manifests.errors import MismatchError, RequestError

if TYPE_CHECKING:
    from manifests.packs import Document, Pack
    from training.encoder_recipe import TagHead

UNKNOWN = -100  # what torch's cross-entropy leaves out


def tag_numbers(document: Document, heads: Mapping[str, TagHead]) -> tuple[int, ...]:
    """Of each head the place of the document's tag among its labels, or UNKNOWN. Raises MismatchError as ``tag_value``."""
    found = []
    for dimension, head in heads.items():
        values = {tag_value(clip["tags"], dimension, head.layer) for turn in document.turns for clip in turn.facts["clips"]}
        value = values.pop() if len(values) == 1 else None
        found.append(head.labels.index(value) if value in head.labels else UNKNOWN)
    return tuple(found)


def tag_value(tags: Mapping[str, Mapping[str, Any]], dimension: str, layer: str) -> str | None:
    """What a layer says of a clip; None where it abstains, or failed on the clip.

    The layer has a column by the dimension's name, a label or a struct with ``value``, or it is of this dimension alone and has a
    column ``value``. Raises MismatchError where it has neither.
    """
    row = tags[layer]
    if dimension not in row and "value" not in row:
        raise MismatchError(
            f"layer {layer!r} of the pack has no column {dimension!r} and no column 'value' (it has {', '.join(row)}); name the layer "
            f"that has it in tags.{dimension}.layer"
        )
    found = row.get(dimension, row.get("value"))
    return found["value"] if isinstance(found, Mapping) else found


def check_tags(heads: Mapping[str, TagHead], stage: str, pack: Pack) -> None:
    """Raises RequestError when the pack was made without a layer that a head reads."""
    held = pack.head.get("recipe", {}).get("tags_from", [])
    for dimension, head in heads.items():
        if head.layer not in held:
            raise RequestError(
                f"stage {stage!r}: tags.{dimension} reads layer {head.layer!r}, and pack {pack.store.uri!r} holds tags of {held or 'none'}; "
                "pack again with the layer in tags_from, or take the tag out of the stage"
            )
