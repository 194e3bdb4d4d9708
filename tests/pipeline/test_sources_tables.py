"""Parquet and saved datasets: rows that name files and rows that hold audio, by row group, with their columns as facts."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from manifests.errors import AudioRefused, RequestError
from pipeline import opening
from pipeline.hub import PREFIX
from pipeline.opening import open_input
from pipeline.sources import ColumnMap, list_inputs

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read(item) -> bytes:
    with open_input(item) as file:
        return file.read()


def table(data: list[bytes | None], **columns) -> pa.Table:
    audio = pa.array([{"bytes": value, "path": f"{i}.flac"} for i, value in enumerate(data)], AUDIO)
    return pa.table({"audio": audio, **columns})


@pytest.fixture
def embedded(tmp_path):
    """(path, bytes of the rows): 20 rows in row groups of 6, of lengths that differ."""
    data = [bytes([i]) * (i * 37) for i in range(20)]
    rows = table(data, transcript=[f"t{i}" for i in range(20)], language=["en"] * 20, score=[0.5] * 20)
    pq.write_table(rows, tmp_path / "t.parquet", row_group_size=6)
    return tmp_path / "t.parquet", data


def test_embedded_audio_is_read_in_any_order(embedded):
    path, data = embedded
    found = list_inputs([str(path)], ColumnMap(text="transcript"))
    assert [item.member for item in found] == [f"audio/{i}" for i in range(20)]
    assert found[7].facts == {"text": "t7", "language": "en", "facts_from": f"{path} (language=language, text=transcript)"}
    assert found[7].uri == f"{path}#audio/7"
    assert [read(item) for item in found] == data
    for i in np.random.default_rng(0).permutation(20):
        assert read(found[i]) == data[i]


def test_a_table_is_opened_once_for_its_rows_and_inputs_travel(embedded, monkeypatch):
    path, data = embedded
    found = pickle.loads(pickle.dumps(list_inputs([str(path)])))
    opened = []

    class Counted(pq.ParquetFile):
        def __init__(self, *args, **kwargs):
            opened.append(args)
            super().__init__(*args, **kwargs)

    opening._rows.cache_clear()
    monkeypatch.setattr(pq, "ParquetFile", Counted)
    assert [read(item) for item in found] == data
    assert len(opened) == 1


def test_sizes_are_the_means_of_the_row_groups(tmp_path):
    rng = np.random.default_rng(0)
    lengths = [10_000, 30_000, 50_000, 70_000, 200_000]
    pq.write_table(table([rng.bytes(n) for n in lengths]), tmp_path / "t.parquet", row_group_size=2)
    sizes = [item.num_bytes for item in list_inputs([str(tmp_path / "t.parquet")])]
    assert sizes == pytest.approx([20_000, 20_000, 60_000, 60_000, 200_000], rel=0.01)


def test_columns_that_nothing_takes_are_told_once(embedded, capsys):
    list_inputs([str(embedded[0])])
    assert "columns not taken: score, transcript" in capsys.readouterr().err


def test_a_known_table_gives_nothing_and_a_new_one_its_rows(embedded):
    path, data = embedded
    planned = list_inputs([str(path)])
    assert list_inputs([str(path)], planned=planned) == []
    pq.write_table(table(data[:3]), path.with_name("u.parquet"))
    assert len(list_inputs([f"{path.parent}/*.parquet"], planned=planned)) == 3


def test_a_table_that_changed_since_it_was_listed_is_gone(embedded):
    path, data = embedded
    item = list_inputs([str(path)])[0]
    pq.write_table(table(data[:3]), path)
    with pytest.raises(FileNotFoundError, match="changed since it was listed"), open_input(item):
        pass


def test_a_row_without_bytes_is_gone(tmp_path):
    pq.write_table(table([b"a", None]), tmp_path / "t.parquet")
    first, second = list_inputs([str(tmp_path / "t.parquet")])
    assert read(first) == b"a"
    with pytest.raises(FileNotFoundError, match="row 1 holds no bytes"), open_input(second):
        pass


def test_rows_that_name_files_are_those_files(tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(name.encode())
    rows = pa.table({"clip": ["b.wav", "a.wav"], "sentence": ["zwei", "eins"], "age": [3, None]})
    pq.write_table(rows, tmp_path / "m.parquet")
    first, second = list_inputs([str(tmp_path / "m.parquet")], ColumnMap(uri="clip", text="sentence"))
    assert (first.uri, first.facts["text"], second.facts["text"]) == (f"{tmp_path}/a.wav", "eins", "zwei")
    assert read(first) == b"a.wav"
    assert first.input_id == list_inputs([str(tmp_path / "a.wav")])[0].input_id


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (ColumnMap(text="words"), r"has no column 'words' \(text=words\); it has audio, transcript"),
        (ColumnMap(uri="clip"), r"has no column 'clip'"),
        (ColumnMap(uri="count"), r"column 'count' is int64; audio is addresses, or embedded"),
    ],
)
def test_a_column_that_cannot_be_what_it_is_mapped_to_is_named(tmp_path, columns, complaint):
    count = {} if columns.uri != "count" else {"count": [1]}
    pq.write_table(table([b"a"], transcript=["x"], **count), tmp_path / "t.parquet")
    with pytest.raises(RequestError, match=complaint):
        list_inputs([str(tmp_path / "t.parquet")], columns)


def test_what_holds_no_audio_or_is_no_table_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(RequestError, match=r"no column of audio; it has text: --column uri=COLUMN"):
        list_inputs([str(tmp_path / "t.parquet")])
    (tmp_path / "t.parquet").write_bytes(b"not parquet")
    with pytest.raises(RequestError, match="is not Parquet"):
        list_inputs([str(tmp_path / "t.parquet")])


def test_a_broken_row_group_costs_its_own_rows_alone(embedded):
    path, data = embedded
    begins = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[begins : begins + 30] = b"\xff" * 30  # the header of its page
    path.write_bytes(content)
    for row, item in enumerate(list_inputs([str(path)])):
        if 6 <= row < 12:
            with pytest.raises(AudioRefused, match="row group 1 of its table is broken") as refused, open_input(item):
                pass
            assert refused.value.reason == "broken_container"
        else:
            assert read(item) == data[row]


@pytest.fixture(scope="module")
def dataset():
    """A ``datasets.Dataset`` with an Audio column of 12 rows, whose bytes are no audio: nothing may decode them."""
    from datasets import Audio, Dataset, DatasetInfo, Features, Value
    from datasets.table import InMemoryTable

    features = Features({"audio": Audio(), "sentence": Value("string")})
    rows = table([bytes([i]) * i for i in range(12)], sentence=[f"s{i}" for i in range(12)])
    return Dataset(InMemoryTable(rows), info=DatasetInfo(features=features))


def test_a_saved_dataset_gives_its_rows_undecoded(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "saved")
    found = list_inputs([str(tmp_path / "saved")], ColumnMap(text="sentence"))
    assert [(item.num_bytes, item.facts["text"]) for item in found] == [(i, f"s{i}") for i in range(12)]
    assert [read(item) for item in found] == [bytes([i]) * i for i in range(12)]
    assert read(found[3]) == b"\3\3\3"
    assert list_inputs([str(tmp_path / "saved")], planned=found) == []


def test_a_row_of_a_dataset_without_audio_is_gone(tmp_path):
    from datasets import Dataset

    rows = pa.array([{"bytes": b"a", "path": None}, None], AUDIO)
    Dataset(pa.table({"audio": rows})).save_to_disk(tmp_path / "saved")
    first, second = list_inputs([str(tmp_path / "saved")])
    assert read(first) == b"a"
    with pytest.raises(FileNotFoundError, match="row 1 holds no bytes"), open_input(second):
        pass


def test_saved_splits_and_selections_are_taken_and_a_dataset_without_audio_is_refused(dataset, tmp_path):
    from datasets import Dataset, DatasetDict

    DatasetDict(train=dataset.select([5, 2]), test=dataset.select([1])).save_to_disk(tmp_path / "d")
    found = list_inputs([str(tmp_path / "d")])
    assert [(item.source.rsplit("/", 1)[1], read(item)) for item in found] == [
        ("test", b"\1"), ("train", b"\5" * 5), ("train", b"\2" * 2),
    ]  # fmt: skip
    Dataset.from_dict({"sentence": ["x"]}).save_to_disk(tmp_path / "text")
    with pytest.raises(RequestError, match="has no column of audio; it has sentence"):
        list_inputs([str(tmp_path / "text")])


def test_a_dataset_by_name_is_its_files(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repo"
    (folder / "data").mkdir(parents=True)
    dataset.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    dataset.select([1]).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    assert len(list_inputs([f"{PREFIX}{folder}"])) == 13
    found = list_inputs([f"{PREFIX}{folder}?split=train"], ColumnMap(text="sentence"))
    assert [(read(item), item.facts["text"]) for item in found] == [(bytes([i]) * i, f"s{i}") for i in range(12)]
    for option, complaint in (("split=dev", "no split 'dev'; it has"), ("name=x", "option 'name' is unknown")):
        with pytest.raises(RequestError, match=complaint):
            list_inputs([f"{PREFIX}{folder}?{option}"])


def test_an_audio_folder_is_its_files_with_their_metadata(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repo" / "train"
    folder.mkdir(parents=True)
    soundfile.write(folder / "a.wav", np.zeros(16), 16_000)
    (folder / "metadata.jsonl").write_text('{"file_name": "a.wav", "text": "hello"}\n')
    (item,) = list_inputs([f"{PREFIX}{tmp_path}/repo"])
    assert (item.uri, item.facts["text"]) == (f"{folder}/a.wav", "hello")


def test_an_unknown_dataset_is_a_wrong_request(monkeypatch):
    with pytest.raises(RequestError, match="dataset 'hf:no-such/thing' cannot be opened"):
        list_inputs(["hf:no-such/thing"])
