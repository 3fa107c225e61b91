"""Where a session's audio comes from and goes to: the devices, or a stand-in without any."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

Tap = Callable[[bytes, float], None]
"""PCM and the monotonic second at which it began."""


class LevelMeter(Protocol):
    """The newest levels of one direction."""

    @property
    def level_db(self) -> float: ...
    def bars(self, count: int) -> tuple[float, ...]: ...


class LineFrame(Protocol):
    """20 ms of the microphone, after echo cancellation and mute."""

    @property
    def pcm(self) -> bytes: ...
    @property
    def speaking(self) -> bool: ...


class AudioLine(Protocol):
    """Both directions of one call's audio, in the rates it was opened with."""

    input_meter: LevelMeter
    output_meter: LevelMeter

    @property
    def input_name(self) -> str: ...
    @property
    def output_name(self) -> str: ...
    @property
    def echo_state(self) -> str: ...
    @property
    def playing(self) -> bool: ...
    @property
    def jitter_ms(self) -> float | None: ...
    @property
    def end_of_speech_ms(self) -> float:
        """How long after the last voiced frame `speaking` turns off."""
        ...

    def frames(self) -> AsyncIterator[LineFrame]: ...
    def play(self, pcm: bytes, event_id: int = 0) -> None: ...
    def drop(self, up_to_event_id: int | None = None) -> None: ...
    def mute(self, on: bool) -> None: ...
    def push_to_talk(self, on: bool, held: bool = False) -> None: ...
    async def switch(self, *, input: str | None = None, output: str | None = None) -> None: ...  # noqa: A002
    async def aclose(self) -> None: ...
