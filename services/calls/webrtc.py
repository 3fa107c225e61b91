"""What the WebRTC transports share: whether it is installed, and how its libraries are loaded.

Light to import. The libraries (aiortc for Retell, livekit for ElevenLabs, together 100 MB of native code)
are an optional extra and are loaded in a thread, when a call begins: each takes 0.3 s.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import Coroutine
from types import ModuleType
from typing import Any, Final

from services.errors import ServiceError
from services.model import Provider

log = logging.getLogger(__name__)

RATE: Final = 48_000
"""Hz, both ways: what Opus carries and both vendors speak over WebRTC."""
FRAME_BYTES: Final = RATE // 50 * 2
"""20 ms of mono s16le."""

INSTALL: Final = "pip install 'callboard[webrtc]'"
_NEEDED: Final = {Provider.RETELL: ("aiortc", "av"), Provider.ELEVENLABS: ("livekit.rtc",)}


def webrtc_problem(provider: Provider) -> str:
    """Why a vendor's WebRTC calls are not available here, as a sentence with the install line; or "".

    Looks for the packages without loading them.
    """
    if all(_present(name) for name in _NEEDED[provider]):
        return ""
    error = _missing()
    return f"{error.message}. {error.advice}"


async def load(name: str) -> ModuleType:
    """Import a module that needs the extra, in a thread. Raises ServiceError (`webrtc_missing`)."""
    try:
        return await asyncio.to_thread(importlib.import_module, name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("services."):
            raise  # ours, and so not a matter of what is installed
        failure = _missing()
    except (ImportError, OSError) as error:
        log.warning("the native code of %s cannot be loaded: %s", name, error)
        failure = ServiceError(
            "The native code for calls over WebRTC is installed but cannot be loaded on this machine",
            advice=f"Install it again ({INSTALL}), or choose another transport",
            code="webrtc_missing",
        )
    raise failure


def _present(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _missing() -> ServiceError:
    return ServiceError(
        "Calls over WebRTC need packages that are not installed",
        advice=f"Install them with {INSTALL}, or choose another transport",
        code="webrtc_missing",
    )


async def within(seconds: float, work: Coroutine[Any, Any, Any], what: str) -> bool:
    """Do what must be tried at the end of a call but may not hold it up; never raises."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except Exception as error:
        log.debug("%s failed: %s", what, type(error).__name__)
        return False
    return True
