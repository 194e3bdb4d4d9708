"""What a user of the data must know before using it: sentences that follow from the figures of a card."""

from __future__ import annotations

from manifests.console import hours
from manifests.export.card_facts import CardFacts

UNKNOWN = {
    "licence": "states no licence",
    "consent": "comes without a word on the consent of those who speak",
    "language": "is of unknown language",
    "speaker": "is of speakers whom nobody told apart",
    "source": "is of an unknown source",
}


def limits(facts: CardFacts) -> list[str]:
    """The sentences, as Markdown."""
    said = [
        f"{_part(facts.unknown(fact).hours, facts)} of the audio {words}."
        for fact, words in UNKNOWN.items()
        if facts.unknown(fact).num_rows
    ]
    if "consent" not in facts.groups:
        said.append("Consent is not among the facts of a pack; the corpus has it.")
    synthetic = sum(group.hours for group in facts.groups.get("synthesizer", ()) if group.value is not None)
    said.append(f"{_part(synthetic, facts)} of the audio is marked as synthetic; of the rest nothing is known either way.")
    return [*said, *_of_texts(facts), *_of_layers(facts)]


def _of_texts(facts: CardFacts) -> list[str]:
    said = []
    if facts.num_transcribed is not None:
        num = facts.num_rows - facts.num_transcribed
        said.append(f"{_of(num, facts)} of the clips are of recordings whose source has no transcript.")
    for group in facts.groups.get("text_source", ()):
        if group.value not in (None, "source"):
            told = f"{_of(group.num_rows, facts)} of the texts were guessed by `{group.value}`"
            said.append(f"{told}; no person has checked them as far as the facts tell.")
    return said


def _of_layers(facts: CardFacts) -> list[str]:
    said = []
    for layer, statuses in facts.layers.items():
        abstained, failed = (sum(s.num_rows for s in statuses if s.value == status) for status in ("abstained", "error"))
        if abstained or failed:
            told = f"`{layer}` abstains on {_of(abstained, facts)} of the clips"
            said.append(f"{told} and failed on {_of(failed, facts)}." if failed else f"{told}.")
    return said


def _part(value_h: float, facts: CardFacts) -> str:
    return f"{hours(value_h)} ({share(value_h, facts.hours)})"


def _of(num: int, facts: CardFacts) -> str:
    return f"{num:,} ({share(num, facts.num_rows)})"


def share(value: float, total: float) -> str:
    """``12.3%``; a dash where there is nothing to have a share of."""
    return f"{value / total:.1%}" if total else "-"
