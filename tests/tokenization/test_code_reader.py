from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.errors import MismatchError
from manifests.store import Store
from tokenization.letters import Letters

torch = pytest.importorskip("torch")

from tokenization.code_reader import CodeReader  # noqa: E402 (torch may be absent)
from tokenization.fsq import TextHead  # noqa: E402


def test_a_reader_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader = CodeReader(TextHead(num_labels=4, width=16, blocks=1).eval(), Letters("abc"))
    codes = np.random.default_rng(0).integers(0, 6561, 200).astype(np.uint16)
    reader.save(Store(str(tmp_path)))
    again = CodeReader.open(Store(str(tmp_path)))
    assert again is not None
    assert again.read(codes) == reader.read(codes) != ""
    assert reader.read(codes[:0]) == ""
    other = CodeReader(TextHead(num_labels=4, width=8, blocks=1), Letters("abc"))
    other.save(Store(str(tmp_path / "other")))
    (tmp_path / "codec_reader.safetensors").write_bytes((tmp_path / "other" / "codec_reader.safetensors").read_bytes())
    with pytest.raises(MismatchError, match=r"codec_reader\.safetensors does not fit"):
        CodeReader.open(Store(str(tmp_path)))
    assert CodeReader.open(Store(str(tmp_path / "none"))) is None
