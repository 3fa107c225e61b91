"""Audio devices of a call: both directions, echo, meters. Names are loaded on first use.

`AudioFormat` and `parse_format` are light; everything else brings numpy, and PortAudio with the first
device that is looked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from services.calls.audio.devices import DeviceInfo, audio_problem, find_device, list_devices, refresh
    from services.calls.audio.echo import EchoState
    from services.calls.audio.engine import AudioEngine, CapturedFrame
    from services.calls.audio.figures import AudioStats
    from services.calls.audio.formats import AudioFormat, Resampler, parse_format
    from services.calls.audio.meter import Meter

__all__ = [
    "AudioEngine",
    "AudioFormat",
    "AudioStats",
    "CapturedFrame",
    "DeviceInfo",
    "EchoState",
    "Meter",
    "Resampler",
    "audio_problem",
    "find_device",
    "list_devices",
    "parse_format",
    "refresh",
]

_HOMES: Final = {
    "AudioEngine": "engine",
    "AudioFormat": "formats",
    "AudioStats": "figures",
    "CapturedFrame": "engine",
    "DeviceInfo": "devices",
    "EchoState": "echo",
    "Meter": "meter",
    "Resampler": "formats",
    "audio_problem": "devices",
    "find_device": "devices",
    "list_devices": "devices",
    "parse_format": "formats",
    "refresh": "devices",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
