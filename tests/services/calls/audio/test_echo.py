"""Echo that is cancelled, gated, or left alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from services.calls.audio.echo import EchoState, HalfDuplex, LivekitEcho, NoEcho, open_echo
from tests.support.sounds import loudness, speech_like, voice

FRAME_MS = 20


def echo_of(pcm: bytes, rate: int, delay_ms: int, gain: float = 0.5) -> bytes:
    """What a microphone hears of a loudspeaker in a room: late, weaker, and with two reflections."""
    far = np.frombuffer(pcm, "<i2").astype(np.float64)
    near = np.zeros_like(far)
    for late, share in ((0, 1.0), (11, 0.4), (27, 0.2)):
        shift = (delay_ms + late) * rate // 1000
        near[shift:] += far[: len(far) - shift] * gain * share
    return near.clip(-32_768, 32_767).astype("<i2").tobytes()


def frames_of(pcm: bytes, rate: int) -> list[bytes]:
    size = rate * FRAME_MS // 1000 * 2
    return [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]


def run(canceller, far: bytes, far_rate: int, near: bytes, near_rate: int) -> bytes:
    out = b""
    for played, captured in zip(frames_of(far, far_rate), frames_of(near, near_rate), strict=True):
        canceller.playback(played, far_rate)
        clean = canceller.capture(captured)
        assert len(clean) == len(captured)
        out += clean
    return out


@pytest.fixture
def livekit():
    return pytest.importorskip("livekit.rtc")


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 48_000])
def test_an_echo_is_reduced(livekit, rate):
    far = speech_like(rate, 4.0)
    near = echo_of(far, rate, 80)
    canceller = LivekitEcho(rate)
    assert canceller.state is EchoState.READY
    out = run(canceller, far, rate, near, rate)
    half = len(near) // 2
    assert loudness(near[half:]) - loudness(out[half:]) >= 10
    assert canceller.state is EchoState.CANCELLING
    assert canceller.reduction_db is not None
    assert canceller.reduction_db >= 10


def test_the_loudspeaker_may_have_another_rate(livekit):
    far = speech_like(44_100, 4.0)
    near = echo_of(speech_like(44_100, 4.0), 44_100, 60)
    from services.calls.audio.formats import Resampler

    down = Resampler(44_100, 16_000)
    near = (down.process(near) + down.flush())[: 16_000 * 2 * 4]
    out = run(LivekitEcho(16_000), far, 44_100, near, 16_000)
    assert loudness(near[len(near) // 2 :]) - loudness(out[len(out) // 2 :]) >= 10


def test_a_voice_alone_passes_and_is_not_called_an_echo(livekit):
    said = voice(16_000, 4.0)
    canceller = LivekitEcho(16_000)
    out = run(canceller, bytes(len(said)), 16_000, said, 16_000)
    assert canceller.state is EchoState.READY
    assert abs(loudness(said) - loudness(out)) < 3


def test_noise_that_is_suppressed_is_not_called_an_echo(livekit):
    """A headset: the loudspeaker plays, the microphone hears only the room."""
    random = np.random.default_rng(5)
    room = (random.standard_normal(16_000 * 6) * 150).astype("<i2").tobytes()
    quiet = bytes(len(room) // 2)
    far = quiet + speech_like(16_000, 3.0)
    canceller = LivekitEcho(16_000)
    run(canceller, far, 16_000, room, 16_000)
    assert canceller.state is EchoState.READY


def test_half_duplex_closes_the_microphone_while_the_loudspeaker_plays_and_a_little_longer():
    gate = HalfDuplex(hangover_ms=200)
    gate.set_delay(40)
    said = voice(16_000, 0.02)
    assert gate.capture(said) == said
    gate.playback(speech_like(16_000, 0.02), 16_000)
    closed = 0
    while gate.closed:
        assert gate.capture(said) == bytes(len(said))
        closed += 1
    assert closed * FRAME_MS == pytest.approx(200 + 40 + 20, abs=FRAME_MS)
    assert gate.capture(said) == said
    gate.playback(bytes(640), 16_000)
    assert not gate.closed, "silence closes nothing"
    assert gate.state is EchoState.HALF_DUPLEX


def test_the_best_there_is(livekit):
    assert open_echo(True, 16_000).state is EchoState.READY
    assert open_echo(False, 16_000).state is EchoState.OFF


def test_without_the_package_half_duplex_or_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "livekit.rtc", None)
    monkeypatch.setitem(sys.modules, "livekit", None)
    assert isinstance(open_echo(True, 16_000), HalfDuplex)
    assert open_echo(True, 16_000, half_duplex=False).state is EchoState.UNAVAILABLE
    assert open_echo(False, 16_000).state is EchoState.OFF


def test_nothing_is_done_when_nothing_is_wanted():
    plain = NoEcho()
    said = voice(16_000, 0.02)
    plain.playback(said, 16_000)
    plain.set_delay(10)
    assert plain.capture(said) is said


def test_states_are_words():
    assert str(EchoState.CANCELLING) == "echo cancelled"
    assert f"{EchoState.HALF_DUPLEX}" == "half duplex"
