"""Audio whose truth is known because it was made: voices, rooms, noise, steady sounds, misread bytes.

Shape legend: S samples at 16 kHz.
"""

from __future__ import annotations

import numpy as np

from manifests.contracts import MODEL_RATE_HZ, Audio

MISREADINGS = ("swapped bytes", "shifted by a byte", "unsigned", "16 bit as 8 bit", "float as 16 bit", "24 bit as 16 bit")
STEADY_SOUNDS = ("white noise", "pink noise", "brown noise", "hum", "tones")


def voice(random: np.random.Generator, seconds: float = 2.0) -> tuple[Audio, np.ndarray, np.ndarray]:
    """(audio, fundamental frequency in Hz, where it is voiced): a gliding harmonic voice with vibrato, formants and pauses."""
    time = np.arange(int(seconds * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    begin_hz = 80.0 * 2 ** random.uniform(0, 2.3)
    end_hz = np.clip(begin_hz * 2 ** random.uniform(-0.6, 0.6), 70.0, 450.0)
    vibrato = 1 + 0.03 * np.sin(2 * np.pi * random.uniform(3, 6) * time)
    hz_S = begin_hz * (end_hz / begin_hz) ** (time / seconds) * vibrato
    phase_S = 2 * np.pi * np.cumsum(hz_S) / MODEL_RATE_HZ
    formants = ((random.uniform(300, 800), 80), (random.uniform(900, 2200), 110), (random.uniform(2300, 3000), 160))
    audio_S = np.zeros(len(time))
    for partial in range(1, 60):
        gain_S = sum(1 / np.sqrt(1 + ((partial * hz_S - centre) / width) ** 2) for centre, width in formants)
        audio_S += np.where(partial * hz_S < 7500, gain_S / partial * np.cos(partial * phase_S), 0.0)
    level_S = np.clip(2 * np.sin(2 * np.pi * 1.5 * time) + 1.2, 0.0, 1.0)
    audio_S *= level_S
    return (0.5 * audio_S / np.abs(audio_S).max()).astype(np.float32), hz_S, level_S > 0.1


def with_noise(audio_S: Audio, snr_db: float, random: np.random.Generator) -> Audio:
    """The audio and white noise at this SNR, over the whole of both."""
    noise_S = random.normal(size=len(audio_S)) * np.sqrt(np.mean(audio_S.astype(float) ** 2)) * 10 ** (-snr_db / 20)
    return (audio_S + noise_S).astype(np.float32)


def room(rt60_s: float, direct_db: float, random: np.random.Generator) -> np.ndarray:
    """Impulse response: the direct sound, and after 4 ms noise that decays by 60 dB in ``rt60_s``, ``direct_db`` below it in energy."""
    time = np.arange(int(1.2 * rt60_s * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    tail_S = random.normal(size=len(time)) * np.exp(-np.log(1000.0) * time / rt60_s)
    tail_S[: int(0.004 * MODEL_RATE_HZ)] = 0.0
    tail_S *= 10 ** (-direct_db / 20) / np.sqrt((tail_S**2).sum())
    tail_S[0] = 1.0
    return tail_S


def true_c50_db(response_S: np.ndarray) -> float:
    """Energy of the first 50 ms by that of the rest, in dB."""
    early = int(0.05 * MODEL_RATE_HZ)
    return float(10 * np.log10((response_S[:early] ** 2).sum() / (response_S[early:] ** 2).sum()))


def misread(audio_S: Audio, how: str) -> Audio:
    """The audio's bytes read in a wrong sample format."""
    ints = np.clip(np.rint(audio_S * 32767.0), -32768, 32767).astype("<i2")
    if how == "swapped bytes":
        read = ints.byteswap() / 32768
    elif how == "shifted by a byte":
        read = np.frombuffer(ints.tobytes()[1:-1], "<i2") / 32768
    elif how == "unsigned":
        read = ints.view("<u2") / 32768 - 1
    elif how == "16 bit as 8 bit":
        read = np.frombuffer(ints.tobytes(), np.uint8) / 128 - 1
    elif how == "float as 16 bit":
        read = np.frombuffer(audio_S.astype("<f4").tobytes(), "<i2") / 32768
    else:
        deep = np.rint(audio_S.astype(float) * 8388607).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        read = np.frombuffer(deep[: len(deep) // 2 * 2], "<i2") / 32768
    return np.asarray(read, np.float32)


def steady_sound(kind: str, random: np.random.Generator, seconds: float = 5.0) -> Audio:
    """Noise whose power falls by 0, 3 or 6 dB an octave, mains hum over a little noise, or one to three tones; peak 0.5."""
    time = np.arange(int(seconds * MODEL_RATE_HZ)) / MODEL_RATE_HZ
    noise_S = random.normal(size=len(time))
    if kind == "hum":
        mains_hz = random.choice([50.0, 60.0])
        partials = [np.sin(2 * np.pi * mains_hz * k * time) / k for k in range(1, random.integers(3, 8))]
        sound_S = sum(partials) + random.uniform(0.002, 0.05) * noise_S
    elif kind == "tones":
        sound_S = sum(np.sin(2 * np.pi * hz * time) for hz in random.uniform(100, 4000, random.integers(1, 4)))
    else:
        slope = {"white noise": 0.0, "pink noise": 0.5, "brown noise": 1.0}[kind]
        hz_K = np.fft.rfftfreq(len(time), 1 / MODEL_RATE_HZ)
        sound_S = np.fft.irfft(np.fft.rfft(noise_S) / np.maximum(hz_K, 20.0) ** slope, len(time))
    return np.asarray(0.5 * sound_S / np.abs(sound_S).max(), np.float32)
