"""What happens in a call, as messages. A transport sends them, the recording stores them, screens fold them.

Each has a stable `kind` for JSON. `encode` and `decode` are inverse; an unknown kind decodes to None, so
that a newer recording still plays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from services.calls.model import CallState, EndReason

_KINDS: dict[str, type[Message]] = {}


@dataclass(frozen=True, slots=True)
class Message:
    """The base of all messages."""

    kind: ClassVar[str] = ""


def _register(kind: str, cls: type[Message]) -> None:
    cls.kind = kind
    _KINDS[kind] = cls


# -- the connection ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StateChanged(Message):
    """The call moved on; `detail` in words (`ringing +49…`, `attempt 2 in 1 s`)."""

    state: CallState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Connected(Message):
    """The conversation began. Rates in Hz, 0 where no audio passes through this program.

    `input_format` and `output_format` are the vendor's words (`pcm_16000`, `ulaw_8000`, `opus`).
    """

    conversation_id: str
    input_rate: int = 0
    output_rate: int = 0
    input_format: str = ""
    output_format: str = ""


@dataclass(frozen=True, slots=True)
class Quality(Message):
    """What is known of the line; None where it is not."""

    round_trip_ms: float | None = None
    jitter_ms: float | None = None
    loss_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Ended(Message):
    """The call is over. Exactly one, and the last of all.

    `by` is `agent`, `operator`, `callee`, `vendor` or `us`.
    """

    reason: EndReason
    detail: str = ""
    by: str = ""
    code: int | None = None
    """The close code or status the vendor gave."""


# -- what is said -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UserSpeech(Message):
    """What the vendor understood the user to say. A partial (`final` false) is replaced by the next one."""

    text: str
    final: bool = True
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class AgentSpeech(Message):
    """What the agent says. A partial holds everything so far and is replaced by the next one."""

    text: str
    final: bool = True
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class AgentCorrected(Message):
    """The agent was cut off: of `original` only `corrected` was spoken."""

    original: str
    corrected: str
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class Interrupted(Message):
    """The user spoke over the agent: audio of this and earlier events is dropped."""

    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class UserSpeaking(Message):
    """The user began or stopped speaking, as our voice detection or the vendor's says."""

    on: bool


@dataclass(frozen=True, slots=True)
class AgentSpeaking(Message):
    """The agent's voice began or stopped being heard. Its start is where a turn's latency ends."""

    on: bool
    event_id: int | None = None


# -- tools ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolStarted(Message):
    """A tool is called; `where` is `client` (run by this program), `server` or `mcp`."""

    tool_id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    where: str = "server"


@dataclass(frozen=True, slots=True)
class ToolEnded(Message):
    """A tool's answer, as text. `took_ms` is None where the vendor does not tell."""

    tool_id: str
    result: str = ""
    ok: bool = True
    took_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ApprovalWanted(Message):
    """An MCP tool waits for a yes or no."""

    tool_id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ApprovalGiven(Message):
    tool_id: str
    approved: bool


# -- figures and remarks ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VendorLatency(Message):
    """The vendor's own figures for a turn, in milliseconds, by stage: asr, llm, tts, e2e, …"""

    figures: Mapping[str, float]
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class Cost(Message):
    """What the call cost so far, or in the end."""

    amount: float
    currency: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Notice(Message):
    """Something the operator should know. `level` is `info`, `look` or `act`."""

    text: str
    level: str = "info"
    advice: str = ""


# -- what the operator did --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Typed(Message):
    """The operator typed what the user says."""

    text: str


@dataclass(frozen=True, slots=True)
class Informed(Message):
    """The agent was told something in the background; `phase` names the part of the brief it came from."""

    text: str
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Marked(Message):
    """The operator marked this moment."""

    note: str = ""


@dataclass(frozen=True, slots=True)
class Muted(Message):
    on: bool


@dataclass(frozen=True, slots=True)
class PushToTalk(Message):
    """`held` is whether the microphone is open while `on`."""

    on: bool
    held: bool = False


@dataclass(frozen=True, slots=True)
class DevicesChanged(Message):
    """The devices in use, by name; empty where there is none."""

    input: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class EchoChanged(Message):
    """How the echo is dealt with, in words of `services.calls.audio.echo.EchoState`."""

    state: str


for _kind, _class in {
    "state": StateChanged,
    "connected": Connected,
    "quality": Quality,
    "ended": Ended,
    "user": UserSpeech,
    "agent": AgentSpeech,
    "agent_corrected": AgentCorrected,
    "interrupted": Interrupted,
    "user_speaking": UserSpeaking,
    "agent_speaking": AgentSpeaking,
    "tool_started": ToolStarted,
    "tool_ended": ToolEnded,
    "approval_wanted": ApprovalWanted,
    "approval_given": ApprovalGiven,
    "latency": VendorLatency,
    "cost": Cost,
    "notice": Notice,
    "typed": Typed,
    "informed": Informed,
    "marked": Marked,
    "muted": Muted,
    "push_to_talk": PushToTalk,
    "devices": DevicesChanged,
    "echo": EchoChanged,
}.items():
    _register(_kind, _class)

_ENUMS: Mapping[str, type[Enum]] = {"state": CallState, "reason": EndReason}
_TEXTS = frozenset({"text", "original", "corrected", "arguments", "result", "note", "detail", "advice"})
"""Fields that repeat what was said; left out of a recording that keeps no transcript."""


_PLAIN: Mapping[str, type | tuple[type, ...]] = {
    "str": str,
    "bool": bool,
    "int": int,
    "float": (int, float),
    "int | None": (int, type(None)),
    "Mapping[str, Any]": dict,
    "Mapping[str, float]": dict,
}
"""What a field of a type is in JSON."""


def encode(message: Message, *, texts: bool = True) -> dict[str, Any]:
    """A JSON object: `kind` and the fields that differ from their default. `texts=False` leaves out all
    that repeats what was said (not the reason and detail of the end)."""
    data: dict[str, Any] = {"kind": message.kind}
    for each in dataclasses.fields(message):
        value = getattr(message, each.name)
        if not texts and each.name in _TEXTS and not isinstance(message, Ended | StateChanged):
            continue
        if each.default is not dataclasses.MISSING and value == each.default:
            continue
        data[each.name] = dict(value) if isinstance(value, Mapping) else value
    return data


def decode(data: Mapping[str, Any]) -> Message | None:
    """The message of a JSON object; None for a kind this version does not know or a broken one."""
    cls = _KINDS.get(str(data.get("kind")))
    if cls is None:
        return None
    values: dict[str, Any] = {}
    for each in dataclasses.fields(cls):
        if each.name in data:
            value = data[each.name]
            if not isinstance(value, _PLAIN.get(str(each.type), object)):
                return None
            enum = _ENUMS.get(each.name) if cls in (StateChanged, Ended) else None
            try:
                values[each.name] = enum(value) if enum else value
            except ValueError:
                return None
        elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            # Left out because the recording keeps no transcript.
            values[each.name] = ""
    return cls(**values)
