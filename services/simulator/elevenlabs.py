"""The simulated ElevenLabs REST API (`/v1/convai/…`, `/v1/user`): routes, bodies, paging and errors.

Errors come in the vendor's shapes: domain errors as `{detail: {status, message}}`, validation as
`{detail: [{type, loc, msg, input}]}` with status 422. Assumed: the word `document_not_found` for what is
unknown.
"""

from __future__ import annotations

from services.clock import Clock
from services.model import Provider
from services.simulator import elevenlabs_data as data
from services.simulator.conversations import Conversations
from services.simulator.elevenlabs_account import AccountRoutes
from services.simulator.elevenlabs_calls import CallRoutes
from services.simulator.elevenlabs_library import LibraryRoutes
from services.simulator.elevenlabs_replies import failure, invalid, missing, page
from services.simulator.elevenlabs_store import Branch, ElevenLabsStore, StoredAgent, Version
from services.simulator.livekit_server import LiveKitServer
from services.simulator.sockets import SocketRoutes
from services.simulator.wire import Document, Json, Reply, Request, Router, answer

_AGENTS = "/v1/convai/agents"
_CONTENT = ("name", "tags", "conversation_config", "platform_settings", "workflow")


class ElevenLabsVendor:
    """One ElevenLabs workspace behind one port."""

    provider = Provider.ELEVENLABS

    def __init__(
        self,
        count: int,
        seed: int,
        key: str,
        limited_key: str,
        clock: Clock,
        conversations: Conversations | None = None,
    ) -> None:
        self.store = ElevenLabsStore(count, seed, clock)
        self.conversations = conversations or Conversations(clock)
        self.router = Router()
        self.sockets = SocketRoutes()
        self._key = key.encode()
        self._limited = limited_key.encode()
        self._add_agent_routes()
        LibraryRoutes(self.store, self.router)
        self.account = AccountRoutes(self.router, self.conversations, clock)
        self.calls = CallRoutes(
            self.store, self.router, self.sockets, self.conversations, self._key, seed, clock
        )
        LiveKitServer(self.calls, self.conversations).add_routes(self.router, self.sockets)

    # What every vendor offers to the server and to the control requests.

    async def aclose(self) -> None:
        """End what the simulator's stop would leave behind."""

    def refuse(self, request: Request) -> Reply | None:
        """The answer to a request whose key does not do, or None."""
        given = request.headers.get(b"xi-api-key", b"")
        if given == self._key:
            return None
        if given == self._limited:
            return self.lacks_permission()
        if not given:
            message = "Neither authorization header nor xi-api-key received, please provide one."
            return failure(401, "needs_authorization", message)
        return self.revoked()

    def revoked(self) -> Reply:
        return failure(401, "invalid_api_key", "Invalid API key")

    def lacks_permission(self) -> Reply:
        message = "The API key you used is missing the permission convai_read to execute this operation."
        return failure(401, "missing_permissions", message)

    def failure(self, status: int) -> Reply:
        return failure(status)

    def not_found(self) -> Reply:
        return answer({"detail": "Not Found"}, 404)

    def names(self) -> list[tuple[str, str]]:
        """Id and name of every agent."""
        return [(agent.id, str(agent.content.get("name"))) for agent in self.store.agents.values()]

    @property
    def usage(self) -> Json:
        """What the account says of its limits instead of what it would."""
        return self.account.usage

    def has_object(self, object_id: str) -> bool:
        store = self.store
        return object_id in store.agents or object_id in store.tools or object_id in store.documents

    def edit(self, agent_id: str, part: str, patch: Json) -> Json | None:
        agent = self.store.agents.get(agent_id)
        return None if agent is None else self.store.edit(agent, part, patch)

    def remove(self, agent_id: str) -> bool:
        return self.store.agents.pop(agent_id, None) is not None

    # Agents

    def _add_agent_routes(self) -> None:
        add = self.router.add
        add("GET", _AGENTS, "list", self._list_agents)
        add("GET", f"{_AGENTS}/summaries", "list", self._summaries)
        add("POST", f"{_AGENTS}/create", "write", self._create_agent)
        add("GET", f"{_AGENTS}/*", "detail", self._get_agent)
        add("PATCH", f"{_AGENTS}/*", "write", self._patch_agent)
        add("DELETE", f"{_AGENTS}/*", "write", self._delete_agent)
        add("POST", f"{_AGENTS}/*/duplicate", "write", self._duplicate)
        add("GET", f"{_AGENTS}/*/branches", "versions", self._list_branches)
        add("POST", f"{_AGENTS}/*/branches", "write", self._create_branch)
        add("GET", f"{_AGENTS}/*/branches/*", "versions", self._get_branch)
        add("GET", f"{_AGENTS}/*/versions/*", "versions", self._get_version)

    def _list_agents(self, request: Request) -> Reply:
        query = request.query
        search = query.get("search", "").lower()
        archived = query.get("archived")
        agents = [
            agent
            for agent in self.store.agents.values()
            if search in str(agent.content.get("name")).lower()
            and (archived is None or (archived == "true") == _archived(agent))
        ]
        by_name = query.get("sort_by") == "name"
        rows = [
            (
                [str(agent.content.get("name")).lower() if by_name else agent.created, agent.seq],
                _summary(agent),
            )
            for agent in agents
        ]
        return page(request, b"agents", rows)

    def _summaries(self, request: Request) -> Reply:
        result: Json = {}
        for agent_id in request.query_all("agent_ids"):
            agent = self.store.agents.get(agent_id)
            if agent is not None:
                result[agent_id] = {"status": "success", "data": _summary(agent).data}
            else:
                result[agent_id] = {
                    "status": "failure",
                    "error_code": 404,
                    "error_status": "document_not_found",
                    "error_message": f"Agent with id {agent_id} not found.",
                }
        if not result:
            return invalid("missing", "Field required", "query", "agent_ids")
        return answer(result)

    def _create_agent(self, request: Request) -> Reply:
        body = request.json_object()
        if body is None:
            return invalid("json_invalid", "JSON decode error", "body")
        if not isinstance(body.get("conversation_config"), dict):
            return invalid("missing", "Field required", "body", "conversation_config", given=body)
        content = {name: body[name] for name in _CONTENT if body.get(name) is not None}
        versioning = request.query.get("enable_versioning") != "false"
        return answer({"agent_id": self.store.create(content, versioning).id})

    def _get_agent(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        if agent is None:
            return missing("Agent", agent_id)
        if not request.query_string:
            return Reply(200, self.store.render(agent).raw)
        version_id, branch_id = request.query.get("version_id"), request.query.get("branch_id")
        version: Version | None = None
        if version_id:
            version = agent.version(version_id)
        elif branch_id:
            branch = agent.branches.get(branch_id)
            version = branch.versions[-1] if branch else None
        else:
            return Reply(200, self.store.render(agent).raw)
        if version is None:
            return missing("Version" if version_id else "Branch", version_id or branch_id or "")
        return Reply(200, self.store.render_version(agent, version).raw)

    def _patch_agent(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        body = request.json_object()
        if agent is None:
            return missing("Agent", agent_id)
        if body is None:
            return invalid("json_invalid", "JSON decode error", "body")
        for name in ("conversation_config", "platform_settings"):
            if body.get(name) is not None and not isinstance(body[name], dict):
                message = "Input should be a valid dictionary"
                return invalid("dict_type", message, "body", name, given=body[name])
        branch_id = request.query.get("branch_id", "")
        if branch_id and branch_id not in agent.branches:
            return missing("Branch", branch_id)
        patch = {name: body[name] for name in _CONTENT if body.get(name) is not None}
        versioning = request.query.get("enable_versioning_if_not_enabled") != "false"
        text = str(body.get("version_description") or "")
        return Reply(200, self.store.patch(agent, patch, branch_id, text, versioning).raw)

    def _delete_agent(self, _: Request, agent_id: str) -> Reply:
        return Reply(204) if self.remove(agent_id) else missing("Agent", agent_id)

    def _duplicate(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        body = request.json_object()
        if agent is None:
            return missing("Agent", agent_id)
        name = (body or {}).get("name") or f"{agent.content.get('name')} (copy)"
        return answer({"agent_id": self.store.create({**agent.content, "name": name}).id})

    # Branches and versions

    def _list_branches(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        if agent is None:
            return missing("Agent", agent_id)
        results = [_branch(agent, branch) for branch in agent.branches.values()]
        meta = {"total": len(results), "page": 1, "page_size": int(request.query.get("limit", "100"))}
        return answer({"meta": meta, "results": results})

    def _create_branch(self, request: Request, agent_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        body = request.json_object() or {}
        if agent is None:
            return missing("Agent", agent_id)
        for name in ("parent_version_id", "name", "description"):
            if not isinstance(body.get(name), str):
                return invalid("missing", "Field required", "body", name, given=body)
        parent = agent.version(body["parent_version_id"])
        if parent is None:
            return missing("Version", body["parent_version_id"])
        patch = {name: body[name] for name in _CONTENT if isinstance(body.get(name), dict)}
        branch = self.store.branch(agent, parent, body["name"], body["description"], patch)
        return answer({"created_branch_id": branch.id, "created_version_id": branch.versions[-1].id})

    def _get_branch(self, _: Request, agent_id: str, branch_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        branch = agent.branches.get(branch_id) if agent else None
        if agent is None or branch is None:
            return missing("Branch", branch_id)
        detail = _branch(agent, branch)
        parent = agent.branches.get(detail.pop("parent_branch_id") or "")
        for name in ("draft_exists", "calls_7d"):
            detail.pop(name)
        detail["parent_branch"] = {"id": parent.id, "name": parent.name} if parent else None
        detail["most_recent_versions"] = [_version(agent, item) for item in reversed(branch.versions[-10:])]
        return answer(detail)

    def _get_version(self, _: Request, agent_id: str, version_id: str) -> Reply:
        agent = self.store.agents.get(agent_id)
        version = agent.version(version_id) if agent else None
        if agent is None or version is None:
            return missing("Version", version_id)
        return answer(_version(agent, version))


def _archived(agent: StoredAgent) -> bool:
    return bool((agent.content.get("platform_settings") or {}).get("archived", False))


def _summary(agent: StoredAgent) -> Document:
    """An item of `GET agents`; it carries no time of change."""
    return Document({
        "agent_id": agent.id,
        "name": agent.content.get("name") or "",
        "tags": agent.content.get("tags") or [],
        "created_at_unix_secs": agent.created,
        "access_info": data.ACCESS,
        "last_call_time_unix_secs": agent.last_call,
        "archived": _archived(agent),
    })  # fmt: skip


def _branch(agent: StoredAgent, branch: Branch) -> Json:
    return {
        "id": branch.id,
        "name": branch.name,
        "agent_id": agent.id,
        "description": branch.description,
        "created_at": branch.created,
        "last_committed_at": branch.versions[-1].committed,
        "is_archived": False,
        "protection_status": "writer_perms_required",
        "access_info": data.ACCESS,
        "current_live_percentage": 100.0 if branch.id == agent.main else 0.0,
        "parent_branch_id": branch.parent,
        "draft_exists": False,
        "calls_7d": 0,
    }


def _version(agent: StoredAgent, version: Version) -> Json:
    return {
        "id": version.id,
        "agent_id": agent.id,
        "branch_id": version.branch_id,
        "version_description": version.description,
        "seq_no_in_branch": version.number,
        "time_committed_secs": version.committed,
        "parents": {"in_branch_parent_id": version.parent, "out_of_branch_parent_id": None},
        "access_info": data.ACCESS,
    }
