"""Measure topics and write docs/quality.md.

    python -m benchmarks.quality                      every topic, then the page
    python -m benchmarks.quality diarization text     these topics, then the page from what is measured
    python -m benchmarks.quality --write              the page from what is measured

Each topic runs in a process of its own, and its section is kept in ``benchmarks/results/quality/<topic>.json``; the page
holds every topic that is kept there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.quality.figures import Section
from benchmarks.quality.material import Material

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "quality"
PAGE = ROOT / "docs" / "quality.md"
TOPICS: tuple[str, ...] = (
    "vad",
    "diarization",
    "speaker_change",
    "speakers",
    "asr",
    "text",
    "content",
    "duplicates",
    "signal",
    "rate",
    "gender_age",
    "emotion",
    "events",
    "hard_cases",
)  # in the order of the page

HEAD = """# Quality

What the parts say, measured against references: `make quality` writes this page ({when}). One topic alone:
`python -m benchmarks.quality TOPIC`. Material: `../shared/testdata` and `../shared/speech`, whose README says what their
references are worth; sets are small, and a difference inside the intervals means nothing.

Intervals are of 95 %: Wilson's for shares of independent items, a percentile bootstrap over items for everything else.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"of {', '.join(TOPICS)}; all by default")
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"), help="folder that holds testdata and speech")
    parser.add_argument("--write", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # measure the one topic in this process
    options = parser.parse_args()
    if unknown := sorted(set(options.topics) - set(TOPICS)):
        parser.error(f"topic {unknown[0]!r} is not one of {', '.join(TOPICS)}")
    if options.here:
        measure(options.topics[0], Material(options.shared))
        return
    failed = []
    for topic in () if options.write else options.topics or TOPICS:
        started = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.quality", "--here", topic, "--shared", options.shared]
        if subprocess.run(command, check=False, cwd=ROOT).returncode:
            failed.append(topic)
        print(f"{topic}: {'failed' if topic in failed else 'measured'} in {time.monotonic() - started:.0f} s", flush=True)
    PAGE.write_text(page(), encoding="utf-8")
    if failed:
        raise SystemExit(f"{', '.join(failed)} failed; the page has what they measured before, if anything")


def measure(topic: str, material: Material) -> None:
    """Run one topic and keep its section."""
    section: Section = importlib.import_module(f"benchmarks.quality.{topic}").measure(material)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{topic}.json").write_text(json.dumps(section.to_json(), indent=1), encoding="utf-8")


def page() -> str:
    """docs/quality.md from the sections that are kept."""
    parts = [HEAD.format(when=time.strftime("%Y-%m-%d"))]
    for topic in TOPICS:
        path = RESULTS / f"{topic}.json"
        if path.exists():
            parts.append(as_markdown(Section.from_json(json.loads(path.read_text(encoding="utf-8")))))
    return "\n".join(parts)


def as_markdown(section: Section) -> str:
    rows = ["| figure | value | 95 % interval | measured on | settings |", "|---|---|---|---|---|"]
    rows += [f"| {' | '.join(figure.cells())} |" for figure in section.figures]
    table = "\n".join(rows) if section.figures else ""
    return (
        "\n\n".join(part.strip() for part in (f"## {section.title}", section.prose, table, section.details) if part.strip())
        + "\n"
    )


if __name__ == "__main__":
    main()
