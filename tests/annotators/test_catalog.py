from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from annotators.catalog import AnnotatorConfig, SegmenterConfig
from annotators.dnsmos import DnsmosConfig
from annotators.silero import SileroConfig


def test_kind_chooses_the_variant() -> None:
    assert TypeAdapter(SegmenterConfig).validate_python({"kind": "silero", "onset": 0.6}) == SileroConfig(onset=0.6)
    assert TypeAdapter(AnnotatorConfig).validate_python({"kind": "dnsmos"}) == DnsmosConfig()


@pytest.mark.parametrize("recipe", [{"kind": "nosuch"}, {"kind": "silero", "onsett": 0.6}, {"onset": 0.6}])
def test_unknown_kinds_and_keys_are_refused(recipe: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SegmenterConfig).validate_python(recipe)


def test_importing_the_catalog_loads_no_model_library() -> None:
    code = (
        "import sys, annotators.catalog\n"
        "heavy = {'torch', 'ray', 'onnxruntime', 'transformers', 'scipy', 'pyannote.audio', 'whisperx', 'pocketsphinx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
