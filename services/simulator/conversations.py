"""The conversations the simulated vendors have had, and the scripts their next ones play.

Both vendors share one `Conversations`. `POST /__script` fills its scripts, `GET /__conversations` shows its
log, and the vendors make their own objects from its records.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from services.clock import Clock
from services.model import Provider
from services.simulator.conversation import Script
from services.simulator.wire import Json

Transport = Literal["socket", "livekit", "gateway", "chat", "phone"]
State = Literal["initiated", "in-progress", "processing", "done", "failed"]

PROCESSING_MS = 300
"""From the end of a conversation to its analysis."""

_KEPT = 1000
_KEPT_AUDIO = 20
_MOST_AUDIO_MS = 10 * 60_000


@dataclass(slots=True)
class Line:
    """Something that was said, or a tool that was used. `at_ms` counts from the conversation's start."""

    role: Literal["user", "agent"]
    text: str | None
    at_ms: int
    interrupted: bool = False
    original: str | None = None
    medium: Literal["audio", "text"] = "audio"
    tool_calls: list[Json] = field(default_factory=list)
    """`{id, name, type, arguments, called}`"""
    tool_results: list[Json] = field(default_factory=list)
    """`{id, name, type, result, is_error, took_ms}`"""


@dataclass(slots=True)
class Conversation:
    """One conversation. Times in milliseconds since the epoch."""

    id: str
    provider: Provider
    agent_id: str
    agent_name: str
    transport: Transport
    created_ms: int
    clock: Clock
    started_ms: int | None = None
    ended_ms: int | None = None
    end_code: int | None = None
    end_reason: str = ""
    failed: bool = False
    text_only: bool = False
    frames: dict[str, int] = field(default_factory=dict)
    """Frames received from the client, by type."""
    audio_ms: float = 0.0
    """Audio received from the client."""
    agent_audio_ms: float = 0.0
    """Audio sent to the client."""
    speaking: bool = False
    """Whether the agent is being heard at this moment."""
    lines: list[Line] = field(default_factory=list)
    initiation: Json = field(default_factory=dict)
    """What the client began with."""
    context: list[str] = field(default_factory=list)
    """Contextual updates of the client."""
    feedback: list[Json] = field(default_factory=list)
    details: Json = field(default_factory=dict)
    """What the vendor's own routes keep with it, e.g. `phone_call`."""
    heard_audio: list[tuple[int, bytes]] = field(default_factory=list)
    """The client's audio: (at_ms, PCM of 16 kHz)."""
    spoken_audio: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def state(self) -> State:
        if self.failed:
            return "failed"
        if self.ended_ms is not None:
            return "done" if self.clock.now() >= self.ended_ms + PROCESSING_MS else "processing"
        return "initiated" if self.started_ms is None else "in-progress"

    @property
    def duration_ms(self) -> int:
        if self.started_ms is None:
            return 0
        return (self.clock.now() if self.ended_ms is None else self.ended_ms) - self.started_ms

    def begin(self) -> None:
        """The conversation goes on the air."""
        self.started_ms = self.clock.now()

    def finish(self, code: int, reason: str = "", *, failed: bool = False) -> None:
        """The conversation has ended; only the first call counts."""
        if self.ended_ms is None:
            self.ended_ms = self.clock.now()
            self.end_code, self.end_reason, self.failed = code, reason, failed

    def now_ms(self) -> int:
        """Milliseconds since the start."""
        return 0 if self.started_ms is None else self.clock.now() - self.started_ms

    def received(self, kind: str) -> None:
        """Count a frame of the client."""
        self.frames[kind] = self.frames.get(kind, 0) + 1

    def add(self, line: Line) -> Line:
        self.lines.append(line)
        return line

    def keep_audio(self, role: Literal["user", "agent"], at_ms: int, pcm: bytes) -> None:
        """Record PCM of 16 kHz; nothing more after ten minutes."""
        if at_ms < _MOST_AUDIO_MS:
            (self.heard_audio if role == "user" else self.spoken_audio).append((at_ms, pcm))

    def as_dict(self) -> Json:
        """What `GET /__conversations` shows."""
        return {
            "id": self.id,
            "provider": self.provider.value,
            "agent_id": self.agent_id,
            "agent": self.agent_name,
            "transport": self.transport,
            "state": self.state,
            "text_only": self.text_only,
            "frames": dict(self.frames),
            "audio_ms": round(self.audio_ms),
            "agent_audio_ms": round(self.agent_audio_ms),
            "speaking": self.speaking,
            "duration_ms": self.duration_ms,
            "end_code": self.end_code,
            "end_reason": self.end_reason,
            "initiation": self.initiation,
            "context": list(self.context),
            "feedback": list(self.feedback),
            "transcript": [
                {
                    "role": line.role,
                    "text": line.text,
                    "at_ms": line.at_ms,
                    "interrupted": line.interrupted,
                    "tool_calls": line.tool_calls,
                    "tool_results": line.tool_results,
                }
                for line in self.lines
            ],
        }


@dataclass(slots=True)
class _Queued:
    script: Script
    agent_ids: frozenset[str]
    left: int | None


class Conversations:
    """The log and the scripts. Keeps the last thousand conversations, and the audio of the last twenty."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._log: dict[str, Conversation] = {}
        self._scripts: list[_Queued] = []

    # Scripts

    def set_script(self, script: Script, agent_ids: Iterable[str] = (), times: int | None = None) -> None:
        """`script` is played by the next `times` conversations (None = all) of these agents (none = any).

        One set later goes first.
        """
        self._scripts.insert(0, _Queued(script, frozenset(agent_ids), times))

    def clear_scripts(self) -> int:
        count = len(self._scripts)
        self._scripts.clear()
        return count

    def take_script(
        self, agent_id: str, name: str, language: str = "en", client_tools: Collection[str] = ()
    ) -> tuple[Script, bool]:
        """The script of a new conversation, and whether somebody set it (else it is the receptionist)."""
        for queued in self._scripts:
            if not queued.agent_ids or agent_id in queued.agent_ids:
                if queued.left is not None:
                    queued.left -= 1
                    if not queued.left:
                        self._scripts.remove(queued)
                return queued.script, True
        return Script.default(name, language, client_tools), False

    # The log

    def create(
        self, conversation_id: str, provider: Provider, agent_id: str, name: str, transport: Transport
    ) -> Conversation:
        """A new conversation, `initiated`; `begin` and `finish` move it on."""
        made = Conversation(
            conversation_id, provider, agent_id, name, transport, self._clock.now(), self._clock
        )
        self._log[conversation_id] = made
        while len(self._log) > _KEPT:
            del self._log[next(iter(self._log))]
        for old in list(self._log.values())[:-_KEPT_AUDIO]:
            old.heard_audio.clear()
            old.spoken_audio.clear()
        return made

    def get(self, conversation_id: str) -> Conversation | None:
        return self._log.get(conversation_id)

    def of(self, provider: Provider) -> list[Conversation]:
        """All of a vendor's conversations, oldest first."""
        return [item for item in self._log.values() if item.provider is provider]

    def remove(self, conversation_id: str) -> bool:
        return self._log.pop(conversation_id, None) is not None

    def as_list(self) -> list[dict[str, Any]]:
        return [item.as_dict() for item in self._log.values()]
