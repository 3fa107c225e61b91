"""Phone calls over ElevenLabs and a Twilio number imported there. Source: the vendor's spec of 2026-08-22.

ElevenLabs takes no idempotency key, has no live transcript of phone calls and no request to hang up: the
conversation's object is read again and again, and hanging up is Twilio's. Times are epoch seconds.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from services.calls.access import VendorAccess
from services.calls.brief_payload import conversation_config
from services.calls.elevenlabs_aftermath import messages_of
from services.calls.messages import (
    AgentCorrected,
    AgentSpeech,
    Ended,
    Message,
    ToolEnded,
    ToolStarted,
    UserSpeech,
)
from services.calls.model import Brief, CallState, EndReason
from services.calls.telephony.intent import Placed
from services.calls.telephony.vendors import (
    Order,
    Standing,
    VendorNumber,
    open_http,
    part,
    read_list,
    read_object,
)
from services.clock import Clock
from services.errors import ServiceError
from services.http.client import Call, segment

INTENT: Final = "callboard_call"
"""The dynamic variable that holds our key, by which a lost call is found again. No prompt uses it."""
_ROOT: Final = "/v1/convai"
_CANDIDATES: Final = 8
_SKEW_SECONDS: Final = 300
_LOOKS: Final = 10
"""How often the finished conversation is looked at before its transcript is taken as it is."""
_STATES: Final = {
    "initiated": CallState.QUEUED,
    "in-progress": CallState.LIVE,
    "processing": CallState.ENDED,
    "done": CallState.ENDED,
    "failed": CallState.ENDED,
}
_BAD_NUMBER: Final = re.compile(r"not (a )?valid|cannot be reached|invalid.*number", re.IGNORECASE)
_FORBIDDEN: Final = re.compile(r"not authorized to call|not allowed to call|permission", re.IGNORECASE)


class ElevenLabsPhone:
    """One ElevenLabs workspace's phone calls; a `PhoneVendor`."""

    name = "ElevenLabs"
    can_stop = False
    can_steer = False

    def __init__(
        self,
        access: VendorAccess,
        clock: Clock,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        poll_seconds: float = 2.0,
    ) -> None:
        self._sleep = sleep
        self._poll_seconds = poll_seconds
        self._http = open_http(access, clock, "xi-api-key", "", sleep)

    async def numbers(self, agent_id: str) -> list[VendorNumber]:
        """`GET phone-numbers`: Twilio's only, those assigned to the agent first, those of others last."""
        items = await self._http.read(Call("GET", f"{_ROOT}/phone-numbers"), read_list)
        ranked: list[tuple[int, VendorNumber]] = []
        for item in items:
            if item.get("provider", "twilio") != "twilio" or item.get("supports_outbound") is False:
                continue
            owner = part(item, "assigned_agent", "agent_id")
            number, number_id = item.get("phone_number"), item.get("phone_number_id")
            if isinstance(number, str) and isinstance(number_id, str):
                made = VendorNumber(number, number_id, str(item.get("label") or ""), owner == agent_id)
                ranked.append((0 if made.bound else 2 if owner else 1, made))
        return [number for _, number in sorted(ranked, key=lambda pair: pair[0])]

    async def place(self, order: Order) -> Placed:
        """`POST twilio/outbound-call`. A refusal that names the number has code `invalid_number`."""
        body = {
            "agent_id": order.agent_id,
            "agent_phone_number_id": order.source.id,
            "to_number": order.to,
            "conversation_initiation_client_data": initiation(order.brief, order.intent),
            "telephony_call_config": {"ringing_timeout_secs": order.ring_seconds},
        }
        call = Call("POST", f"{_ROOT}/twilio/outbound-call", body=body)
        data = await self._http.read(call, read_object, write=True)
        if data.get("success") is False:
            raise _refused(str(data.get("message") or ""))
        conversation_id, sid = data.get("conversation_id"), data.get("callSid")
        return Placed(str(conversation_id or ""), str(sid or ""), order.source.number)

    async def find(self, order: Order) -> Placed | None:
        """Among the agent's newest conversations the one that carries our key."""
        query: dict[str, str | int | None] = {
            "agent_id": order.agent_id,
            "call_start_after_unix": order.begun_at // 1000 - _SKEW_SECONDS,
            "page_size": _CANDIDATES,
        }
        call = Call("GET", f"{_ROOT}/conversations", query)
        page = await self._http.read(call, read_object, attempts=2, insist=True)
        items = page.get("conversations")
        for item in items if isinstance(items, list) else []:
            conversation_id = part(item, "conversation_id")
            if not isinstance(conversation_id, str):
                continue
            data = await self._conversation(conversation_id)
            given = part(data, "conversation_initiation_client_data", "dynamic_variables", INTENT)
            if given == order.intent:
                sid = part(data, "metadata", "phone_call", "call_sid")
                return Placed(conversation_id, str(sid or ""), order.source.number)
        return None

    async def look(self, conversation_id: str) -> Standing:
        data = await self._conversation(conversation_id)
        state = _STATES.get(str(data.get("status")), CallState.QUEUED)
        ended = _ending(data) if state is CallState.ENDED else None
        return Standing(state, ended, str(part(data, "metadata", "phone_call", "call_sid") or ""))

    async def follow(self, conversation_id: str) -> AsyncGenerator[Message, None]:
        """The transcript as far as the object shows it, and the whole of it after the end."""
        told, looks = 0, 0
        while True:
            data = await self._conversation(conversation_id)
            rows = _objects(data.get("transcript"))
            over = _STATES.get(str(data.get("status"))) is CallState.ENDED
            complete = data.get("status") in ("done", "failed")
            # The newest entry of a running call may still change.
            shown = len(rows) if over else max(told, len(rows) - 1)
            for row in rows[told:shown]:
                for message in _entry(row):
                    yield message
            told = max(told, shown)
            looks += over
            if complete or looks >= _LOOKS:
                yield _ending(data)
                return
            await self._sleep(self._poll_seconds)

    async def stop(self, conversation_id: str) -> None:
        raise ServiceError(
            "ElevenLabs cannot hang up a phone call",
            advice="Give Callboard access to the Twilio account: callboard phone set COMPANY",
            code="not_offered",
        )

    async def steer(self, conversation_id: str, text: str) -> None:
        raise ServiceError(
            "ElevenLabs' agents cannot be told anything during a phone call",
            advice="Choose another transport for it",
            code="not_offered",
        )

    async def aftermath(self, conversation_id: str, *, transcript: bool) -> list[Message]:
        data: dict[str, Any] = {}
        for _ in range(_LOOKS):
            data = await self._conversation(conversation_id)
            if data.get("status") in ("done", "failed"):
                break
            await self._sleep(min(0.5, self._poll_seconds))
        rows = _objects(data.get("transcript")) if transcript else []
        messages = [message for row in rows for message in _entry(row)]
        return messages + messages_of(data)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _conversation(self, conversation_id: str) -> dict[str, Any]:
        path = f"{_ROOT}/conversations/{segment(conversation_id, 'a conversation')}"
        return await self._http.read(Call("GET", path), read_object, attempts=1)


def initiation(brief: Brief, intent: str) -> dict[str, Any]:
    """A brief as `conversation_initiation_client_data`, our key among its variables."""
    data = conversation_config(brief)
    return {**data, "dynamic_variables": {**brief.variables, INTENT: intent}}


def _entry(row: dict[str, Any]) -> list[Message]:
    """One entry of the transcript, as messages."""
    messages: list[Message] = []
    text = row.get("message")
    if isinstance(text, str) and text.strip():
        original = row.get("original_message")
        if row.get("role") == "user":
            messages.append(UserSpeech(text))
        elif row.get("interrupted") and isinstance(original, str) and original != text:
            messages += [AgentSpeech(original), AgentCorrected(original, text)]
        else:
            messages.append(AgentSpeech(text))
    for call in _objects(row.get("tool_calls")):
        name = str(call.get("tool_name") or call.get("name") or "")
        tool_id = str(call.get("request_id") or call.get("id") or name)
        kind = str(call.get("type") or "")
        where = kind if kind in ("client", "mcp") else "server"
        messages.append(ToolStarted(tool_id, name, _arguments(call.get("params_as_json")), where))
    for result in _objects(row.get("tool_results")):
        tool_id = str(result.get("request_id") or result.get("id") or result.get("tool_name") or "")
        value = result.get("result_value", "")
        answer = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        took = result.get("tool_latency_secs")
        took_ms = round(took * 1000) if isinstance(took, int | float) and took > 0 else None
        messages.append(ToolEnded(tool_id, answer, not result.get("is_error"), took_ms))
    return messages


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _arguments(text: object) -> dict[str, Any]:
    try:
        data = json.loads(text) if isinstance(text, str) and text else {}
    except ValueError:
        data = text
    return data if isinstance(data, dict) else {"arguments": data}


def _ending(data: dict[str, Any]) -> Ended:
    """The end that `termination_reason` and the error tell of; both are free text."""
    said = str(part(data, "metadata", "termination_reason") or "")
    error = part(data, "metadata", "error", "reason")
    words = f"{said} {error or ''}".lower()
    for pattern, reason, by in _ENDINGS:
        if re.search(pattern, words):
            return Ended(reason, by=by)
    if data.get("status") == "failed":
        return Ended(EndReason.VENDOR_ERROR, str(error or said), "vendor")
    return Ended(EndReason.CALLEE_ENDED, said, "callee")


_ENDINGS: Final = (
    (r"no.?answer", EndReason.NO_ANSWER, "callee"),
    (r"\bbusy\b", EndReason.BUSY, "callee"),
    (r"cancell?ed", EndReason.CANCELLED, "vendor"),
    (r"end_call|agent (ended|hung)", EndReason.AGENT_ENDED, "agent"),
    (r"max(imum)?.?duration|time limit", EndReason.MAX_DURATION, "vendor"),
    (r"quota|credit|concurren", EndReason.LIMIT, "vendor"),
    (r"remote party|client|user (ended|hung)|caller", EndReason.CALLEE_ENDED, "callee"),
)


def _refused(message: str) -> ServiceError:
    """The vendor says that it placed no call."""
    if _FORBIDDEN.search(message):
        code, advice = "not_allowed", "Allow calls to this country in Twilio's geographic permissions"
    elif _BAD_NUMBER.search(message):
        code, advice = "invalid_number", "Check the number"
    else:
        code, advice = "refused", "Check the imported number and its Twilio credentials at ElevenLabs"
    return ServiceError(f"ElevenLabs did not place the call: {message[:300]}", advice=advice, code=code)
