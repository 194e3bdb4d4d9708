"""Growing the vocabulary: rows that are known stay bit for bit, all others are drawn to look like them.

A new row is a draw from the normal distribution with the mean and the covariance of the known rows (Hewitt 2021,
"Initializing new word embeddings for pretrained language models"): it lies where the model's own rows lie, so new tokens neither
shout down the old ones in the softmax nor are alike. Shapes: V rows, N known rows, D width.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import nn

from manifests.errors import ContractError
from tokenization.vocabulary import Vocabulary
from training.sharding import reshard, whole

MATRICES = ("model.embed_tokens.weight", "lm_head.weight")  # that have a row a token
ROWS_AT_ONCE = 8192
JITTER = 1e-6  # of the mean variance, on the covariance's diagonal: fewer rows than columns leave it singular


def grow(model: nn.Module, vocabulary: Vocabulary, seed: int, *, wrappers: bool) -> None:
    """Draw the rows of embedding and head that are not known, in place; ``wrappers``: as in ``Vocabulary.known_rows``.

    Over ranks each draws all rows and keeps its own.
    """
    reshard(model)
    for name in MATRICES:
        with whole(model.get_parameter(name)) as weight_VD:
            draw_new_rows(weight_VD, vocabulary.known_rows(wrappers=wrappers), seed, name)


@torch.no_grad()
def draw_new_rows(weight_VD: torch.Tensor, is_known_V: np.ndarray, seed: int, name: str) -> None:
    """Draw the rows that are not known, in place; known rows are not written to.

    The draw is a function of (seed, name of the matrix, known rows) alone; sums run on the CPU in float64, whatever the
    matrix's dtype and device. Raises ContractError when the mask has another length or knows fewer than two rows.
    """
    if len(is_known_V) != len(weight_VD) or is_known_V.sum() < 2:
        raise ContractError(
            f"{name}: {int(is_known_V.sum())} of {len(is_known_V)} rows known for a matrix of {len(weight_VD)}; "
            "the mask must have the matrix's rows, and two known ones give a covariance"
        )
    mean_D, covariance_DD = row_statistics(weight_VD[torch.from_numpy(is_known_V)])
    spread = JITTER * covariance_DD.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    factor_DD = torch.linalg.cholesky(covariance_DD + spread * torch.eye(len(mean_D), dtype=torch.float64))
    new_rows = torch.from_numpy(np.flatnonzero(~is_known_V))
    # numpy's stream, since torch's generator reads the low 32 bits of a seed only.
    noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal((len(new_rows), len(mean_D)))
    drawn = mean_D + torch.from_numpy(noise) @ factor_DD.T
    weight_VD[new_rows.to(weight_VD.device)] = drawn.to(weight_VD)


def row_statistics(rows_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean ``[D]`` and covariance ``[D, D]`` (over N - 1) of the rows, float64 on the CPU; some rows in memory at a time."""
    chunks = rows_ND.split(ROWS_AT_ONCE)
    mean_D = torch.stack([chunk.to("cpu", torch.float64).sum(0) for chunk in chunks]).sum(0) / len(rows_ND)
    covariance_DD = torch.zeros(rows_ND.shape[1], rows_ND.shape[1], dtype=torch.float64)
    for chunk in chunks:
        centred = chunk.to("cpu", torch.float64) - mean_D
        covariance_DD.addmm_(centred.T, centred)
    return mean_D, covariance_DD / (len(rows_ND) - 1)
