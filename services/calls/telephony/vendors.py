"""What a phone call needs of the vendor that hosts the agent: numbers, the order to dial, what follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from services import __product__
from services.calls.access import VendorAccess
from services.calls.messages import Ended, Message
from services.calls.model import Brief, CallState
from services.calls.telephony.intent import Placed
from services.clock import Clock
from services.errors import Category, ServiceError
from services.http.client import Http, HttpOptions
from services.http.wire import parse
from services.model import Provider
from services.providers.hosts import VENDOR_NAMES
from services.security import Secret

TIMEOUT: Final = 30.0
"""Seconds an order to dial may take: a vendor answers it after it has spoken to Twilio."""

_CERTAIN: Final = frozenset({
    "unreachable", "certificate", "tls", "bad_request", "closed", "wrong_key", "missing_permission",
    "invalid_request", "not_found", "payment_required", "quota_exceeded", "rate_limited", "redirect",
    "refused", "invalid_number", "not_allowed", "breaker_open", "limited",
})  # fmt: skip
"""Failures after which it is certain that the order did not arrive or was not taken."""


@dataclass(frozen=True, slots=True)
class VendorNumber:
    """A number that the vendor can call from. `bound`: it belongs to the agent that is to call."""

    number: str
    id: str
    """The vendor's id of it; the number itself at Retell."""
    label: str = ""
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A call to be placed. `intent` is its key: an order with the same key is the same call."""

    agent_id: str
    source: VendorNumber
    to: str
    brief: Brief
    intent: str
    begun_at: int
    """Epoch milliseconds, before it was sent."""
    ring_seconds: int = 60


@dataclass(frozen=True, slots=True)
class Standing:
    """How a call stands. With `ended` nothing changes any more."""

    state: CallState
    ended: Ended | None = None
    call_sid: str = ""
    """Twilio's id, once the vendor tells it."""


class PhoneVendor(Protocol):
    """One vendor's phone calls. Methods raise `ServiceError` only; `aclose` ends their requests."""

    name: str
    """The vendor's name as people write it."""
    can_stop: bool
    """Whether the vendor itself can hang up."""
    can_steer: bool
    """Whether the agent can be told something during the call."""

    async def numbers(self, agent_id: str) -> list[VendorNumber]:
        """Every number that calls can be made from, those bound to the agent first."""
        ...

    async def place(self, order: Order) -> Placed:
        """Have the number dialled. Sent once; see `is_certain` for what a failure means."""
        ...

    async def find(self, order: Order) -> Placed | None:
        """The call of an order whose answer was lost, looked for in the vendor's list of calls."""
        ...

    async def look(self, conversation_id: str) -> Standing:
        """How the call stands, by the vendor's own object. One attempt."""
        ...

    def follow(self, conversation_id: str) -> AsyncGenerator[Message, None]:
        """What is said in a live call, as it becomes known; may end with an `Ended`."""
        ...

    async def stop(self, conversation_id: str) -> None:
        """Hang up."""
        ...

    async def steer(self, conversation_id: str, text: str) -> None:
        """Tell the agent something."""
        ...

    async def aftermath(self, conversation_id: str, *, transcript: bool) -> list[Message]:
        """Once the call is over: what was said, if that is asked for; cost and figures. Bounded in time."""
        ...

    async def aclose(self) -> None: ...


def open_phone(
    access: VendorAccess,
    clock: Clock,
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    poll_seconds: float = 2.0,
) -> PhoneVendor:
    """The phone side of a vendor; nothing is sent before its first method. Call it inside the event loop.

    `poll_seconds`: between two looks for what was said, where the vendor has no live transcript.
    """
    if access.provider is Provider.RETELL:
        from services.calls.telephony.retell import RetellPhone

        return RetellPhone(access, clock, sleep=sleep)
    from services.calls.telephony.elevenlabs import ElevenLabsPhone

    return ElevenLabsPhone(access, clock, sleep=sleep, poll_seconds=poll_seconds)


def is_certain(error: ServiceError) -> bool:
    """Whether a failed order has certainly placed no call: after a time-out or a 5xx nobody knows."""
    # A conflict (409) is passing and may be about the same order.
    return error.code in _CERTAIN and not (error.code == "refused" and error.category is Category.TRANSIENT)


def choose_number(numbers: Sequence[VendorNumber], wanted: str, vendor: str) -> VendorNumber:
    """The number to call from: `wanted` if given, else the first. Raises `ServiceError`."""
    if not numbers:
        raise ServiceError(
            f"{vendor} has no number to call from",
            advice=f"Import a Twilio number at {vendor}, then try again",
            code="no_number",
        )
    if not wanted:
        return numbers[0]
    for number in numbers:
        if wanted in (number.number, number.id):
            return number
    known = ", ".join(number.number for number in numbers[:5])
    raise ServiceError(
        f"{vendor} has no number {wanted} to call from", advice=f"Use one of: {known}", code="no_number"
    )


def open_http(
    access: VendorAccess, clock: Clock, header: str, prefix: str, sleep: Callable[[float], Awaitable[object]]
) -> Http:
    """Requests with the account's key."""
    return Http(
        HttpOptions(
            vendor=VENDOR_NAMES[access.provider],
            base_url=access.base_url,
            key=Secret(access.key.strip()),
            header=header,
            prefix=prefix,
            clock=clock,
            timeout=TIMEOUT,
            user_agent=__product__,
            sleep=sleep,
            policy=access.policy,
        )
    )


def read_object(text: str) -> dict[str, Any]:
    """A parser of JSON objects."""
    data = parse(text).data
    if isinstance(data, dict):
        return data
    raise ServiceError("It is not a JSON object", category=Category.TRANSIENT, code="wrong_shape")


def read_list(text: str) -> list[dict[str, Any]]:
    """A parser of arrays of objects; what is no object in them is left out."""
    data = parse(text).data
    if isinstance(data, list):
        return [item for item in data if isinstance(item, dict)]
    raise ServiceError("It is not a JSON array", category=Category.TRANSIENT, code="wrong_shape")


def part(data: object, *names: str) -> Any:
    """A member of nested objects; None where there is none."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data
