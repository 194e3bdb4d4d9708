from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from manifests.export.work import export
from manifests.packs import Pack
from manifests.store import Store

energon = pytest.importorskip("megatron.energon")


def samples(out: str, split: str) -> list[dict[str, Any]]:
    """Every sample of a split as Energon hands it to a cooker."""
    config = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
    found = energon.get_val_dataset(out, split_part=split, worker_config=config, batch_size=1, task_encoder=Crude())
    return list(energon.get_loader(found))


def cooked(sample: dict[str, Any]) -> dict[str, Any]:
    return dict(sample)


class Crude(energon.DefaultTaskEncoder):
    cookers = [energon.Cooker(cooked, has_subflavors={"kind": "stepwell"})]

    def batch(self, samples: list[Any]) -> Any:
        (sample,) = samples
        return sample


def test_energon_reads_every_sample(source_uri: str, clips: dict[str, np.ndarray], out: str) -> None:
    export(source_uri, "energon", out)
    splits = ["train"] if Store(source_uri).exists("corpus.json") else ["train", "test"]
    found = [sample for split in splits for sample in samples(out, split)]
    by_key = {sample["__key__"].rpartition("/")[2]: sample for sample in found}  # Energon puts the shard before the key
    assert len(found) == len(clips)
    assert by_key.keys() == clips.keys()
    for key, sample in by_key.items():
        audio, rate = soundfile.read(io.BytesIO(sample["0.flac"]), dtype="int16")
        assert rate == 8000
        np.testing.assert_array_equal(audio, clips[key])
        facts = sample["json"]
        assert (facts["turns"][0] if "turns" in facts else facts)["source"] == "test"


def test_the_index_is_what_energon_itself_writes(packed: str, out: str, tmp_path: Path) -> None:
    from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

    export(packed, "energon", out)
    shards = sorted(str(path.relative_to(out)) for path in Path(out).glob("shards/*.tar"))
    assert len(shards) == 2
    ours = {name: Path(out, f"{name}.idx").read_bytes() for name in shards}
    counts = json.loads(Path(out, ".nv-meta/.info.json").read_text())["shard_counts"]
    WebdatasetPreparator.prepare_dataset(
        Path(out),
        shards,
        split_parts_patterns=[("train", ".*")],
        info_config="theirs.yaml",
        split_config="unused.yaml",
        workers=1,
    )
    assert {name: Path(out, f"{name}.idx").read_bytes() for name in shards} == ours
    assert yaml.safe_load(Path(out, ".nv-meta/theirs.yaml").read_text())["shard_counts"] == counts


def test_documents_keep_their_members_byte_for_byte(packed: str, out: str) -> None:
    export(packed, "energon", out)
    pack = Pack.open(packed)
    for split in pack.splits:
        (shard,) = {*pack.documents(split)["shard"].to_pylist()}
        copy = next(Path(out).glob(f"shards/{split}-*.tar"))
        assert copy.read_bytes() == pack.store.read(f"shards/{shard}")


def test_without_audio_none_leaves(packed: str, out: str) -> None:
    export(packed, "energon", out, with_audio=False)
    found = [sample for split in ("train", "test") for sample in samples(out, split)]
    assert len(found) == 6
    assert all("json" in sample and "0.flac" not in sample for sample in found)
