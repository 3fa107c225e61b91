"""The orchestrator over real services, a real database and the simulator: a call from request to archive."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

from services.agents import SyncRequest
from services.calls.live import Who
from services.calls.messages import Ended
from services.calls.model import Brief, CallState, EndReason, TransportKind
from services.calls.recording import Recorder
from services.calls.service import CallRequest
from services.errors import ServiceError, UsageError
from services.events import CallsChanged
from tests.support.simulator import running_simulator
from tests.support.world import FakeClock, services_on


@pytest.fixture
async def simulator():
    async with running_simulator(agents=8) as running:
        yield running


@pytest.fixture
async def services(simulator, tmp_path):
    async with services_on(simulator, tmp_path, clock=FakeClock()) as services:
        await services.sync.run(SyncRequest(cause="test"))
        yield services


async def retell_agent(services):
    return next(card for card in await services.agents.cards() if card.provider == "retell")


async def until(session, found):
    """Wait until the session's picture satisfies."""
    news = asyncio.Event()
    unsubscribe = session.subscribe(lambda areas: news.set())
    async with asyncio.timeout(15):
        while not found(session.live):
            assert session.live.ended is None, session.live.ended
            news.clear()
            await news.wait()
    unsubscribe()


async def answered(session, text):
    """Say something and wait for the answer."""
    before = session.live.agent_turns
    await session.say(text)
    await until(session, lambda live: live.agent_turns > before and live.entries[-1].final)


async def conversation(services, *, text="When are you open?", kind=TransportKind.TEXT):
    """A whole typed call; returns its id."""
    card = await retell_agent(services)
    session = await services.calls.start(CallRequest(card.id, kind))
    await until(session, lambda live: live.live_at is not None)
    await answered(session, text)
    await session.end()
    await session.settled()
    return session.id


async def test_a_call_is_stored_whole(services):
    changes = []
    services.bus.subscribe(CallsChanged, changes.append)
    call_id = await conversation(services)
    (row,) = await services.calls.rows()
    assert (row.id, row.state, row.reason) == (call_id, CallState.ENDED, EndReason.OPERATOR_ENDED)
    assert row.simulated
    assert row.turns >= 1
    assert row.p50_ms is not None
    assert row.has_transcript
    assert not row.has_audio
    recording = await services.calls.recording(call_id)
    assert sum(isinstance(message, Ended) for _, message in recording.messages) == 1
    assert (Who.USER, "When are you open?") in [(entry.who, entry.text) for entry in recording.fold().entries]
    names = {path.name for path in Path(row.folder).iterdir()}
    assert names >= {
        "call.json",
        "brief.json",
        "events.jsonl",
        "transcript.txt",
        "latency.csv",
        "tools.json",
        "call.log",
    }
    database = await services.open_database()

    def stored(session):
        from sqlmodel import select

        from services.storage.tables import CallLine, CallRecord

        lines = session.exec(select(CallLine).where(CallLine.call_id == call_id)).all()
        record = session.get(CallRecord, call_id)
        return [line.text for line in lines], json.loads(record.latency), json.loads(record.tools)

    lines, latency, _tools = await database.read(stored)
    assert "When are you open?" in lines
    assert latency
    assert changes


async def test_calls_are_found_by_what_was_said(services):
    first = await conversation(services, text="When are you open on 100% holidays?")
    await conversation(services, text="Good bye then")
    assert [row.id for row in await services.calls.rows(text="100% HOLIDAYS")] == [first]
    assert await services.calls.rows(text="100_ holidays") == []
    assert len(await services.calls.rows(transport=TransportKind.TEXT)) == 2
    assert await services.calls.rows(transport=TransportKind.PHONE) == []
    assert await services.calls.rows(reason=EndReason.BUSY) == []
    assert len(await services.calls.rows(company="ACME")) == 2


async def test_a_call_is_named_by_the_beginning_of_its_id(services):
    call_id = await conversation(services)
    assert (await services.calls.row(call_id[:5])).id == call_id
    with pytest.raises(UsageError):
        await services.calls.row("zzz")
    with pytest.raises(UsageError):
        await services.calls.row("%")


async def test_deleting_takes_the_folder_and_leaves_an_audit_row(services):
    call_id = await conversation(services)
    folder = Path((await services.calls.row(call_id)).folder)
    assert await services.calls.delete([call_id]) == 1
    assert not folder.exists()
    assert await services.calls.rows() == []
    assert ("call.delete", call_id) in [(row.action, row.subject) for row in await services.agents.audit()]


async def test_a_folder_outside_of_ours_is_never_deleted(services, tmp_path):
    call_id = await conversation(services)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    from services.calls import store

    database = await services.open_database()
    await database.write(lambda session: store.change(session, call_id, folder=str(foreign)))
    await services.calls.delete([call_id])
    assert foreign.exists()


async def test_recordings_are_deleted_by_age(services):
    services.calls.options = dataclasses.replace(services.calls.options, keep_days=30)
    old = await conversation(services)
    services.clock.advance(hours=24 * 31)
    young = await conversation(services)
    assert await services.calls.sweep() == 1
    assert [row.id for row in await services.calls.rows()] == [young]
    assert old != young


async def test_a_company_that_keeps_no_transcript(services):
    await services.companies.keep("acme", transcript=False)
    call_id = await conversation(services, text="the canary sings")
    row = await services.calls.row(call_id)
    assert not row.has_transcript
    everything = b"".join(path.read_bytes() for path in Path(row.folder).iterdir())
    assert b"canary" not in everything
    assert await services.calls.rows(text="canary") == []
    assert row.p50_ms is not None
    database_file = services.options.database.path
    wal = database_file.with_name(database_file.name + "-wal")
    assert b"canary sings" not in database_file.read_bytes() + (wal.read_bytes() if wal.exists() else b"")


async def test_removing_the_company_removes_its_calls(services):
    call_id = await conversation(services)
    folder = Path((await services.calls.row(call_id)).folder)
    await services.companies.remove("acme")
    assert await services.calls.rows() == []
    assert not folder.exists()


async def test_the_forms_of_an_export(services, tmp_path):
    call_id = await conversation(services)
    target = tmp_path / "out"
    target.mkdir()
    folder = await services.calls.export(call_id, target)
    assert (folder / "events.jsonl").exists()
    document = json.loads((await services.calls.export(call_id, target, form="json")).read_text())
    assert document["id"] == call_id
    assert [line["text"] for line in document["transcript"] if line["who"] == "you"] == ["When are you open?"]
    assert "When are you open?" in (await services.calls.export(call_id, target, form="text")).read_text()
    written = await services.calls.export(call_id, target / "table.csv", form="csv")
    assert written.read_text().startswith("at_ms,who,text")
    with pytest.raises(UsageError):
        await services.calls.export(call_id, target / "table.csv", form="csv")
    with pytest.raises(ServiceError):
        await services.calls.export(call_id, tmp_path / "no" / "such.csv", form="csv")


async def test_closing_the_program_ends_its_calls_properly(simulator, tmp_path):
    async with services_on(simulator, tmp_path) as services:
        await services.sync.run(SyncRequest(cause="test"))
        card = await retell_agent(services)
        session = await services.calls.start(CallRequest(card.id, TransportKind.TEXT))
        await until(session, lambda live: live.live_at is not None)
    async with services_on(simulator, tmp_path) as services:
        (row,) = await services.calls.rows()
    assert (row.state, row.reason) == (CallState.ENDED, EndReason.OPERATOR_ENDED)
    assert row.detail == "Callboard was closed"


async def test_a_call_of_a_killed_program_is_settled_later(services, tmp_path):
    from services.calls import store
    from services.calls.messages import AgentSpeech
    from services.calls.model import CallTarget

    folder = services.calls.options.folder / "acme" / "lost"
    recorder = Recorder(folder)
    await recorder.open({}, {})
    recorder.message(100, AgentSpeech("the last words"))
    await recorder.close({})
    database = await services.open_database()
    row = store.new_record(
        "lost",
        CallTarget(None, "a", "Desk", "acme", "retell"),
        TransportKind.TEXT,
        company_id=None,
        now=services.clock.now(),
        actor="me",
        folder=str(folder),
        has_transcript=True,
    )
    await database.write(lambda session: store.insert(session, row))
    assert await services.calls.recover() == 0
    services.clock.advance(minutes=2)
    assert await services.calls.recover() == 1
    found = await services.calls.row("lost")
    assert (found.state, found.reason) == (CallState.ENDED, EndReason.INTERRUPTED)
    assert (folder / "transcript.txt").read_text().strip().endswith("the last words")
    recording = await services.calls.recording("lost")
    assert recording.messages[-1] == (100, Ended(EndReason.INTERRUPTED, found.detail, "us"))
    assert json.loads((folder / "call.json").read_text())["reason"] == "interrupted"
    assert await services.calls.recover() == 0
    assert [each.id for each in await services.calls.rows(text="last words")] == ["lost"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"intent": "callboard-lost"}, EndReason.MAYBE_PLACED),
        ({"intent": "callboard-lost", "conversation_id": "conv_1"}, EndReason.INTERRUPTED),
        ({"intent": ""}, EndReason.INTERRUPTED),
    ],
)
async def test_a_killed_program_leaves_it_open_only_where_the_order_was_out(services, fields, reason):
    from services.calls import store
    from services.calls.model import CallTarget

    row = store.new_record(
        "lost",
        CallTarget(None, "a", "Desk", "acme", "retell"),
        TransportKind.PHONE,
        company_id=None,
        now=services.clock.now(),
        actor="me",
        number="+4930123456",
        **fields,
    )
    database = await services.open_database()
    await database.write(lambda session: store.insert(session, row))
    services.clock.advance(minutes=2)
    await services.calls.recover()
    assert (await services.calls.row("lost")).reason is reason
    assert ("call.dial", "Desk, acme") in [(row.action, row.subject) for row in await services.agents.audit()]


async def test_the_key_reaches_no_file_of_a_call(services, simulator):
    call_id = await conversation(services)
    row = await services.calls.row(call_id)
    everything = b"".join(path.read_bytes() for path in Path(row.folder).iterdir())
    assert simulator.key.encode() not in everything


async def test_a_part_the_agent_refuses_stops_the_call_before_it_is_dialled(services, simulator):
    card = None
    for each in await services.agents.cards():
        wanted = CallRequest(each.id, TransportKind.MICROPHONE, Brief(language="xx"), devices=False)
        if each.provider == "elevenlabs" and (await services.calls.prepare(wanted)).refused:
            card = each
    assert card is not None
    with pytest.raises(ServiceError) as failure:
        await services.calls.start(
            CallRequest(card.id, TransportKind.MICROPHONE, Brief(language="xx"), devices=False)
        )
    assert failure.value.code == "brief_refused"
    assert await services.calls.rows() == []
    assert not await simulator.conversations()


async def test_a_spoken_call_without_devices_is_recorded_on_both_tracks(services, simulator):
    card = next(card for card in await services.agents.cards() if card.provider == "elevenlabs")
    await simulator.script({"greeting": "Good day, how can I help?"}, agent=card.agent_id)
    session = await services.calls.start(
        CallRequest(card.id, TransportKind.MICROPHONE, devices=False, anyway=True)
    )
    await until(session, lambda live: any(entry.who is Who.AGENT and entry.final for entry in live.entries))
    await until(session, lambda live: live.agent_speaking)
    await until(session, lambda live: not live.agent_speaking)
    await session.end()
    await session.settled()
    row = await services.calls.row(session.id)
    assert row.has_audio
    recording = await services.calls.recording(session.id)
    from services.calls.wave_file import read_track

    pcm, rate = read_track(recording.agent)
    assert rate >= 8000
    assert any(pcm)
    assert not any(read_track(recording.you)[0])


async def test_what_is_not_available_says_why(services):
    card = await retell_agent(services)
    preparation = await services.calls.prepare(CallRequest(card.id, TransportKind.TEXT))
    reasons = dict(preparation.available)
    assert reasons[TransportKind.TEXT] == reasons[TransportKind.MOCK] == ""
    assert "webrtc" in reasons[TransportKind.MICROPHONE]
    with pytest.raises(ServiceError) as failure:
        await services.calls.start(CallRequest(card.id, TransportKind.MICROPHONE))
    assert failure.value.code == "not_offered"
