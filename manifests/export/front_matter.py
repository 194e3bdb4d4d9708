"""The YAML head of a card as the Hugging Face hub reads it, and its names for licences and sizes.

Lists of allowed values: huggingface.co/docs/hub/datasets-cards and .../repositories-licenses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from manifests.licences import find_licence

# SPDX id in lower case -> the hub's word, where the two differ.
HUB_NAMES = {"gpl-2.0-only": "gpl-2.0", "gpl-3.0-only": "gpl-3.0", "lgpl-3.0-only": "lgpl-3.0", "agpl-3.0-only": "agpl-3.0"}
HUB_NAMES |= {"odbl-1.0": "odbl", "odc-by-1.0": "odc-by", "pddl-1.0": "pddl"}
WORDS = """
apache-2.0 mit openrail bigscience-openrail-m bsd bsd-2-clause bsd-3-clause afl-3.0 artistic-2.0 bsl-1.0 cc cc0-1.0 cc-
by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-
nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-
permissive-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 gfdl isc mpl-2.0 ms-pl odc-
by odbl pddl unlicense wtfpl zlib
"""
HUB_LICENCES = frozenset(WORDS.split())
SIZES = [
    "n<1K",
    "1K<n<10K",
    "10K<n<100K",
    "100K<n<1M",
    "1M<n<10M",
    "10M<n<100M",
    "100M<n<1B",
    "1B<n<10B",
    "10B<n<100B",
    "100B<n<1T",
]

MARK = "<!-- written by stepwell: `manifest card` writes this page anew -->"


def hub_licences(licences: Iterable[str | None]) -> list[str]:
    """The hub's words, sorted: ``other`` for a text that is on no list, ``unknown`` where nobody states a licence."""
    return sorted({_hub_licence(licence) for licence in licences})


def _hub_licence(licence: str | None) -> str:
    if licence is None:
        return "unknown"
    known = find_licence(licence)
    word = (known.spdx_id if known else licence.strip()).lower()
    word = HUB_NAMES.get(word, word)
    return word if word in HUB_LICENCES else "other"


def size_category(num_rows: int) -> str:
    """The hub's word for how many rows there are."""
    return next((word for power, word in enumerate(SIZES, 3) if num_rows < 10**power), "n>1T")


def card_bytes(front: Mapping[str, Any], body: str) -> bytes:
    """A card: its head between lines of three dashes, then the page."""
    import yaml

    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)}---\n\n{body}".encode()


def front_of(card: str) -> dict[str, Any]:
    """The head of a card; empty where it has none."""
    import yaml

    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    head = yaml.safe_load(found[1]) if found else None
    return head if isinstance(head, dict) else {}
