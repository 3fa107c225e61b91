"""Retell's read endpoints. Paths and shapes: SDK 6.2.13 and the spec derived from it.

Times in these documents are epoch milliseconds. All lists are cursor-paged:
`{items[], has_more, pagination_key?}`, at most 1000 a page (spec of April 2026).
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from services.http.client import Call, segment
from services.http.wire import Wire, parse, wrong_shape
from services.model import Provider
from services.providers.client import Account, Client, Listing

_SUMMARIES: Final = 1000
_DOCUMENTS: Final = 100
# LLMs and flows are listed whole, prompts included.


class RetellClient(Client):
    """One Retell workspace, read-only. Every method raises `ServiceError` only."""

    provider: ClassVar[Provider] = Provider.RETELL

    async def check(self) -> Account:
        """Whose key it is. Codes of refusal: `wrong_key`, `missing_permission`, `unreachable`, …

        Asked although the breaker may be open; an answer closes it.
        """
        call = Call("GET", "/get-api-key-info")
        wire = await self._object(call, "an account", "org_id", attempts=2, insist=True)
        name, key_name = wire.data.get("org_name"), wire.data.get("api_key_name")
        return Account(
            name=name if isinstance(name, str) and name else wire.data["org_id"],
            detail=f"key {key_name}" if isinstance(key_name, str) and key_name else "",
        )

    async def list_agents(self, *, fresh: bool = False) -> list[Wire]:
        """Summaries of all agents (`agent_id`, `agent_name`, `channel`, `user_modified_timestamp`, …)."""
        call = Call("POST", "/v2/list-agents", body={})
        return await self._list(call, "agents", "agent_id", _SUMMARIES, fresh=fresh)

    async def list_llms(self, *, fresh: bool = False) -> list[Wire]:
        """All Retell LLMs, whole."""
        call = Call("GET", "/v2/list-retell-llms")
        return await self._list(call, "LLMs", "llm_id", _DOCUMENTS, fresh=fresh)

    async def list_flows(self, *, fresh: bool = False) -> list[Wire]:
        """All conversation flows, whole."""
        call = Call("GET", "/v2/list-conversation-flows")
        return await self._list(call, "conversation flows", "conversation_flow_id", _DOCUMENTS, fresh=fresh)

    async def list_engine_times(self, *, fresh: bool = False) -> dict[tuple[str, str], object]:
        """When each LLM and flow last changed (epoch milliseconds), by `response_engine` type and id.

        The lists hold whole documents; only this much of them is kept.
        """
        kinds = (
            ("retell-llm", "/v2/list-retell-llms", "LLM times", "llm_id"),
            ("conversation-flow", "/v2/list-conversation-flows", "flow times", "conversation_flow_id"),
        )

        async def read(kind: str, path: str, what: str, id_key: str) -> list[tuple[tuple[str, str], object]]:
            def keep(item: Wire) -> tuple[tuple[str, str], object]:
                return (kind, item.data[id_key]), item.data.get("last_modification_timestamp")

            listing = _listing(Call("GET", path), what, id_key, _DOCUMENTS)
            return await self._listed(what, lambda: self._kept(listing, keep), fresh=fresh)

        found = await asyncio.gather(*(read(*kind) for kind in kinds))
        return dict(pair for pairs in found for pair in pairs)

    async def list_agent_versions(self, agent_id: str) -> list[Wire]:
        """The versions of an agent (`version`, `is_published`, `base_version`, …), never cached."""
        call = Call("GET", f"/list-agent-versions/{segment(agent_id, 'an agent')}")
        return await self._pages(_listing(call, "versions", "", _SUMMARIES))

    async def agent(self, agent_id: str, version: int | str | None = None) -> Wire:
        """An agent, whole; without a version as it stands now."""
        path = f"/get-agent/{segment(agent_id, 'an agent')}"
        return await self._object(Call("GET", path, {"version": version}), "an agent", "agent_id")

    async def llm(self, llm_id: str, version: int | None = None) -> Wire:
        """A Retell LLM."""
        path = f"/get-retell-llm/{segment(llm_id, 'an LLM')}"
        return await self._object(Call("GET", path, {"version": version}), "an LLM", "llm_id")

    async def flow(self, flow_id: str, version: int | None = None) -> Wire:
        """A conversation flow."""
        path = f"/get-conversation-flow/{segment(flow_id, 'a conversation flow')}"
        call = Call("GET", path, {"version": version})
        return await self._object(call, "a conversation flow", "conversation_flow_id")

    async def voice_ids(self) -> frozenset[str]:
        """The ids of all voices the account may use. The list is one plain array."""
        return await self._ids("/list-voices", "voice_id")

    async def knowledge_base_ids(self) -> frozenset[str]:
        """The ids of all knowledge bases. The list is one plain array."""
        return await self._ids("/list-knowledge-bases", "knowledge_base_id")

    async def phone_numbers(self) -> list[Wire]:
        """All numbers (`phone_number`, `inbound_agents` with their weights and versions, …), never cached."""
        call = Call("GET", "/v2/list-phone-numbers")
        return await self._pages(_listing(call, "phone numbers", "phone_number", _SUMMARIES))

    async def component_ids(self) -> frozenset[str]:
        """The ids of all components that conversation flows share."""
        call = Call("GET", "/v2/list-conversation-flow-components")
        id_key = "conversation_flow_component_id"
        listing = _listing(call, "components", id_key, _DOCUMENTS)
        return frozenset(await self._kept(listing, lambda item: str(item.data[id_key])))

    async def concurrency(self, *, fresh: bool = False) -> Wire:
        """Calls under way and the account's limits (`current_concurrency`, `concurrency_limit`, …)."""

        async def fetch() -> Wire:
            return await self._object(Call("GET", "/get-concurrency"), "an object", attempts=1)

        return await self._cache.get("concurrency", fetch, ttl=self._metrics_ttl, fresh=fresh)

    async def _ids(self, path: str, id_key: str) -> frozenset[str]:
        def read(text: str) -> frozenset[str]:
            items = parse(text).data
            if not isinstance(items, list):
                raise wrong_shape("a list", items)
            found = (item.get(id_key) if isinstance(item, dict) else None for item in items)
            return frozenset(one for one in found if isinstance(one, str))

        return await self._http.read(Call("GET", path), read, attempts=2)

    async def _list(self, call: Call, what: str, id_key: str, size: int, *, fresh: bool) -> list[Wire]:
        listing = _listing(call, what, id_key, size)
        return await self._listed(what, lambda: self._pages(listing), fresh=fresh)


def _listing(call: Call, what: str, id_key: str, size: int) -> Listing:
    return Listing(
        call=call,
        what=what,
        items="items",
        id_key=id_key,
        size_param="limit",
        size=size,
        cursor_param="pagination_key",
        cursor_out="pagination_key",
    )
