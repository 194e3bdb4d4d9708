"""The lineage of one thing as a tree for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manifests.console import counted, hours
from manifests.parts import model_lines

LINE_CHARS = 160
RIGHTS = ("source", "licence", "consent", "terms", "language", "speaker_label", "synthesizer", "outcome")


@dataclass
class Branch:
    """A line, and those below it."""

    text: str
    below: list[Branch] = field(default_factory=list)

    def lines(self, before: str = "") -> list[str]:
        """The branch and what is below, ``before`` in front of all but the first line."""
        found = [self.text]
        for number, branch in enumerate(self.below):
            is_last = number == len(self.below) - 1
            first, *others = branch.lines()
            found.append(f"{before}{'└─ ' if is_last else '├─ '}{first}")
            found += [f"{before}{'   ' if is_last else '│  '}{line}" for line in others]
        return found


def lineage_lines(found: Mapping[str, Any]) -> list[str]:
    """What ``manifests.provenance.lineage`` found: back to the sources, what made it, forwards to packs."""
    corpus = found["corpus"]
    root = Branch(f"{found['kind']} {found['asked']}, in {corpus['uri']} (snapshot {corpus['snapshot']})")
    root.below += [Branch(_clip_line(found["clip"]))] if found["clip"] else []
    root.below += [_group("recordings", found["recordings"], [Branch(_recording_line(r)) for r in found["recordings"]["first"]])]
    root.below += [_group("inputs", found["inputs"], [Branch(_input_line(row)) for row in found["inputs"]["first"]])]
    root.below += [Branch("made by", [_output(row) for row in found["outputs"]])] if found["outputs"] else []
    clips = found["clips"]
    root.below += [] if found["clip"] else [_held("clips", "clip", clips)]
    root.below += [Branch("packs", [_pack(pack) for pack in found["packs"]])] if found["packs"] else []
    trained = [Branch(f"{c['run_uri']}: {c['name']} ({c['stage']}, step {c['global_step']})") for c in found["checkpoints"]]
    return [*root.lines(), *Branch("checkpoints trained on them", trained).lines()] if trained else root.lines()


def _group(name: str, found: Mapping[str, Any], below: Sequence[Branch]) -> Branch:
    more = found["num"] - len(below)
    return Branch(name, [*below, *([Branch(f"… and {more:,} more")] if more > 0 else [])])


def _clip_line(clip: Mapping[str, Any]) -> str:
    rate = clip["sample_rate_hz"]
    speaker = f", speaker {clip['speaker']}" if clip.get("speaker") else ""
    language = f", language {clip['language']}" if clip.get("language") else ""
    span = f"{clip['start_sample'] / rate:.2f} to {clip['end_sample'] / rate:.2f} s"
    return f"span: {span} of channel {clip['channel']} ({clip['duration_s']:.2f} s){speaker}{language}"


def _recording_line(row: Mapping[str, Any]) -> str:
    length = row["num_samples"] / row["sample_rate_hz"]
    return f"{row['recording_id']}: {length:.2f} s, {row['sample_rate_hz']} Hz, {row['codec']} in {row['container']}, unit {row['unit']}"


def _input_line(row: Mapping[str, Any]) -> str:
    told = [f"{name} {row[name]}" for name in RIGHTS if row.get(name) is not None]
    return f"{row['uri']}: {', '.join([*told, *([] if row.get('licence') else ['licence not stated'])])}"


def _output(row: Mapping[str, Any]) -> Branch:
    part = f", {row['part']['name']} {row['part']['version']}" if row["part"] else ""
    status = f", {row['status']}" if row["status"] else ""
    branch = Branch(f"{row['output']} {row['fingerprint']}{part}{status}")
    branch.below += [Branch(line) for line in model_lines(row["models"])]
    if row["run"]:
        others = f", the newest of {row['num_runs']} that made it" if row["num_runs"] > 1 else ""
        branch.below.append(Branch(f"run {row['run']}{others}"))
    if row["parameters"]:
        told = json.dumps(row["parameters"], ensure_ascii=False)
        branch.below.append(
            Branch(f"parameters {told if len(told) <= LINE_CHARS else told[:LINE_CHARS] + '… (all with --json)'}")
        )
    return branch


def _held(name: str, one: str, found: Mapping[str, Any]) -> Branch:
    more = found["num_rows"] - len(found["first"])
    keys = [*map(Branch, found["first"]), *([Branch(f"… and {more:,} more")] if more > 0 else [])]
    return Branch(f"{name}: {counted(found['num_rows'], one)}, {hours(found['hours'])}", keys)


def _pack(pack: Mapping[str, Any]) -> Branch:
    origin = f"snapshot {pack['snapshot']}" if pack["is_of_corpus"] else "another corpus"
    below = [_held(f"split {split}", "document", held) for split, held in pack["splits"].items()]
    if pack["other_layers"]:
        below.append(Branch(f"made from other layers: {', '.join(f'{n} {m}' for n, m in sorted(pack['other_layers'].items()))}"))
    return Branch(f"{pack['uri']} ({pack['pack_id'][:12]}), of {origin}", below)
