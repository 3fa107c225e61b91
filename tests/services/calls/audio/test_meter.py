"""Levels, their history, and when somebody speaks."""

from __future__ import annotations

import numpy as np
import pytest

from services.calls.audio.meter import FLOOR_DB, HANGOVER_MS, Meter
from tests.support.sounds import speech_like, tone

RATE = 16_000
FRAME = RATE // 50 * 2


def fed(meter: Meter, pcm: bytes, piece: int = FRAME) -> list[bool]:
    said = []
    for at in range(0, len(pcm), piece):
        meter.feed(pcm[at : at + piece])
        said.append(meter.speaking)
    return said


def noise(seconds: float, db: float, seed: int = 1) -> bytes:
    random = np.random.default_rng(seed)
    samples = random.standard_normal(int(RATE * seconds)) * 32_768 * 10 ** (db / 20)
    return samples.clip(-32_768, 32_767).astype("<i2").tobytes()


@pytest.mark.parametrize("db", [-6.0, -20.0, -50.0])
def test_a_sine_has_the_level_it_was_made_with(db):
    meter = Meter(RATE)
    meter.feed(tone(RATE, 0.5, level=10 ** (db / 20)))
    assert meter.level_db == pytest.approx(db - 3.01, abs=0.2)
    assert meter.peak_db == pytest.approx(db, abs=0.2)


def test_silence_is_the_floor():
    meter = Meter(RATE)
    assert (meter.level_db, meter.peak_db, meter.speaking) == (FLOOR_DB, FLOOR_DB, False)
    meter.feed(bytes(RATE * 4))
    assert (meter.level_db, meter.peak_db) == (FLOOR_DB, FLOOR_DB)


def test_the_loudest_sample_there_is():
    meter = Meter(RATE)
    meter.feed(b"\x00\x80" * RATE)
    assert meter.peak_db == pytest.approx(0.0, abs=0.01)
    assert meter.bars(1) == (pytest.approx(1.0),)


def test_bars_are_a_bounded_history_with_the_newest_last():
    meter = Meter(RATE)
    assert meter.bars(3) == (0.0, 0.0, 0.0)
    meter.feed(tone(RATE, 0.1, level=0.9))
    quiet, *_, loud = meter.bars(10)
    assert quiet == 0.0
    assert loud > 0.9
    meter.feed(bytes(RATE * 2 * 1))
    assert len(meter.bars(20)) == 20
    assert not any(meter.bars(20)), "twenty bars are one second"
    meter.feed(bytes(RATE * 2 * 60))
    assert len(meter.bars(10_000)) == 10_000
    assert not any(meter.bars(10_000))
    assert meter.bars(0) == ()


def test_pieces_of_any_length_come_to_the_same():
    sound = speech_like(RATE, 2.0)
    whole, pieces = Meter(RATE), Meter(RATE)
    whole.feed(sound)
    fed(pieces, sound, 346)
    assert whole.bars(40) == pieces.bars(40)
    assert whole.level_db == pieces.level_db


def test_the_peak_is_forgotten_after_a_second():
    meter = Meter(RATE)
    meter.feed(tone(RATE, 0.1))
    fed(meter, bytes(RATE // 2 * 2))
    assert meter.peak_db > -15
    fed(meter, bytes(RATE * 2))
    assert meter.peak_db == FLOOR_DB


def test_speech_begins_soon_and_ends_after_the_hangover():
    meter = Meter(RATE)
    fed(meter, noise(1.0, -65))
    assert not meter.speaking
    begun = fed(meter, tone(RATE, 0.5))
    assert begun.index(True) * 20 <= 60
    ended = fed(meter, noise(0.5, -65, seed=2))
    assert ended.index(False) * 20 == pytest.approx(HANGOVER_MS, abs=20)


def test_a_click_is_no_speech():
    meter = Meter(RATE)
    assert not any(fed(meter, bytes(RATE) + tone(RATE, 0.02, level=0.9) + bytes(RATE)))


def test_a_pause_between_words_is_no_end():
    meter = Meter(RATE)
    fed(meter, tone(RATE, 0.3))
    said = fed(meter, (bytes(RATE * 2 * 200 // 1000) + tone(RATE, 0.2)) * 5)
    assert all(said)


def test_a_fan_that_starts_is_not_speech_for_ever():
    meter = Meter(RATE)
    fed(meter, noise(1.0, -70))
    assert any(fed(meter, noise(2.0, -40)))
    fed(meter, noise(30.0, -40, seed=3))
    assert not meter.speaking
    assert any(fed(meter, tone(RATE, 0.5))), "a voice above it still is"
