"""Simulated partners of bookings, each below its own path, and a gateway to them.

`/bookings` speaks the contract of `INTEGRATION_API_URL`; `/opentable`, `/toast` and `/doctolib` answer what
the mapping files of these partners send, in the partner's own shape as far as that is known (see the files).
All keep a diary: times run out, a taken one is refused, a repeated idempotency key gets the first answer.

OpenTable and Toast exchange the simulator's key for a token at their own token endpoints, with any client id.
"""

from __future__ import annotations

import base64
import datetime as dt
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from services.clock import Clock, SystemClock
from services.simulator.partners import Partner, Partners, plain_failure
from services.simulator.wire import Json, Reply, Request, answer

PARTNERS: Final = ("opentable", "toast", "doctolib")
PARIS: Final = ZoneInfo("Europe/Paris")
LOCK_MS: Final = 300_000
"""How long OpenTable holds a slot for a reservation that is being made."""


class Taken(Exception):
    """Nobody else fits in at that time."""


@dataclass(slots=True)
class Diary:
    """What is booked when. Times are texts, equal for equal times. `seats`: bookings at one time."""

    seats: int
    booked: dict[str, str] = field(default_factory=dict)
    """Booking id to time."""

    def left(self, time: str) -> int:
        return self.seats - sum(other == time for other in self.booked.values())

    def take(self, booking_id: str, time: str) -> None:
        if self.left(time) <= 0:
            raise Taken
        self.booked[booking_id] = time

    def release(self, booking_id: str) -> bool:
        return self.booked.pop(booking_id, None) is not None


class Answers:
    """First answers by idempotency key."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, Reply]] = {}

    def once(self, key: str, request: Request, make: Callable[[], Reply], reused: Reply) -> Reply:
        """The answer to the first request with this key; `reused` when it was for another request."""
        if key in self._known:
            body, reply = self._known[key]
            return Reply(reply.status, reply.body) if body == request.body else reused
        reply = make()
        if key and reply.status < 400:
            self._known[key] = (request.body, Reply(reply.status, reply.body))
        return reply


def times_of(day: dt.date, first: int, last: int, minutes: int, zone: dt.tzinfo | None) -> list[dt.datetime]:
    """From `first` o'clock to before `last`, every so many minutes."""
    count = (last - first) * 60 // minutes
    begin = dt.datetime.combine(day, dt.time(first))
    return [(begin + dt.timedelta(minutes=minutes * n)).replace(tzinfo=zone) for n in range(count)]


class Gateway:
    """The contract of `INTEGRATION_API_URL`. Every partner has tables or agendas from 17:00 to 22:00 UTC."""

    PREFIX: Final = "/bookings"

    def __init__(self, partners: Partners) -> None:
        self.diaries = {name: Diary(2) for name in PARTNERS}
        self.executed: list[Json] = []
        self._answers = Answers()
        self._count = itertools.count(1)
        partners.add(Partner(self.PREFIX, self.failure))
        add = partners.router.add
        add("GET", f"{self.PREFIX}/partners", "list", lambda request: answer({"partners": list(PARTNERS)}))
        add("POST", f"{self.PREFIX}/execute", "write", self._execute)

    def failure(self, status: int) -> Reply:
        return answer({"error": {"code": f"http_{status}", "message": f"simulated failure {status}"}}, status)

    def _refused(self, code: str, message: str, status: int = 400) -> Reply:
        return answer({"error": {"code": code, "message": message}}, status)

    def _execute(self, request: Request) -> Reply:
        body = request.json_object() or {}
        partner, action, params = body.get("partner"), body.get("action"), body.get("params")
        if partner not in self.diaries or not isinstance(params, dict):
            return self._refused("unsupported", f"there is no partner {partner}")
        diary = self.diaries[str(partner)]
        if action == "availability":
            return self._free(diary, params)
        key = request.headers.get(b"idempotency-key", b"").decode("latin-1")
        if not key:
            return self._refused("no_key", "the header Idempotency-Key is required")
        reused = self._refused("key_reused", "the key was used for another request", 422)
        return self._answers.once(key, request, lambda: self._order(diary, str(action), params), reused)

    def _free(self, diary: Diary, params: Json) -> Reply:
        begin, end = _moment(params.get("from")), _moment(params.get("to"))
        if begin is None or end is None:
            return self._refused("bad_request", "from and to are times with an offset")
        slots = []
        day = begin.date()
        while day <= end.date():
            for at in times_of(day, 17, 22, 30, dt.UTC):
                left = diary.left(at.isoformat())
                if begin <= at < end and left:
                    ends = at + dt.timedelta(minutes=90)
                    slots.append({"starts_at": at.isoformat(), "ends_at": ends.isoformat(), "seats": left})
            day += dt.timedelta(days=1)
        return answer({"slots": slots})

    def _order(self, diary: Diary, action: str, params: Json) -> Reply:
        self.executed.append({"action": action, "params": params})
        if action == "cancel":
            gone = diary.release(str(params.get("id")))
            return answer({"id": params.get("id"), "state": "cancelled"}) if gone else self._gone()
        if action not in ("reserve", "appoint"):
            return answer({"id": f"X-{next(self._count)}", "result": {"action": action, "done": True}})
        at = _moment(params.get("at"))
        if at is None or not params.get("name"):
            return self._refused("bad_request", "at and name are required")
        booking_id = f"GW-{next(self._count)}"
        try:
            diary.take(booking_id, at.isoformat())
        except Taken:
            return self._refused("taken", "nothing is free at that time", 409)
        return answer({"id": booking_id, "state": "confirmed", "starts_at": at.isoformat(), "result": {}})

    def _gone(self) -> Reply:
        return self._refused("not_found", "there is no such booking", 404)


class TokenHouse:
    """Tokens that a partner gives out for the simulator's key, and which of them are in force."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.given = 0
        self._tokens: set[str] = set()

    def give(self) -> str:
        self.given += 1
        token = f"{self.name}-token-{self.given}"
        self._tokens.add(token)
        return token

    def revoke(self) -> None:
        self._tokens.clear()

    def opens(self, request: Request) -> bool:
        bearer = request.headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        return bearer in self._tokens


class OpenTable:
    """OpenTable's Consumer API v2 for any restaurant: tables every 15 minutes from 17:00 to 22:00."""

    PREFIX: Final = "/opentable"

    def __init__(self, partners: Partners, key: str, clock: Clock) -> None:
        self.diary = Diary(2)
        self.tokens = TokenHouse("opentable", key)
        self.reservations: dict[str, Json] = {}
        self._locks: dict[str, tuple[str, Json, int]] = {}
        self._answers = Answers()
        self._count = itertools.count(1751)
        self._clock = clock
        partners.add(Partner(self.PREFIX, self.failure))

        def add(method: str, path: str, kind: str, handler: Callable[..., Reply]) -> None:
            def guarded(request: Request, *ids: str) -> Reply:
                return handler(request, *ids) if self.tokens.opens(request) else self.failure(401)

            # Tokens of its own open it, not the simulator's key.
            partners.router.add(method, f"{self.PREFIX}{path}", kind, guarded, public=True)

        partners.router.add("POST", f"{self.PREFIX}/api/v2/oauth/token", "account", self._token, public=True)
        add("GET", "/v2/availability-metadata/*", "detail", self._metadata)
        add("GET", "/v2/availability/*", "list", self._availability)
        add("POST", "/v2/booking/*/slot_locks", "write", self._lock)
        add("POST", "/v2/booking/*/reservations", "write", self._reserve)
        add("GET", "/v2/booking/*/reservations/*", "detail", self._get)
        add("PUT", "/v2/booking/*/reservations/*", "write", self._change)

    def failure(self, status: int) -> Reply:
        return self._error({401: "invalid_token"}.get(status, f"simulated failure {status}"), status)

    def _error(self, message: str, status: int = 400) -> Reply:
        return answer({"errors": [{"message": message}], "requestid": f"sim-{status}"}, status)

    def _token(self, request: Request) -> Reply:
        pair = base64.b64decode(request.headers.get(b"authorization", b"").removeprefix(b"Basic ") or b"")
        if pair.decode("utf-8", "replace").partition(":")[2] != self.tokens.key:
            return self._error("invalid_client", 401)
        if request.query.get("grant_type") != "client_credentials":
            return self._error("unsupported_grant_type")
        return answer(
            {
                "access_token": self.tokens.give(),
                "token_type": "bearer",
                "expires_in": 1_989_434,
                "scope": "DEFAULT",
            }
        )

    def _metadata(self, request: Request, rid: str) -> Reply:
        area = {"id": 1, "name": "Main", "description": "Main", "environment": "Indoor"}
        return answer({"data": {"attributes": ["default"], "dining_areas": [area]}})

    def _availability(self, request: Request, rid: str) -> Reply:
        query = request.query
        try:
            start = dt.datetime.fromisoformat(query.get("start_date_time", ""))
            forward, party = int(query.get("forward_minutes", "60")), int(query.get("party_size", ""))
        except ValueError:
            return self._error("start_date_time, forward_minutes or party_size is wrong")
        if not 1 <= party <= 20:
            return self._error("Party size must be from 1 to 20")
        self._forget_locks()
        end = start + dt.timedelta(minutes=forward)
        times = []
        for offset in range((end.date() - start.date()).days + 1):
            day = start.date() + dt.timedelta(days=offset)
            times += [at for at in times_of(day, 17, 22, 15, None) if start <= at < end]
        free = [text for at in times if self.diary.left(_slot(rid, text := f"{at:%Y-%m-%dT%H:%M}")) > 0]
        return answer(
            {
                "rid": int(rid) if rid.isdecimal() else rid,
                "party_size": party,
                "times": free,
                "times_available": [
                    {"time": text, "availability_types": [{"type": "Standard"}]} for text in free
                ],
                "no_availability_reasons": [] if free else ["NoTimesExist"],
            }
        )

    def _lock(self, request: Request, rid: str) -> Reply:
        body = request.json_object() or {}
        for name in ("party_size", "date_time"):
            if not body.get(name):
                return self._error(f"{name} should not be null")
        return self._answers.once(
            _request_id(request), request, lambda: self._locked(rid, body), self._error("X-Request-Id reused")
        )

    def _locked(self, rid: str, body: Json) -> Reply:
        self._forget_locks()
        token = f"lock-{next(self._count)}"
        try:
            self.diary.take(token, _slot(rid, str(body["date_time"])))
        except Taken:
            return self._error("The time slot is no longer available", 409)
        self._locks[token] = (rid, body, self._clock.now() + LOCK_MS)
        return answer({"expires_at": self._clock.now() + LOCK_MS, "reservation_token": token})

    def _forget_locks(self) -> None:
        now = self._clock.now()
        for token in [token for token, (_, _, until) in self._locks.items() if until <= now]:
            del self._locks[token]
            self.diary.release(token)

    def _reserve(self, request: Request, rid: str) -> Reply:
        body = request.json_object() or {}
        for name in ("first_name", "last_name", "email_address"):
            if not body.get(name):
                return self._error(f"{name} should not be empty")
        phone = body.get("phone")
        if not isinstance(phone, dict) or not phone.get("number"):
            return self._error("ValidationError - PhoneRequired: phone Not Provided")
        reused = self._error("X-Request-Id reused")
        return self._answers.once(_request_id(request), request, lambda: self._reserved(rid, body), reused)

    def _reserved(self, rid: str, body: Json) -> Reply:
        self._forget_locks()
        held = self._locks.pop(str(body.get("reservation_token")), None)
        if held is None or held[0] != rid:
            return self._error("reservation_token is invalid")
        self.diary.release(str(body["reservation_token"]))
        number = next(self._count)
        self.diary.take(f"{rid}-{number}", _slot(rid, str(held[1]["date_time"])))
        made = {
            "message": "We have a 15 minute grace period.",
            "confirmation_number": number,
            "date_time": held[1]["date_time"],
            "party_size": held[1]["party_size"],
            "notes": body.get("special_request", ""),
            "manage_reservation_url": f"https://opentable.example/view?rid={rid}&confnumber={number}",
        }
        self.reservations[f"{rid}-{number}"] = {**made, "status": "Pending", "guest": body}
        return answer(made, 201)

    def _get(self, request: Request, rid: str, reservation_id: str) -> Reply:
        found = self.reservations.get(reservation_id)
        return answer(found) if found else self._missing(rid)

    def _change(self, request: Request, rid: str, reservation_id: str) -> Reply:
        found = self.reservations.get(reservation_id)
        if found is None:
            return self._missing(rid)
        if (request.json_object() or {}).get("status") != "CancelledWeb":
            return self._error("status is invalid")
        found["status"] = "CancelledWeb"
        self.diary.release(reservation_id)
        return Reply(200, b"")

    def _missing(self, rid: str) -> Reply:
        return self._error(f"MissingResource - Reservation details [RID = {rid}]", 404)


class Toast:
    """Toast's orders as far as they stand for reservations."""

    PREFIX: Final = "/toast"

    def __init__(self, partners: Partners, key: str) -> None:
        self.tokens = TokenHouse("toast", key)
        self.orders: dict[str, Json] = {}
        self._count = itertools.count(1)
        partners.add(Partner(self.PREFIX, self.failure))
        add = partners.router.add
        login = f"{self.PREFIX}/authentication/v1/authentication/login"
        add("POST", login, "account", self._login, public=True)
        add("GET", f"{self.PREFIX}/restaurants/v1/restaurants/*", "detail", self._restaurant, public=True)
        add("POST", f"{self.PREFIX}/orders/v2/orders", "write", self._order, public=True)

    def failure(self, status: int) -> Reply:
        return self._error(f"simulated failure {status}", status)

    def _error(self, message: str, status: int = 400) -> Reply:
        return answer({"status": status, "code": 0, "message": message, "requestId": "sim"}, status)

    def _login(self, request: Request) -> Reply:
        body = request.json_object() or {}
        usable = body.get("userAccessType") == "TOAST_MACHINE_CLIENT" and body.get("clientId")
        if not usable or body.get("clientSecret") != self.tokens.key:
            return self._error("The client id or secret is wrong", 401)
        token = {"tokenType": "Bearer", "expiresIn": 86_400, "accessToken": self.tokens.give()}
        return answer({"token": token, "status": "SUCCESS"})

    def _restaurant(self, request: Request, guid: str) -> Reply:
        refused = self._refused(request)
        return refused or answer({"guid": guid, "general": {"name": "Simulated restaurant"}})

    def _order(self, request: Request) -> Reply:
        refused = self._refused(request)
        if refused is not None:
            return refused
        body = request.json_object() or {}
        if not body.get("diningOption") or not body.get("checks"):
            return self._error("diningOption and checks are required")
        external_id = str(body.get("externalId") or "")
        if any(order.get("externalId") == external_id for order in self.orders.values()):
            return self._error("An order with this externalId exists already")
        guid = f"00000000-0000-4000-8000-{next(self._count):012d}"
        made = {**body, "guid": guid, "approvalStatus": "FUTURE", "displayNumber": str(len(self.orders) + 1)}
        self.orders[guid] = made
        return answer(made)

    def _refused(self, request: Request) -> Reply | None:
        if not self.tokens.opens(request):
            return self.failure(401)
        if not request.headers.get(b"toast-restaurant-external-id"):
            return self._error("The header Toast-Restaurant-External-ID is required")
        return None


class Doctolib:
    """A partner in the shape that the mapping file of Doctolib assumes: 9:00 to 12:00 in Paris."""

    PREFIX: Final = "/doctolib"

    def __init__(self, partners: Partners) -> None:
        self.diary = Diary(1)
        self.appointments: dict[str, Json] = {}
        self._count = itertools.count(1)
        partners.add(Partner(self.PREFIX, self.failure))
        add = partners.router.add
        add("GET", f"{self.PREFIX}/auth", "account", lambda request: answer({"status": "ok"}))
        add("GET", f"{self.PREFIX}/availabilities", "list", self._availabilities)
        add("POST", f"{self.PREFIX}/appointments", "write", self._appoint)
        add("DELETE", f"{self.PREFIX}/appointments/*", "write", self._cancel)

    def failure(self, status: int) -> Reply:
        return plain_failure(status)

    def _refused(self, code: str, message: str, status: int = 400) -> Reply:
        return answer({"error": {"code": code, "message": message}}, status)

    def _availabilities(self, request: Request) -> Reply:
        query = request.query
        try:
            start = dt.date.fromisoformat(query.get("start_date", ""))
            days = int(query.get("limit", "7"))
        except ValueError:
            return self._refused("bad_request", "start_date or limit is wrong")
        agenda = query.get("agenda_ids[]", "")
        found = []
        for offset in range(days):
            day = start + dt.timedelta(days=offset)
            free = [at for at in times_of(day, 9, 12, 30, PARIS) if self.diary.left(_at(agenda, at)) > 0]
            slots = [at.isoformat(timespec="milliseconds") for at in free]
            found.append({"date": day.isoformat(), "slots": slots})
        return answer({"availabilities": found, "total": sum(len(each["slots"]) for each in found)})

    def _appoint(self, request: Request) -> Reply:
        body = request.json_object() or {}
        at = _moment(body.get("start_date"))
        patient = body.get("patient")
        if at is None or not body.get("agenda_id") or not isinstance(patient, dict):
            return self._refused("bad_request", "agenda_id, start_date and patient are required")
        appointment_id = f"apt-{next(self._count)}"
        try:
            self.diary.take(appointment_id, _at(str(body["agenda_id"]), at))
        except Taken:
            return self._refused("slot_not_available", "That slot is gone", 409)
        made = {**body, "id": appointment_id, "status": "confirmed"}
        self.appointments[appointment_id] = made
        return answer(made, 201)

    def _cancel(self, request: Request, appointment_id: str) -> Reply:
        if not self.diary.release(appointment_id):
            return self._refused("not_found", "There is no such appointment", 404)
        self.appointments[appointment_id]["status"] = "canceled"
        return Reply(204)


@dataclass(frozen=True, slots=True)
class BookingPartners:
    """All of them, for tests that look inside."""

    gateway: Gateway
    opentable: OpenTable
    toast: Toast
    doctolib: Doctolib


def mount(partners: Partners, key: str, clock: Clock | None = None) -> BookingPartners:
    """Add them to the simulator's partner services."""
    clock = clock or SystemClock()
    return BookingPartners(
        Gateway(partners), OpenTable(partners, key, clock), Toast(partners, key), Doctolib(partners)
    )


def _moment(value: object) -> dt.datetime | None:
    """A time with an offset, in UTC; None for anything else."""
    try:
        at = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at.astimezone(dt.UTC) if at.tzinfo else None


def _at(agenda: str, at: dt.datetime) -> str:
    return f"{agenda} {at.astimezone(dt.UTC).isoformat()}"


def _slot(rid: str, local: str) -> str:
    return f"{rid} {local[:16]}"


def _request_id(request: Request) -> str:
    return request.headers.get(b"x-request-id", b"").decode("latin-1")
