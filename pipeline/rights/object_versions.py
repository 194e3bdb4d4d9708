"""What an object store keeps of objects that were removed or replaced: versions that no reader here reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from manifests.remote import os_errors
from manifests.store import Store

SHOWN = 20


@dataclass(frozen=True)
class Versions:
    """``held`` are versions that are not the newest: key, version_id, num_bytes. None where the store does not tell them."""

    held: list[dict[str, Any]] | None
    note: str

    def lines(self) -> list[str]:
        """For people."""
        if not self.held:
            return [self.note]
        lines = [f"{row['key']} version {row['version_id']}, {row['num_bytes']} bytes" for row in self.held[:SHOWN]]
        more = len(self.held) - SHOWN
        return [f"{self.note}: {len(self.held)}", *lines, *([f"{more} more, all in the proof"] if more > 0 else [])]


def find_versions(store: Store) -> Versions:
    """The versions below a store's root that are not live. On a disk there are none; of other stores than S3 nobody knows."""
    if store.is_local:
        return Versions([], "a disk keeps no versions; backups and copies elsewhere were not looked at")
    if "s3" not in ((store.fs.protocol,) if isinstance(store.fs.protocol, str) else store.fs.protocol):
        return Versions(None, "whether this store keeps versions of removed objects is not known; ask whoever runs it")
    bucket, prefix, _ = store.fs.split_path(store.root)
    held, marker = list[dict[str, Any]](), dict[str, str]()
    try:
        while True:
            with os_errors():
                page = store.fs.call_s3("list_object_versions", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", **marker)
            held += [
                {"key": row["Key"], "version_id": row["VersionId"], "num_bytes": row["Size"]}
                for row in page.get("Versions", ())
                if not row["IsLatest"]
            ]
            if not page.get("IsTruncated"):
                break
            marker = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
    except OSError as error:
        return Versions(None, f"the versions of bucket {bucket!r} cannot be listed ({error}); ask whoever runs it")
    note = "the bucket still keeps versions that no reader reaches; have them removed by whoever runs it"
    return Versions(held, note if held else "the bucket keeps no version but the live ones")
