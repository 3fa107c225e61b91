"""Calls as the screens see them, in memory: a session that a test feeds message by message, and a history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from services.calls.archive import Recording
from services.calls.live import Area, LiveCall
from services.calls.messages import (
    AgentCorrected,
    AgentSpeaking,
    AgentSpeech,
    ApprovalGiven,
    ApprovalWanted,
    Connected,
    Cost,
    DevicesChanged,
    EchoChanged,
    Ended,
    Informed,
    Interrupted,
    Marked,
    Message,
    Muted,
    Notice,
    PushToTalk,
    Quality,
    StateChanged,
    ToolEnded,
    ToolStarted,
    Typed,
    UserSpeaking,
    UserSpeech,
    VendorLatency,
)
from services.calls.model import (
    CallRow,
    CallState,
    CallTarget,
    Capabilities,
    EndReason,
    TransportKind,
)
from services.calls.replay import Replay
from services.calls.service import CallRequest, Preparation
from services.clock import Clock, SystemClock
from services.errors import ServiceError
from services.events import CallsChanged, EventBus, Unsubscribe

NOON = 1_772_366_400_000
EVERYTHING = Capabilities(audio=True, text=True, context=True, approvals=True)
TYPED = Capabilities(text=True, context=True)
TARGET = CallTarget(1, "agent_0001", "Reception DE", "acme", "elevenlabs", 1)


@dataclass(frozen=True)
class FakeLevels:
    input_bars: tuple[float, ...] = (0.0, 0.2, 0.5, 0.9, 0.7, 0.3, 0.1, 0.0, 0.0, 0.1, 0.4, 0.6)
    output_bars: tuple[float, ...] = (0.0, 0.0, 0.0, 0.1, 0.2, 0.5, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0)
    input_db: float = -18.4
    output_db: float = -22.1


class FakeSession:
    """A call whose messages a test sends; what the operator does is noted and comes back as a message."""

    def __init__(
        self,
        call_id: str = "c1",
        *,
        capabilities: Capabilities = EVERYTHING,
        kind: TransportKind = TransportKind.MICROPHONE,
        target: CallTarget = TARGET,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.id, self.target, self.kind, self.capabilities = call_id, target, kind, capabilities
        self.live = LiveCall()
        self.levels: FakeLevels | None = FakeLevels() if capabilities.audio else None
        self.done: list[tuple[str, Any]] = []
        self.at = 0
        self._listeners: list[Callable[[frozenset[Area]], None]] = []
        self._on_end = on_end

    def now_ms(self) -> int:
        return self.at

    def meters(self) -> FakeLevels | None:
        return self.levels if self.live.ended is None else None

    def subscribe(self, listener: Callable[[frozenset[Area]], None], /) -> Unsubscribe:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def send(self, *messages: Message, after: int = 0) -> None:
        """Let it happen, `after` milliseconds later than what was before."""
        for message in messages:
            self.at += after
            areas = self.live.apply(self.at, message)
            for listener in tuple(self._listeners):
                listener(areas)

    def begin(self, **devices: str) -> None:
        """Connecting, connected, live."""
        self.send(StateChanged(CallState.CONNECTING))
        audio = self.capabilities.audio
        rates = (16_000, 16_000, "pcm_16000", "pcm_16000") if audio else ()
        self.send(Connected("conv_7f3a", *rates), StateChanged(CallState.LIVE))
        if audio:
            self.send(
                DevicesChanged(devices.get("input", "Jabra Evolve"), devices.get("output", "Jabra Evolve"))
            )
            self.send(EchoChanged("echo cancelled"))

    def hang_up(self, reason: EndReason, detail: str = "", code: int | None = None) -> None:
        self.send(Ended(reason, detail, "vendor", code))
        self._on_end()

    # -- what the operator does -------------------------------------------------------------------

    async def say(self, text: str, /) -> None:
        self.done.append(("say", text))
        self.send(Typed(text))

    async def inform(self, text: str, /) -> None:
        self.done.append(("inform", text))
        self.send(Informed(text))

    async def activity(self) -> None:
        self.done.append(("activity", None))

    async def mark(self, note: str = "", /) -> None:
        self.done.append(("mark", note))
        self.send(Marked(note))

    async def mute(self, on: bool, /) -> None:
        self.done.append(("mute", on))
        self.send(Muted(on))

    async def push_to_talk(self, on: bool, /) -> None:
        self.done.append(("push_to_talk", on))
        self.send(PushToTalk(on))

    async def talk(self, held: bool, /) -> None:
        self.done.append(("talk", held))
        self.send(PushToTalk(True, held))

    async def approve(self, tool_id: str, approved: bool, /) -> None:
        self.done.append(("approve", (tool_id, approved)))
        self.send(ApprovalGiven(tool_id, approved))

    async def switch(self, input: str | None = None, output: str | None = None) -> None:  # noqa: A002
        self.done.append(("switch", (input, output)))
        self.send(DevicesChanged(input or self.live.devices.input, output or self.live.devices.output))

    async def end(self) -> None:
        if self.live.ended is None:
            self.done.append(("end", None))
            self.hang_up(EndReason.OPERATOR_ENDED)


@dataclass(frozen=True)
class FakeDevice:
    id: str
    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class FakePart:
    """A part of a brief, as `services.calls.brief.BriefPart` tells it."""

    name: str
    size: int
    use: str
    why: str = ""
    preview: str = ""


@dataclass
class FakeCalls:
    """Fits `screens.call_ports.Calls`."""

    bus: EventBus
    sessions: list[FakeSession] = field(default_factory=list)
    past: list[CallRow] = field(default_factory=list)
    messages: dict[str, tuple[tuple[int, Message], ...]] = field(default_factory=dict)
    unavailable: dict[TransportKind, str] = field(default_factory=dict)
    parts: tuple[FakePart, ...] = ()
    question: str = ""
    warnings: tuple[str, ...] = ()
    failure: ServiceError | None = None
    found: tuple[FakeDevice, ...] = (
        FakeDevice("jabra", "Jabra Evolve", 1, 2),
        FakeDevice("built-in", "Built-in Audio", 2, 2),
        FakeDevice("hdmi", "HDMI", 0, 2),
    )
    clock: Clock = field(default_factory=SystemClock)
    requests: list[CallRequest] = field(default_factory=list)
    exported: list[tuple[str, Path]] = field(default_factory=list)
    default: TransportKind = TransportKind.MICROPHONE

    @property
    def active(self) -> list[FakeSession]:
        return [session for session in self.sessions if session.live.ended is None]

    def call(self, session: FakeSession | None = None) -> FakeSession:
        """A call begins."""
        session = session or FakeSession(f"c{len(self.sessions) + 1}")
        session._on_end = lambda: self.bus.publish(CallsChanged((session.id,)))
        self.sessions.append(session)
        self.bus.publish(CallsChanged((session.id,)))
        return session

    async def default_transport(self, agent_row: int | None, /) -> TransportKind:
        return self.default

    async def prepare(self, request: CallRequest, /) -> Preparation:
        if self.failure is not None:
            raise self.failure
        phone = request.transport is TransportKind.PHONE
        return Preparation(
            TARGET,
            request.transport,
            tuple((kind, self.unavailable.get(kind, "")) for kind in TransportKind),
            self.parts,  # type: ignore[arg-type]
            self.warnings,
            any(part.use == "refused" for part in self.parts),
            self.question if phone else "",
        )

    async def start(self, request: CallRequest, /) -> FakeSession:
        self.requests.append(request)
        capabilities = TYPED if request.transport is TransportKind.TEXT else EVERYTHING
        return self.call(
            FakeSession(f"c{len(self.sessions) + 1}", capabilities=capabilities, kind=request.transport)
        )

    async def rows(
        self,
        limit: int = 200,
        *,
        text: str = "",
        transport: TransportKind | None = None,
        reason: EndReason | None = None,
        agent_row: int | None = None,
    ) -> list[CallRow]:
        if self.failure is not None:
            raise self.failure
        return [
            row
            for row in self.past
            if text.lower() in f"{row.agent_name} {row.company} {row.number}".lower()
            and transport in (None, row.transport)
            and reason in (None, row.reason)
        ][:limit]

    async def recording(self, call_id: str, /) -> Recording:
        row = next(row for row in self.past if row.id == call_id)
        return Recording(row, {}, self.messages.get(call_id, ()), None, None, None)

    async def replay(self, call_id: str, /) -> Replay:
        recording = await self.recording(call_id)
        return Replay(recording, self.clock, length_ms=recording.length_ms)

    async def delete(self, call_ids: Sequence[str], /) -> int:
        self.past = [row for row in self.past if row.id not in call_ids]
        return len(call_ids)

    async def export(self, call_id: str, target: Path, /) -> Path:
        self.exported.append((call_id, target))
        return target

    async def devices(self) -> Sequence[FakeDevice]:
        return self.found


def conversation(session: FakeSession) -> None:
    """A few turns, with a tool, an interruption and a mark; the last words of the user are on their way."""
    session.begin()
    session.send(AgentSpeaking(True, 1), after=2_400)
    session.send(AgentSpeech("Guten Tag, Praxis Weber, wie kann ich helfen?", event_id=1), after=600)
    session.send(AgentSpeaking(False, 1), UserSpeaking(True), after=2_000)
    session.send(UserSpeaking(False), after=2_000)
    session.send(UserSpeech("Ich bräuchte einen Termin"))
    answer(session, 2, "Gern. Passt es Ihnen am Montag oder am Dienstag gegen neun Uhr morgens?", 760)
    session.send(UserSpeaking(True), after=1_600)
    session.send(
        Interrupted(2),
        AgentCorrected(
            "Gern. Passt es Ihnen am Montag oder am Dienstag gegen neun Uhr morgens?",
            "Gern. Passt es Ihnen am Montag",
            2,
        ),
    )
    session.send(UserSpeaking(False), after=1_400)
    session.send(UserSpeech("lieber Donnerstag"))
    session.send(ToolStarted("t1", "check_availability", {"day": "thu", "people": 1}), after=400)
    session.send(ToolEnded("t1", '{"slots": ["09:00", "09:30", "11:15"]}', True, 312), after=312)
    answer(session, 3, "Donnerstag um neun, halb zehn oder Viertel nach elf, was ist Ihnen recht?", 1_240)
    session.send(Marked("offers three slots"), after=200)
    session.send(VendorLatency({"asr": 120, "llm": 430, "tts": 180, "network": 90}))
    session.send(Quality(42, 6, 0.0), Cost(0.21, "EUR"))
    session.send(AgentSpeaking(False, 3), UserSpeaking(True), after=3_800)
    session.send(UserSpeech("neun ist g", final=False), after=700)


def answer(session: FakeSession, event_id: int, text: str, latency: int) -> None:
    """The agent answers, so many milliseconds after the user's end."""
    session.send(AgentSpeaking(True, event_id), after=latency)
    session.send(AgentSpeech(text, event_id=event_id), after=60)


def wants_approval(session: FakeSession) -> None:
    session.send(ApprovalWanted("m1", "book_appointment", {"day": "thu", "time": "09:00"}), after=900)


def refused(session: FakeSession) -> None:
    """The vendor closes the call because of the brief."""
    session.send(StateChanged(CallState.CONNECTING))
    session.send(
        Notice(
            "The agent does not allow the override of agent.prompt",
            "act",
            "Allow it under Security in the agent's settings, or leave the system prompt out of the brief",
        ),
        after=300,
    )
    session.hang_up(EndReason.OVERRIDE_REFUSED, "Override for field 'prompt' is not allowed by config.", 1008)


def with_history(calls: FakeCalls) -> None:
    """Three past calls, the newest of them with everything that was said."""
    session = FakeSession("old1")
    recorded: list[tuple[int, Message]] = []
    send = session.send

    def recording(*messages: Message, after: int = 0) -> None:
        for message in messages:
            send(message, after=after)
            recorded.append((session.at, message))

    session.send = recording  # type: ignore[method-assign]
    conversation(session)
    session.send(UserSpeech("neun ist gut"), after=400)
    answer(session, 4, "Dann trage ich Sie für Donnerstag um neun ein. Auf Wiederhören!", 690)
    session.send(Ended(EndReason.AGENT_ENDED, by="agent"), after=3_000)
    newest = CallRow(
        "old1",
        "acme",
        "elevenlabs",
        "agent_0001",
        "Reception DE",
        TransportKind.MICROPHONE,
        CallState.ENDED,
        NOON - 30 * 60_000,
        NOON - 30 * 60_000 + 200,
        NOON - 30 * 60_000 + session.at,
        EndReason.AGENT_ENDED,
        turns=8,
        p50_ms=760,
        p95_ms=1_240,
        cost=0.21,
        currency="EUR",
        has_transcript=True,
    )
    calls.past = [
        newest,
        replace(
            newest,
            id="old2",
            agent_name="Outbound Surveys",
            provider="retell",
            transport=TransportKind.PHONE,
            number="+49 30 1234567",
            started_at=NOON - 3 * 3_600_000,
            live_at=None,
            ended_at=NOON - 3 * 3_600_000 + 21_000,
            reason=EndReason.BUSY,
            turns=0,
            p50_ms=None,
            p95_ms=None,
            cost=None,
            currency="",
        ),
        replace(
            newest,
            id="old3",
            agent_name="Booking Bot",
            company="Zahnarzt Weber",
            transport=TransportKind.TEXT,
            started_at=NOON - 26 * 3_600_000,
            live_at=NOON - 26 * 3_600_000,
            ended_at=NOON - 26 * 3_600_000 + 75_000,
            reason=EndReason.CONNECTION_LOST,
            cost=0.0034,
            currency="USD",
        ),
    ]
    calls.messages["old1"] = tuple(recorded)
