"""From a sample to the whole: sums scaled class by class, with intervals from a bootstrap."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sample import SizeClass

DRAWS = 1000
INTERVAL = (5.0, 95.0)  # percentiles


@dataclass(frozen=True)
class Estimate:
    """A predicted quantity and the interval that it is in with 90 % probability, as far as the sample can tell."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Totals:
    """Predicted totals of the source: the estimate, and DRAWS of the bootstrap, by quantity."""

    names: list[str]
    values: np.ndarray  # [quantities]
    draws: np.ndarray  # [DRAWS, quantities]

    def of(self, *names: str) -> Estimate:
        """The sum of some quantities, with its own interval: they move together."""
        at = [self.names.index(name) for name in names]
        low, high = np.percentile(self.draws[:, at].sum(axis=1), INTERVAL) if at else (0.0, 0.0)
        return Estimate(float(self.values[at].sum()), float(low), float(high))


def totals(
    classes: Sequence[SizeClass],
    facts: Mapping[str, Mapping[str, float]],
    overhead: Mapping[str, float],
    num_units: int,
    by_number: Collection[str] = (),
) -> Totals:
    """Totals of a source in ``num_units`` units, from what was measured of every drawn unit (unit id -> quantity -> value).

    ``overhead`` is what any unit has of a quantity, whatever it holds. The rest of a class grows with the bytes of its
    inputs, or, of the quantities ``by_number``, with how many they are. A draw of the bootstrap takes as many units of each
    class as were measured, with replacement; a class that was measured as a whole is the same in every draw.
    """
    names = sorted({name for unit in facts.values() for name in unit})
    chance = np.random.default_rng(0)
    fixed = np.array([overhead.get(name, 0.0) for name in names])
    is_number = np.array([name in by_number for name in names])
    values, draws = fixed * num_units, np.tile(fixed * num_units, (DRAWS, 1))
    for size in classes:
        measured = np.array([[facts[unit.unit_id].get(name, 0.0) for name in names] for unit in size.units])
        measured = np.maximum(0.0, measured - fixed)
        weights = np.array([[unit.num_bytes, len(unit.inputs)] for unit in size.units], dtype=np.float64)
        whole = np.array([size.num_bytes, size.num_inputs], dtype=np.float64)
        values = values + _scaled(measured.sum(axis=0), weights.sum(axis=0), whole, is_number)
        again = chance.integers(len(size.units), size=(DRAWS, len(size.units)))
        if size.is_whole:
            again[:] = np.arange(len(size.units))
        draws = draws + _scaled(measured[again].sum(axis=1), weights[again].sum(axis=1), whole, is_number)
    return Totals(names, values, draws)


def _scaled(sums: np.ndarray, weights: np.ndarray, whole: np.ndarray, is_number: np.ndarray) -> np.ndarray:
    """Sums [..., quantities] of units with ``weights`` [..., (bytes, inputs)], for a class of ``whole`` bytes and inputs."""
    factors = whole / np.maximum(weights, 1e-9)
    return sums * np.where(is_number, factors[..., 1:], factors[..., :1])
