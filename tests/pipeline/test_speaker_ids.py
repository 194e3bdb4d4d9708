"""Who speaks, over a whole corpus: ids stay, aliases resolve, figures add up; beside kills, races, fsck and collections."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from manifests.clip_rows import speaker_aliases
from manifests.corpus import Corpus, UnitView
from manifests.errors import RequestError
from manifests.packs import Pack
from manifests.recipes import decode_recipe
from manifests.snapshots import Snapshot, latest_snapshot_number
from manifests.store import Store, json_bytes
from pipeline import link_speakers as job
from pipeline.build import annotate, build
from pipeline.compact import compact
from pipeline.fsck import check
from pipeline.garbage import collect
from pipeline.link_speakers import link_speakers
from pipeline.pack import pack
from pipeline.recipe import PackRecipe
from pipeline.repair import repair
from pipeline.speaker_ids import clip_speakers

sys.path.insert(0, str(Path(__file__).parent))  # a recipe names the parts there by their module
from tone_voices import RATE_HZ, tone

ADA, BOB, CY = 0.0, 0.9, 2.2  # two of them have a cosine below 0.63
TONES = {
    "segmenters": {"vad": {"kind": "custom", "target": "tone_voices:WholeChannel"}},
    "annotators": {"speaker_embedding": {"kind": "custom", "target": "tone_voices:ToneVoice"}},
}


class Studio:
    """A folder of recordings and the corpus that they are built into, a recording a unit."""

    def __init__(self, folder: Path, light) -> None:
        self.folder, self.uri, self._light = folder / "in", str(folder / "corpus"), light
        self.folder.mkdir()

    def record(self, **voices: float) -> None:
        """Recordings by name, each of a second of one voice; built at once."""
        for name, angle in voices.items():
            soundfile.write(self.folder / f"{name}.wav", tone(angle), RATE_HZ)
        self.build()

    def build(self) -> None:
        build([str(self.folder)], self.uri, self._light(**TONES))

    def ids(self) -> dict[str, bytes | None]:
        """Recording -> who speaks in it by the newest table, aliases resolved."""
        corpus, found = Corpus.open(self.uri), {}
        for view in corpus.views():
            names = {row["recording_id"]: Path(row["uri"]).stem for row in view.inputs().to_pylist()}
            recordings = view.clips(["recording_id"])["recording_id"].to_pylist()
            found |= {names[r]: speaker for r, speaker in zip(recordings, clip_speakers(view), strict=True)}
        return found

    def rows(self, role: str) -> list[dict]:
        return Corpus.open(self.uri).decisions("speaker_id", role).to_pylist()


@pytest.fixture
def studio(tmp_path, light) -> Studio:
    return Studio(tmp_path, light)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, light) -> Studio:
    """A corpus with a table of two generations; not to be changed."""
    studio = Studio(tmp_path_factory.mktemp("studio"), light)
    studio.record(ada=ADA, ada2=ADA + 0.1, bob=BOB)
    link_speakers(studio.uri)
    studio.record(bob2=BOB + 0.1, cy=CY)
    link_speakers(studio.uri)
    return studio


@pytest.fixture
def copied(finished, tmp_path) -> str:
    return shutil.copytree(finished.uri, str(tmp_path / "copy"))


def faults(uri: str) -> Counter[str]:
    return Counter(fault.code for fault in check(uri, grace_s=0).faults)


def test_one_person_has_one_id_in_all_recordings(studio):
    studio.record(ada=ADA, bob=BOB, ada2=ADA + 0.1, cy=CY)
    result = link_speakers(studio.uri)
    ids = studio.ids()
    assert ids["ada"] == ids["ada2"]
    assert len({*ids.values()}) == 3
    assert (result.num_speakers, result.num_found, result.num_voices, result.num_unknown) == (3, 3, 4, 0)
    assert all(len(speaker) == 16 for speaker in ids.values())


def test_nothing_new_changes_nothing(studio):
    studio.record(ada=ADA, bob=BOB)
    first = link_speakers(studio.uri)
    there = Store(studio.uri).details()
    again = link_speakers(studio.uri)
    assert Store(studio.uri).details() == there
    assert (again.is_new, again.fingerprint, again.snapshot) == (False, first.fingerprint, first.snapshot)
    assert "nothing to link" in again.lines()[-1]
    compact(studio.uri, grace_s=0)  # a newer snapshot of the same units
    assert not link_speakers(studio.uri).is_new


def test_new_recordings_join_old_persons_whose_rows_stay(studio):
    studio.record(ada=ADA, bob=BOB)
    link_speakers(studio.uri)
    before, rows, old = studio.ids(), studio.rows("clips"), Corpus.open(studio.uri).decision_table("speaker_id")
    studio.record(ada2=ADA + 0.1, cy=CY)
    result = link_speakers(studio.uri)
    ids, new = studio.ids(), Corpus.open(studio.uri).decision_table("speaker_id")
    assert (result.num_units, result.num_found, result.num_merged) == (2, 1, 0)
    assert {name: ids[name] for name in before} == before
    assert ids["ada2"] == ids["ada"]
    assert [row for row in studio.rows("clips") if row in rows] == rows
    assert new.parent == old.fingerprint
    assert old.parts[0] in new.parts  # and no copy of them


def test_of_two_ids_that_are_one_person_the_older_stays(studio):
    studio.record(a=ADA, b=BOB)
    link_speakers(studio.uri)
    older, younger = studio.ids()["a"], studio.ids()["b"]
    studio.record(c=0.45, d=0.46, e=0.44)  # between both, and nearer to each than they are to one another
    assert link_speakers(studio.uri).num_merged == 1
    assert set(studio.ids().values()) == {older}
    assert [row["speaker_id"] for row in studio.rows("speakers")] == [older]
    (alias,) = studio.rows("aliases")
    assert (alias["alias"], alias["speaker_id"]) == (younger, older)
    assert studio.rows("clips")[1]["speaker_id"] == younger  # the row says what it said
    studio.record(f=CY, g=0.5)
    link_speakers(studio.uri)
    assert speaker_aliases(Corpus.open(studio.uri)) == {younger: older}
    assert studio.ids()["g"] == older


def test_ids_do_not_depend_on_when_their_recordings_came(tmp_path, light):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    at_once, bit_by_bit = (Studio(tmp_path / name, light) for name in ("one", "two"))
    voices = {"a": ADA, "b": BOB, "c": ADA + 0.1, "d": CY, "e": BOB + 0.1}
    at_once.record(**voices)
    link_speakers(at_once.uri)
    for name, angle in voices.items():
        bit_by_bit.record(**{name: angle})
        link_speakers(bit_by_bit.uri)
    assert bit_by_bit.ids() == at_once.ids()
    ours, theirs = bit_by_bit.rows("speakers"), at_once.rows("speakers")
    assert [row["num_clips"] for row in ours] == [row["num_clips"] for row in theirs] == [2, 2, 1]


def test_figures_are_those_of_the_clips(finished):
    corpus, tally = Corpus.open(finished.uri), Counter()
    lengths = {}
    for view in corpus.views():
        for clip, speaker in zip(view.clips().to_pylist(), clip_speakers(view), strict=True):
            tally[speaker] += 1
            lengths[speaker] = lengths.get(speaker, 0.0) + (clip["end_sample"] - clip["start_sample"]) / clip["sample_rate_hz"]
    for row in finished.rows("speakers"):
        assert row["num_clips"] == row["num_recordings"] == tally.pop(row["speaker_id"])
        assert row["clip_s"] == row["speech_s"] == pytest.approx(lengths[row["speaker_id"]])
        assert np.linalg.norm(row["centroid"]) == pytest.approx(1.0, abs=0.01)
    assert not tally


def test_similarity_is_the_mean_cosine_with_the_clips_of_the_person(studio):
    studio.record(a=ADA, b=ADA + 0.4)
    link_speakers(studio.uri)
    assert [row["similarity"] for row in studio.rows("clips")] == pytest.approx([(1 + np.cos(0.4)) / 2] * 2, abs=1e-3)


def test_who_was_not_embedded_has_no_speaker(studio):
    soundfile.write(studio.folder / "quiet.wav", 0.01 * tone(ADA), RATE_HZ)
    studio.record(a=ADA)
    result = link_speakers(studio.uri)
    assert (result.num_clips, result.num_unknown) == (1, 1)
    assert studio.ids()["quiet"] is None
    (row,) = (row for row in studio.rows("clips") if row["speaker_id"] is None)
    assert row["similarity"] is None


def test_a_corpus_in_which_nobody_speaks_is_linked_too(studio):
    soundfile.write(studio.folder / "quiet.wav", 0.01 * tone(ADA), RATE_HZ)
    studio.build()
    assert link_speakers(studio.uri).num_speakers == 0
    studio.record(a=ADA)
    assert link_speakers(studio.uri).num_speakers == 1


def test_a_clip_that_another_unit_shows_keeps_its_id(studio):
    studio.record(ada=ADA, bob=BOB)
    soundfile.write(studio.folder / "copy.wav", tone(ADA), RATE_HZ)  # ada's bytes again: shadowed in its unit
    studio.build()
    link_speakers(studio.uri)
    before = {row["clip_id"]: row["speaker_id"] for row in studio.rows("clips")}
    newest = Corpus.open(studio.uri).snapshot
    (guest, recordings), (owner, _) = next(iter(newest.shadowed.items())), (newest.units[0], None)
    moved = replace(newest, number=newest.number + 1, shadowed={owner: recordings})
    Store(studio.uri).write(Snapshot.path(moved.number), json_bytes(moved.to_json()))
    with pytest.raises(RequestError, match=f"lacks clips of unit {guest}"):
        clip_speakers(UnitView(Corpus.open(studio.uri), guest))
    result = link_speakers(studio.uri)
    assert (result.num_found, result.num_speakers, result.num_clips) == (0, 2, 2)
    assert {row["clip_id"]: row["speaker_id"] for row in studio.rows("clips")} == before


def test_whom_diarization_tells_apart_stay_two_and_are_found_again(tmp_path, light):
    """Also when they sound alike, and when they come later: labels are local, ids are not."""
    turns = {"kind": "custom", "target": "tone_voices:Halves"}
    recipe = light(**{**TONES, "segmenters": {**TONES["segmenters"], "turns": turns}}, clip_set={"turns": "turns"})
    folder, uri = tmp_path / "in", str(tmp_path / "corpus")
    folder.mkdir()

    def record(**dialogues: tuple[float, float]) -> dict[str, list[bytes]]:
        for name, (one, two) in dialogues.items():
            soundfile.write(folder / f"{name}.wav", np.concatenate([tone(one, 2.0), tone(two, 2.0)]), RATE_HZ)
        build([str(folder)], uri, recipe)
        link_speakers(uri)
        return {Path(view.inputs().to_pylist()[0]["uri"]).stem: clip_speakers(view) for view in Corpus.open(uri).views()}

    before = record(a=(ADA, BOB), b=(BOB + 0.05, ADA + 0.05), twins=(CY, CY + 0.1))
    assert before["b"] == before["a"][::-1]
    assert len({speaker for speakers in before.values() for speaker in speakers}) == 4
    after = record(c=(CY + 0.11, CY + 0.01), d=(CY - 0.01, CY + 0.09))
    assert {name: after[name] for name in before} == before
    assert set(after["c"]) == set(after["d"]) == set(after["twins"])
    assert not check(uri, grace_s=0).faults


def test_what_does_not_go_together_is_refused(studio, light):
    studio.record(a=ADA)
    with pytest.raises(
        RequestError, match=r"layer 'voice' is not in the corpus.*mend the name, or add a layer of speaker embeddings"
    ):
        link_speakers(studio.uri, "voice")
    annotate(studio.uri, {"signal": light().annotators["signal"]})
    with pytest.raises(RequestError, match="no column 'embedded_s'; name one of speaker embeddings"):
        link_speakers(studio.uri, "signal")
    with pytest.raises(RequestError, match=r"has no decision table 'speaker_id' \(tables: none\)"):
        clip_speakers(next(Corpus.open(studio.uri).views()))
    with pytest.raises(RequestError, match=r"threshold 0\.8: .* below 0\.79"):
        link_speakers(studio.uri, threshold=0.8)
    first = link_speakers(studio.uri)
    with pytest.raises(RequestError, match=r"made with threshold 0.74, asked is 0.6.*--anew"):
        link_speakers(studio.uri, threshold=0.6)
    anew = link_speakers(studio.uri, threshold=0.6, is_anew=True)
    assert (anew.threshold, anew.num_found) == (0.6, 1)
    assert anew.fingerprint != first.fingerprint
    assert not link_speakers(studio.uri).is_new  # at the table's own threshold


def test_a_layer_that_lacks_units_is_refused(studio, light):
    studio.record(a=ADA)
    soundfile.write(studio.folder / "b.wav", tone(BOB), RATE_HZ)
    build([str(studio.folder)], studio.uri, light(**{**TONES, "annotators": {}}))
    with pytest.raises(RequestError, match="lacks 1 of 2 units; build again"):
        link_speakers(studio.uri)


def test_a_table_of_another_clip_set_is_not_read(studio, light):
    studio.record(a=ADA)
    link_speakers(studio.uri)
    build([str(studio.folder)], studio.uri, light(**TONES, clip_set={"turns": None, "max_s": 2.0}))
    with pytest.raises(RequestError, match="make it again"):
        clip_speakers(next(Corpus.open(studio.uri).views()))
    with pytest.raises(RequestError, match="--anew"):
        link_speakers(studio.uri)


def test_of_two_runs_at_once_both_give_the_same_ids(studio, monkeypatch):
    studio.record(a=ADA, b=BOB, c=CY)
    both, mine = threading.Barrier(2), threading.local()
    link, answers = job.link, []

    def link_together(*args, **options):
        if not hasattr(mine, "has_waited"):
            mine.has_waited = both.wait(timeout=30)  # each has read the snapshot before one publishes
        return link(*args, **options)

    monkeypatch.setattr(job, "link", link_together)
    threads = [threading.Thread(target=lambda: answers.append(link_speakers(studio.uri))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.is_new for answer in answers) == [False, True]
    assert {answer.num_speakers for answer in answers} == {3}
    assert not faults(studio.uri)


def test_a_killed_run_leaves_the_old_table_and_the_next_one_ends_it(studio):
    studio.record(a=ADA, b=BOB)
    link_speakers(studio.uri)
    before = studio.ids()
    soundfile.write(studio.folder / "c.wav", tone(ADA + 0.1), RATE_HZ)
    studio.build()
    number = latest_snapshot_number(Store(studio.uri))
    program = """
import os, signal, sys
from pipeline import link_speakers
link_speakers.Draft.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
link_speakers.link_speakers(sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", program, studio.uri], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert latest_snapshot_number(Store(studio.uri)) == number
    head = Corpus.open(studio.uri).decision_table("speaker_id")
    left = {path for path in Store(studio.uri).objects("tables") if head.fingerprint not in path}
    assert faults(studio.uri) == {"orphan": len(left)}
    assert len(left) == 2  # speakers and aliases of a table that never was
    link_speakers(studio.uri)
    assert {name: studio.ids()[name] for name in before} == before
    collect(Store(studio.uri), 0)
    assert not faults(studio.uri)


def test_an_interrupted_run_takes_its_objects_with_it(studio, monkeypatch):
    studio.record(a=ADA)
    monkeypatch.setattr(job.Tally, "columns", property(lambda self: (_ for _ in ()).throw(KeyboardInterrupt)))
    with pytest.raises(KeyboardInterrupt):
        link_speakers(studio.uri)
    assert Store(studio.uri).objects("tables") == []


def test_tables_outlive_builds_compactions_and_collections(studio):
    studio.record(a=ADA, b=BOB)
    link_speakers(studio.uri)
    old = Corpus.open(studio.uri)
    studio.record(c=ADA + 0.1)
    link_speakers(studio.uri)
    ids = studio.ids()
    assert len(old.decisions("speaker_id", "speakers")) == 2  # whoever reads by the old snapshot goes on
    compact(studio.uri, grace_s=0)
    assert studio.ids() == ids
    assert not faults(studio.uri)
    head = Corpus.open(studio.uri).decision_table("speaker_id")
    there = {*Store(studio.uri).objects("tables")}
    assert there == {fact.path for fact in head.objects} | {Corpus.open(studio.uri).snapshot.tables["speaker_id"]}


DAMAGE = {
    "half a head": (lambda store, head, path: store.replace(path, store.read(path)[:50]), "decision_unreadable"),
    "missing head": (lambda store, head, path: store.remove(path), "decision_unreadable"),
    "missing rows": (lambda store, head, path: store.remove(head.parts[0].path), "decision_object"),
    "flipped byte": (lambda store, head, path: flip(store, head.wholes["speakers"].path), "decision_object"),
    "truncated": (lambda store, head, path: store.replace(head.wholes["aliases"].path, b"PAR1"), "decision_object"),
}


def flip(store: Store, path: str) -> None:
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.replace(path, bytes(data))


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_and_taken_out(name, copied):
    damage, code = DAMAGE[name]
    corpus = Corpus.open(copied)
    ids = [clip_speakers(view) for view in corpus.views()]
    damage(corpus.store, corpus.decision_table("speaker_id"), corpus.snapshot.tables["speaker_id"])
    assert faults(copied) == {code: 1}
    done = repair(check(copied, grace_s=0), grace_s=0)
    assert (done.scheduled, done.num_left) == ([], 0)
    assert not faults(copied)
    assert Corpus.open(copied).snapshot.tables == {}
    link_speakers(copied)
    assert [clip_speakers(view) for view in Corpus.open(copied).views()] == ids


@pytest.mark.parametrize("first_lost", [0, -1])
def test_a_lost_snapshot_loses_no_table(first_lost, copied):
    """Neither when the newest is lost, nor when all are."""
    store, corpus = Store(copied), Corpus.open(copied)
    ids = [clip_speakers(view) for view in corpus.views()]
    for path in store.objects("snapshots")[first_lost:]:
        store.replace(path, b"{")
    repair(check(copied, grace_s=0), grace_s=0)
    assert not faults(copied)
    assert [clip_speakers(view) for view in Corpus.open(copied).views()] == ids


def test_a_pack_keeps_a_person_in_one_split(studio, tmp_path):
    angles = {f"{name}{n}": angle + 0.02 * n for name, angle in (("a", ADA), ("b", BOB), ("c", CY)) for n in range(5)}
    studio.record(**angles)
    link_speakers(studio.uri)

    def packed(out: str, **changes) -> tuple[dict[str, set], dict]:
        fields = {"name": "t", "text_from": [], "require_text": False, "splits": {"train": 0.5, "test": 0.5}, **changes}
        pack(studio.uri, str(tmp_path / out), decode_recipe(PackRecipe, yaml.safe_dump(fields), "t"))
        opened, found = Pack.open(str(tmp_path / out)), {}
        for split in ("train", "test"):
            for row in opened.documents(split).to_pylist():
                assert ("speaker_id" in opened.read(row["shard"], row["key"]).turns[0].facts["clips"][0]) == (
                    "speakers_from" in changes
                )
                found.setdefault(row["speaker"], set()).add(split)
        return found, opened.head["lineage"]

    with_ids, lineage = packed("with", speakers_from="speaker_id")
    assert {*with_ids} == {speaker.hex() for speaker in studio.ids().values()}
    assert all(len(splits) == 1 for splits in with_ids.values())
    assert lineage["tables"] == {"speaker_id": Corpus.open(studio.uri).decision_table("speaker_id").fingerprint}
    without, lineage = packed("without")
    assert len(without) == 15  # a recording each
    assert "tables" not in lineage


def test_a_pack_goes_by_the_newest_ids(studio, tmp_path):
    recipe = {"name": "t", "text_from": [], "require_text": False, "speakers_from": "speaker_id"}
    recipe = decode_recipe(PackRecipe, yaml.safe_dump(recipe), "t")
    studio.record(a=ADA, b=BOB)
    with pytest.raises(RequestError, match="no decision table 'speaker_id'"):
        pack(studio.uri, str(tmp_path / "none"), recipe)
    link_speakers(studio.uri)
    older = studio.ids()["a"]
    studio.record(c=0.45, d=0.46, e=0.44)
    with pytest.raises(RequestError, match="lacks 3 of 5 units; run `stepwell corpus link-speakers"):
        pack(studio.uri, str(tmp_path / "stale"), recipe)
    link_speakers(studio.uri)
    pack(studio.uri, str(tmp_path / "pack"), recipe)
    assert {row["speaker"] for row in Pack.open(str(tmp_path / "pack")).documents("train").to_pylist()} == {older.hex()}


def test_the_verb_and_show_print_it(studio, monkeypatch):
    studio.record(a=ADA, b=BOB)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def stepwell(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "stepwell", *words], capture_output=True, text=True, check=False)

    wrong = stepwell("corpus", "link-speakers", studio.uri, "--layer", "x")
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1
    done = stepwell("corpus", "link-speakers", studio.uri, "--json", "--num-threads", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_speakers"] == 2
    shown = stepwell("manifest", "show", studio.uri, "--table", "table:speaker_id/speakers", "--json")
    assert json.loads(shown.stdout)["num_rows"] == 2
    assert "table speaker_id" in stepwell("manifest", "show", studio.uri).stdout


@pytest.mark.slow
def test_real_voices_end_to_end(tmp_path, light):
    """Turns of the conversation, a recording each; then two utterances of a reader, who is somebody new, and one person."""
    from manifests.scoring import read_rttm
    from pipeline.shipped_speech import conversation_path, utterances_folder

    folder, uri = tmp_path / "in", str(tmp_path / "corpus")
    folder.mkdir()
    audio, rate = soundfile.read(conversation_path(), dtype="float32")
    turns = [t for t in read_rttm(os.path.splitext(conversation_path())[0] + ".rttm") if t.end_s - t.start_s > 2.0]
    for n, turn in enumerate(turns):
        soundfile.write(folder / f"{turn.label}-{n}.wav", audio[round(turn.start_s * rate) : round(turn.end_s * rate)], rate)
    recipe = light(annotators={"speaker_embedding": {"kind": "speaker_embedding"}})
    build([str(folder)], uri, recipe)
    link_speakers(uri)

    def ids() -> dict[str, set[bytes]]:
        found: dict[str, set[bytes]] = {}
        for view in Corpus.open(uri).views():
            for row in view.inputs().to_pylist():
                found.setdefault(Path(row["uri"]).stem.split("-")[0], set()).update(filter(None, clip_speakers(view)))
        return found

    before = ids()  # two people at one microphone, cut by hand: telling them apart is what diarization is for
    assert len(before) == 2
    assert all(before.values())
    for name in ("BAC009S0764W0121.wav", "BAC009S0764W0122.wav"):
        shutil.copy(Path(utterances_folder()) / name, folder / f"S0764-{name}")
    build([str(folder)], uri, recipe)
    assert link_speakers(uri).num_found == 1
    after = ids()
    assert {name: after[name] for name in before} == before
    assert len(after["S0764"]) == 1
    assert not after["S0764"] & set.union(*before.values())
    assert not check(uri, grace_s=0).faults
