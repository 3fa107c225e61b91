"""Bookings for agents, workflows and people: one way in, whoever is behind it.

A partner is reached directly where an integration of its own is configured, else through the gateway, else it
is simulated and every row says so. An order is preceded by an intent and performed at most once for its key.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Unpack

from sqlmodel import Session

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.events import BookingsChanged, EventBus
from services.integrations.bookings import simulated
from services.integrations.bookings.actions import Actions
from services.integrations.bookings.asking import (
    Terms,
    checked,
    deed_of,
    not_offered,
    range_of,
    refuse_past,
)
from services.integrations.bookings.catalogue import PartnerCatalogue
from services.integrations.bookings.direct import Order
from services.integrations.bookings.gateway import READING, plain
from services.integrations.bookings.model import (
    Availability,
    Booking,
    BookingKind,
    BookingState,
    Execution,
    Slot,
)
from services.integrations.bookings.rows import (
    EFFECT,
    booking_ended,
    booking_of,
    execution_of,
    execution_of_booking,
)
from services.integrations.bookings.store import BookingStore
from services.integrations.bookings.times import at_zone, milliseconds
from services.integrations.bookings.ways import Way, Ways
from services.integrations.effects import (
    Deed,
    EffectRow,
    Effects,
    EffectState,
    Intent,
    given_up_after,
)
from services.integrations.model import Resolved
from services.integrations.orders import Asking, Ordering, subject_of, unsure
from services.integrations.registry import IntegrationService
from services.resilience import Fallback, Policies, RateLimiter, Subject
from services.storage import Database
from services.text import clean_line

ACTIONS: Final = {BookingKind.RESERVATION: "reserve", BookingKind.APPOINTMENT: "appoint"}
REMEMBERED: Final = 300.0
"""Seconds for which a partner's free times stand in while it does not answer; booking asks it in any case."""
_KINDS: Final = {action: kind for kind, action in ACTIONS.items()}


class BookingService:
    """Availability, reservations, appointments, and any other action of a partner.

    `company` is a company's name. Belongs to one event loop; `aclose` ends it.
    """

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        integrations: IntegrationService,
        effects: Effects,
        policies: Policies,
        bus: EventBus,
        clock: Clock,
        *,
        partners: PartnerCatalogue | None = None,
        limiter: RateLimiter | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._store = BookingStore(open_database, clock)
        self._integrations = integrations
        self._effects = effects
        self._bus = bus
        self._clock = clock
        self._timeout = timeout
        self._catalogue = partners or PartnerCatalogue()
        self._ways = Ways(integrations, policies, clock, self._catalogue, limiter=limiter, timeout=timeout)

    @property
    def actions(self) -> Actions:
        """Orders at partners that are no booking."""
        return Actions(self._effects)

    @property
    def partners(self) -> PartnerCatalogue:
        """Every mapping file. Its methods read files the first time: for a thread."""
        return self._catalogue

    async def availability(
        self,
        company: str,
        partner: str,
        *,
        day: dt.date | str = "",
        begin: dt.datetime | str = "",
        end: dt.datetime | str = "",
        party_size: int | None = None,
        service: str = "",
        practitioner: str = "",
        **how: Unpack[Asking],
    ) -> Availability:
        """The free times of a day, or from `begin` to before `end`, in their order.

        Days and times without an offset are the partner's. While the partner does not answer, what it
        answered to the same question a moment ago, marked so. Raises UsageError where the partner offers no
        availability, ServiceError where it cannot be asked.
        """
        company_id, way = await self._ways.to(company, partner, how.get("integration", ""))
        start, stop = range_of(self._clock.now(), day, begin, end, way.zone)
        values = {"party_size": party_size, "service": service, "practitioner": practitioner}
        subject = subject_of(company, how)
        if way.policy is None:
            kind, taken = await self._kind_of(partner), await self._store.taken(company_id, partner)
            return Availability(simulated.free_times(kind, start, stop, taken))

        async def ask() -> list[Slot]:
            if way.direct is not None:
                return await way.direct.availability(start, stop, Order(values, subject=subject))
            assert way.gateway is not None  # noqa: S101  # a way with a policy is one of the two
            params = {"from": start, "to": stop, **values}
            return await way.gateway.availability(partner, params, subject=subject)

        question = ("availability", company_id, partner, start, stop, party_size, service, practitioner)
        found = await way.policy.call(ask, Fallback(key=question, max_age=REMEMBERED))
        slots = [replace(slot, simulated=True) for slot in found.value] if way.simulated else found.value
        return Availability(slots, found.why(""), found.age if found.degraded else None)

    async def create_reservation(
        self,
        company: str,
        partner: str,
        *,
        party_size: int,
        at: dt.datetime | str,
        name: str,
        phone: str = "",
        email: str = "",
        notes: str = "",
        slot: str = "",
        params: Mapping[str, Any] | None = None,
        **how: Unpack[Terms],
    ) -> Booking:
        """Reserve a table. A repeated key gets the first one's booking.

        Raises UsageError, also for a time that is past unless `anyway`, and ServiceError.
        """
        if party_size < 1:
            raise UsageError(
                "A party has at least one person", advice="Give it with --party", code="bad_value"
            )
        given = {"party_size": party_size, "name": name, "phone": phone, "email": email}
        return await self._book(
            BookingKind.RESERVATION,
            company,
            partner,
            {**given, "notes": notes, "slot": slot, "at": at, "params": dict(params or {})},
            how,
        )

    async def create_appointment(
        self,
        company: str,
        partner: str,
        *,
        service: str,
        at: dt.datetime | str,
        name: str,
        phone: str = "",
        email: str = "",
        birth_date: str = "",
        practitioner: str = "",
        notes: str = "",
        slot: str = "",
        params: Mapping[str, Any] | None = None,
        **how: Unpack[Terms],
    ) -> Booking:
        """Make an appointment. A repeated key gets the first one's. Raises UsageError, ServiceError."""
        given = {"service": service, "name": name, "phone": phone, "email": email, "birth_date": birth_date}
        return await self._book(
            BookingKind.APPOINTMENT,
            company,
            partner,
            {**given, "practitioner": practitioner, "notes": notes, "slot": slot, "at": at}
            | {"params": dict(params or {})},
            how,
        )

    async def cancel(
        self,
        booking_id: str,
        *,
        reason: str = "",
        **how: Unpack[Ordering],
    ) -> Booking:
        """Cancel a booking at its partner. Raises UsageError where that is not offered or makes no sense."""
        booking = await self.get(booking_id)
        if booking.state not in (BookingState.CONFIRMED, BookingState.PENDING):
            raise UsageError(
                f"Booking {booking.id} is {booking.state}, there is nothing to cancel",
                advice="List what there is: callboard booking list",
                code="not_booked",
            )
        company = await self._store.company_name(booking)
        how["idempotency_key"] = how.get("idempotency_key") or await self._store.cancel_key(booking)
        how["integration"] = how.get("integration") or booking.integration
        params = {"id": booking.provider_id, "reason": reason}
        execution = await self._execute(company, booking.partner, "cancel", params, how, was=booking)
        if execution.state is not EffectState.DONE:
            raise ServiceError(
                f"That booking {booking.id[:8]} be cancelled was asked for before and never answered",
                advice=f"Look at the partner's, then: callboard booking settle {booking.id[:8]} cancelled",
                code="unknown_outcome",
            )
        await self._store.mark(booking, BookingState.CANCELLED)
        self._bus.publish(BookingsChanged((booking.id,)))
        return await self.get(booking_id)

    async def execute_integration(
        self,
        company: str,
        partner: str,
        action: str,
        params: Mapping[str, Any] | None = None,
        **how: Unpack[Terms],
    ) -> Execution:
        """Any action of a partner. One that only asks leaves no row. Raises UsageError, ServiceError.

        `reserve` and `appoint` make a booking like `create_reservation` and `create_appointment`.
        """
        given = dict(params or {})
        if action in _KINDS:
            booking = await self._book(_KINDS[action], company, partner, given, how)
            return execution_of_booking(booking, action)
        if action == "availability":
            slots = await self.availability(
                company,
                partner,
                day=str(given.pop("day", "")),
                begin=given.pop("from", ""),
                end=given.pop("to", ""),
                party_size=given.pop("party_size", None),
                service=str(given.pop("service", "")),
                practitioner=str(given.pop("practitioner", "")),
                integration=how.get("integration", ""),
                agent_id=how.get("agent_id"),
                actor=how.get("actor", ""),
            )
            _, way = await self._ways.to(company, partner, how.get("integration", ""))
            found = [
                {"starts_at": at_zone(slot.starts_at, way.zone).isoformat(), "id": slot.id} for slot in slots
            ]
            is_made_up = way.simulated
            told = {"slots": found, **({"degraded": slots.degraded} if slots.degraded else {})}
            return Execution("", partner, action, EffectState.DONE, way.route, is_made_up, result=told)
        return await self._execute(company, partner, action, given, how)

    async def list(
        self, company: str = "", *, state: BookingState | None = None, limit: int = 100
    ) -> list[Booking]:
        """Stored bookings, newest first. What a process that died left behind becomes `unknown`."""
        company_id = await self._integrations.company_id(company) if company else None
        await self.give_up()
        return await self._store.list(company_id, state, limit)

    async def give_up(self) -> int:
        """Make `unknown` what a process that died left behind: bookings, cancellations, other actions."""
        age = given_up_after(self._timeout)
        given_up = await self._effects.give_up(EFFECT, older_than_ms=age, also=booking_ended)
        if given_up:
            self._bus.publish(BookingsChanged(tuple(row.id for row in given_up)))
        return len(given_up)

    async def get(self, booking_id: str) -> Booking:
        """A stored booking by its id or the beginning of one. Raises UsageError."""
        return await self._store.get(booking_id)

    async def settle(
        self,
        booking_id: str,
        state: BookingState,
        *,
        provider_id: str = "",
        cause: str = "looked it up at the partner's",
        actor: str = "",
    ) -> Booking:
        """Decide, after a look at the partner's, what became of a booking: made, not made, or cancelled.

        `state` is `CONFIRMED`, `FAILED` or `CANCELLED`. Raises UsageError for what is decided already.
        """
        booking = await self.get(booking_id)
        if booking.state in (BookingState.REQUESTED, BookingState.UNKNOWN):
            made = state is not BookingState.FAILED
            result = {**booking.result, "state": state.value}
            await self._effects.settle(
                booking.effect_id,
                EffectState.DONE if made else EffectState.FAILED,
                cause=cause,
                actor=actor,
                deed=Deed(provider_id or booking.provider_id, result) if made else None,
                also=booking_ended,
            )
            self._bus.publish(BookingsChanged((booking.id,)))
        elif state is BookingState.CANCELLED and booking.state is not BookingState.FAILED:
            await self._store.mark(booking, state, cause=cause, actor=actor)
            await self.actions.settle_cancellation(booking.id, cause=cause, actor=actor)
            self._bus.publish(BookingsChanged((booking.id,)))
        else:
            raise UsageError(
                f"Booking {booking.id[:8]} is decided already: {booking.state}",
                advice="Only cancelled can follow",
                code="effect_settled",
            )
        return await self.get(booking.id)

    async def probe(self, resolved: Resolved) -> str:
        """Ask an integration whether it works; one line of what it said. Raises ServiceError."""
        return await (await self._ways.client(resolved)).probe()

    async def aclose(self) -> None:
        await self._ways.aclose()

    # Orders

    async def _book(
        self,
        kind: BookingKind,
        company: str,
        partner: str,
        given: Mapping[str, Any],
        how: Terms,
    ) -> Booking:
        company_id, way = await self._ways.to(company, partner, how.get("integration", ""))
        values = checked(given, way.zone)
        key = how.get("idempotency_key", "")
        # Who asks again under a key is told what became of it, also when the time has come meanwhile.
        known = await self._effects.of_key(company_id, key) if key else None
        if known is None and not how.get("anyway"):
            refuse_past(values["at"], self._clock.now())
        action = ACTIONS[kind]
        perform = await self._performer(way, company_id, partner, action, values, subject_of(company, how))
        request = {"action": action, **plain({**values, "at": values["at"].astimezone(dt.UTC)})}
        intent = _intent(EFFECT, partner, company_id, way, request, how)
        made: list[str] = []

        def also(session: Session, row: EffectRow) -> None:
            made.append(row.id)
            # One that never left and is tried again takes the place of what it was.
            session.merge(booking_of(row, kind, way, milliseconds(values["at"])))

        def look() -> str:
            return (
                f"Look at the partner's, then: callboard booking settle {made[0][:8]} confirmed"
                if made
                else ""
            )

        doing = self._effects.once(intent, perform, also=also, ended=booking_ended)
        try:
            row = await unsure(doing, "it was booked", look)
        except BaseException:
            self._bus.publish(BookingsChanged(tuple(made)))
            raise
        self._bus.publish(BookingsChanged((row.id,)))
        return replace(await self._store.of_effect(row.id), fresh=row.fresh)

    async def _execute(
        self,
        company: str,
        partner: str,
        action: str,
        params: Mapping[str, Any],
        how: Ordering,
        was: Booking | None = None,
    ) -> Execution:
        company_id, way = await self._ways.to(company, partner, how.get("integration", ""))
        subject = subject_of(company, how)
        if was is not None and was.route is not way.route:
            raise UsageError(
                f"It was booked by {was.route}, but {partner} is reached by {way.route} now",
                advice="Cancel it at the partner's, or configure the integration as it was",
                code="other_route",
            )
        reads = action in READING
        if way.direct is not None:
            operation = way.direct.partner.operations.get(action)
            reads = operation is not None and operation.read
        if reads and way.direct is not None:
            order = Order(params, subject=subject, params=params)
            answer = await way.direct.ask(action, order)
            return Execution("", partner, action, EffectState.DONE, way.route, way.simulated, result=answer)
        perform = await self._performer(way, company_id, partner, action, params, subject)
        request = {"action": action, "params": plain(params)}
        intent = _intent(f"{EFFECT}.{action}", partner, company_id, way, request, how)

        begun: list[str] = []

        def also(session: Session, row: EffectRow) -> None:
            begun.append(row.id)

        def look() -> str:
            if was is None:
                order = f"callboard booking settle {begun[0][:8]} done (or failed)" if begun else ""
                return order and f"Look at the partner's, then: {order}"
            return f"Look at the partner's, then: callboard booking settle {was.id[:8]} cancelled"

        what = f"the {clean_line(action)} was done"
        row = await unsure(self._effects.once(intent, perform, also=also), what, look)
        return execution_of(row, action, way.route)

    async def _performer(
        self,
        way: Way,
        company_id: int,
        partner: str,
        action: str,
        values: Mapping[str, Any],
        subject: Subject,
    ) -> Callable[[EffectRow], Awaitable[Deed]]:
        """What performs the order, checked already for whatever can be told before anything is sent."""
        extra = values.get("params") if isinstance(values.get("params"), Mapping) else values
        if way.direct is not None:
            way.direct.prepare(action, Order(values, "key", subject, extra or {}))
        elif way.gateway is None:
            kind = _KINDS.get(action)
            known = await asyncio.to_thread(self._catalogue.require, partner)
            if kind is not None and action not in known.operations:
                raise not_offered(known, action)

        async def perform(row: EffectRow) -> Deed:
            if way.direct is not None:
                outcome = await way.direct.order(action, Order(values, row.id, subject, extra or {}))
            elif way.gateway is not None:
                outcome = await way.gateway.order(partner, action, values, key=row.id, subject=subject)
            elif action == "cancel":
                outcome = simulated.cancelled(str(values.get("id") or ""))
            else:
                at = values.get("at")
                booked = milliseconds(at) if isinstance(at, dt.datetime) else None
                taken = await self._store.taken(company_id, partner, apart_from=row.id)
                outcome = simulated.booked(row.id, booked, taken)
            if outcome.state is BookingState.FAILED:
                raise ServiceError(
                    f"{clean_line(partner)} refused it",
                    advice="Ask for free times again: callboard booking availability",
                    code="refused",
                )
            return deed_of(outcome, made_up=way.simulated)

        return perform

    # Rows

    async def _kind_of(self, partner: str) -> BookingKind:
        known = await asyncio.to_thread(self._catalogue.require, partner)
        if "availability" not in known.operations:
            raise not_offered(known, "availability")
        return BookingKind.RESERVATION if "reserve" in known.operations else BookingKind.APPOINTMENT


def _intent(
    kind: str, partner: str, company_id: int, way: Way, request: Mapping[str, Any], how: Ordering
) -> Intent:
    return Intent(
        kind,
        how.get("idempotency_key", ""),
        partner,
        company_id,
        how.get("actor", ""),
        request,
        way.integration_id,
        way.integration,
        way.simulated,
    )
