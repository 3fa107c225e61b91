"""Drawing one agent card into lines of segments. No widget: the grid asks for cards and caches them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style

from screens.glyphs import STATE_TONE, Glyphs, State, Tone
from screens.textfit import cut, display, fit, width_of
from services.model import AgentCard, Provider
from services.text import age

HEIGHT = 5
"""Lines of a card, its border included."""
BADGE_LINE = 1
"""The line with the badge and the age."""
MIN_WIDTH = 38
_OPAQUE = re.compile(r"(?=.*\d)[A-Za-z0-9]{16,}")
"""A voice known by the vendor's id only; its first letters are enough to tell it from another."""


@dataclass(frozen=True, slots=True)
class Face:
    """Everything that decides how a card looks besides the agent: the key of the grid's cache."""

    width: int
    state: State
    age: str
    stale: bool
    chosen: bool
    marked: bool
    company: bool
    """Whether the company stands on the card, because there are several."""


@dataclass(frozen=True, slots=True)
class Look:
    """Styles by tone, resolved from the theme, and the glyphs in use."""

    glyphs: Glyphs
    tones: dict[Tone, Style]
    strong: Style
    border: Style
    border_chosen: Style
    border_marked: Style


def is_stale(card: AgentCard, now: int, stale_after: int) -> bool:
    """Whether the mirror of this agent is older than `stale_after` minutes; never for one that is gone."""
    if card.gone_at is not None or card.checked_at is None:
        return False
    return now - card.checked_at > stale_after * 60_000


def age_text(card: AgentCard, now: int) -> str:
    """How long ago the mirror was known to be true; for a gone agent, how long it has been gone."""
    return age(card.checked_at if card.gone_at is None else card.gone_at, now)


def functions_text(card: AgentCard) -> str:
    """The function count in the vendor's own word, or empty when no bundle was read."""
    if card.function_count is None:
        return ""
    word = "function" if card.provider is Provider.RETELL else "tool"
    return f"{card.function_count} {word}{'' if card.function_count == 1 else 's'}"


def draw_card(card: AgentCard, face: Face, look: Look) -> list[list[Segment]]:
    """The card's five lines, each exactly `face.width` columns wide."""
    inner = face.width - 4
    muted, plain = look.tones[Tone.MUTED], look.tones[Tone.PLAIN]
    if face.chosen:
        frame, frame_style = look.glyphs.border_chosen, look.border_chosen
    else:
        frame, frame_style = look.glyphs.border, look.border_marked if face.marked else look.border
    side = frame[3]
    third, fourth = _details(card, face, look, inner)

    def row(segments: list[Segment]) -> list[Segment]:
        return [Segment(f"{side} ", frame_style), *segments, Segment(f" {side}", frame_style)]

    return [
        _top(card, face, look, frame, frame_style),
        row(_badge(face, look, inner)),
        row([Segment(fit(third[0], inner, look.glyphs.ellipsis), look.tones[third[1]])]),
        row([Segment(fit(fourth[0], inner, look.glyphs.ellipsis), look.tones[fourth[1]])]),
        _bottom(card, face, look, frame, frame_style, muted if not face.chosen else plain),
    ]


def _top(card: AgentCard, face: Face, look: Look, frame: str, frame_style: Style) -> list[Segment]:
    vendor = card.provider.value
    mark = f"{look.glyphs.mark} " if face.marked else ""
    room = face.width - 2 - 2 - 2 - len(vendor) - 1 - len(mark)
    name = cut(display(card.name) or card.agent_id, room, look.glyphs.ellipsis)
    dashes = frame[1] * (1 + room - width_of(name))
    return [
        Segment(f"{frame[0]} ", frame_style),
        Segment(mark, look.border_marked),
        Segment(name, look.strong),
        Segment(f" {dashes} ", frame_style),
        Segment(vendor, look.tones[Tone.MUTED]),
        Segment(f" {frame[2]}", frame_style),
    ]


def _bottom(
    card: AgentCard, face: Face, look: Look, frame: str, frame_style: Style, text_style: Style
) -> list[Segment]:
    company = cut(display(card.company), face.width - 8, look.glyphs.ellipsis) if face.company else ""
    if not company:
        return [Segment(frame[4] + frame[5] * (face.width - 2) + frame[6], frame_style)]
    dashes = frame[5] * (face.width - 5 - width_of(company))
    return [
        Segment(f"{frame[4]}{dashes} ", frame_style),
        Segment(company, text_style),
        Segment(f" {frame[5]}{frame[6]}", frame_style),
    ]


def _badge(face: Face, look: Look, inner: int) -> list[Segment]:
    badge = f"{look.glyphs.states[face.state]} {face.state.value}"
    right = f"stale {look.glyphs.dot} {face.age}" if face.stale else face.age
    gap = max(1, inner - width_of(badge) - width_of(right))
    muted = look.tones[Tone.MUTED]
    return [
        Segment(badge, look.tones[STATE_TONE[face.state]]),
        Segment(" " * gap, muted),
        Segment(right, muted if face.stale or face.state is State.GONE else look.tones[Tone.PLAIN]),
    ]


def _details(
    card: AgentCard, face: Face, look: Look, inner: int
) -> tuple[tuple[str, Tone], tuple[str, Tone]]:
    """The third and fourth line with their tones: what the agent is, or what went wrong and what to do."""
    if face.state is State.ERROR and card.error is not None:
        return (display(card.error.message), Tone.ACT), (display(card.error.advice), Tone.MUTED)
    dot = f" {look.glyphs.dot} "
    voice = display(card.voice)
    if _OPAQUE.fullmatch(voice):
        voice = voice[:6] + look.glyphs.ellipsis
    what = dot.join(part for part in (voice, display(card.language), display(card.model)) if part)
    if face.state is State.PENDING and not what:
        return ("not read yet", Tone.MUTED), ("s syncs it", Tone.MUTED)
    if face.state is State.GONE:
        return (what, Tone.MUTED), ("gone at the vendor, history kept", Tone.MUTED)
    functions = functions_text(card)
    release = display(card.release)
    together = f"{functions:<14}{release}" if functions else release
    if width_of(together) > inner:
        together = f"{functions}{dot}{release}" if functions else release
    return (what, Tone.PLAIN), (together, Tone.MUTED)
