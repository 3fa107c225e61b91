from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from services.errors import ServiceError
from services.model import Provider
from services.providers import ElevenLabsClient, RetellClient
from tests.support.rawserver import Reply, Seen, raw_server, reply, scripted

KEY = "key-for-tests-0123456789"
Connect = Callable[..., Any]


def pages(count: int, per_page: int) -> Callable[[Seen], Reply]:
    """A Retell agent list of `count` items; the page size asked for is ignored, as a vendor may."""

    def answer(seen: Seen) -> Reply:
        start = int(seen.query.get("pagination_key", "0"))
        items = [{"agent_id": f"a{n}", "n": n} for n in range(start, min(count, start + per_page))]
        more = start + per_page < count
        return reply(
            {"items": items, "has_more": more, "pagination_key": str(start + per_page) if more else None}
        )

    return answer


async def test_every_page_is_followed(connect: Connect) -> None:
    async with raw_server(pages(25, 10)) as server, connect(server.url) as client:
        assert isinstance(client, RetellClient)
        assert [wire.data["n"] for wire in await client.list_agents()] == list(range(25))
        assert len(server.seen) == 3
        assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
        assert server.seen[0].headers["user-agent"].startswith("callboard")


async def test_items_are_byte_true(connect: Connect) -> None:
    item = '{ "agent_id" : "a" , "n": 1.50, "new_field": {"z":1,"a":[1e2]} }'
    body = '{"has_more":false, "items": [' + item + "]}"
    async with raw_server(scripted([reply(body=body)])) as server, connect(server.url) as client:
        [wire] = await client.list_agents()
        assert wire.text == item


async def test_lists_are_kept_for_sixty_seconds(connect: Connect, fake_time: Any) -> None:
    async with raw_server(pages(2, 10)) as server, connect(server.url) as client:
        first = await client.list_agents()
        first.clear()
        assert len(await client.list_agents()) == 2
        assert len(server.seen) == 1
        await client.list_agents(fresh=True)
        assert len(server.seen) == 2
        fake_time.seconds += 61
        await client.list_agents()
        assert len(server.seen) == 3
        client.drop_caches()
        await client.list_agents()
        assert len(server.seen) == 4


async def test_metrics_are_kept_for_thirty_seconds(connect: Connect, fake_time: Any) -> None:
    async with (
        raw_server(scripted([reply({"current_concurrency": 3})])) as server,
        connect(server.url) as client,
    ):
        assert (await client.concurrency()).data["current_concurrency"] == 3
        fake_time.seconds += 29
        await client.concurrency()
        assert len(server.seen) == 1
        fake_time.seconds += 2
        await client.concurrency()
        assert len(server.seen) == 2


async def test_callers_of_one_moment_share_the_pages(connect: Connect) -> None:
    async with raw_server(pages(25, 10)) as server, connect(server.url) as client:
        lists = await asyncio.gather(*(client.list_agents() for _ in range(4)))
        assert [len(agents) for agents in lists] == [25] * 4
        assert len(server.seen) == 3


async def test_a_repeating_cursor_ends_in_words(connect: Connect) -> None:
    same = reply({"items": [{"agent_id": "a"}], "has_more": True, "pagination_key": "again"})
    async with raw_server(scripted([same])) as server, connect(server.url) as client:
        with pytest.raises(ServiceError) as caught:
            await client.list_agents()
        assert caught.value.code == "endless_list"
        assert len(server.seen) == 2


async def test_endless_new_cursors_end_too(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.providers.client.MAX_PAGES", 20)
    async with raw_server(pages(10_000, 1)) as server, connect(server.url) as client:
        with pytest.raises(ServiceError) as caught:
            await client.list_agents()
        assert caught.value.code == "endless_list"
        assert len(server.seen) == 20


@pytest.mark.parametrize("cursor", [None, "", {}, True])
async def test_a_part_of_a_list_is_never_the_whole(connect: Connect, cursor: Any) -> None:
    page = {"items": [{"agent_id": "a"}], "has_more": True, "pagination_key": cursor}
    async with raw_server(scripted([reply(page)])) as server, connect(server.url) as client:
        with pytest.raises(ServiceError):
            await client.list_agents()


async def test_a_failing_later_page_fails_the_list(connect: Connect) -> None:
    first = reply({"items": [{"agent_id": "a"}], "has_more": True, "pagination_key": "2"})
    async with raw_server(scripted([first, reply({}, status=404)])) as server, connect(server.url) as client:
        with pytest.raises(ServiceError):
            await client.list_agents()


async def test_an_item_seen_twice_counts_once_and_the_later_wins(connect: Connect) -> None:
    first = reply(
        {"items": [{"agent_id": "a", "v": 1}, {"agent_id": "b"}], "has_more": True, "pagination_key": "2"}
    )
    second = reply({"items": [{"agent_id": "a", "v": 2}], "has_more": False})
    async with raw_server(scripted([first, second])) as server, connect(server.url) as client:
        assert [wire.data for wire in await client.list_agents()] == [
            {"agent_id": "a", "v": 2},
            {"agent_id": "b"},
        ]


async def test_an_item_without_an_id_is_named(connect: Connect) -> None:
    page = reply({"items": [{"agent_id": "a"}, {"name": "?"}], "has_more": False})
    async with raw_server(scripted([page])) as server, connect(server.url) as client:
        with pytest.raises(ServiceError) as caught:
            await client.list_agents()
        assert "agent_id" in caught.value.message


async def test_pages_too_large_are_asked_for_in_smaller_ones(connect: Connect) -> None:
    prompts = [{"llm_id": f"l{n}", "general_prompt": "x" * 50_000} for n in range(40)]

    def answer(seen: Seen) -> Reply:
        start, size = int(seen.query.get("pagination_key", "0")), int(seen.query["limit"])
        more = start + size < len(prompts)
        return reply(
            {"items": prompts[start : start + size], "has_more": more, "pagination_key": str(start + size)}
        )

    async with raw_server(answer) as server, connect(server.url) as client:
        client._http._options = dataclasses.replace(client._http._options, max_body=1_000_000)
        assert len(await client.list_llms()) == 40
        assert [seen.query["limit"] for seen in server.seen] == ["100", "10", "10", "10", "10"]


async def test_check_names_the_account(connect: Connect) -> None:
    info = reply({"org_id": "org_1", "org_name": "Acme", "api_key_name": "ops"})
    async with raw_server(scripted([info])) as server, connect(server.url) as client:
        account = await client.check()
        assert (account.name, account.detail) == ("Acme", "key ops")
        assert server.paths() == ["/get-api-key-info"]


async def test_check_at_elevenlabs_needs_the_permission_of_a_sync(connect: Connect) -> None:
    page = reply({"agents": [], "has_more": False})
    async with raw_server(scripted([page])) as server, connect(server.url, Provider.ELEVENLABS) as client:
        assert isinstance(client, ElevenLabsClient)
        assert (await client.check()).name
        assert server.seen[0].target == "/v1/convai/agents?page_size=1"
        assert server.seen[0].headers["xi-api-key"] == KEY
        assert "authorization" not in server.seen[0].headers


async def test_elevenlabs_pages(connect: Connect) -> None:
    def answer(seen: Seen) -> Reply:
        if "cursor" not in seen.query:
            return reply({"agents": [{"agent_id": "a"}], "has_more": True, "next_cursor": "c/ 2"})
        assert seen.query["cursor"] == "c/ 2"
        # The vendor's own example carries a cursor on its last page.
        return reply({"agents": [{"agent_id": "b"}], "has_more": False, "next_cursor": "123"})

    async with raw_server(answer) as server, connect(server.url, Provider.ELEVENLABS) as client:
        assert [wire.data["agent_id"] for wire in await client.list_agents()] == ["a", "b"]
        assert len(server.seen) == 2


async def test_a_path_prefix_of_the_base_url_is_kept(connect: Connect) -> None:
    async with (
        raw_server(scripted([reply({"agent_id": "a"})])) as server,
        connect(server.url + "/gate/") as client,
    ):
        await client.agent("a", version=3)
        assert server.seen[0].target == "/gate/get-agent/a?version=3"


async def test_a_proxy_of_the_environment_is_not_used_towards_this_machine(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with raw_server(scripted([reply({"agent_id": "a"})])) as server, connect(server.url) as client:
        assert (await client.agent("a")).text == json.dumps({"agent_id": "a"})
