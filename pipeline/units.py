"""Units: bounded groups of inputs that are worked on and committed together, and the plan that fixes them.

Units come from the listing alone: source keys in order, up to a bound on bytes and on inputs. A plan is written before
work starts and never changes; a corpus' units are those of all its plans, in the order of their numbers. New inputs
make new units behind them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import PositiveInt

from manifests.ids import digest_bytes
from manifests.recipes import RecipeModel
from manifests.store import Store, json_bytes
from pipeline.sources import Input

PLANS = "plans"


class UnitsConfig(RecipeModel):
    """Bounds of a unit. A single input past ``max_bytes`` is a unit of its own."""

    max_inputs: PositiveInt = 1000
    max_bytes: PositiveInt = 256 << 20


@dataclass(frozen=True)
class Unit:
    """``unit_id`` is ``<number>-<8 hex of the inputs and cuts>``; plan order is the order of ids.

    ``cuts`` is the digest of the spans that a takedown took out of the unit's audio; empty where none did.
    """

    unit_id: str
    inputs: tuple[Input, ...]
    cuts: str = ""

    @property
    def num_bytes(self) -> int:
        return sum(item.num_bytes for item in self.inputs)


def cut_units(inputs: Iterable[Input], config: UnitsConfig, first_number: int = 0) -> list[Unit]:
    """Inputs in order, cut wherever a bound would be passed."""
    groups: list[list[Input]] = []
    num_bytes = 0
    for item in inputs:
        is_full = groups and (len(groups[-1]) >= config.max_inputs or num_bytes + item.num_bytes > config.max_bytes)
        if not groups or is_full:
            groups.append([])
            num_bytes = 0
        groups[-1].append(item)
        num_bytes += item.num_bytes
    return [make_unit(number, group) for number, group in enumerate(groups, first_number)]


def make_unit(number: int, group: Sequence[Input], cuts: str = "") -> Unit:
    """The unit of a number and its inputs, some of whose audio may be cut out."""
    digest = digest_bytes(b"".join(item.input_id for item in group) + cuts.encode()).hex()[:8]
    return Unit(f"{number:06d}-{digest}", tuple(group), cuts)


class Plans(NamedTuple):
    """Every plan of a corpus as one reading found them."""

    next_number: int  # of the plan that comes next; a plan that was lost leaves its number free
    units: list[Unit]  # of all of them, in order


def read_plans(store: Store) -> Plans:
    paths = store.objects(PLANS)
    next_number = int(paths[-1].removeprefix(f"{PLANS}/").removesuffix(".json")) + 1 if paths else 0
    return Plans(next_number, [unit for path in paths for unit in parse_plan(store.read(path))])


def read_planned(store: Store) -> list[Unit]:
    """Units of every plan of the corpus, in order."""
    return read_plans(store).units


def plan_units(planned: Sequence[Unit], listed: Iterable[Input], config: UnitsConfig, again: Iterable[Input] = ()) -> list[Unit]:
    """New units for the listed inputs that no plan holds yet, and for those that are to be taken ``again``."""
    known = {item.input_id for unit in planned for item in unit.inputs}
    first_number = int(planned[-1].unit_id.split("-")[0]) + 1 if planned else 0
    return cut_units([*(item for item in listed if item.input_id not in known), *again], config, first_number)


def claim_plan(store: Store, plans: Plans, plan: Callable[[Sequence[Unit]], list[Unit]]) -> list[Unit]:
    """Units of the corpus with the new ones that ``plan(planned)`` makes, written before any work starts.

    Plans are numbered and created only if absent: of two runs that plan at once, the second sees the first's units and
    plans again, so that no input is in two units by accident. A plan appears as a whole, and never changes.
    """
    while True:
        new = plan(plans.units)
        if not new or store.create(f"{PLANS}/{plans.next_number:06d}.json", plan_bytes(new)):
            return [*plans.units, *new]
        plans = read_plans(store)


def plan_bytes(units: Iterable[Unit]) -> bytes:
    """A plan as it is stored."""
    rows = [
        {"unit_id": unit.unit_id, "inputs": [item.to_json() for item in unit.inputs]} | ({"cuts": unit.cuts} if unit.cuts else {})
        for unit in units
    ]
    return json_bytes({"units": rows})


def parse_plan(data: bytes) -> Iterator[Unit]:
    """Units of a stored plan."""
    for row in json.loads(data)["units"]:
        yield Unit(row["unit_id"], tuple(Input(**item) for item in row["inputs"]), row.get("cuts", ""))
