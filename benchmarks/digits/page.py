"""One HTML page of the digits experiment: figures, curves by stage and kind of token, and strings to listen to.

    .venv/bin/python -m benchmarks.digits.page --out benchmarks/results/digits

Reads what ``benchmarks.digits`` wrote (``results.json``, ``run/metrics.jsonl``, ``audio/test``) and writes ``digits.html`` beside
it. Sounds and pictures are inside the page, which needs nothing else; its style is the report's.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from manifests.contracts import Audio
from manifests.figures import curve
from manifests.pages import environment
from manifests.plots import curve_svg
from tokenization.mel import HOP_SAMPLES, log_mel

PAGE = "digits.html"
TEMPLATE = Path(__file__).with_name("page.html.j2")
ROWS = {"real": "real audio", "codec": "real audio through the codec", "spoken": "said by the model"}
NUM_HEARD = 6  # texts that can be listened to
PICTURE_MELS = 80
FLOOR_NEPER = 8.0  # below the loudest bin, where pictures turn black


def write_page(out: Path) -> Path:
    """Raises FileNotFoundError where the experiment has not written its results yet."""
    from markupsafe import Markup

    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    stages = [(stage, [(kind, Markup(svg)) for kind, svg in plots]) for stage, plots in loss_plots(rows)]
    page = (
        environment()
        .from_string(TEMPLATE.read_text(encoding="utf-8"))
        .render(r=results, rows=ROWS, stages=stages, strings=heard_strings(out / "audio" / "test"), mels=PICTURE_MELS)
    )
    path = out / PAGE
    path.write_text(page, encoding="utf-8")
    return path


def loss_plots(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Stage -> (kind of token, drawing of its loss by step); "all" is the stage's weighted loss."""
    stages: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        for name, value in row.items():
            if (name == "loss" or name.startswith("loss_")) and isinstance(value, float) and math.isfinite(value):
                kind = name.removeprefix("loss_") if name != "loss" else "all"
                stages.setdefault(row["stage"], {}).setdefault(kind, []).append((row["step"], value))
    return [
        (stage, [(kind, curve_svg(curve(points), f"{stage}, {kind}")) for kind, points in kinds.items()])
        for stage, kinds in stages.items()
    ]


def heard_strings(folder: Path) -> list[dict[str, Any]]:
    """Text, and for each way of ROWS the sound and its picture as data addresses; the longest of the first strings."""
    named = {name: sorted((folder / name).glob("*.wav")) for name in ROWS}
    texts = [path.stem.split("_", 1)[1].replace("_", " ") for path in named["real"]]
    longest = sorted(range(len(texts)), key=lambda place: (-len(texts[place].split()), place))
    strings = []
    for place in longest[:NUM_HEARD]:
        ways = []
        for name, title in ROWS.items():
            audio, rate = soundfile.read(named[name][place], dtype="float32")
            ways.append({"title": title, "sound": _flac(audio, rate), "picture": picture(audio), "length_s": len(audio) / rate})
        strings.append({"text": texts[place], "ways": ways})
    return strings


def picture(audio: Audio) -> str:
    """The log mel of 16 kHz audio as a PNG: time to the right, 100 columns a second, low bands at the bottom; of none, a blank one."""
    from matplotlib.image import imsave

    num_columns = max(1, -(-len(audio) // HOP_SAMPLES))
    mel = log_mel(np.pad(audio, (0, num_columns * HOP_SAMPLES - len(audio))), PICTURE_MELS).T
    file = io.BytesIO()
    imsave(file, mel, format="png", cmap="magma", origin="lower", vmin=mel.max() - FLOOR_NEPER, vmax=mel.max())
    return _address("image/png", file.getvalue())


def _flac(audio: Audio, rate: int) -> str:
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format="FLAC", subtype="PCM_16")
    return _address("audio/flac", file.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that benchmarks.digits wrote")
    print(write_page(parser.parse_args().out))


if __name__ == "__main__":
    main()
