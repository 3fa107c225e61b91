"""Partners through a generic HTTP service: `INTEGRATION_API_URL`, or an integration `http-bookings`.

The contract of the service, all of it JSON, the key as a bearer token:

    GET  /partners                     {"partners": ["opentable", …]}; asked to see whether the service works
    POST /execute                      {"partner": "opentable", "action": "reserve", "params": {…}}
         Idempotency-Key: KEY          a second request with the same key gets the first one's answer
      -> 200 {"id": "…", "state": "confirmed" | "pending" | "cancelled" | "failed",
              "starts_at": "2027-03-01T19:30:00+01:00", "result": {…}}
      -> 200 {"slots": [{"starts_at": "…", "ends_at": "…", "id": "…", "seats": 4}, …]}   for availability
      -> 4xx {"error": {"code": "taken" | "unsupported" | …, "message": "…"}}

Actions are availability, reserve, appoint, cancel and whatever else the service knows. Times carry an offset.
Only `id` (not for availability) is required of an answer.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.http.client import Call, HttpOptions
from services.http.wire import parse, wrong_shape
from services.integrations.bookings.model import BookingState, Outcome, Slot
from services.integrations.bookings.times import milliseconds, read_time, zone_named
from services.integrations.credentials import Caller, FixedToken
from services.integrations.model import Resolved
from services.resilience import Policy, Subject
from services.text import clean_line

READING: Final = frozenset({"availability"})
"""Actions that change nothing; every other one is an order."""
_STATES: Final = frozenset({"confirmed", "pending", "cancelled", "failed"})


class Gateway:
    """One such service. Belongs to one event loop; `aclose` ends it."""

    def __init__(self, resolved: Resolved, policy: Policy, clock: Clock, *, timeout: float = 30.0) -> None:
        self.zone: ZoneInfo = zone_named(str(resolved.info.config.get("timezone") or "UTC"))
        self._name = resolved.info.name
        options = HttpOptions(
            vendor=self._name[:1].upper() + self._name[1:],
            base_url=resolved.info.base_url,
            key=None,
            clock=clock,
            timeout=timeout,
            user_agent="callboard",
            policy=policy,
            explain=self._explain,
        )
        self._vendor = options.vendor
        self._caller = Caller(options, FixedToken(resolved.secret))

    async def availability(
        self, partner: str, params: Mapping[str, Any], *, subject: Subject | None = None
    ) -> list[Slot]:
        """The free times, in their order. Raises ServiceError."""
        answer = await self._caller.read(_execute(partner, "availability", params), _object, subject=subject)
        slots = answer.get("slots")
        if not isinstance(slots, list):
            raise wrong_shape("a list of slots", slots)
        return sorted((self._slot(item) for item in slots), key=lambda slot: (slot.starts_at, slot.id))

    async def order(
        self,
        partner: str,
        action: str,
        params: Mapping[str, Any],
        *,
        key: str,
        subject: Subject | None = None,
    ) -> Outcome:
        """Perform an action, at most once for the key. Raises ServiceError."""
        answer = await self._caller.read(
            _execute(partner, action, params), _object, write=True, idempotency_key=key, subject=subject
        )
        state = str(answer.get("state") or "")
        result = answer.get("result")
        at = answer.get("starts_at")
        otherwise = BookingState.CANCELLED if action == "cancel" else BookingState.PENDING
        return Outcome(
            str(answer.get("id") or ""),
            BookingState(state) if state in _STATES else otherwise,
            milliseconds(self._moment(at)) if isinstance(at, str) else None,
            result if isinstance(result, dict) else {},
        )

    async def probe(self) -> str:
        """Which partners the service knows, in one line: a free list. Raises ServiceError."""
        answer = await self._caller.read(Call("GET", "/partners"), _object)
        partners = answer.get("partners")
        known = [clean_line(str(name)) for name in partners] if isinstance(partners, list) else []
        return f"Knows {', '.join(known)}" if known else "Answers"

    async def aclose(self) -> None:
        await self._caller.aclose()

    def _slot(self, item: Any) -> Slot:
        if not isinstance(item, dict) or not isinstance(item.get("starts_at"), str):
            raise wrong_shape("a slot with starts_at", item)
        ends, seats = item.get("ends_at"), item.get("seats")
        return Slot(
            milliseconds(self._moment(item["starts_at"])),
            milliseconds(self._moment(ends)) if isinstance(ends, str) else None,
            str(item.get("id") or ""),
            seats if isinstance(seats, int) else None,
            self.zone.key,
        )

    def _moment(self, text: str) -> dt.datetime:
        at = read_time(text)
        if at is None or at.tzinfo is None:
            raise ServiceError(
                f"{self._vendor} names a time without an offset, or none: {clean_line(text)[:40]!r}",
                category=Category.TRANSIENT,
                advice="The service has to write times as 2027-03-01T19:30:00+01:00",
                code="answer_lost",
            )
        return at

    def _explain(self, status: int, data: object) -> ServiceError | None:
        error = data.get("error") if isinstance(data, dict) else None
        if not 400 <= status < 500 or status in (401, 403, 408, 429) or not isinstance(error, dict):
            return None
        code = str(error.get("code") or "refused")
        message = clean_line(str(error.get("message") or code))[:240].rstrip(".")
        if code == "unsupported":
            return UsageError(
                f"{self._vendor} does not do that: {message}",
                advice="Ask for another action, or connect the partner directly",
                code="not_offered",
            )
        if code == "taken":
            return ServiceError(
                f"That time is taken: {message}",
                advice="Ask for free times again: callboard booking availability",
                code="taken",
            )
        return ServiceError(
            f"{self._vendor} refused it: {message}", advice="Correct what it names", code="refused"
        )


def _execute(partner: str, action: str, params: Mapping[str, Any]) -> Call:
    return Call("POST", "/execute", body={"partner": partner, "action": action, "params": plain(params)})


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: times as ISO 8601 with their offset, what is empty left out."""
    made: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dt.datetime):
            made[name] = value.isoformat(timespec="seconds")
        elif isinstance(value, Mapping):
            made[name] = plain(value)
        elif value not in (None, ""):
            made[name] = value
    return json.loads(json.dumps(made, default=str)) if made else {}


def _object(text: str) -> dict[str, Any]:
    data = parse(text).data
    if not isinstance(data, dict):
        raise wrong_shape("an object", data)
    return data
