"""Messages of one company over the simulator, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.container import Services
from services.events import MessagesChanged
from services.integrations.messages import MessageRow, MessageService, MessageState
from services.simulator.options import ACCOUNT_SID
from services.simulator.partner_whatsapp import PHONE_NUMBER_ID
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.world import FakeClock, services_on

SMS_FROM = "+15005550006"
TO = "+493012345678"


@dataclass
class World:
    """The services of one company, its simulator, and what the bus said about messages."""

    services: Services
    simulator: RunningSimulator
    clock: FakeClock
    changes: list[MessagesChanged] = field(default_factory=list)

    @property
    def messages(self) -> MessageService:
        return self.services.messages

    async def add(self, adapter: str, *, company: str = "acme", secret: str = "", **config: Any) -> int:
        """Store an integration; the id."""
        base_url, name = config.pop("base_url", ""), config.pop("name", "")
        info = await self.services.integrations.add(
            adapter, name=name, company=company, base_url=base_url, config=config, secret=secret
        )
        assert info.id is not None
        return info.id

    async def add_twilio(self, **config: Any) -> int:
        config = {"account_sid": ACCOUNT_SID, "from": SMS_FROM, **config}
        return await self.add(
            "twilio-sms", secret=self.simulator.key, base_url=self.simulator.twilio_url, **config
        )

    async def add_whatsapp(self, **config: Any) -> int:
        config = {"phone_number_id": PHONE_NUMBER_ID, **config}
        return await self.add(
            "whatsapp",
            secret=self.simulator.key,
            base_url=f"{self.simulator.partners_url}/whatsapp",
            **config,
        )

    async def add_gateway(self, **config: Any) -> int:
        return await self.add(
            "http-messages",
            secret=self.simulator.key,
            base_url=f"{self.simulator.partners_url}/messages-gateway",
            **config,
        )

    async def until(self, message_id: str, *states: MessageState) -> MessageRow:
        """Let the network's time and ours pass, looking whenever it is due, until the message is there."""
        for _ in range(60):
            row = await self.messages.get(message_id)
            if row.state in states:
                return row
            self.clock.advance(seconds=5)
            await self.simulator.phone(advance_ms=1_000)
            await self.messages.look_at_due()
        raise AssertionError(f"it stayed {row.state}: {row.remark}")


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=2, seed=3) as running:
        yield running


@pytest.fixture
async def world(simulator: RunningSimulator, tmp_path: Path) -> AsyncIterator[World]:
    clock = FakeClock()
    async with services_on(simulator, tmp_path, clock=clock, vendors=()) as services:
        made = World(services, simulator, clock)
        services.bus.subscribe(MessagesChanged, made.changes.append)
        yield made
