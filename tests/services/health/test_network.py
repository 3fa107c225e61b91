"""One cause for everything that leaves the machine, and for everything that is kept in the database."""

from __future__ import annotations

import asyncio
import socket

import pytest

from services.agents import SyncRequest
from services.health.checks import CatalogOptions, StandardCatalog
from services.health.checks.endpoints import Host
from services.health.checks.network import NETWORK, NetworkProbe, Try, _attempt, leaves
from services.health.model import HealthState, Reading
from tests.services.health.test_accounts import simulator, world  # noqa: F401
from tests.services.health.test_service import LOST, RETELL, a_small_world
from tests.support.scheduling import until
from tests.support.servers import free_port
from tests.support.watching import FINE, GONE, state_of

VENDORS = ["https://api.retellai.com", "https://api.elevenlabs.io", "http://127.0.0.1:8080"]
PROXY = {"HTTPS_PROXY": "http://user:secret@proxy.acme.io:3128"}


async def probed(*tries: Try, urls=VENDORS, environ=None, routed=True) -> tuple[Reading, list[str]]:
    asked: list[str] = []
    answers = iter(tries)

    async def attempt(host: Host) -> Try:
        asked.append(str(host))
        return next(answers)

    async def all_urls() -> list[str]:
        return urls

    probe = NetworkProbe(all_urls, environ or {}, attempt=attempt, routed=lambda: routed)
    return await probe(), asked


R, N, S, U = Try.REACHED, Try.NO_NAME_SERVER, Try.SILENT, Try.NO_NAME


@pytest.mark.parametrize(
    ("tries", "routed", "state", "message"),
    [
        ((R, R), True, HealthState.UP, "reaches 2 of 2 hosts"),
        ((S, R), False, HealthState.UP, "reaches 1 of 2 hosts"),
        ((S, S), False, HealthState.DOWN, "This machine has no network"),
        ((N, N), True, HealthState.DOWN, "No name can be resolved: the name server does not answer"),
        ((U, N), True, HealthState.DOWN, "No name can be resolved"),
        ((U, R), True, HealthState.UP, "reaches 1 of 2 hosts"),
        ((N, S), True, HealthState.DOWN, "None of 2 hosts can be reached"),
    ],
)
async def test_what_a_machine_reaches(tries, routed, state, message) -> None:
    reading, asked = await probed(*tries, routed=routed)
    assert (reading.state, reading.message) == (state, message)
    assert asked == ["api.elevenlabs.io", "api.retellai.com"]
    assert bool(reading.advice) == (state is HealthState.DOWN)


async def test_one_silent_host_is_its_own_fault() -> None:
    """Nobody can tell its fault from the network's: its own check says so."""
    for fault in (S, U):
        reading, _ = await probed(fault, urls=VENDORS[:1])
        assert reading.state is HealthState.UP
    reading, _ = await probed(N, urls=VENDORS[:1])
    assert reading.state is HealthState.DOWN
    reading, _ = await probed(urls=VENDORS[2:])
    assert reading.message == "nothing beyond this machine is watched"


async def test_behind_a_proxy_it_is_the_proxy() -> None:
    reading, asked = await probed(R, environ=PROXY)
    assert (reading.message, asked) == ("reaches the proxy", ["proxy.acme.io:3128"])
    reading, _ = await probed(S, environ=PROXY)
    assert (reading.state, reading.message) == (HealthState.DOWN, "The proxy cannot be reached")
    assert "secret" not in repr(reading)


async def test_a_refused_connection_came_through(monkeypatch) -> None:
    assert await _attempt(Host("127.0.0.1", free_port(), False)) is Try.REACHED

    def resolve(error: int):
        def refuse(*_: object, **__: object) -> None:
            raise socket.gaierror(error, "no")

        return refuse

    monkeypatch.setattr(socket, "getaddrinfo", resolve(socket.EAI_AGAIN))
    assert await _attempt(Host("api.acme.io", 443, True)) is Try.NO_NAME_SERVER
    monkeypatch.setattr(socket, "getaddrinfo", resolve(socket.EAI_NONAME))
    assert await _attempt(Host("api.acme.io", 443, True)) is Try.NO_NAME


def test_what_leaves_the_machine() -> None:
    assert leaves("https://api.acme.io")
    assert leaves("http://10.0.0.7/llm")
    assert leaves("")
    assert not leaves("http://localhost:1234")
    assert not leaves("http://[::1]/x")


# -- on what everything hangs ---------------------------------------------------------------------


async def test_everything_that_is_kept_in_the_database_hangs_on_it(world) -> None:  # noqa: F811
    services, catalog = world
    await services.sync.run(SyncRequest())
    plan = await catalog.build()
    hanging = {spec.kind.value for spec in plan.specs if "system:database" in spec.depends_on}
    assert {"agent", "orchestrator"} <= hanging
    # The vendors of this world are on this machine.
    assert plan.spec(NETWORK) is None


async def test_what_leaves_the_machine_hangs_on_its_network(world, tmp_path) -> None:  # noqa: F811
    services, _ = world
    await services.companies.add("beta")
    await services.companies.add_connection("beta", "retell", key="another-key", base_url=VENDORS[0])
    catalog = StandardCatalog(
        services.open_database,
        services.open_secrets,
        services.reader,
        services.companies,
        services.clients,
        services.clock,
        CatalogOptions(services.options.database, tmp_path),
        audio=False,
    )
    plan = await catalog.build()
    away = {spec.id for spec in plan.specs if NETWORK in spec.depends_on}
    assert away == {spec.id for spec in plan.specs if spec.kind == "provider" and not spec.simulated}
    assert plan.spec(NETWORK) is not None


async def test_a_database_that_is_away_is_one_alert(watch) -> None:
    """And a round that cannot read the mirror tells nobody of the agents."""
    watch.world.add("system:database", company="")
    watch.world.add(RETELL, name="Retell")

    async def run():
        if "system:database" in watch.world.readings:
            raise LOST
        return [(f"agent:{place}", FINE) for place in range(20)]

    from services.health.plan import Group

    for place in range(20):
        watch.world.add(f"agent:{place}", RETELL, "system:database", group="agents")
    watch.world.groups.append(Group("agents", 60, run))
    service = await watch.service()
    await watch.round(service)
    watch.world.readings["system:database"] = LOST
    for _ in range(4):
        await watch.round(service)
    watch.world.readings.clear()
    for _ in range(3):
        await watch.round(service)
    assert [(each.check_id, each.over) for each in watch.raised] == [
        ("system:database", False),
        ("system:database", True),
    ]


async def test_who_probes_looks_at_the_database_as_soon_as_it_refuses(watch, monkeypatch) -> None:
    """Its own rounds find out long before the check has its turn."""
    a_small_world(watch)
    service = await watch.service()
    await service.check_now()

    async def refuse(work):
        raise LOST

    database = watch.databases[0]
    with monkeypatch.context() as broken:
        broken.setattr(database, "write", refuse)
        broken.setattr(database, "read", refuse)
        watch.world.readings["system:database"] = GONE

        async def down() -> bool:
            await service.tick()
            await asyncio.sleep(0)
            return state_of(service, "system:database") is HealthState.DOWN

        await until(down)


# -- what one process finds -----------------------------------------------------------------------


async def test_a_single_look_without_keys_is_nobody_elses_truth(watch) -> None:
    """A shell without the passphrase: what it finds is shown to it, and neither stored nor told."""
    watch.world.add("system:secrets", company="")
    watch.world.add(RETELL, "system:secrets", name="Retell")
    watch.world.readings["system:secrets"] = Reading(HealthState.DOWN, "locked")
    watch.world.readings[RETELL] = GONE
    single = await watch.service(start=False)
    view = await single.check_now(confirm=True)
    assert view.reason == "secrets is down; 1 connection hangs on it"
    assert not single.holder
    assert await single.incidents() == []
    assert watch.raised == []
    watch.world.readings.clear()
    with_keys = await watch.service(start=False)
    await with_keys.check_now()
    assert with_keys.holder
