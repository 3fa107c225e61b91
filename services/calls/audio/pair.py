"""The two devices of a call: opened, switched, watched, and replaced when they are lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping

from services.blocking import in_daemon_thread
from services.calls.audio import devices
from services.calls.audio.devices import WORDS, DeviceInfo, Kind
from services.calls.audio.streams import DeviceStream, Port
from services.clock import Clock
from services.errors import Category, ServiceError

log = logging.getLogger(__name__)

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 1.5
WATCH_SECONDS = 0.2
LOSSES = 3
LOSSES_WITHIN = 10.0
"""A device that is lost this often in so many seconds is not opened again."""
KINDS: tuple[Kind, Kind] = ("output", "input")


class DevicePair:
    """Microphone and loudspeaker, each of which may be absent for a while.

    Drivers can hang, so every call into them has a thread of its own and a limit.
    """

    def __init__(
        self,
        make_port: Callable[[Kind], Port],
        clock: Clock,
        drain: Callable[[], None],
        on_problem: Callable[[ServiceError], None],
    ) -> None:
        """`drain` is called before a device is let go of; `on_problem` when one was lost."""
        self.ports: dict[Kind, Port] = {}
        """What the devices in use are connected to."""
        self._make_port = make_port
        self._clock = clock
        self._drain = drain
        self._on_problem = on_problem
        self._streams: dict[Kind, DeviceStream] = {}
        self._trouble: dict[Kind, int] = {"input": 0, "output": 0}
        self._losses: dict[Kind, deque[float]] = {"input": deque(), "output": deque()}
        self._changing = asyncio.Lock()
        self._closed = False

    @property
    def changing(self) -> bool:
        """Whether a device is being opened, switched or replaced now."""
        return self._changing.locked()

    def device(self, kind: Kind) -> DeviceInfo | None:
        """The device in use."""
        stream = self._streams.get(kind)
        return stream.device if stream is not None else None

    def trouble(self, kind: Kind) -> int:
        """Blocks that were lost or missed, over all devices of this direction."""
        port = self.ports.get(kind)
        return self._trouble[kind] + (port.trouble if port is not None else 0)

    async def open(self, wanted: Mapping[Kind, str | int | None]) -> None:
        """Open the directions that are named. Raises ServiceError."""
        async with self._changing:
            for kind in KINDS:
                if kind in wanted:
                    self._use(await self._open(kind, wanted[kind]))

    async def aclose(self) -> None:
        """Close both; whatever is being opened meanwhile is closed too."""
        self._closed = True
        streams = [stream for stream in map(self._unuse, KINDS) if stream is not None]
        await asyncio.gather(*(self._close(stream) for stream in streams))

    async def switch(self, wanted: Mapping[Kind, str | int | None]) -> None:
        """Use other devices; None leaves a direction as it is. Raises ServiceError and changes nothing."""
        async with self._changing:
            for kind in KINDS:
                name = wanted[kind]
                if name is None:
                    continue
                found = await asyncio.to_thread(devices.find_device, name, kind)
                used = self.device(kind)
                if used is None or used.id != found.id:
                    before = self._use(await self._open(kind, found.index))
                    if before is not None:
                        await self._close(before)

    async def rescan(self) -> list[DeviceInfo]:
        """Look for devices anew; both pause for it."""
        async with self._changing:
            used = {kind: stream.device for kind, stream in self._streams.items()}
            try:
                return await self._refresh()
            finally:
                for kind, device in used.items():
                    await self._come_back(kind, device)

    async def silence(self) -> None:
        """Throw away what the loudspeaker has buffered."""
        async with self._changing:
            stream = self._streams.get("output")
            if stream is None:
                return
            try:
                await in_daemon_thread(stream.restart, CLOSE_SECONDS, name="callboard-audio-silence")
            except (ServiceError, TimeoutError):
                await self._lost("output", stream)

    async def watch(self) -> None:
        """Notice devices that stopped, and replace them. Runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for kind, stream in tuple(self._streams.items()):
                if stream.dead(self._clock.monotonic()):
                    async with self._changing:
                        # It may have been switched or restarted while the lock was waited for.
                        if self._streams.get(kind) is stream and stream.dead(self._clock.monotonic()):
                            await self._lost(kind, stream)

    # -- one device -------------------------------------------------------------------------------

    async def _open(self, kind: Kind, wanted: str | int | None) -> DeviceStream:
        """An open device that is not used yet."""
        port = self._make_port(kind)
        given_up = threading.Event()
        made: list[DeviceStream] = []

        def work() -> DeviceStream:
            try:
                stream = DeviceStream(devices.find_device(wanted, kind), port, self._clock.monotonic)
                stream.open()
            except ServiceError:
                raise
            except Exception as error:  # PortAudio's own, while it lists devices
                raise ServiceError(
                    f"The {WORDS[kind]} does not open: {error}", code="device_refused"
                ) from error
            made.append(stream)
            if given_up.is_set():
                stream.close()
            return stream

        try:
            return await in_daemon_thread(work, OPEN_SECONDS, name="callboard-audio-open")
        except BaseException as error:
            given_up.set()
            for stream in made:
                self._close_behind(stream)
            if isinstance(error, TimeoutError):
                raise ServiceError(
                    f"The {WORDS[kind]} does not answer",
                    category=Category.TIMEOUT,
                    advice="choose another device, or restart the sound server",
                    code="device_stuck",
                ) from error
            raise

    async def _close(self, stream: DeviceStream) -> None:
        try:
            await in_daemon_thread(stream.close, CLOSE_SECONDS, name="callboard-audio-close")
        except TimeoutError:
            log.warning("%s did not close in time", stream.device.name)
            devices.give_up()

    def _close_behind(self, stream: DeviceStream) -> None:
        threading.Thread(target=stream.close, name="callboard-audio-close", daemon=True).start()

    def _use(self, stream: DeviceStream) -> DeviceStream | None:
        """From now on this is the device; returns the one before."""
        if self._closed:
            self._close_behind(stream)
            return None
        kind = stream.port.kind
        before = self._unuse(kind)
        self._streams[kind], self.ports[kind] = stream, stream.port
        stream.port.enabled = True
        return before

    def _unuse(self, kind: Kind) -> DeviceStream | None:
        """Stop using a direction's device; what came through it is handed on first."""
        stream = self._streams.pop(kind, None)
        if stream is not None:
            stream.port.disable()
            self._drain()
            del self.ports[kind]
            self._trouble[kind] += stream.port.trouble
        return stream

    # -- lost devices -----------------------------------------------------------------------------

    async def _lost(self, kind: Kind, stream: DeviceStream) -> None:
        """Use the default device instead, looking for devices anew if need be."""
        self._unuse(kind)
        await self._close(stream)
        name = stream.device.name
        now = self._clock.monotonic()
        losses = self._losses[kind]
        losses.append(now)
        while losses and now - losses[0] > LOSSES_WITHIN:
            losses.popleft()
        replaced = await self._replace(kind) if len(losses) < LOSSES else None
        if replaced is None:
            self._tell_lost(kind, name)
        elif replaced.id == stream.device.id:
            self._tell(f"The {WORDS[kind]} {name!r} stopped and was opened again", "device_replaced")
        else:
            self._tell(
                f"The {WORDS[kind]} {name!r} is gone; {replaced.name!r} is used instead",
                "device_replaced",
                "choose another device if that is not the one you want",
            )

    async def _replace(self, kind: Kind) -> DeviceInfo | None:
        """The default device, in use; None where there is none that opens."""
        with contextlib.suppress(ServiceError):
            self._use(await self._open(kind, None))
            return self.device(kind)
        other: Kind = "output" if kind == "input" else "input"
        used = self.device(other)
        with contextlib.suppress(ServiceError):
            await self._refresh()
            self._use(await self._open(kind, None))
        if used is not None:
            await self._come_back(other, used)
        return self.device(kind)

    async def _refresh(self) -> list[DeviceInfo]:
        """Close everything and look for devices anew."""
        for kind in KINDS:
            stream = self._unuse(kind)
            if stream is not None:
                await self._close(stream)
        return await asyncio.to_thread(devices.refresh)

    async def _come_back(self, kind: Kind, device: DeviceInfo) -> None:
        """Open a direction again after a pause: its device, else the default one."""
        for wanted in (device.id, None):
            with contextlib.suppress(ServiceError):
                self._use(await self._open(kind, wanted))
                return
        self._tell_lost(kind, device.name)

    def _tell_lost(self, kind: Kind, name: str) -> None:
        self._tell(
            f"The {WORDS[kind]} {name!r} is gone",
            "device_lost",
            "plug it in again and choose it, or choose another device",
        )

    def _tell(self, message: str, code: str, advice: str = "") -> None:
        self._on_problem(ServiceError(message, category=Category.TRANSIENT, advice=advice, code=code))
