from __future__ import annotations

import pytest
from pydantic import ValidationError

from annotators.custom import CustomAnnotatorConfig, CustomSegmenterConfig
from annotators.signal import Signal, SignalConfig
from manifests.errors import RequestError


def test_builds_the_class_with_its_parameters() -> None:
    part = CustomAnnotatorConfig(target="annotators.signal:Signal", parameters={"config": SignalConfig(clip_level=0.9)}).build()
    assert isinstance(part, Signal)
    assert part.config.clip_level == 0.9


@pytest.mark.parametrize(
    ("target", "parameters", "message"),
    [
        ("nosuch.module:Part", {}, "cannot be imported.*install its package"),
        ("annotators.signal:Nosuch", {}, "cannot be imported"),
        ("annotators.signal:Signal", {"volume": 11}, r"does not take parameters \['volume'\]"),
        ("annotators.silero:Silero", {"config": None}, "is no Annotator"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(target: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        CustomAnnotatorConfig(target=target, parameters=parameters).build()


def test_an_annotator_is_no_segmenter() -> None:
    with pytest.raises(RequestError, match="is no Segmenter"):
        CustomSegmenterConfig(target="annotators.signal:Signal", parameters={"config": SignalConfig()}).build()


def test_a_target_has_a_module_and_a_class() -> None:
    with pytest.raises(ValidationError):
        CustomAnnotatorConfig(target="annotators.signal")
