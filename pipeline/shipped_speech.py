"""Speech that ships inside the dependencies, with its references: what the demo and the tests run on, offline.

- pyannote.audio's 30 s telephone conversation of two speakers, with turns (RTTM) and words (STM);
- s3tokenizer's two AISHELL-1 test utterances, with the transcripts of that corpus (Apache-2.0).
"""

from __future__ import annotations

import json
import os

from annotators.weights import packaged_path

AISHELL_TEXTS = {
    "BAC009S0764W0121.wav": "甚至出现交易几乎停滞的情况",
    "BAC009S0764W0122.wav": "一二线城市虽然也处于调整中",
}


def conversation_path() -> str:
    """The 30 s conversation; ``.rttm`` and ``.stm`` lie beside it. Raises ModelUnavailable without its package."""
    return packaged_path("pyannote", "audio", "sample", "sample.wav")


def utterances_folder() -> str:
    """Where the two AISHELL utterances lie. Raises ModelUnavailable without their package."""
    return packaged_path("s3tokenizer", "assets")


def write_manifest(path: str) -> str:
    """Write a .jsonl manifest of the shipped speech with its facts; return its path."""
    conversation = conversation_path()
    assets = utterances_folder()
    stem = conversation.removesuffix(".wav")
    rows: list[dict[str, str]] = [
        {
            "uri": conversation,
            "source": "pyannote.audio sample",
            "language": "en",
            "licence": "MIT",
            "reference_rttm_uri": f"{stem}.rttm",
            "reference_stm_uri": f"{stem}.stm",
        }
    ]
    for name, text in AISHELL_TEXTS.items():
        uri = os.path.join(assets, name)
        rows.append(
            {"uri": uri, "source": "AISHELL-1", "language": "zh", "licence": "Apache-2.0", "speaker_label": "S0764", "text": text}
        )
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path
