"""Signal-to-noise ratio of a waveform without a reference: WADA-SNR.

Kim and Stern, "Robust signal-to-noise ratio estimation based on waveform amplitude distribution analysis",
Interspeech 2008: speech amplitudes follow a gamma distribution of shape 0.4, noise a Gaussian one, so that
G = ln E|z| - E ln|z| grows with the SNR. It assumes steady noise; music, reverberation and clipping mislead it.
"""

from __future__ import annotations

import numpy as np

LOWEST_DB, STEP_DB = -20.0, 5.0
# G at -20, -15, ..., 100 dB: means over 12 million draws of the paper's model (gamma, shape 0.4, random sign, plus Gaussian).
G_TABLE = (
    *(0.4093, 0.4096, 0.4119, 0.4237, 0.4617, 0.5436, 0.6675, 0.8123, 0.9559, 1.0849, 1.1942, 1.2843, 1.3572),
    *(1.4158, 1.4628, 1.5001, 1.5299, 1.5535, 1.5722, 1.5872, 1.5991, 1.6085, 1.6159, 1.6218, 1.6265),
)
SMALLEST = 1e-10  # stands for digital zeros, as in the authors' program


def wada_snr_db(x_S: np.ndarray) -> float | None:
    """SNR in dB, -20 to 100, of float samples ``[S]``; None for a constant signal."""
    magnitude_S = np.abs(x_S - x_S.mean())
    if float(magnitude_S.max()) < 1e-7:
        return None
    g = float(np.log(magnitude_S.mean()) - np.log(np.maximum(magnitude_S, SMALLEST)).mean())
    return float(np.interp(g, G_TABLE, LOWEST_DB + STEP_DB * np.arange(len(G_TABLE))))
