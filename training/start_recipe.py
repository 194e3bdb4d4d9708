"""What weights a run starts from."""

from __future__ import annotations

from pydantic import model_validator

from manifests.recipes import RecipeModel


class StartRecipe(RecipeModel):
    """Weights in local Hugging Face folders that a run starts from; what is not named starts at random."""

    model: str | None = None  # a published Step-Audio-2 checkpoint, or an export of a run: all parts
    encoder: str | None = None  # Qwen2-Audio, or its encoder alone
    decoder: str | None = None  # a text model of the Qwen2.5 family: decoder, embedding and head

    @model_validator(mode="after")
    def _all_or_parts(self) -> StartRecipe:
        if self.model and (self.encoder or self.decoder):
            raise ValueError("start.model brings encoder and decoder; leave start.encoder and start.decoder out")
        return self
