"""Peak memory of diarization by the length of the recording: stretches bound it.

    python benchmarks/diarization_memory.py [--hours 0.5 5] [--step 0.1]

The conversation that ships in pyannote.audio, over and over, read slice by slice as from a corpus. Each length has a process of its
own. ``--step`` is the hop of the 5 s windows as a part of their length; with 0.5 a run takes a fifth of the time, and a stretch less memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from annotators.diarization import DiarizationConfig  # noqa: E402  (the path comes first)
from benchmarks.own_process import in_own_process  # noqa: E402
from manifests.contracts import MODEL_RATE_HZ, Audio, ChannelAudio  # noqa: E402
from pipeline.shipped_speech import conversation_path  # noqa: E402


class Looped:
    """A recording that repeats one piece of audio; holds no more than the piece."""

    def __init__(self, audio_S: Audio, num_samples: int) -> None:
        self._audio_S, self._num_samples = audio_S, num_samples

    def __len__(self) -> int:
        return self._num_samples

    def __getitem__(self, wanted: slice) -> Audio:
        start, stop, _ = wanted.indices(self._num_samples)
        return np.take(self._audio_S, np.arange(start, stop), mode="wrap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[0.5, 5.0])
    parser.add_argument("--step", type=float, default=DiarizationConfig().segmentation_step)
    options = parser.parse_args()
    print(f"windows every {5 * options.step:.1f} s\n\n| hours | peak MiB | CPU s | speakers |\n|---|---|---|---|")
    for hours in options.hours:
        peak_mib, cpu_s, speakers = in_own_process(diarize, hours, options.step)[0]
        print(f"| {hours:g} | {peak_mib:.0f} | {cpu_s:.0f} | {speakers} |", flush=True)


def diarize(hours: float, step: float) -> tuple[float, float, int]:
    """(peak resident MiB of the process, CPU seconds of the segmenter, speakers)."""
    audio, _ = soundfile.read(conversation_path(), dtype="float32")
    part = DiarizationConfig(segmentation_step=step).build()
    part.setup()
    began = time.process_time()
    heard = part.segment(ChannelAudio(b"", 0, Looped(audio, int(hours * 3600 * MODEL_RATE_HZ))))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return peak_mib, time.process_time() - began, len({found.speaker_label for found in heard})


if __name__ == "__main__":
    main()
