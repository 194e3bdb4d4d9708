"""What an audit looks at, as a recipe: columns, bands, limits, thresholds and caps.

Columns are written in full (``dnsmos.dnsmos_ovrl``, see ``manifests.rows``). What a corpus does not have is left out of
its audit and said there: the shipped recipe ``audit`` fits any corpus, and a pack as far as its columns go.
"""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from manifests.recipes import RecipeModel

COLUMN = r"^[a-z0-9_]+(\.[a-z0-9_]+)+$"


class Distribution(RecipeModel):
    """A numeric column with a histogram of equal bins over ``[low, high]``; what lies outside is counted beside it."""

    column: str = Field(pattern=COLUMN)
    title: str
    low: float
    high: float
    num_bins: PositiveInt = 80

    @model_validator(mode="after")
    def _has_room(self) -> Distribution:
        if not self.low < self.high:
            raise ValueError(f"{self.column!r}: low {self.low:g} is not below high {self.high:g}")
        return self


class Band(RecipeModel):
    """A column cut at rising edges, to be grouped by under ``name``."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    column: str = Field(pattern=COLUMN)
    edges: list[float] = Field(min_length=1)

    @model_validator(mode="after")
    def _rises(self) -> Band:
        if sorted(set(self.edges)) != self.edges:
            raise ValueError(f"edges of band {self.name!r} must rise, they are {self.edges}")
        return self

    @property
    def labels(self) -> list[str]:
        """One more than edges: ``<2``, ``2 to 3``, ``>=3``."""
        inner = [f"{low:g} to {high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return [f"<{self.edges[0]:g}", *inner, f">={self.edges[-1]:g}"]


class Group(RecipeModel):
    """Hours by the values of one column, or of several together; a name without a dot is a band's."""

    name: str
    columns: list[str] = Field(min_length=1, max_length=3)


class Limit(RecipeModel):
    """A rule: values of the columns outside ``[min, max]`` are impossible. Nulls are not looked at."""

    rule: str
    columns: list[str] = Field(min_length=1)
    min: float | None = None
    max: float | None = None


class Threshold(RecipeModel):
    """As a filter of a pack recipe: leaves out what lies outside ``[min, max]``, nulls only with ``drop_null``."""

    column: str = Field(pattern=COLUMN)
    min: float | None = None
    max: float | None = None
    drop_null: bool = False

    @property
    def drop_reason(self) -> str:
        """Code in the funnel, as that of the pack: ``dnsmos.dnsmos_ovrl<2.5``."""
        low = f"<{self.min:g}" if self.min is not None else ""
        high = f">{self.max:g}" if self.max is not None else ""
        return f"{self.column}{low}{high}"


class Drift(RecipeModel):
    """Which differences between sources, times and models count."""

    num_periods: int = Field(default=10, ge=2, description="spans of units in plan order that time is cut into")
    most_sources: PositiveInt = 100
    fewest_recordings: int = Field(default=20, ge=2, description="of a side, below which nothing is tested")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="of the p-value after Holm's correction over all tests")
    smallest_distance: float = Field(
        default=0.1, ge=0, description="Kolmogorov-Smirnov distance below which a drift is too small"
    )


class Listen(RecipeModel):
    """What a sample for human ears is drawn by, and what the page says of each clip."""

    strata: list[str] = ["input.source", "clip.language"]
    shows: list[str] = ["asr.text", "clip.speaker", "dnsmos.dnsmos_ovrl", "signal.snr_db", "paralinguistics.emotion"]
    seed: int = 0


class AuditRecipe(RecipeModel):
    """What ``manifest audit`` counts."""

    name: str
    groups: list[Group] = []
    most_groups: int = Field(default=200, ge=1, description="rows of a table of hours; the rest is one row")
    bands: list[Band] = []
    distributions: list[Distribution] = []
    distinct: list[str] = []
    speakers: str = "clip.speaker"
    speaker_cap_h: float = Field(default=50.0, gt=0, description="hours of one speaker above which a training set leans on them")
    limits: list[Limit] = []
    codes: str = Field(default="codes.num_codes", description="column of the number of codes")
    codec_frame_hz: float = Field(default=25.0, gt=0)
    codes_tolerance: float = Field(default=2.0, ge=0, description="codes more or less than the duration has frames for")
    text_tokens: str = Field(default="document.num_text_tokens", description="column of the number of text tokens")
    most_text_tokens_hz: float = Field(default=30.0, gt=0, description="tokens a second of clip that nobody speaks")
    num_offenders: int = Field(default=20, ge=0, description="rows that are named of each rule")
    outliers: list[str] = []
    num_outliers: int = Field(default=5, ge=0, description="rows that are named at either end of a column")
    filters: list[Threshold] = []
    require_text: bool = False
    text_from: list[str] = ["source", "asr"]
    leave_out: list[str] = Field(
        default=[], description="decision tables whose drop_reason leaves a clip out, as a pack's recipe"
    )
    codes_from: str | None = Field(default=None, description="layer of codes without which a clip is left out, likewise")
    drift: Drift = Drift()
    listen: Listen = Listen()

    @model_validator(mode="after")
    def _names_fit(self) -> AuditRecipe:
        bands = {band.name for band in self.bands}
        names = [group.name for group in self.groups]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two groups are named {twice[0]!r}; give each a name of its own")
        for group in self.groups:
            if unknown := [name for name in group.columns if "." not in name and name not in bands]:
                raise ValueError(f"group {group.name!r} names {unknown[0]!r}, which is no band; bands are {sorted(bands)}")
        return self
