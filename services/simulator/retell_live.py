"""Calls of the simulated Retell account over REST: create, look up, list, steer, stop, listen, take over.

Shapes: SDK 6.2.13. Assumed: 422 for what needs a live call when it is not live; `stop-call` answers 200 with
no body and ends the call as `manual_stopped`; a call taken over ends as `call_take_over`, but its line stays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from services.clock import Clock
from services.model import Provider
from services.simulator.conversation import Script
from services.simulator.conversations import Conversations
from services.simulator.retell_calls import RetellCall, RetellCalls
from services.simulator.retell_chat import RetellChats
from services.simulator.retell_gateway import RetellGateway
from services.simulator.retell_monitor import RetellMonitor
from services.simulator.retell_store import RetellStore, Versioned
from services.simulator.retell_talk import MOST_MS
from services.simulator.sockets import SocketRoutes
from services.simulator.webrtc import MISSING, available
from services.simulator.wire import BadCursor, Document, Json, Reply, Request, Router, answer, cut_page

_UNKNOWN = "Cannot find requested asset under given api key."
_NOT_LIVE = "The call is not ongoing."
_STORAGE = ("everything", "everything_except_pii", "basic_attributes_only")
_MISSING_VALUE = object()


class RetellLive:
    """Everything about conversations of one account. `close` ends them."""

    def __init__(
        self,
        store: RetellStore,
        calls: RetellCalls,
        conversations: Conversations,
        clock: Clock,
        seed: int,
        fail: Callable[..., Reply],
        allowed: Callable[[str], bool],
    ) -> None:
        self._store, self._conversations, self._clock, self._fail = store, conversations, clock, fail
        self.calls = calls
        self.gateway = RetellGateway(calls, fail, seed)
        self._chats = RetellChats(store, conversations, clock, fail, self.script_of, seed)
        self._monitor = RetellMonitor(calls, allowed)

    def add_routes(self, router: Router, sockets: SocketRoutes) -> None:
        add = router.add
        add("POST", "/v3/create-web-call", "call", self._create_web_call)
        add("GET", "/v2/get-call/*", "detail", self._get)
        add("POST", "/v3/list-calls", "list", self._list)
        add("PATCH", "/v2/update-call/*", "write", self._update)
        add("DELETE", "/v2/delete-call/*", "write", self._delete)
        add("POST", "/v2/stop-call/*", "call", self._stop)
        add("PATCH", "/v2/update-live-call/*", "call", self._update_live)
        add("POST", "/v2/listen-live-call/*", "call", self._listen)
        add("POST", "/v2/take-over-live-call/*", "call", self._take_over)
        self.gateway.add_routes(router)
        self._chats.add_routes(router)
        self._monitor.add_routes(sockets)

    async def close(self) -> None:
        """The simulator stops."""
        await self.gateway.close()
        self.calls.close()

    def script_of(self, agent: Versioned, version: int) -> Script:
        """What the next conversation of an agent plays.

        A script without a greeting begins with the engine's own `begin_message`, and so does the receptionist
        where there is one. Without any the model speaks freely: as the receptionist does.
        """
        data = agent.versions[version].data
        name, language = str(data.get("agent_name") or ""), str(data.get("language") or "en")
        script, chosen = self._conversations.take_script(agent.id, name, language)
        most = script.max_duration_ms or data.get("max_call_duration_ms") or MOST_MS
        script = replace(script, max_duration_ms=int(most))
        engine, number = self._store.engine_of(data)
        own = None if engine is None else engine.versions[number].data.get("begin_message")
        if script.greeting is None:
            free = Script.default(name, language).greeting
            return replace(script, greeting=free if own is None else str(own))
        return replace(script, greeting=str(own)) if own and not chosen else script

    # Web calls

    async def _create_web_call(self, request: Request) -> Reply:
        body = request.json_object()
        if not body or not isinstance(body.get("agent_id"), str):
            return self._fail(400)
        variables = body.get("retell_llm_dynamic_variables") or {}
        if not isinstance(variables, dict) or not all(isinstance(item, str) for item in variables.values()):
            return self._fail(400, "retell_llm_dynamic_variables must be a map of strings.")
        agent = self._store.agents.get(body["agent_id"])
        wanted = body.get("agent_version")
        version = None if agent is None else agent.find("" if wanted is None else str(wanted))
        if agent is None or version is None:
            return self._fail(422, _UNKNOWN)
        if not await available():
            return self._fail(501, MISSING)
        call = self.calls.create(agent, version, metadata=body.get("metadata"), variables=variables)
        script = self.script_of(agent, version)
        log = self._conversations.create(call.id, Provider.RETELL, call.agent_id, call.agent_name, "gateway")
        log.initiation = {"dynamic_variables": variables, "metadata": body.get("metadata")}
        self.gateway.expect(call, script, log)
        return answer({
            "call_id": call.id, "access_token": call.access_token, "transport": "gateway",
            "expires_at": call.created + self.gateway.join_ms, "ice_servers": [],
        }, 201)  # fmt: skip

    async def _listen(self, request: Request, call_id: str) -> Reply:
        call = self.calls.get(call_id)
        if call is None:
            return self._fail(404, _UNKNOWN)
        if not call.live or self.gateway.line(call_id) is None:
            return self._fail(422, _NOT_LIVE)
        token, number = self.calls.token(), len(call.listeners) + 1
        participant = f"listener_{number}_{token[-8:]}"
        call.listeners[participant] = token
        return answer({
            "transport": "gateway", "access_token": token, "participant_id": participant,
            "room_name": call.id, "ice_servers": [], "expires_at": self._clock.now() + self.gateway.join_ms,
        })  # fmt: skip

    def _take_over(self, request: Request, call_id: str) -> Reply:
        call, body = self.calls.get(call_id), request.json_object()
        if call is None:
            return self._fail(404, _UNKNOWN)
        line = self.gateway.line(call_id)
        if not call.live or line is None or call.conductor is None:
            return self._fail(422, _NOT_LIVE)
        participant = str((body or {}).get("participant_id") or "")
        if participant not in call.listeners:
            return self._fail(400, "The participant does not listen to this call.")
        line.operator = participant
        call.conductor.take_over(participant)
        return answer({"success": True})

    # Any call

    def _get(self, _: Request, call_id: str) -> Reply:
        call = self.calls.get(call_id)
        return self._fail(422, _UNKNOWN) if call is None else answer(self.calls.detail(call))

    def _update(self, request: Request, call_id: str) -> Reply:
        call, body = self.calls.get(call_id), request.json_object()
        if call is None:
            return self._fail(422, _UNKNOWN)
        if body is None or not self._change(call, body):
            return self._fail(400)
        return answer(self.calls.detail(call))

    def _delete(self, _: Request, call_id: str) -> Reply:
        return Reply(204) if self.calls.forget(call_id) else self._fail(422, _UNKNOWN)

    def _stop(self, _: Request, call_id: str) -> Reply:
        call = self.calls.get(call_id)
        if call is None:
            return self._fail(404, _UNKNOWN)
        if call.over:
            return self._fail(422, _NOT_LIVE)
        if call.conductor is not None:
            call.conductor.stop("manual_stopped")
        else:
            self.gateway.cancel(call, "manual_stopped")
        return Reply(200)

    def _update_live(self, request: Request, call_id: str) -> Reply:
        call, body = self.calls.get(call_id), request.json_object()
        if call is None:
            return self._fail(404, _UNKNOWN)
        control = (body or {}).get("call_control") or {}
        fields = (body or {}).get("fields_to_override") or {}
        if body is None or not isinstance(control, dict) or not isinstance(fields, dict):
            return self._fail(400)
        if not call.live or call.conductor is None:
            return self._fail(422, _NOT_LIVE)
        variables = fields.get("override_dynamic_variables")
        if not self._change(call, fields):
            return self._fail(400)
        if isinstance(variables, dict):
            call.variables.update({str(name): str(value) for name, value in variables.items()})
        context, respond = str(control.get("additional_context") or ""), control.get("trigger_response")
        if context or respond:
            call.conductor.steer(context, respond is True)
        return answer({"success": True})

    def _change(self, call: RetellCall, fields: Json) -> bool:
        storage = fields.get("data_storage_setting")
        if storage is not None and storage not in _STORAGE:
            return False
        call.storage = storage or call.storage
        if "metadata" in fields:
            call.metadata = fields["metadata"]
        if isinstance(fields.get("custom_attributes"), dict):
            call.extra["custom_attributes"] = fields["custom_attributes"]
        return True

    def _list(self, request: Request) -> Reply:
        body = request.json_object()
        if body is None:
            return self._fail(400)
        limit, order = body.get("limit", 50), body.get("sort_order", "descending")
        skip, criteria = body.get("skip", 0), body.get("filter_criteria") or {}
        if type(limit) is not int or not 1 <= limit <= 1000 or order not in ("ascending", "descending"):
            return self._fail(400)
        if type(skip) is not int or skip < 0 or not isinstance(criteria, dict):
            return self._fail(400)
        rows = []
        for number, call in enumerate(self.calls.all()):
            data = self.calls.summary(call)
            if all(_fits(data, name, wanted) for name, wanted in criteria.items()):
                rows.append(([call.started or call.created, number], Document(data)))
        rows.sort(key=lambda row: row[0], reverse=order == "descending")
        try:
            items, after = cut_page(
                rows[skip:],
                size=limit,
                cursor=str(body.get("pagination_key") or ""),
                descending=order == "descending",
            )
        except BadCursor:
            return self._fail(400)
        found: Json = {"items": [item.data for item in items], "has_more": after is not None}
        if after is not None:
            found["pagination_key"] = after
        if body.get("include_total"):
            found["total"] = len(rows)
        return answer(found)


def _fits(data: Json, name: str, wanted: Any) -> bool:
    """Whether a call passes one member of `filter_criteria`; unknown members let everything through."""
    if name == "agent":
        return any(
            item.get("agent_id") == data["agent_id"]
            and (not item.get("version") or data["agent_version"] in item["version"])
            for item in wanted
        )
    if isinstance(wanted, list):  # one filter for each key of a map
        values = data.get({"dynamic_variables": "retell_llm_dynamic_variables"}.get(name, name)) or {}
        return all(_passes(values.get(item.get("key"), _MISSING_VALUE), item) for item in wanted)
    return _passes(_field(data, name), wanted) if isinstance(wanted, dict) else True


def _field(data: Json, name: str) -> Any:
    if name == "combined_cost":
        return (data.get("call_cost") or {}).get(name, _MISSING_VALUE)
    if name == "e2e_latency_p50":
        return ((data.get("latency") or {}).get("e2e") or {}).get("p50", _MISSING_VALUE)
    if name in ("in_voicemail", "call_successful", "user_sentiment"):
        return (data.get("call_analysis") or {}).get(name, _MISSING_VALUE)
    return data.get(name, _MISSING_VALUE)


def _passes(value: Any, wanted: Json) -> bool:
    """`{type, op, value}` of the vendor's filters."""
    op = wanted.get("op")
    other: Any = wanted.get("value")
    if op in ("pr", "np"):
        return bool((value is not _MISSING_VALUE) == (op == "pr"))
    if value is _MISSING_VALUE:
        return bool(op == "ne")
    compare = _COMPARE.get(str(op))
    try:
        return compare is not None and bool(compare(value, other))
    except (TypeError, IndexError, AttributeError):
        return False


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
    "sw": lambda value, other: value.startswith(other),
    "ew": lambda value, other: value.endswith(other),
    "co": operator.contains,
    "in": lambda value, other: value in other,
    "bt": lambda value, other: other[0] <= value <= other[1],
}
