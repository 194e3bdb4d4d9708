"""fsck: every kind of fault that the layout allows is found by its name, and none that is not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading

import pytest

from manifests.corpus import Corpus
from manifests.errors import WorkError
from manifests.store import Store
from pipeline.build import build
from pipeline.compact import compact
from pipeline.faults import REMEDIES
from pipeline.fsck import check
from pipeline.garbage import collect
from tests.pipeline.damage import COMPACTED_FAULTS, FAULTS, RECIPE, Damage, codes


@pytest.mark.parametrize("fast", [False, True])
def test_a_clean_corpus_has_no_faults(clean, clean_compacted, fast):
    for uri in (clean, clean_compacted):
        found = check(uri, fast=fast, grace_s=0)
        assert not found.faults, [fault.line() for fault in found.faults]
        assert found.num_units == 5
        assert found.audio_s == pytest.approx(
            sum(r["num_samples"] / r["sample_rate_hz"] for r in Corpus.open(uri).recordings().to_pylist())
        )


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_by_its_name_and_none_is_invented(name, clean, tmp_path):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))
    inject, expected = FAULTS[name]
    inject(Damage(uri))
    assert codes(uri) == expected


@pytest.mark.parametrize("name", COMPACTED_FAULTS)
def test_faults_of_compacted_parts_are_found_too(name, clean_compacted, tmp_path):
    uri = shutil.copytree(clean_compacted, str(tmp_path / "corpus"))
    inject, expected = COMPACTED_FAULTS[name]
    inject(Damage(uri))
    assert codes(uri) == expected


def test_no_code_is_without_a_fault_that_shows_it():
    shown = {code for _, expected in [*FAULTS.values(), *COMPACTED_FAULTS.values()] for code in expected}
    assert set(REMEDIES) - shown == {"head_unreadable", "unit_unplanned", "decision_unreadable", "decision_object"}  # elsewhere


@pytest.mark.parametrize("kind", ["corpus.json", "snapshots", "compacted", "commits"])
@pytest.mark.parametrize("damage", [b'{"units": [', b"[]", b"{}"])
def test_who_meets_damage_is_told_to_run_fsck(kind, damage, clean_compacted, tmp_path):
    uri = shutil.copytree(clean_compacted, str(tmp_path / "corpus"))
    store = Store(uri)
    for path in [kind] if kind == "corpus.json" else store.objects(kind):
        if path.endswith(".json"):
            store.replace(path, damage)
    before = store.details()
    with pytest.raises(WorkError, match=rf"'{kind}.* cannot be read .*; run `stepwell corpus fsck"):
        Corpus.open(uri).audio() if kind == "commits" else Corpus.open(uri).clips()
    if kind != "corpus.json":
        with pytest.raises(WorkError, match="run `stepwell corpus fsck"):
            collect(store, 0)
    assert store.details() == before


@pytest.mark.slow
def test_nothing_is_invented_beside_a_build_and_a_compaction(recordings, light, tmp_path):
    uri, files = str(tmp_path / "corpus"), sorted(str(path) for path in recordings.iterdir())
    build(files[:1], uri, light(**RECIPE))
    is_done, found = threading.Event(), []

    def inspect():
        while not is_done.is_set():
            found.append(check(uri, grace_s=3600))

    thread = threading.Thread(target=inspect)
    thread.start()
    try:
        for count in range(2, len(files) + 1):
            build(files[:count], uri, light(**RECIPE))
            compact(uri, grace_s=3600)
    finally:
        is_done.set()
        thread.join()
    assert len(found) > 3
    assert [fault.line() for findings in found for fault in findings.faults] == []


@pytest.mark.slow
def test_the_command_names_faults_and_says_so_in_its_exit_code(clean, tmp_path):
    uri = shutil.copytree(clean, str(tmp_path / "corpus"))

    def fsck(*options):
        command = [sys.executable, "-m", "stepwell", "corpus", "fsck", uri, "--grace-hours", "0", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert fsck().returncode == 0
    Damage(uri).store.write("audio/000000-0-dead.tar", b"")
    found = fsck("--json")
    assert found.returncode == 1
    assert json.loads(found.stdout)["faults"][0]["code"] == "orphan"
    mended = fsck("--repair")
    assert mended.returncode == 0, mended.stderr
    assert "0 objects mended, 1 removed" in mended.stdout
    assert fsck("--fast").stdout.splitlines()[-1] == "no faults"
