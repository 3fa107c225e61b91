"""The vendors' own client libraries work against the simulator unchanged."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from tests.support.simulator import RunningSimulator

retell_sdk = pytest.importorskip("retell")


def _use_retell(simulator: RunningSimulator) -> None:
    client = retell_sdk.Retell(api_key=simulator.key, base_url=simulator.retell_url, max_retries=0)
    listed = client.agent.list(limit=10)
    assert len(listed.items) == 10
    assert listed.has_more
    rest = client.agent.list(limit=100, pagination_key=listed.pagination_key)
    assert len(rest.items) == 14
    everyone = [client.agent.retrieve(item.agent_id) for item in [*listed.items, *rest.items]]
    agent = next(
        found for found in everyone
        if found.response_engine.type == "retell-llm" and not found.is_published and found.version > 0
    )  # fmt: skip
    versions = client.agent.list_versions(agent.agent_id).items
    assert versions[0].version == agent.version
    assert client.agent.retrieve(agent.agent_id, version=versions[-1].version).version == versions[-1].version
    llms = client.llm.list(limit=100)
    assert agent.response_engine.llm_id in {llm.llm_id for llm in llms.items}
    llm = client.llm.update(agent.response_engine.llm_id, general_prompt="Neu")
    assert client.llm.retrieve(llm.llm_id).general_prompt == "Neu"
    flows = client.conversation_flow.list(limit=100)
    flow_id = flows.items[0].conversation_flow_id
    assert client.conversation_flow.retrieve(flow_id).nodes
    assert client.agent.update(agent.agent_id, voice_speed=1.25).voice_speed == 1.25
    client.agent.publish(agent.agent_id, version=agent.version)
    draft = client.agent.create_version(agent.agent_id, base_version=agent.version)
    assert (draft.version, draft.is_published) == (agent.version + 1, False)
    engine = {"type": "retell-llm", "llm_id": llm.llm_id}
    created = client.agent.create(response_engine=engine, voice_id="openai-Alloy", agent_name="SDK")
    client.agent.delete(created.agent_id)
    with pytest.raises(retell_sdk.APIStatusError):
        client.agent.retrieve(created.agent_id)
    assert client.voice.list()
    assert client.concurrency.retrieve().concurrency_limit == 20


async def test_retell_sdk(simulator: RunningSimulator) -> None:
    await asyncio.to_thread(_use_retell, simulator)


async def test_retell_sdk_async(simulator: RunningSimulator) -> None:
    async with retell_sdk.AsyncRetell(
        api_key=simulator.key, base_url=simulator.retell_url, max_retries=0
    ) as client:
        listed = await client.agent.list()
        agents = await asyncio.gather(*(client.agent.retrieve(item.agent_id) for item in listed.items))
        assert {agent.agent_id for agent in agents} == {item.agent_id for item in listed.items}
        with pytest.raises(retell_sdk.AuthenticationError):
            await client.with_options(api_key="wrong").agent.list()


async def test_retell_sdk_retries_what_it_is_told_to(simulator: RunningSimulator) -> None:
    await simulator.fault("429:retry-after=0:x1")
    await simulator.fault("503:x1")
    async with retell_sdk.AsyncRetell(
        api_key=simulator.key, base_url=simulator.retell_url, max_retries=2
    ) as client:
        assert len((await client.agent.list()).items) == 24
    assert (await simulator.stats())["requests"] == 3


def _elevenlabs() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("elevenlabs")


def _use_elevenlabs(simulator: RunningSimulator) -> None:
    sdk = _elevenlabs()
    convai = sdk.ElevenLabs(api_key=simulator.key, base_url=simulator.elevenlabs_url).conversational_ai
    first = convai.agents.list(page_size=20)
    second = convai.agents.list(page_size=20, cursor=first.next_cursor)
    assert (len(first.agents), len(second.agents), second.has_more) == (20, 4, False)
    agents = [convai.agents.get(agent_id=item.agent_id) for item in [*first.agents, *second.agents]]
    agent = next(
        found for found in agents if found.version_id and found.conversation_config.agent.prompt.tool_ids
    )
    tools = convai.tools.list().tools
    tool_ids = agent.conversation_config.agent.prompt.tool_ids
    assert tool_ids[0] in {tool.id for tool in tools}
    assert convai.tools.get(tool_id=tool_ids[0]).tool_config.name
    changed = convai.agents.update(agent_id=agent.agent_id, name="Neuer Name")
    assert (changed.name, changed.metadata.created_at_unix_secs) == (
        "Neuer Name",
        agent.metadata.created_at_unix_secs,
    )
    branches = convai.agents.branches.list(agent_id=agent.agent_id).results
    assert branches[0].id == changed.branch_id
    version = convai.agents.versions.get(agent_id=agent.agent_id, version_id=changed.version_id)
    assert version.id == changed.version_id
    copy = convai.agents.duplicate(agent_id=agent.agent_id)
    convai.agents.delete(agent_id=copy.agent_id)
    documents = convai.knowledge_base.list().documents
    assert convai.knowledge_base.documents.get(documentation_id=documents[0].id).name
    with pytest.raises(sdk.core.api_error.ApiError) as caught:
        convai.agents.get(agent_id=copy.agent_id)
    assert caught.value.status_code == 404


@pytest.mark.filterwarnings("ignore")
async def test_elevenlabs_sdk(simulator: RunningSimulator) -> None:
    await asyncio.to_thread(_use_elevenlabs, simulator)


@pytest.mark.filterwarnings("ignore")
async def test_elevenlabs_sdk_async(simulator: RunningSimulator) -> None:
    sdk = _elevenlabs()
    convai = sdk.AsyncElevenLabs(api_key=simulator.key, base_url=simulator.elevenlabs_url).conversational_ai
    listed = await convai.agents.list(page_size=100)
    agents = await asyncio.gather(*(convai.agents.get(agent_id=item.agent_id) for item in listed.agents))
    assert len(agents) == 24
