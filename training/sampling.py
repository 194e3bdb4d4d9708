"""The next id out of logits: what is left out, what is made likelier, and the draw.

Shapes: B rows, V vocabulary rows. In this order, as transformers does it: repetition penalty, ids that are not allowed,
temperature, top-p.
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveInt

from training.evaluation_recipe import Drawing


class Sampling(Drawing):
    """How answers are drawn, and how long they may be."""

    max_new_tokens: PositiveInt = Field(default=256, description="an answer that has not stopped by then is cut")


def draw(
    logits_BV: torch.Tensor,
    allowed_BV: torch.Tensor,
    seen_BV: torch.Tensor | None,
    sampling: Sampling,
    uniform_B: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids int64 ``[B]``, log-probabilities float32 ``[B]`` under the distribution that they were drawn from).

    ``allowed_BV``: at least one id in each row. ``seen_BV``: ids that the penalty meets. ``uniform_B``: one number in [0, 1) a
    row, which alone decides the draw (its inverse in the cumulative distribution); not read when greedy, where the
    log-probabilities are 0.
    """
    logits_BV = logits_BV.float()
    if seen_BV is not None and sampling.repetition_penalty != 1.0:
        penalty = sampling.repetition_penalty
        penalised = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
        logits_BV = torch.where(seen_BV, penalised, logits_BV)
    logits_BV = logits_BV.masked_fill(~allowed_BV, -torch.inf)
    if sampling.is_greedy or uniform_B is None:
        best_B = logits_BV.argmax(-1)
        return best_B, torch.zeros(len(best_B), device=best_B.device)
    sorted_BV, ids_BV = (logits_BV / sampling.temperature).sort(dim=-1, descending=True, stable=True)
    probs_BV = nucleus(sorted_BV.double().softmax(-1), sampling.top_p)
    # Rounding can leave the last sum a little below 1: the id past the end is then the last that has any probability.
    place_B = torch.searchsorted(probs_BV.cumsum(-1), uniform_B[:, None].double(), right=True).flatten()
    place_B = torch.minimum(place_B, (probs_BV > 0).sum(-1) - 1)
    drawn = place_B[:, None]
    return ids_BV.gather(-1, drawn).flatten(), probs_BV.gather(-1, drawn).flatten().log().float()


def nucleus(probs_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probabilities in falling order with the tail behind ``top_p`` set to zero, and the rest scaled to a sum of 1
    (Holtzman et al., arXiv 1904.09751). The likeliest id always stays."""
    before_BV = probs_BV.cumsum(-1) - probs_BV
    kept_BV = probs_BV.masked_fill(before_BV >= top_p, 0.0)
    return kept_BV / kept_BV.sum(-1, keepdim=True)
