"""``manifest card``: README.md with the hub's front matter, its plots, and croissant.json, all from the facts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manifests.console import counted, hours, number
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.export.card_facts import CardFacts, corpus_facts, pack_facts
from manifests.export.card_limits import limits, share
from manifests.export.card_plots import plots
from manifests.export.contents import Contents
from manifests.export.croissant import croissant
from manifests.export.front_matter import MARK, card_bytes, front_of, hub_licences, size_category
from manifests.export.work import CONTENTS, REQUEST
from manifests.licences import Licence, find_licence
from manifests.open_rows import open_place
from manifests.packs import Pack
from manifests.remote import refusal
from manifests.store import Store, json_bytes

MOST_ROWS = 20  # of a table in the card
TABLES = (
    ("split", "split"),
    ("language", "language"),
    ("source", "source"),
    ("licence", "licence"),
    ("consent", "consent"),
    ("terms of use", "terms"),
    ("attribution", "attribution"),
    ("origin of the text", "text_source"),
)
RARE = ("terms", "attribution")  # few sources state them: no table that says only so
MANY = (1, 10, 100, 1000)  # speakers whose hours are told together: a card names nobody
TITLES = {"hours-by-language.png": "Hours by language", "lengths.png": "Rows by length", "funnel.png": "What was left out"}
LANGUAGE = re.compile(r"[a-z]{2,3}")  # ISO 639, as the hub takes it
HUB_TASKS = {"asr": "automatic-speech-recognition", "tts": "text-to-speech", "text": "text-generation"}


@dataclass(frozen=True)
class CardResult:
    """What was written where."""

    out: str
    files: Sequence[str]
    num_rows: int
    hours: float
    licences: Sequence[str]
    limits: Sequence[str]

    def lines(self) -> list[str]:
        """The result for people."""
        head = f"card at {self.out}: {counted(self.num_rows, 'row')}, {hours(self.hours)}, {', '.join(self.licences)}"
        return [head, *(f"  {name}" for name in self.files)]


def write_card(
    uri: str,
    out: str,
    *,
    name: str | None = None,
    corpus_uri: str | None = None,
    snapshot: int | None = None,
    scheduler: str | None = None,
) -> CardResult:
    """Write the card of a corpus or a pack into ``out``, a folder of its own, the pack's, or an export's.

    Raises RequestError where a README.md is there that no card wrote, or the request is wrong.
    """
    facts = _facts(uri, corpus_uri, snapshot, scheduler)
    store, title = Store(out), name or uri.rstrip("/").rpartition("/")[2]
    try:
        standing = store.read("README.md").decode() if store.exists("README.md") else MARK
    except OSError as error:
        raise refusal(f"output {out!r}", error) from error
    if MARK not in standing:
        raise RequestError(f"output {out!r} holds a README.md that no card wrote; choose another --out, or move it away")
    beside = _beside(facts, store)
    pictures = {f"plots/{file}": data for file, data in plots(facts).items()}
    files = {
        **pictures,
        "croissant.json": json_bytes(croissant(facts, title, limits(facts), beside, store)),
        "README.md": card_bytes({**front_matter(facts, title), **_kept(standing)}, _page(facts, title, pictures, beside)),
    }
    for path, data in files.items():
        store.replace(path, data)
    return CardResult(out, list(files), facts.num_rows, facts.hours, hub_licences(_licences(facts)), limits(facts))


def _facts(uri: str, corpus_uri: str | None, snapshot: int | None, scheduler: str | None) -> CardFacts:
    place = open_place(uri, snapshot)
    if isinstance(place, Pack):
        return pack_facts(place, Corpus.open(corpus_uri) if corpus_uri else None, scheduler)
    if corpus_uri is not None:
        raise RequestError(f"{uri!r} is a corpus itself; --corpus goes with a pack")
    return corpus_facts(place, scheduler)


def _kept(standing: str) -> dict[str, Any]:
    """What an export says of its files in the head of its README.md; the card goes over the rest."""
    return {key: value for key, value in front_of(standing).items() if key == "configs"}


def _beside(facts: CardFacts, store: Store) -> str | None:
    """What of the rows the export holds that the card lies in, in words; None where it lies in none.

    Raises RequestError where that is an export of something else, or is not finished.
    """
    if not store.exists(REQUEST):
        return None
    if not store.exists(CONTENTS):
        raise RequestError(f"the export at {store.uri!r} is not finished; run its command again, and then the card")
    rows, contents = json.loads(store.read(REQUEST))["rows"], Contents.from_json(json.loads(store.read(CONTENTS)))
    other = {name: rows.get(name) for name, value in facts.origin.items() if rows.get(name) != value}
    if other:
        raise RequestError(f"the export at {store.uri!r} is of {other}, and the card of {facts.uri!r} is of {dict(facts.origin)}")
    num = sum(contents.num_rows.values())
    where = f", where `{rows['where']}`" if rows.get("where") else ""
    splits = ", ".join(f"{name}: {sums['num']:,}" for name, sums in contents.by_split().items())
    return f"{num:,} of these rows ({splits}){where}, as `stepwell manifest export` wrote them."


def _licences(facts: CardFacts) -> list[str | None]:
    return [group.value for group in facts.groups["licence"]] or [None]


def front_matter(facts: CardFacts, title: str) -> dict[str, Any]:
    """The head of the card: what the facts tell, and no key for what they do not."""
    licences, languages = _licences(facts), sorted(v for v in facts.known("language") if LANGUAGE.fullmatch(v))
    others = sorted(text for text in licences if text is not None and hub_licences([text]) == ["other"])
    front = {
        "pretty_name": title,
        "language": languages,
        "license": hub_licences(licences),
        "license_details": "; ".join(others),
        "size_categories": [size_category(facts.num_rows)],
        "task_categories": sorted(HUB_TASKS[task] for task in facts.tasks if task in HUB_TASKS),
        "annotations_creators": _creators(facts),
        "multilinguality": [("multilingual" if len(languages) > 1 else "monolingual")] if languages else [],
        "tags": ["speech", *(["synthetic"] if facts.known("synthesizer") else [])],
    }
    return {key: value for key, value in front.items() if value}


def _creators(facts: CardFacts) -> list[str]:
    """The hub's words for where annotations come from."""
    guessed = [origin for origin in facts.known("text_source") if origin != "source"]
    found = facts.num_transcribed or "source" in facts.known("text_source")
    made = ["machine-generated"] if facts.layers or guessed else []
    return [*(["found"] if found else []), *made] or ["no-annotation"]


def speakers(facts: CardFacts) -> list[tuple[str, int, float]]:
    """(who, rows, hours) of those with the most hours, of all, and of unknown ones. Who they are is for the audit to say.

    A pack keeps recordings whose speaker nobody knows under their own id: there they count as one speaker each.
    """
    told = [group for group in facts.groups["speaker"] if group.value is not None]
    counts = [*(many for many in MANY if many < len(told)), *([len(told)] if told else [])]
    rows = []
    for many in counts:
        who = f"all {many:,}" if many == len(told) else f"the {many:,} most heard" if many > 1 else "the most heard"
        rows.append((who, sum(group.num_rows for group in told[:many]), sum(group.hours for group in told[:many])))
    unknown = facts.unknown("speaker")
    return [*rows, *([("*not known*", unknown.num_rows, unknown.hours)] if unknown.num_rows else [])]


def _licence_line(text: str) -> str:
    known = find_licence(text)
    return f"{_cell(text)}: {_terms(known) if known else 'its terms are not known here; read them at the source'}."


def _terms(licence: Licence) -> str:
    told = [
        "commercial use allowed" if licence.allows_commercial else "no commercial use",
        "derivatives allowed" if licence.allows_derivatives else "no derivatives",
        *(["share alike"] if licence.is_share_alike else []),
        *(["attribution needed"] if licence.needs_attribution else []),
    ]
    return ", ".join(told)


def _cell(text: str) -> str:
    """A value where Markdown would read signs of its own."""
    return re.sub(r"([\\|*_<>`\[\]])", r"\\\1", " ".join(str(text).split()))


def _page(facts: CardFacts, title: str, pictures: Mapping[str, bytes], beside: str | None) -> str:
    import yaml
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("manifests.export"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("card.md.j2").render(
        facts=facts,
        name=title,
        mark=MARK,
        beside=beside,
        pictures=[(TITLES[path.rpartition("/")[2]], path) for path in pictures],
        tables=[(title, fact) for title, fact in TABLES if fact not in RARE or facts.known(fact)],
        most=MOST_ROWS,
        row_word="clip" if facts.kind == "corpus" else "document",
        licences=[_licence_line(text) for text in facts.known("licence")],
        limits=limits(facts),
        speakers=speakers(facts),
        recipe=yaml.safe_dump(dict(facts.recipe), sort_keys=False, allow_unicode=True) if facts.recipe else None,
        counted=counted,
        hours=hours,
        figure=number,
        share=share,
        cell=_cell,
    )
