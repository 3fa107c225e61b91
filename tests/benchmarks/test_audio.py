"""The audio of a call on PulseAudio null sinks: delay, holes, cost, silence after an interruption, echo.

`CALLBOARD_TEST_AUDIO_SECONDS` is how long the call of the first figures lasts (60; the promise is for 600).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.benchmarks.measuring import Figure, percentile, unmet
from tests.support.pulse import PulseServer, Recorded, fake_devices, running_pulse
from tests.support.sounds import loudness, speech_like, tone

SECONDS = float(os.environ.get("CALLBOARD_TEST_AUDIO_SECONDS", "60"))
WARM_SECONDS = 5.0
BUSY_SECONDS = 15.0
INPUT_RATE, OUTPUT_RATE = 16_000, 24_000
FRAME = OUTPUT_RATE // 50 * 2
INTERRUPTIONS = 12
LOUD = 1_000


@asynccontextmanager
async def engine(**options: Any) -> AsyncIterator[Any]:
    from services.calls.audio import AudioEngine

    line = AudioEngine(
        INPUT_RATE, OUTPUT_RATE, input_device="fake_mic", output_device="fake_speaker", **options
    )
    await line.start()
    try:
        yield line
    finally:
        await line.aclose()


async def spoken(line: Any, sound: bytes, seconds: float) -> None:
    """20 ms frames at the pace of speech, as a socket brings them."""
    due = time.monotonic()
    for number in range(int(seconds * 50)):
        at = number * FRAME % (len(sound) - FRAME)
        line.play(sound[at : at + FRAME], 1)
        due += 0.02
        await asyncio.sleep(max(0.0, due - time.monotonic()))


@asynccontextmanager
async def read(line: Any) -> AsyncIterator[None]:
    async def run() -> None:
        async for _ in line.frames():
            pass

    reading = asyncio.create_task(run())
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def long_call() -> list[Figure]:
    """Both directions at once with echo cancellation, for a long time."""
    sound = speech_like(OUTPUT_RATE, 10.0)
    process = psutil.Process()
    async with engine() as line, read(line):
        await spoken(line, sound, WARM_SECONDS)
        late, holes, lost = line.stats().gaps, line.underruns, line.overruns + line.dropped_frames
        memory, spent, started = process.memory_info().rss, time.process_time(), time.monotonic()
        await spoken(line, sound, SECONDS)
        busy = (time.process_time() - spent) / (time.monotonic() - started)
        grown = process.memory_info().rss - memory
        stats = line.stats()
        holes, lost = line.underruns - holes, line.overruns + line.dropped_frames - lost
    label = f"audio, {SECONDS:.0f} s both ways"
    return [
        Figure(f"{label}: microphone callback to frame, p95", stats.capture_delay_p95_ms, "ms", 40),
        Figure(f"{label}: microphone callback to frame, median", stats.capture_delay_p50_ms, "ms"),
        Figure(f"{label}: play() to device buffer, p95", stats.play_delay_p95_ms, "ms", 40),
        Figure(f"{label}: play() to device buffer, median", stats.play_delay_p50_ms, "ms"),
        Figure(f"{label}: underruns", holes, "times", 0),
        Figure(f"{label}: underruns because the sender was late", stats.gaps - late, "times"),
        Figure(f"{label}: lost microphone frames", lost, "frames", 0),
        Figure(f"{label}: processor", 100 * busy, "% of a core", 20),
        Figure(f"{label}: memory grown", grown / 1e6, "MB", 3),
        Figure("audio: what the loudspeaker itself buffers", stats.output_latency_ms, "ms"),
    ]


async def beside_a_screen() -> list[Figure]:
    """The same while something else holds the loop for 16 ms, twelve times a second."""

    async def screen() -> None:
        while True:
            end = time.perf_counter() + 0.016
            while time.perf_counter() < end:
                pass
            await asyncio.sleep(0.067)

    async with engine() as line, read(line):
        painting = asyncio.create_task(screen())
        await spoken(line, speech_like(OUTPUT_RATE, 10.0), BUSY_SECONDS)
        painting.cancel()
        await asyncio.gather(painting, return_exceptions=True)
        stats = line.stats()
    return [
        Figure("audio beside a busy screen: microphone, p95", stats.capture_delay_p95_ms, "ms", 40),
        Figure("audio beside a busy screen: loudspeaker, p95", stats.play_delay_p95_ms, "ms"),
        Figure("audio beside a busy screen: underruns", stats.underruns, "times"),
    ]


def last_loud(recorded: Recorded, after: float) -> float:
    """The second at which the last loud sample after that one was heard."""
    end = after
    for arrived, piece in tuple(recorded.pieces):
        loud = np.nonzero(np.abs(np.frombuffer(piece[: len(piece) // 2 * 2], "<i2").astype(int)) > LOUD)[0]
        if len(loud):
            end = max(end, arrived - (len(piece) // 2 - 1 - loud[-1]) / OUTPUT_RATE)
    return float(end)


async def interrupted(desk: PulseServer) -> list[Figure]:
    """From `drop` until the monitor of the loudspeaker is silent."""
    took = []
    async with engine(echo=False) as line, read(line):
        for number in range(INTERRUPTIONS):
            with desk.recording("speaker", OUTPUT_RATE) as recorded:
                line.play(tone(OUTPUT_RATE, 5.0), number)
                await asyncio.sleep(0.4 + 0.007 * number)
                dropped = time.monotonic()
                line.drop(number)
                await asyncio.sleep(0.4)
                assert last_loud(recorded, 0.0) > dropped - 0.1, "there was nothing to silence"
                took.append(1000 * (last_loud(recorded, dropped) - dropped))
    return [
        Figure("interruption: silence after, longest", max(took), "ms", 100),
        Figure("interruption: silence after, median", percentile(took, 50), "ms"),
    ]


def synthetic_echo() -> list[Figure]:
    """A loudspeaker heard 80 ms later, weaker, with two reflections."""
    from services.calls.audio.echo import LivekitEcho

    far = np.frombuffer(speech_like(INPUT_RATE, 10.0), "<i2").astype(float)
    near = np.zeros_like(far)
    for late, gain in ((80, 0.5), (91, 0.2), (107, 0.1)):
        shift = late * INPUT_RATE // 1000
        near[shift:] += far[:-shift] * gain
    size = INPUT_RATE // 50
    canceller, spent, clean = LivekitEcho(INPUT_RATE), [], []
    for at in range(0, len(far) - size + 1, size):
        started = time.perf_counter()
        canceller.playback(far[at : at + size].astype("<i2").tobytes(), INPUT_RATE)
        clean.append(canceller.capture(near[at : at + size].astype("<i2").tobytes()))
        spent.append(time.perf_counter() - started)
    second = INPUT_RATE * 2
    echo, out = near.astype("<i2").tobytes(), b"".join(clean)
    return [
        Figure(
            "echo: reduction in the first two seconds",
            loudness(echo[: 2 * second]) - loudness(out[: 2 * second]),
            "dB",
        ),
        Figure(
            "echo: reduction after two seconds",
            loudness(echo[2 * second :]) - loudness(out[2 * second :]),
            "dB",
            10,
            least=True,
        ),
        Figure("echo: 20 ms of both directions, p95", 1000 * percentile(spent, 95), "ms", 2),
    ]


@contextlib.contextmanager
def room() -> Iterator[PulseServer]:
    with running_pulse("mic", "speaker") as desk, running_pulse("spare") as spare, fake_devices(desk, spare):
        yield desk


async def measure(folder: Path) -> list[Figure]:
    figures = synthetic_echo()
    with room() as desk:
        figures += await interrupted(desk)
        figures += await beside_a_screen()
        figures += await long_call()
    return figures


@pytest.mark.benchmark
async def test_audio(tmp_path):
    assert not unmet(await measure(tmp_path))
