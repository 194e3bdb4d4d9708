"""Clips of a corpus on their way into documents: which documents a unit makes, and each of these with its audio and codes.

A document stands where its first clip stands. What it is made of follows from the places of the unit's clips, so that a part
that goes on behind some of its clips makes the same documents; audio is read of those alone that are still to be made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from annotators.scripts import SPACELESS
from manifests.audio import AudioReader, resample
from manifests.clip_texts import SOURCE
from manifests.corpus import Corpus, UnitView
from pipeline.candidates import Candidate, candidates, drop_reason, whole_recordings
from pipeline.document_kinds import ContinuationDocuments, ConversationDocuments, PairDocuments
from pipeline.documents import MadeTurn, common, document_of, key_of
from pipeline.facts import Ties, unit_facts, unit_groups
from pipeline.grouping import Group, Placed, continuations, conversations
from pipeline.partners import UNITS_KEPT, Partners
from pipeline.recipe import PackRecipe
from pipeline.shards import TarredDocument
from pipeline.spills import Decision
from tokenization.artifact import Tokenizer

PLACE = ["sample_rate_hz", "start_sample", "end_sample"]
ROLES = ("human", "assistant")  # of the turns of a conversation, in turn
NO_DOCUMENT = "no_document"  # why a clip is left out that no kind of the recipe takes


@dataclass(frozen=True)
class PlannedTurn:
    """What a turn will be made of: clips in order of time, or the translation of one."""

    clips: tuple[Candidate, ...]
    role: str | None = None
    is_whole: bool = False  # all of a recording: what the source says of that, it says of the turn
    is_translation: bool = False  # the text that came with the recording in another language, without its audio


@dataclass(frozen=True)
class Plan:
    """A document that is to be made."""

    kind: str
    relation: str | None
    turns: tuple[PlannedTurn, ...]


@dataclass(frozen=True)
class ClipsPart:
    """Some units of a corpus as decisions; picklable, opens what it needs where it runs."""

    name: str
    corpus: str
    snapshot: int
    units: tuple[str, ...]
    recipe: PackRecipe
    tokenizer: str | None
    ties: Ties  # groups of the whole snapshot, partners of the recordings of the units

    def decisions(self, skip: int) -> Iterator[Decision]:
        """One a clip, in the order of the units' clips, without the first ``skip``. Audio is read of documents alone."""
        corpus = Corpus.open(self.corpus, self.snapshot)
        maker = TurnMaker(corpus, self.recipe, _opened(self.tokenizer) if self.tokenizer else None)
        partners = Partners(corpus, self.recipe, self.ties)
        passed = 0
        for view, facts in unit_facts(corpus, self.units, self.recipe.speakers_from):
            # What was taken down is counted as left out, and nothing else of it is read.
            for clip in view.taken_clips(PLACE).to_pylist():
                passed += 1
                if passed > skip:
                    num_samples = clip["end_sample"] - clip["start_sample"]
                    yield Decision((), next(iter(self.recipe.splits)), "taken_down", num_samples, clip["sample_rate_hz"])
            clips = list(candidates(view, facts, self.recipe, self.ties.groups))
            reasons = [drop_reason(clip, self.recipe) for clip in clips]
            plans, used = plan_documents(clips, reasons, self.recipe, partners)
            for number, (clip, reason) in enumerate(zip(clips, reasons, strict=True)):
                passed += 1
                if passed > skip:
                    documents = tuple(maker.document(plan) for plan in plans.get(number, ()))
                    left_out = reason or (None if number in used else NO_DOCUMENT)
                    split = self.recipe.split_of(clip.group)
                    yield Decision(documents, split, left_out, clip.num_samples, clip.clip["sample_rate_hz"])


@lru_cache(maxsize=1)
def _opened(tokenizer: str) -> Tokenizer:
    """A worker packs many parts with one tokenizer, and a large vocabulary takes a second to load."""
    return Tokenizer.open(tokenizer)


def clip_parts(corpus: Corpus, recipe: PackRecipe, tokenizer: str | None, ties: Ties) -> list[ClipsPart]:
    """All units of the snapshot in order."""
    corpus_uri, snapshot = corpus.store.uri, corpus.snapshot.number
    return [
        ClipsPart(f"{number:06d}", corpus_uri, snapshot, units, recipe, tokenizer, ties.of_units(units))
        for number, units in enumerate(unit_groups(corpus))
    ]


def plan_documents(
    clips: Sequence[Candidate], reasons: Sequence[str | None], recipe: PackRecipe, partners: Partners
) -> tuple[dict[int, list[Plan]], set[int]]:
    """(number of the first clip -> documents that begin there, numbers of the clips that are in some document).

    ``reasons`` say which clips are left out. Without ``share_clips`` a kind sees what the kinds before it left.
    """
    plans: dict[int, list[Plan]] = {}
    used = set[int]()
    for config in recipe.documents:
        is_free = [reason is None and (recipe.share_clips or n not in used) for n, reason in enumerate(reasons)]
        free = [n for n in range(len(clips)) if is_free[n]]
        if isinstance(config, PairDocuments):
            wholes = [whole for whole in whole_recordings(clips) if all(is_free[n] for n in whole)]
            pairs = {whole: pair_plans([clips[n] for n in whole], config, partners) for whole in wholes}
            found = [(whole[0], plan) for whole, (own, _) in pairs.items() for plan in own]
            taken = {n for whole, (own, others) in pairs.items() if own or others for n in whole}
        elif isinstance(config, ContinuationDocuments):
            groups = continuations(_placed(clips, is_free), config)
            found = [(group[0][0], _plan("continuation", "continuation", group, clips)) for group in groups]
            taken = _numbers(groups)
        elif isinstance(config, ConversationDocuments):
            groups = conversations(_placed(clips, is_free), config)
            found = [(group[0][0], _plan("conversation", "reply", group, clips, ROLES)) for group in groups]
            taken = _numbers(groups)
        else:
            found = [(n, _plan("clip", None, [[n]], clips)) for n in free]
            taken = set(free)
        for number, plan in found:
            plans.setdefault(number, []).append(plan)
        used |= taken
    return plans, used


def _numbers(groups: Sequence[Group]) -> set[int]:
    return {number for group in groups for turn in group for number in turn}


def _plan(
    kind: str, relation: str | None, group: Group, clips: Sequence[Candidate], roles: Sequence[str | None] = (None,)
) -> Plan:
    turns = (PlannedTurn(tuple(clips[number] for number in turn), roles[place % len(roles)]) for place, turn in enumerate(group))
    return Plan(kind, relation, tuple(turns))


def _placed(clips: Sequence[Candidate], is_free: Sequence[bool]) -> list[Placed]:
    return [
        Placed(
            number,
            clip.clip["recording_id"],
            clip.clip["channel"],
            clip.clip["sample_rate_hz"],
            clip.clip["start_sample"],
            clip.clip["end_sample"],
            clip.speaker_label,
            clip.clip["overlap_samples"],
            is_free[number],
        )
        for number, clip in enumerate(clips)
    ]


def pair_plans(clips: Sequence[Candidate], config: PairDocuments, partners: Partners) -> tuple[list[Plan], list[Plan]]:
    """The pairs that all clips of a recording are in: those that stand where these do, and those that stand where their partner does."""
    whole, first = PlannedTurn(tuple(clips), is_whole=True), clips[0]
    own, others = list[Plan](), list[Plan]()
    if first.facts["translation"]:
        read = PlannedTurn((first,), is_translation=True)
        own += _directed(whole, read, first.language, first.facts["translation_language"], config)
    if partner := partners.of(first):
        plans = _directed(whole, PlannedTurn(partner, is_whole=True), first.language, partner[0].language, config)
        is_ours = first.clip["recording_id"] < partner[0].clip["recording_id"]
        own, others = (own + plans, []) if is_ours else (own, plans)
    return own, others


def _directed(
    a: PlannedTurn, b: PlannedTurn, language_a: str | None, language_b: str | None, config: PairDocuments
) -> list[Plan]:
    """A document for each of the recipe's directions between the two languages."""
    ways = {f"{language_a}>{language_b}": (a, b), f"{language_b}>{language_a}": (b, a)}
    return [Plan("pair", "translation", ways[direction]) for direction in config.directions if direction in ways]


class TurnMaker:
    """Makes documents of plans: reads audio, joins clips of a turn, counts tokens."""

    def __init__(self, corpus: Corpus, recipe: PackRecipe, tokenizer: Tokenizer | None) -> None:
        self._recipe, self._tokenizer = recipe, tokenizer
        self._audio_of: Callable[[str], AudioReader] = lru_cache(UNITS_KEPT)(lambda unit: UnitView(corpus, unit).audio())

    def document(self, plan: Plan) -> TarredDocument:
        turns = [self._turn(turn) for turn in plan.turns]
        key = turns[0].clips[0][0].hex() if plan.kind == "clip" else key_of(plan.kind, turns)
        return document_of(key, plan.kind, plan.relation, turns, self._recipe.sample_rate_hz, plan.turns[0].clips[0].group)

    def _turn(self, turn: PlannedTurn) -> MadeTurn:
        if turn.is_translation:
            return self._counted(MadeTurn(_translation(turn.clips[0])))
        made = [self._clip(clip) for clip in turn.clips]
        facts = {**_joined([clip.facts for clip in made]), "role": turn.role}
        if turn.is_whole and len(made) > 1 and self._recipe.text_from[:1] == [SOURCE] and turn.clips[0].facts["text"]:
            facts |= {"text": turn.clips[0].facts["text"].strip(), "text_source": SOURCE}
        if len(made) == 1:
            return self._counted(replace(made[0], facts=facts))
        audio = [clip.audio for clip in made if clip.audio is not None]
        codes = [clip.codes for clip in made if clip.codes is not None]
        joined = MadeTurn(
            facts=facts,
            audio=np.concatenate(audio) if audio else None,
            codes=np.concatenate(codes) if codes else None,
            recording_id=made[0].recording_id,
            clips=[place for clip in made for place in clip.clips],
        )
        return self._counted(joined)

    def _counted(self, turn: MadeTurn) -> MadeTurn:
        text = turn.facts["text"]
        if self._tokenizer is None or text is None:
            return turn
        return replace(turn, num_text_tokens=len(self._tokenizer.text.encode(text)))

    def _clip(self, candidate: Candidate) -> MadeTurn:
        """The clip as a turn of its own. Without audio in the recipe it has none."""
        clip, recipe = candidate.clip, self._recipe
        rate, audio = clip["sample_rate_hz"], None
        if recipe.include_audio:
            place = (clip["recording_id"], clip["channel"], rate, clip["start_sample"], clip["end_sample"])
            audio = resample(self._audio_of(candidate.unit).read(*place), rate, recipe.sample_rate_hz)
        num_samples = round(candidate.num_samples * recipe.sample_rate_hz / rate) if audio is None else len(audio)
        return MadeTurn(
            facts=_facts(candidate, recipe),
            audio=audio,
            codes=candidate.layers[recipe.codes_from]["codes"] if recipe.codes_from else None,
            recording_id=clip["recording_id"],
            clips=[(clip["clip_id"], num_samples)],
        )


def _joined(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts of a turn of several clips of one recording: texts one behind the other, null where one has none."""
    if len(turns) == 1:
        return dict(turns[0])
    language, texts = common(turn["language"] for turn in turns), [turn["text"] for turn in turns]
    text = None if None in texts else ("" if language in SPACELESS else " ").join(texts)
    told = {"text": text, "text_source": common(turn["text_source"] for turn in turns), "language": language}
    captions = dict.fromkeys(("caption_en", "caption_zh"))  # each of one clip alone
    return {**turns[0], **told, **captions, "clips": [clip for turn in turns for clip in turn["clips"]]}


def _facts(candidate: Candidate, recipe: PackRecipe) -> dict[str, Any]:
    """A turn of K.json: what is said, where it is from, and the clip with its words and the layers asked for."""
    clip, facts = candidate.clip, candidate.facts
    captions = candidate.layers[recipe.captions_from] if recipe.captions_from else {}
    return {
        "text": candidate.text,
        "text_source": candidate.text_source,
        "language": candidate.language,
        "speaker_label": candidate.speaker_label,
        "speaker": candidate.group,
        **{name: captions.get(name) for name in ("caption_en", "caption_zh")},
        "recording_id": clip["recording_id"].hex(),
        **{name: facts[name] for name in ("uri", "source", "licence", "attribution", "synthesizer")},
        "clips": [_clip_facts(candidate, recipe)],
    }


def _clip_facts(candidate: Candidate, recipe: PackRecipe) -> dict[str, Any]:
    clip = candidate.clip
    keys = ("channel", "sample_rate_hz", "start_sample", "end_sample", "speaker_label", "speech_samples", "overlap_samples")
    tags = {
        name: {k: v for k, v in candidate.layers[name].items() if k not in ("clip_id", "status", "error")}
        for name in recipe.tags_from
    }
    return {
        "clip_id": clip["clip_id"].hex(),
        **{key: clip[key] for key in keys},
        **({"speaker_id": candidate.speaker_id} if recipe.speakers_from == "speaker_id" else {}),
        "text": candidate.text,
        "words": candidate.words,
        "tags": tags,
    }


def _translation(candidate: Candidate) -> dict[str, Any]:
    """A turn of K.json of the text that came with the clip in another language."""
    facts = candidate.facts
    return {
        "text": facts["translation"].strip(),
        "text_source": SOURCE,
        "language": facts["translation_language"],
        "recording_id": candidate.clip["recording_id"].hex(),
        **{name: facts[name] for name in ("uri", "source", "licence", "attribution")},
        "clips": [],
    }
