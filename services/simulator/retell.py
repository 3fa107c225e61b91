"""The simulated Retell REST API: routes, bodies, paging and errors.

Both families are served: the current one (SDK 6.x: `POST /v2/list-agents`, `GET /v2/list-retell-llms`,
`GET /list-agent-versions/…`, pages as `{items, has_more, pagination_key}`) and the one before it
(`GET /list-agents`, `GET /get-agent-versions/…`, `GET /list-retell-llms`: plain arrays of whole objects, one
element a version, as their `pagination_key_version` implies).

Assumed, since no source says: `limit` of the current lists is 1 to 1,000 with 50 by default; an unknown
object is 404 where the April 2026 specification lists 404 for the route and 422 where it does not.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.clock import Clock
from services.model import Provider
from services.simulator import retell_data
from services.simulator.conversations import Conversations
from services.simulator.retell_calls import RetellCalls
from services.simulator.retell_live import RetellLive
from services.simulator.retell_store import (
    KIND_AGENT,
    KIND_FLOW,
    KIND_LLM,
    PublishedVersion,
    RetellStore,
    Versioned,
)
from services.simulator.sockets import SocketRoutes
from services.simulator.wire import (
    BadCursor,
    Document,
    Json,
    Reply,
    Request,
    Router,
    answer,
    cut_page,
    page_reply,
)

BAD_REQUEST = "Invalid request format, please check API reference."
_READ_ONLY = (
    "agent_id",
    "llm_id",
    "conversation_flow_id",
    "version",
    "is_published",
    "last_modification_timestamp",
)
_NOUNS = {KIND_AGENT: "Agent", KIND_LLM: "Retell LLM", KIND_FLOW: "Conversation flow"}
_MESSAGES = {
    402: "Trial has ended, please add a payment method.",
    403: "The API key is not allowed to do this.",
    404: "Cannot find requested asset under given api key.",
    429: "Account rate limited, please throttle your requests.",
}


def failure(status: int, message: str = "") -> Reply:
    """The vendor's error body: `{status: "error", message}`."""
    default = _MESSAGES.get(status, BAD_REQUEST if status < 500 else "An unexpected server error occurred.")
    return answer({"status": "error", "message": message or default}, status)


class RetellVendor:
    """One Retell account behind one port."""

    provider = Provider.RETELL

    def __init__(
        self,
        count: int,
        seed: int,
        key: str,
        limited_key: str,
        clock: Clock,
        conversations: Conversations | None = None,
    ) -> None:
        self.store = RetellStore(count, seed, clock)
        self.conversations = conversations or Conversations(clock)
        self.router = Router()
        self.sockets = SocketRoutes()
        self.calls = RetellCalls(seed, clock)
        self._bearer = f"Bearer {key}".encode()
        self._limited = f"Bearer {limited_key}".encode()
        self.usage: Json = {}
        """What the account says of its limits instead of what it would."""
        self._bases = retell_data.knowledge_bases(self.store.objects[KIND_LLM].values())
        self._add_agent_routes()
        for kind, noun in ((KIND_LLM, "retell-llm"), (KIND_FLOW, "conversation-flow")):
            self._add_engine_routes(kind, noun)
        add = self.router.add
        add("GET", "/get-api-key-info", "account", self._key_info)
        add("GET", "/get-concurrency", "usage", self._concurrency)
        add("GET", "/list-knowledge-bases", "list", self._knowledge_bases)
        none = {"items": [], "has_more": False}
        add("GET", "/v2/list-conversation-flow-components", "list", lambda _: answer(none))
        add("GET", "/list-voices", "list", lambda _: answer(retell_data.voices()))
        add("GET", "/get-voice/*", "detail", self._voice)
        self.live = RetellLive(self.store, self.calls, self.conversations, clock, seed, failure, key.__eq__)
        self.live.add_routes(self.router, self.sockets)

    # What every vendor offers to the server and to the control requests.

    async def aclose(self) -> None:
        """End every conversation that is still held."""
        await self.live.close()

    def refuse(self, request: Request) -> Reply | None:
        """The answer to a request whose key does not do, or None."""
        given = request.headers.get(b"authorization", b"")
        if given == self._bearer:
            return None
        return self.lacks_permission() if given == self._limited else self.revoked()

    def revoked(self) -> Reply:
        return failure(401, "API key is missing or invalid.")

    def lacks_permission(self) -> Reply:
        return failure(403)

    def failure(self, status: int) -> Reply:
        return failure(status)

    def not_found(self) -> Reply:
        return failure(404, "Cannot find the requested route.")

    def names(self) -> list[tuple[str, str]]:
        """Id and name of every agent."""
        return [(agent.id, str(agent.latest.data.get("agent_name"))) for agent in self.store.agents.values()]

    def has_object(self, object_id: str) -> bool:
        return any(object_id in table for table in self.store.objects.values())

    def edit(self, agent_id: str, part: str, patch: Json) -> Json | None:
        agent = self.store.agents.get(agent_id)
        return None if agent is None else self.store.edit(agent, part, patch)

    def remove(self, agent_id: str) -> bool:
        return self.store.agents.pop(agent_id, None) is not None

    # Agents

    def _add_agent_routes(self) -> None:
        add = self.router.add
        add("POST", "/v2/list-agents", "list", self._list_agents)
        add("GET", "/list-agents", "list", lambda request: self._legacy_list(KIND_AGENT, request))
        add("GET", "/list-agent-versions/*", "versions", self._list_versions)
        add("GET", "/get-agent-versions/*", "versions", self._legacy_versions)
        add("GET", "/get-agent/*", "detail", lambda request, key: self._get(KIND_AGENT, 422, request, key))
        add("PATCH", "/update-agent/*", "write", lambda request, key: self._update(KIND_AGENT, request, key))
        add("POST", "/create-agent", "write", self._create_agent)
        add("DELETE", "/delete-agent/*", "write", self._delete_agent)
        add("POST", "/create-agent-version/*", "write", self._create_version)
        add("DELETE", "/delete-agent-version/*", "write", self._delete_version)
        add("POST", "/publish-agent-version/*", "write", self._publish_version)
        add("POST", "/publish-agent/*", "write", self._legacy_publish)

    def _list_agents(self, request: Request) -> Reply:
        body = request.json_object()
        if body is None:
            return failure(400)
        wanted = body.get("filter_criteria") or {}
        query = str(wanted.get("query") or "").lower()
        channel = (wanted.get("channel") or {}).get("value", "voice")
        rows = [
            ([agent.seq], Document(_summary(agent)))
            for agent in self.store.agents.values()
            if channel == "voice" and query in str(agent.latest.data.get("agent_name")).lower()
        ]
        return self._page(request, rows)

    def _list_versions(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        if agent is None:
            return failure(404)
        return self._page(request, [([n], Document(_version(d.data))) for n, d in agent.versions.items()])

    def _legacy_versions(self, _: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        if agent is None:
            return failure(422, _MESSAGES[404])
        return _array(agent.versions[number] for number in sorted(agent.versions, reverse=True))

    def _create_agent(self, request: Request) -> Reply:
        body = request.json_object()
        if not body or not isinstance(body.get("response_engine"), dict) or not body.get("voice_id"):
            return failure(400)
        engine, version = self.store.engine_of(body)
        if engine is None and body["response_engine"].get("type") != "custom-llm":
            return failure(422, "Cannot find the response engine under given api key.")
        if engine is not None:
            body["response_engine"] = {**body["response_engine"], "version": version}
        fields = {name: value for name, value in body.items() if name not in _READ_ONLY}
        return answer(self.store.add(KIND_AGENT, {"channel": "voice", **fields}).latest.data, 201)

    def _delete_agent(self, _: Request, agent_id: str) -> Reply:
        return Reply(204) if self.remove(agent_id) else failure(422, _MESSAGES[404])

    def _create_version(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        body = request.json_object()
        if agent is None:
            return failure(404)
        base = None if body is None else body.get("base_version")
        if not isinstance(base, int):
            return failure(400)
        if base not in agent.versions:
            return failure(422, f"Version {base} does not exist.")
        return Reply(201, agent.versions[self.store.new_agent_version(agent, base)].raw)

    def _delete_version(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        version = None if agent is None else agent.find(request.query.get("version", ""))
        if agent is None or version is None:
            return failure(404)
        if len(agent.versions) == 1:
            return failure(400, "The only version of an agent cannot be deleted.")
        del agent.versions[version]
        agent.published.discard(version)
        return Reply(204)

    def _publish_version(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        body = request.json_object()
        if agent is None:
            return failure(404)
        if body is None or not isinstance(body.get("version"), int):
            return failure(400)
        if body["version"] not in agent.versions:
            return failure(422, f"Version {body['version']} does not exist.")
        notes: Json = {key: body[key] for key in ("version_title", "version_description") if key in body}
        self.store.publish_agent(agent, body["version"], notes)
        return Reply(200)

    def _legacy_publish(self, _: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        if agent is None:
            return failure(404)
        version = agent.newest
        self.store.publish_agent(agent, version, {})
        self.store.new_agent_version(agent, version)
        return Reply(200)

    # Engines

    def _add_engine_routes(self, kind: str, noun: str) -> None:
        add = self.router.add
        add("GET", f"/v2/list-{noun}s", "list", lambda request: self._list_engines(kind, request))
        add("GET", f"/list-{noun}s", "list", lambda request: self._legacy_list(kind, request))
        add("GET", f"/get-{noun}/*", "detail", lambda request, key: self._get(kind, 404, request, key))
        add("POST", f"/create-{noun}", "write", lambda request: self._create_engine(kind, request))
        add("PATCH", f"/update-{noun}/*", "write", lambda request, key: self._update(kind, request, key))
        add(
            "DELETE",
            f"/delete-{noun}/*",
            "write",
            lambda request, key: self._delete_engine(kind, request, key),
        )

    def _list_engines(self, kind: str, request: Request) -> Reply:
        return self._page(request, [([item.seq], item.latest) for item in self.store.objects[kind].values()])

    def _create_engine(self, kind: str, request: Request) -> Reply:
        body = request.json_object()
        if body is None or (kind == KIND_FLOW and not body.get("nodes")):
            return failure(400)
        fields = {name: value for name, value in body.items() if name not in _READ_ONLY}
        return answer(self.store.add(kind, fields).latest.data, 201)

    def _delete_engine(self, kind: str, request: Request, key: str) -> Reply:
        engine = self.store.objects[kind].get(key)
        if engine is None:
            return failure(404)
        if self.store.users_of(engine) and request.query.get("force_delete") != "true":
            return failure(400, f"{_NOUNS[kind]} is used by an agent.")
        del self.store.objects[kind][key]
        return Reply(204)

    # Shared

    def _get(self, kind: str, missing: int, request: Request, key: str) -> Reply:
        item = self.store.objects[kind].get(key)
        version = None if item is None else item.find(request.query.get("version", ""))
        if item is None or version is None:
            return failure(missing, _MESSAGES[404])
        return Reply(200, item.versions[version].raw)

    def _update(self, kind: str, request: Request, key: str) -> Reply:
        item = self.store.objects[kind].get(key)
        body = request.json_object()
        version = None if item is None else item.find_draft(request.query.get("version", ""))
        if item is None or version is None:
            return failure(422, _MESSAGES[404])
        if body is None:
            return failure(400)
        fields = {name: value for name, value in body.items() if name not in _READ_ONLY}
        try:
            return Reply(200, item.write(version, fields, self.store.now()).raw)
        except PublishedVersion:
            return failure(400, f"Cannot update published {_NOUNS[kind].lower()} version {version}.")

    def _page(self, request: Request, rows: list[tuple[list[int], Document]]) -> Reply:
        query = request.query
        limit = query.get("limit", "50")
        order = query.get("sort_order", "descending")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000 or order not in ("ascending", "descending"):
            return failure(400)
        cursor = query.get("pagination_key", "")
        try:
            items, after = cut_page(rows, size=int(limit), cursor=cursor, descending=order == "descending")
        except BadCursor:
            return failure(400)
        tail: Json = {"has_more": after is not None}
        return page_reply(b"items", items, tail if after is None else {**tail, "pagination_key": after})

    def _legacy_list(self, kind: str, request: Request) -> Reply:
        """A plain array with every version of every object, newest object first."""
        query = request.query
        limit = query.get("limit", "1000")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
            return failure(400)
        rows = [
            (item.id, number, item.versions[number])
            for item in sorted(self.store.objects[kind].values(), key=lambda item: -item.seq)
            for number in sorted(item.versions, reverse=True)
        ]
        if after := query.get("pagination_key"):
            number = query.get("pagination_key_version", "")
            places = [i for i, row in enumerate(rows) if row[0] == after and number in ("", str(row[1]))]
            rows = rows[places[-1] + 1 :] if places else []
        return _array(document for _, _, document in rows[: int(limit)])

    def _key_info(self, _: Request) -> Reply:
        return answer({"org_id": "org_simulated", "org_name": "Demo Company", "api_key_name": "simulator"})

    def _concurrency(self, _: Request) -> Reply:
        return answer({
            "current_concurrency": len(self.store.agents) % 7 + self.live.calls.live_count(),
            "concurrency_limit": 20,
            "base_concurrency": 20,
            "purchased_concurrency": 0,
            "concurrency_purchase_limit": 80,
            "remaining_purchase_limit": 80,
            "concurrency_burst_enabled": False,
            "concurrency_burst_limit": 60,
            "reserved_inbound_concurrency": 0,
            **self.usage,
        })  # fmt: skip

    def _knowledge_bases(self, _: Request) -> Reply:
        return answer(self._bases)

    def _voice(self, _: Request, voice_id: str) -> Reply:
        found = [voice for voice in retell_data.voices() if voice["voice_id"] == voice_id]
        return answer(found[0]) if found else failure(422, _MESSAGES[404])


def _array(documents: Iterable[Document]) -> Reply:
    return Reply(200, b"[" + b",".join(document.raw for document in documents) + b"]")


def _summary(agent: Versioned) -> Json:
    """An item of `POST /v2/list-agents`: a summary, not an agent."""
    data = agent.latest.data
    return {
        "agent_id": agent.id,
        "agent_name": data.get("agent_name") or "",
        "channel": "voice",
        "is_suspended": False,
        "is_transfer_agent": bool(data.get("is_transfer_agent", False)),
        "user_modified_timestamp": agent.modified,
        "tags": {tag: {"version": number} for tag, number in agent.tags.items()},
    }


def _version(data: Json) -> Json:
    """An item of `GET /list-agent-versions/…`."""
    names = ("version", "is_published", "last_modification_timestamp", "base_version", "version_title",
             "version_description")  # fmt: skip
    return {name: data[name] for name in names if name in data}
