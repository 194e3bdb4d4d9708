"""What a recipe may say of the encoder's pretraining besides its texts: augmentation of what is heard, and tags to be told from it.

All of it is off unless it is named; ``{}`` names it with what the literature does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from manifests.recipes import RecipeModel

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Factor = Annotated[float, Field(ge=0.5, le=2.0)]


def _rises(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"range {list(ends)} must rise: the lower end first")
    return ends


DecibelRange = Annotated[tuple[float, float], AfterValidator(_rises)]


class SpecMasks(RecipeModel):
    """SpecAugment without its time warp: bands and stretches of time of the mels are set to their mean.

    Unless told otherwise as its policy "Switchboard strong" (Park et al. 2019, table 1): F = 27 of 80 bands, T = 0.7 s, p = 0.2.
    """

    num_band_masks: int = Field(default=2, ge=0)
    max_band_share: Share = 0.3375
    num_time_masks: int = Field(default=2, ge=0)
    max_time_s: PositiveFloat = 0.7
    max_time_share: Share = 0.2  # of the piece


class SpeedFactors(RecipeModel):
    """Audio is played so many times as fast, by resampling, which moves its pitch too (Ko et al. 2015)."""

    factors: tuple[Factor, ...] = Field(default=(0.9, 1.0, 1.1), min_length=1)


class DrawnFilter(RecipeModel):
    """Gains over frequency, as other rooms and microphones have them: FilterAugment of its type "linear" (Nam et al. 2022).

    A number of bands of drawn widths, a drawn gain at each edge, straight lines in dB between them over mel. Defaults are the paper's.
    """

    num_bands: Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_rises)] = (3, 5)
    min_band_share: Share = 6 / 128  # of the mel scale up to half the rate
    gain_db: DecibelRange = (-6.0, 6.0)
    level_db: DecibelRange = (0.0, 0.0)  # on top, at all frequencies: how loud the piece is

    @model_validator(mode="after")
    def _bands_fit(self) -> DrawnFilter:
        if self.num_bands[1] * self.min_band_share > 1.0:
            raise ValueError(
                f"{self.num_bands[1]} bands of min_band_share {self.min_band_share:g} are wider than all frequencies: lower one of the two"
            )
        return self


class QuietEnds(RecipeModel):
    """Quiet before and behind the piece: how closely recordings are cut differs, and what stands at the ends must not be told by it."""

    longest_s: PositiveFloat = 0.3  # at each of the two
    level_db: DecibelRange = (-80.0, -30.0)  # of coloured noise in the ends, against the piece's mean power


class AddedNoise(RecipeModel):
    """Noise at a drawn ratio of mean powers, added to a share of the documents (as Deep Speech 2 does, Amodei et al. 2016)."""

    share: Share = 0.4
    snr_db: DecibelRange = (0.0, 30.0)
    # coloured: drawn, its power falls as 1 / f^a, a between 0 (white) and 2 (brown); pack: audio of another document of the pack.
    source: Literal["coloured", "pack"] = "coloured"


class AugmentRecipe(RecipeModel):
    """What is done to audio before the encoder hears it, in this order; null leaves it out."""

    speed: SpeedFactors | None = None
    filter: DrawnFilter | None = None
    ends: QuietEnds | None = None
    noise: AddedNoise | None = None
    spec: SpecMasks | None = None


class TagHead(RecipeModel):
    """One tag of what is heard, told from the mean of the encoder's frames by a linear layer of its own."""

    # Its classes. A document without the tag has no loss, and so has one whose tag is none of these: nothing is made up.
    labels: tuple[str, ...] = Field(min_length=2)
    weight: PositiveFloat = 1.0  # of a document's tag in the loss, where each label of its text has loss_weights.text
    layer: str = "paralinguistics"  # of the pack's tags_from

    @model_validator(mode="after")
    def _labels_differ(self) -> TagHead:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {list(self.labels)} must be different ones")
        return self
