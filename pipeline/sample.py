"""A sample of a source to measure: drawn by hash, from size classes of about equal bytes, so that long files are in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manifests.errors import RequestError
from manifests.ids import digest_bytes
from pipeline.inputs import Input
from pipeline.units import Unit, UnitsConfig, cut_units

CLASSES = 5
UNITS_A_CLASS = 10  # resampled by the bootstrap; inputs beyond share units
AT_LEAST = 2  # inputs of a class: one says nothing of how far they differ


@dataclass(frozen=True)
class SizeClass:
    """Inputs of about one size: how many there are in the source, and the units that were drawn from them."""

    num_inputs: int
    num_bytes: int
    units: tuple[Unit, ...]

    @property
    def num_drawn(self) -> int:
        return sum(len(unit.inputs) for unit in self.units)

    @property
    def is_whole(self) -> bool:
        """Whether every input was drawn: nothing is left to chance."""
        return self.num_drawn == self.num_inputs


def sample_size(asked: str, num_inputs: int) -> int:
    """Inputs that ``0.1%`` or ``20`` asks for, at least one. Raises RequestError for anything else."""
    try:
        count = float(asked.removesuffix("%")) * num_inputs / 100 if asked.endswith("%") else int(asked)
    except ValueError:
        count = 0.0
    if not 0 < count <= max(num_inputs, 1) * (1 + 1e-9) and not (count > num_inputs and not asked.endswith("%")):
        raise RequestError(f"sample {asked!r} is neither a share above 0% and up to 100% nor a number of inputs; say 0.1% or 20")
    return max(1, min(num_inputs, round(count)))


def draw(inputs: Sequence[Input], num_wanted: int, bounds: UnitsConfig, seed: int = 0) -> list[SizeClass]:
    """About ``num_wanted`` of the inputs, in proportion to each class' number, but at least AT_LEAST of a class.

    The same inputs and seed give the same draw. A class' units hold inputs of that class alone.
    """
    drawn: list[SizeClass] = []
    for members in _size_classes(inputs, min(CLASSES, max(1, num_wanted // AT_LEAST))):
        count = min(len(members), max(AT_LEAST, round(num_wanted * len(members) / len(inputs))))
        chosen = sorted(members, key=lambda item: digest_bytes(f"{seed}:".encode() + item.input_id))[:count]
        config = UnitsConfig(max_inputs=-(-count // UNITS_A_CLASS), max_bytes=bounds.max_bytes)
        first = sum(len(earlier.units) for earlier in drawn)
        drawn.append(SizeClass(len(members), sum(item.num_bytes for item in members), tuple(cut_units(chosen, config, first))))
    return drawn


def _size_classes(inputs: Sequence[Input], num_classes: int) -> list[list[Input]]:
    """The inputs by size, cut where another equal share of the bytes begins; no class is empty."""
    ordered = sorted(inputs, key=lambda item: (item.num_bytes, item.input_id))
    total = max(1, sum(item.num_bytes for item in ordered))
    classes: dict[int, list[Input]] = {}
    before = 0
    for item in ordered:
        classes.setdefault(min(num_classes - 1, num_classes * before // total), []).append(item)
        before += item.num_bytes
    return list(classes.values())
