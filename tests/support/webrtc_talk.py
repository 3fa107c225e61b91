"""Talking through a WebRTC transport: tones as a voice, and what came back as sound."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import numpy as np

from services.calls.transport import AgentAudio, Transport, TransportEvent
from services.simulator import speech
from tests.support.webrtc_caller import pitches

RATE = 48_000
FRAME = RATE // 50 * 2
QUICK = {"think_ms": 20, "silence_ms": 200}
"""Of a script: a conversation that does not dawdle."""
LONG = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


def tone(ms: int, hertz: int = 300) -> bytes:
    """A voice that says one thing."""
    moments = np.arange(RATE * ms // 1000) / RATE
    return bytes((9000 * np.sin(2 * np.pi * hertz * moments)).astype("<i2").tobytes())


async def speak(transport: Transport, ms: int = 500, quiet_ms: int = 400) -> None:
    """A turn of the user: a tone and the silence that ends it, frame by frame as a microphone gives it."""
    loop = asyncio.get_running_loop()
    pcm = tone(ms) + bytes(RATE // 1000 * quiet_ms * 2)
    began = loop.time()
    for number in range(len(pcm) // FRAME):
        await transport.send_audio(pcm[number * FRAME : (number + 1) * FRAME])
        await asyncio.sleep(max(0.0, began + (number + 1) * 0.02 - loop.time()))


def voice(events: Iterable[TransportEvent], event_id: int | None = None) -> bytes:
    """The agent's voice among the events (of one answer)."""
    return b"".join(
        event.pcm for event in events if isinstance(event, AgentAudio) and event_id in (None, event.event_id)
    )


def spoken(text: str) -> list[int]:
    """The pitches of the tones that the simulated agent says a text with."""
    return pitches(speech.tones(text, RATE))


def sounds_like(events: Iterable[TransportEvent], text: str, event_id: int | None = None) -> bool:
    """Whether the agent's voice has the tones of this text, in their order, to 15 Hz."""
    found, wanted = pitches(voice(events, event_id)), spoken(text)
    return len(found) == len(wanted) and all(
        abs(one - other) <= 15 for one, other in itertools.zip_longest(found, wanted, fillvalue=0)
    )


def ends_like(events: Iterable[TransportEvent], text: str) -> bool:
    """Whether the last tones of the agent's voice are this text, and hardly anything was before them."""
    found, wanted = pitches(voice(events)), spoken(text)
    last = found[-len(wanted) :]
    return len(found) <= len(wanted) + 2 and all(
        abs(one - other) <= 15 for one, other in itertools.zip_longest(last, wanted, fillvalue=0)
    )


def audio_threads() -> list[str]:
    """Threads of aiortc that outlive their connection when it is not closed well."""
    return [thread.name for thread in threading.enumerate() if thread.name.endswith("-decoder")]


@contextmanager
def simulator_process(home: Path, root: Path) -> Iterator[tuple[Popen[str], dict[str, Any]]]:
    """A simulator in a process of its own, which can be killed; and its announcement."""
    import json
    import os

    environment = {**os.environ, "CALLBOARD_HOME": str(home), "PYTHONPATH": str(root), "NO_COLOR": "1"}
    command = (sys.executable, "-P", "-m", "app", "simulator", "--announce", "json", "--agents", "4")
    process = Popen(command, env=environment, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, cwd=home)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
