"""Where the agent speaks in an unbroken stream."""

from __future__ import annotations

import numpy as np

from services.calls.voice_gate import VoiceGate
from tests.support.webrtc_talk import FRAME, tone

SILENCE = bytes(FRAME)
VOICE = tone(20)


def noise(level: int, frames: int, seed: int = 1) -> list[bytes]:
    values = np.random.default_rng(seed).normal(0, level, (frames, FRAME // 2))
    return [frame.astype("<i2").tobytes() for frame in values]


def test_silence_is_left_out():
    gate = VoiceGate()
    assert [gate.feed(SILENCE) for _ in range(50)] == [b""] * 50
    assert not gate.speaking


def test_a_beginning_comes_with_the_frame_before_it():
    gate = VoiceGate()
    gate.feed(SILENCE)
    assert gate.feed(VOICE) == SILENCE + VOICE
    assert gate.feed(VOICE) == VOICE
    assert gate.speaking


def test_a_short_pause_belongs_to_the_sentence_and_a_long_one_does_not():
    gate = VoiceGate()
    gate.feed(VOICE)
    assert [len(gate.feed(SILENCE)) for _ in range(19)] == [FRAME] * 19
    assert gate.feed(VOICE) == VOICE
    assert [len(gate.feed(SILENCE)) for _ in range(25)] == [FRAME] * 20 + [0] * 5


def test_a_background_is_no_voice_but_a_voice_above_it_is():
    gate = VoiceGate()
    for frame in noise(300, 200):
        gate.feed(frame)
    assert not gate.speaking, "a steady background is taken for speech for ever"
    assert gate.feed(VOICE)
    assert gate.speaking


def test_a_sentence_without_a_pause_is_not_taken_for_background():
    gate = VoiceGate()
    assert all(gate.feed(VOICE) for _ in range(400))


def test_the_tail_of_a_cut_sentence_is_left_out_and_the_next_one_is_not():
    gate = VoiceGate()
    gate.feed(VOICE)
    gate.cut()
    tail = [VOICE, VOICE, SILENCE, SILENCE, VOICE, *[SILENCE] * 5]
    assert [gate.feed(frame) for frame in tail] == [b""] * len(tail)
    assert gate.feed(VOICE) == SILENCE + VOICE


def test_a_tail_has_an_end():
    gate = VoiceGate()
    gate.feed(VOICE)
    gate.cut()
    assert any(gate.feed(VOICE) for _ in range(16))


def test_a_cut_in_silence_takes_nothing_from_the_next_sentence():
    gate = VoiceGate()
    gate.feed(SILENCE)
    gate.cut()
    assert gate.feed(VOICE) == SILENCE + VOICE
