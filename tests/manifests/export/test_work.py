from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manifests.audio import decode_flac
from manifests.cli import app
from manifests.corpus import Corpus
from manifests.errors import RequestError
from manifests.export.formats import FORMATS
from manifests.export.row import exact_flac
from manifests.export.work import export
from manifests.packs import Pack, TakenDocuments, write_taken
from manifests.snapshots import publish_snapshot
from manifests.store import Store

if TYPE_CHECKING:
    from tests.conftest import S3


@pytest.fixture
def corpus(tiny_corpus: str, tmp_path: Path) -> str:
    """A tiny corpus that a test may change."""
    return shutil.copytree(tiny_corpus, str(tmp_path / "corpus"))


def objects(out: str) -> dict[str, bytes]:
    store = Store(out)
    return {path: store.read(path) for path in store.objects("")}


def ids(out: str) -> list[str]:
    return [json.loads(line)["id"] for line in Path(out, "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_export_goes_on_to_the_same_bytes(packed: str, tmp_path: Path, name: str) -> None:
    # Lhotse's manifests name their audio by absolute paths, so both lie at one place.
    pack, out, kept = (str(tmp_path / place) for place in ("pack", "out", "kept"))
    shutil.copytree(packed, pack)
    export(pack, name, out)
    whole = objects(out)
    shutil.move(out, kept)

    second = Path(pack, "shards", f"{Pack.open(pack).splits[1]}-000000.tar")
    second.rename(f"{second}.away")
    with pytest.raises(FileNotFoundError):
        export(pack, name, out)
    Path(f"{second}.away").rename(second)
    first = Path(out, ".stepwell/parts/000000.json")
    written_at = first.stat().st_mtime_ns
    assert export(pack, name, out).is_new
    assert objects(out) == whole
    assert first.stat().st_mtime_ns == written_at

    again = export(pack, name, out)
    assert not again.is_new
    assert "was there already" in again.lines()[0]


def test_what_readers_hide_never_leaves(corpus: str, out: str) -> None:
    opened = Corpus.open(corpus)
    clips = opened.clips()
    (hidden,) = {clips["recording_id"][-1].as_py()}
    snapshot = opened.snapshot
    shadowed = {**snapshot.shadowed, "u1": [*snapshot.shadowed["u1"], hidden.hex()]}
    assert publish_snapshot(opened.store, replace(snapshot, number=1, shadowed=shadowed))
    export(corpus, "jsonl", out)
    left = clips.filter(pc.not_equal(clips["recording_id"], pa.scalar(hidden, pa.binary(16))))
    assert ids(out) == [key.hex() for key in left["clip_id"].to_pylist()]
    assert len(ids(out)) == 4
    names = {Path(path).stem for path in Store(out).objects("audio")}
    assert names == {*ids(out)}


def state_licences(corpus: str, unit: str, licences: dict[str, str], fact: str = "licence") -> None:
    """Write licences, or another fact, into the inputs of a unit: by the name of the input, none for the others."""
    opened = Corpus.open(corpus)
    path = opened.commit("ingest", opened.fingerprint("ingest"), unit).objects["inputs"].path
    inputs = opened.store.read_table(path)
    at = inputs.schema.get_field_index(fact)
    stated = pa.array([licences.get(uri.rpartition("/")[2]) for uri in inputs["uri"].to_pylist()], pa.string())
    pq.write_table(inputs.set_column(at, inputs.schema.field(at), stated), Path(corpus, path))


def test_each_row_has_its_licence_and_the_result_names_them_all(corpus: str, out: str) -> None:
    state_licences(corpus, "u0", {"talk.wav": "CC-BY-4.0"})
    result = export(corpus, "jsonl", out)
    rows = [json.loads(line) for line in Path(out, "train.jsonl").read_text().splitlines()]
    assert [row.get("licence") for row in rows] == ["CC-BY-4.0"] * 3 + [None] * 3
    told = {row["licence"]: (row["num"], round(row["hours"] * 3600, 3)) for row in result.to_json()["licences"]}
    assert told == {"CC-BY-4.0": (3, 17.0), None: (3, 4.5)}
    assert any("licence not stated: 3 rows" in line for line in result.lines())


def test_where_consent_was_withheld_nothing_leaves(corpus: str, out: str) -> None:
    state_licences(corpus, "u0", {"talk.wav": "withheld", "note.wav": "granted"}, fact="consent")
    result = export(corpus, "nemo", out)
    rows = [json.loads(line) for line in Path(out, "train.json").read_text().splitlines()]
    assert [row.get("consent") for row in rows] == ["granted", None, None]
    assert len(Store(out).objects("audio")) == 3
    assert result.lines()[-1] == "  left out, consent withheld: 3 rows"
    assert result.to_json()["num_withheld"] == 3


def test_equal_bytes_under_two_licences_are_refused(corpus: str, out: str) -> None:
    state_licences(corpus, "u0", {"note.wav": "CC-BY-4.0", "talk.wav": "CC0-1.0"})
    state_licences(corpus, "u1", {"copy-of-note.wav": "CC-BY-NC-4.0"})
    with pytest.raises(RequestError, match=r"note.wav' and '.*copy-of-note.wav' hold the same bytes under licences 'CC-BY-4.0'"):
        export(corpus, "jsonl", out)
    assert not Store(out).exists()
    state_licences(corpus, "u1", {"copy-of-note.wav": "CC-BY-4.0"})
    assert export(corpus, "jsonl", out).contents.by_licence().keys() == {"CC-BY-4.0", "CC0-1.0", None}


def test_only_rows_that_meet_the_condition_leave(tiny_corpus: str, packed: str, tmp_path: Path) -> None:
    from_corpus, from_pack = str(tmp_path / "corpus-out"), str(tmp_path / "pack-out")
    export(tiny_corpus, "jsonl", from_corpus, where="clip.duration_s >= 2 and signal.snr_db < 20")
    rows = [json.loads(line) for line in Path(from_corpus, "train.jsonl").read_text().splitlines()]
    assert [(row["start_s"], row["duration_s"]) for row in rows] == [(1.0, 3.0), (6.0, 4.0)]
    # What else of its recording is left out does not make a clip the whole of it.
    assert {row["text_source"] for row in rows} == {"asr"}
    result = export(packed, "jsonl", from_pack, where="text = 'Well, hello'")
    assert result.to_json()["licences"] == [{"licence": None, "num": 1, "hours": 2 / 3600}]
    with pytest.raises(RequestError, match="did you mean"):
        export(tiny_corpus, "jsonl", str(tmp_path / "none"), where="snr_bd > 3")
    words = ["export", tiny_corpus, "--to", "jsonl", "--out", str(tmp_path / "verb"), "--where", "clip.duration_s >= 2", "--json"]
    told = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert 0 < told["splits"]["train"]["num"] < 6


def test_a_corpus_whose_recogniser_has_no_unit_yet_leaves_with_the_texts_that_there_are(corpus: str, out: str) -> None:
    before = Corpus.open(corpus)
    outputs = {output: made for output, made in before.snapshot.outputs.items() if output != "layers/turns/asr"}
    publish_snapshot(before.store, replace(before.snapshot, number=1, outputs=outputs))
    export(corpus, "jsonl", out)
    rows = [json.loads(line) for line in Path(out, "train.jsonl").read_text().splitlines()]
    assert {row.get("text_source") for row in rows} == {"source", None}


def test_documents_without_audio_are_left_out_and_counted_where_audio_is_needed(tiny_pack: str, tmp_path: Path) -> None:
    result = export(tiny_pack, "nemo", str(tmp_path / "nemo"))
    assert result.contents.by_split()["train"]["num"] == 1
    assert result.lines()[-1] == "  left out, without audio: 1 row"
    assert export(tiny_pack, "jsonl", str(tmp_path / "jsonl")).contents.by_split()["train"]["num"] == 2


def test_a_folder_that_holds_something_else_is_refused(tiny_corpus: str, out: str) -> None:
    Store(out).write("notes.txt", b"mine")
    with pytest.raises(RequestError, match=r"holds 1 object \(e.g. 'notes.txt'\) and no export"):
        export(tiny_corpus, "jsonl", out)
    assert objects(out) == {"notes.txt": b"mine"}


def test_another_export_at_the_same_place_is_refused(tiny_corpus: str, out: str) -> None:
    export(tiny_corpus, "jsonl", out)
    before = objects(out)
    with pytest.raises(RequestError, match=r"another request \(format differ"):
        export(tiny_corpus, "nemo", out)
    with pytest.raises(RequestError, match=r"another request \(rows differ"):
        export(tiny_corpus, "jsonl", out, columns=["snr_db"])
    assert objects(out) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format_name": "kaldi"}, "format 'kaldi' is not one of datasets, lhotse"),
        ({"splits": ["train"]}, "has no splits"),
        ({"columns": ["signal.snr"]}, "did you mean signal.snr_db"),
        ({"text_from": ["whisper"]}, "text is asked of 'whisper'; there are source, asr"),
        ({"snapshot": 9}, "has no snapshot 9"),
    ],
)
def test_a_wrong_request_says_why_and_leaves_nothing(tiny_corpus: str, out: str, options: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        export(**{"uri": tiny_corpus, "format_name": "jsonl", "out": out, **options})
    assert not Store(out).exists()


def test_a_wrong_request_to_a_pack(packed: str, out: str) -> None:
    with pytest.raises(RequestError, match="no split 'dev'; it has train, test"):
        export(packed, "jsonl", out, splits=["dev"])
    with pytest.raises(RequestError, match="column 'snr_db' is not in a pack's documents"):
        export(packed, "jsonl", out, columns=["snr_db"])
    with pytest.raises(RequestError, match="leave out --text-from"):
        export(packed, "jsonl", out, text_from=["asr"])


@pytest.mark.parametrize("name", ["datasets", "energon", "nemo", "lhotse_shar"])
def test_an_object_store_gets_the_same_objects(packed: str, out: str, s3: S3, name: str) -> None:
    remote = f"{s3.bucket()}/export"
    export(packed, name, out)
    export(packed, name, remote)
    assert objects(remote) == objects(out)


@pytest.mark.parametrize("bits", [16, 24])
def test_flac_keeps_every_sample(bits: int) -> None:
    full = 1 << (bits - 1)
    audio = (np.array([-full, -1, 0, 1, full - 1, 12345]) / full).astype(np.float32)
    again, rate = decode_flac(exact_flac(audio, 8000, bits))
    assert rate == 8000
    np.testing.assert_array_equal(again, audio)


def test_the_verb(packed: str, out: str) -> None:
    done = CliRunner().invoke(
        app, ["export", packed, "--to", "jsonl", "--out", out, "--split", "test", "--columns", "tags", "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["splits"].keys() == {"test"}
    assert told["format"] == "jsonl"
    assert all("tags" in json.loads(line) for line in Path(out, "test.jsonl").read_text().splitlines())
    assert CliRunner().invoke(app, ["export", "--help"]).output.count("Example: stepwell manifest export") == 1


def test_documents_that_were_taken_down_never_leave(packed: str, tmp_path: Path) -> None:
    pack, before, after = (str(tmp_path / place) for place in ("pack", "before", "after"))
    shutil.copytree(packed, pack)
    export(pack, "jsonl", before)
    rows = [json.loads(line) for path in Path(before).glob("*.jsonl") for line in path.read_text().splitlines()]
    taken = rows[0]["id"]
    write_taken(Store(pack), [TakenDocuments(["t0"], "asked to", "2026-11-26T12:00:00Z", Pack.open(pack).pack_id, [taken])])
    export(pack, "jsonl", after)
    left = [json.loads(line)["id"] for path in Path(after).glob("*.jsonl") for line in path.read_text().splitlines()]
    assert sorted(left) == sorted({row["id"] for row in rows} - {taken})
    # What was exported before is not gone on with as if nothing had happened.
    with pytest.raises(RequestError, match="rows differ"):
        export(pack, "jsonl", before)
