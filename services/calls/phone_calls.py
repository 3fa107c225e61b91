"""Phone calls of the orchestrator: the question before dialling, and the intent kept in the call's row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from services.calls import store
from services.calls.access import VendorAccess
from services.calls.model import CallTarget
from services.calls.telephony.intent import Placed
from services.calls.telephony.numbers import cost_warning, parse_number, require_permission
from services.clock import Clock
from services.errors import ServiceError
from services.model import Provider
from services.providers.hosts import VENDOR_NAMES
from services.storage import Database

if TYPE_CHECKING:
    from services.calls.service import CallRequest
    from services.calls.telephony import TelephonyService
    from services.calls.transport import Transport


async def question(
    request: CallRequest, target: CallTarget, telephony: TelephonyService, *, simulated: bool
) -> tuple[str, list[str]]:
    """What to ask before dialling, and what else to say.

    Raises ServiceError: `invalid_number`, `not_allowed`.
    """
    if not request.number.strip():
        return "", []  # not typed yet
    number = parse_number(request.number)
    known = await telephony.show(target.company)
    require_permission(number, known.allowed, confirmed=True)
    warnings = []
    if not known.has_account:
        warnings.append(
            f"{target.company} has no Twilio account here: the state of the call comes from the vendor alone"
        )
    vendor = VENDOR_NAMES[Provider(target.provider)]
    if simulated:
        return f"This calls {number} at the simulator: no telephone rings, and nothing is charged.", warnings
    return cost_warning(number, request.from_number, vendor), warnings


async def make_phone(
    request: CallRequest,
    target: CallTarget,
    access: VendorAccess,
    telephony: TelephonyService,
    call_id: str,
    open_database: Callable[[], Awaitable[Database]],
    clock: Clock,
) -> Transport:
    """The transport of a phone call whose row is `call_id`. Raises ServiceError (`not_confirmed`, …)."""
    known = await telephony.show(target.company)
    number = parse_number(request.number)
    require_permission(number, known.allowed, confirmed=request.confirmed)
    if not request.confirmed:
        raise ServiceError(
            f"Nobody confirmed the call to {number}",
            advice="Look at the number and confirm it",
            code="not_confirmed",
        )
    await asyncio.to_thread(_load)
    from services.calls.telephony.vendors import open_phone
    from services.calls.transports.phone import PhoneTransport

    return PhoneTransport(
        lambda: open_phone(access, clock),
        target.agent_id,
        number,
        RowIntents(call_id, open_database),
        clock=clock,
        open_twilio=await telephony.opener(target.company),
        source=request.from_number,
        allowed=known.allowed,
        confirmed=request.confirmed,
    )


class RowIntents:
    """The intent of one phone call, in its row: written before the order, and what became of it."""

    def __init__(self, call_id: str, open_database: Callable[[], Awaitable[Database]]) -> None:
        self._call_id = call_id
        self._open_database = open_database

    async def begin(self, number: str) -> str:
        key = f"callboard-{self._call_id}"
        await self._write(number=number, intent=key)
        return key

    async def placed(self, ids: Placed) -> None:
        await self._write(
            conversation_id=ids.conversation_id, vendor_call_id=ids.call_sid, from_number=ids.from_number
        )

    async def failed(self, error: ServiceError, certain: bool) -> None:
        # Without its key the row reads as a call that was certainly not placed.
        await self._write(detail=error.message[:2000], **({"intent": ""} if certain else {}))

    async def _write(self, **fields: object) -> None:
        database = await self._open_database()
        await database.write(lambda session: store.change(session, self._call_id, **fields))


def _load() -> None:
    """Import what a phone call needs, off the loop."""
    import services.calls.telephony.elevenlabs
    import services.calls.telephony.retell
    import services.calls.transports.phone  # noqa: F401
