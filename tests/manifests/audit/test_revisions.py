"""Two fingerprints of one layer: which are compared, and that rows which readers do not see do not count."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from manifests.audit.revisions import NOW, THEN, RevisionRows, revisions
from manifests.commits import Attempt
from manifests.corpus import Corpus
from manifests.parts import PartFacts
from manifests.snapshots import clips_output, layer_output, publish_snapshot

LAYER = layer_output("turns", "dnsmos")
CLIPS = clips_output("turns")


def with_earlier_layer(uri: str, reads: dict[str, str]) -> Corpus:
    """The corpus with an earlier ``dnsmos`` of all units, which says what it was made of; ``talk`` was taken down."""
    before = Corpus.open(uri)
    for unit in before.snapshot.units:
        rows = before.tables.read(LAYER, before.fingerprint(LAYER), unit, "layer")
        attempt = Attempt(before.store, LAYER, "earlier", unit)
        attempt.put_table("layer", f"{LAYER}/earlier", rows)
        assert attempt.commit()
    PartFacts("dnsmos", "1", (), reads).write(before.store, LAYER, "earlier")
    outputs = {**before.snapshot.outputs, LAYER: {**before.snapshot.outputs[LAYER], "earlier": before.snapshot.units}}
    talk = before.recordings()["recording_id"][0].as_py().hex()
    publish_snapshot(before.store, replace(before.snapshot, number=1, outputs=outputs, taken_recordings={"u0": [talk]}))
    return Corpus.open(uri)


@pytest.fixture
def uri(tiny_corpus: str, tmp_path) -> str:
    return shutil.copytree(tiny_corpus, str(tmp_path / "corpus"))


def test_rows_that_readers_do_not_see_are_not_compared(uri):
    corpus = with_earlier_layer(uri, {CLIPS: Corpus.open(uri).fingerprint(CLIPS)})
    (revision,) = revisions(corpus)
    rows = RevisionRows(corpus, revision)
    assert (revision.layer, revision.then, revision.units) == ("dnsmos", "earlier", ("u0", "u1"))
    table = rows.read(rows.slices[0], [f"{NOW}clip_id", f"{THEN}clip_id", "recording_id"])
    assert table[f"{NOW}clip_id"].to_pylist() == table[f"{THEN}clip_id"].to_pylist() == corpus.clips()["clip_id"].to_pylist()
    assert table["recording_id"].to_pylist() == corpus.clips()["recording_id"].to_pylist()


def test_rows_of_other_clips_are_not_compared(uri):
    assert revisions(with_earlier_layer(uri, {CLIPS: "another"})) == []
