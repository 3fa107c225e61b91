"""What agents refer to, and which of their versions are used, in bundles as the vendors send them."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agents import SyncRequest
from services.agents.bundles import BundlePart
from services.clock import SystemClock
from services.health.checks.needs import Needs, Target, read_needs
from services.health.checks.releases import (
    Binding,
    Use,
    Versions,
    bindings_of,
    must_ask,
    number_words,
    problems,
    release_words,
    tags_of,
    target_problem,
)
from services.health.model import HealthState
from services.model import Provider
from services.simulator.retell_store import RetellStore
from tests.services.health.test_accounts import agents, simulator, world  # noqa: F401

# -- what a bundle holds itself -------------------------------------------------------------------


def retell(agent: dict[str, Any], engine: dict[str, Any] | None = None) -> Needs:
    parts = [("agent", agent)] + ([("engine", engine)] if engine is not None else [])
    texts = [BundlePart(kind, str(place), json.dumps(data)) for place, (kind, data) in enumerate(parts)]
    return read_needs(Provider.RETELL, texts)


def elevenlabs(agent: dict[str, Any], *tools: dict[str, Any]) -> Needs:
    parts = [BundlePart("agent", "agent_1", json.dumps(agent))]
    parts += [BundlePart("tool", tool["id"], json.dumps(tool)) for tool in tools]
    return read_needs(Provider.ELEVENLABS, parts)


STORE = RetellStore(120, 1, SystemClock())
EVERY = [agent.latest.data for agent in STORE.agents.values()]
FLOWS = [
    engine.latest.data
    for agent in EVERY
    if (engine := STORE.engine_of(agent)[0]) is not None and engine.latest.data.get("nodes")
]


def test_whatever_the_vendor_would_send_lacks_nothing() -> None:
    for data in EVERY:
        engine = STORE.engine_of(data)[0]
        assert retell(data, engine.latest.data if engine is not None else None).missing == ()


@given(st.sampled_from([flow for flow in FLOWS if flow["tools"]]), st.data())
def test_a_function_or_node_taken_out_of_a_flow_is_missed_and_nothing_else(flow, data) -> None:
    broken = copy.deepcopy(flow)
    place = data.draw(st.integers(0, len(broken["tools"]) - 1))
    gone = broken["tools"].pop(place)["tool_id"]
    assert retell({}, broken).missing == (("function", gone),)
    broken = copy.deepcopy(flow)
    place = data.draw(st.integers(0, len(broken["nodes"]) - 1))
    gone = broken["nodes"].pop(place)["id"]
    assert set(retell({}, broken).missing) == {("node", gone)}


def node(kind: str, **more: Any) -> dict[str, Any]:
    return {"id": more.pop("id", "n1"), "type": kind, **more}


T1 = {"tool_id": "t1"}
SWAP = {"type": "agent_swap", "agent_id": "a"}
MCP = {"name": "crm", "url": "https://mcp.acme.io/sse"}
WARM = {
    "type": "agentic_warm_transfer",
    "agentic_transfer_config": {"transfer_agent": {"agent_id": "agent_t", "agent_version": 2}},
}


@pytest.mark.parametrize(
    ("engine", "missing"),
    [
        ({"nodes": [node("function", tool_id="t9", tool_type="local")]}, [("function", "t9")]),
        ({"nodes": [node("function", tool_id="t9", tool_type="shared")]}, []),
        ({"nodes": [node("subagent", tool_ids=["t1", "t9"])], "tools": [T1]}, [("function", "t9")]),
        (
            {
                "nodes": [node("component", component_id="c1", component_type="local")],
                "components": [
                    {"nodes": [node("function", tool_id="t1", tool_type="local")], "tools": [T1]}
                ],
            },
            [],
        ),
        (
            {"nodes": [node("component", component_id="c1", component_type="local")]},
            [("local component", "c1")],
        ),
        ({"nodes": [node("component", component_id="c1", component_type="shared")]}, []),
        ({"nodes": [node("mcp", mcp_id="m1")]}, [("local MCP server", "m1")]),
        ({"nodes": [node("mcp", mcp_id="m1")], "mcps": [MCP]}, []),
        ({"general_tools": [{"type": "mcp", "name": "x", "mcp_id": "m1"}]}, [("local MCP server", "m1")]),
        ({"nodes": [node("conversation", edges=[{"destination_node_id": "n9"}])]}, [("node", "n9")]),
        ({"nodes": [node("agent_swap", agent_id="a", edge={"destination_node_id": "n9"})]}, [("node", "n9")]),
        ({"nodes": [node("conversation", edges=[{"id": "not joined to anything yet"}])]}, []),
        ({"nodes": [node("end")], "start_node_id": "n9"}, [("node", "n9")]),
        (
            {"states": [{"name": "a", "edges": [{"destination_state_name": "b"}]}], "starting_state": "c"},
            [("state", "b"), ("state", "c")],
        ),
        ({"states": [{"name": "a", "edges": [{"destination_state_name": "a"}]}], "starting_state": "a"}, []),
    ],
)  # fmt: skip
def test_what_an_engine_names_and_does_not_hold(engine, missing) -> None:
    assert list(retell({}, engine).missing) == missing


def swap(version: object) -> dict[str, Any]:
    return node("agent_swap", agent_id="a", agent_version=version)


@pytest.mark.parametrize(
    ("engine", "targets"),
    [
        ({"general_tools": [{**SWAP, "agent_version": 3}]}, {Target("a", 3)}),
        ({"general_tools": [{**SWAP, "agent_version": 3.0}]}, {Target("a", 3)}),
        ({"general_tools": [{"type": "agent_swap", "agent_id": "{{who}}"}]}, set()),
        ({"states": [{"tools": [{**SWAP}]}]}, {Target("a")}),
        ({"states": [{"tools": [{"transfer_option": WARM}]}]}, {Target("agent_t", 2)}),
        ({"nodes": [node("transfer_call", transfer_option=WARM)]}, {Target("agent_t", 2)}),
        ({"nodes": [swap("production")]}, {Target("a", "production")}),
        ({"nodes": [swap("latest")]}, {Target("a")}),
        ({"nodes": [node("subagent", tools=[{**SWAP}])]}, {Target("a")}),
        ({"components": [{"nodes": [node("agent_swap", agent_id="a")]}]}, {Target("a")}),
    ],
)  # fmt: skip
def test_to_whom_a_retell_agent_hands_over(engine, targets) -> None:
    assert retell({}, engine).targets == targets


def test_everything_else_a_retell_bundle_refers_to() -> None:
    needs = retell(
        {
            "version": 4,
            "is_published": False,
            "pre_session_tools": [{"type": "custom", "url": "https://p.io"}],
        },
        {
            "knowledge_base_ids": ["kb1"],
            "mcps": [MCP],
            "nodes": [
                node("subagent", knowledge_base_ids=["kb2"]),
                node("component", id="n2", component_id="c1", component_type="shared"),
            ],
        },
    )
    assert needs.documents == {"kb1", "kb2"}
    assert needs.components == {"c1"}
    assert needs.tool_urls == {"https://p.io", "https://mcp.acme.io/sse"}
    assert (needs.version, needs.published) == (4, False)


def test_everything_an_elevenlabs_bundle_refers_to() -> None:
    transfer = {"type": "system", "params": {"system_tool_type": "transfer_to_agent", "transfers": [
        {"agent_id": "agent_2", "condition": "billing"}, {"agent_id": None, "node_id": "n3"},
    ]}}  # fmt: skip
    prompt = {
        "tool_ids": ["tool_1"],
        "built_in_tools": {"transfer_to_agent": transfer, "end_call": None},
        "mcp_server_ids": ["mcp_1"],
        "native_mcp_server_ids": ["zendesk"],
        "knowledge_base": [{"type": "file", "id": "doc_1"}, {"type": "folder", "id": "folder_1"}],
        "custom_llm": {"url": "https://llm.acme.io", "api_key": {"secret_id": "sec_1"}},
    }
    nodes = {
        "n1": {
            "type": "override_agent",
            "conversation_config": {
                "agent": {"prompt": {"tool_ids": ["tool_2"], "mcp_server_ids": ["mcp_2"]}},
                "tts": {"voice_id": "voice_3"},
            },
            "additional_tool_ids": ["tool_3"],
            "additional_knowledge_base": [{"type": "url", "id": "doc_2"}],
        },
        "n2": {"type": "standalone_agent", "agent_id": "agent_3"},
        "n3": {"type": "tool", "tools": [{"tool_id": "tool_4"}, {"tool_id": "tool_1"}]},
    }
    speech = {"voice_id": "voice_1", "supported_voices": [{"label": "x", "voice_id": "voice_2"}]}
    agent = {
        "conversation_config": {
            "agent": {"prompt": prompt},
            "tts": speech,
            "language_presets": {"de": {"overrides": {"tts": {"voice_id": "voice_4"}}}},
        },
        "workflow": {"nodes": nodes, "edges": {}},
        "platform_settings": {
            "workspace_overrides": {
                "webhooks": {"post_call_webhook_id": "hook_1"},
                "conversation_initiation_client_data_webhook": {
                    "url": "https://hooks.acme.io",
                    "request_headers": {"X-Key": {"secret_id": "sec_2"}, "X-Plain": "y"},
                },
            }
        },
    }
    tool = {
        "id": "tool_1",
        "tool_config": {
            "type": "webhook",
            "api_schema": {
                "url": "https://api.acme.io",
                "request_headers": {"Authorization": {"secret_id": "sec_3"}},
                "auth_connection": {"auth_connection_id": "auth_1"},
            },
        },
    }
    needs = elevenlabs(agent, tool)
    assert needs.missing == ()
    assert needs.tool_ids == {"tool_2", "tool_3", "tool_4"}
    assert needs.mcp_servers == {"mcp_1", "mcp_2"}
    assert needs.documents == {"doc_1", "doc_2"}
    assert needs.secrets == {"sec_1", "sec_2", "sec_3"}
    assert (needs.logins, needs.hooks) == ({"auth_1"}, {"hook_1"})
    assert needs.targets == {Target("agent_2"), Target("agent_3")}
    assert needs.voices == {"voice_1", "voice_2", "voice_3", "voice_4"}
    assert elevenlabs(agent).missing == (("tool", "tool_1"),)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "nodes", "tools", "components", "states", "edges", "mcps", "conversation_config", "agent",
            "prompt", "workflow", "tool_ids", "transfers", "params", "transfer_option", "agent_id",
            "agent_version", "type",
        ]),
        inner,
        max_size=5,
    ),
)  # fmt: skip


@given(st.sampled_from(Provider), JSON, JSON)
def test_no_shape_is_too_odd_to_be_read(provider, agent, engine) -> None:
    parts = [
        BundlePart(kind, "x", json.dumps(data))
        for kind, data in (("agent", agent), ("engine", engine), ("tool", engine))
    ]
    read_needs(provider, parts)


# -- which versions are met -----------------------------------------------------------------------

DRAFT = Needs(version=3, published=False)
PUBLISHED = Needs(version=3, published=True)
NEW = Needs(version=0, published=False)
RELEASED = Versions(frozenset({0, 1, 2, 3}), frozenset({0, 1, 2}))
NEVER = Versions(frozenset({0, 1, 2, 3}), frozenset())


def number(version: int | str | None = None, name: str = "+15550100") -> Binding:
    return Binding(name, "is answered by", version)


@pytest.mark.parametrize(
    ("needs", "use", "told"),
    [
        # A draft ahead of what is published is work, and so is an agent that nothing leads to.
        (DRAFT, Use((number(),), versions=RELEASED), []),
        (DRAFT, Use(versions=NEVER), []),
        (NEW, Use(), []),
        (PUBLISHED, Use((number(),)), []),
        (DRAFT, Use((number(2),), versions=RELEASED), []),
        (NEW, Use((number(),)), ["+15550100 leads to it, and no version of it was ever published"]),
        (
            DRAFT,
            Use((number(), number(name="+15550101")), versions=NEVER),
            ["+15550100 and 1 more lead to it, and no version of it was ever published"],
        ),
        (NEW, Use(handed=(None,)), ["Another agent leads to it, and no version of it was ever published"]),
        # Nobody said which versions there are.
        (DRAFT, Use((number(),)), []),
        (DRAFT, Use((number(7),)), []),
        (DRAFT, Use((number(7),), versions=RELEASED),
         ["+15550100 is answered by its version 7, which Retell does not have"]),
        (DRAFT, Use((number(3),), versions=RELEASED),
         ["+15550100 is answered by its version 3, which was never published"]),
        (DRAFT, Use((number(1),), versions=RELEASED),
         ["+15550100 is answered by its version 1, and version 2 is published"]),
        # A part of the calls tries the newest one out.
        (DRAFT, Use((number(1), number(2)), versions=RELEASED), []),
        (DRAFT, Use((number(1), number()), versions=RELEASED), []),
        (DRAFT, Use((number(1), number(2, "+15550101")), versions=RELEASED),
         ["+15550100 is answered by its version 1, and version 2 is published"]),
        (DRAFT, Use((number("production"),), tags={"production": 1}, versions=RELEASED),
         ["+15550100 is answered by its version 1, and version 2 is published"]),
        (DRAFT, Use((number("unheard of"),), versions=RELEASED), []),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_versions_that_are_used(needs, use, told) -> None:
    found = list(problems(needs, use))
    assert [message for message, _ in found] == told
    assert all(advice for _, advice in found)


@given(st.sets(st.integers(0, 9), min_size=1), st.data())
def test_numbers_on_the_newest_published_version_or_the_newest_are_never_told(there, data) -> None:
    published = data.draw(st.sets(st.sampled_from(sorted(there)), min_size=1))
    newest = max(published)
    needs = Needs(version=max(there), published=max(there) in published)
    fine = st.sampled_from([None, newest, "a tag"])
    bindings = tuple(number(one) for one in data.draw(st.lists(fine)))
    versions = Versions(frozenset(there), frozenset(published))
    assert list(problems(needs, Use(bindings, tags={"a tag": newest}, versions=versions))) == []


def test_a_version_of_another_agent_that_is_gone() -> None:
    use = Use(versions=RELEASED)
    assert target_problem(Target("agent_2", 9), use)[0] == (
        "It hands over to version 9 of agent_2, which Retell does not have"
    )
    for target in (Target("agent_2", 2), Target("agent_2"), Target("agent_2", "tag")):
        assert target_problem(target, use) is None
    assert target_problem(Target("agent_2", 9), Use()) is None


def test_the_list_of_versions_is_asked_for_only_where_it_decides() -> None:
    assert not must_ask(DRAFT, Use())
    assert not must_ask(NEW, Use((number(),)))
    assert not must_ask(PUBLISHED, Use((number(),)))
    assert must_ask(DRAFT, Use((number(),)))
    assert must_ask(PUBLISHED, Use((number(1),)))
    assert must_ask(PUBLISHED, Use(handed=(1,)))


def test_words_for_a_release_and_its_numbers() -> None:
    assert release_words(DRAFT, Use(versions=RELEASED), "v3 draft") == "v3 draft; version 2 is published"
    assert release_words(NEW, Use(), "v0 draft") == "v0 draft, never published"
    assert release_words(DRAFT, Use(), "v3 draft") == "v3 draft"
    assert release_words(PUBLISHED, Use(versions=RELEASED), "v3 published") == "v3 published"
    assert number_words(DRAFT, Use((number(), number(1)))) == [
        "+15550100 is answered by the newest version, a draft",
        "+15550100 is answered by version 1",
    ]


def test_numbers_and_tags_as_the_vendor_lists_them() -> None:
    found = bindings_of([
        {"phone_number": "+1", "inbound_agents": [{"agent_id": "a", "weight": 1, "agent_version": 2}]},
        {"phone_number": "+2", "outbound_agents": [{"agent_id": "a", "weight": 1}], "inbound_agents": None},
        {"phone_number": "+3", "inbound_agents": [{"agent_id": "a", "weight": 0}, "odd"]},
        {"phone_number": 7},
        None,
    ])  # fmt: skip
    assert found == {"a": (Binding("+1", "is answered by", 2), Binding("+2", "calls with"))}
    tags = tags_of([{"agent_id": "a", "tags": {"prod": {"version": 2}, "odd": 3}}, {"agent_id": "b"}])
    assert tags == {"a": {"prod": 2}}


# -- over real sockets ----------------------------------------------------------------------------


async def test_a_number_that_goes_on_with_an_older_version(simulator, world) -> None:  # noqa: F811
    services, catalog = world
    await services.sync.run(SyncRequest())
    async with httpx.AsyncClient(
        base_url=simulator.retell_url, headers={"Authorization": f"Bearer {simulator.key}"}
    ) as vendor:
        listed = (await vendor.get("/v2/list-phone-numbers")).json()["items"]
        name, first = listed[-1]["phone_number"], None
        for agent in await simulator.agents("retell"):
            versions = (await vendor.get(f"/list-agent-versions/{agent['agent_id']}")).json()["items"]
            published = sorted(each["version"] for each in versions if each["is_published"])
            if len(published) > 1:
                first = agent
                break
        assert first is not None

        async def bind(version: int) -> None:
            bound = [{"agent_id": first["agent_id"], "weight": 1, "agent_version": version}]
            answer = await vendor.patch(f"/update-phone-number/{name}", json={"inbound_agents": bound})
            assert answer.status_code == 200

        await bind(published[0])
        reading = (await agents(services, catalog))[first["name"]]
        assert reading.state is HealthState.DEGRADED
        assert reading.message == (
            f"{name} is answered by its version {published[0]}, and version {published[-1]} is published"
        )
        await bind(published[-1])
        services.clock.advance(minutes=16)
        assert (await agents(services, catalog))[first["name"]].state is HealthState.UP
        await bind(99)
        services.clock.advance(minutes=16)
        assert (
            "version 99, which Retell does not have"
            in (await agents(services, catalog))[first["name"]].message
        )


async def test_everything_that_elevenlabs_does_not_have_is_told(simulator, world) -> None:  # noqa: F811
    services, catalog = world
    first, second, *_ = await simulator.agents("elevenlabs")
    nodes = {"n1": {"type": "tool", "tools": [{"tool_id": "tool_gone"}]}}
    transfers = [
        {"agent_id": "agent_gone", "condition": "x"},
        {"agent_id": second["agent_id"], "condition": "y"},
    ]
    prompt = {
        "mcp_server_ids": ["mcp_gone"],
        "custom_llm": {"url": "https://llm.example.com", "api_key": {"secret_id": "sec_gone"}},
        "built_in_tools": {"transfer_to_agent": {"params": {"transfers": transfers}}},
    }
    await simulator.edit(
        first["agent_id"], "engine", conversation_config={"agent": {"prompt": prompt}},
        workflow={"nodes": nodes},
        platform_settings={"workspace_overrides": {"webhooks": {"post_call_webhook_id": "hook_gone"}}},
    )  # fmt: skip
    await services.sync.run(SyncRequest(force=True))
    await simulator.reset_stats()
    found = await agents(services, catalog)
    reading = found[first["name"]]
    told = {
        reading.message.partition(" (and")[0],
        *(text for label, text in reading.facts if label == "also"),
    }
    assert told == {
        f"It uses the {word}, which ElevenLabs does not have"
        for word in ("tool tool_gone", "MCP server mcp_gone", "secret sec_gone", "webhook hook_gone")
    } | {"It hands over to the agent agent_gone, which ElevenLabs does not have"}
    assert {found[each].state for each in found if each != first["name"]} == {HealthState.UP}
    # One question for each list, and one for the agent that the mirror does not have.
    routes = (await simulator.stats())["elevenlabs"]["by_route"]
    await agents(services, catalog)
    assert (await simulator.stats())["elevenlabs"]["by_route"] == routes
    assert routes["GET /v1/convai/secrets"] == routes["GET /v1/convai/mcp-servers"] == 1


@pytest.mark.parametrize("fault", ["permission", "500", "shape", "drop"])
async def test_what_nobody_says_anything_of_is_not_missing(simulator, world, fault) -> None:  # noqa: F811
    services, catalog = world
    first, *_ = await simulator.agents("elevenlabs")
    prompt = {"mcp_server_ids": ["mcp_gone"], "custom_llm": {"api_key": {"secret_id": "sec_gone"}}}
    await simulator.edit(first["agent_id"], "engine", conversation_config={"agent": {"prompt": prompt}})
    await services.sync.run(SyncRequest(force=True))
    await simulator.fault(f"{fault}:elevenlabs")
    await simulator.fault(f"{fault}:retell")
    assert {reading.state for reading in (await agents(services, catalog)).values()} == {HealthState.UP}
