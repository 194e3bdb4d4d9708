"""The material that quality is measured on: the test data's clips and the speech set, as their manifests list them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from manifests.audio import resample
from manifests.contracts import MODEL_RATE_HZ, Audio
from pipeline.decode import open_audio

NO_WIDEBAND = {"telephone_8k", "music", "noise_only", "events", "headerless"}


@dataclass(frozen=True)
class Item:
    """One file with what is known of it (a row of a manifest; see the README beside it)."""

    path: str
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.facts.get("id") or os.path.basename(self.path))

    @property
    def group(self) -> str:
        """Its speakers, as both sets name them, or the file where it has none: what is left out together."""
        speakers = [self.facts["speaker"]] if "speaker" in self.facts else self.facts.get("speakers") or [self.name]
        return " ".join(speakers)

    @property
    def may_be_fitted_on(self) -> bool:
        """Whether its licence lets what is fitted on it ship: not where it forbids commercial use."""
        return "NC" not in self.facts["licence"]

    def channels(self) -> tuple[np.ndarray, int]:
        """Audio float32 ``[S, C]`` at the file's own rate, and the rate."""
        with open(self.path, "rb") as file:
            decoder = open_audio(file)
            blocks = list(decoder.blocks())
        audio_SC = np.concatenate(blocks) if blocks else np.zeros((0, decoder.probe.num_channels), np.float32)
        return audio_SC, decoder.probe.sample_rate_hz

    def audio(self, channel: int = 0) -> Audio:
        """One channel float32 ``[S]`` at 16 kHz."""
        audio_SC, rate = self.channels()
        return resample(np.ascontiguousarray(audio_SC[:, channel]), rate, MODEL_RATE_HZ)


@dataclass(frozen=True)
class Material:
    """The folder ``shared``."""

    folder: str

    def testdata(self, wanted: Callable[[dict[str, Any]], bool] = lambda facts: True) -> list[Item]:
        """Clips of the test data that hold; broken files have a ``defect``."""
        return [item for item in self._rows("testdata") if wanted(item.facts)]

    def wideband(self) -> list[Item]:
        """Speech of the test data at 16 kHz and more that is no telephone call, and that limits may be fitted on."""
        items = self.testdata(lambda facts: "defect" not in facts and not NO_WIDEBAND & set(facts["kinds"]))
        return [item for item in items if item.facts["sample_rate"] >= MODEL_RATE_HZ and item.may_be_fitted_on]

    def speech(self, part: str) -> list[Item]:
        """Items of ``speech/<part>``: digits, read or emotion."""
        return [item for item in self._rows("speech") if item.facts["path"].startswith(f"{part}/")]

    def label_path(self, name: str) -> str:
        """A label file that a manifest row of the test data names."""
        return os.path.join(self.folder, "testdata", name)

    def _rows(self, part: str) -> Iterator[Item]:
        folder = os.path.join(self.folder, part)
        with open(os.path.join(folder, "manifest.jsonl"), encoding="utf-8") as file:
            for line in file:
                facts = json.loads(line)
                yield Item(os.path.join(folder, facts["path"]), facts)
