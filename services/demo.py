"""The demo company: a database of its own, and the simulator as a child process on loopback.

The demo goes through the same clients as a real company. Its simulator is started when the first
request needs it, ends with this process, and is shared: a second Callboard that opens the demo finds
the running one by a small file beside the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from services.errors import Category, ServiceError
from services.model import AgentCard, Provider
from services.security import MemoryStore
from services.simulator.faults import parse_fault
from services.simulator.options import ACCOUNT_SID

if TYPE_CHECKING:
    from services.companies import CompanyService
    from services.integrations.registry import IntegrationService

COMPANY = "Harbour Dental"
"""The demo tenant's name."""


@dataclass(frozen=True, slots=True)
class DemoIntegration:
    """One of the demo's integrations: which adapter, where at the simulator, and its options.

    Below `path` of the partners' port; an empty one means the port of Twilio.
    """

    adapter: str
    path: str
    service: str
    """What the simulator's faults call it."""
    config: Mapping[str, object] = field(default_factory=dict)


INTEGRATIONS: Mapping[str, DemoIntegration] = {
    "HubSpot": DemoIntegration("hubspot", "/hubspot", "hubspot"),
    "Routing model": DemoIntegration("openai", "/llm/v1", "openai", {"model": "gpt-5-mini"}),
    "SMS": DemoIntegration("twilio-sms", "", "twilio", {"account_sid": ACCOUNT_SID, "from": "+15005550006"}),
    "WhatsApp": DemoIntegration("whatsapp", "/whatsapp", "whatsapp", {"phone_number_id": "106540352242922"}),
}
"""The demo's integrations by name. Bookings stay simulated in the program, the knowledge base is local."""

START_SECONDS = 20.0


class DemoStore(MemoryStore):
    """The demo's keys: they open a simulator on this machine and nothing else."""

    label = "demo keys"


class Demo:
    """The demo's simulator and keys. `command` starts a simulator that announces itself in one JSON line."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.announcement = folder / "simulator.json"
        self.secrets = DemoStore()
        self._folder = folder
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None
        self._addresses: dict[Provider, str] | None = None
        self._key = ""
        self._twilio = ""
        self._partners = ""
        self._starting = asyncio.Lock()

    async def addresses(self) -> Mapping[Provider, str]:
        """Where the simulator listens, by vendor; starts it first. Raises ServiceError when it cannot."""
        async with self._starting:
            if self._addresses is None:
                found = await self._running() or await self._start()
                self._key = str(found["key"])
                self._twilio = str(found["twilio"])
                self._partners = str(found["partners"])
                self._addresses = {
                    Provider.RETELL: str(found["retell"]),
                    Provider.ELEVENLABS: str(found["elevenlabs"]),
                }
            return self._addresses

    async def twilio_account(self) -> tuple[str, str, str]:
        """SID, token and base URL of the simulated Twilio account; starts the simulator first.

        Raises ServiceError when it cannot.
        """
        await self.addresses()
        return ACCOUNT_SID, self._key, self._twilio

    async def partner_addresses(self) -> Mapping[str, str]:
        """Where the demo's integrations are served, by name; starts the simulator first."""
        await self.addresses()
        return {
            name: f"{self._partners}{one.path}" if one.path else self._twilio
            for name, one in INTEGRATIONS.items()
        }

    async def prepare(self, companies: CompanyService, integrations: IntegrationService) -> bool:
        """See that the demo company, its integrations and their keys exist; says whether it was made now."""
        addresses = await self.addresses()
        existing = await companies.connections()
        made = False
        if not any(company.name == COMPANY for company in await companies.list()):
            await companies.add(COMPANY)
            made = True
        have = {connection.provider for connection in existing if connection.company == COMPANY}
        for provider, address in addresses.items():
            if provider not in have:
                await companies.add_connection(COMPANY, provider, key=self._key, base_url=address)
        for connection in await companies.connections():
            await self.secrets.set(connection.secret_name, self._key)
        await self._prepare(integrations)
        return made

    async def _prepare(self, integrations: IntegrationService) -> None:
        known = {info.name: info for info in await integrations.list() if info.id is not None}
        addresses = await self.partner_addresses()
        for name, one in INTEGRATIONS.items():
            if name in known:
                await self.secrets.set(known[name].secret_name, self._key)
            else:
                await integrations.add(
                    one.adapter,
                    name=name,
                    company=COMPANY,
                    base_url=addresses[name],
                    config=one.config,
                    secret=self._key,
                    actor="demo",
                )

    async def break_agent(self, card: AgentCard, fault: str = "500") -> None:
        """Let every request for this agent fail until `mend_agent`; for faults see `simulator --help`."""
        await self._control("POST", "/__faults", {"fault": f"{fault}:{card.agent_id}"})

    async def mend_agent(self, card: AgentCard) -> None:
        """Take this agent's faults away."""
        await self._control("DELETE", f"/__faults?target={card.agent_id}")

    async def edit_agent(self, card: AgentCard) -> None:
        """Change the agent as somebody in the vendor's dashboard would."""
        await self._control("POST", f"/__agents/{card.agent_id}/edit")

    def service_of(self, check_id: str, name: str) -> str:
        """The vendor or partner that a check watches, as faults call it; empty for what is not simulated."""
        kind, _, what = check_id.partition(":")
        if kind == "provider":
            return what.rpartition("/")[2]
        return INTEGRATIONS[name].service if kind == "integration" and name in INTEGRATIONS else ""

    async def faults_of(self, service: str) -> list[str]:
        """The faults that strike this vendor or partner as a whole, not single agents of it."""
        found = await self._control("GET", "/__faults")
        specs = [str(active["fault"]) for active in found["faults"]]
        vendors = {*Provider, "twilio"}
        wide = service if service in vendors else "partners"
        return [
            spec
            for spec, fault in ((spec, parse_fault(spec)) for spec in specs)
            if fault.provider in (None, wide) and fault.target.lower() in ("", service)
        ]

    async def break_service(self, service: str, fault: str) -> None:
        """Let every request to this vendor or partner fail until `mend_service`."""
        await self._control("POST", "/__faults", {"fault": f"{fault}:{service}"})

    async def mend_service(self, service: str) -> None:
        """Take away what strikes this vendor or partner, also where it strikes others."""
        for spec in await self.faults_of(service):
            await self._control("DELETE", f"/__faults?target={quote(spec, safe='')}")

    async def aclose(self) -> None:
        """End the simulator, if this process started it."""
        process, self._process, self._addresses = self._process, None, None
        if process is None:
            return
        self.announcement.unlink(missing_ok=True)
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 3)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _running(self) -> dict[str, Any] | None:
        """The announcement of a simulator that another process started and that answers."""
        try:
            found = json.loads(await asyncio.to_thread(self.announcement.read_text))
            await _request(str(found["retell"]), "GET", "/__stats")
            await _request(str(found["elevenlabs"]), "GET", "/__stats")
            await _request(str(found["twilio"]), "GET", "/__stats")
            await _request(str(found["partners"]), "GET", "/__stats")
        except (OSError, ValueError, KeyError, TypeError, ServiceError):
            return None
        return found if isinstance(found, dict) and "key" in found else None

    async def _start(self) -> dict[str, Any]:
        failed = ServiceError(
            "The demo's simulator did not start",
            category=Category.TRANSIENT,
            advice="try: callboard simulator; it says what is wrong",
            code="demo",
        )
        environment = {**os.environ, "CALLBOARD_PASSPHRASE": ""}
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdout is not None  # noqa: S101  # asked for above
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
            found = json.loads(line)
            if not isinstance(found, dict):
                raise failed
        except (TimeoutError, ValueError) as error:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            raise failed from error
        await asyncio.to_thread(self._announce, found)
        return found

    def _announce(self, found: Mapping[str, object]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.announcement.write_text(json.dumps(found), encoding="utf-8")

    async def _control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        return await _request((await self.addresses())[Provider.RETELL], method, path, body)


async def _request(base_url: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    """One request to the simulator's control side. Raises ServiceError when it does not accept it."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=3.0, trust_env=False) as client:
            answer = await client.request(method, base_url + path, json=body)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found
    except (httpx.HTTPError, ValueError) as error:
        raise ServiceError(
            "The demo's simulator does not answer", advice="close and reopen the demo", code="demo"
        ) from error
