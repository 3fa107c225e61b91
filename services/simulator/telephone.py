"""The simulated telephone network: calls that ring, are answered and end, on a clock that can be hurried.

Nothing here happens by itself: `settle` does what is due on the network's own clock, `run` calls it at the
right moments. A test may hold the clock (speed 0) and `advance` it, or let it run many times faster.

What happens to a call depends on the number that is dialled, in the manner of Twilio's magic numbers; those
that end a call are ours. Any number that is not listed answers.

    +15005550001  refused: not a valid number (21211)
    +15005550002  refused: cannot be reached (21214)
    +15005550003  refused: no permission for that country (21215)
    +15005550004  refused: on the account's block list (21216)
    +15005550006  rings, then answers
    +15005550007  rings, then is busy
    +15005550008  rings until the caller gives up: no answer
    +15005550009  fails while it is set up

Control requests, on every port: `GET /__phone` shows the clock and the calls; `POST /__phone` takes
`{"speed": 20}`, `{"advance_ms": 5000}` and `{"number": "+1…", "outcome": "busy", "ring_ms": 1500,
"talk_ms": 6000}`; `DELETE /__phone` restores the standard behaviour and real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from services.clock import Clock
from services.simulator.wire import Json

E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
ENDED: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
OUTCOMES: Final = ("answer", "busy", "no-answer", "failed")

QUEUED_MS: Final = 300
RING_MS: Final = 1500
TALK_MS: Final = 6000
RING_TIMEOUT_MS: Final = 60_000
FASTEST: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who is at a number: what becomes of a call to it; times in milliseconds of the network's clock.

    `refused` is Twilio's error code for a number that cannot be dialled at all, 0 for all others.
    """

    outcome: str = "answer"
    refused: int = 0
    ring_ms: int = RING_MS
    talk_ms: int = TALK_MS
    """After which somebody who is not led through a conversation hangs up."""


MAGIC: Final[dict[str, Subscriber]] = {
    "+15005550001": Subscriber(refused=21211),
    "+15005550002": Subscriber(refused=21214),
    "+15005550003": Subscriber(refused=21215),
    "+15005550004": Subscriber(refused=21216),
    "+15005550006": Subscriber(),
    "+15005550007": Subscriber("busy"),
    "+15005550008": Subscriber("no-answer"),
    "+15005550009": Subscriber("failed"),
}

OWNED: Final = ("+15005550006", "+15005550100", "+15005550101", "+15005550102", "+15005550103")
"""The numbers of the simulated Twilio account; some of them are imported at the vendors."""


class Refused(Exception):
    """The network does not take the call; `code` is Twilio's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


Listener = Callable[["LineCall"], None]


@dataclass(slots=True)
class LineCall:
    """One call. Times are epoch milliseconds of the network's clock; `status` is Twilio's word.

    `ended_by` is `callee`, `agent`, `api` or empty (the call never came about). `listeners` are called at
    every change of `status`.
    """

    sid: str
    from_number: str
    to_number: str
    created_at: int
    ring_timeout_ms: int
    listeners: list[Listener]
    led: bool
    """Somebody leads the conversation and ends it."""
    status: str = "queued"
    changed_at: int = 0
    dialled_at: int | None = None
    answered_at: int | None = None
    ended_at: int | None = None
    ended_by: str = ""

    def __post_init__(self) -> None:
        self.changed_at = self.created_at

    @property
    def over(self) -> bool:
        return self.status in ENDED

    def as_dict(self) -> Json:
        return {
            "sid": self.sid,
            "from": self.from_number,
            "to": self.to_number,
            "status": self.status,
            "created_at": self.created_at,
            "answered_at": self.answered_at,
            "ended_at": self.ended_at,
            "ended_by": self.ended_by,
        }


class LineClock:
    """Milliseconds since the epoch that pass `speed` times as fast as real ones; 0 holds them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._speed = 1.0
        self._shown = float(clock.now())
        self._at = clock.monotonic()

    @property
    def speed(self) -> float:
        return self._speed

    def now(self) -> int:
        return int(self._shown + (self._clock.monotonic() - self._at) * 1000 * self._speed)

    def monotonic(self) -> float:
        """Seconds; so that this is a `Clock` for whatever lives in the network's time."""
        return self.now() / 1000

    def set_speed(self, speed: float) -> None:
        self._mark()
        self._speed = speed

    def advance(self, ms: float) -> None:
        self._mark()
        self._shown += ms

    def real_seconds(self, ms: float) -> float | None:
        """How long `ms` last in reality; None when the clock is held."""
        return ms / 1000 / self._speed if self._speed else None

    def _mark(self) -> None:
        at = self._clock.monotonic()
        self._shown += (at - self._at) * 1000 * self._speed
        self._at = at


class Telephone:
    """The network between the simulated Twilio account and everybody's telephones."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self.clock = LineClock(clock)
        self.calls: dict[str, LineCall] = {}
        self._rng = random.Random(f"{seed}/telephone")
        self._subscribers = dict(MAGIC)
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._settling = False

    # Time

    def at(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do something `delay_ms` from now on the network's clock, in order of time, then of asking."""
        heapq.heappush(self._due, (self._now() + delay_ms, next(self._number), action))
        self._wake.set()

    def settle(self) -> None:
        """Do everything that is due. Each action sees the clock at its own time, however late it is done."""
        if self._settling:
            return
        self._settling = True
        try:
            while self._due and self._due[0][0] <= self.clock.now():
                self._moment, _, action = heapq.heappop(self._due)
                action()
        finally:
            self._settling = False

    async def start(self) -> None:
        """Let time pass. Ends with `stop`."""
        self._task = asyncio.create_task(self._run(), name="telephone")

    async def stop(self) -> None:
        """No more time passes; may be called twice, and without `start`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self.settle()
            wait = self.clock.real_seconds(max(0, self._due[0][0] - self.clock.now())) if self._due else None
            # Not `wait_for`, which can lose the cancellation of `stop` when it is woken at the same moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _now(self) -> int:
        """The moment of the action that is being done, else the clock's."""
        return self._moment if self._settling else self.clock.now()

    _moment = 0

    # Calls

    def place(
        self,
        from_number: str,
        to_number: str,
        *,
        listener: Listener | None = None,
        ring_timeout_ms: int = RING_TIMEOUT_MS,
    ) -> LineCall:
        """Dial. With a `listener` somebody else leads the conversation and ends the call.

        Raises `Refused` for a number that the network does not dial.
        """
        there = self._subscriber(to_number)
        if there.refused:
            raise Refused(there.refused)
        now = self._now()
        listeners = [] if listener is None else [listener]
        sid = self.new_id("CA")
        call = LineCall(
            sid, from_number, to_number, now, ring_timeout_ms, listeners, led=listener is not None
        )
        self.calls[call.sid] = call
        self.at(QUEUED_MS, lambda: self._dial(call, there))
        return call

    def hang_up(self, call: LineCall, by: str) -> bool:
        """End a call that is not over: a talk is `completed`, anything before it `canceled`."""
        if call.over:
            return False
        self._end(call, "completed" if call.status == "in-progress" else "canceled", by)
        return True

    def new_id(self, prefix: str) -> str:
        """A Twilio id: two letters and 32 hexadecimal digits."""
        return f"{prefix}{self._rng.getrandbits(128):032x}"

    def _subscriber(self, number: str) -> Subscriber:
        if not E164.fullmatch(number):
            return MAGIC["+15005550001"]
        return self._subscribers.get(number) or Subscriber()

    def _dial(self, call: LineCall, there: Subscriber) -> None:
        if call.over:
            return
        if there.outcome == "failed":
            self._end(call, "failed")
            return
        call.dialled_at = self._now()
        self._become(call, "ringing")
        if there.outcome == "no-answer" or there.ring_ms >= call.ring_timeout_ms:
            self.at(call.ring_timeout_ms, lambda: self._end(call, "no-answer"))
        elif there.outcome == "busy":
            self.at(there.ring_ms, lambda: self._end(call, "busy"))
        else:
            self.at(there.ring_ms, lambda: self._answer(call, there))

    def _answer(self, call: LineCall, there: Subscriber) -> None:
        if call.over:
            return
        call.answered_at = self._now()
        self._become(call, "in-progress")
        if not call.led:
            self.at(there.talk_ms, lambda: self._end(call, "completed", "callee"))

    def _end(self, call: LineCall, status: str, by: str = "") -> None:
        if call.over:
            return
        call.ended_at = self._now()
        call.ended_by = by
        self._become(call, status)

    def _become(self, call: LineCall, status: str) -> None:
        call.status = status
        call.changed_at = self._now()
        for listener in call.listeners:
            listener(call)

    # Control requests

    def control(self, method: str, body: Json | None) -> Json | str:
        """Answer a control request (see the module); a text says what is wrong with it."""
        if method == "DELETE":
            self._subscribers = dict(MAGIC)
            self.clock.set_speed(1.0)
        elif method == "POST":
            wrong = "the body is a JSON object" if body is None else self._steer(body)
            if wrong:
                return wrong
        self._wake.set()
        self.settle()
        calls = [call.as_dict() for call in self.calls.values()]
        return {"now": self.clock.now(), "speed": self.clock.speed, "calls": calls}

    def _steer(self, body: Json) -> str:
        numbers = {"speed": FASTEST, "advance_ms": 1e12, "ring_ms": 1e9, "talk_ms": 1e9}
        unknown = set(body) - {*numbers, "number", "outcome"}
        if unknown:
            return f"there is no “{min(unknown)}” to set"
        for name, highest in numbers.items():
            if name in body and not _within(body[name], highest):
                return f"{name} is a number from 0 to {highest:.0f}"
        outcome = body.get("outcome", "answer")
        if outcome not in OUTCOMES:
            return f"outcome is one of {', '.join(OUTCOMES)}"
        if "number" in body:
            ring, talk = body.get("ring_ms", RING_MS), body.get("talk_ms", TALK_MS)
            there = Subscriber(outcome, ring_ms=int(ring), talk_ms=int(talk))
            self._subscribers[str(body["number"])] = there
        elif {"outcome", "ring_ms", "talk_ms"} & set(body):
            return "number is missing: whose behaviour is to change?"
        if "speed" in body:
            self.clock.set_speed(float(body["speed"]))
        if "advance_ms" in body:
            self.clock.advance(float(body["advance_ms"]))
        return ""


def _within(value: Any, highest: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= highest
