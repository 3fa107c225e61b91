"""Reading and changing the rows of bookings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlmodel import Session, col, select

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.integrations.bookings.model import Booking, BookingState
from services.integrations.bookings.rows import EFFECT, read_booking
from services.integrations.effects import EffectState
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Booking as BookingRow
from services.storage.tables import Company, Effect
from services.text import clean_line


class BookingStore:
    """The rows of bookings. Methods raise ServiceError when the database does."""

    def __init__(self, open_database: Callable[[], Awaitable[Database]], clock: Clock) -> None:
        self._open_database = open_database
        self._clock = clock

    async def list(self, company_id: int | None, state: BookingState | None, limit: int) -> list[Booking]:
        """The newest first."""

        def read(session: Session) -> list[Booking]:
            rows = select(BookingRow, Effect).join(Effect, col(Effect.id) == BookingRow.effect_id)
            if company_id is not None:
                rows = rows.where(BookingRow.company_id == company_id)
            if state is not None:
                rows = rows.where(BookingRow.state == state.value)
            newest = rows.order_by(col(BookingRow.created_at).desc(), col(BookingRow.id)).limit(limit)
            return [read_booking(row, effect) for row, effect in session.exec(newest)]

        return await (await self._open_database()).read(read)

    async def get(self, booking_id: str) -> Booking:
        """The one whose id is, or begins with, `booking_id`. Raises UsageError."""

        def read(session: Session) -> list[Booking]:
            rows = (
                select(BookingRow, Effect)
                .join(Effect, col(Effect.id) == BookingRow.effect_id)
                .where(col(BookingRow.id).startswith(booking_id, autoescape=True))
                .limit(2)
            )
            return [read_booking(row, effect) for row, effect in session.exec(rows)]

        found = await (await self._open_database()).read(read) if booking_id else []
        if len(found) != 1:
            what = "Several bookings begin" if found else "There is no booking that begins"
            raise UsageError(
                f"{what} with {clean_line(booking_id)!r}",
                advice="List them: callboard booking list",
                code="unknown_booking",
            )
        return found[0]

    async def taken(self, company_id: int, partner: str, *, apart_from: str = "") -> set[int]:
        """The times of simulated bookings that stand."""

        def read(session: Session) -> set[int]:
            standing = (BookingState.REQUESTED, BookingState.CONFIRMED, BookingState.PENDING)
            rows = select(BookingRow.starts_at).where(
                BookingRow.company_id == company_id,
                BookingRow.partner == partner,
                col(BookingRow.state).in_([state.value for state in standing]),
                BookingRow.effect_id != apart_from,
            )
            return {at for at in session.exec(rows) if at is not None}

        return await (await self._open_database()).read(read)

    async def of_effect(self, effect_id: str) -> Booking:
        """The booking that an effect made. Raises ServiceError when it is gone."""

        def read(session: Session) -> Booking | None:
            rows = (
                select(BookingRow, Effect)
                .join(Effect, col(Effect.id) == BookingRow.effect_id)
                .where(BookingRow.effect_id == effect_id)
            )
            found = session.exec(rows).first()
            return None if found is None else read_booking(*found)

        booking = await (await self._open_database()).read(read)
        if booking is None:
            raise ServiceError("The company was removed meanwhile", code="gone")
        return booking

    async def mark(self, booking: Booking, state: BookingState, *, cause: str = "", actor: str = "") -> None:
        now = self._clock.now()

        def write(session: Session) -> None:
            row = session.get(BookingRow, booking.id)
            if row is None:
                return
            row.state, row.updated_at = state.value, now
            session.add(row)
            if actor or cause:
                record(
                    session,
                    at=now,
                    actor=actor,
                    action="booking.settle",
                    subject=booking.partner,
                    cause=cause,
                    before={"state": booking.state.value},
                    after={"state": state.value},
                )

        await (await self._open_database()).write(write)

    async def cancel_key(self, booking: Booking) -> str:
        """One cancellation at a time: another one only after the last was certainly refused."""

        def read(session: Session) -> int:
            rows = select(Effect.state).where(
                Effect.kind == f"{EFFECT}.cancel", col(Effect.key).startswith(f"cancel/{booking.id}/")
            )
            return sum(state == EffectState.FAILED for state in session.exec(rows))

        return f"cancel/{booking.id}/{await (await self._open_database()).read(read)}"

    async def company_name(self, booking: Booking) -> str:
        """The name of the company it was made for."""

        def read(session: Session) -> str:
            row = session.get(Company, booking.company_id)
            return row.name if row is not None else ""

        return await (await self._open_database()).read(read)
