"""A program that sends one message, to be killed in the middle of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from services.container import ServiceOptions, Services
from services.integrations.messages import Channel
from services.security import MemoryStore
from services.storage import DatabaseLocation


async def send(database: str, channel: str, to: str, secret: str, body: str) -> None:
    secrets = MemoryStore()
    await secrets.set("integration/1", secret)
    folder = Path(database).parent
    services = Services(
        ServiceOptions(
            database=DatabaseLocation(path=Path(database)),
            secrets_file=folder / "none.json",
            request_timeout_seconds=120,
        ),
        secrets=secrets,
    )
    try:
        more = {"subject": "Hi"} if channel == "email" else {}
        row = await services.messages.send_message(
            "acme", Channel(channel), to, body=body, idempotency_key="order-1", **more
        )
        print(row.state.value, flush=True)
    finally:
        await services.aclose()


if __name__ == "__main__":
    asyncio.run(send(*sys.argv[1:]))
