"""A call as it stands: one message in, the areas that changed out. Live, replayed and tested the same way.

Everything is bounded: a call of any length holds at most `MOST_ENTRIES` lines here (all are recorded).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
from services.calls.model import CallState

MOST_ENTRIES = 2_000
MOST_TURNS = 1_000


class Area(StrEnum):
    """A part of the picture that a message changes."""

    STATUS = "status"
    """State, duration, cost, the end."""
    TRANSCRIPT = "transcript"
    LATENCY = "latency"
    LINE = "line"
    """Devices, mute, echo, quality."""


class Who(StrEnum):
    """Whose line an entry is."""

    AGENT = "agent"
    USER = "user"
    TOOL = "tool"
    CONTEXT = "context"
    MARK = "mark"
    NOTICE = "notice"


@dataclass(slots=True)
class Entry:
    """One line of the transcript. `n` never changes; `rev` grows with every change of the entry."""

    n: int
    t: int
    """Milliseconds since the start of the call."""
    who: Who
    text: str
    final: bool = True
    rev: int = 0
    event_id: int | None = None
    cut: bool = False
    """The user spoke over it."""
    spoken: str | None = None
    """What of `text` was really said, once the vendor corrected it."""
    latency_ms: int | None = None
    """Agent only: from the end of the user's turn to the first sound (or text) of this answer."""
    typed: bool = False
    tool_id: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    result: str | None = None
    ok: bool | None = None
    """Tool only: None while it runs."""
    took_ms: int | None = None
    approval: str = ""
    """`wanted`, `given`, `refused` or empty."""
    level: str = ""
    """Notice only: `info`, `look` or `act`."""
    advice: str = ""

    @property
    def words_spoken(self) -> tuple[int, int] | None:
        """How many words of how many were said before the cut; None where that is not known."""
        if self.spoken is None:
            return None
        return len(self.spoken.split()), len(self.text.split())


@dataclass(frozen=True, slots=True)
class TurnLatency:
    """One answer of the agent: when it began and how long the user waited, by our measure."""

    turn: int
    t: int
    ms: int
    vendor: Mapping[str, float] = field(default_factory=dict)


def percentile(values: list[int], share: float) -> int | None:
    """The nearest-rank percentile; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


class LiveCall:
    """The picture of one call."""

    def __init__(self, *, bounded: bool = True) -> None:
        """`bounded=False` keeps every line: for what is written when a call is over."""
        self.entries: deque[Entry] = deque(maxlen=MOST_ENTRIES if bounded else None)
        self.latencies: deque[TurnLatency] = deque(maxlen=MOST_TURNS if bounded else None)
        self.state = CallState.PREPARING
        self.detail = ""
        self.conversation_id = ""
        self.input_format = ""
        self.output_format = ""
        self.live_at: int | None = None
        self.ended: Ended | None = None
        self.ended_at: int | None = None
        self.vendor: Mapping[str, float] = {}
        """The vendor's newest figures, in milliseconds by stage."""
        self.quality = Quality()
        self.cost: Cost | None = None
        self.muted = False
        self.push_to_talk = False
        self.held = False
        self.devices = DevicesChanged()
        self.echo = ""
        self.user_speaking = False
        self.agent_speaking = False
        self.user_turns = 0
        self.agent_turns = 0
        self.tools = 0
        self.interruptions = 0
        self.now = 0
        """The time of the newest message."""
        self._serial = 0
        self._user_end: int | None = None
        self._measured_voice = False
        self._pending: dict[int, int] = {}
        """A latency that was measured before the answer's text arrived, by event."""
        self._early: tuple[int, int | None] | None = None
        """When and with which event the agent's voice began while the user still counted as speaking."""
        self._unnamed: int | None = None
        """The same for an answer without an event id."""

    # -- figures ----------------------------------------------------------------------------------

    @property
    def last_ms(self) -> int | None:
        return self.latencies[-1].ms if self.latencies else None

    def latency_percentile(self, share: float) -> int | None:
        """Over the turns of this call, in milliseconds; `share` 0.5 is the median."""
        return percentile([turn.ms for turn in self.latencies], share)

    def duration(self, now: int) -> int:
        """Milliseconds since it became live, until `now` (or its end)."""
        if self.live_at is None:
            return 0
        return max(0, (self.ended_at if self.ended_at is not None else now) - self.live_at)

    # -- folding ----------------------------------------------------------------------------------

    def apply(self, t: int, message: Message) -> frozenset[Area]:
        """Fold one message in, `t` milliseconds after the start; returns what changed."""
        self.now = max(self.now, t)
        handler = _HANDLERS.get(type(message))
        return handler(self, t, message) if handler is not None else frozenset()

    def _add(self, t: int, who: Who, text: str, **fields: Any) -> Entry:
        entry = Entry(self._serial, t, who, text, **fields)
        self._serial += 1
        self.entries.append(entry)
        return entry

    def _open(self, who: Who, event_id: int | None = None) -> Entry | None:
        """The unfinished line of a speaker (of this event, where one is named), looked for among the last."""
        for entry in self._last(24):
            if entry.who is who and not entry.final and event_id in (None, entry.event_id):
                return entry
            if entry.who is who and entry.final and event_id is None:
                return None
        return None

    def _last(self, count: int) -> list[Entry]:
        return [self.entries[-each] for each in range(1, min(count, len(self.entries)) + 1)]

    def _state(self, t: int, message: StateChanged) -> frozenset[Area]:
        self.state, self.detail = message.state, message.detail
        if message.state is CallState.LIVE and self.live_at is None:
            self.live_at = t
        return _STATUS

    def _connected(self, t: int, message: Connected) -> frozenset[Area]:
        self.conversation_id = message.conversation_id
        self.input_format, self.output_format = message.input_format, message.output_format
        return _STATUS | _LINE

    def _user(self, t: int, message: UserSpeech) -> frozenset[Area]:
        entry = self._open(Who.USER)
        if entry is None:
            if message.final and self._echoes_typed(message):
                return frozenset()
            entry = self._add(t, Who.USER, message.text, final=False, event_id=message.event_id)
        entry.text, entry.final = message.text, message.final
        entry.rev += 1
        if message.final:
            self.user_turns += 1
            if not self._measured_voice and self._user_end is None:
                self._user_end = t
        return _TRANSCRIPT

    def _echoes_typed(self, message: UserSpeech) -> bool:
        """Whether the vendor repeats what the operator has just typed."""
        for entry in self._last(8):
            if entry.who is Who.AGENT:
                return False
            if entry.who is Who.USER:
                return entry.typed and entry.text.strip() == message.text.strip()
        return False

    def _agent(self, t: int, message: AgentSpeech) -> frozenset[Area]:
        entry = self._open(Who.AGENT, message.event_id)
        areas = _TRANSCRIPT
        if entry is None:
            entry = self._add(t, Who.AGENT, message.text, final=False, event_id=message.event_id)
            self.agent_turns += 1
            waited = self._pending.pop(message.event_id, None) if message.event_id is not None else None
            if waited is not None:
                entry.latency_ms = waited
            elif not self.agent_speaking and not self.output_format and self._user_end is not None:
                # Text only: the answer's first words are what the user waited for.
                entry.latency_ms = self._answered(t)
                areas = _TRANSCRIPT | _LATENCY
            elif self.latencies and self.agent_speaking and self._unnamed is not None:
                entry.latency_ms, self._unnamed = self._unnamed, None
        entry.text, entry.final = message.text, message.final
        entry.rev += 1
        return areas

    def _answered(self, t: int) -> int:
        """The agent's answer begins now: one more measured turn."""
        began = self._user_end if self._user_end is not None else t
        self._user_end = None
        waited = max(0, t - began)
        self.latencies.append(TurnLatency(len(self.latencies) + 1, t, waited))
        return waited

    def _agent_speaking(self, t: int, message: AgentSpeaking) -> frozenset[Area]:
        self.agent_speaking = message.on
        if message.on and self._user_end is None and self.user_speaking:
            # Voice detection tells the end of the user's turn a little late: this may be the answer.
            self._early = (t, message.event_id)
        if not message.on or self._user_end is None:
            return _LINE
        return self._first_sound(t, message.event_id)

    def _first_sound(self, t: int, event_id: int | None) -> frozenset[Area]:
        """The answer to the user's turn is heard from now on: what they waited is known."""
        waited = self._answered(t)
        for entry in self._last(8):
            if entry.who is Who.USER:
                break
            if entry.who is Who.AGENT and entry.latency_ms is None and entry.event_id == event_id:
                entry.latency_ms = waited
                entry.rev += 1
                return _LINE | _LATENCY | _TRANSCRIPT
        if event_id is not None:
            self._pending = {event_id: waited}
        else:
            self._unnamed = waited
        return _LINE | _LATENCY

    def _user_speaking(self, t: int, message: UserSpeaking) -> frozenset[Area]:
        self.user_speaking = message.on
        self._measured_voice = True
        self._user_end = None if message.on else t
        early, self._early = self._early, None
        if not message.on and early is not None and early[0] >= t:
            return self._first_sound(*early)
        return _LINE

    def _interrupted(self, t: int, message: Interrupted) -> frozenset[Area]:
        self.interruptions += 1
        for entry in self._last(24):
            if entry.who is Who.AGENT and (message.event_id is None or entry.event_id == message.event_id):
                entry.cut = True
                entry.final = True
                entry.rev += 1
                break
        return _TRANSCRIPT

    def _corrected(self, t: int, message: AgentCorrected) -> frozenset[Area]:
        for entry in self._last(24):
            same_event = message.event_id is not None and entry.event_id == message.event_id
            if entry.who is Who.AGENT and (same_event or entry.text == message.original):
                break
        else:
            entry = self._add(t, Who.AGENT, message.original, event_id=message.event_id)
        entry.text = message.original or entry.text
        entry.spoken = message.corrected
        entry.cut = entry.final = True
        entry.rev += 1
        return _TRANSCRIPT

    def _tool_started(self, t: int, message: ToolStarted) -> frozenset[Area]:
        entry = self._tool(message.tool_id)
        if entry is None:
            self.tools += 1
            entry = self._add(t, Who.TOOL, message.name, final=False, tool_id=message.tool_id)
        entry.text = message.name
        entry.arguments = message.arguments or entry.arguments
        entry.where = message.where
        entry.rev += 1
        return _TRANSCRIPT

    def _tool_ended(self, t: int, message: ToolEnded) -> frozenset[Area]:
        entry = self._tool(message.tool_id)
        if entry is None:
            return frozenset()
        entry.result, entry.ok, entry.final = message.result, message.ok, True
        entry.took_ms = message.took_ms if message.took_ms is not None else t - entry.t
        entry.rev += 1
        return _TRANSCRIPT

    def _tool(self, tool_id: str) -> Entry | None:
        for entry in self._last(64):
            if entry.who is Who.TOOL and entry.tool_id == tool_id:
                return entry
        return None

    def _approval(self, t: int, message: ApprovalWanted) -> frozenset[Area]:
        self._tool_started(t, ToolStarted(message.tool_id, message.name, message.arguments, "mcp"))
        entry = self._tool(message.tool_id)
        if entry is not None:
            entry.approval = "wanted"
        return _TRANSCRIPT | _STATUS

    def _approved(self, t: int, message: ApprovalGiven) -> frozenset[Area]:
        entry = self._tool(message.tool_id)
        if entry is not None:
            entry.approval = "given" if message.approved else "refused"
            entry.rev += 1
        return _TRANSCRIPT | _STATUS

    @property
    def waiting_approval(self) -> Entry | None:
        """The newest tool that waits for the operator's yes or no."""
        for entry in reversed(self.entries):
            if entry.approval == "wanted" and not entry.final and self.ended is None:
                return entry
        return None

    def _vendor_latency(self, t: int, message: VendorLatency) -> frozenset[Area]:
        self.vendor = dict(message.figures)
        return _LATENCY

    def _quality(self, t: int, message: Quality) -> frozenset[Area]:
        known = self.quality
        self.quality = Quality(
            message.round_trip_ms if message.round_trip_ms is not None else known.round_trip_ms,
            message.jitter_ms if message.jitter_ms is not None else known.jitter_ms,
            message.loss_percent if message.loss_percent is not None else known.loss_percent,
        )
        return _LINE

    def _cost(self, t: int, message: Cost) -> frozenset[Area]:
        self.cost = message
        return _STATUS

    def _notice(self, t: int, message: Notice) -> frozenset[Area]:
        self._add(t, Who.NOTICE, message.text, level=message.level, advice=message.advice)
        return _TRANSCRIPT

    def _typed(self, t: int, message: Typed) -> frozenset[Area]:
        self._add(t, Who.USER, message.text, typed=True)
        self.user_turns += 1
        self._user_end = t
        return _TRANSCRIPT

    def _informed(self, t: int, message: Informed) -> frozenset[Area]:
        self._add(t, Who.CONTEXT, message.text, where=message.phase)
        return _TRANSCRIPT

    def _marked(self, t: int, message: Marked) -> frozenset[Area]:
        self._add(t, Who.MARK, message.note)
        return _TRANSCRIPT

    def _muted(self, t: int, message: Muted) -> frozenset[Area]:
        self.muted = message.on
        return _LINE

    def _talk(self, t: int, message: PushToTalk) -> frozenset[Area]:
        self.push_to_talk, self.held = message.on, message.held
        return _LINE

    def _devices(self, t: int, message: DevicesChanged) -> frozenset[Area]:
        self.devices = message
        return _LINE

    def _echo(self, t: int, message: EchoChanged) -> frozenset[Area]:
        self.echo = message.state
        return _LINE

    def _ended(self, t: int, message: Ended) -> frozenset[Area]:
        self.state, self.ended, self.ended_at = CallState.ENDED, message, t
        self.user_speaking = self.agent_speaking = False
        for entry in self._last(64):
            if not entry.final:
                entry.final = True
                entry.rev += 1
        return _STATUS | _TRANSCRIPT | _LINE


_STATUS = frozenset({Area.STATUS})
_TRANSCRIPT = frozenset({Area.TRANSCRIPT})
_LATENCY = frozenset({Area.LATENCY})
_LINE = frozenset({Area.LINE})

_HANDLERS: Mapping[type[Message], Callable[[LiveCall, int, Any], frozenset[Area]]] = {
    StateChanged: LiveCall._state,
    Connected: LiveCall._connected,
    UserSpeech: LiveCall._user,
    AgentSpeech: LiveCall._agent,
    AgentSpeaking: LiveCall._agent_speaking,
    UserSpeaking: LiveCall._user_speaking,
    AgentCorrected: LiveCall._corrected,
    Interrupted: LiveCall._interrupted,
    ToolStarted: LiveCall._tool_started,
    ToolEnded: LiveCall._tool_ended,
    ApprovalWanted: LiveCall._approval,
    ApprovalGiven: LiveCall._approved,
    VendorLatency: LiveCall._vendor_latency,
    Quality: LiveCall._quality,
    Cost: LiveCall._cost,
    Notice: LiveCall._notice,
    Typed: LiveCall._typed,
    Informed: LiveCall._informed,
    Marked: LiveCall._marked,
    Muted: LiveCall._muted,
    PushToTalk: LiveCall._talk,
    DevicesChanged: LiveCall._devices,
    EchoChanged: LiveCall._echo,
    Ended: LiveCall._ended,
}
