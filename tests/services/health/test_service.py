from __future__ import annotations

import asyncio
import json

import pytest
from sqlmodel import select

from services.errors import Category, ServiceError, UsageError
from services.events import AgentsChanged, HealthChanged, PolicyChanged
from services.health.model import HealthState, Overall, Reading, Rule
from services.health.plan import Group
from services.resilience import BreakerState, Level, Limits, Subject
from services.security import remember_secret
from services.storage.tables import Audit, HealthProbe
from services.storage.tables import HealthState as StateRow
from tests.support.watching import FINE, GONE, state_of

RETELL = "provider:acme/retell"
LOST = ServiceError("The database does not answer", category=Category.TRANSIENT)


def a_small_world(watch) -> None:
    watch.world.add("system:database", company="")
    watch.world.add(RETELL, name="Retell")
    watch.world.add("integration:1", RETELL, name="HubSpot", critical=False)


# -- one process ------------------------------------------------------------------------------------


async def test_before_anything_was_probed(watch) -> None:
    a_small_world(watch)
    service = await watch.service(start=False)
    view = service.view()
    assert (view.overall, view.checks, view.started, view.prober) == (Overall.HEALTHY, (), False, "")
    assert not service.ready()


async def test_it_probes_and_says_how_things_are(watch) -> None:
    a_small_world(watch)
    service = await watch.service()
    assert service.ready()
    view = await service.check_now()
    assert (view.overall, view.started, view.prober) == (Overall.HEALTHY, True, "this process")
    assert [check.id for check in view.checks] == [RETELL, "integration:1", "system:database"]
    assert view.checked_at == watch.clock.now()
    watch.world.readings[RETELL] = GONE
    await watch.round(service)
    assert state_of(service, RETELL) is HealthState.PENDING
    await watch.round(service)
    assert service.view().reason == "Retell is down; 1 integration hangs on it"


async def test_the_view_is_the_same_object_until_something_changes(watch) -> None:
    a_small_world(watch)
    service = await watch.service()
    view = await service.check_now()
    assert service.view() is view
    await watch.round(service)
    assert service.view() is not view


async def test_it_starts_probing_by_itself(watch) -> None:
    a_small_world(watch)
    changed = asyncio.Event()
    service = await watch.service()
    watch.buses[0].subscribe(HealthChanged, lambda event: changed.set())
    while {check.state for check in service.view().checks} != {HealthState.UP}:
        changed.clear()
        await asyncio.wait_for(changed.wait(), 20)


async def test_a_look_can_be_made_certain(watch) -> None:
    """A single command has no time to wait for a second probe: it makes it."""
    a_small_world(watch)
    watch.world.readings[RETELL] = GONE
    service = await watch.service(start=False)
    assert (await service.check_now()).overall is Overall.HEALTHY
    view = await service.check_now([RETELL], confirm=True)
    assert view.overall is Overall.UNHEALTHY
    assert watch.world.asked.count(RETELL) == 2


async def test_an_unknown_check_is_told_what_comes_nearest(watch) -> None:
    a_small_world(watch)
    service = await watch.service()
    with pytest.raises(UsageError) as told:
        await service.check_now(["provider:acme/retel"])
    assert RETELL in told.value.advice


@pytest.mark.parametrize(
    ("failure", "state", "message"),
    [
        (
            ServiceError("The key was refused", category=Category.AUTHENTICATION),
            "down",
            "The key was refused",
        ),
        (ServiceError("Too many", category=Category.RATE_LIMIT), "degraded", "Too many"),
        (TimeoutError(), "down", "No answer within 10 s"),
        (ValueError("no such thing"), "down", "The check itself failed: no such thing"),
    ],
)
async def test_whatever_goes_wrong_is_a_reading(watch, failure, state, message) -> None:
    watch.world.add(RETELL, failure_threshold=1)
    watch.world.readings[RETELL] = failure
    service = await watch.service()
    (check,) = (await service.check_now()).checks
    assert (check.state.value, check.message) == (state, message)
    assert check.advice


async def test_no_secret_is_shown_or_stored(watch) -> None:
    remember_secret("canary-0123456789")
    facts = (("header", "Bearer canary-0123456789"),)
    watch.world.add(RETELL, failure_threshold=1)
    watch.world.readings[RETELL] = Reading(
        HealthState.DOWN, "refused canary-0123456789\x1b[2J", "rotate canary-0123456789", facts=facts
    )
    service = await watch.service()
    view = await service.check_now()
    assert "canary" not in repr(view)
    assert "\x1b" not in repr(view)
    incidents = await service.incidents()
    assert "canary" not in repr(incidents)
    rows = await watch.databases[0].read(
        lambda session: repr([list(session.exec(select(HealthProbe))), list(session.exec(select(StateRow)))])
    )
    assert "canary" not in rows


async def test_what_is_known_survives_a_restart(watch) -> None:
    a_small_world(watch)
    first = await watch.service()
    watch.world.readings[RETELL] = GONE
    for _ in range(3):
        await watch.round(first)
    before = next(check for check in first.view().checks if check.id == RETELL)
    await first.aclose()
    watch.world.asked.clear()
    second = await watch.service(start=False)
    await second.check_now([])
    after = next(check for check in second.view().checks if check.id == RETELL)
    assert watch.world.asked == []
    assert after.beats == before.beats
    assert (after.state, after.since, after.failures) == (before.state, before.since, before.failures)
    assert (after.uptime_24h, after.uptime_30d) == (before.uptime_24h, before.uptime_30d)
    assert (after.message, after.last_error_at) == (before.message, before.last_error_at)


async def test_a_restart_in_an_outage_tells_nobody_again(watch) -> None:
    a_small_world(watch)
    first = await watch.service()
    watch.world.readings[RETELL] = GONE
    for _ in range(3):
        await watch.round(first)
    await first.aclose()
    second = await watch.service()
    for _ in range(3):
        await watch.round(second)
    watch.world.readings.clear()
    for _ in range(2):
        await watch.round(second)
    assert [(each.check_id, each.over) for each in watch.raised] == [(RETELL, False), (RETELL, True)]
    (incident,) = await second.incidents()
    assert incident.ended_at is not None


async def test_checks_come_and_go_with_what_there_is(watch) -> None:
    a_small_world(watch)
    service = await watch.service()
    await service.check_now()
    watch.world.specs.pop()
    watch.world.add("agent:7", RETELL, name="Front desk")
    watch.buses[0].publish(AgentsChanged((7,)))
    await service.check_now()
    assert [check.id for check in service.view().checks] == [RETELL, "agent:7", "system:database"]
    stored = await watch.databases[0].read(
        lambda session: {row.check_id for row in session.exec(select(StateRow))}
    )
    assert "integration:1" not in stored


async def test_what_went_away_in_trouble_is_an_incident_that_ended(watch) -> None:
    a_small_world(watch)
    service = await watch.service()
    watch.world.readings["integration:1"] = GONE
    for _ in range(3):
        await watch.round(service)
    watch.world.specs.pop()
    watch.buses[0].publish(AgentsChanged())
    await watch.round(service)
    (incident,) = await service.incidents()
    assert incident.ended_at is not None
    assert [each.over for each in watch.raised] == [False]


async def test_an_incident_that_would_repeat_an_alert_says_so(watch) -> None:
    a_small_world(watch)
    service = await watch.service(quiet=900.0)

    async def outage() -> None:
        for reading, rounds in ((GONE, 3), (FINE, 1)):
            watch.world.readings[RETELL] = reading
            for _ in range(rounds):
                await watch.round(service)

    async def told() -> list[tuple[bool, int | None]]:
        return [(each.alerted_at is not None, each.repeats) for each in await service.incidents()]

    await outage()
    at = watch.clock.now()
    await outage()
    ((second, repeats), first) = await told()
    assert (first, second) == ((True, None), False)
    assert repeats is not None
    assert at - 90_000 <= repeats <= at
    # What is only short, long after, repeats nothing; what another one caused is told by its cause.
    watch.clock.advance(seconds=3600)
    await outage()
    assert (await told())[0] == (True, None)
    for _ in range(3):
        watch.world.readings |= {RETELL: GONE, "integration:1": GONE}
        await watch.round(service)
    held, again = sorted(await service.incidents(2), key=lambda each: each.check_id)
    assert (held.cause, held.repeats) == ("Retell", None)
    assert again.repeats is not None


async def test_a_group_is_one_question_and_few_rows(watch) -> None:
    rounds = []

    async def run():
        rounds.append(1)
        return [(f"agent:{place}", FINE) for place in range(500)]

    for place in range(500):
        watch.world.add(f"agent:{place}", RETELL, group="agents")
    watch.world.add(RETELL)
    watch.world.groups.append(Group("agents", 60, run))
    service = await watch.service()
    for _ in range(5):
        await watch.round(service)
    assert 5 <= len(rounds) <= 7
    assert len(service.view().checks[-1].beats) >= 5

    def count(session):
        rows = session.exec(select(HealthProbe)).all()
        return sum(row.check_id.startswith("agent:") for row in rows)

    assert await watch.databases[0].read(count) == 0
    await service.aclose()
    assert await watch.databases[0].read(count) == 500
    again = await watch.service(start=False)
    await again.check_now([])
    assert all(check.uptime_24h == 1.0 for check in again.view().checks)


async def test_what_failed_once_is_looked_at_before_its_turn(watch) -> None:
    """Half an interval after the failed probe began, and only once; the time is shown."""
    a_small_world(watch)
    service = await watch.service()
    await service.check_now()
    watch.world.readings[RETELL] = GONE
    await watch.round(service)
    check = next(check for check in service.view().checks if check.id == RETELL)
    assert check.state is HealthState.PENDING
    assert 13_500 <= check.next_at - watch.clock.now() <= 15_000
    await watch.round(service, seconds=15)
    check = next(check for check in service.view().checks if check.id == RETELL)
    assert check.state is HealthState.DOWN
    assert 28_500 <= check.next_at - watch.clock.now() <= 30_000


async def test_a_limit_or_a_single_agent_is_no_reason_for_a_second_look(watch) -> None:
    async def run():
        return [("agent:1", GONE), ("agent:2", FINE)]

    watch.world.add(RETELL)
    for place in (1, 2):
        watch.world.add(f"agent:{place}", RETELL, group="agents")
    watch.world.groups.append(Group("agents", 60, run))
    watch.world.readings[RETELL] = ServiceError("Too many", category=Category.RATE_LIMIT)
    service = await watch.service()
    for _ in range(2):
        await watch.round(service, seconds=60)
    for check in service.view().checks:
        assert check.next_at - watch.clock.now() >= 28_500


async def test_a_round_that_failed_as_a_whole_is_made_again_before_its_turn(watch) -> None:
    async def run():
        raise LOST

    watch.world.add("agent:1", group="agents")
    watch.world.groups.append(Group("agents", 60, run))
    service = await watch.service()
    await watch.round(service)
    (check,) = service.view().checks
    assert check.state is HealthState.PENDING
    assert check.next_at - watch.clock.now() <= 30_000


# -- several processes on one database ------------------------------------------------------------


async def test_one_probes_and_all_see_the_same(shared) -> None:
    a_small_world(shared)
    first, second = await shared.service(name="one:11:x"), await shared.service(name="two:22:y")
    shared.world.readings[RETELL] = GONE
    for _ in range(4):
        await shared.round(first, second)
    assert (first.holder, second.holder) == (True, False)
    mine, theirs = first.view(), second.view()
    assert (theirs.started, theirs.prober) == (False, "another process (one, 11)")
    assert theirs.reason == mine.reason == "Retell is down; 1 integration hangs on it"
    for check, seen in zip(mine.checks, theirs.checks, strict=True):
        assert (seen.id, seen.state, seen.since, seen.held_by) == (
            check.id,
            check.state,
            check.since,
            check.held_by,
        )
        assert (seen.message, seen.uptime_24h) == (check.message, check.uptime_24h)
        assert seen.beats == check.beats


async def test_a_follower_shows_what_is_held_by_what(shared) -> None:
    """Nothing is written of the agents when their vendor goes down or comes back: only it changed."""
    shared.world.add(RETELL, name="Retell")
    for place in range(3):
        shared.world.add(f"agent:{place}", RETELL, group="agents", name=f"agent {place}")

    async def run():
        return [(f"agent:{place}", FINE) for place in range(3)]

    shared.world.groups.append(Group("agents", 60, run))
    first, second = await shared.service(), await shared.service()
    await shared.round(first, second)

    async def round_of_the_vendor_alone() -> list[str]:
        shared.clock.advance(seconds=30)
        await first.check_now([RETELL])
        await first.tick()
        await second.tick()
        views = [service.view().checks for service in (first, second)]
        mine, theirs = ([(check.id, check.held_by) for check in checks] for checks in views)
        assert mine == theirs
        return [held for check_id, held in theirs if check_id != RETELL]

    shared.world.readings[RETELL] = GONE
    await round_of_the_vendor_alone()
    assert await round_of_the_vendor_alone() == ["Retell"] * 3
    shared.world.readings.clear()
    assert await round_of_the_vendor_alone() == [""] * 3


async def test_a_look_of_a_follower_is_its_own(shared) -> None:
    a_small_world(shared)
    first, second = await shared.service(), await shared.service()
    await shared.round(first, second)
    shared.world.asked.clear()
    shared.world.readings["integration:1"] = GONE
    view = await second.check_now(["integration:1"], confirm=True)
    assert shared.world.asked == ["integration:1", "integration:1"]
    assert view.overall is Overall.DEGRADED
    assert first.view().overall is Overall.HEALTHY
    assert await first.incidents() == []


async def test_the_next_takes_over_and_nobody_is_told_twice(shared) -> None:
    a_small_world(shared)
    await shared.service()
    first, second = shared.open[0], await shared.service()
    await first.add_alert("webhook", "https://hooks.example.com/a")
    shared.world.readings[RETELL] = GONE
    for _ in range(4):
        await shared.round(first, second)
    await first.aclose()
    for _ in range(3):
        await shared.round(second)
    assert second.holder
    shared.world.readings.clear()
    for _ in range(3):
        await shared.round(second)
    await second.aclose()
    assert [text.partition(":")[0] for _, text in shared.sender.sent] == [
        "Retell is down",
        "Retell is up again after 3 min",
    ]


async def test_every_console_rings_once(shared) -> None:
    a_small_world(shared)
    heard: list[list[str]] = [[], []]
    first = await shared.service(raised=lambda event: heard[0].append(event.text))
    second = await shared.service(raised=lambda event: heard[1].append(event.text))
    shared.world.readings[RETELL] = GONE
    for _ in range(4):
        await shared.round(first, second)
    shared.world.readings.clear()
    for _ in range(3):
        await shared.round(first, second)
    assert len(heard[0]) == len(heard[1]) == 2
    assert heard[0][1] == heard[1][1]


async def test_a_process_that_hung_steps_down(shared) -> None:
    """Its lease ran out while it was suspended: what it finds out then is no longer its business."""
    a_small_world(shared)
    first, second = await shared.service(), await shared.service()
    await shared.round(first, second)
    shared.clock.advance(minutes=5)
    await second.tick()
    assert second.holder
    shared.world.readings[RETELL] = GONE
    for _ in range(3):
        await first.check_now()
    await first.tick()
    assert not first.holder
    assert await second.incidents() == []
    for _ in range(3):
        await shared.round(second, first)
    assert [each.check_id for each in await first.incidents()].count(RETELL) == 1
    assert state_of(first, RETELL) is HealthState.DOWN


async def test_two_that_both_believe_to_probe_tell_once(shared) -> None:
    """However it came about: the database lets one of them open the incident, and one tell of it."""
    from services.health import store
    from services.health.incidents import Trouble
    from services.health.model import CheckKind

    await shared.service()
    await shared.service()
    troubles = [
        Trouble(RETELL, "Retell", CheckKind.PROVIDER, HealthState.DOWN, 1000, message=f"seen by {place}")
        for place in range(2)
    ]

    async def both(work) -> list:
        pairs = zip(shared.databases, troubles, strict=True)
        return await asyncio.gather(
            *(
                database.write(lambda session, trouble=trouble: work(session, trouble))
                for database, trouble in pairs
            )
        )

    await both(store.write_trouble)
    told = await both(lambda session, trouble: store.claim(session, trouble, HealthState.DOWN, 2000))
    for trouble in troubles:
        trouble.ended_at = 3000
    await both(store.write_trouble)
    over = await both(lambda session, trouble: store.claim(session, trouble, HealthState.UP, 3000))
    assert (sorted(told), sorted(over)) == ([False, True], [False, True])
    assert len(await shared.open[0].incidents()) == 1


# -- without the database -------------------------------------------------------------------------


async def test_it_goes_on_without_the_database_and_writes_later(watch, monkeypatch) -> None:
    a_small_world(watch)
    service = await watch.service()
    await service.check_now()
    database = watch.databases[0]

    async def refuse(work):
        raise LOST

    with monkeypatch.context() as broken:
        broken.setattr(database, "write", refuse)
        broken.setattr(database, "read", refuse)
        watch.world.readings["system:database"] = LOST
        for _ in range(3):
            await watch.round(service)
        assert not service.ready()
        assert service.view().reason == "database is down: The database does not answer"
        assert [each.check_id for each in watch.raised] == ["system:database"]
    watch.world.readings.clear()
    for _ in range(3):
        await watch.round(service)
    assert service.ready()
    assert [each.over for each in watch.raised] == [False, True]
    (incident,) = await service.incidents()
    assert incident.alerted_at is not None
    stored = await watch.databases[0].read(
        lambda session: [row.state for row in session.exec(select(HealthProbe)) if "database" in row.check_id]
    )
    assert stored.count("down") == 3


async def test_a_follower_says_that_it_cannot_read(watch, monkeypatch) -> None:
    a_small_world(watch)
    first, second = await watch.service(), await watch.service()
    await watch.round(first, second)

    async def refuse(work):
        raise LOST

    with monkeypatch.context() as broken:
        broken.setattr(watch.databases[1], "read", refuse)
        for _ in range(3):
            await second.tick()
        assert second.view().reason == "database is down: The database does not answer"
        assert not second.ready()
    await watch.round(first, second)
    assert second.view().overall is Overall.HEALTHY


# -- what operators decide ------------------------------------------------------------------------


async def test_rules_change_a_check_and_are_taken_back(watch) -> None:
    a_small_world(watch)
    service, other = await watch.service(), await watch.service()
    await other.set_rule(RETELL, failure_threshold=1, interval=5.0, slow_ms=100.0, actor="maria")
    await watch.round(service, other)
    watch.world.readings[RETELL] = GONE
    await watch.round(service, other)
    assert state_of(service, RETELL) is HealthState.DOWN
    assert await service.rules() == [Rule(RETELL, True, 5.0, 1, 100.0)]
    await service.set_rule(RETELL, enabled=False)
    assert RETELL not in [check.id for check in service.view().checks]
    # A check that is off is still known by its rule.
    rule = await service.set_rule(RETELL, enabled=True, interval=None)
    assert (rule, await service.rules()) == (Rule(RETELL, True, None, 1, 100.0), [rule])
    assert RETELL in [check.id for check in service.view().checks]
    await service.set_rule(RETELL, failure_threshold=None, slow_ms=None)
    await service.set_rule(RETELL, enabled=True)  # as it was: nothing to be noted
    assert await service.rules() == []
    with pytest.raises(UsageError):
        await service.set_rule("provider:nobody", failure_threshold=3)
    for wrong in ({"interval": 0.0}, {"failure_threshold": 0}, {"slow_ms": float("nan")}):
        with pytest.raises(UsageError):
            await service.set_rule(RETELL, **wrong)
    rows = await watch.databases[0].read(
        lambda session: [(row.actor, row.before, row.after) for row in session.exec(select(Audit))]
    )
    assert [(actor == "maria", *map(json.loads, texts)) for actor, *texts in rows] == [
        (
            True,
            {"interval": None, "failure_threshold": None, "slow_ms": None},
            {"interval": 5.0, "failure_threshold": 1, "slow_ms": 100.0},
        ),
        (False, {"enabled": True}, {"enabled": False}),
        (False, {"enabled": False, "interval": 5.0}, {"enabled": True, "interval": None}),
        (False, {"failure_threshold": 1, "slow_ms": 100.0}, {"failure_threshold": None, "slow_ms": None}),
    ]


async def test_slowness_is_switched_off_by_a_rule(watch) -> None:
    watch.world.add(RETELL, name="Retell", slow_ms=100.0)
    watch.world.readings[RETELL] = Reading(HealthState.UP, "answers", took_ms=5_000)
    service = await watch.service()
    await service.check_now()
    assert state_of(service, RETELL) is HealthState.DEGRADED
    await service.set_rule(RETELL, slow_ms=0)
    await service.check_now()
    assert state_of(service, RETELL) is HealthState.UP


async def test_maintenance_holds_back_alerts_and_is_in_the_audit(watch) -> None:
    a_small_world(watch)
    service = await watch.service()
    window = await service.add_maintenance(RETELL, minutes=60, reason="key rotation", actor="maria")
    watch.world.readings[RETELL] = GONE
    for _ in range(4):
        await watch.round(service)
    assert state_of(service, RETELL) is HealthState.MAINTENANCE
    assert service.view().overall is Overall.HEALTHY
    assert watch.raised == []
    await service.end_maintenance(window.id, actor="maria")
    assert state_of(service, RETELL) is HealthState.DOWN
    await watch.round(service)
    assert [each.check_id for each in watch.raised] == [RETELL]
    with pytest.raises(UsageError):
        await service.end_maintenance(window.id)
    rows = await watch.databases[0].read(
        lambda session: [(row.actor, row.action, row.subject) for row in session.exec(select(Audit))]
    )
    assert rows == [
        ("maria", "health.maintenance", RETELL),
        ("maria", "health.maintenance.end", RETELL),
    ]


async def test_maintenance_ends_by_itself(watch) -> None:
    a_small_world(watch)
    service = await watch.service(timezone="Asia/Tokyo")
    window = await service.add_maintenance("*", minutes=10)
    assert window.timezone == "Asia/Tokyo"  # as configured: so it is shown
    await watch.round(service)
    assert {check.state for check in service.view().checks} == {HealthState.MAINTENANCE}
    await watch.round(service, seconds=600)
    assert {check.state for check in service.view().checks} == {HealthState.UP}


async def test_the_breaker_of_a_check_is_shown_and_switched(watch) -> None:
    watch.world.add(RETELL, policy="Retell (acme)")
    watch.world.add("system:database", company="")
    service = await watch.service()
    watch.policies.of("Retell (acme)")
    await service.check_now()
    assert service.view().checks[0].breaker.state is BreakerState.CLOSED
    await service.trip_breaker(RETELL)
    watch.buses[0].publish(PolicyChanged("Retell (acme)"))
    breaker = service.view().checks[0].breaker
    assert breaker.state is BreakerState.OPEN
    watch.clock.advance(seconds=10)
    assert service.view().checks[0].breaker.reopens_in < breaker.reopens_in
    await service.reset_breaker(RETELL)
    watch.buses[0].publish(PolicyChanged("Retell (acme)"))
    assert service.view().checks[0].breaker.state is BreakerState.CLOSED
    with pytest.raises(UsageError):
        await service.trip_breaker("system:database")


async def failing_through(watch, policy, error: ServiceError = LOST):
    """Lets what is probed fail like this, through its policy as everybody's calls."""

    async def fail(_: object) -> None:
        raise error

    try:
        await policy.run(fail, attempts=1)
    except ServiceError as failure:
        watch.world.readings[RETELL] = failure


@pytest.mark.parametrize("answered", [False, True])
async def test_what_is_down_for_certain_has_its_breaker_opened(watch, answered: bool) -> None:
    """Nobody has to wait for five time-outs; but what answers somebody is not taken away from all."""
    watch.world.add(RETELL, name="Retell", policy="Retell (acme)")
    policy = watch.policies.of("Retell (acme)")
    service = await watch.service()

    async def works(_: object) -> None:
        return None

    for _ in range(2):
        assert policy.breaker.view().state is BreakerState.CLOSED
        if answered:
            await policy.run(works)
        await failing_through(watch, policy)
        await watch.round(service)
    assert state_of(service, RETELL) is HealthState.DOWN
    breaker = policy.breaker.view()
    assert breaker.state is (BreakerState.CLOSED if answered else BreakerState.OPEN)
    assert breaker.failures == (1 if answered else 2)


async def test_who_closes_a_breaker_by_hand_is_believed_until_it_has_failed_again(watch) -> None:
    watch.world.add(RETELL, name="Retell", policy="Retell (acme)")
    policy = watch.policies.of("Retell (acme)")
    service = await watch.service()
    for _ in range(2):
        await failing_through(watch, policy)
        await watch.round(service)
    await service.reset_breaker(RETELL)
    states = []
    for _ in range(2):
        await failing_through(watch, policy)
        await watch.round(service)
        states.append(policy.breaker.view().state)
    assert states == [BreakerState.CLOSED, BreakerState.OPEN]


@pytest.mark.parametrize("why", ["a single look", "maintenance"])
async def test_neither_a_single_look_nor_maintenance_opens_a_breaker(watch, why: str) -> None:
    watch.world.add(RETELL, name="Retell", policy="Retell (acme)")
    policy = watch.policies.of("Retell (acme)")
    service = await watch.service(start=why == "maintenance")
    if why == "maintenance":
        await service.add_maintenance(RETELL, minutes=60)
    for _ in range(3):
        await failing_through(watch, policy)
        await service.check_now([RETELL])
    assert state_of(service, RETELL) in (HealthState.DOWN, HealthState.MAINTENANCE)
    assert policy.breaker.view().state is BreakerState.CLOSED


async def test_the_limits_of_the_busiest_agent_and_user_are_shown_too(watch) -> None:
    watch.world.add(RETELL, policy="Retell (acme)", subject=Subject(account="acme"))
    limiter = watch.policies.limiter(user=Limits(minute=3))
    policy = watch.policies.of("Retell (acme)", limiter=limiter)
    service = await watch.service()
    await service.check_now()
    assert not [each for each in service.view().checks[0].budgets if each.used]
    for _ in range(2):
        await policy.take(Subject(account="acme", agent="agent_1", user="maria"))
    await service.check_now()
    told = {(each.level, each.window): each.remaining for each in service.view().checks[0].budgets}
    assert (told[Level.ACCOUNT, "minute"], told[Level.AGENT, "minute"]) == (58, 58)
    assert told[Level.USER, "minute"] == 1


async def test_who_switches_a_breaker_is_in_the_audit_and_why(watch) -> None:
    watch.world.add(RETELL, policy="Retell (acme)")
    service = await watch.service()
    policy, key = watch.policies.of("Retell (acme)"), "canary-4f1c88e2-in-an-answer"
    remember_secret(key)

    async def refuse(_: object) -> None:
        raise ServiceError(f"503 for {key}", category=Category.TRANSIENT)

    for _ in range(5):
        with pytest.raises(ServiceError):
            await policy.run(refuse, attempts=1)
    await service.reset_breaker(RETELL, actor="maria")
    await service.trip_breaker(RETELL)
    first, second = await watch.databases[0].read(
        lambda session: [
            (row.actor, row.action, row.cause, row.before, row.after) for row in session.exec(select(Audit))
        ]
    )
    opened, closed = '{"breaker": "open"}', '{"breaker": "closed"}'
    assert first[:2] == ("maria", "breaker.close")
    assert first[2].startswith("by hand; it failed last with: 503 for ")
    assert key not in first[2]
    assert first[3:] == (opened, closed)
    assert (second[1], *second[3:]) == ("breaker.open", closed, opened)


async def test_history_has_what_was_found(watch) -> None:
    a_small_world(watch)
    service = await watch.service()
    watch.world.readings[RETELL] = Reading(HealthState.UP, "fine", took_ms=120.0)
    for _ in range(20):
        await watch.round(service)
    found = await service.history(RETELL)
    assert sum(point.up for point in found) >= 20
    assert {point.p95_ms for point in found} == {120.0}
    assert await service.history("provider:nobody") == []
