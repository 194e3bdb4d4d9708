"""Rewriting: what was taken down is off the disk, everything else is as it was, whenever somebody was killed."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import yaml

from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.open_rows import corpus_rows
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from manifests.schema import INPUTS
from manifests.store import Store
from manifests.tombstones import name_digest
from manifests.trained import read_checkpoints
from pipeline.build import build
from pipeline.compact import compact
from pipeline.fsck import check
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from pipeline.rights.matching import Rule
from pipeline.rights.pack_takedown import rewrite_pack
from pipeline.rights.proof import prove
from pipeline.rights.rewriting import rewrite
from pipeline.rights.takedown import take_down
from training.checkpoint import STATE, CheckpointState, Identity
from training.device import Arithmetic

RECIPE = {"clip_set": {"turns": None, "max_s": 2.0}, "units": {"max_inputs": 2}}
ANN, BOB, TALK = "BAC009S0764W0121.wav", "BAC009S0764W0122.wav", "conversation.wav"
WORDS = "words of Ann that nobody else says"


class Killed(BaseException):
    """Ends a process wherever it is; nothing in the code under test catches it."""


@pytest.fixture(scope="module")
def made(recordings, light, tmp_path_factory) -> tuple[str, str]:
    """(manifest, corpus): three units of two inputs; the bytes of Ann's recording come twice."""
    folder = tmp_path_factory.mktemp("rewriting")
    again = shutil.copy(recordings / ANN, folder / "zz-again.wav")
    said = [
        {"uri": str(recordings / ANN), "source": "talks", "speaker_label": "Ann", "text": WORDS},
        {"uri": str(recordings / BOB), "source": "talks", "speaker_label": "Bob", "text": "what Bob says"},
        {"uri": str(recordings / TALK), "source": "calls"},
        {"uri": str(recordings / "tone.flac"), "source": "calls"},
        {"uri": str(recordings / "broken.wav"), "source": "calls", "speaker_label": "Ann"},
        {"uri": str(again), "source": "other"},
    ]
    source, out = folder / "m.jsonl", str(folder / "corpus")
    source.write_text("".join(json.dumps(row) + "\n" for row in said))
    build([str(source)], out, light(**RECIPE))
    return str(source), out


@pytest.fixture
def corpus(made, tmp_path) -> str:
    return shutil.copytree(made[1], str(tmp_path / "corpus"))


def recording(uri: str, name: str) -> bytes:
    rows = Corpus.open(uri).inputs().to_pylist()
    return next(row["recording_id"] for row in rows if row["uri"].endswith(name))


def tables(uri: str) -> dict[str, pa.Table]:
    opened = Corpus.open(uri)
    found = {name: getattr(opened, name)() for name in ("inputs", "recordings", "quarantine", "clips")}
    return found | {"vad": opened.spans("vad")} | {name: opened.layer(name) for name in opened.layers()}


def audio(uri: str, identity: bytes) -> np.ndarray:
    opened = Corpus.open(uri)
    row = next(row for row in opened.recordings().to_pylist() if row["recording_id"] == identity)
    return opened.audio().read(identity, 0, row["sample_rate_hz"], 0, row["num_samples"])


def holders(uri: str, *needles: bytes) -> list[str]:
    """Objects that hold one of the texts or ids: as bytes, or in a column once unpacked; tombstones left out."""
    store, found = Store(uri), []
    for path in store.objects(""):
        if path.startswith("tables/takedowns/"):
            continue
        data = store.read(path)
        if path.endswith(".parquet"):
            data += repr(store.read_table(path).to_pylist()).encode()
        if any(needle in data or repr(needle)[2:-1].encode() in data for needle in needles):
            found.append(path)
    return found


@pytest.mark.parametrize("is_compacted", [False, True])
def test_nothing_is_left_of_the_speaker_and_all_else_is_the_same(corpus, made, recordings, light, is_compacted):
    if is_compacted:
        compact(corpus, grace_s=0)
    gone = recording(corpus, ANN)
    assert holders(corpus, gone, gone.hex().encode(), WORDS.encode(), b"Ann")
    take_down(corpus, [Rule.parse("speaker", "Ann")], "asked to")
    before, bob = tables(corpus), audio(corpus, recording(corpus, BOB))
    done = rewrite(corpus)
    assert done.num_units == 3  # of two copies, and of a file that is no audio
    assert holders(corpus, gone, gone.hex().encode(), WORDS.encode(), b"Ann") == []
    after = tables(corpus)
    assert after.keys() == before.keys()
    for name, table in before.items():
        assert after[name].equals(table), name
    assert np.array_equal(audio(corpus, recording(corpus, BOB)), bob)
    assert check(corpus, grace_s=0).faults == []
    assert rewrite(corpus).num_units == 0
    built = build([made[0]], corpus, light(**RECIPE))
    assert built.num_tasks_done == 0
    compact(corpus, grace_s=0)
    assert all(tables(corpus)[name].equals(table) for name, table in before.items())
    assert check(corpus, grace_s=0).faults == []


def test_a_corpus_goes_on_with_new_inputs_and_layers_after_it(corpus, made, recordings, light, tmp_path):
    take_down(corpus, [Rule.parse("recording", recording(corpus, ANN).hex())], "r")
    rewrite(corpus)
    renamed = shutil.copy(recordings / ANN, tmp_path / "again.wav")
    fresh = shutil.copy(recordings / "tone.flac", tmp_path / "tone-again.flac")
    recipe = light(**RECIPE, annotators={"signal": {"kind": "signal"}, "loud": {"kind": "signal"}})
    build([made[0], str(renamed), str(fresh)], corpus, recipe)
    opened = Corpus.open(corpus)
    assert opened.layer("loud").num_rows == opened.clips().num_rows
    assert name_digest(str(renamed)) in opened.tombstones.ids("uri")
    assert str(renamed) not in opened.inputs()["uri"].to_pylist()
    assert check(corpus, grace_s=0).faults == []


def test_a_span_becomes_silence_and_the_rest_of_its_recording_stays(corpus):
    identity = recording(corpus, TALK)
    opened, sound = Corpus.open(corpus), audio(corpus, identity)
    clips = [row for row in opened.clips().to_pylist() if row["recording_id"] == identity]
    gone = clips[1]
    take_down(corpus, [Rule.parse("clip", gone["clip_id"].hex())], "r")
    before = tables(corpus)
    rewrite(corpus)
    assert all(tables(corpus)[name].equals(table) for name, table in before.items())
    left = audio(corpus, identity)
    start, end = gone["start_sample"], gone["end_sample"]
    assert np.abs(sound[start:end]).max() > 0.01
    assert not left[start:end].any()
    assert np.array_equal(np.delete(left, np.s_[start:end]), np.delete(sound, np.s_[start:end]))
    assert holders(corpus, gone["clip_id"], gone["clip_id"].hex().encode()) == []
    assert check(corpus, grace_s=0).faults == []
    assert rewrite(corpus).num_units == 0
    take_down(corpus, [Rule.parse("clip", clips[0]["clip_id"].hex())], "r")
    assert rewrite(corpus).num_units == 1
    assert not audio(corpus, identity)[clips[0]["start_sample"] : clips[0]["end_sample"]].any()


def test_the_transcript_of_a_recording_goes_with_a_span_of_it(corpus, tmp_path):
    identity = recording(corpus, BOB)
    clips = [row for row in Corpus.open(corpus).clips().to_pylist() if row["recording_id"] == identity]
    assert len(clips) > 1
    rules = [Rule.parse("clip", clip["clip_id"].hex()) for clip in clips[1:]]
    take_down(corpus, rules, "r")
    for state in ("hidden", "rewritten"):  # by tombstones, then off the disk
        opened = Corpus.open(corpus)
        said = {row["uri"].rsplit("/", 1)[1]: row["text"] for row in opened.inputs().to_pylist()}
        assert (said[BOB], said[ANN]) == (None, WORDS)
        assert opened.inputs().column_names == INPUTS.names
        rows = corpus_rows(opened)
        texts = [t for part in rows.slices for t in rows.read(part, ["input.text"])["input.text"].to_pylist()]
        assert "what Bob says" not in texts
        # One clip is left of several: what was said of all of them is not what is said in it.
        packed = Pack.open(pack(corpus, str(tmp_path / f"{state}"), pack_recipe(text_from=["source"])).pack_uri)
        documents = {row["key"]: row["turns"][0]["text"] for row in packed.documents("train").to_pylist()}
        assert documents[clips[0]["clip_id"].hex()] is None
        rewrite(corpus)
    assert holders(corpus, b"what Bob says") == []
    assert check(corpus, grace_s=0).faults == []
    assert rewrite(corpus).num_units == 0


def test_a_build_at_work_is_waited_for(corpus, monkeypatch):
    from pipeline.heartbeat import read_heartbeats

    store = Store(corpus)
    (path,) = [path for path in store.objects("runs") if path.endswith("heartbeat.json")]
    beat = json.loads(store.read(path))
    store.replace(path, json.dumps({**beat, "state": "running", "pid": 1}).encode())
    alive_s = read_heartbeats(store)[0].updated_at_s
    monkeypatch.setattr("pipeline.heartbeat.time.time", lambda: alive_s)
    with pytest.raises(RequestError, match="is at work"):
        rewrite(corpus)


def killed_after(monkeypatch, num_changes: int, work) -> bool:
    """Whether ``work`` was killed: at the change of the store after so many others."""
    left = num_changes

    def counting(method):
        def change(self, *args, **kwargs):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return method(self, *args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        for name in ("write", "write_file", "create", "replace", "remove"):
            patch.setattr(Store, name, counting(getattr(Store, name)))
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize(
    ("is_compacted", "step"),
    [(True, 43), pytest.param(False, 3, marks=pytest.mark.slow), pytest.param(True, 3, marks=pytest.mark.slow)],
)
def test_whoever_is_killed_at_any_change_of_the_store_goes_on(made, tmp_path, monkeypatch, is_compacted, step):
    """Discards of a killed attempt are killed too: nothing is tidied up that a SIGKILL would not tidy up."""
    start = shutil.copytree(made[1], str(tmp_path / "start"))
    if is_compacted:
        compact(start, grace_s=0)
    gone = recording(start, ANN)
    talk = [row for row in Corpus.open(start).clips().to_pylist() if row["recording_id"] == recording(start, TALK)][1]
    take_down(start, [Rule.parse("speaker", "Ann"), Rule.parse("clip", talk["clip_id"].hex())], "r")
    expected = tables(start)
    num_changes = step // 2
    while True:
        uri = shutil.copytree(start, str(tmp_path / f"killed-{num_changes}"))
        was_killed = killed_after(monkeypatch, num_changes, lambda uri=uri: rewrite(uri))
        found = tables(uri)  # whoever reads meanwhile sees the same
        assert all(found[name].equals(table) for name, table in expected.items()), num_changes
        rewrite(uri)
        found = tables(uri)
        assert all(found[name].equals(table) for name, table in expected.items()), num_changes
        assert holders(uri, gone, gone.hex().encode(), WORDS.encode(), b"Ann", talk["clip_id"]) == [], num_changes
        assert check(uri, grace_s=0).faults == [], num_changes
        shutil.rmtree(uri)
        if not was_killed:
            break
        num_changes += step
    assert num_changes > 3 * step


def pack_recipe(**changes) -> PackRecipe:
    return decode_recipe(PackRecipe, yaml.safe_dump({"name": "t", "text_from": [], "require_text": False, **changes}), "t")


def make_run(path, pack_id: str, steps=(10, 20)) -> str:
    """A training run, as far as its checkpoints' JSON goes."""
    for step in steps:
        identity = Identity("recipe", "tokenizer", "vocabulary", "codec", pack_id, "")
        arithmetic = Arithmetic("2.8", "CPU", "float32", 1, False, False, 1)
        at = {"stage_number": 0, "stage": "align", "step": step, "global_step": step, "data": {}}
        told = {"first_loss": 2.0, "last_loss": 1.0, "stage_wall_s": 0.5, "stage_stall_s": 0.1}
        before = {"parent": None, "finished_stages": [], "inexact_resumes": [], "watch": {}, "wall": {}}
        state = CheckpointState(identity=identity, arithmetic=arithmetic, **at, **told, **before)
        folder = path / "checkpoints" / state.name
        folder.mkdir(parents=True)
        (folder / STATE).write_text(json.dumps(asdict(state)))
    return str(path)


def test_a_pack_is_rewritten_and_its_checkpoints_are_named(corpus, tmp_path):
    packed = pack(corpus, str(tmp_path / "pack"), pack_recipe(shard_bytes=100_000))
    before = Pack.open(packed.pack_uri)
    run, other = make_run(tmp_path / "run", before.pack_id), make_run(tmp_path / "other", "ff", [5])
    gone = recording(corpus, ANN)
    documents = before.documents("train").to_pylist()
    kept = {row["key"]: before.read(row["shard"], row["key"]) for row in documents if row["turns"][0]["recording_id"] != gone}
    done = take_down(corpus, [Rule.parse("speaker", "Ann")], "r", [packed.pack_uri], [run, other])
    num = len(documents) - len(kept)
    assert [(c["name"], c["num_documents"]) for c in done.checkpoints] == [
        ("00-align-0000010", num),
        ("00-align-0000020", num),
        ("00-align-0000005", None),
    ]
    refused_id = Pack.open(packed.pack_uri).pack_id
    assert rewrite_pack(packed.pack_uri) == num
    after = Pack.open(packed.pack_uri)
    assert after.pack_id == refused_id == after.head["pack_id"]
    rows = after.documents("train").to_pylist()
    assert {row["key"] for row in rows} == kept.keys()
    for row in rows:
        found, expected = after.read(row["shard"], row["key"]), kept[row["key"]]
        assert found.facts == expected.facts
        assert np.array_equal(found.turns[0].audio, expected.turns[0].audio)
        start = after.store.read(f"shards/{row['shard']}", row["offset"], 100)
        assert start.startswith(row["key"].encode())
    assert holders(packed.pack_uri, gone, gone.hex().encode(), b"Ann") == []
    assert after.head["counts"]["train"]["num_documents"] == len(kept)
    assert [row["num"] for row in after.head["funnel"] if row["step"] == "packed"] == [len(kept)]
    assert [row["num_documents"] for row in after.head["takedowns"]] == [num]
    again = take_down(corpus, [Rule.parse("speaker", "Ann")], "r", [packed.pack_uri], [run])
    assert [c["num_documents"] for c in again.checkpoints] == [num, num]
    assert rewrite_pack(packed.pack_uri) == 0
    since = make_run(tmp_path / "since", after.pack_id, [1])
    assert take_down(corpus, [], "", [packed.pack_uri], [since]).checkpoints[0]["num_documents"] == 0


def test_a_pack_whose_rewriting_was_killed_is_finished(corpus, tmp_path, monkeypatch):
    packed = pack(corpus, str(tmp_path / "pack"), pack_recipe(shard_bytes=50_000)).pack_uri
    take_down(corpus, [Rule.parse("speaker", "Ann"), Rule.parse("source", "calls")], "r", [packed])
    expected = Pack.open(packed).documents("train").select(["key", "shard"]).to_pylist()
    num_changes, was_killed = 0, True
    while was_killed:
        uri = shutil.copytree(packed, str(tmp_path / f"killed-{num_changes}"))
        was_killed = killed_after(monkeypatch, num_changes, lambda uri=uri: rewrite_pack(uri))
        assert Pack.open(uri).documents("train").select(["key", "shard"]).to_pylist() == expected
        take_down(corpus, [], "", [uri])  # as the verb does before it rewrites
        rewrite_pack(uri)
        after = Pack.open(uri)
        assert (after.pack_id, after.taken) == (after.head["pack_id"], [])
        assert after.pack_id == Pack.open(packed).pack_id
        assert after.head["counts"]["train"]["num_documents"] == len(expected)
        for row in after.documents("train").to_pylist():
            assert after.read(row["shard"], row["key"]).key == row["key"]
        num_changes += 1
    assert num_changes > 5


def test_a_second_takedown_reads_the_shards_of_a_rewriting_that_was_killed(corpus, tmp_path, monkeypatch):
    """Of a document of which a span may go the shard tells; its index may still be that of the shard before."""
    packed = pack(corpus, str(tmp_path / "pack"), pack_recipe()).pack_uri  # one shard
    before = Pack.open(packed)
    documents = before.documents("train").to_pylist()
    read = {row["key"]: before.read(row["shard"], row["key"]) for row in documents}
    talk = recording(corpus, TALK)
    clip = [row for row in Corpus.open(corpus).clips().to_pylist() if row["recording_id"] == talk][-1]["clip_id"]
    take_down(corpus, [Rule.parse("speaker", "Ann")], "r", [packed])
    num_changes, was_killed = 0, True
    while was_killed:
        uri, held = (shutil.copytree(path, f"{tmp_path}/{num_changes}-{path.rsplit('/', 1)[1]}") for path in (packed, corpus))
        was_killed = killed_after(monkeypatch, num_changes, lambda uri=uri: rewrite_pack(uri))
        (taken,) = take_down(held, [Rule.parse("clip", clip.hex())], "r", [uri]).packs
        assert taken["keys"] == [key for key, document in read.items() if _clip_ids(document) == [clip.hex()]]
        for row in (opened := Pack.open(uri)).documents("train").to_pylist():
            assert opened.read(row["shard"], row["key"]).facts == read[row["key"]].facts
        rewrite_pack(uri)
        for row in (opened := Pack.open(uri)).documents("train").to_pylist():
            assert opened.read(row["shard"], row["key"]).facts == read[row["key"]].facts
        num_changes += 1
    assert num_changes > 5  # a shard, its index, the manifest, the head, what was taken


def _clip_ids(document) -> list[str]:
    return [clip["clip_id"] for turn in document.facts["turns"] for clip in turn["clips"]]


@pytest.mark.parametrize("state", ["{", "[]", '{"stage": "a"}'])
def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path, state):
    run = make_run(tmp_path, "ab", [1])
    (tmp_path / "checkpoints" / "00-align-0000001" / "state.json").write_text(state)
    with pytest.raises(RequestError, match="cannot be read"):
        list(read_checkpoints(run))
    with pytest.raises(RequestError, match="no run at"):
        list(read_checkpoints(str(tmp_path / "none")))


def test_a_span_goes_from_its_channel_and_from_copies_of_it_and_from_no_other(recordings, light, tmp_path):
    """Stereo of two microphones keeps the second; stereo of one microphone loses the span on both sides."""
    spoken, rate = soundfile.read(recordings / TALK, dtype="float32")
    soundfile.write(tmp_path / "two.wav", np.stack([spoken, spoken[::-1]], axis=1), rate)
    soundfile.write(tmp_path / "one.wav", np.stack([spoken, spoken], axis=1), rate)
    uri = str(tmp_path / "corpus")
    build([str(tmp_path / "two.wav"), str(tmp_path / "one.wav")], uri, light(**RECIPE, annotators={}))

    def channels(name: str) -> np.ndarray:
        reader = Corpus.open(uri).audio()
        return np.stack([reader.read(recording(uri, name), channel, rate, 0, len(spoken)) for channel in (0, 1)])

    before = {name: channels(name) for name in ("two.wav", "one.wav")}
    clips = Corpus.open(uri).clips().to_pylist()
    first = {name: next(c for c in clips if c["recording_id"] == recording(uri, name) and c["channel"] == 0) for name in before}
    take_down(uri, [Rule.parse("clip", clip["clip_id"].hex()) for clip in first.values()], "r")
    rewrite(uri)
    for name, silenced in (("two.wav", [0]), ("one.wav", [0, 1])):
        span = np.s_[first[name]["start_sample"] : first[name]["end_sample"]]
        for channel, sound in enumerate(channels(name)):
            assert sound[span].any() == (channel not in silenced)
            expected = before[name][channel].copy()
            expected[span] *= channel not in silenced
            assert np.array_equal(sound, expected)
    assert prove(Corpus.open(uri), []).num_findings == 0
    assert check(uri, grace_s=0).faults == []


def test_what_earlier_recipes_made_goes_too(corpus, made, light):
    """The corpus was built again with other clips and other layers since; all that lies there of both is rewritten."""
    build([made[0]], corpus, light(units=RECIPE["units"], clip_set={"turns": None, "max_s": 3.0}))
    gone = recording(corpus, ANN)
    take_down(corpus, [Rule.parse("speaker", "Ann")], "r")
    before = tables(corpus)
    rewrite(corpus)
    assert holders(corpus, gone, gone.hex().encode(), WORDS.encode(), b"Ann") == []
    assert all(tables(corpus)[name].equals(table) for name, table in before.items())
    assert len([output for output in Corpus.open(corpus).snapshot.outputs if output.startswith("clips/")]) == 2
    assert prove(Corpus.open(corpus), []).num_findings == 0
    assert check(corpus, grace_s=0).faults == []
