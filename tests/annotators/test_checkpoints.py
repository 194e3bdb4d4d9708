"""Checkpoints that are missing, damaged, of the wrong kind, or behind a licence: one line each, with the remedy."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from annotators.checkpoints import Checkpoint, check_device, check_type, find_checkpoint, loading
from manifests.errors import ModelUnavailable

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TENSORS = safetensors.numpy.save({"a": np.ones((2, 3), np.float32)})
CARD = "---\nlicense: apache-2.0\n---\n# A model\n"


def folder(path: Path, files: dict[str, bytes | str | dict[str, Any]]) -> str:
    """A folder with these files; a dict becomes JSON."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps(content) if isinstance(content, dict) else content
        (path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def whole(path: Path, **more: Any) -> str:
    return folder(path, {"config.json": {"model_type": "vits"}, "model.safetensors": TENSORS, "README.md": CARD, **more})


def cached(hub: Path, name: str, files: dict[str, bytes]) -> Path:
    """The snapshot of a hub id as the hub's client lays it out: blobs named by digest, links to them, a ref."""
    repo = hub / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    for part in (repo / "blobs", repo / "refs", snapshot):
        part.mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    for file, data in files.items():
        blob = repo / "blobs" / hashlib.sha256(data).hexdigest()
        blob.write_bytes(data)
        (snapshot / file).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache that this process uses; the network is off (conftest)."""
    import huggingface_hub.constants

    path = tmp_path / "hub"
    path.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(path))
    return path


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_is_found_with_its_facts(tmp_path: Path) -> None:
    found = find_checkpoint(whole(tmp_path / "m"))
    assert (found.revision, found.licence, found.config) == (None, "apache-2.0", {"model_type": "vits"})
    assert found.has_safetensors
    assert found.fact().digest == found.digest


def test_the_digest_is_of_names_and_contents_wherever_they_lie(tmp_path: Path) -> None:
    digest = find_checkpoint(whole(tmp_path / "a")).digest
    same = whole(tmp_path / "b" / "c", **{".git/HEAD": "ref", ".cache/huggingface/x.lock": "", "tokenizer/.hidden": "x"})
    assert find_checkpoint(same).digest == digest
    assert find_checkpoint(whole(tmp_path / "d", **{"more.json": {}})).digest != digest
    assert find_checkpoint(whole(tmp_path / "e", **{"README.md": CARD + "."})).digest != digest


def test_a_path_that_is_not_there_a_file_and_no_name(tmp_path: Path) -> None:
    for path in ("./missing", "~/missing", str(tmp_path / "missing"), "models/of/mine"):
        message = refusal(lambda path=path: find_checkpoint(path))
        assert repr(path) in message
        assert "mend the path" in message
    assert "is a file; give the folder" in refusal(lambda: find_checkpoint(whole(tmp_path / "m") + "/config.json"))
    assert "neither a folder nor a hub id" in refusal(lambda: find_checkpoint("what is--this"))


def test_a_hub_id_that_is_not_cached(hub: Path) -> None:
    message = refusal(lambda: find_checkpoint("org/model", "v1"))
    assert "not on this machine at revision 'v1'" in message
    assert "huggingface-cli download org/model" in message
    assert "may_download" in message


def test_a_cached_hub_id_is_found_without_the_network_and_without_reading_its_weights(hub: Path) -> None:
    snapshot = cached(hub, "org/model", {"model.safetensors": TENSORS, "README.md": CARD.encode()})
    found = find_checkpoint("org/model", may_download=True)
    assert (found.name, found.path, found.revision, found.licence) == ("org/model", str(snapshot), COMMIT, "apache-2.0")
    # Same length and header, other content: only who reads it would notice.
    blob = (snapshot / "model.safetensors").resolve()
    blob.write_bytes(TENSORS[:-1] + b"\1")
    assert find_checkpoint("org/model").digest == found.digest


def test_the_digest_of_a_cached_model_follows_its_blobs(hub: Path, tmp_path: Path) -> None:
    one = find_checkpoint(str(cached(tmp_path / "one", "a/b", {"model.safetensors": TENSORS})))
    same = find_checkpoint(str(cached(tmp_path / "two", "c/d", {"model.safetensors": TENSORS})))
    other = safetensors.numpy.save({"a": np.zeros((2, 3), np.float32)})
    assert one.digest == same.digest
    assert find_checkpoint(str(cached(tmp_path / "three", "e/f", {"model.safetensors": other}))).digest != one.digest


def test_a_cache_of_copies_instead_of_links_is_read(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / COMMIT
    found = find_checkpoint(folder(snapshot, {"model.safetensors": TENSORS}))
    assert found.revision == COMMIT
    changed = folder(tmp_path / "models--c--d" / "snapshots" / COMMIT, {"model.safetensors": TENSORS[:-1] + b"\1"})
    assert find_checkpoint(changed).digest != found.digest


def test_damage_in_the_cache_is_found_behind_its_links(hub: Path) -> None:
    snapshot = cached(hub, "org/model", {"model.safetensors": TENSORS[:-1]})
    assert "model.safetensors is damaged" in refusal(lambda: find_checkpoint("org/model"))
    (snapshot / "model.safetensors").resolve().unlink()
    assert "model.safetensors is a link to nothing" in refusal(lambda: find_checkpoint("org/model"))


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    message = refusal(lambda: find_checkpoint(whole(tmp_path / "m", **{"config.json": '{"model_type": '})))
    assert "config.json is no JSON" in message
    assert "fetch it again" in message


def test_damaged_weights(tmp_path: Path) -> None:
    cut = whole(tmp_path / "cut", **{"model.safetensors": TENSORS[:-5]})
    assert f"model.safetensors is damaged (it has {len(TENSORS) - 5} bytes" in refusal(lambda: find_checkpoint(cut))
    pickle = folder(tmp_path / "pickle", {"pytorch_model.bin": b"PK\3\4 and nothing more"})
    assert "pytorch_model.bin is damaged (the archive is cut short); fetch it again" in refusal(lambda: find_checkpoint(pickle))


def test_a_pickle_beside_safetensors_plays_no_part(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}
    path = whole(tmp_path / "m", **{"pytorch_model.bin": b"", "pytorch_model.bin.index.json": index})
    assert find_checkpoint(path).has_safetensors


@pytest.mark.parametrize("end", ["safetensors", "bin"])
def test_a_shard_that_its_index_names_and_nobody_has(tmp_path: Path, end: str) -> None:
    shards = [f"model-0000{i}-of-00002.{end}" for i in (1, 2)]
    files = {f"model.{end}.index.json": {"weight_map": dict(zip("ab", shards, strict=True))}, shards[0]: TENSORS}
    path = folder(tmp_path / "m", files)
    assert f"lacks {shards[1]}, which model.{end}.index.json names" in refusal(lambda: find_checkpoint(path))
    assert find_checkpoint(folder(tmp_path / "m", {shards[1]: TENSORS})).has_safetensors is (end == "safetensors")


def test_a_config_without_weights(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", {"config.json": {"model_type": "vits"}})
    assert "has no safetensors and no torch weights" in refusal(lambda: find_checkpoint(path))


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (CARD, "apache-2.0"),
        ("---\nlicense:\n- mit\n- cc-by-4.0\n---\n", "mit, cc-by-4.0"),
        ("---\nlicense: other\nlicense_name: openrail-x\n---\n", "openrail-x"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlanguage: en\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\njust words\n---\n", None),
        ("# No front matter\n", None),
        ("A table\n---\nlicense: mit\n---\n", None),
    ],
)
def test_the_licence_is_what_the_model_card_says(tmp_path: Path, card: str, licence: str | None) -> None:
    assert find_checkpoint(whole(tmp_path / "m", **{"README.md": card})).licence == licence


def test_no_card_no_licence(tmp_path: Path) -> None:
    assert find_checkpoint(folder(tmp_path / "m", {"model.safetensors": TENSORS})).licence is None


def of_config(config: dict[str, Any]) -> Checkpoint:
    return Checkpoint("m", "/nowhere", None, "", None, config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "no config.json with a model_type; give the folder or id of a transformers speech model"),
        ({"model_type": "bert"}, "of type 'bert', which is no speech model; give a checkpoint of one"),
        ({"model_type": "own", "auto_map": {"AutoModel": "modeling.Own"}}, "needs code from the hub (auto_map"),
        ({"model_type": "own", "transformers_version": "99.0.0"}, "install transformers >= 99.0.0"),
        ({"model_type": "own", "transformers_version": "4.0.0"}, "give a speech model"),
        ({"model_type": "own", "transformers_version": "of my own"}, "give a speech model"),
        ({"model_type": "own"}, "which this transformers does not know; give a speech model"),
    ],
)
def test_another_type_of_model(config: dict[str, Any], said: str) -> None:
    assert said in refusal(lambda: check_type(of_config(config), {"whisper"}, "speech model"))


def test_a_known_type_passes_with_code_of_its_own_beside_it() -> None:
    """The class of transformers is loaded then; the code is not asked for."""
    check_type(of_config({"model_type": "whisper", "auto_map": {"AutoModel": "modeling.Own"}}), {"whisper"}, "speech model")


def test_what_libraries_raise_while_loading_is_one_line(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    pickle = folder(tmp_path / "evil", {"pytorch_model.bin": b"cos\nsystem\n(S'exit 3'\ntR."})
    headless = whole(tmp_path / "headless", **{"config.json": {"model_type": "vits", "hidden_size": "wide"}})

    def load(call: Callable[[], Any]) -> str:
        def run() -> None:
            with loading(of_config({}), "a voice"):
                call()

        return refusal(run)

    assert "does not load as a voice" in load(lambda: torch.load(f"{pickle}/pytorch_model.bin", weights_only=True))
    assert "does not load as a voice" in load(lambda: AutoModel.from_pretrained(headless, local_files_only=True))
    assert "does not load as a voice" in load(lambda: safetensors.numpy.load(b"\0"))
    assert "needs a package that is not here: No module named 'no_such_package'" in load(lambda: __import__("no_such_package"))

    def refused() -> None:
        raise ModelUnavailable("said already")

    assert load(refused) == "said already"


def test_a_gpu_that_is_not_there() -> None:
    import torch

    check_device("cpu")
    if torch.cuda.is_available():
        check_device("cuda")
    else:
        assert "device 'cuda:1' is asked for and this machine has no CUDA GPU; say `device: cpu`" in refusal(
            lambda: check_device("cuda:1")
        )


# A hub on loopback: what the real client raises, and what it fetches. The client reads its address when it is imported, so it
# runs in a process of its own.

FILES = {
    "config.json": b'{"model_type": "vits"}',
    "model.safetensors": TENSORS,
    "pytorch_model.bin": b"a pickle",
    "modeling.py": b"code",
    "README.md": CARD.encode(),
}


def hub_application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The part of the hub's interface that downloads use: ``org/open`` is there, ``org/gated`` wants its licence accepted."""
    path = environ["PATH_INFO"]
    headers = [("X-Repo-Commit", COMMIT)]

    def answer(status: str, body: bytes, **more: str) -> Iterable[bytes]:
        named = [(name.replace("_", "-"), value) for name, value in more.items()]
        start_response(status, [*headers, *named, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    if "org/gated" in path:
        return answer("403 Forbidden", b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access to model org/gated is restricted")
    if "org/open" not in path:
        return answer("401 Unauthorized", b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository Not Found")
    if "/tree/" in path:
        tree = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in FILES.items()]
        return answer("200 OK", json.dumps(tree).encode(), Content_Type="application/json")
    if path.startswith("/api/"):
        facts = {"id": "org/open", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
        return answer("200 OK", json.dumps(facts).encode(), Content_Type="application/json")
    data = FILES[path.rsplit("/", 1)[1]]
    return answer("200 OK", data, ETag=f'"{hashlib.sha256(data).hexdigest()}"')


def ask(address: str, cache: Path, name: str) -> str:
    """What ``find_checkpoint(name, may_download=True)`` says in a process whose hub is at the address."""
    code = (
        "import sys\nfrom annotators.checkpoints import find_checkpoint\nfrom manifests.errors import ModelUnavailable\n"
        "try:\n    found = find_checkpoint(sys.argv[1], may_download=True)\n    print(found.path, found.revision, found.digest)\n"
        "except ModelUnavailable as error:\n    print(error)\n"
    )
    environment = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )
    return done.stdout.strip()


def test_a_hub_that_wants_a_licence_accepted_knows_no_such_model_or_is_not_there(serve: Any, tmp_path: Path) -> None:
    address = serve(hub_application)
    assert "wants its licence accepted; accept it on the model's page" in ask(address, tmp_path, "org/gated")
    assert "is not on the hub, or is private" in ask(address, tmp_path, "org/none")
    gone = ask("http://127.0.0.1:9", tmp_path, "org/open")
    assert "cannot be fetched" in gone
    assert "mend the network" in gone


def test_a_download_leaves_pickles_and_code_and_stays(serve: Any, tmp_path: Path) -> None:
    path, revision, digest = ask(serve(hub_application), tmp_path, "org/open").split()
    assert revision == COMMIT
    assert sorted(os.listdir(path)) == ["README.md", "config.json", "model.safetensors"]
    assert ask("http://127.0.0.1:9", tmp_path, "org/open").split() == [path, revision, digest]  # now without the network
