"""Recipes of builds and packs."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from annotators.catalog import AnnotatorConfig, SegmenterConfig
from manifests.recipes import RecipeModel
from pipeline.clipset import ClipSetConfig
from pipeline.ingest import StoreConfig
from pipeline.units import UnitsConfig


class BuildRecipe(RecipeModel):
    """What ``corpus build`` does to a source. Names on the left are the names of the spans and layers."""

    name: str
    store: StoreConfig = StoreConfig()
    units: UnitsConfig = UnitsConfig()
    segmenters: dict[str, SegmenterConfig]
    # gates[segmenter] names another whose spans must not be empty: no diarization of channels in which nobody speaks.
    gates: dict[str, str] = {}
    clip_set: ClipSetConfig = ClipSetConfig()
    annotators: dict[str, AnnotatorConfig] = {}
    # Said in every report: what the labels of this recipe are good for.
    notice: str = ""

    @model_validator(mode="after")
    def _names_exist(self) -> BuildRecipe:
        for name in filter(None, (self.clip_set.speech, self.clip_set.turns, *self.gates, *self.gates.values())):
            if name not in self.segmenters:
                raise ValueError(f"segmenter {name!r} is not in segmenters ({', '.join(self.segmenters)})")
        return self


class FilterConfig(RecipeModel):
    """Leave out documents whose column lies outside ``[min, max]``. A null is left out only with ``drop_null``."""

    column: str = Field(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+$")  # layer.column, or clip.<derived column>
    min: float | None = None
    max: float | None = None
    drop_null: bool = False

    @property
    def drop_reason(self) -> str:
        """Code in the funnel, e.g. ``dnsmos.dnsmos_ovrl<2.5``."""
        low = f"<{self.min:g}" if self.min is not None else ""
        high = f">{self.max:g}" if self.max is not None else ""
        return f"{self.column}{low}{high}"


class PackRecipe(RecipeModel):
    """What ``corpus pack`` takes out of a corpus."""

    name: str
    seed: int = 0
    sample_rate_hz: PositiveInt = 16_000
    # Where text is taken from, the first that has it: ``source`` (came with the input) or the name of an ASR layer.
    text_from: list[str] = ["source", "asr"]
    # A document without text serves no task of the curriculum yet.
    require_text: bool = True
    filters: list[FilterConfig] = []
    # Layers whose columns go into K.json as they are.
    tags_from: list[str] = []
    include_audio: bool = True
    # Layer of audio codes; null packs none. A pack with codes needs the tokenizer that made them.
    codes_from: str | None = None
    # Share of speakers (and with them recordings) that go to each split; drawn by hash, stable as the corpus grows.
    splits: dict[str, float] = {"train": 1.0}
    shard_bytes: PositiveInt = 256 << 20

    @property
    def layers(self) -> set[str]:
        """Names of every layer that the pack is made from."""
        named = {f.column.split(".")[0] for f in self.filters} - {"clip"}
        return named | set(self.tags_from) | set(self.text_from) - {"source"} | {name for name in [self.codes_from] if name}

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> PackRecipe:
        if abs(sum(self.splits.values()) - 1.0) > 1e-6 or min(self.splits.values()) < 0:
            raise ValueError(f"splits {self.splits} must be shares that sum to 1")
        return self
