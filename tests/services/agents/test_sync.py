"""Sync against both vendors of the simulator over real sockets, on a real database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import Session

from services.agents import SyncRequest
from services.errors import UsageError
from services.events import AgentReading, AgentSettled, Event, SyncFinished
from services.model import Drift, Outcome, Provider, RunStatus, SyncStatus
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.world import FakeClock, by_agent, outcomes, services_on

ALL = SyncRequest()


@pytest.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with running_simulator(agents=13, seed=5) as running:
        yield running


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "callboard.db") as connection:
        return connection.execute(sql).fetchall()


def content(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of the tables that hold configurations and history, agents without the time of the check."""
    return {
        "bundle": rows(folder, "SELECT * FROM bundle ORDER BY id"),
        "snapshot": rows(folder, "SELECT * FROM snapshot ORDER BY id"),
        "audit": rows(folder, "SELECT * FROM audit ORDER BY id"),
        "outcome": rows(folder, "SELECT * FROM sync_outcome ORDER BY id"),
        "agent": [
            tuple(value for value in row)
            for row in rows(
                folder,
                "SELECT id, remote_id, name, status, drift, release, voice, language, model, function_count,"
                " marker, changed_at, gone_at, updated_at, base_bundle_id, local_bundle_id, remote_bundle_id"
                " FROM agent ORDER BY id",
            )
        ],
    }


async def test_the_first_sync_mirrors_every_agent_byte_for_byte(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        report = await services.sync.run(ALL)
        assert report.status is RunStatus.DONE
        assert report.counts() == {**dict.fromkeys(report.counts(), 0), "created": 13}
        cards = await services.agents.cards()
        assert len(cards) == 13
        assert {card.status for card in cards} == {SyncStatus.SYNCED}
        assert {card.drift for card in cards} == {Drift.IN_SYNC}
        assert all(card.name and card.voice and card.language for card in cards)
        headers = {"authorization": f"Bearer {simulator.key}", "xi-api-key": simulator.key}
        async with httpx.AsyncClient(headers=headers) as client:
            for card in cards:
                stored = await services.agents.bundle(card.id)
                assert stored is not None
                url = (
                    f"{simulator.retell_url}/get-agent/{card.agent_id}"
                    if card.provider is Provider.RETELL
                    else f"{simulator.elevenlabs_url}/v1/convai/agents/{card.agent_id}"
                )
                assert stored.parts[0].text.encode() == (await client.get(url)).content
        assert any('"tool"' in str(stored) for (stored,) in rows(tmp_path, "SELECT content FROM bundle"))


async def test_a_second_sync_within_the_hour_reads_lists_only_and_writes_no_content(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    clock = FakeClock()
    async with services_on(simulator, tmp_path, clock=clock) as services:
        await services.sync.run(ALL)
        before = content(tmp_path)
        await simulator.reset_stats()
        clock.advance(minutes=30)
        report = await services.sync.run(ALL)
        assert set(outcomes(report).values()) == {Outcome.UNCHANGED}
        stats = await simulator.stats()
        assert set(stats["by_kind"]) == {"list"}
        assert report.requests == stats["requests"]
        assert content(tmp_path) == before


async def test_a_stale_retell_costs_no_detail_and_a_stale_elevenlabs_agent_exactly_one(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    clock = FakeClock()
    async with services_on(simulator, tmp_path, clock=clock) as services:
        await services.sync.run(ALL)
        before = content(tmp_path)
        await simulator.reset_stats()
        clock.advance(hours=2)
        report = await services.sync.run(ALL)
        assert set(outcomes(report).values()) == {Outcome.UNCHANGED}
        stats = await simulator.stats()
        assert stats["retell"]["by_kind"].get("detail", 0) == 0
        elevenlabs = sum(card.provider is Provider.ELEVENLABS for card in await services.agents.cards())
        assert stats["elevenlabs"]["by_kind"]["detail"] == elevenlabs
        assert content(tmp_path) == before
        assert {card.checked_at for card in await services.agents.cards()} == {clock.now()}


@pytest.mark.parametrize("part", ["agent", "engine"])
async def test_an_edit_at_retell_is_found_by_the_lists_alone(
    simulator: RunningSimulator, tmp_path: Path, part: str
) -> None:
    async with services_on(simulator, tmp_path, vendors=("retell",)) as services:
        await services.sync.run(ALL)
        cards = await services.agents.cards()
        target = next(card for card in cards if card.model not in ("", "own LLM"))
        before = await services.agents.bundle(target.id)
        await simulator.edit(target.agent_id, part)
        await simulator.reset_stats()
        report = await services.sync.run(ALL)
        changed = [row for row in report.outcomes if row.outcome is Outcome.UPDATED]
        assert target.agent_id in {row.agent_id for row in changed}
        after = await services.agents.bundle(target.id)
        assert before is not None
        assert after is not None
        assert before.digest != after.digest
        assert len(rows(tmp_path, f"SELECT * FROM snapshot WHERE agent_id = {target.id}")) == 2
        assert (await services.agents.history(target.id))[0].outcome is Outcome.UPDATED
        assert any(row.action == "agent.updated" for row in await services.agents.audit())


async def test_an_edit_at_elevenlabs_is_found_when_stale_or_forced(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path, vendors=("elevenlabs",)) as services:
        await services.sync.run(ALL)
        target = (await services.agents.cards())[0]
        await simulator.edit(target.agent_id, "agent")
        assert outcomes(await services.sync.run(ALL))[target.agent_id] is Outcome.UNCHANGED
        forced = await services.sync.run(SyncRequest(agent_ids=(target.id,), force=True))
        assert outcomes(forced) == {target.agent_id: Outcome.UPDATED}


async def test_spelling_alone_is_no_change(simulator: RunningSimulator, tmp_path: Path) -> None:
    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(ALL)
        before = content(tmp_path)
        await simulator.fault("reorder")
        report = await services.sync.run(SyncRequest(force=True))
        assert set(outcomes(report).values()) == {Outcome.UNCHANGED}
        assert content(tmp_path)["bundle"] == before["bundle"]
        assert content(tmp_path)["snapshot"] == before["snapshot"]


async def test_what_is_read_just_as_before_is_noted_without_looking_into_it(
    simulator: RunningSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    prepared = count_calls(monkeypatch, "prepare")
    async with services_on(simulator, tmp_path, clock=clock) as services:
        await services.sync.run(ALL)
        before = content(tmp_path)
        assert len(prepared) == 13
        edited = (await services.agents.cards())[0]
        await simulator.edit(edited.agent_id, "agent")
        prepared.clear()
        clock.advance(minutes=5)
        report = await services.sync.run(SyncRequest(force=True))
        told = outcomes(report)
        assert told.pop(edited.agent_id) is Outcome.UPDATED
        assert set(told.values()) == {Outcome.UNCHANGED}
        assert len(prepared) == 1
        assert len(content(tmp_path)["bundle"]) == len(before["bundle"]) + 1
        assert {card.checked_at for card in await services.agents.cards()} == {clock.now()}


async def test_what_another_process_wrote_meanwhile_is_looked_into(
    simulator: RunningSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one saw a later state of the agent; this run's reading must not pass for that."""
    from services.agents import sync

    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(ALL)
        before = content(tmp_path)
        known = sync.store_same

        def overtaken(session: Session, *rest: Any) -> Any:
            session.connection().exec_driver_sql("UPDATE agent SET marker = '', status = 'error'")
            return known(session, *rest)

        monkeypatch.setattr(sync, "store_same", overtaken)
        prepared = count_calls(monkeypatch, "prepare")
        report = await services.sync.run(SyncRequest(force=True))
        assert set(outcomes(report).values()) == {Outcome.UNCHANGED}
        assert len(prepared) == 13
        monkeypatch.undo()
        await services.sync.run(SyncRequest(force=True))
        assert content(tmp_path) == before


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[object]:
    """Every call of this function of the sync from now on, by its last argument."""
    from services.agents import sync

    calls: list[object] = []
    known = getattr(sync, name)

    def counted(*given: Any) -> Any:
        calls.append(given[-1])
        return known(*given)

    monkeypatch.setattr(sync, name, counted)
    return calls


async def test_one_failing_agent_stops_no_other_and_says_why(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(ALL)
        victim = (await services.agents.cards())[0]
        kept = await services.agents.bundle(victim.id)
        await simulator.fault(
            f"404:{victim.agent_id}" if victim.provider is Provider.RETELL else f"422:{victim.agent_id}"
        )
        await simulator.clear_faults()
        await simulator.fault(f"truncate:{victim.agent_id}")
        report = await services.sync.run(SyncRequest(force=True))
        assert report.status is RunStatus.PARTIAL
        assert outcomes(report)[victim.agent_id] is Outcome.FAILED
        assert report.counts()["unchanged"] == 12
        card = by_agent(await services.agents.cards())[victim.agent_id]
        assert card.status is SyncStatus.ERROR
        assert card.error is not None
        assert card.error.message
        assert card.error.advice
        assert await services.agents.bundle(victim.id) == kept
        await simulator.clear_faults()
        report = await services.sync.run(ALL)
        assert report.status is RunStatus.DONE
        assert by_agent(await services.agents.cards())[victim.agent_id].error is None


async def test_a_revoked_key_marks_the_agents_of_that_vendor_and_mending_it_costs_no_detail(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(ALL)
        await simulator.fault("revoke:retell")
        report = await services.sync.run(ALL)
        assert report.status is RunStatus.PARTIAL
        assert [row.provider for row in report.errors] == [Provider.RETELL]
        assert report.errors[0].error is not None
        assert report.errors[0].error.category == "authentication"
        for card in await services.agents.cards():
            assert (card.status is SyncStatus.ERROR) == (card.provider is Provider.RETELL)
        await simulator.clear_faults()
        await simulator.reset_stats()
        assert (await services.sync.run(ALL)).status is RunStatus.DONE
        assert (await simulator.stats())["by_kind"].get("detail", 0) == 0
        assert {card.status for card in await services.agents.cards()} == {SyncStatus.SYNCED}


async def test_gone_agents_keep_their_history_and_may_come_back(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(ALL)
        victim = (await services.agents.cards())[0]
        await simulator.remove(victim.agent_id)
        report = await services.sync.run(ALL)
        assert outcomes(report)[victim.agent_id] is Outcome.GONE
        card = by_agent(await services.agents.cards())[victim.agent_id]
        assert card.gone_at is not None
        assert await services.agents.bundle(card.id) is not None
        report = await services.sync.run(ALL)
        assert victim.agent_id not in outcomes(report)


async def test_a_dry_run_decides_and_writes_nothing(simulator: RunningSimulator, tmp_path: Path) -> None:
    async with services_on(simulator, tmp_path) as services:
        report = await services.sync.run(SyncRequest(dry_run=True))
        assert set(outcomes(report).values()) == {Outcome.CREATED}
        assert report.dry_run
        assert await services.agents.cards() == []
        assert await services.agents.runs() == []
        assert set((await simulator.stats())["by_kind"]) == {"list"}


async def test_a_cancelled_forced_run_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    async with running_simulator(agents=40, seed=5, latency_ms=20) as simulator:
        clock = FakeClock()
        async with services_on(simulator, tmp_path, clock=clock, concurrency=2) as services:
            await services.sync.run(ALL)
            clock.advance(minutes=1)
            seen: list[str] = []

            def stop_after_six(event: AgentSettled) -> None:
                seen.append(event.row.agent_id)
                if len(seen) == 6:
                    services.sync.cancel()

            stop = services.bus.subscribe(AgentSettled, stop_after_six)
            report = await services.sync.run(SyncRequest(force=True))
            stop()
            assert report.status is RunStatus.CANCELLED
            done = {row.agent_id for row in report.outcomes if row.outcome is not Outcome.CANCELLED}
            assert 6 <= len(done) < 40
            assert len(report.outcomes) == 40
            assert {card.status for card in await services.agents.cards()} == {SyncStatus.SYNCED}
            assert (await services.agents.runs())[0].status is RunStatus.CANCELLED
            clock.advance(minutes=1)
            await simulator.reset_stats()
            read: list[int] = []
            services.bus.subscribe(AgentReading, lambda event: read.append(event.id))
            resumed = await services.sync.run(SyncRequest(resume="last"))
            assert resumed.status is RunStatus.DONE
            again = {card.agent_id for card in await services.agents.cards() if card.id in read}
            assert again == set(outcomes(resumed)) - done
            with pytest.raises(UsageError, match="not stopped"):
                await services.sync.run(SyncRequest(resume="last"))


async def test_an_unknown_or_ambiguous_agent_is_a_usage_error(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(ALL)
        with pytest.raises(UsageError, match="no agent"):
            await services.sync.run(SyncRequest(agent="agent_that_is_not_there"))
        with pytest.raises(UsageError, match="fits"):
            await services.sync.run(SyncRequest(agent="e"))
        with pytest.raises(UsageError, match="no company"):
            await services.sync.run(SyncRequest(company="nobody"))
        card = (await services.agents.cards())[3]
        report = await services.sync.run(SyncRequest(agent=card.name, force=True))
        assert set(outcomes(report)) == {card.agent_id}


async def test_events_tell_the_whole_run_and_the_reducer_agrees(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        events: list[Event] = []
        services.bus.subscribe(Event, events.append)
        report = await services.sync.run(ALL)
        settled = [event for event in events if isinstance(event, AgentSettled)]
        assert len(settled) == len(report.outcomes) == 13
        assert isinstance(events[-1], SyncFinished)
        live = services.sync.active
        assert live is not None
        assert (live.total, live.settled, live.counts) == (13, 13, report.counts())
        assert live.finished
        assert not live.reading


async def test_two_runs_take_turns(simulator: RunningSimulator, tmp_path: Path) -> None:
    async with services_on(simulator, tmp_path) as services:
        reports = await asyncio.gather(services.sync.run(ALL), services.sync.run(ALL))
        assert [report.counts()["created"] for report in reports] == [13, 0]


async def test_a_key_that_is_missing_is_told_with_the_command_that_helps(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        store = await services.open_secrets()
        for connection in await services.companies.connections():
            await store.delete(connection.secret_name)
        report = await services.sync.run(ALL)
        assert report.status is RunStatus.FAILED
        assert all(row.error and "connection rotate" in row.error.advice for row in report.errors)


async def test_no_secret_reaches_the_database(simulator: RunningSimulator, tmp_path: Path) -> None:
    async with services_on(simulator, tmp_path) as services:
        await simulator.fault("500:detail:20%")
        await services.sync.run(ALL)
        await services.companies.rotate("acme", "retell", key=simulator.key)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert simulator.key.encode() not in path.read_bytes(), path


async def test_json_survives_a_round_trip_through_the_mirror(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(ALL)
        stored = rows(tmp_path, "SELECT content FROM bundle")
        assert len(stored) == 13
        for (text,) in stored:
            for part in json.loads(str(text)):
                json.loads(part["text"])


async def test_an_agent_whose_engine_is_missing_has_failed_and_is_not_gone(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path, vendors=("retell",)) as services:
        await services.sync.run(ALL)
        target = next(card for card in await services.agents.cards() if card.model not in ("", "own LLM"))
        bundle = await services.agents.bundle(target.id)
        assert bundle is not None
        engine = next(part.id for part in bundle.parts if part.kind == "engine")
        await simulator.fault(f"404:{engine}")
        report = await services.sync.run(SyncRequest(agent_ids=(target.id,), force=True))
        assert outcomes(report) == {target.agent_id: Outcome.FAILED}
        card = await services.agents.card(target.id)
        assert card is not None
        assert card.gone_at is None
        assert card.error is not None
        assert engine in card.error.message


async def test_a_list_of_another_shape_fails_its_connection_and_no_other(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(ALL)
        await simulator.fault("shape:elevenlabs:list")
        report = await services.sync.run(ALL)
        assert report.status is RunStatus.PARTIAL
        assert [row.provider for row in report.errors] == [Provider.ELEVENLABS]
        assert report.errors[0].error is not None
        assert "shape" in report.errors[0].error.message or "expected" in report.errors[0].error.message
        retell = {row.agent_id for row in report.outcomes if row.provider is Provider.RETELL}
        assert {outcomes(report)[agent_id] for agent_id in retell} == {Outcome.UNCHANGED}


async def test_a_run_whose_process_died_reads_as_interrupted(
    simulator: RunningSimulator, tmp_path: Path
) -> None:
    clock = FakeClock()
    async with services_on(simulator, tmp_path, clock=clock) as services:
        await services.sync.run(ALL)
        with sqlite3.connect(tmp_path / "callboard.db") as connection:
            connection.execute("UPDATE sync_run SET status = 'running'")
        assert (await services.agents.runs())[0].status is RunStatus.RUNNING
        clock.advance(seconds=31)
        assert (await services.agents.runs())[0].status is RunStatus.INTERRUPTED
