"""Tones, formats and turns: what a conversation sounds like."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest

from services.simulator import speech
from services.simulator.speech import SpeechEnded, SpeechStarted, TurnDetector


def ulaw_reference(sample: int) -> int:
    """G.711 µ-law, bit by bit."""
    sign = 0x80 if sample < 0 else 0
    size = min(-(sample >> 2) if sample < 0 else sample >> 2, 8158) + 33
    exponent = size.bit_length() - 6
    return ~(sign | exponent << 4 | (size >> (exponent + 1)) & 15) & 0xFF


def test_ulaw_is_that_of_the_standard() -> None:
    samples = np.arange(-32768, 32768, dtype="<i2")
    encoded = speech.ulaw_encode(samples.tobytes())
    assert list(encoded) == [ulaw_reference(sample) for sample in samples.tolist()]
    # Every code but the second zero comes back; the error is at most half of a step.
    again = np.frombuffer(speech.ulaw_decode(encoded), dtype="<i2").astype(int)
    assert speech.ulaw_encode(speech.ulaw_decode(bytes(range(256)))).count(0xFF) == 2
    assert int(np.abs(again - samples.astype(int)).max()) <= 644
    assert speech.ulaw_decode(b"\xff\x80\x00") == np.array([0, 32124, -32124], dtype="<i2").tobytes()


def test_tones_are_one_burst_for_each_word() -> None:
    rate, text = 16_000, "Hello there, hello"
    pcm = speech.tones(text, rate)
    assert len(pcm) == 2 * rate * speech.duration_ms(text) // 1000
    samples = np.frombuffer(pcm, dtype="<i2").astype(float).reshape(3, -1)
    word = rate * speech.WORD_MS // 1000
    for row, name in zip(samples, text.split(), strict=True):
        spectrum = np.abs(np.fft.rfft(row[:word]))
        assert abs(int(spectrum.argmax()) * rate / word - speech.pitch(name)) <= rate / word
        assert not row[word:].any()
        assert 0.29 < row.max() / 32767 < 0.31
    assert pcm == speech.tones(text, rate)
    assert pcm != speech.tones(text, rate, seed=1)


@pytest.mark.parametrize("fmt", ["pcm_8000", "pcm_16000", "pcm_24000", "pcm_44100", "pcm_48000", "ulaw_8000"])
def test_every_format_carries_the_tone(fmt: str) -> None:
    pcm = speech.tones("word", 16_000)
    rate = speech.rate_of(fmt)
    decoded = np.frombuffer(speech.decode(speech.encode(pcm, 16_000, fmt), fmt), dtype="<i2").astype(float)
    assert abs(len(decoded) / rate - 0.24) < 0.002
    peak = int(np.abs(np.fft.rfft(decoded)).argmax()) * rate / len(decoded)
    assert abs(peak - speech.pitch("word")) < 10
    with pytest.raises(ValueError, match="opus_48000"):
        speech.rate_of("opus_48000")


@pytest.mark.parametrize("piece", [320, 640, 999, 100_000])
def test_turns_are_heard_whatever_the_pieces(piece: int) -> None:
    rate = 16_000
    sound = b"".join(
        (
            speech.silence(300, rate),
            speech.tones("one two three", rate),
            speech.silence(700, rate),
            speech.tones("four", rate),
            speech.silence(700, rate),
        )
    )
    detector = TurnDetector(rate, silence_ms=400)
    events = [event for at in range(0, len(sound), piece) for event in detector.feed(sound[at : at + piece])]
    assert [type(event) for event in events] == [SpeechStarted, SpeechEnded] * 2
    lengths = [event.duration_ms for event in events if isinstance(event, SpeechEnded)]
    assert abs(lengths[0] - (2 * 240 + 180)) <= 30
    assert abs(lengths[1] - 180) <= 30
    assert detector.score < 0.05


def test_a_click_and_noise_are_no_speech() -> None:
    rate = 16_000
    noise = (np.random.default_rng(1).standard_normal(rate) * 60).astype("<i2").tobytes()
    click = speech.tones("x", rate)[: rate // 50 * 2]
    detector = TurnDetector(rate)
    assert detector.feed(noise + click + noise) == []


def test_the_score_rises_with_speech() -> None:
    detector = TurnDetector(16_000)
    detector.feed(speech.tones("hello", 16_000)[: 16_000 * 2 * 150 // 1000])
    assert detector.speaking
    assert 0.9 < detector.score <= 1


def test_alignment_covers_every_character_in_order() -> None:
    found = speech.alignment("Hi Zoë there", 720)
    assert "".join(char for char, _, _ in found) == "Hi Zoë there"
    assert [start for char, start, _ in found if char in "HZt"] == [0, 240, 480]
    assert all(length > 0 for _, _, length in found)
    assert math.isclose(found[-1][1] + found[-1][2], 720)
    assert speech.alignment(" ", 100) == []


async def test_speaking_aloud_falls_back_to_tones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert await speech.speak("Hello", 16_000, voice="espeak") == speech.tones("Hello", 16_000)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
async def test_espeak_speaks_at_the_wanted_rate() -> None:
    pcm = await speech.speak("Good morning everybody", 8_000, voice="espeak")
    assert 0.5 < len(pcm) / 2 / 8_000 < 4
    assert [type(event) for event in TurnDetector(8_000).feed(pcm)][:1] == [SpeechStarted]
    german = await speech.speak("Good morning everybody", 8_000, voice="espeak", language="de")
    assert german != pcm
    unknown = await speech.speak("Good morning", 8_000, voice="espeak", language="xx-nowhere")
    assert unknown == speech.tones("Good morning", 8_000)
