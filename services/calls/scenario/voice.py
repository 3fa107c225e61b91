"""The mock's voice and ears: tones for words, and loudness for speech. Numpy is loaded when they are made."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.calls.scenario.model import Scenario


class Voice:
    """Turns texts into sound: mono s16le in the scenario's rate."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    async def prepare(self) -> None:
        """Load what it needs, off the loop."""
        await asyncio.to_thread(importlib.import_module, "services.simulator.speech")

    async def say(self, text: str, wav: str = "") -> bytes:
        """The sound of a text, or of the WAV file named. Raises ServiceError for a broken file."""
        scenario = self._scenario
        if wav and scenario.folder is not None:
            from services.calls.virtual_audio import pcm_of

            return await asyncio.to_thread(pcm_of, scenario.folder / wav, scenario.rate)
        from services.simulator import speech

        voice = "espeak" if scenario.audio == "espeak" else "tones"
        return await speech.speak(text, scenario.rate, voice=voice, seed=scenario.seed)


class Ears:
    """When the user speaks, by loudness. Make it in a thread: numpy."""

    def __init__(self, rate: int) -> None:
        from services.simulator import speech

        self._detector = speech.TurnDetector(rate)
        self._started: Any = speech.SpeechStarted

    @property
    def speaking(self) -> bool:
        return self._detector.speaking

    def hear(self, pcm: bytes) -> list[bool]:
        """Listen on: True where speech began, False where it ended."""
        return [isinstance(event, self._started) for event in self._detector.feed(pcm)]
