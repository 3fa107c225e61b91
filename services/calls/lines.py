"""Opening devices for a call or a replay. Imports PortAudio with the first device that is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.calls.audio_line import Tap
from services.clock import Clock
from services.errors import ServiceError

if TYPE_CHECKING:
    from services.calls.audio.engine import AudioEngine


async def open_line(
    input_rate: int,
    output_rate: int,
    *,
    input_device: str,
    output_device: str,
    echo: bool,
    clock: Clock,
    on_input: Tap,
    on_output: Tap,
    on_problem: Callable[[ServiceError], None],
) -> AudioEngine:
    """Microphone and loudspeaker in these rates (Hz); empty names are the machine's defaults.

    Raises ServiceError when a device is missing or does not open.
    """
    engine_class = await asyncio.to_thread(_engine_class)
    engine = engine_class(
        input_rate,
        output_rate,
        input_device=input_device or None,
        output_device=output_device or None,
        echo=echo,
        # Whoever switches echo cancellation off wears headphones.
        half_duplex=echo,
        clock=clock,
        on_input=on_input,
        on_output=on_output,
        on_problem=on_problem,
    )
    await engine.start()
    return engine


async def open_speaker(rate: int, *, output_device: str, clock: Clock) -> Speaker:
    """A loudspeaker alone, for a replay. Raises ServiceError as `open_line` does."""
    await asyncio.to_thread(_engine_class)
    speaker = Speaker(rate, clock)
    await speaker.start(output_device)
    return speaker


class Speaker:
    """A loudspeaker: mono PCM in one rate."""

    def __init__(self, rate: int, clock: Clock) -> None:
        from services.calls.audio.pair import DevicePair
        from services.calls.audio.playout import Playout
        from services.calls.audio.streams import OutputPort

        self._clock = clock
        self._playout = Playout(rate)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pair = DevicePair(
            lambda _kind: OutputPort(self._playout, clock.monotonic, lambda: None),
            clock,
            lambda: None,
            lambda _error: None,
        )

    async def start(self, device: str) -> None:
        """Open it. Raises ServiceError."""
        try:
            await self._pair.open({"output": device or None})
        except BaseException:
            await self.aclose()
            raise

    def play(self, pcm: bytes, event_id: int = 0) -> None:
        self._playout.add(pcm, event_id, self._clock.monotonic())

    def drop(self, up_to_event_id: int | None = None) -> None:
        self._playout.drop(up_to_event_id)
        task = asyncio.create_task(self._pair.silence(), name="replay silence")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pair.aclose()


def _engine_class() -> type[AudioEngine]:
    from services.calls.audio.engine import AudioEngine

    return AudioEngine
