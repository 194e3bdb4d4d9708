"""Recipes of builds and packs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from annotators.catalog import AnnotatorConfig, SegmenterConfig, VoiceConfig
from manifests.audit.recipe import Threshold
from manifests.clip_texts import SOURCE
from manifests.contracts import FACTS
from manifests.ids import digest_bytes
from manifests.recipes import RecipeModel
from pipeline.clipset import ClipSetConfig
from pipeline.document_kinds import ClipDocuments, DocumentKind
from pipeline.ingest import StoreConfig
from pipeline.limits import LimitsConfig
from pipeline.pools import PoolConfig
from pipeline.units import UnitsConfig


class BuildRecipe(RecipeModel):
    """What ``corpus build`` does to a source. Names on the left are the names of the spans and layers."""

    name: str
    store: StoreConfig = StoreConfig()
    units: UnitsConfig = UnitsConfig()
    segmenters: dict[str, SegmenterConfig]
    clip_set: ClipSetConfig = ClipSetConfig()
    annotators: dict[str, AnnotatorConfig] = {}
    limits: LimitsConfig = LimitsConfig()
    # Worker processes on Ray, by the name of a part's pool.
    pools: dict[str, PoolConfig] = {}
    # Said in every report: what the labels of this recipe are good for.
    notice: str = ""

    @model_validator(mode="after")
    def _names_exist(self) -> BuildRecipe:
        gates = [config.when.spans for config in self.segmenters.values() if config.when]
        if taken := sorted(self.annotators.keys() & {*FACTS, "source"}):
            raise ValueError(f"annotators.{taken[0]}: {taken[0]!r} is no layer's name; it means the {taken[0]}'s own facts")
        for name in filter(None, (self.clip_set.speech, self.clip_set.turns, *gates)):
            if name not in self.segmenters:
                raise ValueError(f"segmenter {name!r} is not in segmenters ({', '.join(self.segmenters)})")
        return self


class FilterConfig(Threshold):
    """Leave out documents whose column lies outside ``[min, max]``. A null is left out only with ``drop_null``."""

    column: str = Field(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+$")  # layer.column, or clip.<derived column>


class PackRecipe(RecipeModel):
    """What ``corpus pack`` takes out of a corpus, or out of plain text."""

    name: str
    # What documents are made, each kind once. An earlier kind takes the clips that suit it, a later one what is left.
    documents: list[DocumentKind] = Field(default=[ClipDocuments()], min_length=1)
    # Every kind sees all clips, so that one clip may be in a document of each.
    share_clips: bool = False
    seed: int = 0
    sample_rate_hz: PositiveInt = 16_000
    # Where text is taken from, the first that has it: ``source`` (came with the input) or the name of an ASR layer.
    text_from: list[str] = ["source", "asr"]
    # A document without text serves no task of the curriculum yet.
    require_text: bool = True
    filters: list[FilterConfig] = []
    # Licences of which alone clips are taken, as inputs write them or by SPDX id; empty takes any, also none.
    licences: list[str] = []
    # Take only clips to which consent was granted or is not needed. Where it was withheld, no pack takes them.
    require_consent: bool = False
    # Decision tables with a drop_reason a clip: what they say is left out (duplicates, contamination).
    leave_out: list[str] = []
    # Clips by id, of plain text documents by key, that are left out, and why; ``--leave-out`` fills it in from what runs blame.
    leave_out_named: dict[str, str] = {}
    # Layers whose columns go into K.json as they are.
    tags_from: list[str] = []
    # Layer of captions (``caption_en``, ``caption_zh``) for paralinguistic captioning; null packs none.
    captions_from: str | None = None
    include_audio: bool = True
    # Layer of audio codes; null packs none. A pack with codes needs the tokenizer that made them.
    codes_from: str | None = None
    # Share of speakers (and with them recordings) that go to each split; drawn by hash, stable as the corpus grows.
    # A recording that several inputs name different speakers of keeps all of them, and all they say, in one split.
    splits: dict[str, float] = {"train": 1.0}
    # Who is one speaker, for the splits: ``source``, those whom the sources name; ``speaker_id``, besides these whoever the
    # decision table of `corpus link-speakers` takes for one person.
    speakers_from: Literal["source", "speaker_id"] = "source"
    shard_bytes: PositiveInt = 256 << 20

    @property
    def layers(self) -> set[str]:
        """Names of every layer that the pack is made from."""
        named = {f.column.split(".")[0] for f in self.filters} - {"clip"}
        asked = {name for name in (self.codes_from, self.captions_from) if name}
        return named | set(self.tags_from) | set(self.text_from) - {SOURCE} | asked

    def split_of(self, group: str) -> str:
        """Split of what must stay together (a speaker, a recording, a text), by a hash of its name alone."""
        point = int.from_bytes(digest_bytes(group.encode())[:8], "big") / 2**64
        edge = 0.0
        for split, share in self.splits.items():
            edge += share
            if point < edge:
                return split
        return list(self.splits)[-1]

    @model_validator(mode="after")
    def _kinds_go_together(self) -> PackRecipe:
        kinds = [config.kind for config in self.documents]
        if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
            raise ValueError(f"documents: kind {twice[0]!r} stands there {kinds.count(twice[0])} times; name it once")
        if "text" in kinds and len(kinds) > 1:
            raise ValueError(f"documents: {kinds} cannot be of one pack; those of kind 'text' are made of plain text alone")
        if "clip" in kinds[:-1] and not self.share_clips:
            raise ValueError(f"documents: {kinds}: kind 'clip' takes every clip; let it stand last, or set share_clips")
        return self

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> PackRecipe:
        if abs(sum(self.splits.values()) - 1.0) > 1e-6 or min(self.splits.values()) < 0:
            raise ValueError(f"splits {self.splits} must be shares that sum to 1")
        return self


class VoicesRecipe(RecipeModel):
    """What ``corpus synthesize`` does to texts. Names of voices become speaker labels."""

    name: str
    voices: dict[str, VoiceConfig] = Field(min_length=1)
    sample_rate_hz: Literal[16000, 24000, 48000] = 24000
    gap_s: float = Field(default=0.3, ge=0, description="silence between the turns of a dialogue")
    one_channel_a_role: bool = Field(default=False, description="a dialogue has a channel for every role, as calls have")
    licence: str | None = Field(default=None, description="of the texts, which the speech inherits")
