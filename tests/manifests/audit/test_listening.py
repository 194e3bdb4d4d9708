"""The sample is the same whatever order rows come in, every stratum is in it, and intervals hold what they promise."""

from __future__ import annotations

import base64
import io
import json
import math

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.audit.intervals import stratified, wilson
from manifests.audit.listening import LEAST, PLAYED_HZ, ListeningSample, allotted, played
from manifests.audit.verdicts import heard, read_verdicts
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.fold import fold
from manifests.ids import digest_bytes
from manifests.open_rows import corpus_rows

STRATA = ("input.source", "clip.language")


def made_rows(num: int) -> pa.Table:
    random = np.random.default_rng(3)
    sources = random.choice(["radio", "books", None], num, p=[0.7, 0.25, 0.05])
    rows = {
        "clip.clip_id": pa.array([digest_bytes(str(i).encode()) for i in range(num)], pa.binary(16)),
        "clip.duration_s": random.uniform(1, 20, num),
        "clip.recording_id": pa.array([b"r" * 16] * num, pa.binary(16)),
        **{f"clip.{name}": [0] * num for name in ("channel", "sample_rate_hz", "start_sample", "end_sample")},
        "input.source": sources.tolist(),
        "clip.language": random.choice(["en", "zh"], num).tolist(),
        "unread": list(range(num)),
    }
    return pa.table(rows)


def sampled(table: pa.Table, cuts: list[int], size: int = 12) -> ListeningSample:
    """Counted in pieces that are then merged."""
    total = ListeningSample(STRATA, size)
    for start, stop in zip([0, *cuts], [*cuts, table.num_rows], strict=True):
        part = ListeningSample(STRATA, size)
        part.add(table.slice(start, stop - start))
        total.merge(part)
    return total


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=5).map(sorted))
def test_the_sample_does_not_depend_on_how_rows_are_cut(cuts):
    table = made_rows(400)
    whole, cut = sampled(table, []), sampled(table, cuts)
    assert [drawn.row for drawn in whole.drawn()] == [drawn.row for drawn in cut.drawn()]
    assert whole.num_clips == cut.num_clips
    assert sum(whole.num_clips.values()) == 400
    assert sum(whole.hours.values()) == pytest.approx(sum(table["clip.duration_s"].to_pylist()) / 3600)


def test_every_stratum_is_heard_and_large_ones_more():
    sample = sampled(made_rows(400), [100], size=30)
    num = {stratum: [d.stratum for d in sample.drawn()].count(stratum) for stratum in sample.num_clips}
    assert sum(num.values()) == 30
    assert min(num.values()) >= LEAST
    assert num["radio", "en"] > num["books", "en"] >= num[None, "en"]
    for drawn in sample.drawn():
        assert (drawn.row["input.source"], drawn.row["clip.language"]) == drawn.stratum


def test_another_seed_draws_others():
    table = made_rows(400)
    ids = []
    for seed in (0, 1):
        sample = ListeningSample(STRATA, 12, seed)
        sample.add(table)
        ids.append({drawn.clip_id for drawn in sample.drawn()})
    assert len(ids[0] & ids[1]) < 6


def test_a_clip_is_as_likely_as_any_other():
    table, counts = made_rows(60), np.zeros(60)
    place = {bytes(clip): at for at, clip in enumerate(table["clip.clip_id"].to_pylist())}
    for seed in range(600):
        sample = ListeningSample((), 6, seed)
        sample.add(table)
        for drawn in sample.drawn():
            counts[place[bytes.fromhex(drawn.clip_id)]] += 1
    assert counts.sum() == 3600
    # 60 expected, standard deviation 7.3; chi-square of 59 degrees lies under 98 in 99.9 %.
    assert ((counts - 60) ** 2 / 60).sum() < 98


def test_too_many_strata_are_refused():
    sample = ListeningSample(("unread",), 4)
    with pytest.raises(RequestError, match="columns unread have more than 256 combinations; name columns with fewer values"):
        sample.add(made_rows(400))


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 9)), min_size=1, max_size=8), st.integers(0, 60))
def test_allotment(strata, size):
    weights, available = [w for w, _ in strata], [n for _, n in strata]
    given_ = allotted(weights, available, size)
    assert all(0 <= num <= most for num, most in zip(given_, available, strict=True))
    assert sum(given_) == min(size, sum(available))
    if size >= LEAST * len(strata):
        assert all(num >= min(LEAST, most) for num, most in zip(given_, available, strict=True))


def test_clips_of_a_corpus_are_played(tiny_corpus):
    corpus = Corpus.open(tiny_corpus)
    (sample,) = fold(corpus_rows(corpus), [ListeningSample(("clip.language",), 6, shows=("asr.text",))])
    for drawn in sample.drawn():
        kind, _, data = played(corpus.audio(), drawn).partition(",")
        assert kind == "data:audio/flac;base64"
        audio, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert rate == PLAYED_HZ
        row = drawn.row
        assert len(audio) == pytest.approx((row["clip.end_sample"] - row["clip.start_sample"]) / 8000 * rate, abs=2)
        assert "asr.text" in row


def verdict_lines(*rows: tuple[str, str, str]) -> bytes:
    return b"\n".join(json.dumps({"clip_id": c, "verdict": v, "listener": w}).encode() for c, v, w in rows)


def test_verdicts_become_shares_with_intervals():
    sample = ListeningSample(("input.source",), 12)
    sample.add(made_rows(400))
    drawn = sample.drawn()
    lines = [(d.clip_id, "wrong" if d.stratum == ("books",) else "right", "ada") for d in drawn]
    rows, total, unknown = heard(sample, read_verdicts(verdict_lines(*lines, ("00" * 16, "wrong", "ada")), "v.jsonl"))
    assert unknown == ["00" * 16]
    by = {row.stratum: row for row in rows}
    assert by["books",].wrong.value == 1.0
    assert by["radio",].wrong.value == 0.0
    assert by["radio",].wrong.high == pytest.approx(wilson(0, by["radio",].num_right).high)
    hours = sample.hours
    assert total.value == pytest.approx(hours["books",] / sum(hours.values()))
    assert total.low < total.value < total.high


def test_two_listeners_share_a_clip_and_the_last_word_counts():
    sample = ListeningSample((), 1)
    sample.add(made_rows(10))
    (clip,) = [d.clip_id for d in sample.drawn()]
    lines = verdict_lines((clip, "wrong", "ada"), (clip, "right", "ada"), (clip, "wrong", "bob"))
    (row,), total, _ = heard(sample, read_verdicts(lines, "v.jsonl"))
    assert (row.num_right, row.num_wrong) == (0.5, 0.5)
    assert total.value == 0.5


def test_no_share_while_a_stratum_was_not_heard():
    sample = ListeningSample(("input.source",), 12)
    sample.add(made_rows(400))
    first = sample.drawn()[0]
    rows, total, _ = heard(sample, read_verdicts(verdict_lines((first.clip_id, "right", "")), "v.jsonl"))
    assert total.value is None
    assert sum(row.wrong.value is None for row in rows) == len(rows) - 1


@pytest.mark.parametrize(
    "line",
    [
        '{"clip_id": "a"}',
        '{"clip_id": "a", "verdict": "maybe"}',
        "not json",
        "[1]",
        '{"clip_id": "a", "verdict": "right", "x": 1}',
    ],
)
def test_a_line_that_is_no_verdict_is_named(line):
    with pytest.raises(RequestError, match=r"verdicts 'v.jsonl' line 2: .*; a line is"):
        read_verdicts(verdict_lines(("a", "right", "")) + b"\n" + line.encode(), "v.jsonl")


def test_wilson_against_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, num, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        share = wilson(hits, num)
        assert (round(share.low, 4), round(share.high, 4)) == (low, high)
    assert wilson(0, 0) == (None, None, None)


def test_a_stratified_share_of_equal_strata_is_the_plain_one():
    assert stratified([(1, 3, 10), (1, 5, 10)]) == pytest.approx(wilson(8, 20))


def test_stratified_intervals_cover():
    """95 % intervals hold the truth in nearly 95 % of samples, of strata of unlike weights and shares."""
    random, weights, truth = np.random.default_rng(0), (0.7, 0.25, 0.05), (0.1, 0.3, 0.5)
    right = sum(w * p for w, p in zip(weights, truth, strict=True))
    covered = 0
    for _ in range(1000):
        share = stratified([(w, random.binomial(20, p), 20) for w, p in zip(weights, truth, strict=True)])
        covered += share.low <= right <= share.high
    assert 0.92 < covered / 1000 <= 1.0
    assert not math.isnan(covered)
