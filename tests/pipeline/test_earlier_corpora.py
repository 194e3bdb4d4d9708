"""A corpus that was built before columns came to its tables: it is read, packed and checked, or refused in one line."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace

import pytest
import yaml

from annotators.sound_gate import SoundGateConfig
from annotators.speaker_embedding import SpeakerEmbeddingConfig
from manifests.commits import ObjectFact, list_commits, read_commit
from manifests.corpus import Corpus, UnitView
from manifests.earlier_tables import LATER
from manifests.errors import RequestError
from manifests.gates import ColumnGate
from manifests.ids import digest_bytes
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from manifests.snapshots import publish_snapshot
from manifests.store import Store, json_bytes, table_bytes
from pipeline.build import annotate, build
from pipeline.compact import compact
from pipeline.fsck import check
from pipeline.pack import pack
from pipeline.recipe import PackRecipe


@pytest.fixture(scope="module")
def built(recordings, light, tmp_path_factory) -> str:
    """A corpus whose tables lack the later columns, as their commits say."""
    uri = str(tmp_path_factory.mktemp("earlier") / "corpus")
    build([str(recordings)], uri, light())
    store = Store(uri)
    for (output, mark), units in list_commits(store).items():
        for unit in units:
            commit = read_commit(store, output, mark, unit)
            assert commit is not None
            facts = dict(commit.objects)
            for role in facts.keys() & LATER.keys():
                path, rows = facts[role].path, facts[role].num_rows
                data = table_bytes(store.read_table(path).drop(list(LATER[role][1])))
                store.replace(path, data)
                facts[role] = ObjectFact(path, len(data), digest_bytes(data).hex(), rows)
            store.replace(commit.path, json_bytes(asdict(replace(commit, objects=facts))))
    return uri


@pytest.fixture
def earlier(built, tmp_path) -> str:
    return shutil.copytree(built, str(tmp_path / "corpus"))


def pack_recipe(**changes) -> PackRecipe:
    return decode_recipe(PackRecipe, yaml.safe_dump({"name": "t", "text_from": [], "require_text": False, **changes}), "t")


def test_what_nobody_asked_after_is_null(earlier):
    corpus = Corpus.open(earlier)
    for found, (schema, later) in ((corpus.inputs(), LATER["inputs"]), (corpus.recordings(), LATER["recordings"])):
        assert found.schema.names == schema.names
        assert found.num_rows
        assert all(found[name].null_count == found.num_rows for name in later)
    (view, *_) = corpus.views()
    assert view.inputs(["synthesizer", "uri"]).column_names == ["synthesizer", "uri"]
    assert not {*LATER["clips"][1]} & {*corpus.clips().column_names}


def test_a_recording_that_another_unit_owns_is_hidden_too(earlier):
    corpus = Corpus.open(earlier)
    hidden = next(row["recording_id"] for row in corpus.clips().to_pylist())
    snapshot = corpus.snapshot
    shadowed = {unit: [hidden.hex()] for unit in snapshot.units}
    assert publish_snapshot(corpus.store, replace(snapshot, number=snapshot.number + 1, shadowed=shadowed))
    assert hidden not in Corpus.open(earlier).clips()["recording_id"].to_pylist()


def test_it_is_no_fault_before_or_after_a_compaction(earlier):
    assert not check(earlier).faults
    compact(earlier)
    assert not check(earlier).faults
    assert Corpus.open(earlier).inputs()["synthesizer"].null_count


def test_it_is_packed(earlier, tmp_path):
    pack([earlier], str(tmp_path / "pack"), pack_recipe())
    documents = Pack.open(str(tmp_path / "pack")).documents("train")
    assert documents.num_rows == Corpus.open(earlier).clips().num_rows
    assert documents["synthesizer"].null_count == documents.num_rows


def test_what_needs_spans_of_clips_is_refused(earlier, tmp_path):
    rule = "clips of this corpus were made before they had 'speech_spans'; run `stepwell corpus build`"
    gated = SoundGateConfig(when=ColumnGate(column="clip.longest_pause_s", max=1.0))
    for config in (SpeakerEmbeddingConfig(), gated):
        with pytest.raises(RequestError, match=rule):
            annotate(earlier, {"new": config})
    assert "new" not in Corpus.open(earlier).layers()
    with pytest.raises(RequestError, match=rule):
        pack([earlier], str(tmp_path / "pack"), pack_recipe(filters=[{"column": "clip.longest_pause_s", "max": 1.0}]))
    annotate(earlier, {"new": SoundGateConfig()})
    (view, *_) = Corpus.open(earlier).views()
    assert "error" not in UnitView(Corpus.open(earlier), view.unit_id).layer("new")["status"].to_pylist()
