"""Phone calls over Retell. Paths and shapes: SDK 6.2.13. Times are epoch milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final

from services.calls.access import VendorAccess
from services.calls.brief_payload import retell_override
from services.calls.messages import Message
from services.calls.model import CallState
from services.calls.retell_live import RetellLive
from services.calls.retell_transcript import Transcript, ending
from services.calls.telephony.intent import Placed
from services.calls.telephony.vendors import Order, Standing, VendorNumber, open_http, part, read_object
from services.calls.transports.retell_monitor import RetellMonitor
from services.clock import Clock
from services.errors import ServiceError
from services.http.client import Call

INTENT: Final = "callboard_call"
"""The member of a call's metadata that holds our key, by which a lost call is found again."""
_PAGE: Final = 1000
_MOST_PAGES: Final = 20
_STATES: Final = {
    "registered": CallState.QUEUED,
    "ongoing": CallState.LIVE,
    "ended": CallState.ENDED,
    "error": CallState.ENDED,
    "not_connected": CallState.ENDED,
}


class RetellPhone:
    """One Retell workspace's phone calls; a `PhoneVendor`."""

    name = "Retell"
    can_stop = True
    can_steer = True

    def __init__(
        self,
        access: VendorAccess,
        clock: Clock,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._access = access
        self._sleep = sleep
        self._http = open_http(access, clock, "authorization", "Bearer ", sleep)
        self._live = RetellLive(access, clock=clock, sleep=sleep)

    async def numbers(self, agent_id: str) -> list[VendorNumber]:
        """`GET /v2/list-phone-numbers`, those whose outbound agents include this one first."""
        found: list[VendorNumber] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            query: dict[str, str | int | None] = {"limit": _PAGE, "pagination_key": cursor}
            page = await self._http.read(Call("GET", "/v2/list-phone-numbers", query), read_object)
            items = page.get("items")
            found += [_number(item, agent_id) for item in items if isinstance(item, dict)] if items else []
            cursor = page.get("pagination_key") if page.get("has_more") else None
            if not cursor:
                break
        return sorted((number for number in found if number.number), key=lambda number: not number.bound)

    async def place(self, order: Order) -> Placed:
        """`POST /v2/create-phone-call`, with the intent as idempotency key and in the metadata."""
        body: dict[str, object] = {
            "from_number": order.source.number,
            "to_number": order.to,
            "override_agent_id": order.agent_id,
            "idempotency_key": order.intent,
            "metadata": {INTENT: order.intent},
        }
        override, variables = retell_override(order.brief)
        if override:
            body["agent_override"] = override
        if variables:
            body["retell_llm_dynamic_variables"] = variables
        data = await self._http.read(Call("POST", "/v2/create-phone-call", body=body), _call, write=True)
        return _placed(data)

    async def find(self, order: Order) -> Placed | None:
        """`POST /v3/list-calls` to this number since the order, told apart by the metadata."""
        body = {
            "limit": 50,
            "sort_order": "descending",
            "filter_criteria": {"to_number": {"type": "string", "op": "eq", "value": order.to}},
        }
        call = Call("POST", "/v3/list-calls", body=body)
        page = await self._http.read(call, read_object, attempts=2, insist=True)
        items = page.get("items")
        for item in items if isinstance(items, list) else []:
            if part(item, "metadata", INTENT) == order.intent and isinstance(item.get("call_id"), str):
                return _placed(item)
        return None

    async def look(self, conversation_id: str) -> Standing:
        data = await self._live.call(conversation_id)
        state = _STATES.get(str(data.get("call_status")), CallState.QUEUED)
        ended = ending(data.get("disconnection_reason")) if state is CallState.ENDED else None
        return Standing(state, ended, str(part(data, "telephony_identifier", "twilio_call_sid") or ""))

    async def follow(self, conversation_id: str) -> AsyncGenerator[Message, None]:
        """The monitor socket's transcript."""
        monitor = RetellMonitor(self._access, conversation_id, speaking=True, sleep=self._sleep)
        try:
            async for message in monitor:
                yield message
        finally:
            await monitor.aclose()

    async def stop(self, conversation_id: str) -> None:
        try:
            await self._live.stop(conversation_id)
        except ServiceError as error:
            if error.code not in ("invalid_request", "not_found"):
                raise
            # Refused for a call that is over, as wished, or for one that cannot be hung up.
            if (await self.look(conversation_id)).ended is None:
                raise

    async def steer(self, conversation_id: str, text: str) -> None:
        await self._live.steer(conversation_id, text)

    async def aftermath(self, conversation_id: str, *, transcript: bool) -> list[Message]:
        messages: list[Message] = []
        if transcript:
            items = (await self._live.call(conversation_id)).get("transcript_with_tool_calls")
            rows = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
            named = [{"id": f"item {index}", "time_sec": index, **item} for index, item in enumerate(rows)]
            reader = Transcript()
            messages += reader.read({"type": "transcript_snapshot", "transcripts": named})
            messages += reader.settle()
        return messages + await self._live.figures(conversation_id)

    async def aclose(self) -> None:
        await self._live.aclose()
        await self._http.aclose()


def _number(item: Mapping[str, Any], agent_id: str) -> VendorNumber:
    agents = item.get("outbound_agents")
    bound = (
        any(part(agent, "agent_id") == agent_id for agent in agents) if isinstance(agents, list) else False
    )
    number = str(item.get("phone_number") or "")
    return VendorNumber(number, number, str(item.get("nickname") or ""), bound)


def _placed(data: Mapping[str, Any]) -> Placed:
    sid = part(data, "telephony_identifier", "twilio_call_sid")
    return Placed(str(data["call_id"]), str(sid or ""), str(data.get("from_number") or ""))


def _call(text: str) -> dict[str, Any]:
    data = read_object(text)
    if isinstance(data.get("call_id"), str) and data["call_id"]:
        return data
    raise ServiceError("It has no call_id", code="wrong_shape")
