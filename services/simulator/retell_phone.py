"""Phone calls of the simulated Retell account, over numbers imported from the simulated Twilio account.

`POST /v2/create-phone-call` dials through the telephone network and holds a scripted conversation that the
monitor socket shows like any other; numbers are listed by `GET /v2/list-phone-numbers`. Shapes: SDK 6.2.13.

Assumed, since no source says: a repeated `idempotency_key` answers 201 with the call it made before; the
caller's and the callee's number are checked before anything is dialled (400, 404); a number Twilio refuses
makes a call that is `not_connected` with `invalid_destination` or `telephony_provider_permission_denied`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from services.model import Provider
from services.simulator import words
from services.simulator.conversation import Brain, Script, UseTool
from services.simulator.conversations import Conversation, Conversations, Line
from services.simulator.phone_talk import PhoneTalk, failed, lines_of
from services.simulator.retell_calls import RetellCall, RetellCalls
from services.simulator.retell_store import RetellStore, Versioned
from services.simulator.telephone import E164, LineCall, Refused, Telephone
from services.simulator.wire import BadCursor, Document, Json, Reply, Request, Router, answer, cut_page

NUMBERS: Final = ("+15005550100", "+15005550101")
"""The first is bound to the account's first agent, the second to none, until somebody binds them anew."""

_MEMBERS: Final = ("inbound_agents", "outbound_agents", "inbound_sms_agents", "outbound_sms_agents")
_ENDS: Final = {"busy": "dial_busy", "no-answer": "dial_no_answer", "failed": "dial_failed"}
_PARTED: Final = {"agent": "agent_hangup", "callee": "user_hangup", "error": "error_unknown"}


class RetellPhone:
    """The phone routes of one account. `fail` makes the vendor's error answers."""

    def __init__(
        self,
        store: RetellStore,
        router: Router,
        calls: RetellCalls,
        telephone: Telephone,
        conversations: Conversations,
        script_of: Callable[[Versioned, int], Script],
        fail: Callable[[int, str], Reply],
    ) -> None:
        self._store = store
        self._calls = calls
        self._telephone = telephone
        self._conversations = conversations
        self._script_of = script_of
        self._fail = fail
        self._made: dict[str, RetellCall] = {}
        first = [{"agent_id": one, "weight": 1} for one in list(store.agents)[:1]]
        self._bound: dict[str, Json] = {NUMBERS[0]: {"inbound_agents": first, "outbound_agents": first}}
        router.add("POST", "/v2/create-phone-call", "call", self._create)
        router.add("GET", "/v2/list-phone-numbers", "list", self._list)
        router.add("GET", "/get-phone-number/*", "detail", self._get)
        router.add("PATCH", "/update-phone-number/*", "write", self._update)

    # Numbers

    def _number(self, number: str) -> Json:
        data: Json = {
            "phone_number": number,
            "phone_number_pretty": f"{number[:2]} ({number[2:5]}) {number[5:8]}-{number[8:]}",
            "phone_number_type": "custom",
            "nickname": f"Imported line {NUMBERS.index(number) + 1}",
            "sip_outbound_trunk_config": {
                "termination_uri": "simulated.pstn.example.com",
                "auth_username": "simulated",
                "transport": "TLS",
            },
            "last_modification_timestamp": words.EPOCH_MS,
        }
        return data | {member: agents for member, agents in self._bound.get(number, {}).items() if agents}

    def _list(self, request: Request) -> Reply:
        query = request.query
        limit, order = query.get("limit", "50"), query.get("sort_order", "descending")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000 or order not in ("ascending", "descending"):
            return self._fail(400, "")
        rows = [([place], Document(self._number(number))) for place, number in enumerate(reversed(NUMBERS))]
        cursor = query.get("pagination_key", "")
        try:
            items, after = cut_page(rows, size=int(limit), cursor=cursor, descending=order == "descending")
        except BadCursor:
            return self._fail(400, "")
        tail: Json = {} if after is None else {"pagination_key": after}
        return answer({"items": [item.data for item in items], "has_more": after is not None, **tail})

    def _get(self, _: Request, number: str) -> Reply:
        wanted = number.replace("%2B", "+")
        return answer(self._number(wanted)) if wanted in NUMBERS else self._fail(404, "")

    def _update(self, request: Request, number: str) -> Reply:
        """Bind a number to agents; their weights must add up to 1."""
        wanted, body = number.replace("%2B", "+"), request.json_object()
        if wanted not in NUMBERS:
            return self._fail(404, "")
        given: Json = {member: (body or {})[member] for member in _MEMBERS if member in (body or {})}
        for agents in given.values():
            known = isinstance(agents, list) and all(
                isinstance(each, dict) and each.get("agent_id") in self._store.agents for each in agents
            )
            if not known or (agents and abs(sum(each.get("weight", 0) for each in agents) - 1) > 1e-6):
                return self._fail(400, "")
        self._bound.setdefault(wanted, {}).update(given)
        return answer(self._number(wanted))

    # Calls

    def _create(self, request: Request) -> Reply:
        body = request.json_object()
        if body is None:
            return self._fail(400, "")
        for name in ("from_number", "to_number"):
            if not isinstance(body.get(name), str) or not body[name]:
                return self._fail(400, f"{name} is required.")
        key = body.get("idempotency_key")
        if isinstance(key, str) and key in self._made:
            return answer(self._calls.detail(self._made[key]), 201)
        if body["from_number"] not in NUMBERS:
            return self._fail(404, f"Phone number {body['from_number']} was not found under this account.")
        if not body.get("ignore_e164_validation", False) and not E164.fullmatch(body["to_number"]):
            return self._fail(400, "to_number is not a valid E.164 number.")
        bound = self._bound.get(body["from_number"], {}).get("outbound_agents") or [{}]
        agent = self._store.agents.get(str(body.get("override_agent_id") or bound[0].get("agent_id")))
        if agent is None:
            return self._fail(422, "No outbound agent id set up for phone number.")
        wanted = body.get("override_agent_version")
        version = agent.find("" if wanted is None else str(wanted))
        if version is None:
            return self._fail(422, f"Version {wanted} does not exist.")
        call = self._place(agent, version, body)
        if isinstance(key, str) and key:
            self._made[key] = call
        return answer(self._calls.detail(call), 201)

    def _place(self, agent: Versioned, version: int, body: Json) -> RetellCall:
        given = body.get("retell_llm_dynamic_variables") or {}
        variables = {str(name): str(value) for name, value in given.items()}
        extra = {
            "direction": "outbound",
            "from_number": body["from_number"],
            "to_number": body["to_number"],
        }
        if isinstance(body.get("custom_sip_headers"), dict):
            extra["custom_sip_headers"] = body["custom_sip_headers"]
        call = self._calls.create(
            agent,
            version,
            call_type="phone_call",
            metadata=body.get("metadata"),
            variables=variables,
            extra=extra,
        )
        language = str(agent.versions[version].data.get("language") or "en-US")
        script = self._script_of(agent, version)
        override = body.get("agent_override") or {}
        if first := (override.get("retell_llm") or {}).get("begin_message"):
            script = replace(script, greeting=str(first))
        log = self._conversations.create(call.id, Provider.RETELL, agent.id, call.agent_name, "phone")
        log.clock = self._telephone.clock
        log.initiation = {"dynamic_variables": variables, "agent_override": override}
        record = _Record(self._calls, call, log)
        talk = PhoneTalk(self._telephone, Brain(script, 0, variables), lines_of(script, language), record)
        call.conductor = _Conductor(self._calls, call, talk)
        try:
            line = self._telephone.place(body["from_number"], body["to_number"], listener=talk.follow)
        except Refused as refused:
            denied = refused.code in (21215, 21216)
            reason = "telephony_provider_permission_denied" if denied else "invalid_destination"
            self._calls.end(call, reason)
            log.finish(refused.code, reason, failed=True)
            return call
        talk.call = line
        call.extra["telephony_identifier"] = {"twilio_call_sid": line.sid}
        return call


class _Record:
    """Writes a talk into the store of calls, and so to whoever watches; and into the simulator's log."""

    def __init__(self, calls: RetellCalls, call: RetellCall, log: Conversation) -> None:
        self._calls = calls
        self._call = call
        self._log = log
        self._item = ""

    def begin(self) -> None:
        self._calls.begin(self._call)
        self._log.begin()

    def agent(self, text: str, *, first: bool, done: bool, waited_ms: int) -> None:
        if first:
            self._item = self._calls.add(self._call, {"role": "agent", "content": text})["id"]
            wait = float(max(1, waited_ms))
            self._calls.measure(self._call, e2e=wait, llm=wait * 0.6, tts=wait * 0.3)
        else:
            self._calls.change(self._call, self._item, {"content": text})
        if done:
            self._log.add(Line("agent", text, self._log.now_ms()))

    def user(self, text: str) -> None:
        self._log.add(Line("user", text, self._log.now_ms()))
        self._calls.add(self._call, {"role": "user", "content": text})

    def tool(self, tool_id: str, tool: UseTool, *, done: bool) -> None:
        item: Json = {"role": "tool_call_invocation", "tool_call_id": tool_id, "name": tool.name}
        if done:
            item = {"role": "tool_call_result", "tool_call_id": tool_id, "successful": not failed(tool)}
            item["content"] = json.dumps(tool.result, ensure_ascii=False)
        else:
            item["arguments"] = json.dumps(tool.arguments, ensure_ascii=False)
        self._calls.add(self._call, item)

    def over(self, call: LineCall) -> None:
        reason = _ENDS.get(call.status) or _PARTED.get(call.ended_by)
        # Ended from outside: at Twilio, or by the vendor's own request, which has named its reason already.
        self._calls.end(self._call, reason or ("user_hangup" if call.answered_at else "dial_failed"))
        self._log.finish(1000, self._call.reason, failed=call.answered_at is None)


class _Conductor:
    """Does what the live-call requests ask."""

    def __init__(self, calls: RetellCalls, call: RetellCall, talk: PhoneTalk) -> None:
        self._calls = calls
        self._call = call
        self._talk = talk

    def stop(self, reason: str) -> None:
        self._calls.end(self._call, reason)
        self._talk.hang_up("vendor")

    def steer(self, context: str, respond: bool) -> None:
        if context:
            self._calls.add(self._call, {"role": "injected", "content": context})
        if respond:
            self._talk.respond(context)

    def take_over(self, participant_id: str) -> None:
        self.stop("call_take_over")
