"""Licences are known by their ids and deeds, and by nothing that would be a guess."""

from __future__ import annotations

import pyarrow as pa
import pytest

from manifests.licences import LICENCES, compared_licence, compared_licences, find_licence


@pytest.mark.parametrize(
    ("text", "spdx_id"),
    [
        ("CC-BY-4.0", "CC-BY-4.0"),
        (" cc by-nc-nd 3.0 ", "CC-BY-NC-ND-3.0"),
        ("https://creativecommons.org/licenses/by-sa/4.0/deed.en", "CC-BY-SA-4.0"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("apache-2.0", "Apache-2.0"),
    ],
)
def test_an_id_or_a_deed_is_known(text, spdx_id):
    assert find_licence(text).spdx_id == spdx_id


@pytest.mark.parametrize(
    "text", [None, "", "CC-BY", "CC-BY-5.0", "free for research", "MIT or later", "https://creativecommons.org/"]
)
def test_what_would_be_a_guess_is_unknown(text):
    assert find_licence(text) is None


def test_what_creative_commons_allow_follows_from_their_names():
    free = LICENCES["cc-by-sa-4.0"]
    assert (free.allows_commercial, free.allows_derivatives, free.is_share_alike) == (True, True, True)
    narrow = LICENCES["cc-by-nc-nd-4.0"]
    assert (narrow.allows_commercial, narrow.allows_derivatives, narrow.is_share_alike) == (False, False, False)


def test_a_licence_is_compared_by_what_it_is_and_another_text_by_its_words():
    texts = [
        "CC BY 4.0",
        "CC-BY-4.0",
        "https://creativecommons.org/licenses/by/4.0/",
        " house rules",
        "House rules",
        "",
        " ",
        None,
    ]
    expected = [*["CC-BY-4.0"] * 3, "house rules", "House rules", None, None, None]
    assert [compared_licence(text) for text in texts] == expected
    assert compared_licences(pa.chunked_array([texts[:3], texts[3:]])).to_pylist() == expected
