"""The simulated telephone network on a clock of the test's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.simulator.telephone import LineCall, Refused, Telephone

FROM = "+15005550100"


class HandClock:
    """Real time that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        return 1_780_000_000_000 + round(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def telephone(clock: HandClock) -> Telephone:
    return Telephone(1, clock)


def passed(telephone: Telephone, to: str, **options: Any) -> tuple[LineCall, list[str]]:
    """A call and every status it has had once two minutes have passed."""
    seen: list[str] = []
    call = telephone.place(FROM, to, listener=lambda call: seen.append(call.status), **options)
    call.led = False
    telephone.clock.advance(120_000)
    telephone.settle()
    return call, seen


@pytest.mark.parametrize(
    ("number", "statuses"),
    [
        ("+15005550006", ["ringing", "in-progress", "completed"]),
        ("+4930901820", ["ringing", "in-progress", "completed"]),
        ("+15005550007", ["ringing", "busy"]),
        ("+15005550008", ["ringing", "no-answer"]),
        ("+15005550009", ["failed"]),
    ],
)
def test_the_number_decides_what_happens(telephone: Telephone, number: str, statuses: list[str]) -> None:
    call, seen = passed(telephone, number)
    assert seen == statuses
    assert call.over
    assert (call.answered_at is not None) == ("in-progress" in statuses)


@pytest.mark.parametrize(
    ("number", "code"),
    [("+15005550001", 21211), ("+15005550002", 21214), ("+15005550003", 21215), ("+15005550004", 21216),
     ("0301234", 21211), ("+12", 21211)],
)  # fmt: skip
def test_numbers_that_are_not_dialled(telephone: Telephone, number: str, code: int) -> None:
    with pytest.raises(Refused) as caught:
        telephone.place(FROM, number)
    assert caught.value.code == code
    assert not telephone.calls


def test_every_event_has_its_own_time_however_late_it_is_done(telephone: Telephone) -> None:
    call, _ = passed(telephone, "+15005550006")
    assert call.dialled_at == call.created_at + 300
    assert call.answered_at == call.dialled_at + 1500
    assert call.ended_at == call.answered_at + 6000
    assert call.ended_by == "callee"


def test_a_caller_gives_up(telephone: Telephone) -> None:
    call, seen = passed(telephone, "+15005550006", ring_timeout_ms=1000)
    assert seen == ["ringing", "no-answer"]
    assert call.ended_at == call.created_at + 300 + 1000


def test_hanging_up(telephone: Telephone) -> None:
    ringing = telephone.place(FROM, "+15005550006")
    telephone.clock.advance(400)
    telephone.settle()
    assert telephone.hang_up(ringing, "api")
    assert ringing.status == "canceled"
    talking = telephone.place(FROM, "+15005550006", listener=lambda call: None)
    telephone.clock.advance(30_000)
    telephone.settle()
    assert talking.status == "in-progress", "who leads the conversation ends it"
    assert telephone.hang_up(talking, "agent")
    assert (talking.status, talking.ended_by) == ("completed", "agent")
    assert not telephone.hang_up(talking, "api")
    assert ringing.status == "canceled", "an answer that comes later changes nothing"


def test_the_clock_is_hurried_and_held(telephone: Telephone, clock: HandClock) -> None:
    start = telephone.clock.now()
    telephone.control("POST", {"speed": 20})
    clock.seconds += 1
    assert telephone.clock.now() == start + 20_000
    telephone.control("POST", {"speed": 0})
    clock.seconds += 100
    assert telephone.clock.now() == start + 20_000
    telephone.control("POST", {"advance_ms": 500})
    assert telephone.clock.now() == start + 20_500
    telephone.control("DELETE", {})
    clock.seconds += 1
    assert telephone.clock.now() == start + 21_500


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (None, "JSON object"),
        ({"speed": -1}, "speed is a number"),
        ({"speed": True}, "speed is a number"),
        ({"number": "+4930", "outcome": "explode"}, "outcome is one of"),
        ({"outcome": "busy"}, "number is missing"),
        ({"sped": 1}, "no “sped”"),
    ],
)
def test_wrong_control_requests(telephone: Telephone, body: Any, wrong: str) -> None:
    said = telephone.control("POST", body)
    assert isinstance(said, str)
    assert wrong in said


def test_a_number_behaves_as_it_is_told_until_all_is_restored(telephone: Telephone) -> None:
    telephone.control("POST", {"number": "+4930901820", "outcome": "busy", "ring_ms": 10})
    assert passed(telephone, "+4930901820")[1] == ["ringing", "busy"]
    telephone.control("DELETE", {})
    assert passed(telephone, "+4930901820")[1][-1] == "completed"


async def test_time_passes_by_itself_and_stops() -> None:
    from services.clock import SystemClock

    telephone = Telephone(1, SystemClock())
    await telephone.start()
    over = asyncio.Event()
    telephone.control("POST", {"speed": 1000})
    call = telephone.place(FROM, "+15005550007", listener=lambda call: over.set() if call.over else None)
    await asyncio.wait_for(over.wait(), 10)
    assert call.status == "busy"
    await telephone.stop()
    await telephone.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "telephone"]


async def test_a_held_clock_lets_nothing_happen_until_it_is_moved() -> None:
    from services.clock import SystemClock

    telephone = Telephone(1, SystemClock())
    telephone.control("POST", {"speed": 0})
    await telephone.start()
    call = telephone.place(FROM, "+15005550006", listener=lambda call: None)
    for _ in range(20):
        await asyncio.sleep(0)
    assert call.status == "queued"
    telephone.control("POST", {"advance_ms": 300})
    assert call.status == "ringing"
    await telephone.stop()


@pytest.mark.parametrize("steps", range(5))
async def test_it_stops_although_it_was_just_woken(steps: int) -> None:
    from services.clock import SystemClock

    telephone = Telephone(1, SystemClock())
    telephone.at(20_000, lambda: None)
    await telephone.start()
    for _ in range(4):
        await asyncio.sleep(0)  # it waits for that
    telephone.at(10_000, lambda: None)
    for _ in range(steps):
        await asyncio.sleep(0)
    stopping = asyncio.create_task(telephone.stop())
    done, _ = await asyncio.wait({stopping}, timeout=5)
    assert done
