"""ElevenLabs' read endpoints for agents. Source: the vendor's spec of 2026-08-22.

Times in these documents are epoch seconds. Lists take `page_size` (at most 100) and `cursor` and
answer `has_more` and `next_cursor`; the list of branches has one page of at most 100.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import ClassVar, Final

from services.http.client import Call, segment
from services.http.wire import Wire, parse_page, wrong_shape
from services.model import Provider
from services.providers.client import Account, Client, Listing

_PAGE: Final = 100
_ROOT: Final = "/v1/convai"


class ElevenLabsClient(Client):
    """One ElevenLabs workspace, read-only. Every method raises `ServiceError` only."""

    provider: ClassVar[Provider] = Provider.ELEVENLABS

    async def check(self) -> Account:
        """Whether the key may read agents. Codes of refusal: `wrong_key`, `missing_permission`, …

        The vendor's cheapest call that needs exactly the permission a sync needs; it names no account.
        Asked although the breaker may be open; an answer closes it.
        """
        call = Call("GET", f"{_ROOT}/agents", {"page_size": 1})
        read = functools.partial(parse_page, key="agents")
        page = await self._http.read(call, read, attempts=2, insist=True)
        found = "the key reads agents" if page.items else "the key reads agents; there are none yet"
        return Account(name="ElevenLabs workspace", detail=found)

    async def list_agents(self, *, fresh: bool = False) -> list[Wire]:
        """Summaries of all agents (`agent_id`, `name`, `tags`, …), without a time of change."""
        return await self._list("agents", "agents", "agent_id", fresh=fresh)

    async def list_tools(self, *, fresh: bool = False) -> list[Wire]:
        """All tools of the workspace, whole (`id`, `tool_config`, `access_info`, …)."""
        return await self._list("tools", "tools", "id", fresh=fresh)

    async def list_branches(self, agent_id: str) -> list[Wire]:
        """The branches of an agent (`id`, `name`, `is_archived`, `last_committed_at`, …), never cached."""
        call = Call("GET", f"{_agent(agent_id)}/branches", {"limit": _PAGE})
        page = await self._http.read(call, lambda text: parse_page(text, "results"))
        return page.items

    async def agent(
        self, agent_id: str, *, version_id: str | None = None, branch_id: str | None = None
    ) -> Wire:
        """An agent, whole; without a version or branch as its main branch stands now."""
        params = {"version_id": version_id, "branch_id": branch_id}
        return await self._object(Call("GET", _agent(agent_id), params), "an agent", "agent_id")

    async def tool(self, tool_id: str) -> Wire:
        """A tool of the workspace."""
        path = f"{_ROOT}/tools/{segment(tool_id, 'a tool')}"
        return await self._object(Call("GET", path), "a tool", "id")

    async def version(self, agent_id: str, version_id: str) -> Wire:
        """What is known of one version (`id`, `branch_id`, `seq_no_in_branch`, `time_committed_secs`, …)."""
        path = f"{_agent(agent_id)}/versions/{segment(version_id, 'a version')}"
        return await self._object(Call("GET", path), "a version", "id")

    async def knowledge_document(self, document_id: str) -> Wire:
        """What is known of a knowledge-base document (`id`, `name`, `type`, …)."""
        path = f"{_ROOT}/knowledge-base/{segment(document_id, 'a document')}"
        return await self._object(Call("GET", path), "a document", "id")

    async def known_voices(self, voice_ids: Iterable[str]) -> frozenset[str]:
        """Those of these voices that the workspace's list has: all it owns or has added, not the library.

        One request for each hundred, as many as the vendor takes ids.
        """
        wanted, found = sorted(set(voice_ids)), set[str]()
        for start in range(0, len(wanted), _PAGE):
            # The name once for each id, which a mapping of parameters cannot say.
            ids = "".join(f"&voice_ids={segment(one, 'a voice')}" for one in wanted[start : start + _PAGE])
            call = Call("GET", f"/v2/voices?page_size={_PAGE}&include_total_count=false{ids}")
            read = functools.partial(parse_page, key="voices")
            page = await self._http.read(call, read, attempts=2)
            found.update(str(item.data.get("voice_id")) for item in page.items)
        return frozenset(found).intersection(wanted)

    async def voice(self, voice_id: str) -> Wire:
        """What is known of a voice (`voice_id`, `name`, …), be it the workspace's or the library's."""
        path = f"/v1/voices/{segment(voice_id, 'a voice')}"
        return await self._object(Call("GET", path), "a voice", "voice_id", attempts=2)

    async def tool_ids(self) -> frozenset[str]:
        """The ids of all tools of the workspace; the list holds them whole."""
        return frozenset(str(wire.data["id"]) for wire in await self.list_tools())

    async def mcp_server_ids(self) -> frozenset[str]:
        """The ids of all MCP servers of the workspace. The list has one page."""
        return await self._ids(f"{_ROOT}/mcp-servers", "mcp_servers", "id")

    async def secret_ids(self) -> frozenset[str]:
        """The ids of all secrets of the workspace; what they are is told to nobody. Without a size: all."""
        return await self._ids(f"{_ROOT}/secrets", "secrets", "secret_id")

    async def webhook_ids(self) -> frozenset[str]:
        """The ids of all webhooks of the workspace. The list has one page."""
        return await self._ids("/v1/workspace/webhooks", "webhooks", "webhook_id")

    async def login_ids(self) -> frozenset[str]:
        """The ids of all connections to other services that tools log in with. The list has one page."""
        return await self._ids("/v1/workspace/auth-connections", "auth_connections", "id")

    async def _ids(self, path: str, items: str, id_key: str) -> frozenset[str]:
        read = functools.partial(parse_page, key=items)
        page = await self._http.read(Call("GET", path), read, attempts=2)
        if page.envelope.get("next_cursor") or page.envelope.get("has_more"):
            raise wrong_shape("a whole list", page.envelope)
        return frozenset(str(item.data.get(id_key)) for item in page.items)

    async def subscription(self) -> Wire:
        """What the plan allows and what is used of it (`character_count`, `character_limit`, …).

        Needs the permission to read the user, which keys for agents often lack.
        """
        return await self._metric("subscription", Call("GET", "/v1/user/subscription"))

    async def live_count(self) -> Wire:
        """Conversations that are under way in the workspace (`count`)."""
        return await self._metric("live count", Call("GET", f"{_ROOT}/analytics/live-count"))

    async def _metric(self, name: str, call: Call) -> Wire:
        async def fetch() -> Wire:
            return await self._object(call, "an object", attempts=1)

        return await self._cache.get(name, fetch, ttl=self._metrics_ttl)

    async def _list(self, name: str, items: str, id_key: str, *, fresh: bool) -> list[Wire]:
        listing = Listing(
            call=Call("GET", f"{_ROOT}/{name}"),
            what=name,
            items=items,
            id_key=id_key,
            size_param="page_size",
            size=_PAGE,
            cursor_param="cursor",
            cursor_out="next_cursor",
        )
        return await self._listed(name, lambda: self._pages(listing), fresh=fresh)


def _agent(agent_id: str) -> str:
    return f"{_ROOT}/agents/{segment(agent_id, 'an agent')}"
