"""What a recipe may say of measures on held-out documents. They move nothing that is learned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from manifests.recipes import RecipeModel


class Drawing(RecipeModel):
    """How the next id is drawn. The default is greedy."""

    temperature: float = Field(default=0.0, ge=0.0, description="logits are divided by it; 0 takes the likeliest id")
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="the fewest likeliest ids with so much probability are drawn from"
    )
    repetition_penalty: PositiveFloat = Field(
        default=1.0, description="above 1 makes ids less likely that prompt or answer hold already (CTRL, arXiv 1909.05858)"
    )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0


class EvaluationRecipe(RecipeModel):
    """How speech is drawn that is measured, and when a model has forgotten how to write."""

    speaking: Drawing = Drawing()
    # An alarm is raised where the loss of plain text on a held-out split is by so much, relatively, above its lowest so far in the run.
    forgetting: PositiveFloat = 0.1
    on_forgetting: Literal["warn", "stop"] = "warn"  # stop: behind a checkpoint, from which --resume goes on nevertheless
