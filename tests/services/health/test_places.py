"""What is true of one machine or one process is measured there, and is nobody else's truth."""

from __future__ import annotations

import asyncio
import random

from services.health import store
from services.health.model import CheckKind, CheckSpec, HealthState, Local, Reading
from services.health.places import seen_from
from services.health.plan import Plan
from services.health.runner import Job, Runner
from tests.support.scheduling import until
from tests.support.watching import FINE, GONE, FakeWorld, state_of
from tests.support.world import FakeClock

RETELL = "provider:acme/retell"
LOCKED = Reading(HealthState.DOWN, "locked: nobody can be asked with a key")
FULL = Reading(HealthState.DOWN, "Only 3 MB free")
SILENT = Reading(HealthState.DEGRADED, "no devices")


def a_machine(**readings: Reading) -> FakeWorld:
    """One connection, on a machine of its own; readings by the last word of the check."""
    world = FakeWorld()
    for word, local in (("secrets", Local.PROCESS), ("network", Local.MACHINE), ("disk", Local.MACHINE)):
        world.add(f"system:{word}", company="", local=local, failure_threshold=1)
    world.add("system:audio", company="", local=Local.MACHINE, critical=False, failure_threshold=1)
    world.add(RETELL, "system:secrets", "system:network", name="Retell", failure_threshold=1)
    world.readings.update({f"system:{word}": reading for word, reading in readings.items()})
    return world


async def on(watch, host: str, world: FakeWorld, **options):
    name = f"{host}:{len(watch.open)}:x"
    return await watch.service(name=name, host=host, world=world, lease=1000.0, **options)


def shown(service) -> dict[str, tuple[str, str]]:
    return {
        check.id: (check.name, check.message) for check in service.view().checks if check.kind == "system"
    }


async def measured(watch, service, world: FakeWorld, check_id: str) -> None:
    """Time passes and `service` measures this by its own timetable."""
    world.asked.clear()
    watch.clock.advance(seconds=70)
    await service.tick()

    async def asked() -> bool:
        await asyncio.sleep(0)
        return check_id in world.asked

    await until(asked)
    await asyncio.sleep(0)


async def stored(watch) -> set[str]:
    return set((await watch.databases[0].read(lambda session: store.states_since(session, 0)))[0])


async def test_each_machine_shows_its_own_disk_and_that_of_the_one_that_probes(watch) -> None:
    here, there = a_machine(disk=FULL, audio=SILENT), a_machine()
    web, laptop = await on(watch, "web-1", there), await on(watch, "laptop", here)
    await watch.round(web)
    await measured(watch, laptop, here, "system:disk")
    await laptop.tick()
    assert not laptop.holder
    # It asks for its own only; what others find of connections is read.
    assert RETELL not in here.asked
    assert shown(laptop) == {
        "system:audio@laptop": ("audio of laptop", "no devices"),
        "system:audio@web-1": ("audio of web-1", "fine"),
        "system:disk@laptop": ("disk of laptop", "Only 3 MB free"),
        "system:disk@web-1": ("disk of web-1", "fine"),
        "system:network@laptop": ("network of laptop", "fine"),
        "system:network@web-1": ("network of web-1", "fine"),
        "system:secrets@laptop/here": ("secrets of this process", "fine"),
        "system:secrets@web-1": ("secrets of web-1", "fine"),
    }
    await web.tick()
    assert set(shown(web)) == {f"system:{each}@web-1" for each in ("audio", "disk", "network", "secrets")}
    # Nothing of the laptop's is kept, nobody is told of it, also not when somebody asks.
    await laptop.check_now()
    await watch.round(web, laptop)
    assert all("laptop" not in each for each in await stored(watch))
    assert watch.raised == []
    assert await web.incidents() == []


async def test_connections_hang_on_the_network_of_who_asks_them(watch) -> None:
    here, there = a_machine(network=GONE), a_machine()
    web, laptop = await on(watch, "web-1", there), await on(watch, "laptop", here)
    await watch.round(web)
    await measured(watch, laptop, here, "system:network")
    assert state_of(laptop, "system:network@laptop") is HealthState.DOWN
    assert state_of(laptop, RETELL) is HealthState.UP
    here.readings.clear()
    there.readings["system:network"] = there.readings[RETELL] = GONE
    await watch.round(web, laptop)
    held = next(check for check in laptop.view().checks if check.id == RETELL)
    assert (held.state, held.held_by) == (HealthState.WAITS, "network of web-1")
    told = "network of web-1 is down: 503 service unavailable; 1 connection hangs on it"
    assert watch.raised[0].text == told
    assert {each.check_id for each in watch.raised} == {"system:network@web-1"}


async def test_who_takes_over_goes_on_with_its_own_machine_only(watch) -> None:
    here, there = a_machine(), a_machine(disk=FULL)
    web = await on(watch, "web-1", there)
    await watch.round(web)
    laptop = await on(watch, "laptop", here)
    assert [each.name for each in await laptop.incidents()] == ["disk of web-1"]
    await web.aclose()
    told = len(watch.raised)
    await laptop.tick()
    await watch.round(laptop)
    await watch.round(laptop)
    assert laptop.holder
    assert set(shown(laptop)) == {f"system:{each}@laptop" for each in ("audio", "disk", "network", "secrets")}
    # Its disk is not the one that was full: that is over for whoever looks, and not told as mended.
    [incident] = await laptop.incidents()
    assert incident.ended_at is not None
    assert incident.over_alerted_at is None
    assert len(watch.raised) == told
    here.readings["system:disk"] = FULL
    await watch.round(laptop)
    assert watch.raised[-1].text == "disk of laptop is down: Only 3 MB free"


async def test_who_takes_over_stores_at_once_what_it_measured_before(watch) -> None:
    here = a_machine()
    web, laptop = await on(watch, "web-1", a_machine()), await on(watch, "laptop", here)
    await measured(watch, laptop, here, "system:disk")
    await web.aclose()
    here.asked.clear()
    await laptop.tick()

    async def asked() -> bool:
        await asyncio.sleep(0)
        return "system:disk" in here.asked

    await until(asked)


async def test_who_begins_when_the_other_machine_is_gone_ends_what_was_open_there(watch) -> None:
    web = await on(watch, "web-1", a_machine(disk=FULL))
    await watch.round(web)
    await web.aclose()
    laptop = await on(watch, "laptop", a_machine())
    await watch.round(laptop)
    await watch.round(laptop)
    assert [each.ended_at is None for each in await laptop.incidents()] == [False]


async def test_processes_on_one_machine_share_its_disk_but_not_their_keys(watch) -> None:
    first, second = a_machine(), a_machine(disk=FULL, secrets=LOCKED)
    prober = await on(watch, "", first)
    follower = await on(watch, "", second)
    await watch.round(prober)
    await measured(watch, follower, second, "system:secrets")
    assert shown(follower)["system:disk"] == ("disk", "fine")
    assert shown(follower)["system:secrets"] == ("secrets", "fine")
    assert shown(follower)["system:secrets/here"] == ("secrets of this process", LOCKED.message)
    assert state_of(follower, RETELL) is HealthState.UP
    assert set(second.asked) == {"system:secrets"}


async def test_who_has_no_keys_probes_only_while_nobody_has_them(watch) -> None:
    without, keys = a_machine(secrets=LOCKED), a_machine()
    without.readings[RETELL] = GONE
    locked = await on(watch, "web-1", without)
    assert not locked.holder  # whoever has the keys may be just about to
    await locked.tick()
    assert locked.holder
    await watch.round(locked)
    # What it finds without a key is not kept.
    assert RETELL not in await stored(watch)
    assert [each.name for each in await locked.incidents()] == ["secrets of web-1"]
    opened = await on(watch, "laptop", keys)
    await watch.round(locked, opened)
    await watch.round(locked, opened)
    await watch.round(locked, opened)
    assert opened.holder
    assert not locked.holder
    await opened.check_now()
    await locked.tick()
    assert state_of(locked, RETELL) is HealthState.UP
    assert shown(locked)["system:secrets@web-1/here"] == ("secrets of this process", LOCKED.message)
    for _ in range(3):  # and it stays so
        await watch.round(opened, locked)
    assert opened.holder
    assert not locked.holder


async def test_who_gets_the_keys_asks_everything_that_takes_one(watch) -> None:
    world = a_machine(secrets=LOCKED)
    world.readings[RETELL] = GONE
    service = await on(watch, "", world)
    await service.tick()
    await watch.round(service)
    world.readings.clear()
    await watch.round(service)
    await watch.round(service)
    assert state_of(service, RETELL) is HealthState.UP
    assert RETELL in await stored(watch)


def a_plan() -> Plan:
    async def probe() -> Reading:
        return FINE

    def check(check_id: str, *depends_on: str, local: Local | None = None) -> CheckSpec:
        kind = CheckKind(check_id.partition(":")[0])
        return CheckSpec(check_id, kind, check_id, probe, depends_on=depends_on, local=local)

    return Plan(
        [
            check("system:secrets", local=Local.PROCESS),
            check("system:disk", local=Local.MACHINE),
            check("provider:a", "system:secrets"),
        ],
        (),
    )


def test_what_is_watched_from_where() -> None:
    plan = a_plan()
    assert seen_from(plan, "", None) is plan
    alone = seen_from(plan, "web-1", None)
    assert [spec.id for spec in alone.specs] == ["system:secrets@web-1", "system:disk@web-1", "provider:a"]
    beside = seen_from(plan, "web-1", "web-1")
    assert [(spec.id, spec.elsewhere) for spec in beside.specs] == [
        ("system:secrets@web-1", True),
        ("system:secrets@web-1/here", False),
        ("system:disk@web-1", False),
        ("provider:a", False),
    ]
    assert beside.own == {"system:secrets@web-1/here"}
    far = seen_from(plan, "laptop", "web-1")
    assert far.spec("provider:a").depends_on == ("system:secrets@web-1",)
    assert far.own == {"system:secrets@laptop/here", "system:disk@laptop"}
    assert {job.id for job in far.jobs()} == {*far.own, "provider:a"}
    assert far.jobs_of(["system:disk@web-1", "provider:a"]) == ["provider:a"]


def test_a_rule_without_a_machine_is_for_all_machines() -> None:
    from services.health.model import Rule

    rules = {"system:disk": Rule("system:disk", interval=600.0)}
    far = seen_from(a_plan(), "laptop", "web-1").with_rules(rules)
    assert {far.spec(f"system:disk@{host}").interval for host in ("laptop", "web-1")} == {600.0}


async def test_what_became_due_while_another_process_probed_is_probed_as_soon_as_it_is_over() -> None:
    clock, asked = FakeClock(), []

    def job(name: str) -> Job:
        async def run() -> list[tuple[str, Reading]]:
            asked.append(name)
            return [(name, FINE)]

        return Job(name, 30.0, 10.0, run, (name,))

    async def told(probed: object) -> None:
        pass

    runner = Runner(clock, told, rng=random.Random(1))
    runner.set_jobs([job("own"), job("other")])
    runner.restrict({"own"})
    clock.advance(seconds=40)
    runner.tick()
    await asyncio.sleep(0)
    assert asked == ["own"]
    runner.restrict(None)
    runner.tick()
    await asyncio.sleep(0)
    assert asked == ["own", "other"]
    await runner.stop()
