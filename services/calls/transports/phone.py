"""A phone call: the vendor dials from an imported Twilio number, this program looks on and can hang up.

A call is ordered at most once. An intent is written before the order is sent; the order is never sent again,
whatever becomes of it. Where its answer is lost, the call is looked for at the vendor and at Twilio, and
followed if it is found; if not, the end says that it may have been placed.

The call's state is Twilio's where there is access to the account, else the vendor's. What is said comes from
the vendor: Retell's monitor socket, ElevenLabs' conversation object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final

from services.calls.messages import Connected, Cost, Ended, Message, Notice, StateChanged
from services.calls.model import Brief, CallState, Capabilities, EndReason, TransportKind
from services.calls.telephony.intent import IntentLog, Placed
from services.calls.telephony.numbers import parse_number, require_permission
from services.calls.telephony.twilio import TwilioCall, TwilioClient
from services.calls.telephony.vendors import Order, PhoneVendor, Standing, choose_number, is_certain
from services.calls.transport import Transport
from services.clock import Clock
from services.errors import Category, ServiceError

log = logging.getLogger(__name__)

FIND_WAITS: Final = (0.0, 1.0, 3.0)
"""Seconds before each look for a call whose order got no answer."""
LONGEST_WAIT: Final = 15.0
"""Seconds between two looks when they fail."""
PATIENCE: Final = 90.0
"""Seconds without any news of the call after which it counts as lost to us."""
SKEW_MS: Final = 30_000
LAST_WORDS: Final = 10.0
"""Seconds that are given to the rest of the transcript when the call is over."""
HANG_UP_SECONDS: Final = 6.0
ABANDON_SECONDS: Final = 5.0
"""Seconds in which an order that is being given up may still be answered, so that its call is hung up."""

_COMPLETED: Final = Ended(EndReason.CALLEE_ENDED, by="callee")
_TALKED: Final = frozenset({
    EndReason.CALLEE_ENDED, EndReason.AGENT_ENDED, EndReason.MAX_DURATION, EndReason.OPERATOR_ENDED,
})  # fmt: skip
_SLACK: Final = 5
"""Looks after which a call that the vendor says is over is over, whatever Twilio says."""

_LINE: Final[dict[str, tuple[CallState, Ended | None]]] = {
    "queued": (CallState.QUEUED, None),
    "initiated": (CallState.QUEUED, None),
    "ringing": (CallState.RINGING, None),
    "in-progress": (CallState.LIVE, None),
    # Who hung up is the vendor's to know.
    "completed": (CallState.ENDED, _COMPLETED),
    "busy": (CallState.ENDED, Ended(EndReason.BUSY, by="callee")),
    "no-answer": (CallState.ENDED, Ended(EndReason.NO_ANSWER, by="callee")),
    "canceled": (CallState.ENDED, Ended(EndReason.CANCELLED, by="vendor")),
    "failed": (CallState.ENDED, Ended(EndReason.UNREACHABLE, "Twilio could not connect the call", "vendor")),
}


class PhoneTransport(Transport):
    """One phone call of one agent.

    `number` is whom to call, `source` the number (or its id) to call from, else the vendor's own choice.
    `allowed` is the company's allow-list; without one `confirmed` must say that a person has seen the number
    and the cost warning. `open_vendor` and `open_twilio` are asked once for the call and once for what
    comes after it; the transport closes what they give.
    """

    kind = TransportKind.PHONE

    def __init__(
        self,
        open_vendor: Callable[[], PhoneVendor],
        agent_id: str,
        number: str,
        intents: IntentLog,
        *,
        clock: Clock,
        open_twilio: Callable[[], TwilioClient] | None = None,
        source: str = "",
        allowed: Sequence[str] = (),
        confirmed: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        poll_seconds: float = 1.0,
        patience_seconds: float = PATIENCE,
        abandon_seconds: float = ABANDON_SECONDS,
    ) -> None:
        super().__init__()
        self._open_vendor = open_vendor
        self._open_twilio = open_twilio
        self._vendor = vendor = open_vendor()
        self._twilio = open_twilio() if open_twilio is not None else None
        self.capabilities = Capabilities(context=vendor.can_steer)
        self._agent_id = agent_id
        self._number = number
        self._source = source
        self._allowed = tuple(allowed)
        self._confirmed = confirmed
        self._intents = intents
        self._clock = clock
        self._sleep = sleep
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds
        self._abandon_seconds = abandon_seconds
        self._placed: Placed | None = None
        self._to = ""
        self._state = CallState.CONNECTING
        self._follower: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._closing: Ended | None = None
        self._vendor_end: Ended | None = None
        self._heard = False
        """Something of the transcript was told."""
        self._hung_up = False
        self._twilio_lost = False
        self._waiting_context: list[str] = []

    # -- placing the call -------------------------------------------------------------------------

    async def _open(self, brief: Brief) -> None:
        self._to = parse_number(self._number)
        require_permission(self._to, self._allowed, confirmed=self._confirmed)
        self._move(CallState.CONNECTING, f"asking {self._vendor.name} to call {self._to}")
        numbers = await self._vendor.numbers(self._agent_id)
        source = choose_number(numbers, self._source, self._vendor.name)
        begun_at = self._clock.now()
        intent = await self._intents.begin(self._to)
        order = Order(self._agent_id, source, self._to, brief, intent, begun_at)
        placed = await self._order(order)
        await self._keep(placed)
        self._move(CallState.QUEUED, f"{self._to}, from {placed.from_number or source.number}")
        if not self._can_hang_up:
            self._remark(
                f"This call cannot be hung up from here: {self._vendor.name} has no request for it",
                "Give Callboard access to the Twilio account: callboard phone set COMPANY",
            )
        self._follower = self._own(self._follow(placed), "status")

    async def _order(self, order: Order) -> Placed:
        """Send the order, once. Raises ServiceError: `maybe_placed` where nobody knows."""
        sending = asyncio.create_task(self._vendor.place(order), name="phone order")
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            await self._abandon(sending)
            raise
        except ServiceError as error:
            failure = error
        except Exception as error:
            unknown = ServiceError(f"{type(error).__name__} in our own code", code="maybe_placed")
            await self._intents.failed(unknown, certain=False)
            raise
        if is_certain(failure):
            await self._intents.failed(failure, certain=True)
            raise failure
        self._move(CallState.CONNECTING, "the answer was lost; looking whether the call was placed")
        try:
            found = await self._find(order)
        except BaseException:
            await self._intents.failed(failure, certain=False)
            raise
        if found is not None:
            self._emit(Notice(f"The answer to the order was lost ({failure.message}), but the call is there"))
            return found
        await self._intents.failed(failure, certain=False)
        raise ServiceError(
            f"It is not known whether {self._to} was called: {failure.message}",
            category=Category.TIMEOUT,
            advice=f"Look at {self._vendor.name}'s list of calls and at Twilio's before calling again",
            code="maybe_placed",
        )

    async def _find(self, order: Order) -> Placed | None:
        """The call of an order without an answer, at the vendor or else at Twilio alone."""
        for wait in FIND_WAITS:
            await self._sleep(wait)
            try:
                found = await self._vendor.find(order)
            except ServiceError as error:
                log.info("the call could not be looked for at %s: %s", self._vendor.name, error.message)
            else:
                if found is not None:
                    return found
        if self._twilio is None:
            return None
        try:
            calls = await self._twilio.newest_calls(to=order.to, from_number=order.source.number)
        except ServiceError as error:
            log.info("the call could not be looked for at Twilio: %s", error.message)
            return None
        since = order.begun_at - SKEW_MS
        new = [call for call in calls if call.created_at is not None and call.created_at >= since]
        return Placed("", new[0].sid, order.source.number) if new else None

    async def _abandon(self, sending: asyncio.Task[Placed]) -> None:
        """The operator gave up while the order was under way: hang up what came of it, if that gets known."""
        try:
            async with asyncio.timeout(self._abandon_seconds):
                placed = await sending
        except ServiceError as error:
            await self._intents.failed(error, certain=is_certain(error))
        except TimeoutError:
            unknown = ServiceError(
                "It is not known whether the call was placed: it was given up before the vendor answered",
                category=Category.TIMEOUT,
                code="maybe_placed",
            )
            await self._intents.failed(unknown, certain=False)
        else:
            await self._keep(placed)
            await self._hang_up()

    async def _keep(self, placed: Placed) -> None:
        """Write down that the call exists; that this fails must not leave it without its follower."""
        self._placed = placed
        try:
            await self._intents.placed(placed)
        except ServiceError as error:
            log.warning("the placed call could not be written down: %s", error.message)
            self._remark(f"The call's ids could not be stored: {error.message}", error.advice)

    # -- following it -----------------------------------------------------------------------------

    async def _follow(self, placed: Placed) -> None:
        failed_since: float | None = None
        failures = overdue = 0
        while True:
            try:
                standing = await self._look(placed)
            except ServiceError as error:
                now = self._clock.monotonic()
                failed_since = now if failed_since is None else failed_since
                failures += 1
                if failures == 3:
                    self._remark(f"How the call stands is not known: {error.message}", error.advice)
                if now - failed_since > self._patience_seconds:
                    self._end(EndReason.CONNECTION_LOST, "the call itself may go on", by="us")
                    return
                await self._sleep(min(LONGEST_WAIT, self._poll_seconds * 2**failures))
                continue
            failed_since, failures = None, 0
            if standing.call_sid and not placed.call_sid:
                placed = Placed(placed.conversation_id, standing.call_sid, placed.from_number)
                await self._keep(placed)
            overdue += self._vendor_end is not None
            if standing.ended is not None or overdue > _SLACK:
                await self._finish(placed, standing.ended or _COMPLETED)
                return
            await self._become(standing.state, placed)
            await self._sleep(self._poll_seconds)

    async def _look(self, placed: Placed) -> Standing:
        """How the call stands, at Twilio where that is possible. Raises ServiceError."""
        if self._twilio is not None and placed.call_sid and not self._twilio_lost:
            try:
                return _standing(await self._twilio.call(placed.call_sid))
            except ServiceError as error:
                lasting = error.code in ("wrong_key", "missing_permission", "not_found")
                if not lasting or not placed.conversation_id:
                    raise
                # The number may belong to another Twilio account than ours: only the vendor can tell.
                self._twilio_lost = True
                self._remark(f"Twilio cannot tell how the call stands: {error.message}", error.advice)
        if not placed.conversation_id:
            raise ServiceError(f"{self._vendor.name} did not name the call", code="not_found")
        return await self._vendor.look(placed.conversation_id)

    async def _become(self, state: CallState, placed: Placed) -> None:
        if state is self._state or state not in (CallState.QUEUED, CallState.RINGING, CallState.LIVE):
            return
        if state is not CallState.LIVE:
            self._move(state, self._to)
            return
        self._go_live(placed)
        held, self._waiting_context = self._waiting_context, []
        for text in held:
            await self._steer(text)

    def _go_live(self, placed: Placed) -> None:
        # With a format named, nobody takes the moment a transcript arrives for the moment somebody spoke.
        name = placed.conversation_id or placed.call_sid
        self._emit(Connected(name, input_format="phone", output_format="phone"))
        self._move(CallState.LIVE, self._to)
        if placed.conversation_id:
            self._reader = self._own(self._read(placed.conversation_id), "transcript")
        else:
            self._remark(f"What is said is not shown: {self._vendor.name} did not name the conversation")

    async def _read(self, conversation_id: str) -> None:
        """Hand on what is said. Its failure is told and ends nothing."""
        try:
            async with aclosing(self._vendor.follow(conversation_id)) as messages:
                async for message in messages:
                    if isinstance(message, Ended):
                        self._vendor_end = message
                        return
                    self._heard = True
                    self._emit(message)
                    await self._room()
        except ServiceError as error:
            self._remark(f"The transcript stops: {error.message}", error.advice)

    async def _finish(self, placed: Placed, ended: Ended) -> None:
        """The line is dead: take the rest of what was said, then end with the reason that is known best."""
        if self._state is CallState.LIVE or ended.reason in _TALKED:
            if self._state is not CallState.LIVE:
                self._go_live(placed)  # answered and over between two looks
            if self._reader is not None:
                await asyncio.wait({self._reader}, timeout=LAST_WORDS)
        if ended is _COMPLETED:
            ended = self._vendor_end or await self._vendors_end(placed) or ended
        self._emit(self._closing or ended)

    async def _vendors_end(self, placed: Placed) -> Ended | None:
        """Why the vendor says the call ended; None where it does not tell (yet)."""
        try:
            return (await self._vendor.look(placed.conversation_id)).ended if placed.conversation_id else None
        except ServiceError:
            return None

    def _remark(self, text: str, advice: str = "") -> None:
        self._emit(Notice(text, "look", advice))

    def _move(self, state: CallState, detail: str) -> None:
        self._state = state
        self._emit(StateChanged(state, detail))

    # -- what the operator does -------------------------------------------------------------------

    async def send_context(self, text: str) -> None:
        """Tell the agent something; before the call is answered it is kept until then."""
        if not self.capabilities.context:
            raise self._not_offered("a contextual update")
        if self.over:
            return
        if self._state is CallState.LIVE:
            await self._steer(text)
        else:
            self._waiting_context.append(text)

    async def _steer(self, text: str) -> None:
        if self._placed is None or not self._placed.conversation_id:
            return
        try:
            await self._vendor.steer(self._placed.conversation_id, text)
        except ServiceError as error:
            self._remark(f"The agent was not told: {error.message}", error.advice)

    @property
    def _can_hang_up(self) -> bool:
        placed = self._placed
        by_twilio = self._twilio is not None and placed is not None and bool(placed.call_sid)
        return self._vendor.can_stop or (by_twilio and not self._twilio_lost)

    async def close(self, reason: EndReason = EndReason.OPERATOR_ENDED, detail: str = "") -> None:
        """Hang up, and take the last words along; see `Transport.close`."""
        follower = self._follower
        if follower is not None and not self.over and self._closing is None:
            by = "operator" if reason is EndReason.OPERATOR_ENDED else "us"
            self._closing = Ended(reason, detail, by)
            problem = await self._hang_up()
            if problem:
                detail = detail or f"the call itself may go on: {problem}"
            elif not follower.done():
                await asyncio.wait({follower}, timeout=HANG_UP_SECONDS)
        await super().close(reason, detail)

    async def _hang_up(self) -> str:
        """End the call, at Twilio or else at the vendor; what is in the way, in words. Never raises."""
        placed = self._placed
        if placed is None or self._hung_up:
            return ""
        self._hung_up = True
        problem = f"{self._vendor.name} has no request to hang up"
        twilio = None if self._twilio_lost or not placed.call_sid else self._twilio
        if twilio is not None:
            problem = await self._try("Twilio", twilio.hang_up(placed.call_sid))
        if problem and self._vendor.can_stop and placed.conversation_id:
            problem = await self._try(self._vendor.name, self._vendor.stop(placed.conversation_id))
        return problem

    async def _try(self, who: str, hanging_up: Awaitable[object]) -> str:
        """Empty when it worked."""
        try:
            async with asyncio.timeout(HANG_UP_SECONDS):
                await hanging_up
        except ServiceError as error:
            problem = error.message
        except TimeoutError:
            problem = f"{who} does not answer"
        else:
            return ""
        log.warning("a phone call could not be hung up: %s", problem)
        return problem

    async def _close(self, first: bool) -> None:
        if first:
            await self._hang_up()  # of an opening that was stopped after its order
        await self._stop_tasks()
        await self._vendor.aclose()
        if self._twilio is not None:
            await self._twilio.aclose()

    async def aftermath(self) -> list[Message]:
        """The transcript, where none was told; cost and figures of the vendor, and what Twilio charged."""
        placed = self._placed
        if placed is None or self._state is not CallState.LIVE:
            return []
        messages: list[Message] = []
        vendor = self._open_vendor()
        twilio = self._open_twilio() if self._open_twilio is not None else None
        try:
            if placed.conversation_id:
                messages += await vendor.aftermath(placed.conversation_id, transcript=not self._heard)
            if twilio is not None and placed.call_sid and not self._twilio_lost:
                messages += _charged(await twilio.call(placed.call_sid), messages)
        except ServiceError as error:
            log.info("the figures of a phone call could not be read: %s", error.message)
        finally:
            await vendor.aclose()
            if twilio is not None:
                await twilio.aclose()
        return messages


def _standing(call: TwilioCall) -> Standing:
    """A call's state by Twilio's word for it; an unknown word changes nothing."""
    state, ended = _LINE.get(call.status, (CallState.QUEUED, None))
    return Standing(state, ended)


def _charged(call: TwilioCall, known: Sequence[Message]) -> list[Message]:
    """What Twilio charged: the call's cost, or a remark beside what the vendor charged."""
    if call.price is None:
        return []
    if any(isinstance(message, Cost) for message in known):
        return [Notice(f"Twilio charged {call.price:g} {call.currency} besides")]
    return [Cost(call.price, call.currency or "USD", final=True)]
