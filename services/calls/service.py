"""The orchestrator of calls: from a request to a prepared, carried, recorded and stored conversation."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.agents import AgentService
from services.calls import store
from services.calls.access import VendorAccess, subject_of
from services.calls.audio_line import AudioLine
from services.calls.bookkeeping import CallBook
from services.calls.history import CallHistory, CallOptions
from services.calls.model import Brief, CallTarget, TransportKind
from services.calls.opening import (
    WITH_DEVICES,
    Wanted,
    import_transport,
    make_transport,
    read_scenario,
    unavailable,
)
from services.calls.recording import Recorder
from services.calls.request import CallRequest, Preparation
from services.calls.session import CallSession
from services.calls.tools import ToolBox
from services.clock import Clock
from services.companies import CompanyService, ConnectionClients
from services.companies.service import actor
from services.errors import ServiceError, UsageError
from services.events import CallsChanged, EventBus
from services.http.addresses import is_loopback
from services.model import Provider
from services.resilience import OnWait
from services.storage import Database, Reader

if TYPE_CHECKING:
    from services.agents import BundlePart
    from services.calls.audio.devices import DeviceInfo
    from services.calls.brief import BriefPart
    from services.calls.transport import Transport

log = logging.getLogger(__name__)


CARE_SECONDS = 6 * 3600.0


__all__ = ["CallRequest", "CallService", "Preparation"]


class CallService(CallHistory):
    """Calls of one data folder: those that are made here, and through `CallHistory` those that were."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        reader: Reader,
        agents: AgentService,
        companies: CompanyService,
        clients: ConnectionClients,
        telephony: Callable[[], Any],
        bus: EventBus,
        clock: Clock,
        options: CallOptions,
        *,
        new_id: Callable[[], str] = lambda: secrets.token_hex(6),
    ) -> None:
        """`telephony` gives the `TelephonyService` when a phone call is prepared."""
        super().__init__(open_database, reader, bus, clock, options)
        self.tools = ToolBox(clock)
        self._agents = agents
        self._companies = companies
        self._clients = clients
        self._telephony = telephony
        self._new_id = new_id
        self._book = CallBook(open_database, bus, clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._care: asyncio.Task[None] | None = None
        self._tools_loaded = False

    # -- before -----------------------------------------------------------------------------------

    async def target(self, agent_row: int | None) -> CallTarget:
        """Whom a call would reach. Raises ServiceError for an agent that is gone."""
        if agent_row is None:
            return CallTarget(None, "", "Scripted agent", "", "")
        card = await self._agents.card(agent_row)
        if card is None:
            raise ServiceError(
                "That agent is no longer in the mirror", advice="Sync, and choose it again", code="no_agent"
            )
        return CallTarget(
            card.id, card.agent_id, card.name, card.company, card.provider.value, card.connection_id
        )

    async def default_transport(self, agent_row: int | None) -> TransportKind:
        """The best way to talk from here: by voice with devices, else typed."""
        target = await self.target(agent_row)
        if not target.provider:
            return TransportKind.MOCK
        problem = await self.audio_problem()
        for kind in (TransportKind.MICROPHONE, TransportKind.WEBRTC):
            if not unavailable(kind, target, problem):
                return kind
        return TransportKind.TEXT

    async def prepare(self, request: CallRequest) -> Preparation:
        """What would be used, ignored or refused, and what has to be asked. Dials nothing."""
        target = await self.target(request.agent_row)
        problem = await self.audio_problem() if request.devices else ""
        available = tuple((kind, unavailable(kind, target, problem)) for kind in TransportKind)
        parts = await self._check(request, target)
        warnings: list[str] = []
        question = ""
        if request.transport is TransportKind.PHONE and request.agent_row is not None:
            question, more = await self._phone_question(request, target)
            warnings += more
        refusal = await self._no_room(request, target)
        if refusal is not None:
            warnings.append(refusal.message)
        return Preparation(
            target,
            request.transport,
            available,
            parts,
            tuple(warnings),
            any(part.use == "refused" for part in parts),
            question,
        )

    async def _check(self, request: CallRequest, target: CallTarget) -> tuple[BriefPart, ...]:
        from services.calls.brief import check_brief

        provider = Provider(target.provider) if target.provider else None
        bundle = await self._bundle(request.agent_row)
        return await asyncio.to_thread(check_brief, request.brief, provider, bundle, request.transport)

    async def _checked(self, request: CallRequest, target: CallTarget) -> CallRequest:
        """The request with what the agent would ignore left out. Raises ServiceError (`brief_refused`)."""
        from services.calls.brief import usable

        parts = await self._check(request, target)
        if not request.anyway:
            _refuse_brief(parts)
        return replace(request, brief=usable(request.brief, parts))

    async def _bundle(self, agent_row: int | None) -> tuple[BundlePart, ...]:
        view = await self._agents.bundle(agent_row) if agent_row is not None else None
        return view.parts if view is not None else ()

    async def audio_problem(self) -> str:
        """Why there is no microphone or loudspeaker here, in words; empty when there is."""
        from services.blocking import in_daemon_thread
        from services.calls.audio.devices import audio_problem

        try:
            found = await in_daemon_thread(audio_problem, 5.0, name="callboard-audio")
        except TimeoutError:
            return "the audio system does not answer"
        return "" if found is None else f"{found.message}. {found.advice}" if found.advice else found.message

    async def devices(self) -> list[DeviceInfo]:
        """Every audio device. Raises ServiceError when there is no audio system."""
        from services.calls.audio.devices import list_devices

        return await asyncio.to_thread(list_devices)

    async def access(self, target: CallTarget) -> VendorAccess:
        """The key and address for a target. Raises ServiceError without a key."""
        connection = await self._companies.connection(target.company, target.provider)
        base_url, key = await self._clients.address_and_key(connection)
        policy = self._clients.policy(connection)
        return VendorAccess(
            connection.provider, base_url, key, connection.residency, policy, subject_of(target)
        )

    async def _no_room(self, request: CallRequest, target: CallTarget) -> ServiceError | None:
        """Why the limits would refuse the call now; None while there is room, or where they do not count."""
        if request.counted or request.transport is TransportKind.MOCK or not target.provider:
            return None
        connection = await self._companies.connection(target.company, target.provider)
        return await self._clients.policy(connection).refusal(subject_of(target))

    async def open_transport(
        self,
        agent_row: int | None,
        kind: TransportKind,
        brief: Brief,
        *,
        scenario: Path | None = None,
        seed: int = 0,
        turns: int = 0,
        on_wait: OnWait | None = None,
    ) -> Transport:
        """A transport for a conversation that is not recorded (scenario tests), not opened yet.

        The conversation and its typed `turns` are counted against the limits here, so that no turn waits
        once it has begun; with `on_wait` room that comes soon is waited for. Raises ServiceError, also
        (`brief_refused`) where the agent would refuse a part of the brief.
        """
        target = await self.target(agent_row)
        request = CallRequest(agent_row, kind, brief, scenario=scenario, seed=seed, devices=False)
        request = await self._checked(request, target)
        return await self._transport(request, target, None, turns=turns, on_wait=on_wait)

    # -- making a call ----------------------------------------------------------------------------

    async def start(self, request: CallRequest) -> CallSession:
        """Begin a call; it is recorded and carried by a task of this service.

        Raises ServiceError when it cannot begin at all: code `brief_refused` when the agent would refuse
        a part of the brief, `not_confirmed` for a number nobody said yes to, `limited` when company, agent
        or user have used up what they may begin.
        """
        target = await self.target(request.agent_row)
        request = await self._checked(request, target)
        await self._load_tools()
        call_id = self._new_id()
        database = await self._open_database()
        company_id, audio, transcript = await database.read(
            lambda session: store.keeping(session, target.company)
        )
        folder = self._folder(call_id, target)
        transport = await self._transport(request, target, call_id)
        simulated = transport.capabilities.simulated or await self._is_simulated(target)
        row = store.new_record(
            call_id,
            target,
            request.transport,
            company_id=company_id,
            now=self._clock.now(),
            actor=actor(),
            simulated=simulated,
            number=request.number,
            from_number=request.from_number,
            folder=str(folder),
            has_transcript=transcript,
        )
        await database.write(lambda session: store.insert(session, row))  # before anything is dialled
        session = self._session(request, target, transport, call_id, folder, audio, transcript)
        self._book.add(session)
        task = asyncio.create_task(self._carry(session, request, transcript), name=f"call {call_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._bus.publish(CallsChanged((call_id,)))
        return session

    def _session(
        self,
        request: CallRequest,
        target: CallTarget,
        transport: Transport,
        call_id: str,
        folder: Path,
        audio: bool,
        transcript: bool,
    ) -> CallSession:
        recorder = Recorder(folder, keep_audio=audio, keep_transcript=transcript)
        session: CallSession

        async def open_audio(
            input_rate: int, output_rate: int, on_problem: Callable[[ServiceError], None]
        ) -> AudioLine:
            return await self._open_audio(request, session, input_rate, output_rate, on_problem)

        session = CallSession(
            call_id,
            target,
            transport,
            request.brief,
            clock=self._clock,
            tools=self.tools,
            recorder=recorder,
            open_audio=open_audio,
            push_to_talk=request.push_to_talk,
        )
        recorder.on_problem = session.recording_stopped
        return session

    async def _open_audio(
        self,
        request: CallRequest,
        session: CallSession,
        input_rate: int,
        output_rate: int,
        on_problem: Callable[[ServiceError], None],
    ) -> AudioLine:
        if request.devices and request.play is None:
            from services.calls.lines import open_line

            try:
                return await open_line(
                    input_rate,
                    output_rate,
                    input_device=request.input_device or self.options.input_device,
                    output_device=request.output_device or self.options.output_device,
                    echo=request.echo and self.options.echo,
                    clock=self._clock,
                    on_input=session.record_input,
                    on_output=session.record_output,
                    on_problem=on_problem,
                )
            except ServiceError:
                if request.transport in WITH_DEVICES:
                    raise
        # A mock needs no devices: without any it speaks into the recording only.
        from services.calls.virtual_audio import VirtualLine, pcm_of

        source = b""
        if request.play is not None:
            source = await asyncio.to_thread(pcm_of, request.play, input_rate)
        return VirtualLine(
            input_rate,
            output_rate,
            self._clock,
            source=source,
            on_input=session.record_input,
            on_output=session.record_output,
        )

    async def _transport(
        self,
        request: CallRequest,
        target: CallTarget,
        call_id: str | None,
        *,
        turns: int = 0,
        on_wait: OnWait | None = None,
    ) -> Transport:
        """The transport; its conversation is counted once nothing else speaks against it."""
        if request.transport is TransportKind.PHONE:
            return await self._phone(request, target, call_id)
        why = unavailable(request.transport, target, "")
        if why:
            raise ServiceError(
                f"{target.name} cannot be called over {request.transport} from here",
                advice=why,
                code="not_offered",
            )
        mock = request.transport is TransportKind.MOCK
        scenario = await asyncio.to_thread(read_scenario, request.scenario) if mock else None
        access = None if mock else await self.access(target)
        bundle = await self._bundle(request.agent_row)
        wanted = Wanted(
            target,
            request.transport,
            access,
            request.brief,
            self.tools.names,
            scenario,
            request.seed,
            bundle=bundle,
        )
        # Imported off the loop, made on it: a transport belongs to the loop it is made on.
        await asyncio.to_thread(import_transport, request.transport, target.provider)
        transport = make_transport(wanted, self._clock)
        if access is not None:
            await access.take(1 + turns, on_wait=on_wait)
        return transport

    async def _carry(self, session: CallSession, request: CallRequest, transcript: bool) -> None:
        """The whole life of one call; whatever happens, its row and its folder say how it ended."""
        meta = _meta(session, request)
        recorder = session.recorder
        unsubscribe = session.subscribe_messages(self._book.follower(session))
        try:
            try:
                await recorder.open(meta, _brief_json(session.brief))
            except OSError as error:
                session.recording_stopped(error.strerror or str(error))
            ended = await session.run()
            await self._book.mark_ended(session, ended)
            await session.settle()
        finally:
            unsubscribe()
            await asyncio.shield(self._book.close(session, meta, transcript))

    # -- the phone --------------------------------------------------------------------------------

    async def _phone_question(self, request: CallRequest, target: CallTarget) -> tuple[str, list[str]]:
        from services.calls.phone_calls import question

        simulated = await self._is_simulated(target)
        return await question(request, target, self._telephony(), simulated=simulated)

    async def _phone(self, request: CallRequest, target: CallTarget, call_id: str | None) -> Transport:
        from services.calls.phone_calls import make_phone

        if call_id is None:
            raise UsageError("Scenario tests do not dial numbers", advice="Use the text or mock transport")
        access = await self.access(target)
        transport = await make_phone(
            request,
            target,
            access,
            self._telephony(),
            call_id,
            self._open_database,
            self._clock,
        )
        if not request.counted:
            await access.take()
        return transport

    # -- those that run ---------------------------------------------------------------------------

    def is_running(self, call_id: str) -> bool:
        return call_id in self._book.sessions

    @property
    def active(self) -> list[CallSession]:
        """The calls of this program that are not over, oldest first."""
        return [session for session in self._book.sessions.values() if session.live.ended is None]

    async def start_care(self) -> None:
        """Settle what a killed program left and delete what is too old: now, and every few hours."""
        if self._care is None:
            self._care = asyncio.create_task(self._care_for_past(), name="past calls")

    async def _care_for_past(self) -> None:
        while True:
            try:
                await self.recover()
                await self.sweep()
            except ServiceError as error:
                log.warning("past calls could not be looked after: %s", error.message)
            await asyncio.sleep(CARE_SECONDS)

    async def aclose(self) -> None:
        """End every call properly and wait until each is written."""
        for session in list(self._book.sessions.values()):
            await session.end(detail="Callboard was closed")
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._care is not None:
            self._care.cancel()
            await asyncio.gather(self._care, return_exceptions=True)
        await self._book.aclose()

    # -- inside -----------------------------------------------------------------------------------

    def _folder(self, call_id: str, target: CallTarget) -> Path:
        when = datetime.fromtimestamp(self._clock.now() / 1000, UTC)
        name = f"{when:%Y-%m-%d_%H-%M-%S}_{_slug(target.name)}_{call_id}"
        return self.options.folder / _slug(target.company or "no-company") / name

    async def _is_simulated(self, target: CallTarget) -> bool:
        from urllib.parse import urlsplit

        if not target.provider:
            return True
        access = await self.access(target)
        return is_loopback(urlsplit(access.base_url).hostname or "")

    async def _load_tools(self) -> None:
        if self.options.client_tools is not None and not self._tools_loaded:
            from services.calls.tool_file import load_tools

            for name, tool, about in await asyncio.to_thread(load_tools, self.options.client_tools):
                self.tools.register(name, tool, description=about)
            self._tools_loaded = True


def _brief_json(brief: Brief) -> dict[str, Any]:
    return {**asdict(replace(brief, phases=())), "phases": [asdict(phase) for phase in brief.phases]}


def _refuse_brief(parts: Sequence[BriefPart]) -> None:
    refused = [part for part in parts if part.use == "refused"]
    if refused:
        names = ", ".join(part.name for part in refused)
        raise ServiceError(
            f"The agent would refuse the call because of: {names}",
            advice=refused[0].why,
            code="brief_refused",
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "agent"


def _meta(session: CallSession, request: CallRequest) -> dict[str, Any]:
    return {
        "schema": "callboard.call-recording/1",
        "id": session.id,
        "target": asdict(session.target),
        "transport": session.kind.value,
        "simulated": session.capabilities.simulated,
        "number": request.number,
        "started_at": session.started_at,
        "actor": actor(),
    }
