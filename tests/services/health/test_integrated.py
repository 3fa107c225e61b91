from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

from services.clock import SystemClock
from services.errors import VaultLocked
from services.health import Configured, Finding, Host, IntegrationsCheck, Level, Network, redis
from services.health.integrated import stored
from services.integrations.model import AdapterInfo, Kind
from services.security import MemoryStore, SecretStore
from tests.support.redis import PASSWORD, RedisServer, redis_server  # noqa: F401  # a fixture
from tests.support.servers import free_port

ADAPTERS = {
    info.name: info
    for info in (
        AdapterInfo(
            "hubspot", Kind.CRM, "HubSpot", "private-app token", default_url="https://api.hubapi.com"
        ),
        AdapterInfo("smtp", Kind.MESSAGES, "E-mail", "password", secret_required=False),
        AdapterInfo("phone", Kind.MESSAGES, "Phone call"),
    )
}
HUBSPOT = (1, "HubSpot", "crm", "hubspot", "", "{}", True, "acme")


class Locked(MemoryStore):
    locked = True

    async def get(self, name: str) -> str | None:
        raise VaultLocked("The secret store is locked")


async def looked(store: SecretStore, *rows: Sequence[object]) -> list[tuple[Level, str]]:
    async def opened() -> SecretStore:
        return store

    findings = await IntegrationsCheck(stored(rows, ADAPTERS), opened)()
    return [(finding.level, finding.found) for finding in findings]


async def test_a_key_that_is_needed_and_not_there_fails() -> None:
    store = MemoryStore()
    assert await looked(store, HUBSPOT) == [
        (Level.FAIL, "crm by hubspot of acme: its private-app token is missing")
    ]
    await store.set("integration/1", "canary")
    assert await looked(store, HUBSPOT) == [
        (Level.OK, "crm by hubspot of acme: its private-app token is stored")
    ]


async def test_what_cannot_be_seen_is_not_called_missing() -> None:
    ((level, found),) = await looked(Locked(), HUBSPOT)
    assert (level, "cannot be seen" in found) == (Level.WARN, True)


async def test_each_is_told_as_what_it_is() -> None:
    told = await looked(
        MemoryStore(),
        (2, "mail", "messages", "smtp", "", "{}", 1, None),
        (3, "call", "messages", "phone", "", "{}", 1, "acme"),
        (4, "old", "crm", "hubspot", "", "{}", 0, "acme"),
        (5, "new", "crm", "salesforce", "", "{}", 1, "acme"),
    )
    assert told == [
        (Level.OK, "messages by smtp: no password is stored; not every service wants one"),
        (Level.OK, "messages by phone of acme: it needs no key"),
        (Level.OK, "crm by hubspot of acme: its private-app token is missing; it is switched off"),
        (Level.FAIL, "crm by salesforce of acme: this version has no such adapter"),
    ]


async def test_without_any_it_says_what_stands_in() -> None:
    ((level, found),) = await looked(MemoryStore())
    assert (level, found) == (Level.OK, "none is configured: what agents order is simulated")


def test_where_they_are() -> None:
    mail = {"host": "mail.example.com", "tls": "implicit"}
    found = stored(
        [
            HUBSPOT,
            (2, "own", "crm", "hubspot", "http://127.0.0.1:1/x", "{}", True, None),
            (3, "mail", "messages", "smtp", "", json.dumps(mail), True, None),
            (4, "relay", "messages", "smtp", "", json.dumps({**mail, "port": "2525"}), True, None),
            (5, "call", "messages", "phone", "", "{}", True, None),
            (6, "off", "crm", "hubspot", "", "{}", False, None),
            (7, "odd", "messages", "smtp", "", '{"host": "x", "port": "soon"}', True, None),
        ],
        ADAPTERS,
    )
    assert [each.host and (each.host.name, each.host.url) for each in found] == [
        ("HubSpot (acme)", "https://api.hubapi.com"),
        ("own", "http://127.0.0.1:1/x"),
        ("mail", "tcp://mail.example.com:465"),
        ("relay", "tcp://mail.example.com:2525"),
        None,
        None,
        None,
    ]


async def test_a_service_of_the_environment() -> None:
    async def opened() -> SecretStore:
        raise AssertionError("nothing of it is in there")

    named = Configured("CRM_API_URL", "crm", "the environment", key="key", given=True)
    wrong = replace(named, given=False, problem="'nonsense' is no address")
    first, second = await IntegrationsCheck([named, wrong], opened)()
    assert (first.level, first.found) == (Level.OK, "crm by the environment: its key is in the environment")
    assert (second.level, second.advice) == (Level.FAIL, "Correct the variable, or unset it")


async def test_a_mail_server_is_connected_to() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def reached(port: int) -> Finding:
        network = Network([Host("mail", f"tcp://127.0.0.1:{port}", used=True)], {}, SystemClock())
        try:
            return (await network.hosts())[0]
        finally:
            await network.aclose()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        assert (await reached(server.sockets[0].getsockname()[1])).level is Level.OK
    refused = await reached(free_port())
    assert (refused.level, "refused" in refused.found) == (Level.FAIL, True)


async def test_redis_is_told_without_its_password(redis_server: RedisServer) -> None:  # noqa: F811
    (found,) = await redis(redis_server.url, SystemClock())
    assert found.level is Level.OK
    assert f"127.0.0.1:{redis_server.port}" in found.found
    assert PASSWORD not in found.found
    (lost,) = await redis(f"redis://:canary@127.0.0.1:{free_port()}/0", SystemClock())
    assert (lost.level, "each process's own" in lost.found, "canary" in lost.found) == (
        Level.WARN,
        True,
        False,
    )
