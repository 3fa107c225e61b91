"""The workspace's tools and knowledge-base documents: `/v1/convai/tools`, `/v1/convai/knowledge-base`."""

from __future__ import annotations

from services.simulator import elevenlabs_data as data
from services.simulator.elevenlabs_replies import failure, invalid, missing, page
from services.simulator.elevenlabs_store import ElevenLabsStore
from services.simulator.wire import Document, Json, Reply, Request, Router, answer, deep_merge

_TOOLS = "/v1/convai/tools"
_KNOWLEDGE = "/v1/convai/knowledge-base"


class LibraryRoutes:
    """Adds its routes to `router`; keeps everything in `store`."""

    def __init__(self, store: ElevenLabsStore, router: Router) -> None:
        self.store = store
        add = router.add
        add("GET", _TOOLS, "list", self._list_tools)
        add("POST", _TOOLS, "write", self._create_tool)
        add("GET", f"{_TOOLS}/*", "detail", self._get_tool)
        add("PATCH", f"{_TOOLS}/*", "write", self._patch_tool)
        add("DELETE", f"{_TOOLS}/*", "write", self._delete_tool)
        add("GET", _KNOWLEDGE, "list", self._list_documents)
        add("POST", f"{_KNOWLEDGE}/text", "write", self._create_document)
        add("GET", f"{_KNOWLEDGE}/*", "detail", self._get_document)

    def _list_tools(self, request: Request) -> Reply:
        query = request.query
        search, types = query.get("search", "").lower(), request.query_all("types")
        rows = [
            ([seq], document)
            for seq, document in self.store.tools.values()
            if search in document.data["tool_config"]["name"].lower()
            and (not types or document.data["tool_config"]["type"] in types)
        ]
        return page(request, b"tools", rows)

    def _create_tool(self, request: Request) -> Reply:
        config = (request.json_object() or {}).get("tool_config")
        if not isinstance(config, dict) or not config.get("name"):
            return invalid("missing", "Field required", "body", "tool_config")
        tool: Json = {"id": self.store.new_id("tool_"), "tool_config": config, "access_info": data.ACCESS}
        tool["usage_stats"] = {"total_calls": 0, "avg_latency_secs": 0.0}
        self.store.tools[tool["id"]] = (self.store.next_seq(), Document(tool))
        return answer(tool)

    def _get_tool(self, _: Request, tool_id: str) -> Reply:
        found = self.store.tools.get(tool_id)
        return Reply(200, found[1].raw) if found else missing("Tool", tool_id)

    def _patch_tool(self, request: Request, tool_id: str) -> Reply:
        found = self.store.tools.get(tool_id)
        body = request.json_object()
        if found is None:
            return missing("Tool", tool_id)
        if body is None or not isinstance(body.get("tool_config"), dict):
            return invalid("missing", "Field required", "body", "tool_config", given=body)
        changed = deep_merge(found[1].data, {"tool_config": body["tool_config"]})
        return Reply(200, self.store.replace_tool(tool_id, changed).raw)

    def _delete_tool(self, request: Request, tool_id: str) -> Reply:
        if tool_id not in self.store.tools:
            return missing("Tool", tool_id)
        if self.store.users_of_tool(tool_id) and request.query.get("force") != "true":
            return failure(
                400, "tool_in_use", "The tool is used by agents; remove it from them or use force."
            )
        del self.store.tools[tool_id]
        for agent in self.store.agents.values():
            agent.document = None
        return answer({})

    def _list_documents(self, request: Request) -> Reply:
        search = request.query.get("search", "").lower()
        rows = []
        for seq, document in self.store.documents.values():
            if search in document.data["name"].lower():
                summary = {**document.data, "dependent_agents": []}
                del summary["extracted_inner_html"], summary["content_format"]
                rows.append(([seq], Document(summary)))
        return page(request, b"documents", rows)

    def _create_document(self, request: Request) -> Reply:
        body = request.json_object() or {}
        text = body.get("text")
        if not isinstance(text, str):
            return invalid("missing", "Field required", "body", "text", given=body)
        now = self.store.now()
        doc = data.document(self.store.new_id("", 20), str(body.get("name") or "Text"), text, now, now)
        self.store.documents[doc["id"]] = (self.store.next_seq(), Document(doc))
        return answer({"id": doc["id"], "name": doc["name"], "folder_path": []})

    def _get_document(self, _: Request, doc_id: str) -> Reply:
        found = self.store.documents.get(doc_id)
        return Reply(200, found[1].raw) if found else missing("Document", doc_id)
