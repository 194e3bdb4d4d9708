"""What can be wrong with a corpus: a stable code for each fault, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass

Key = tuple[str, str, str]  # output, fingerprint, unit: what one commit is about

AGAIN = "`stepwell corpus fsck --repair`, then build again: the unit is done anew"
PUBLISH = "`stepwell corpus fsck --repair` publishes a snapshot that is right"
REMOVE = "`stepwell corpus fsck --repair` removes it"
RESTATE = "`stepwell corpus fsck --repair` removes it, then build or annotate again by the same recipe: it is written anew"
DECIDE = "`stepwell corpus fsck --repair` takes the table out of the snapshot, then make it again"
PLAN = "`stepwell corpus fsck --repair` empties the plan, then build again: its inputs are planned anew"
REMEDIES = {
    "head_unreadable": "put corpus.json back from a backup: nothing else holds the corpus id",
    "plan_unreadable": PLAN,
    "plan_wrong": PLAN,
    "unit_twice": PLAN,
    "unit_unplanned": "build its sources again, then `stepwell corpus fsck --repair` takes the unit out",
    "snapshot_unreadable": PUBLISH,
    "snapshot_missing": PUBLISH,
    "snapshot_gap": PUBLISH,
    "snapshot_names_missing_commit": PUBLISH,
    "snapshot_owners": PUBLISH,
    "holdings_wrong": PUBLISH,
    "commit_unreadable": AGAIN,
    "commit_misplaced": AGAIN,
    "commit_incomplete": AGAIN,
    "commit_unknown_unit": REMOVE,
    "commit_reads_missing": AGAIN,
    "object_missing": AGAIN,
    "object_size": AGAIN,
    "object_digest": AGAIN,
    "table_unreadable": AGAIN,
    "table_schema": AGAIN,
    "table_rows": AGAIN,
    "index_missing": "`stepwell corpus fsck --repair` makes it from the tar",
    "index_wrong": "`stepwell corpus fsck --repair` makes it from the tar",
    "tar_member": AGAIN,
    "piece_missing": AGAIN,
    "piece_wrong": AGAIN,
    "piece_unknown": AGAIN,
    "inputs_unplanned": AGAIN,
    "input_recording_unknown": AGAIN,
    "recording_without_input": AGAIN,
    "row_twice": AGAIN,
    "quarantine_input_unknown": AGAIN,
    "recording_unknown": AGAIN,
    "span_outside": AGAIN,
    "clip_id_wrong": AGAIN,
    "layer_misaligned": AGAIN,
    "layer_status": AGAIN,
    "compaction_unreadable": AGAIN,
    "part_missing": AGAIN,
    "part_size": AGAIN,
    "part_digest": AGAIN,
    "part_rows": AGAIN,
    "facts_unreadable": RESTATE,
    "decision_unreadable": DECIDE,
    "decision_object": DECIDE,
    "orphan": REMOVE,
    "draft": REMOVE,
    "checkpoint": REMOVE,
}


@dataclass(frozen=True)
class Fault:
    """One fault. ``breaks`` are the commits that cannot be trusted because of it; ``what`` says the value and the rule."""

    code: str
    path: str
    what: str
    breaks: tuple[Key, ...] = ()

    @property
    def remedy(self) -> str:
        return REMEDIES[self.code]

    def line(self) -> str:
        """The fault for people."""
        return f"{self.code}: {self.path}: {self.what}; {self.remedy}"


def said(error: BaseException) -> str:
    """An exception as a part of one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
