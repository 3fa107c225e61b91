"""What is asked of the orchestrator, and what it answers before anything is dialled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.calls.model import Brief, CallTarget, TransportKind

if TYPE_CHECKING:
    from services.calls.brief import BriefPart

NO_BRIEF = Brief()


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the operator asks for."""

    agent_row: int | None
    """The mirror's id of the agent; None for a mock without one."""
    transport: TransportKind
    brief: Brief = NO_BRIEF
    scenario: Path | None = None
    number: str = ""
    from_number: str = ""
    input_device: str = ""
    output_device: str = ""
    echo: bool = True
    push_to_talk: bool = False
    seed: int = 0
    devices: bool = True
    """Whether microphone and loudspeaker are used; without them the line is silent."""
    play: Path | None = None
    """A WAV file that stands in for the microphone."""
    confirmed: bool = False
    """Phone: the operator has seen the number and the cost warning."""
    anyway: bool = False
    """Begin although the agent will refuse a part of the brief."""
    counted: bool = False
    """Whoever asks has counted it against the limits already, as a message by phone is."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a call would be, before anything is dialled."""

    target: CallTarget
    transport: TransportKind
    available: tuple[tuple[TransportKind, str], ...]
    """Every transport, with the reason where it is not available."""
    parts: tuple[BriefPart, ...] = ()
    warnings: tuple[str, ...] = ()
    refused: bool = False
    """The agent would refuse a part of the brief and so the call."""
    needs_confirmation: str = ""
    """The question to ask before dialling; empty without one."""
