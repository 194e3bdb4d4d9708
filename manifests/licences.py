"""What well-known licences allow, by SPDX id. Of any other text nothing is known, and nothing is guessed.

Creative Commons: https://creativecommons.org/licenses/; Open Data Commons: https://opendatacommons.org/licenses/; CDLA:
https://cdla.dev. Only what the deed itself says: whether a model is a derivative of its data is for lawyers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Licence:
    """What a licence allows and asks for."""

    spdx_id: str
    allows_commercial: bool
    allows_derivatives: bool
    is_share_alike: bool
    needs_attribution: bool


def _creative_commons() -> list[Licence]:
    found = []
    for version in ("1.0", "2.0", "2.5", "3.0", "4.0"):
        for kind in ("BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND"):
            terms = kind.split("-")
            found.append(
                Licence(f"CC-{kind}-{version}", "NC" not in terms, "ND" not in terms, "SA" in terms, needs_attribution=True)
            )
    return found


LICENCES = {
    licence.spdx_id.lower(): licence
    for licence in [
        *_creative_commons(),
        Licence("CC0-1.0", True, True, False, False),
        Licence("CC-PDDC", True, True, False, False),
        Licence("PDDL-1.0", True, True, False, False),
        Licence("Unlicense", True, True, False, False),
        Licence("ODC-By-1.0", True, True, False, True),
        Licence("ODbL-1.0", True, True, True, True),
        Licence("CDLA-Permissive-1.0", True, True, False, True),
        Licence("CDLA-Permissive-2.0", True, True, False, True),
        Licence("CDLA-Sharing-1.0", True, True, True, True),
        Licence("MIT", True, True, False, True),
        Licence("Apache-2.0", True, True, False, True),
        Licence("BSD-2-Clause", True, True, False, True),
        Licence("BSD-3-Clause", True, True, False, True),
    ]
}
_CC_DEED = re.compile(r"https?://(?:www\.)?creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)(?:/|/deed\.[a-z-]+|/legalcode)?")
_CC_ZERO = re.compile(r"https?://(?:www\.)?creativecommons\.org/publicdomain/zero/1\.0(?:/|/deed\.[a-z-]+|/legalcode)?")


def find_licence(text: str | None) -> Licence | None:
    """The licence that a text names: its SPDX id in any case, with blanks for hyphens, or the address of a Creative Commons deed.

    None for everything else, also for a name without its version.
    """
    told = (text or "").strip().lower()
    if _CC_ZERO.fullmatch(told):
        return LICENCES["cc0-1.0"]
    if deed := _CC_DEED.fullmatch(told):
        told = f"cc-{deed[1]}-{deed[2]}"
    return LICENCES.get(re.sub(r"\s+", "-", told))


def compared_licence(text: str | None) -> str | None:
    """What a licence is compared by: the SPDX id of one that is known, however it is written, else the text; None for no text."""
    known = find_licence(text)
    return known.spdx_id if known else (text or "").strip() or None


def compared_licences(texts: pa.ChunkedArray) -> pa.Array:
    """``compared_licence`` of each: few among many rows are different."""
    every = texts.unique()
    compared = pa.array([compared_licence(text) for text in every.to_pylist()], pa.string())
    return compared.take(pc.index_in(texts, value_set=every).combine_chunks())
