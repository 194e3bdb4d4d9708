"""Takedown: what is taken, who does not see it any more, and that it does not come in again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import yaml

from manifests.corpus import Corpus
from manifests.errors import ContractError, RequestError, WorkError
from manifests.ids import digest_bytes, recording_id
from manifests.open_rows import corpus_rows
from manifests.pack_rows import PackRows
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from manifests.snapshots import latest_snapshot_number
from manifests.store import Store, json_bytes
from manifests.tombstones import name_digest
from pipeline.build import build
from pipeline.compact import compact
from pipeline.engines import InlineEngine
from pipeline.fsck import check
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from pipeline.repair import repair
from pipeline.rights.matching import Rule, find_matches
from pipeline.rights.pack_takedown import rewrite_pack
from pipeline.rights.proof import prove
from pipeline.rights.rewriting import rewrite
from pipeline.rights.takedown import take_down

RECIPE = {"clip_set": {"turns": None, "max_s": 2.0}}  # several clips a recording


def manifest_of(folder, rows) -> str:
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def made(recordings, light, tmp_path_factory) -> tuple[str, str]:
    """(source, corpus): two units of three inputs; Ann speaks in two recordings, whose bytes one comes twice."""
    folder = tmp_path_factory.mktemp("takedown")
    first, second = sorted(recordings.glob("BAC*.wav"))
    again = shutil.copy(first, folder / "zz-again.wav")
    said = [
        {"uri": str(first), "source": "talks", "speaker_label": "Ann", "text": "words of Ann that nobody else says"},
        {"uri": str(second), "source": "talks", "speaker_label": "Bob", "text": "what Bob says"},
        {"uri": str(recordings / "conversation.wav"), "source": "calls"},
        {"uri": str(recordings / "tone.flac"), "source": "calls"},
        {"uri": str(recordings / "broken.wav"), "source": "calls", "speaker_label": "Ann"},
        {"uri": str(again), "source": "other"},
    ]
    source, out = manifest_of(folder, said), str(folder / "corpus")
    build([source], out, light(**RECIPE, units={"max_inputs": 3}))
    return source, out


@pytest.fixture
def corpus(made, tmp_path) -> str:
    return shutil.copytree(made[1], str(tmp_path / "corpus"))


def ids(uri: str) -> dict[str, bytes]:
    """Name of the file -> recording."""
    rows = Corpus.open(uri).inputs().to_pylist()
    return {row["uri"].rsplit("/", 1)[1]: row["recording_id"] for row in rows if row["recording_id"]}


def rules(uri: str) -> list[dict]:
    return Corpus.open(uri).tombstones.rules.to_pylist()


def pack_recipe(**changes) -> PackRecipe:
    return decode_recipe(PackRecipe, yaml.safe_dump({"name": "t", "text_from": [], "require_text": False, **changes}), "t")


LATE = {"source": "late", "speaker_label": "Ann", "text": "words of hers"}
ANN = "BAC009S0764W0121.wav"


@pytest.mark.parametrize("is_compacted", [False, True])
def test_whoever_reads_sees_the_speaker_no_more_and_all_others_as_before(corpus, is_compacted):
    if is_compacted:
        compact(corpus, grace_s=0)
    before, gone = Corpus.open(corpus), ids(corpus)[ANN]
    done = take_down(corpus, [Rule.parse("speaker", "Ann")], "asked to")
    assert (done.num_recordings, done.num_inputs, done.other_sources) == (1, 2, ["other"])
    after = Corpus.open(corpus)
    assert after.snapshot.number == done.snapshot == latest_snapshot_number(after.store)
    kept = [row for row in before.clips().to_pylist() if row["recording_id"] != gone]
    assert after.clips().to_pylist() == kept
    assert before.clips().num_rows - len(kept) == done.num_clips > 1
    assert [row for row in before.recordings().to_pylist() if row["recording_id"] != gone] == after.recordings().to_pylist()
    assert gone not in after.spans("vad")["recording_id"].to_pylist()
    assert {row["uri"].rsplit("/", 1)[1] for row in after.inputs().to_pylist()} == {
        "BAC009S0764W0122.wav", "conversation.wav", "tone.flac",
    }  # fmt: skip
    assert after.quarantine().num_rows == 0  # the broken file was Ann's
    for layer in after.layers():
        assert after.layer(layer)["clip_id"].to_pylist() == [row["clip_id"] for row in kept]
    rows = corpus_rows(after)
    read = [rows.read(part, ["clip.clip_id", "input.speaker_label", "signal.status"]) for part in rows.slices]
    assert [clip for table in read for clip in table["clip.clip_id"].to_pylist()] == [row["clip_id"] for row in kept]
    assert "Ann" not in {label for table in read for label in table["input.speaker_label"].to_pylist()}
    with pytest.raises(RequestError, match="has no snapshot"):
        Corpus.open(corpus, before.snapshot.number)
    with pytest.raises(ContractError, match="in no audio tar"):
        after.audio().read(gone, 0, 16_000, 0, 16_000)
    assert not check(corpus, grace_s=0).faults


def test_the_speaker_s_name_is_kept_as_a_digest_alone(corpus):
    take_down(corpus, [Rule.parse("speaker", "talks:Ann")], "asked to")
    rules = Corpus.open(corpus).tombstones.rules.to_pylist()
    assert [(row["rule"], row["reason"]) for row in rules] == [("speaker", "asked to")]
    assert "Ann" not in json.dumps([row["value"] for row in rules])


@pytest.mark.parametrize(
    ("option", "value_of"),
    [
        ("recording", lambda corpus: ids(corpus)[ANN].hex()),
        (
            "input",
            lambda corpus: next(r for r in Corpus.open(corpus).inputs().to_pylist() if r["source"] == "other")["input_id"].hex(),
        ),
        ("source", lambda corpus: "other"),
        ("uri_pattern", lambda corpus: "*zz-again*"),
    ],
)
def test_every_rule_on_inputs_takes_the_bytes_under_each_of_their_names(option, value_of, corpus):
    gone = ids(corpus)[ANN]
    done = take_down(corpus, [Rule.parse(option, value_of(corpus))], "r")
    assert done.num_recordings == 1
    left = Corpus.open(corpus)
    assert gone not in left.recordings()["recording_id"].to_pylist()
    assert gone not in left.inputs()["recording_id"].to_pylist()


def test_a_clip_takes_its_span_and_every_clip_that_touches_it(corpus):
    before = Corpus.open(corpus)
    recording = ids(corpus)["conversation.wav"]
    clips = [row for row in before.clips().to_pylist() if row["recording_id"] == recording]
    gone = clips[1]
    done = take_down(corpus, [Rule.parse("clip", gone["clip_id"].hex())], "r")
    assert (done.num_recordings, done.num_clips) == (0, 1)
    after = Corpus.open(corpus)
    assert after.clips().to_pylist() == [row for row in before.clips().to_pylist() if row["clip_id"] != gone["clip_id"]]
    for layer in after.layers():
        assert after.layer(layer)["clip_id"].to_pylist() == after.clips()["clip_id"].to_pylist()
    for span in after.spans("vad").to_pylist():
        is_touched = span["recording_id"] == recording and span["start_sample"] < gone["end_sample"]
        assert not (is_touched and gone["start_sample"] < span["end_sample"])
    assert not check(corpus, grace_s=0).faults


def test_clips_of_other_clip_sets_that_touch_the_span_are_known_by_their_ids(corpus, made, light):
    recording = ids(corpus)["conversation.wav"]
    earlier = {row["clip_id"] for row in Corpus.open(corpus).clips().to_pylist() if row["recording_id"] == recording}
    build([made[0]], corpus, light(clip_set={"turns": None, "max_s": 1.5}, units={"max_inputs": 3}))
    gone = [row for row in Corpus.open(corpus).clips().to_pylist() if row["recording_id"] == recording][1]
    take_down(corpus, [Rule.parse("clip", gone["clip_id"].hex())], "r")
    after = Corpus.open(corpus)
    assert [cut[:] for cut in after.tombstones.cuts[recording]] == [(gone["channel"], gone["start_sample"], gone["end_sample"])]
    assert after.tombstones.ids("clip") & earlier - {gone["clip_id"]}
    assert gone["clip_id"] not in after.clips()["clip_id"].to_pylist()
    assert not check(corpus, grace_s=0).faults


def test_asked_again_nothing_changes_and_a_second_rule_is_added(corpus):
    take_down(corpus, [Rule.parse("speaker", "Ann")], "first")
    number = latest_snapshot_number(Store(corpus))
    again = take_down(corpus, [Rule.parse("speaker", "Ann")], "second")
    assert latest_snapshot_number(Store(corpus)) == number
    assert again.rules[0]["is_known"]
    take_down(corpus, [Rule.parse("speaker", "Bob")], "third")
    assert [row["reason"] for row in Corpus.open(corpus).tombstones.rules.to_pylist()] == ["first", "third"]
    assert Corpus.open(corpus).recordings().num_rows == 2


def test_a_dry_run_says_the_same_and_writes_nothing(corpus):
    before = Store(corpus).details().keys()
    dry = take_down(corpus, [Rule.parse("speaker", "Ann")], "r", is_dry=True)
    assert Store(corpus).details().keys() == before
    real = take_down(corpus, [Rule.parse("speaker", "Ann")], "r")
    assert (dry.num_clips, dry.hours, dry.num_inputs) == (real.num_clips, real.hours, real.num_inputs)


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("recording", "ab", "32 hexadecimal digits"),
        ("recording", "0" * 32, "takes nothing"),
        ("speaker", "Nobody", r"--speaker Nobody takes nothing.*nothing was changed"),
        ("speaker", "0" * 32, "no decision table 'speaker_id'"),
        ("uri_pattern", "https://*", "takes nothing"),
    ],
)
def test_a_rule_that_takes_nothing_is_refused(option, value, match, corpus):
    before = Store(corpus).details().keys()
    with pytest.raises(RequestError, match=match):
        take_down(corpus, [Rule.parse(option, value)], "r")
    assert Store(corpus).details().keys() == before


def test_what_was_taken_down_does_not_come_in_again(corpus, made, recordings, light, tmp_path, capsys):
    take_down(corpus, [Rule.parse("speaker", "Ann"), Rule.parse("uri_pattern", "*conversation*")], "r")
    renamed = shutil.copy(recordings / ANN, tmp_path / "another-name.wav")
    spoken = shutil.copy(recordings / "tone.flac", tmp_path / "tone-2.flac")
    matched = shutil.copy(recordings / "tone.flac", tmp_path / "conversation-3.flac")
    new = [
        {"uri": str(renamed), "text": "her words"},
        {"uri": str(spoken), "speaker_label": "Ann"},
        {"uri": str(matched)},
    ]
    source = manifest_of(tmp_path, new)
    build([made[0], source], corpus, light(**RECIPE, units={"max_inputs": 3}))
    said = capsys.readouterr().err
    assert "4 inputs of the sources were taken down and stay out" in said
    assert "3 inputs of what was built had been taken down: no reader sees them" in said
    opened, takedowns = Corpus.open(corpus), {row["rule"]: row["takedown_id"] for row in rules(corpus)}
    names = {renamed: "speaker", spoken: "speaker", matched: "uri_pattern"}
    refused = {name_digest(str(name)): takedowns[rule] for name, rule in names.items()}
    rows = opened.tombstones.rows.to_pylist()
    assert {row["id"]: row["takedown_id"] for row in rows if row["id"] in refused} == refused
    assert not {*names} & {row["uri"] for row in [*opened.inputs().to_pylist(), *opened.quarantine().to_pylist()]}
    assert opened.recordings().num_rows == 2
    assert not check(corpus, grace_s=0).faults
    again = build([made[0], source], corpus, light(**RECIPE, units={"max_inputs": 3}))
    assert again.num_tasks_done == 0  # nobody fetches them again
    rewrite(corpus)
    assert prove(Corpus.open(corpus), []).num_findings == 0
    assert build([made[0], source], corpus, light(**RECIPE, units={"max_inputs": 3})).num_tasks_done == 0
    assert not check(corpus, grace_s=0).faults


def test_bytes_that_a_build_held_already_are_hidden_as_it_publishes(corpus, recordings, light, tmp_path, monkeypatch):
    """The build read no tombstones: they came while it was at work."""
    monkeypatch.setattr("pipeline.build._takedowns", lambda store: None)
    take_down(corpus, [Rule.parse("speaker", "Ann")], "r")
    renamed = shutil.copy(recordings / ANN, tmp_path / "another-name.wav")
    build([str(renamed)], corpus, light(**RECIPE))
    opened = Corpus.open(corpus)
    assert not {"another-name.wav", ANN} & ids(corpus).keys()
    assert opened.recordings().num_rows == 3
    assert not check(corpus, grace_s=0).faults


@pytest.fixture
def voice(recordings, tmp_path):
    """``voice(name, gain)``: speech of which no other recording has the bytes."""

    def write(name: str, gain: float) -> str:
        audio, rate = soundfile.read(recordings / ANN)
        soundfile.write(tmp_path / name, gain * audio, rate)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("option", "value"), [("speaker", "Ann"), ("speaker", "late:Ann"), ("source", "late"), ("uri_pattern", "*/late-*.wav")]
)
def test_a_name_that_was_taken_down_while_a_build_was_at_work_is_not_published(corpus, light, voice, tmp_path, option, value):
    """Both recordings of the name are new; one comes by a name of its own besides, one lies in the corpus already."""
    (tmp_path / "old").mkdir()
    late, twin = voice("late-1.wav", 0.5), voice("late-2.wav", 0.6)
    other, old = shutil.copy(late, tmp_path / "other.wav"), shutil.copy(twin, tmp_path / "old" / "mine.wav")
    broken = tmp_path / "late-3.wav"
    broken.write_bytes(b"no audio")
    seen = manifest_of(tmp_path / "old", [{"uri": str(old), "source": "mine"}, {"uri": voice("late-0.wav", 0.4), **LATE}])
    build([seen], corpus, light(**RECIPE))
    before = Corpus.open(corpus)
    packed = pack(corpus, str(tmp_path / "pack"), pack_recipe()).pack_uri

    class Overtaken(InlineEngine):
        def run(self, *args, **kwargs):
            super().run(*args, **kwargs)
            take_down(corpus, [Rule.parse(option, value)], "asked to")

    new = [{"uri": name, **LATE} for name in (late, twin, str(broken))] + [{"uri": str(other), "source": "mine"}]
    build([manifest_of(tmp_path, new)], corpus, light(**RECIPE), Overtaken())
    opened = Corpus.open(corpus)
    assert not [row["uri"] for row in opened.inputs().to_pylist() if str(tmp_path) in row["uri"]]
    assert not [row["uri"] for row in opened.quarantine().to_pylist() if str(tmp_path) in row["uri"]]
    gone = {recording_id(digest_bytes(Path(name).read_bytes())) for name in (late, twin)}
    assert not gone & {*opened.recordings()["recording_id"].to_pylist()}
    assert gone <= opened.tombstones.recordings
    with pytest.raises(RequestError, match="has no snapshot"):
        Corpus.open(corpus, before.snapshot.number)
    assert {fault.code for fault in check(corpus, grace_s=0).faults} <= {"orphan"}  # the tombstones of that snapshot
    held = Pack.open(packed).documents("train").num_rows
    take_down(corpus, [], "", [packed])
    assert Pack.open(packed).documents("train").num_rows < held  # the bytes that came late
    rewrite(corpus)
    rewrite_pack(packed)
    assert prove(Corpus.open(corpus), [packed]).num_findings == 0
    assert not check(corpus, grace_s=0).faults


def test_a_takedown_by_name_heeds_units_that_come_while_it_looks(corpus, light, voice, tmp_path, monkeypatch):
    from pipeline.rights import takedown

    late = voice("late.wav", 0.5)
    looked = []

    def overtaken(*args):
        found = find_matches(*args)
        if not looked:
            build([manifest_of(tmp_path, [{"uri": late, "speaker_label": "Ann"}])], corpus, light(**RECIPE))
        looked.append(found)
        return found

    monkeypatch.setattr(takedown, "find_matches", overtaken)
    take_down(corpus, [Rule.parse("speaker", "Ann")], "asked to")
    assert len(looked) == 2
    assert late not in Corpus.open(corpus).inputs()["uri"].to_pylist()
    assert not check(corpus, grace_s=0).faults


def test_fsck_finds_a_name_that_an_earlier_version_let_in_and_repair_hides_it(corpus, light, voice, tmp_path, monkeypatch):
    take_down(corpus, [Rule.parse("speaker", "Ann")], "asked to")
    late = voice("late.wav", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.build._takedowns", lambda store: None)
        patch.setattr("pipeline.publish.with_late_inputs", lambda corpus, units: corpus.tombstones)
        build([manifest_of(tmp_path, [{"uri": late, "speaker_label": "Ann"}])], corpus, light(**RECIPE))
    assert late in Corpus.open(corpus).inputs()["uri"].to_pylist()
    found = check(corpus, grace_s=0)
    assert [(fault.code, "1 input of a name that was taken down" in fault.what) for fault in found.faults] == [
        ("snapshot_owners", True)
    ]
    repair(found, 0)
    assert late not in Corpus.open(corpus).inputs()["uri"].to_pylist()
    assert not check(corpus, grace_s=0).faults


def test_a_pack_leaves_out_what_was_taken_down_and_says_so(corpus, tmp_path):
    first = pack(corpus, str(tmp_path / "before"), pack_recipe())
    done = take_down(corpus, [Rule.parse("speaker", "Ann")], "r")
    second = pack(corpus, str(tmp_path / "after"), pack_recipe())
    assert second.pack_id != first.pack_id
    assert second.num_documents["train"] == first.num_documents["train"] - done.num_clips
    (row,) = [row for row in second.funnel if row["reason"] == "taken_down"]
    assert (row["num"], row["hours"]) == (done.num_clips, pytest.approx(done.hours))


def test_a_pack_that_was_made_before_refuses_the_documents(corpus, tmp_path):
    made = pack(corpus, str(tmp_path / "pack"), pack_recipe())
    gone, before = ids(corpus)[ANN], Pack.open(made.pack_uri)
    done = take_down(corpus, [Rule.parse("speaker", "Ann")], "r", [made.pack_uri])
    after = Pack.open(made.pack_uri)
    assert done.packs[0]["num_documents"] == done.num_clips
    kept = [row for row in before.documents("train").to_pylist() if row["turns"][0]["recording_id"] != gone]
    assert after.documents("train").to_pylist() == kept
    rows = PackRows(after)
    assert [key for part in rows.slices for key in rows.read(part, ["key"])["key"].to_pylist()] == [row["key"] for row in kept]
    assert after.pack_id != before.pack_id
    row = next(row for row in before.documents("train").to_pylist() if row["turns"][0]["recording_id"] == gone)
    with pytest.raises(RequestError, match="was taken down"):
        after.read(row["shard"], row["key"])
    assert after.read(kept[0]["shard"], kept[0]["key"]).key == kept[0]["key"]
    again = take_down(corpus, [Rule.parse("speaker", "Ann")], "r", [made.pack_uri])
    assert (again.packs[0]["num_documents"], again.packs[0]["num_before"]) == (0, done.num_clips)
    assert Pack.open(made.pack_uri).pack_id == after.pack_id


def test_fsck_finds_a_snapshot_that_shows_what_was_taken_down_and_repair_hides_it(corpus):
    take_down(corpus, [Rule.parse("speaker", "Ann")], "r")
    snapshot = Corpus.open(corpus).snapshot
    Store(corpus).replace(snapshot.path(snapshot.number), json_bytes(replace(snapshot, taken_recordings={}).to_json()))
    found = check(corpus, grace_s=0)
    assert [fault.code for fault in found.faults] == ["snapshot_owners"]
    repair(found, 0)
    assert Corpus.open(corpus).snapshot.taken_recordings == snapshot.taken_recordings
    assert not check(corpus, grace_s=0).faults


def test_damaged_tombstones_are_never_repaired_away(corpus):
    take_down(corpus, [Rule.parse("speaker", "Ann")], "r")
    store, number = Store(corpus), latest_snapshot_number(Store(corpus))
    head = Corpus.open(corpus).decision_table("takedowns")
    store.replace(head.wholes["tombstones"].path, b"torn")
    found = check(corpus, grace_s=0)
    assert [fault.code for fault in found.faults] == ["decision_object"]
    with pytest.raises(WorkError, match="put it back from a backup"):
        repair(found, 0)
    assert latest_snapshot_number(store) == number


def test_a_pack_that_was_forgotten_gets_the_tombstones_that_are_there(corpus, tmp_path):
    made = pack(corpus, str(tmp_path / "pack"), pack_recipe())
    done = take_down(corpus, [Rule.parse("speaker", "Ann")], "asked to")
    later = take_down(corpus, [], "", [made.pack_uri])
    assert later.packs[0]["num_documents"] == done.num_clips
    (taken,) = Pack.open(made.pack_uri).taken
    assert (taken.reason, taken.takedown_ids) == ("asked to", [done.rules[0]["takedown_id"]])
    before, after = Corpus.open(corpus, done.snapshot).tombstones, Corpus.open(corpus).tombstones
    assert after.rules == before.rules
    assert len(after.ids("audio") - before.ids("audio")) == done.num_clips  # the bytes that the pack has of them
