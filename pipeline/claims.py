"""Who may write at a place where a pack comes about: runs of one and the same pack, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from manifests.errors import RequestError, WorkError
from manifests.store import Store, json_bytes

CLAIM = "claim.json"


def claim(store: Store, work: Store, pack_id: str, find_ties: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Take the place for this pack, or join those that took it for the same one; the ties (JSON) that all of them use.

    Raises RequestError when another pack was begun there, or when shards lie there that no claim explains: taking them
    away is not ours to decide, and a glob would read them with the pack. Raises WorkError when a pack has just come there.
    """
    found = _read(work)
    if found is None and (left := [*store.objects("shards"), *store.objects("manifest")]):
        found = _read(work)  # another run may have begun between the two looks
        if found is None and store.exists("pack.json"):
            raise WorkError(f"another run finished a pack at {store.uri!r} just now; run the same command again to see which")
        if found is None:
            raise RequestError(
                f"{store.uri!r} holds {len(left)} objects of something else, the first {left[0]!r}; remove them or choose another --out"
            )
    if found is None:
        ties = find_ties()
        store.check_exclusive()
        work.create(CLAIM, json_bytes({"pack_id": pack_id, "ties": ties}))
        found = _read(work)
    if found is None or found["pack_id"] != pack_id:
        begun = "" if found is None else f" ({found['pack_id'][:12]})"
        raise RequestError(
            f"{store.uri!r} holds the beginning of another pack{begun}; finish that one, remove it, or choose another --out"
        )
    return dict(found["ties"])


def _read(work: Store) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(work.read(CLAIM))
    except FileNotFoundError:
        return None
    return found


def clean(store: Store, work: Store) -> None:
    """Remove what lay there while the pack came about. What another run puts there meanwhile may stay: it serves nothing."""
    with suppress(OSError):
        if work.exists():
            work.fs.rm(work.root, recursive=True)
        store.remove_drafts("shards")
        store.remove_drafts("manifest")
