"""Whether WebRTC works here: aiortc is an optional package."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util

MISSING = "WebRTC needs the packages of the extra “webrtc” (aiortc), which are not installed here."


def installed() -> bool:
    """Whether aiortc is there; does not load it."""
    return importlib.util.find_spec("aiortc") is not None


async def available() -> bool:
    """The same; loads what a session needs the first time, in a thread."""
    if not installed():
        return False
    for name in ("webrtc_audio", "speech"):
        await asyncio.to_thread(importlib.import_module, f"services.simulator.{name}")
    return True
