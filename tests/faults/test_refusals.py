"""Bad requests and bad luck from the command line: one clear line, the exit code that says whose fault it is, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def stepwell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stepwell", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, **environment},
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error, without a traceback."""
    assert "Traceback" not in done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("error: "))


@pytest.fixture
def recipe(light, tmp_path: Path) -> str:
    path = tmp_path / "light.yaml"
    path.write_text(light().model_dump_json())
    return str(path)


def test_an_unreachable_bucket_is_refused_in_bounded_time(recipe, tmp_path):
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    out = tmp_path / "corpus"
    as_source = stepwell("corpus", "build", "s3://bucket/audio", "--out", str(out), "--recipe", recipe, **nowhere)
    assert as_source.returncode == 2
    assert "s3://bucket/audio" in error_of(as_source)
    assert not out.exists()
    as_output = stepwell("corpus", "build", str(tmp_path), "--out", "s3://bucket/corpus", "--recipe", recipe, **nowhere)
    assert as_output.returncode == 2
    assert "s3://bucket/corpus" in error_of(as_output)


def test_a_manifest_that_lacks_a_mapped_column_is_refused(recipe, recordings, tmp_path):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"path": str(recordings / "tone.flac"), "words": "la"}) + "\n")
    out = tmp_path / "corpus"
    arguments = ("--out", str(out), "--recipe", recipe, "--column", "text=transcript")
    done = stepwell("corpus", "build", str(manifest), *arguments)
    assert done.returncode == 2
    assert "transcript" in error_of(done)
    assert "words" in error_of(done)  # the columns that there are
    assert not out.exists()


def test_a_corpus_of_a_newer_format_is_refused_and_left_alone(recipe, recordings, tmp_path):
    head = tmp_path / "corpus" / "corpus.json"
    head.parent.mkdir()
    head.write_text(json.dumps({"format_version": 99, "corpus_id": "c", "sample_rate": "native"}))
    for verb in (["build", str(recordings), "--out", str(head.parent), "--recipe", recipe], ["status", str(head.parent)]):
        done = stepwell("corpus", *verb)
        assert done.returncode == 2
        assert "format 99" in error_of(done)
    assert [path.name for path in head.parent.rglob("*")] == ["corpus.json"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KB; skips where this process may not mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_ends_the_build_and_more_room_lets_it_go_on(
    recipe, recordings, small_disk, tmp_path, assert_equal_corpora
):
    build = ("corpus", "build", str(recordings), "--recipe", recipe, "--engine", "local", "--out")
    full = stepwell(*build, str(small_disk / "corpus"))
    assert full.returncode == 1
    assert "full" in error_of(full)
    assert (small_disk / "corpus" / "commits").exists()  # it was in the middle
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert stepwell(*build, str(small_disk / "corpus")).returncode == 0
    assert stepwell(*build, str(tmp_path / "unbroken")).returncode == 0
    assert_equal_corpora(str(small_disk / "corpus"), str(tmp_path / "unbroken"))
