"""What accounts have left, and what agents refer to and the vendor does not have: over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from services.agents import SyncRequest
from services.health.checks import CatalogOptions, StandardCatalog
from services.health.model import CheckKind, HealthState
from services.health.plan import Plan
from services.health.runner import Job, asked
from tests.support.scheduling import until
from tests.support.simulator import running_simulator
from tests.support.world import services_on

RETELL, ELEVENLABS = "provider:acme/retell", "provider:acme/elevenlabs"


@pytest.fixture
async def simulator():
    async with running_simulator(agents=8) as running:
        yield running


@pytest.fixture
async def world(simulator, tmp_path):
    """The services, and the catalogue that the program watches with."""
    async with services_on(simulator, tmp_path) as services:
        yield (
            services,
            StandardCatalog(
                services.open_database,
                services.open_secrets,
                services.reader,
                services.companies,
                services.clients,
                services.clock,
                CatalogOptions(services.options.database, tmp_path),
                audio=False,
            ),
        )


async def read(plan: Plan, check_id: str, seconds: float = 10.0):
    """One probe as the runner makes it, with so long to answer."""
    spec = plan.spec(check_id)

    async def run():
        return [(check_id, await spec.probe())]

    ((_, reading),) = await asked(Job(check_id, 60.0, seconds, run, (check_id,)))
    return reading


@pytest.mark.parametrize(
    ("said", "state", "message", "quota"),
    [
        (
            {"character_count": 40_000},
            HealthState.UP,
            "answers",
            "40,000 of 100,000 credits in this period; plan business",
        ),
        (
            {"character_count": 90_000},
            HealthState.DEGRADED,
            "Almost used up: 90,000 of 100,000 credits in this period; plan business",
            "90,000 of 100,000 credits in this period; plan business",
        ),
        (
            {"character_count": 100_000},
            HealthState.DEGRADED,
            "Used up: 100,000 of 100,000 credits in this period; plan business",
            "100,000 of 100,000",
        ),
        (
            {"character_count": 100_000, "max_credit_limit_extension": 50_000},
            HealthState.UP,
            "answers",
            "100,000 of 150,000 credits in this period; plan business, 50,000 of them beyond the plan",
        ),
        (
            {"character_count": 140_000, "max_credit_limit_extension": "unlimited"},
            HealthState.UP,
            "answers",
            "140,000 credits in this period; plan business, beyond them each is paid for",
        ),
    ],
)
async def test_elevenlabs_credits(simulator, world, said, state, message, quota) -> None:
    _, catalog = world
    await simulator.usage("elevenlabs", character_limit=100_000, **said)
    found = await read(await catalog.build(), ELEVENLABS)
    assert (found.state, found.message.startswith(message)) == (state, True)
    assert dict(found.facts)["quota"].startswith(quota)
    assert ", new ones on 2" in dict(found.facts)["quota"]
    assert bool(found.advice) == (state is HealthState.DEGRADED)


async def test_elevenlabs_conversations_under_way(simulator, world) -> None:
    _, catalog = world
    await simulator.usage("elevenlabs", count=7)
    found = await read(await catalog.build(), ELEVENLABS)
    assert dict(found.facts)["lines"] == "7 calls at once"


@pytest.mark.parametrize(
    ("said", "state", "message", "lines"),
    [
        ({"current_concurrency": 3}, HealthState.UP, "answers", "3 of 20 calls at once"),
        (
            {"current_concurrency": 18},
            HealthState.DEGRADED,
            "Almost used up: 18 of 20 calls at once",
            "18 of 20 calls at once",
        ),
        (
            {"current_concurrency": 20, "concurrency_burst_enabled": True},
            HealthState.DEGRADED,
            "Used up: 20 of 20 calls at once; 60 at a surcharge",
            "20 of 20 calls at once; 60 at a surcharge",
        ),
    ],
)
async def test_retell_lines(simulator, world, said, state, message, lines) -> None:
    _, catalog = world
    await simulator.usage("retell", **said)
    found = await read(await catalog.build(), RETELL)
    assert (found.state, found.message, dict(found.facts)["lines"]) == (state, message, lines)
    assert bool(found.advice) == (state is HealthState.DEGRADED)


@pytest.mark.parametrize("check_id", [RETELL, ELEVENLABS])
@pytest.mark.parametrize("fault", ["permission", "403", "500", "429", "404", "html", "shape", "drop"])
async def test_what_the_account_does_not_say_is_nobodys_fault(simulator, world, check_id, fault) -> None:
    """The key may use agents and not read the account: that is no trouble, and is asked again in an hour."""
    services, catalog = world
    plan = await catalog.build()
    await simulator.fault(f"{fault}:usage")
    found = await read(plan, check_id)
    assert (found.state, found.message) == (HealthState.UP, "answers")
    assert not {"quota", "lines"} & set(dict(found.facts))
    await simulator.clear_faults()
    services.clock.advance(seconds=60)
    again = await read(plan, check_id)
    refused = fault in ("permission", "403", "404", "html", "shape")
    assert bool({"quota", "lines"} & set(dict(again.facts))) != refused
    services.clock.advance(hours=2)
    assert {"quota", "lines"} & set(dict((await read(plan, check_id)).facts))


async def test_an_account_that_does_not_answer_takes_only_its_part_of_the_time(simulator, world) -> None:
    services, catalog = world
    plan = await catalog.build()
    await simulator.usage("elevenlabs", character_limit=100, character_count=95)
    assert (await read(plan, ELEVENLABS)).state is HealthState.DEGRADED
    await simulator.fault("hang:usage")
    services.clock.advance(seconds=60)
    # What was known a moment ago does not end because nobody says it.
    found = await read(plan, ELEVENLABS, 2.0)
    assert (found.state, found.message.partition(":")[0]) == (HealthState.DEGRADED, "Almost used up")
    services.clock.advance(hours=1)
    assert (await read(plan, ELEVENLABS, 2.0)).state is HealthState.UP


async def test_a_vendor_that_asks_to_be_left_alone_is_degraded_and_not_asked(simulator, world) -> None:
    services, catalog = world
    plan = await catalog.build()
    (connection,) = [each for each in await services.companies.connections() if each.provider == "retell"]
    client = await services.clients.client(connection)
    assert (await read(plan, RETELL)).state is HealthState.UP
    await simulator.fault("429:retell:list:retry-after=30")
    other = asyncio.create_task(client.list_agents(fresh=True))
    await until(lambda: client.stats.held_until > 0)
    asked_before = (await simulator.stats())["retell"]["requests"]
    found = await read(plan, RETELL, 0.5)
    assert (found.state, found.category) == (HealthState.DEGRADED, "rate_limit")
    assert "asks to be left alone" in found.message
    assert (await simulator.stats())["retell"]["requests"] == asked_before
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)


async def agents(services, catalog):
    """What a round finds of every agent, by its name."""
    plan = await catalog.build()
    names = {spec.id: spec.name for spec in plan.specs if spec.kind is CheckKind.AGENT}
    run = next(job.run for job in plan.jobs() if job.id == "agents")
    return {names[check_id]: reading for check_id, reading in await run()}


async def test_what_agents_refer_to_exists(simulator, world) -> None:
    services, catalog = world
    await services.sync.run(SyncRequest())
    found = await agents(services, catalog)
    assert {reading.state for reading in found.values()} == {HealthState.UP}
    assert any(dict(reading.facts).get("knowledge") for reading in found.values())


async def test_a_knowledge_base_that_retell_does_not_have(simulator, world) -> None:
    services, catalog = world
    for agent in await simulator.agents("retell"):
        try:
            await simulator.edit(agent["agent_id"], "engine", knowledge_base_ids=["knowledge_base_gone"])
        except ValueError:
            continue
    await services.sync.run(SyncRequest())
    found = await agents(services, catalog)
    told = [reading for reading in found.values() if reading.state is HealthState.DEGRADED]
    assert told
    for reading in told:
        assert reading.message == "It uses the knowledge base knowledge_base_gone, which Retell does not have"
        assert reading.advice


async def test_a_voice_that_elevenlabs_does_not_have(simulator, world) -> None:
    services, catalog = world
    first, *rest = await simulator.agents("elevenlabs")
    tts = {"tts": {"voice_id": "voice_gone"}}
    await simulator.edit(first["agent_id"], "engine", conversation_config=tts)
    await services.sync.run(SyncRequest())
    await simulator.reset_stats()
    found = await agents(services, catalog)
    reading = found[first["name"]]
    assert reading.state is HealthState.DEGRADED
    assert reading.message == "It uses the voice voice_gone, which ElevenLabs does not have"
    assert {found[agent["name"]].state for agent in rest} == {HealthState.UP}
    routes = (await simulator.stats())["elevenlabs"]["by_route"]
    assert routes["GET /v2/voices"] == 1
    assert routes["GET /v1/voices/*"] == 1
    # Not asked again before long, and once it is there the agent is well again.
    await agents(services, catalog)
    assert (await simulator.stats())["elevenlabs"]["by_route"] == routes
    await simulator.edit(
        first["agent_id"], "engine", conversation_config={"tts": {"voice_id": "21m00Tcm4TlvDq8ikWAM"}}
    )
    await services.sync.run(SyncRequest(force=True))
    assert (await agents(services, catalog))[first["name"]].state is HealthState.UP


@pytest.mark.parametrize("fault", ["permission:elevenlabs", "500:elevenlabs", "shape:elevenlabs"])
async def test_voices_that_nobody_says_anything_of_are_not_missing(simulator, world, fault) -> None:
    services, catalog = world
    first, *_ = await simulator.agents("elevenlabs")
    await simulator.edit(first["agent_id"], "engine", conversation_config={"tts": {"voice_id": "voice_gone"}})
    await services.sync.run(SyncRequest())
    await simulator.fault(fault)
    found = await agents(services, catalog)
    assert found[first["name"]].state is HealthState.UP
