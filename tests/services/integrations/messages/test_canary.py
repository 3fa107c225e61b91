"""Passwords, tokens and signing keys of messages are looked for wherever they must not be."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
import traceback

import pytest

from services.integrations.messages import Channel, MessageState
from services.integrations.model import Resolved
from services.resilience import Limits
from services.security import RedactingFilter, Secret
from tests.services.integrations.messages.conftest import TO, World
from tests.services.integrations.messages.mail_server import PASSWORD, USER, mail_server

TOKENS = {
    "twilio-sms": "twilio-canary-4f1c9e77",
    "whatsapp": "whatsapp-canary-99aa31",
    "http-messages": "gateway-canary-5b6c7d",
    "chat-webhook": "chat-canary-1f2e3d4c",
    "smtp": PASSWORD,
    "app": "app-secret-canary-77",
    "verify": "verify-canary-5511",
}


@pytest.fixture
def logged():
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setLevel(logging.DEBUG)
    handler.addFilter(RedactingFilter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    # What the test's own mail server says of itself is not the program's.
    quiet = [logging.getLogger(name) for name in ("mail.log", "mail.debug", "mail.info")]
    for logger in quiet:
        logger.disabled = True
    yield out
    for logger in quiet:
        logger.disabled = False
    root.removeHandler(handler)
    root.setLevel(before)


async def set_up(world: World, port: int, ca_file: str) -> None:
    partners = world.simulator.partners_url
    await world.add(
        "twilio-sms",
        secret=TOKENS["twilio-sms"],
        base_url=world.simulator.twilio_url,
        **{"account_sid": "AC" + "5ca1ab1e" * 4, "from": "+15005550006"},
    )
    whatsapp = await world.add(
        "whatsapp",
        secret=TOKENS["whatsapp"],
        base_url=f"{partners}/whatsapp",
        phone_number_id="106540352242922",
    )
    await world.services.integrations.set_secret(whatsapp, TOKENS["app"], name="app_secret")
    await world.services.integrations.set_secret(whatsapp, TOKENS["verify"], name="verify_token")
    await world.add(
        "http-messages", secret=TOKENS["http-messages"], base_url=f"{partners}/messages-gateway", name="hub"
    )
    await world.add(
        "chat-webhook", secret=TOKENS["chat-webhook"], base_url=f"{partners}/messages-gateway/chat"
    )
    await world.add(
        "smtp",
        secret=PASSWORD,
        host="127.0.0.1",
        port=str(port),
        user=USER,
        ca_file=ca_file,
        **{"from": "front@example.com"},
    )


async def test_no_secret_of_a_message_is_anywhere_in_clear(world, tmp_path, logged, capsys, monkeypatch):
    # More at once than the burst that one account may have: a message it refuses would test nothing.
    monkeypatch.setattr(world.services.policies, "_default_limits", Limits(burst=0))
    shown: list[str] = []
    states: set[MessageState] = set()
    with mail_server(tmp_path) as box:
        await set_up(world, box.port, box.ca_file)
        orders = [
            (Channel.SMS, TO, {}),
            (Channel.WHATSAPP, TO, {}),
            (Channel.CHAT, "room", {}),
            (Channel.SMS, TO, {"integration": "hub"}),
            (Channel.EMAIL, "bob@example.org", {"subject": "Hi"}),
        ]
        faults = ("", "revoke", "500:write", "drop:write:at=body", "html:write")
        for fault in faults:
            if fault:
                await world.simulator.fault(fault)
            # A server that repeats the password in its refusal.
            box.refusals = {"rcpt": f"550 5.7.1 {PASSWORD} is not welcome"} if fault else {}
            for channel, to, more in orders:
                row = await world.messages.send_message("acme", channel, to, body="Hello", **more)
                shown.append(repr(row))
                states.add(row.state)
            await world.simulator.clear_faults()
        await world.messages.settle(older_than_ms=0)
        world.clock.advance(minutes=1)
        await world.messages.look_at_due()
        for info in await world.services.integrations.list():
            if info.id is not None:
                resolved = Resolved(info, await world.services.integrations.secret_of(info))
                adapter = await world.messages._adapters.of(resolved)
                shown += [repr(info), repr(resolved), repr(adapter), str(vars(adapter))]
                try:
                    shown.append(await world.messages.probe(resolved))
                except Exception as error:
                    shown += [repr(error), str(vars(error)), "".join(traceback.format_exception(error))]
    # Those that were unknown may have been found out by now.
    states |= {row.state for row in await world.messages.list(limit=1000)}
    assert {MessageState.FAILED, MessageState.UNKNOWN, MessageState.SENT} <= states
    with sqlite3.connect(tmp_path / "callboard.db") as connection:
        shown += list(connection.iterdump())
    shown += [logged.getvalue(), *capsys.readouterr()]
    everything = "\n".join(shown)
    assert "Hello" in everything
    for name, token in TOKENS.items():
        assert token not in everything, name
        assert json.dumps(token)[1:-1] not in everything
    assert Secret(PASSWORD).reveal() == PASSWORD
