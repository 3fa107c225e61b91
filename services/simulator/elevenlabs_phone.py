"""Phone calls of the simulated ElevenLabs workspace, over numbers imported from the simulated Twilio account.

`POST /v1/convai/twilio/outbound-call` dials through the telephone network and holds a scripted conversation,
which the routes of conversations show like any other; numbers are listed by `GET /v1/convai/phone-numbers`.
Shapes: the vendor's specification of 2026-08.

Assumed, since no source says: a number Twilio refuses is answered 200 with `success: false` and Twilio's
sentence; a call that never comes about leaves a conversation that has failed; a call is placed once for
every request, whatever it says (there is no idempotency key).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final

from services.model import Provider
from services.simulator import words
from services.simulator.conversation import Brain, UseTool
from services.simulator.conversations import Conversation, Conversations, Line
from services.simulator.elevenlabs_replies import invalid, missing
from services.simulator.elevenlabs_store import ElevenLabsStore, StoredAgent
from services.simulator.phone_talk import PhoneTalk, failed, lines_of
from services.simulator.telephone import LineCall, Refused, Telephone
from services.simulator.twilio import refusal_text
from services.simulator.wire import Json, Reply, Request, Router, answer

_NUMBERS: Final = "/v1/convai/phone-numbers"
OWNED: Final = ("+15005550102", "+15005550103")
"""Imported from Twilio; the first is assigned to the workspace's first agent."""
SIP_NUMBER: Final = "+4930901820200"
"""On a SIP trunk: Twilio's route does not dial from it."""

_PARTED: Final = {
    "agent": "end_call tool was called.",
    "callee": "Call ended by remote party",
    "error": "An unexpected error occurred",
}
_RINGING_SECONDS: Final = 60


class ElevenLabsPhone:
    """The phone routes of one workspace."""

    def __init__(
        self,
        store: ElevenLabsStore,
        router: Router,
        conversations: Conversations,
        telephone: Telephone,
        seed: int,
    ) -> None:
        self._store = store
        self._conversations = conversations
        self._telephone = telephone
        self._rng = random.Random(f"{seed}/elevenlabs/phone")
        self._ids = {number: words.base32_id(self._rng, "phnum_") for number in (*OWNED, SIP_NUMBER)}
        self._bound = next(iter(store.agents), "")
        router.add("GET", _NUMBERS, "list", self._list)
        router.add("GET", f"{_NUMBERS}/*", "detail", self._get)
        router.add("POST", "/v1/convai/twilio/outbound-call", "call", self._call)

    # Numbers

    def _number(self, number: str) -> Json:
        agent = self._store.agents.get(self._bound) if number == OWNED[0] else None
        assigned = None if agent is None else {"agent_id": agent.id, "agent_name": _name(agent)}
        data: Json = {
            "phone_number": number,
            "label": "Front desk" if agent else "Spare line" if number in OWNED else "Office trunk",
            "supports_inbound": True,
            "supports_outbound": True,
            "phone_number_id": self._ids[number],
            "assigned_agent": assigned,
            "provider": "twilio" if number in OWNED else "sip_trunk",
        }
        if number == SIP_NUMBER:
            data["livekit_stack"] = "standard"
        return data

    def _list(self, request: Request) -> Reply:
        numbers = [self._number(number) for number in (SIP_NUMBER, *reversed(OWNED))]
        if provider := request.query.get("provider"):
            numbers = [number for number in numbers if number["provider"] == provider]
        if agent_id := request.query.get("agent_id"):
            numbers = [n for n in numbers if (n["assigned_agent"] or {}).get("agent_id") == agent_id]
        return answer(numbers)

    def _get(self, _: Request, number_id: str) -> Reply:
        found = next((number for number, known in self._ids.items() if known == number_id), "")
        return answer(self._number(found)) if found else missing("Phone number", number_id)

    # Calls

    def _call(self, request: Request) -> Reply:
        body = request.json_object()
        if body is None:
            return invalid("json_invalid", "JSON decode error", "body")
        for name in ("agent_id", "agent_phone_number_id", "to_number"):
            if not isinstance(body.get(name), str):
                return invalid("missing", "Field required", "body", name, given=body)
        agent = self._store.agents.get(body["agent_id"])
        if agent is None:
            return missing("Agent", body["agent_id"])
        number_id = body["agent_phone_number_id"]
        number = next((number for number in OWNED if self._ids[number] == number_id), "")
        if not number:
            return missing("Phone number", number_id)
        config = body.get("telephony_call_config") or {}
        seconds = config.get("ringing_timeout_secs", _RINGING_SECONDS)
        if not isinstance(seconds, int) or not 1 <= seconds <= 999:
            place = ("body", "telephony_call_config", "ringing_timeout_secs")
            return invalid("less_than_equal", "Input should be between 1 and 999", *place, given=seconds)
        return self._place(agent, number, body, seconds * 1000)

    def _place(self, agent: StoredAgent, number: str, body: Json, ring_timeout_ms: int) -> Reply:
        data: Json = body.get("conversation_initiation_client_data") or {}
        language = _language(agent, data)
        conversation_id = words.base32_id(self._rng, "conv_")
        script, chosen = self._conversations.take_script(agent.id, _name(agent), language)
        own = _first_message(agent, data)
        if own and (script.greeting is None or not chosen):
            script = replace(script, greeting=own)
        record = _Record()
        brain = Brain(script, 0, data.get("dynamic_variables") or {})
        talk = PhoneTalk(self._telephone, brain, lines_of(script, language), record)
        try:
            line = self._telephone.place(
                number, body["to_number"], listener=talk.follow, ring_timeout_ms=ring_timeout_ms
            )
        except Refused as refused:
            text = refusal_text(refused.code, body["to_number"])
            return answer({"success": False, "message": text, "conversation_id": None, "callSid": None})
        talk.call = line
        made = self._conversations.create(
            conversation_id, Provider.ELEVENLABS, agent.id, _name(agent), "phone"
        )
        made.clock = self._telephone.clock
        made.created_ms = line.created_at
        made.initiation = data
        made.details["phone_call"] = {
            "direction": "outbound",
            "phone_number_id": self._ids[number],
            "agent_number": number,
            "external_number": body["to_number"],
            "type": "twilio",
            "stream_sid": self._telephone.new_id("MZ"),
            "call_sid": line.sid,
        }
        record.conversation = made
        return answer({
            "success": True,
            "message": "Outbound call initiated successfully",
            "conversation_id": conversation_id,
            "callSid": line.sid,
        })  # fmt: skip


class _Record:
    """Writes a talk into a conversation."""

    conversation: Conversation

    def begin(self) -> None:
        self.conversation.begin()

    def agent(self, text: str, *, first: bool, done: bool, waited_ms: int) -> None:
        if done:  # the object shows whole turns only
            self.conversation.add(Line("agent", text, self.conversation.now_ms()))

    def user(self, text: str) -> None:
        self.conversation.add(Line("user", text, self.conversation.now_ms()))

    def tool(self, tool_id: str, tool: UseTool, *, done: bool) -> None:
        kind = "client" if tool.where == "client" else "webhook"
        known: dict[str, Any] = {"id": tool_id, "name": tool.name, "type": kind}
        line = Line("agent", None, self.conversation.now_ms())
        if done:
            line.tool_results.append(
                {**known, "result": tool.result, "is_error": failed(tool), "took_ms": tool.took_ms}
            )
        else:
            line.tool_calls.append({**known, "arguments": tool.arguments, "called": True})
        self.conversation.add(line)

    def over(self, call: LineCall) -> None:
        if call.answered_at is None:
            self.conversation.finish(1000, f"Call not answered: {call.status}", failed=True)
        else:
            reason = _PARTED.get(call.ended_by, "Call ended by remote party")
            self.conversation.finish(1000, reason, failed=call.ended_by == "error")


def _name(agent: StoredAgent) -> str:
    return str(agent.content.get("name") or "")


def _language(agent: StoredAgent, data: Json) -> str:
    return _configured("language", agent, data) or "en"


def _first_message(agent: StoredAgent, data: Json) -> str:
    return _configured("first_message", agent, data)


def _configured(name: str, agent: StoredAgent, data: Json) -> str:
    """A member of the agent's configuration, or what the call overrides it with."""
    override = (data.get("conversation_config_override") or {}).get("agent") or {}
    config = (agent.content.get("conversation_config") or {}).get("agent") or {}
    return str(override.get(name) or config.get(name) or "")
