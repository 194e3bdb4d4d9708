from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.corpus import Corpus
from manifests.export.contents import Contents
from manifests.export.corpus_reader import CorpusReader
from manifests.export.lhotse_cuts import LhotseCuts
from manifests.export.lhotse_shar import LhotseShar
from manifests.export.row import FACTS, ExportRow, Part, exact_flac
from manifests.export.work import export
from manifests.store import Store

lhotse = pytest.importorskip("lhotse")


def splits_of(uri: str) -> list[str]:
    return ["train"] if Store(uri).exists("corpus.json") else ["train", "test"]


def test_lhotse_reads_cuts_with_their_audio(source_uri: str, clips: dict[str, np.ndarray], out: str) -> None:
    export(source_uri, "lhotse", out)
    cuts = [cut for split in splits_of(source_uri) for cut in lhotse.CutSet.from_file(f"{out}/{split}/cuts.jsonl.gz")]
    assert {cut.id for cut in cuts} == clips.keys()
    for cut in cuts:
        lhotse.validate(cut, read_data=True)
        assert cut.num_samples == len(clips[cut.id])
        np.testing.assert_array_equal(cut.load_audio()[0] * 32768, clips[cut.id])
        (supervision,) = cut.supervisions
        assert (supervision.start, supervision.duration) == (0, cut.duration)
        assert supervision.language in ("en", "zh")
        assert supervision.custom["source"] == "test"
        assert "speaker" not in supervision.custom
    texts = {cut.supervisions[0].text for cut in cuts}
    assert texts >= {"Well, hello", "Hello, there"}


def test_recordings_and_supervisions_belong_together(source_uri: str, out: str) -> None:
    export(source_uri, "lhotse", out)
    for split in splits_of(source_uri):
        recordings = lhotse.RecordingSet.from_file(f"{out}/{split}/recordings.jsonl.gz")
        supervisions = lhotse.SupervisionSet.from_file(f"{out}/{split}/supervisions.jsonl.gz")
        lhotse.qa.validate_recordings_and_supervisions(recordings, supervisions, read_data=True)
        assert len(list(recordings)) == len(list(supervisions)) > 0


def test_lhotse_streams_shar(source_uri: str, clips: dict[str, np.ndarray], out: str) -> None:
    export(source_uri, "lhotse_shar", out)
    cuts = [cut for split in splits_of(source_uri) for cut in lhotse.CutSet.from_shar(in_dir=f"{out}/{split}")]
    assert {cut.id for cut in cuts} == clips.keys()
    for cut in cuts:
        lhotse.validate(cut, read_data=True)
        np.testing.assert_array_equal(cut.load_audio()[0] * 32768, clips[cut.id])
        assert cut.supervisions[0].custom["source"] == "test"


def test_shar_is_cut_into_shards_that_belong_together(tiny_corpus: str, tmp_path: Path) -> None:
    store, reader = Store(str(tmp_path)), CorpusReader(Corpus.open(tiny_corpus))
    for part in reader.parts():
        LhotseShar(shard_bytes=20_000).write(store, part, reader.rows(part, with_audio=True), reader.schema)
    assert len(list(tmp_path.glob("train/cuts.*"))) == len(list(tmp_path.glob("train/recording.*"))) > len(reader.parts())
    cuts = list(lhotse.CutSet.from_shar(in_dir=f"{tmp_path}/train"))
    assert [cut.id for cut in cuts] == [row.facts["id"] for p in reader.parts() for row in reader.rows(p, with_audio=False)]
    assert all(cut.load_audio().shape == (1, cut.num_samples) for cut in cuts)


def test_words_are_an_alignment(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    word = {"word": "hello", "start_s": 0.25, "end_s": 0.75, "confidence": 0.5}
    facts = dict.fromkeys(FACTS.names) | {"id": "a", "words": [word], "text": "hello", "licence": "CC0-1.0"}
    facts |= {"duration_s": 1.0, "num_samples": 8000, "sample_rate_hz": 8000}
    row = ExportRow(facts, exact_flac(np.zeros(8000, np.float32), 8000, 16))
    part, formatted = Part(0, "train", None), LhotseCuts()
    formatted.write(store, part, [row], FACTS)
    formatted.finish(store, [part], Contents({("train", None): 1}, {("train", None): 1.0}))
    (cut,) = lhotse.CutSet.from_file(f"{tmp_path}/train/cuts.jsonl.gz")
    (supervision,) = cut.supervisions
    (item,) = supervision.alignment["word"]
    assert (item.symbol, item.start, item.end, item.score) == ("hello", 0.25, 0.75, 0.5)
    assert supervision.custom == {"licence": "CC0-1.0"}
