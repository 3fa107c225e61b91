"""Test sounds, and how alike two recordings are."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np


def speech_like(rate: int, seconds: float, *, seed: int = 7, level: float = 0.3) -> bytes:
    """Words of band-limited noise with pauses: nothing in it repeats, so that it lines up in one way only."""
    random = np.random.default_rng(seed)
    count = int(rate * seconds)
    spectrum = np.fft.rfft(random.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / rate)
    spectrum[(frequency < 200) | (frequency > 1_500)] = 0
    sound = np.fft.irfft(spectrum, count)
    words = np.repeat(random.uniform(0.1, 1.0, int(seconds * 6) + 1), rate // 6 + 1)[:count]
    sound *= words
    return (sound / np.abs(sound).max() * level * 32_767).astype("<i2").tobytes()


def voice(rate: int, seconds: float, *, level: float = 0.3) -> bytes:
    """Vowels of a gliding pitch in words of different length: what noise suppression takes for a voice."""
    random = np.random.default_rng(3)
    at = np.arange(int(rate * seconds)) / rate
    pitch = 140 + 50 * np.sin(2 * np.pi * 0.7 * at) + 20 * np.sin(2 * np.pi * 2.3 * at)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(np.sin(number * phase) / number**0.7 for number in range(1, 20))
    edges = np.cumsum(random.uniform(0.12, 0.4, int(seconds * 8) + 2))
    said = np.searchsorted(edges, at) % 3 != 2
    smooth = np.hanning(rate // 50)
    sound *= np.convolve(said.astype(float), smooth / smooth.sum(), "same")
    return (sound / np.abs(sound).max() * level * 32_767).astype("<i2").tobytes()


def likeness(sent: bytes, heard: bytes) -> float:
    """The normalised cross-correlation of what was sent with the best fitting part of what was heard."""
    a = np.frombuffer(sent, "<i2").astype(np.float64)
    b = np.frombuffer(heard[: len(heard) // 2 * 2], "<i2").astype(np.float64)
    if len(b) < len(a):
        b = np.concatenate([b, np.zeros(len(a) - len(b))])
    size = len(a) + len(b)
    product = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)[: len(b) - len(a) + 1]
    energy = np.concatenate([[0.0], np.cumsum(b * b)])
    windows = energy[len(a) :] - energy[: len(b) - len(a) + 1]
    scale = np.sqrt(np.maximum(windows, 1e-9) * float(a @ a))
    return float(np.max(product / np.maximum(scale, 1e-9)))


def tone(rate: int, seconds: float, frequency: float = 440.0, level: float = 0.3) -> bytes:
    at = np.arange(int(rate * seconds)) / rate
    return (np.sin(2 * np.pi * frequency * at) * level * 32_767).astype("<i2").tobytes()


def loudness(pcm: bytes) -> float:
    """RMS in dBFS."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    return float(10 * np.log10(max(np.mean(samples**2), 1e-3) / 32_768**2)) if len(samples) else -120.0


def write_wav(path: Path, pcm: bytes, rate: int) -> None:
    """Mono s16le as a file."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(pcm)
