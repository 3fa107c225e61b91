"""The words of a conversation as types: light to import, immutable.

Times inside a call are whole milliseconds since its start; `started_at` and `ended_at` are epoch
milliseconds, UTC. Audio is mono, signed 16 bit, little endian everywhere inside the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool
FRAME_MS = 20
"""The length of one frame of audio on its way through the program."""


class TransportKind(StrEnum):
    """How a conversation travels."""

    MOCK = "mock"
    TEXT = "text"
    MICROPHONE = "microphone"
    WEBRTC = "webrtc"
    PHONE = "phone"


class CallState(StrEnum):
    """Where a call stands. `QUEUED` and `RINGING` exist on the phone only."""

    PREPARING = "preparing"
    CONNECTING = "connecting"
    QUEUED = "queued"
    RINGING = "ringing"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    ENDED = "ended"


class EndReason(StrEnum):
    """Why a call ended, in one stable word."""

    AGENT_ENDED = "agent_ended"
    OPERATOR_ENDED = "operator_ended"
    CALLEE_ENDED = "callee_ended"
    COMPLETED = "completed"
    """The script was played to its end."""
    MAX_DURATION = "max_duration"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    """Hung up before it was answered."""
    INVALID_NUMBER = "invalid_number"
    NOT_ALLOWED = "not_allowed"
    """The number, the transport or the agent's settings forbid it."""
    OVERRIDE_REFUSED = "override_refused"
    MISSING_VARIABLE = "missing_variable"
    AUTHENTICATION = "authentication"
    LIMIT = "limit"
    """Too many calls at once, or no credit left."""
    UNREACHABLE = "unreachable"
    """The conversation never began: no connection."""
    CONNECTION_LOST = "connection_lost"
    TIMEOUT = "timeout"
    VENDOR_ERROR = "vendor_error"
    PROTOCOL_ERROR = "protocol_error"
    """What the other side sent could not be understood."""
    DEVICE_LOST = "device_lost"
    INTERRUPTED = "interrupted"
    """The program was killed while the call ran."""
    MAYBE_PLACED = "maybe_placed"
    """No answer to the order to dial: the call may or may not have been placed."""

    @property
    def well(self) -> bool:
        """Whether this is how a conversation should end."""
        return self in _WELL


_WELL = frozenset(
    {
        EndReason.AGENT_ENDED,
        EndReason.OPERATOR_ENDED,
        EndReason.CALLEE_ENDED,
        EndReason.COMPLETED,
        EndReason.MAX_DURATION,
    }
)

END_WORDS: Mapping[EndReason, str] = {
    EndReason.AGENT_ENDED: "the agent ended the call",
    EndReason.OPERATOR_ENDED: "you ended the call",
    EndReason.CALLEE_ENDED: "the other side hung up",
    EndReason.COMPLETED: "the script is finished",
    EndReason.MAX_DURATION: "the agent's longest duration was reached",
    EndReason.BUSY: "busy",
    EndReason.NO_ANSWER: "no answer",
    EndReason.DECLINED: "declined",
    EndReason.CANCELLED: "hung up before it was answered",
    EndReason.INVALID_NUMBER: "the number is not valid",
    EndReason.NOT_ALLOWED: "not allowed",
    EndReason.OVERRIDE_REFUSED: "the agent does not allow an override",
    EndReason.MISSING_VARIABLE: "a dynamic variable is missing",
    EndReason.AUTHENTICATION: "the vendor refused the key",
    EndReason.LIMIT: "a limit of the account",
    EndReason.UNREACHABLE: "no connection",
    EndReason.CONNECTION_LOST: "the connection was lost",
    EndReason.TIMEOUT: "no answer in time",
    EndReason.VENDOR_ERROR: "an error at the vendor",
    EndReason.PROTOCOL_ERROR: "the vendor sent something that could not be understood",
    EndReason.DEVICE_LOST: "the audio device is gone",
    EndReason.INTERRUPTED: "the program was stopped",
    EndReason.MAYBE_PLACED: "it is not known whether the call was placed",
}
"""The reasons as an operator reads them."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a transport can do; the screen shows no key for what it cannot."""

    audio: bool = False
    """The microphone's and the agent's audio pass through this program."""
    text: bool = False
    """The operator may type what the user says."""
    context: bool = False
    """The agent may be told something that the user did not say."""
    approvals: bool = False
    live_transcript: bool = True
    simulated: bool = False
    """No real agent is on the other side."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the knowledge for one call.

    A phase without a condition goes into the prompt; the others are told as contextual updates: after
    `after_turns` turns of the user, or when a turn of either side matches the regex `when`.
    """

    name: str
    text: str
    after_turns: int = 0
    when: str = ""

    @property
    def at_start(self) -> bool:
        return self.after_turns <= 0 and not self.when


@dataclass(frozen=True, slots=True)
class Brief:
    """Everything one call is told beforehand. Empty parts leave what the agent has.

    `overrides` is nested as the vendor wants it (ElevenLabs: `conversation_config_override`; Retell:
    `agent_override`) and is merged with what the other fields make of it.
    """

    subject: str = ""
    """Whom or what the call is about, for people."""
    system_prompt: str = ""
    first_message: str = ""
    language: str = ""
    phases: tuple[Phase, ...] = ()
    variables: Mapping[str, Value] = field(default_factory=dict)
    overrides: Mapping[str, object] = field(default_factory=dict)
    user_id: str = ""

    def __bool__(self) -> bool:
        return bool(
            self.system_prompt
            or self.first_message
            or self.language
            or self.phases
            or self.variables
            or self.overrides
        )


@dataclass(frozen=True, slots=True)
class CallTarget:
    """The agent that is called and where it lives."""

    agent_row: int | None
    """The mirror's id; None for a mock without an agent."""
    agent_id: str
    """The vendor's id."""
    name: str
    company: str
    provider: str
    connection_id: int | None = None


@dataclass(frozen=True, slots=True)
class CallRow:
    """A stored call, for lists. `p50_ms` and `p95_ms` are over its turns' latencies."""

    id: str
    company: str
    provider: str
    agent_id: str
    agent_name: str
    transport: TransportKind
    state: CallState
    started_at: int
    live_at: int | None = None
    ended_at: int | None = None
    reason: EndReason | None = None
    detail: str = ""
    turns: int = 0
    p50_ms: int | None = None
    p95_ms: int | None = None
    cost: float | None = None
    currency: str = ""
    conversation_id: str = ""
    number: str = ""
    simulated: bool = False
    folder: str = ""
    has_audio: bool = False
    has_transcript: bool = False
    actor: str = ""

    @property
    def duration_ms(self) -> int | None:
        """From the first moment it was live to its end; None while it is not over or never was live."""
        if self.live_at is None or self.ended_at is None:
            return None
        return max(0, self.ended_at - self.live_at)
