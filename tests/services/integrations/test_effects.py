"""Effects happen at most once per key: whoever asks again, at the same moment, elsewhere or after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import Session, select

from services.errors import Category, ServiceError, UsageError
from services.integrations.certainty import was_never_sent
from services.integrations.effects import (
    GIVEN_UP_MS,
    NOT_SENT,
    Deed,
    EffectRow,
    Effects,
    EffectState,
    Intent,
    NotDone,
    is_uncertain,
)
from services.resilience import Attempt, Policies, RetryOptions
from services.storage import Database, DatabaseLocation
from services.storage.tables import Audit, Booking, Company, Effect
from tests.support.integrating import no_wait
from tests.support.postgres import postgres_server, postgres_url  # noqa: F401
from tests.support.world import FakeClock

ROOT = Path(__file__).resolve().parents[3]
INTENT = Intent("booking", "key-1", "opentable", company_id=1, actor="ann", request={"party_size": 2})


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseLocation:
    if request.param == "sqlite":
        return DatabaseLocation(path=tmp_path / "callboard.db")
    return DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def database(where: DatabaseLocation) -> AsyncIterator[Database]:
    opened = await Database.open(where)
    await opened.write(lambda session: session.add(Company(id=1, name="acme", created_at=0)))
    yield opened
    await opened.aclose()


def effects_on(database: Database, clock: FakeClock | None = None, owner: str = "me") -> Effects:
    async def open_database() -> Database:
        return database

    numbers = itertools.count(1)
    return Effects(
        open_database, clock or FakeClock(), new_id=lambda: f"{owner}-{next(numbers)}", owner=owner
    )


@pytest.fixture
def effects(database: Database) -> Effects:
    return effects_on(database)


class Deeds:
    """Counts how often the world was changed, and fails as told."""

    def __init__(self, *failures: BaseException) -> None:
        self.done: list[str] = []
        self._failures = list(failures)

    async def __call__(self, row: EffectRow) -> Deed:
        self.done.append(row.id)
        if self._failures:
            raise self._failures.pop(0)
        return Deed(provider_id="R-1", result={"number": 17})


def booking_of(session: Session, row: EffectRow) -> None:
    session.add(
        Booking(
            id=f"b-{row.id}",
            effect_id=row.id,
            company_id=row.company_id,
            kind="reservation",
            partner=row.target,
            state=row.state.value,
            created_at=row.created_at,
            updated_at=row.created_at,
        )
    )


def booking_ended(session: Session, row: EffectRow) -> None:
    booking = session.exec(select(Booking).where(Booking.effect_id == row.id)).one()
    booking.state = row.state.value
    session.add(booking)


async def bookings(database: Database) -> list[str]:
    return await database.read(lambda session: [row.state for row in session.exec(select(Booking))])


async def test_a_second_request_with_the_key_gets_the_first_ones_row(effects: Effects) -> None:
    deeds = Deeds()
    first = await effects.once(INTENT, deeds)
    again = await effects.once(INTENT, deeds)
    assert deeds.done == [first.id]
    assert (first.state, first.provider_id, dict(first.result)) == (EffectState.DONE, "R-1", {"number": 17})
    assert first.fresh
    assert not again.fresh
    assert again.provider_id == "R-1"


async def test_requests_without_a_key_are_each_their_own(effects: Effects) -> None:
    deeds = Deeds()
    rows = [await effects.once(Intent("booking", "", "opentable", company_id=1), deeds) for _ in range(3)]
    assert len({row.key for row in rows}) == len(deeds.done) == 3


@pytest.mark.parametrize(
    "other",
    [
        Intent("crm.contact", "key-1", "opentable", company_id=1, request={"party_size": 2}),
        Intent("booking", "key-1", "toast", company_id=1, request={"party_size": 2}),
        Intent("booking", "key-1", "opentable", company_id=1, request={"party_size": 3}),
    ],
)
async def test_a_key_is_for_one_request(effects: Effects, other: Intent) -> None:
    deeds = Deeds()
    await effects.once(INTENT, deeds)
    with pytest.raises(UsageError, match="was used for another request") as caught:
        await effects.once(other, deeds)
    assert caught.value.code == "key_reused"
    assert len(deeds.done) == 1


async def test_another_company_may_use_the_same_key(effects: Effects, database: Database) -> None:
    await database.write(lambda session: session.add(Company(id=2, name="other", created_at=0)))
    deeds = Deeds()
    for company_id in (1, 2, None):
        await effects.once(Intent("booking", "key-1", "opentable", company_id=company_id), deeds)
    assert len(deeds.done) == 3


async def test_a_key_longer_than_any_index_takes_is_refused_before_anything(effects: Effects) -> None:
    deeds = Deeds()
    with pytest.raises(UsageError, match="more than 200"):
        await effects.once(Intent("booking", "k" * 201, "opentable"), deeds)
    assert not deeds.done


@pytest.mark.parametrize("company_id", [1, None])
async def test_of_many_at_once_one_performs(
    database: Database, where: DatabaseLocation, company_id: Any
) -> None:
    second = await Database.open(where)
    try:
        deeds = Deeds()
        both = [effects_on(database, owner="a"), effects_on(second, owner="b")]
        intent = Intent("booking", "key-1", "opentable", company_id=company_id)
        rows = await asyncio.gather(*(both[n % 2].once(intent, deeds) for n in range(12)))
        assert len(deeds.done) == 1
        assert sum(row.fresh for row in rows) == 1
        assert len({row.id for row in rows}) == 1
    finally:
        await second.aclose()


async def test_a_refusal_is_certain_and_remembered(effects: Effects) -> None:
    deeds = Deeds(ServiceError("The table is taken", code="taken"))
    with pytest.raises(ServiceError, match="taken"):
        await effects.once(INTENT, deeds)
    again = await effects.once(INTENT, deeds)
    assert again.state is EffectState.FAILED
    assert again.error is not None
    assert again.error.message == "The table is taken"
    assert len(deeds.done) == 1


@pytest.mark.parametrize(
    "failure",
    [
        ServiceError("It did not answer", category=Category.TIMEOUT, code="timeout"),
        ServiceError("It broke off", category=Category.TRANSIENT, code="connection_lost"),
        ServiceError("It answered 500", category=Category.TRANSIENT, code="server_error"),
        RuntimeError("a fault of ours"),
        asyncio.CancelledError(),
    ],
)
async def test_what_may_have_happened_is_unknown_and_not_repeated(
    effects: Effects, database: Database, failure: BaseException
) -> None:
    deeds = Deeds(failure)
    with pytest.raises(type(failure)):
        await effects.once(INTENT, deeds, also=booking_of, ended=booking_ended)
    again = await effects.once(INTENT, deeds, also=booking_of, ended=booking_ended)
    assert again.state is EffectState.UNKNOWN
    assert len(deeds.done) == 1
    assert await bookings(database) == ["unknown"]


def earlier(last: ServiceError, *before: ServiceError) -> ServiceError:
    last.earlier = before
    return last


DOWN = ServiceError("Nothing listens", category=Category.TRANSIENT, code="unreachable")
LATE = ServiceError("It did not answer", category=Category.TIMEOUT, code="timeout")
BUSY = ServiceError("429", category=Category.RATE_LIMIT, code="rate_limited")


def test_every_attempt_counts_for_what_may_have_happened() -> None:
    assert not is_uncertain(DOWN)
    assert not is_uncertain(earlier(ServiceError("refused"), BUSY))
    assert is_uncertain(earlier(ServiceError("refused"), LATE))
    assert is_uncertain(
        earlier(ServiceError("no", category=Category.TRANSIENT, code="unreachable"), DOWN, LATE)
    )
    assert not is_uncertain(NotDone.because(LATE))
    assert is_uncertain(ServiceError("It answered with a web page", code="html"))


async def test_a_policy_tells_of_every_attempt() -> None:
    failures = [
        ServiceError("It broke off", category=Category.TRANSIENT, code="connection_lost"),
        ServiceError("Nothing listens", category=Category.TRANSIENT, code="unreachable"),
    ]
    policy = Policies(FakeClock(), sleep=no_wait).of("bistro", retry_options=RetryOptions(attempts=2))

    async def fail(attempt: Attempt) -> None:
        raise failures[attempt.number - 1]

    with pytest.raises(ServiceError, match="Nothing listens") as caught:
        await policy.run(fail, write=True, idempotency_key="k")
    assert caught.value.earlier == (failures[0],)
    assert is_uncertain(caught.value)


NEVER_SENT = ("limited", "breaker_open", "unreachable", "no_key", "certificate", "tls")


def booking_again(session: Session, row: EffectRow) -> None:
    """As the services do: what was written before is taken over."""
    known = session.exec(select(Booking).where(Booking.effect_id == row.id)).first()
    if known is None:
        booking_of(session, row)
    else:
        known.state = row.state.value
        session.add(known)


def test_only_what_never_left_may_be_tried_again() -> None:
    assert all(was_never_sent(ServiceError("no", code=code)) for code in NEVER_SENT)
    assert was_never_sent(earlier(ServiceError("no", code="breaker_open"), DOWN, DOWN))
    assert not was_never_sent(earlier(ServiceError("no", code="breaker_open"), DOWN, BUSY))
    assert not was_never_sent(earlier(ServiceError("no", code="limited"), LATE))
    assert not any(was_never_sent(each) for each in (LATE, BUSY, ServiceError("no", code="refused")))
    # An earlier step of the order was refused, the order itself never left.
    assert was_never_sent(NotDone.because(DOWN))
    assert not was_never_sent(NotDone.because(ServiceError("no", code="refused")))


@pytest.mark.parametrize("code", NEVER_SENT)
async def test_what_never_left_does_not_use_its_key_up(
    effects: Effects, database: Database, code: str
) -> None:
    deeds = Deeds(ServiceError("no", code=code))
    with pytest.raises(ServiceError):
        await effects.once(INTENT, deeds, also=booking_again, ended=booking_ended)
    (failed,) = await effects.recent("booking")
    assert (failed.state, failed.result[NOT_SENT]) == (EffectState.FAILED, code)
    again = await effects.once(INTENT, deeds, also=booking_again, ended=booking_ended)
    assert (again.state, again.id, again.attempts, again.error) == (EffectState.DONE, failed.id, 2, None)
    assert again.fresh
    assert NOT_SENT not in again.result
    assert await bookings(database) == ["done"]
    assert not (await effects.once(INTENT, deeds)).fresh
    assert deeds.done == [failed.id, failed.id]


async def test_of_many_that_try_again_at_once_one_performs(
    database: Database, where: DatabaseLocation
) -> None:
    second = await Database.open(where)
    try:
        deeds = Deeds(ServiceError("no room", code="limited"))
        both = [effects_on(database, owner="a"), effects_on(second, owner="b")]
        with pytest.raises(ServiceError):
            await both[0].once(INTENT, deeds)
        rows = await asyncio.gather(*(both[n % 2].once(INTENT, deeds) for n in range(12)))
        assert len(deeds.done) == 2
        assert sum(row.fresh for row in rows) == 1
    finally:
        await second.aclose()


async def test_another_request_may_not_take_the_key_of_one_that_never_left(effects: Effects) -> None:
    with pytest.raises(ServiceError):
        await effects.once(INTENT, Deeds(DOWN))
    other = Intent("booking", "key-1", "opentable", company_id=1, request={"party_size": 3})
    with pytest.raises(UsageError, match="was used for another request"):
        await effects.once(other, Deeds())


_ENDS: dict[str, BaseException | None] = {
    "done": None,
    "refused": ServiceError("no", code="refused"),
    "late": LATE,
    "cancelled": asyncio.CancelledError(),
    "late, then limited": earlier(ServiceError("no", code="limited"), LATE),
    "late, then nobody": earlier(ServiceError("no", code="unreachable"), DOWN, LATE),
    "interrupted step": NotDone.because(ServiceError("no", code="refused")),
    **{code: ServiceError("no", code=code) for code in NEVER_SENT},
}


_KEYS = itertools.count()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ends=st.lists(st.sampled_from(sorted(_ENDS)), min_size=1, max_size=6))
async def test_whatever_comes_one_key_reaches_the_other_side_once(
    database: Database, ends: list[str]
) -> None:
    """Tried again only after what never left; everything else is the last that is done under the key."""
    key = f"key-{next(_KEYS)}"
    effects = effects_on(database, owner=key)
    heard = asked = 0

    async def perform(row: EffectRow) -> Deed:
        nonlocal heard, asked
        end = ends[asked]
        asked += 1
        heard += end not in NEVER_SENT
        failure = _ENDS[end]
        if failure is not None:
            raise failure
        return Deed("R")

    for _ in ends:
        with contextlib.suppress(ServiceError, asyncio.CancelledError):
            await effects.once(Intent("booking", key, "opentable"), perform)
    never = len(list(itertools.takewhile(lambda end: end in NEVER_SENT, ends)))
    assert asked == min(len(ends), never + 1)
    assert heard == (never < len(ends))


async def test_rows_that_belong_to_an_effect_are_written_with_it(
    effects: Effects, database: Database
) -> None:
    await effects.once(INTENT, Deeds(), also=booking_of, ended=booking_ended)
    await effects.once(INTENT, Deeds(), also=booking_of, ended=booking_ended)
    assert await bookings(database) == ["done"]

    def broken(session: Session, row: EffectRow) -> None:
        raise UsageError("not like this")

    deeds = Deeds()
    with pytest.raises(UsageError, match="not like this"):
        await effects.once(Intent("booking", "key-2", "opentable", company_id=1), deeds, also=broken)
    assert not deeds.done
    assert len(await effects.recent("booking")) == 1


async def test_a_person_decides_once(effects: Effects, database: Database) -> None:
    with pytest.raises(ServiceError):
        await effects.once(INTENT, Deeds(LATE), also=booking_of, ended=booking_ended)
    (row,) = await effects.recent("booking", company_id=1)
    deed = Deed("R-9", {"seen": "in the partner's book"})
    settled = await effects.settle(
        row.id, EffectState.DONE, cause="seen there", actor="ann", deed=deed, also=booking_ended
    )
    assert (settled.state, settled.provider_id) == (EffectState.DONE, "R-9")
    assert await bookings(database) == ["done"]
    with pytest.raises(UsageError, match="decided already: done"):
        await effects.settle(row.id, EffectState.FAILED, cause="", actor="ben")
    with pytest.raises(UsageError, match="no such effect"):
        await effects.settle("nobody", EffectState.FAILED, cause="", actor="ben")
    (audit,) = await database.read(lambda session: list(session.exec(select(Audit))))
    assert (audit.action, audit.actor, audit.cause) == ("booking.settle", "ann", "seen there")


async def test_what_a_person_decided_stays(effects: Effects) -> None:
    async def slow(row: EffectRow) -> Deed:
        await effects.settle(row.id, EffectState.FAILED, cause="called them", actor="ann")
        return Deed("R-1")

    row = await effects.once(INTENT, slow)
    assert (row.state, row.provider_id) == (EffectState.FAILED, "")


async def test_an_answer_after_it_was_given_up_still_counts(database: Database) -> None:
    clock = FakeClock()
    effects = effects_on(database, clock)

    async def slow(row: EffectRow) -> Deed:
        clock.advance(seconds=GIVEN_UP_MS / 1000 + 1)
        (given_up,) = await effects.give_up("booking")
        assert given_up.state is EffectState.UNKNOWN
        return Deed("R-1")

    assert (await effects.once(INTENT, slow)).state is EffectState.DONE


async def test_only_what_is_old_is_given_up(database: Database) -> None:
    clock = FakeClock()
    effects = effects_on(database, clock)
    begun, release = asyncio.Event(), asyncio.Event()

    async def hang(row: EffectRow) -> Deed:
        begun.set()
        await release.wait()
        return Deed()

    task = asyncio.create_task(effects.once(INTENT, hang))
    await begun.wait()
    assert await effects.give_up("booking") == []
    clock.advance(seconds=GIVEN_UP_MS / 1000 + 1)
    assert len(await effects.give_up("booking")) == 1
    assert await effects.give_up("booking") == []
    release.set()
    await task


async def test_a_secret_in_an_error_is_masked(effects: Effects) -> None:
    failure = ServiceError("refused Bearer canary-4f1c9e77", advice="api_key=canary-4f1c9e77")
    with pytest.raises(ServiceError):
        await effects.once(INTENT, Deeds(failure))
    (row,) = await effects.recent("booking")
    assert "canary" not in repr(row)


async def test_a_company_that_goes_takes_its_effects_along(effects: Effects, database: Database) -> None:
    async def vanish(row: EffectRow) -> Deed:
        await database.write(lambda session: session.delete(session.get(Company, 1)))
        return Deed("R-1")

    with pytest.raises(ServiceError, match="removed meanwhile"):
        await effects.once(INTENT, vanish)


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8), max_size=4))
def test_a_request_survives_its_storage(request_: dict[str, Any]) -> None:
    from services.integrations.effects import _plain

    assert _plain(request_) == request_


# Processes of their own

CHILD = """
import asyncio, sys
from pathlib import Path
from services.clock import SystemClock
from services.integrations.effects import Deed, Effects, Intent
from services.storage import Database, DatabaseLocation

place, log, keys, mode = sys.argv[1:]

async def main():
    where = DatabaseLocation.from_url(place) if "://" in place else DatabaseLocation(path=Path(place))
    database = await Database.open(where)

    async def open_database():
        return database

    effects = Effects(open_database, SystemClock())

    async def perform(row):
        with open(log, "a") as file:
            file.write(row.key + "\\n")
        if mode == "hang":
            print("performing", flush=True)
            await asyncio.Event().wait()
        return Deed("R")

    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(keys)):
        await effects.once(Intent("booking", f"key-{number}", "opentable"), perform)
    await database.aclose()

asyncio.run(main())
"""


async def child(where: DatabaseLocation, log: Path, keys: int, mode: str = "") -> asyncio.subprocess.Process:
    place = str(where.path) if where.is_sqlite else str(where.dsn)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        place,
        str(log),
        str(keys),
        mode,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()) == b"ready\n"
    return process


async def test_two_processes_race_for_every_key_and_each_happens_once(
    database: Database, where: DatabaseLocation, tmp_path: Path
) -> None:
    log = tmp_path / "deeds"
    racers = [await child(where, log, 25) for _ in range(2)]
    await asyncio.gather(*(racer.communicate(b"go\n") for racer in racers))
    assert [racer.returncode for racer in racers] == [0, 0]
    assert Counter(log.read_text().split()) == {f"key-{number}": 1 for number in range(25)}
    states = await database.read(lambda session: [row.state for row in session.exec(select(Effect))])
    assert states == ["done"] * 25


async def test_a_process_killed_in_the_middle_leaves_a_question_and_nothing_is_repeated(
    database: Database, where: DatabaseLocation, tmp_path: Path
) -> None:
    log = tmp_path / "deeds"
    process = await child(where, log, 1, "hang")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    assert (await process.stdout.readline()) == b"performing\n"
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    deeds = Deeds()
    clock = FakeClock(FakeClock().now() + 10 * 365 * 86_400_000)
    effects = effects_on(database, clock)
    intent = Intent("booking", "key-0", "opentable")
    assert (await effects.once(intent, deeds)).state is EffectState.INTENDED
    (found,) = await effects.give_up("booking")
    assert found.state is EffectState.UNKNOWN
    assert (await effects.once(intent, deeds)).state is EffectState.UNKNOWN
    assert not deeds.done
