"""The machine's audio devices, through PortAudio. Everything here blocks: call it in a thread.

PortAudio takes its list of devices once; `refresh` takes it anew. Opening, closing and listing exclude
each other (`PORTAUDIO`), as PortAudio is not made for several threads.
"""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from services.errors import Category, ServiceError, UsageError

log = logging.getLogger(__name__)

Kind: TypeAlias = Literal["input", "output"]

PORTAUDIO = threading.RLock()
"""Held for every call into PortAudio but those of its own callbacks."""
CHILD_SECONDS = 8.0
WORDS: dict[Kind, str] = {"input": "microphone", "output": "loudspeaker"}
_open_streams = 0
_kept: list[Any] = []
"""What native code points to must not be collected."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device as PortAudio lists it. `index` holds until the next `refresh`, `id` longer."""

    id: str
    """Host API and name, and a number where two share both."""
    index: int
    name: str
    inputs: int
    """Channels it can record; 0 for one that only plays."""
    outputs: int
    default_input: bool
    default_output: bool
    rate: int
    """The rate it prefers, in Hz."""


def load() -> Any:
    """The `sounddevice` module. Raises ServiceError: `no_audio_library` without PortAudio, `no_audio` where
    it does not start."""
    if "sounddevice" not in sys.modules:
        _survive()
    with PORTAUDIO:
        _quiet_libraries()
        try:
            import sounddevice
        except OSError as error:
            raise _no_library() from error
        except Exception as error:  # PortAudio is there and does not start
            raise ServiceError(
                f"PortAudio does not start: {error}",
                advice="check the machine's sound server, or call with the transport text",
                code="no_audio",
            ) from error
        return sounddevice


def _survive() -> None:
    """Let a child process look for devices first. Raises ServiceError (`no_audio`) when that kills it.

    PortAudio aborts the whole process where ALSA's configuration names no device, and a broken driver may
    do worse.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import sounddevice"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=CHILD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        reason = "does not answer"
    else:
        if done.returncode >= 0:
            return
        reason = "crashes"
    raise ServiceError(
        f"The sound system of this machine {reason}",
        category=Category.TRANSIENT,
        advice="Check ALSA's configuration and the sound server, or call with the transport text",
        code="no_audio",
    )


def list_devices() -> list[DeviceInfo]:
    """All devices, in PortAudio's order. Raises ServiceError without PortAudio."""
    sounddevice = load()
    with PORTAUDIO:
        hosts = sounddevice.query_hostapis()
        rows = sounddevice.query_devices()
        default_in, default_out = _defaults(sounddevice, hosts)
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        name = str(row["name"])
        key = f"{hosts[row['hostapi']]['name']}:{name}"
        seen[key] += 1
        index = int(row["index"])
        found.append(
            DeviceInfo(
                id=key if seen[key] == 1 else f"{key}#{seen[key]}",
                index=index,
                name=name,
                inputs=int(row["max_input_channels"]),
                outputs=int(row["max_output_channels"]),
                default_input=index == default_in,
                default_output=index == default_out,
                rate=int(row["default_samplerate"]) or 48_000,
            )
        )
    return found


def find_device(wanted: str | int | None, kind: Kind) -> DeviceInfo:
    """The device that is meant: by index, id, name or a part of the name; None or "" is the default one.

    Raises `UsageError` (`unknown_device`, `ambiguous_device`), and `ServiceError` (`no_device`) where the
    machine has no such device at all.
    """
    fitting = [each for each in list_devices() if _channels(each, kind) > 0]
    if not fitting:
        raise audio_problem(kind) or _no_device(kind, os.environ)
    text = str(wanted).strip() if wanted is not None else ""
    if not text:
        defaults = [each for each in fitting if _is_default(each, kind)]
        return (defaults or fitting)[0]
    if text.isdecimal():
        by_number = [each for each in fitting if each.index == int(text)]
        if by_number:
            return by_number[0]
    folded = text.casefold()
    tests: tuple[Callable[[DeviceInfo], bool], ...] = (
        lambda each: each.id == text,
        lambda each: each.name.casefold() == folded,
        lambda each: folded in each.name.casefold() or folded in each.id.casefold(),
    )
    for test in tests:
        hits = [each for each in fitting if test(each)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            names = ", ".join(f"{each.index} {each.name}" for each in hits[:6])
            raise UsageError(
                f"Several devices are called {text!r}: {names}",
                advice="give the number of the one you mean",
                code="ambiguous_device",
            )
    names = ", ".join(f"{each.index} {each.name}" for each in fitting[:6])
    raise UsageError(
        f"There is no {WORDS[kind]} called {text!r}",
        advice=f"choose one of: {names}",
        code="unknown_device",
    )


def refresh() -> list[DeviceInfo]:
    """Look for devices anew, so that plugged and unplugged ones are seen. Returns the new list.

    Raises ServiceError (`audio_in_use`) while a stream is open: PortAudio would close it.
    """
    sounddevice = load()
    with PORTAUDIO:
        if _open_streams:
            raise ServiceError(
                "The devices cannot be looked for anew while one is in use",
                advice="end the call first",
                code="audio_in_use",
            )
        _survive()
        # Not through the module's own `_initialize`: that one points stderr, where a terminal program may
        # be painting, elsewhere for a while.
        sounddevice._lib.Pa_Terminate()
        failed = sounddevice._lib.Pa_Initialize()
        if failed:
            raise ServiceError("PortAudio does not start again", code="no_audio")
    return list_devices()


def audio_problem(
    kind: Kind | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    devices: Callable[[], list[DeviceInfo]] = list_devices,
) -> ServiceError | None:
    """Why no call with audio can be held on this machine; None when it has a microphone and a loudspeaker.

    Codes: `no_audio_library`, `no_audio`, `no_device`.
    """
    try:
        found = devices()
    except ServiceError as error:
        return error
    kinds: tuple[Kind, ...] = ("input", "output") if kind is None else (kind,)
    for each in kinds:
        if not any(_channels(device, each) > 0 for device in found):
            return _no_device(each, environ)
    return None


def opened() -> None:
    """A stream was opened. For `streams`, under `PORTAUDIO`."""
    global _open_streams
    _open_streams += 1


def closed() -> None:
    """A stream was closed, or given up."""
    global _open_streams
    _open_streams = max(0, _open_streams - 1)


def give_up() -> None:
    """A stream could not be closed: do not let PortAudio wait for it when the program ends."""
    sounddevice = sys.modules.get("sounddevice")
    if sounddevice is not None:
        atexit.unregister(sounddevice._exit_handler)


def _channels(device: DeviceInfo, kind: Kind) -> int:
    return device.inputs if kind == "input" else device.outputs


def _is_default(device: DeviceInfo, kind: Kind) -> bool:
    return device.default_input if kind == "input" else device.default_output


def _defaults(sounddevice: Any, hosts: Any) -> tuple[int, int]:
    """PortAudio's default devices; those of the first host API that has one where it names none."""
    wanted_in, wanted_out = (int(each) for each in sounddevice.default.device)
    for host in hosts:
        if wanted_in < 0:
            wanted_in = int(host["default_input_device"])
        if wanted_out < 0:
            wanted_out = int(host["default_output_device"])
    return wanted_in, wanted_out


def _no_library() -> ServiceError:
    advice = "install PortAudio, or call with the transport text"
    if sys.platform.startswith("linux"):
        advice = (
            "install libportaudio2 (Debian, Ubuntu) or portaudio (Fedora, Arch, Alpine), "
            "or call with the transport text"
        )
    return ServiceError("The library PortAudio is not installed", advice=advice, code="no_audio_library")


def _no_device(kind: Kind, environ: Mapping[str, str]) -> ServiceError:
    """The reason and what helps, as far as the surroundings give it away."""
    message = f"This machine has no {WORDS[kind]}"
    if environ.get("SSH_CONNECTION"):
        message += " (you are connected over SSH: the devices would be those of the far side)"
        advice = "call with the transport text, or run the program where your headset is"
    elif _has_pulse(environ) and sys.platform.startswith("linux"):
        message += ", although a sound server runs"
        advice = "install libasound2-plugins (alsa-plugins-pulse), the way from ALSA to the sound server"
    elif _in_wsl():
        message += " (Windows Subsystem for Linux)"
        advice = "use WSLg and install libasound2-plugins, or call with the transport text"
    else:
        advice = "plug one in, or call with the transport text"
    return ServiceError(message, category=Category.PERMANENT, advice=advice, code="no_device")


def _has_pulse(environ: Mapping[str, str]) -> bool:
    if environ.get("PULSE_SERVER"):
        return True
    folder = environ.get("XDG_RUNTIME_DIR")
    return bool(folder) and Path(str(folder), "pulse", "native").exists()


def _in_wsl() -> bool:
    try:
        return "microsoft" in Path("/proc/version").read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return False


def _quiet_libraries() -> None:
    """Keep ALSA and JACK from writing to stderr, where a terminal program may be painting."""
    if _kept or not sys.platform.startswith("linux"):
        return
    alsa = ctypes.CFUNCTYPE(
        None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p
    )(lambda file, line, function, error, form: None)
    jack = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda text: None)
    for library, function, handler in (
        ("libasound.so.2", "snd_lib_error_set_handler", alsa),
        ("libjack.so.0", "jack_set_error_function", jack),
        ("libjack.so.0", "jack_set_info_function", jack),
    ):
        try:
            getattr(ctypes.CDLL(library), function)(handler)
        except (OSError, AttributeError):
            continue
        _kept.append(handler)
