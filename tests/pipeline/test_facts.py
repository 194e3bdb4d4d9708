"""Facts over inputs of equal bytes, and the rule of the splits: no speaker and no recording is in two of them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.facts import consent_of
from manifests.schema import INPUTS
from pipeline.facts import (
    LinksTask,
    PairSide,
    Side,
    Ties,
    find_links,
    group_of,
    merged,
    own_group,
    speaker_groups,
    ties_of,
    unit_facts,
)
from pipeline.recipe import PackRecipe

# (recording, source, speaker or None) of each input
inputs = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from("ab"), st.none() | st.sampled_from(["ann", "bob", "cy", "dee"])), max_size=20
)


def row(recording: int, source: str = "a", speaker_label: str | None = None, **facts: Any) -> dict[str, Any]:
    known = {
        "uri": f"{source}/{recording}",
        "source": source,
        "speaker_label": speaker_label,
        "recording_id": bytes([recording] * 16),
    }
    return {**dict.fromkeys(INPUTS.names), **known, **facts}


def table_of(*rows: dict[str, Any]) -> pa.Table:
    """Of INPUTS columns, null where a row says nothing."""
    return pa.Table.from_pylist(list(rows), pa.schema([column.with_nullable(True) for column in INPUTS]))


@given(inputs, st.integers(1, 4))
def test_no_speaker_and_no_recording_is_in_two_splits(listed, num_splits: int) -> None:
    recipe = PackRecipe(name="t", splits={f"s{i}": 1 / num_splits for i in range(num_splits)})
    facts = {identity[0]: fact for identity, fact in merged(table_of(*(row(*one) for one in listed))).items()}
    groups = speaker_groups(fact.speakers for fact in facts.values() if len(fact.speakers) > 1)
    splits_of: dict[str, set[str]] = {}
    for recording, fact in facts.items():
        split = recipe.split_of(group_of(bytes([recording] * 16), fact.speakers, groups))
        for _, source, speaker in (one for one in listed if one[0] == recording and one[2]):
            splits_of.setdefault(f"{source}:{speaker}", set()).add(split)
    assert all(len(splits) == 1 for splits in splits_of.values())


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=3, unique=True), max_size=6), st.randoms())
def test_groups_are_what_links_reach_in_any_order(links: list[list[str]], random) -> None:
    groups = speaker_groups(links)
    reached = {name: {name} for link in links for name in link}
    for _ in reached:
        for link in links:
            together = set().union(*(reached[name] for name in link))
            reached |= dict.fromkeys(together, together)
    assert groups == {name: min(others) for name, others in reached.items()}
    assert speaker_groups(random.sample(links, len(links))) == groups


def test_without_a_speaker_the_recording_is_the_group() -> None:
    assert group_of(b"\x07", (), {}) == "07"
    assert group_of(b"\x07", ("a:ann",), {}) == "a:ann"
    assert group_of(b"\x07", ("a:bob",), {"a:ann": "a:ann", "a:bob": "a:ann"}) == "a:ann"


def test_of_each_fact_the_first_that_is_known() -> None:
    rows = [row(1, text=None, licence="MIT"), row(1, "b", "ann", text="hello"), row(1, text="other", licence="MIT")]
    (fact,) = merged(table_of(*rows)).values()
    assert (fact["text"], fact["licence"], fact["source"], fact.speakers) == ("hello", "MIT", "a", ("b:ann",))
    with pytest.raises(RequestError, match="'a/1' and 'b/1' hold the same bytes under licences 'MIT' and 'CC0'"):
        merged(table_of(row(1, licence="MIT"), row(1, "b", licence="CC0")))


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        (["granted", "withheld"], "withheld"),
        ([None, "granted"], "granted"),
        (["not_needed", "unknown"], "unknown"),
        ([None], None),
    ],
)
def test_the_most_careful_word_on_consent_holds(said, holds) -> None:
    (fact,) = merged(table_of(*(row(1, consent=word) for word in said))).values()
    assert fact["consent"] == holds == consent_of(said)


def test_inputs_of_all_units_that_hold_a_recording_speak_of_it(twice) -> None:
    """The second unit's input of the first unit's recording adds what the first does not say, and links its speaker."""
    corpus = Corpus.open(twice)
    found = [facts for _, facts in unit_facts(corpus, corpus.snapshot.units)]
    assert [len(facts) for facts in found] == [1, 0]
    (fact,) = found[0].values()
    assert (fact["text"], fact["language"], fact.speakers) == ("hello", "zh", ("x:ann", "y:bob"))
    task = LinksTask(twice, corpus.snapshot.number, tuple(corpus.snapshot.units))
    assert find_links(task) == [("x:ann", "y:bob")]


@pytest.fixture
def twice(light, tmp_path) -> str:
    """A corpus of two units whose inputs have the same bytes."""
    import json
    import shutil
    from pathlib import Path

    from pipeline.build import build
    from pipeline.shipped_speech import utterances_folder

    for name in ("a.wav", "b.wav"):
        shutil.copy(Path(utterances_folder()) / "BAC009S0764W0121.wav", tmp_path / name)
    rows = [
        {"path": "a.wav", "source": "x", "speaker_label": "ann", "language": "zh"},
        {"path": "b.wav", "source": "y", "speaker_label": "bob", "text": "hello", "language": "en"},
    ]
    (tmp_path / "sources.jsonl").write_text("\n".join(json.dumps(one) for one in rows))
    out = str(tmp_path / "corpus")
    build([str(tmp_path / "sources.jsonl")], out, light())
    return out


@given(
    st.lists(st.none() | st.sampled_from(["x:ann", "x:bob", "x:cy"]), min_size=8, max_size=8),
    st.permutations(range(8)),
    st.integers(0, 4),
)
def test_both_sides_of_a_pair_share_a_group_and_know_one_another(
    speakers: list[str | None], order: list[int], num_pairs: int
) -> None:
    ids = [bytes([number] * 16) for number in range(8)]
    named = [(speaker,) if speaker else () for speaker in speakers]
    sides = [
        PairSide(f"x:p{place // 2}", Side(f"u{n % 3}", ids[n].hex()), own_group(ids[n], named[n]))
        for place, n in enumerate(order[: 2 * num_pairs])
    ]
    ties = Ties.from_json(json.loads(json.dumps(ties_of([], sides).to_json())))
    assert ties == ties_of([], sides)
    for place in range(0, 2 * num_pairs, 2):
        one, other = order[place], order[place + 1]
        assert ties.of_units([f"u{one % 3}"]).partners[f"u{one % 3}"][ids[one].hex()] == Side(f"u{other % 3}", ids[other].hex())
        assert group_of(ids[one], named[one], ties.groups) == group_of(ids[other], named[other], ties.groups)


def test_a_recording_alone_makes_no_pair_and_three_are_refused() -> None:
    sides = [PairSide("x:p", Side("u0", f"{n:032x}"), f"s{n}") for n in range(3)]
    assert ties_of([], sides[:1]) == Ties({}, {})
    with pytest.raises(RequestError, match=r"pair_id 'x:p' is that of 3 recordings; give each pair an id of its own"):
        ties_of([], sides)
