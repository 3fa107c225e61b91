"""Retell's transcript of a running call, as messages.

The monitor sends items that grow: an utterance comes again, longer, under the same id, and nothing says when
it is complete. Here it is final when the next speaker's item begins, when the agent was cut off, at the
call's end, or when it has not changed for a while (`settle`). What is added to a final utterance becomes a
line of its own.

`turn` numbers the agent's answers: all it says until the user says something has the same event id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.calls.messages import (
    AgentCorrected,
    AgentSpeaking,
    AgentSpeech,
    Ended,
    Interrupted,
    Message,
    Notice,
    ToolEnded,
    ToolStarted,
    UserSpeaking,
    UserSpeech,
)
from services.calls.model import EndReason

_AGENT: Final = "agent"
_SPOKEN: Final = ("agent", "user", "transfer_target")


@dataclass(slots=True)
class _Utterance:
    role: str
    event_id: int
    text: str = ""
    told: int = 0
    """Characters that are in final lines already."""
    final: bool = False
    cut: bool = False


@dataclass(slots=True)
class Transcript:
    """`read` each frame of the monitor in order.

    With `speaking` the beginnings and ends of both voices are told too, as well as the transcript shows
    them: for calls whose audio does not pass through this program.
    """

    speaking: bool = False
    turn: int = 1
    _answered: bool = False
    _known: dict[str, _Utterance] = field(default_factory=dict)
    _tools: dict[str, float] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _agent_heard: bool = False

    def read(self, frame: Mapping[str, Any]) -> list[Message]:
        """What a frame tells that was not known. Frames of unknown types tell nothing."""
        kind = frame.get("type")
        if kind in ("transcript_snapshot", "transcript_updated"):
            return [message for item in _in_order(_items(frame)) for message in self._item(item)]
        if kind == "call_ended":
            return [*self.settle(), ending(frame.get("disconnection_reason"))]
        return []

    def settle(self) -> list[Message]:
        """Nothing has come for a while: what was said is complete."""
        return [message for each in self._known.values() for message in self._finish(each)]

    @property
    def unsettled(self) -> bool:
        return any(not each.final for each in self._known.values())

    # Items

    def _item(self, item: Mapping[str, Any]) -> list[Message]:
        role = item.get("role")
        if role in _SPOKEN:
            return self._spoken(str(role), item)
        if role == "tool_call_invocation":
            return self._tool_started(item)
        if role == "tool_call_result":
            return self._tool_ended(item)
        text = _remark(item)
        name = str(item.get("id") or text)
        if not text or name in self._done:
            return []
        self._done.add(name)
        return [Notice(text)]

    def _spoken(self, role: str, item: Mapping[str, Any]) -> list[Message]:
        content = item.get("content")
        name, text = str(item.get("id") or ""), content.strip() if isinstance(content, str) else ""
        known = self._known.get(name)
        if known is None:
            if not text:
                return []
            return self._begin(name, role, text, item)
        messages = self._changed(known, text) if text != known.text else []
        return messages + self._cut(known, item)

    def _begin(self, name: str, role: str, text: str, item: Mapping[str, Any]) -> list[Message]:
        messages = self.settle()
        if role == _AGENT:
            self._answered = True
        elif self._answered:
            self._next_turn()
        known = self._known[name] = _Utterance(role, self.turn, text)
        if self.speaking and role == _AGENT and not self._agent_heard:
            self._agent_heard = True
            messages.append(AgentSpeaking(True, known.event_id))
        elif self.speaking and role != _AGENT:
            messages.append(UserSpeaking(True))
        messages.append(self._line(known, final=False))
        if self.speaking and role != _AGENT:
            messages.append(UserSpeaking(False))
        return messages + self._cut(known, item)

    def _changed(self, known: _Utterance, text: str) -> list[Message]:
        before, known.text = known.text, text
        if known.role == _AGENT and _shortened(before, text):
            return self._corrected(known, before)
        if known.final and (known.cut or not text.startswith(before)):
            return []  # spelled differently afterwards: what was shown stays
        if known.final:
            known.told, known.final = len(before), False
        messages: list[Message] = [self._line(known, final=False)]
        if self.speaking and known.role != _AGENT:
            # Its newest change is the best guess at when the user stopped.
            messages.append(UserSpeaking(False))
        return messages

    def _cut(self, known: _Utterance, item: Mapping[str, Any]) -> list[Message]:
        """The vendor marks the agent's utterances that the user spoke over."""
        metadata = item.get("metadata")
        marked = isinstance(metadata, Mapping) and metadata.get("interrupt_id") is not None
        if not marked or known.role != _AGENT or known.cut:
            return []
        return [*self._finish(known), self._interrupt(known)]

    def _corrected(self, known: _Utterance, before: str) -> list[Message]:
        messages: list[Message] = []
        if not known.final:
            known.final = True
            messages.append(AgentSpeech(before[known.told :].strip(), True, known.event_id))
            messages += self._fall_silent()
        if not known.cut:
            messages.append(self._interrupt(known))
        original, corrected = before[known.told :].strip(), known.text[known.told :].strip()
        messages.append(AgentCorrected(original, corrected, known.event_id))
        return messages

    def _interrupt(self, known: _Utterance) -> Interrupted:
        known.cut = True
        if self.turn <= known.event_id:
            self._next_turn()
        return Interrupted(known.event_id)

    def _next_turn(self) -> None:
        self.turn += 1
        self._answered = False

    def _finish(self, known: _Utterance) -> list[Message]:
        if known.final:
            return []
        known.final = True
        messages: list[Message] = [self._line(known, final=True)]
        return messages + (self._fall_silent() if known.role == _AGENT else [])

    def _fall_silent(self) -> list[Message]:
        if not self._agent_heard:
            return []
        self._agent_heard = False
        return [AgentSpeaking(False)]

    def _line(self, known: _Utterance, *, final: bool) -> Message:
        text = known.text[known.told :].strip()
        if known.role == _AGENT:
            return AgentSpeech(text, final, known.event_id)
        if known.role == "user":
            return UserSpeech(text, final)
        return UserSpeech(f"[transferred to] {text}", final)

    # Tools

    def _tool_started(self, item: Mapping[str, Any]) -> list[Message]:
        tool_id = str(item.get("tool_call_id") or item.get("id") or "")
        if tool_id in self._tools:
            return []
        self._tools[tool_id] = _seconds(item)
        return [*self.settle(), ToolStarted(tool_id, str(item.get("name") or ""), _arguments(item), "server")]

    def _tool_ended(self, item: Mapping[str, Any]) -> list[Message]:
        tool_id = str(item.get("tool_call_id") or "")
        if f"result {tool_id}" in self._done:
            return []
        self._done.add(f"result {tool_id}")
        content = item.get("content")
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        began, ended = self._tools.get(tool_id), _seconds(item)
        took = round((ended - began) * 1000) if began is not None and ended >= began > 0 else None
        return [ToolEnded(tool_id, text, item.get("successful") is not False, took)]


def _items(frame: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for name in ("transcripts", "transcript", "items"):
        found = frame.get(name)
        if isinstance(found, list):
            return [item for item in found if isinstance(item, Mapping)]
        if isinstance(found, Mapping):
            return [found]
    return []


def _in_order(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By time; items of the same moment as they arrived."""
    return sorted(items, key=_seconds)


def _seconds(item: Mapping[str, Any]) -> float:
    value = item.get("time_sec")
    return float(value) if isinstance(value, int | float) else 0.0


def _shortened(before: str, after: str) -> bool:
    kept = after.rstrip("… ").rstrip()
    return len(kept) < len(before) and before.startswith(kept)


def _arguments(item: Mapping[str, Any]) -> dict[str, Any]:
    """Tool arguments come as JSON text."""
    given = item.get("arguments")
    if isinstance(given, Mapping):
        return dict(given)
    try:
        read = json.loads(given) if isinstance(given, str) and given.strip() else {}
    except ValueError:
        read = given
    return read if isinstance(read, dict) else {"arguments": read}


def _remark(item: Mapping[str, Any]) -> str:
    role = item.get("role")
    if role == "node_transition":
        name = item.get("new_node_name") or item.get("new_node_id") or item.get("name")
        return f"The agent moves on to “{name}”" if name else ""
    if role == "dtmf":
        return f"Key {item.get('digit')} was pressed"
    if role == "sms":
        return f"Text message: {item.get('content') or ''}".rstrip(": ")
    return ""


# How a call ended

_ENDINGS: Final[Mapping[str, tuple[EndReason, str, str]]] = {
    "user_hangup": (EndReason.CALLEE_ENDED, "callee", ""),
    "agent_hangup": (EndReason.AGENT_ENDED, "agent", ""),
    "user_requested_dnc": (EndReason.AGENT_ENDED, "agent", "the user asked not to be called again"),
    "user_requested_callback": (EndReason.AGENT_ENDED, "agent", "the user asked to be called back"),
    "call_transfer": (EndReason.AGENT_ENDED, "agent", "the call was transferred"),
    "transfer_bridged": (EndReason.AGENT_ENDED, "agent", "the call was transferred"),
    "transfer_cancelled": (EndReason.CANCELLED, "vendor", "the transfer was cancelled"),
    "voicemail_reached": (EndReason.AGENT_ENDED, "agent", "a voicemail answered"),
    "ivr_reached": (EndReason.AGENT_ENDED, "agent", "an answering machine's menu answered"),
    "inactivity": (EndReason.AGENT_ENDED, "agent", "nobody spoke for too long"),
    "max_duration_reached": (EndReason.MAX_DURATION, "vendor", ""),
    "concurrency_limit_reached": (EndReason.LIMIT, "vendor", "too many calls at once"),
    "no_concurrency_fallback": (EndReason.LIMIT, "vendor", "too many calls at once"),
    "no_valid_payment": (EndReason.LIMIT, "vendor", "no valid means of payment"),
    "credit_exhausted": (EndReason.LIMIT, "vendor", "no credit left"),
    "budget_reached": (EndReason.LIMIT, "vendor", "the budget is used up"),
    "scam_detected": (EndReason.NOT_ALLOWED, "vendor", "the vendor took it for fraud"),
    "marked_as_spam": (EndReason.NOT_ALLOWED, "vendor", "the number is marked as spam"),
    "network_blocked": (EndReason.NOT_ALLOWED, "vendor", "the network blocked the call"),
    "telephony_provider_permission_denied": (
        EndReason.NOT_ALLOWED,
        "vendor",
        "the telephony provider does not permit calls to this number",
    ),
    "telephony_provider_unavailable": (EndReason.VENDOR_ERROR, "vendor", "no telephony provider"),
    "sip_routing_error": (EndReason.VENDOR_ERROR, "vendor", "the call could not be routed (SIP)"),
    "dial_busy": (EndReason.BUSY, "callee", ""),
    "dial_no_answer": (EndReason.NO_ANSWER, "callee", ""),
    "dial_failed": (EndReason.VENDOR_ERROR, "vendor", "dialling failed"),
    "invalid_destination": (EndReason.INVALID_NUMBER, "vendor", ""),
    "user_declined": (EndReason.DECLINED, "callee", ""),
    "registered_call_timeout": (EndReason.TIMEOUT, "vendor", "the call was never begun"),
    "error_user_not_joined": (EndReason.UNREACHABLE, "vendor", "the call was not joined in time"),
    "error_no_audio_received": (EndReason.CONNECTION_LOST, "vendor", "no audio reached the vendor"),
    "manual_stopped": (EndReason.OPERATOR_ENDED, "operator", "stopped at Retell"),
    "call_take_over": (EndReason.OPERATOR_ENDED, "operator", "somebody took the call over"),
    "error_asr": (EndReason.VENDOR_ERROR, "vendor", "the speech recognition failed"),
    "error_llm_websocket_open": (EndReason.VENDOR_ERROR, "vendor", "the agent's own model is not reachable"),
    "error_llm_websocket_lost_connection": (
        EndReason.VENDOR_ERROR,
        "vendor",
        "the connection to the agent's own model was lost",
    ),
}


def ending(reason: object) -> Ended:
    """The end that a `disconnection_reason` means; the vendor's list is open, and so is this."""
    word = reason if isinstance(reason, str) else ""
    if not word:
        return Ended(EndReason.AGENT_ENDED, by="vendor")
    if word in _ENDINGS:
        known, by, detail = _ENDINGS[word]
        return Ended(known, detail, by)
    return Ended(EndReason.VENDOR_ERROR, f"Retell says: {word.replace('_', ' ')}", "vendor")
