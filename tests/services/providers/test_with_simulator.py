"""The clients against the stateful simulator: every method once, then each of its faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from services.errors import ServiceError
from services.http import digest
from services.model import Provider
from tests.support.simulator import RunningSimulator, running_simulator

Connect = Callable[..., Any]


@pytest.fixture
async def sim() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=12, seed=3) as running:
        yield running


def url(sim: RunningSimulator, provider: Provider) -> str:
    return sim.retell_url if provider is Provider.RETELL else sim.elevenlabs_url


async def test_retell_from_list_to_engine(sim: RunningSimulator, connect: Connect) -> None:
    async with connect(sim.retell_url, key=sim.key) as client:
        assert (await client.check()).name
        agents = await client.list_agents()
        assert agents
        engines = {wire.data["llm_id"] for wire in await client.list_llms()}
        engines |= {wire.data["conversation_flow_id"] for wire in await client.list_flows()}
        for summary in agents:
            agent = await client.agent(summary.data["agent_id"])
            engine = agent.data["response_engine"]
            if engine["type"] == "retell-llm":
                assert (await client.llm(engine["llm_id"])).data["llm_id"] in engines
            elif engine["type"] == "conversation-flow":
                flow = await client.flow(engine["conversation_flow_id"])
                assert flow.data["conversation_flow_id"] in engines
            versions = await client.list_agent_versions(summary.data["agent_id"])
            first = await client.agent(summary.data["agent_id"], versions[-1].data["version"])
            assert first.data["version"] == versions[-1].data["version"]
        assert "concurrency_limit" in (await client.concurrency()).data


async def test_elevenlabs_from_list_to_tools(sim: RunningSimulator, connect: Connect) -> None:
    async with connect(sim.elevenlabs_url, Provider.ELEVENLABS, key=sim.key) as client:
        assert (await client.check()).name
        versioned = 0
        tools = {wire.data["id"] for wire in await client.list_tools()}
        for summary in await client.list_agents():
            agent_id = summary.data["agent_id"]
            agent = await client.agent(agent_id)
            prompt = agent.data["conversation_config"]["agent"]["prompt"]
            for tool_id in prompt.get("tool_ids", []):
                assert tool_id in tools
                assert (await client.tool(tool_id)).data["id"] == tool_id
            for document in prompt.get("knowledge_base", []):
                assert (await client.knowledge_document(document["id"])).data["id"] == document["id"]
            branches = await client.list_branches(agent_id)
            version_id = agent.data.get("version_id")
            assert bool(branches) == bool(version_id)
            if version_id:
                versioned += 1
                assert agent.data["branch_id"] in {branch.data["id"] for branch in branches}
                assert (await client.version(agent_id, version_id)).data["agent_id"] == agent_id
                again = await client.agent(agent_id, version_id=version_id)
                assert again.data["version_id"] == version_id
        assert versioned


@pytest.mark.parametrize("provider", list(Provider))
async def test_hundreds_of_agents_over_many_pages(connect: Connect, provider: Provider) -> None:
    async with (
        running_simulator(agents=502) as sim,
        connect(url(sim, provider), provider, key=sim.key) as client,
    ):
        agents = await client.list_agents()
        assert len({wire.data["agent_id"] for wire in agents}) == len(agents) == 251


@pytest.mark.parametrize("provider", list(Provider))
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("revoke", "wrong_key"),
        ("permission", "missing_permission"),
        ("500", "server_error"),
        ("404", "not_found"),
        ("429", "rate_limited"),
        ("429:retry-after=300", "rate_limited"),
        ("truncate", "truncated"),
        ("html", "html"),
        ("shape", "wrong_shape"),
        ("drop", "connection_lost"),
        ("drop:at=body", "connection_lost"),
    ],
)
async def test_each_fault_is_told(
    sim: RunningSimulator, connect: Connect, provider: Provider, fault: str, code: str
) -> None:
    [first, *_] = await sim.agents(provider.value)
    await sim.fault(fault)
    async with connect(url(sim, provider), provider, key=sim.key) as client:
        for call in (client.check, client.list_agents, lambda: client.agent(first["agent_id"])):
            with pytest.raises(ServiceError) as caught:
                await call()
            assert caught.value.code == code
            assert caught.value.advice


@pytest.mark.parametrize("provider", list(Provider))
@pytest.mark.parametrize(
    "fault", ["500:x3", "429:x2", "429:retry-after=2:x3", "drop:x3", "truncate:x2", "503:x1"]
)
async def test_a_passing_fault_is_outlived(
    sim: RunningSimulator, connect: Connect, provider: Provider, fault: str
) -> None:
    await sim.fault(fault)
    async with connect(url(sim, provider), provider, key=sim.key) as client:
        assert await client.list_agents()
        assert client.stats.retries >= 1
        assert client.stats.requests == (await sim.stats())["requests"]


@pytest.mark.parametrize("provider", list(Provider))
async def test_wrong_and_limited_keys_are_told_apart(
    sim: RunningSimulator, connect: Connect, provider: Provider
) -> None:
    codes = []
    for key in ("not-the-key", sim.limited_key):
        async with connect(url(sim, provider), provider, key=key) as client:
            with pytest.raises(ServiceError) as caught:
                await client.check()
            codes.append(caught.value.code)
    assert codes == ["wrong_key", "missing_permission"]


@pytest.mark.parametrize("provider", list(Provider))
async def test_key_order_and_number_spelling_are_no_change_but_an_edit_is(
    sim: RunningSimulator, connect: Connect, provider: Provider
) -> None:
    [first, *_] = await sim.agents(provider.value)
    async with connect(url(sim, provider), provider, key=sim.key) as client:
        before = await client.agent(first["agent_id"])
        await sim.fault("reorder")
        reordered = await client.agent(first["agent_id"])
        assert reordered.text != before.text
        assert digest(reordered.text) == digest(before.text)
        await sim.clear_faults()
        await sim.edit(
            first["agent_id"],
            part="agent",
            **{"agent_name" if provider is Provider.RETELL else "name": "New"},
        )
        assert digest((await client.agent(first["agent_id"])).text) != digest(before.text)


async def test_the_simulator_sees_no_more_at_once_than_allowed(connect: Connect) -> None:
    async with (
        running_simulator(agents=60, latency_ms=5) as sim,
        connect(sim.elevenlabs_url, Provider.ELEVENLABS, key=sim.key, concurrency=7) as client,
    ):
        agents = await client.list_agents()
        await asyncio.gather(*(client.agent(wire.data["agent_id"]) for wire in agents))
        assert client.stats.max_in_flight == 7
        assert (await sim.stats())["max_in_flight"] <= 7
