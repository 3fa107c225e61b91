"""A running simulator for tests, in a thread of its own so that blocking clients work as well."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

from services.simulator import LIMITED_SUFFIX, SimulatorOptions


class RunningSimulator:
    """Addresses and key of a running simulator, and its control requests; ValueError when one is refused."""

    def __init__(
        self, retell_url: str, elevenlabs_url: str, twilio_url: str, key: str, partners_url: str = ""
    ) -> None:
        self.retell_url = retell_url
        self.elevenlabs_url = elevenlabs_url
        self.twilio_url = twilio_url
        self.partners_url = partners_url
        self.key = key
        self.limited_key = key + LIMITED_SUFFIX

    async def stats(self) -> dict[str, Any]:
        return await self._control("GET", "/__stats")

    async def reset_stats(self) -> None:
        await self._control("POST", "/__stats/reset")

    async def fault(self, spec: str) -> None:
        await self._control("POST", "/__faults", {"fault": spec})

    async def faults(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._control("GET", "/__faults"))["faults"]
        return found

    async def clear_faults(self) -> None:
        await self._control("DELETE", "/__faults")

    async def agents(self, provider: str = "") -> list[dict[str, str]]:
        """`provider`, `agent_id` and `name` of every agent, in order of creation."""
        found = (await self._control("GET", "/__agents"))["agents"]
        return [agent for agent in found if provider in ("", agent["provider"])]

    async def edit(self, agent: str, part: str = "engine", **fields: Any) -> dict[str, Any]:
        """Change an agent (id or name) as a person in the vendor's dashboard would; `fields` says what."""
        path = f"/__agents/{urllib.parse.quote(agent)}/edit"
        return await self._control("POST", path, {"part": part, "set": fields})

    async def remove(self, agent: str) -> None:
        await self._control("DELETE", f"/__agents/{urllib.parse.quote(agent)}")

    async def usage(self, provider: str, **said: Any) -> None:
        """What a vendor's account says of its quota and its concurrency from now on."""
        await self._control("POST", "/__usage", {"provider": provider, "set": said})

    async def phone(self, **settings: Any) -> dict[str, Any]:
        """The telephone network, after these settings: `speed`, `advance_ms`, `number` with `outcome`, …"""
        return await self._control("POST" if settings else "GET", "/__phone", settings or None)

    async def script(self, script: dict[str, Any], agent: str = "", times: int | None = None) -> None:
        """What the next conversations play; see `services.simulator.conversation`."""
        body = {"script": script, "times": times, **({"agent": agent} if agent else {})}
        await self._control("POST", "/__script", body)

    async def conversations(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._control("GET", "/__conversations"))["conversations"]
        return found

    async def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.retell_url + path, data=data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None


@contextlib.asynccontextmanager
async def running_simulator(**options: Any) -> AsyncIterator[RunningSimulator]:
    """Run a simulator with `SimulatorOptions(**options)` until the block is left."""
    from services.simulator import Simulator

    loop = asyncio.get_running_loop()
    ready: asyncio.Future[Simulator] = loop.create_future()
    inner: dict[str, Any] = {}

    def settle(result: Simulator | None, error: BaseException | None) -> None:
        if ready.done():
            return
        if error is not None:
            ready.set_exception(error)
        elif result is not None:
            ready.set_result(result)

    async def serve() -> None:
        stop = asyncio.Event()
        inner.update(loop=asyncio.get_running_loop(), stop=stop)
        simulator = Simulator(SimulatorOptions(**options))
        await simulator.start()
        loop.call_soon_threadsafe(settle, simulator, None)
        await stop.wait()
        await simulator.stop()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            loop.call_soon_threadsafe(settle, None, error)

    thread = threading.Thread(target=run, name="simulator", daemon=True)
    thread.start()
    simulator = await ready
    try:
        urls = (simulator.retell_url, simulator.elevenlabs_url, simulator.twilio_url)
        yield RunningSimulator(*urls, simulator.options.key, simulator.partners_url)
    finally:
        inner["loop"].call_soon_threadsafe(inner["stop"].set)
        await asyncio.to_thread(thread.join)
