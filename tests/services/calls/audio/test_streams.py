"""What the devices' threads do: they never raise, and a device that stops is noticed."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from services.calls.audio import pair
from services.calls.audio.devices import DeviceInfo
from services.calls.audio.engine import AudioEngine
from services.calls.audio.figures import Arrivals, Delays, SteadyTime
from services.calls.audio.pair import LOSSES, DevicePair
from services.calls.audio.playout import Block, Playout
from services.calls.audio.streams import INPUT_KEPT, DeviceStream, InputPort, OutputPort
from services.clock import SystemClock
from services.errors import ServiceError

QUIET = SimpleNamespace(input_overflow=False, output_underflow=False)
TIMES = SimpleNamespace(currentTime=1.0, inputBufferAdcTime=0.98, outputBufferDacTime=1.05)
DEVICE = DeviceInfo("ALSA:x", 0, "x", 2, 2, True, True, 48_000)


def nothing() -> None:
    pass


def output_port(rate: int = 16_000, now: float = 5.0) -> tuple[OutputPort, Playout]:
    playout = Playout(rate)
    port = OutputPort(playout, lambda: now, nothing)
    port.enabled = True
    return port, playout


def test_a_callback_that_gets_nonsense_plays_silence_and_does_not_raise():
    port, playout = output_port()
    playout.add(b"\x01\x00" * 1600, 1, 0.0)
    data = bytearray(b"\xff" * 640)
    port(data, 320, None, QUIET)
    assert data == bytes(640)
    port(data, 320, TIMES, None)
    assert data == bytes(640)
    port(None, 320, TIMES, QUIET)


def test_a_microphones_callback_does_not_raise_either():
    port = InputPort(16_000, lambda: 1.0, nothing)
    port.enabled = True
    port(b"\0" * 640, 320, None, QUIET)
    assert port.last == 1.0
    assert not port.blocks

    def gone() -> None:
        raise RuntimeError("the loop is closed")

    port = InputPort(16_000, lambda: 1.0, gone)
    port.enabled = True
    port(b"\0" * 640, 320, TIMES, QUIET)


def test_an_unused_port_takes_nothing_from_the_queue():
    port, playout = output_port()
    port.enabled = False
    playout.add(b"\x01\x00" * 1600, 1, 0.0)
    data = bytearray(b"\xff" * 640)
    port(data, 320, TIMES, QUIET)
    assert data == bytes(640)
    assert playout.queued_ms == 100


def test_a_block_that_is_being_taken_is_in_the_log_before_the_port_is_let_go(monkeypatch):
    port, playout = output_port()
    playout.add(b"\x01\x00" * 320, 1, 0.0)
    taken, go_on = threading.Event(), threading.Event()
    take = playout.take

    def slow(samples: int, now: float) -> Block:
        block = take(samples, now)
        taken.set()
        assert go_on.wait(10)
        return block

    monkeypatch.setattr(playout, "take", slow)
    device = threading.Thread(target=port, args=(bytearray(640), 320, TIMES, QUIET))
    seen: list[tuple[bool, int]] = []

    def let_go() -> None:
        seen.append((port.busy, len(port.log)))
        port.disable()

    owner = threading.Thread(target=let_go)
    device.start()
    assert taken.wait(10)
    assert playout.queued_ms == 0
    owner.start()
    owner.join(0.2)  # it would be through by now if it did not wait
    assert port.enabled
    go_on.set()
    device.join(10)
    owner.join(10)
    assert seen == [(True, 1)]
    assert not port.enabled


def test_it_plays_until_all_of_it_was_told():
    now, told = [5.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0])
    engine = AudioEngine(16_000, 16_000, clock=clock, on_output=lambda pcm, _: told.append(pcm))
    port = engine._pair.ports["output"] = engine._port("output")
    port.enabled = True
    engine.play(b"\x01\x00" * 1600, 1)
    port(bytearray(3200), 1600, TIMES, QUIET)
    engine._collect_output()
    now[0] += 60.0
    assert engine.playing
    assert not told
    engine._drain()
    assert told == [b"\x01\x00" * 1600]
    assert not engine.playing


def test_blocks_nobody_collects_are_bounded_and_counted():
    port = InputPort(16_000, lambda: 1.0, nothing)
    port.enabled = True
    for _ in range(INPUT_KEPT + 3):
        port(b"\0" * 640, 320, TIMES, QUIET)
    assert len(port.blocks) == INPUT_KEPT
    assert port.trouble == 3
    port(b"\0" * 640, 320, TIMES, SimpleNamespace(input_overflow=True))
    assert port.trouble == 4


def test_a_hole_counts_only_while_there_is_something_to_play():
    port, playout = output_port()
    dry = SimpleNamespace(output_underflow=True)
    port(bytearray(640), 320, TIMES, dry)
    assert port.trouble == 0
    playout.add(b"\x01\x00" * 1600, 1, 0.0)
    port(bytearray(640), 320, TIMES, dry)
    assert port.trouble == 1


def test_two_channels_are_mixed_and_filled():
    port = InputPort(16_000, lambda: 1.0, nothing)
    port.enabled = True
    port.configure(16_000, 2)
    port(np.array([100, 300] * 320, "<i2").tobytes(), 320, TIMES, QUIET)
    assert port.mono(port.blocks[0]) == np.full(320, 200, "<i2").tobytes()
    out, playout = output_port()
    out.configure(16_000, 2)
    playout.add(b"\x07\x00" * 1600, 1, 0.0)
    data = bytearray(1280)
    out(data, 320, TIMES, QUIET)
    assert data == b"\x07\x00" * 640


def test_a_device_that_tells_no_latency_has_the_one_it_was_opened_with():
    port, _ = output_port()
    port.configure(16_000, 1, 0.06)
    port(bytearray(640), 320, SimpleNamespace(currentTime=5.0, outputBufferDacTime=0.0), QUIET)
    assert port.lag == 0.06
    port(bytearray(640), 320, TIMES, QUIET)
    assert port.lag == pytest.approx(0.05)


def fake_stream(*, active: bool = True) -> tuple[DeviceStream, InputPort]:
    port = InputPort(16_000, lambda: 0.0, nothing)
    stream = DeviceStream(DEVICE, port, lambda: 0.0)
    stream._stream = SimpleNamespace(active=active)
    return stream, port


def test_a_device_that_stops_calling_is_dead():
    stream, port = fake_stream()
    assert not stream.dead(1.0), "it may take its time at first"
    assert stream.dead(10.0)
    port.last = 10.0
    assert not stream.dead(10.5)
    assert stream.dead(11.0)


def test_a_stream_that_ended_is_dead_and_a_closed_one_is_not():
    stream, port = fake_stream(active=False)
    port.last = 1.0
    assert stream.dead(1.0)
    stream._stream = None
    assert not stream.dead(100.0)


async def test_a_device_that_is_lost_again_and_again_is_given_up(monkeypatch):
    """A loose plug must not open and close devices for ever."""
    told: list[ServiceError] = []
    lost = asyncio.Event()

    class Flapping(DeviceStream):
        def open(self) -> None:
            pass

        def close(self) -> None:
            pass

        def dead(self, now: float) -> bool:
            return self.port.kind == "input"

    monkeypatch.setattr(pair, "DeviceStream", Flapping)
    monkeypatch.setattr(pair, "WATCH_SECONDS", 0.001)
    monkeypatch.setattr(pair.devices, "find_device", lambda wanted, kind: DEVICE)

    def port(kind: str) -> Any:
        return InputPort(16_000, lambda: 0.0, nothing) if kind == "input" else output_port()[0]

    def problem(error: ServiceError) -> None:
        told.append(error)
        if error.code == "device_lost":
            lost.set()

    both = DevicePair(port, SystemClock(), nothing, problem)
    await both.open({"input": None, "output": None})
    watching = asyncio.create_task(both.watch())
    await asyncio.wait_for(lost.wait(), 10)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert [each.code for each in told] == ["device_replaced"] * (LOSSES - 1) + ["device_lost"]
    assert "stopped and was opened again" in told[0].message
    assert both.device("input") is None
    assert both.device("output") is DEVICE
    await both.aclose()


def test_times_with_jitter_become_steady_and_real_jumps_stay():
    steady = SteadyTime()
    told = [10.0, 10.025, 10.038, 10.061, 11.0, 11.02]
    assert [round(steady.of(at, 0.02), 6) for at in told] == [10.0, 10.02, 10.04, 10.06, 11.0, 11.02]


def test_delays_have_percentiles():
    delays = Delays()
    assert delays.percentile(95) is None
    for number in range(1, 101):
        delays.add(number / 1000)
    assert delays.percentile(50) == pytest.approx(51)
    assert delays.percentile(95) == pytest.approx(96)


def test_lateness_is_counted_within_an_utterance_only():
    arrivals = Arrivals(16_000)
    frame = bytes(640)
    for number in range(40):
        arrivals.add(frame, number, 10.0 * number)
    assert arrivals.jitter_ms is None
    at = 1000.0
    for number in range(60):
        at += 0.02 if number % 2 else 0.04
        arrivals.add(frame, 99, at)
    assert arrivals.jitter_ms == pytest.approx(10, abs=2)


async def test_portaudios_own_failures_come_in_our_words(monkeypatch):
    def broken(wanted: object, kind: str) -> DeviceInfo:
        raise RuntimeError("PortAudio not initialized")

    monkeypatch.setattr(pair.devices, "find_device", broken)
    both = DevicePair(lambda kind: output_port()[0], SystemClock(), nothing, lambda error: None)
    with pytest.raises(ServiceError, match="PortAudio not initialized") as caught:
        await both.open({"input": None, "output": None})
    assert caught.value.code == "device_refused"
    assert not both.changing
