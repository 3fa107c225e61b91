"""What a call's state, end, cost and transport are called on screen, and what to do after a bad end."""

from __future__ import annotations

from collections.abc import Mapping

from screens.call_lines import clock_text
from screens.glyphs import Glyphs, State, Tone
from screens.textfit import display
from services.calls.live import LiveCall, Who
from services.calls.messages import Cost
from services.calls.model import END_WORDS, CallState, EndReason, TransportKind

UNKNOWN = "—"
SIGNS = {"EUR": "€", "USD": "$", "GBP": "£"}
DEVICE_DEFAULT = "the default"

END_ADVICE: Mapping[EndReason, str] = {
    EndReason.BUSY: "Call again later",
    EndReason.NO_ANSWER: "Call again later",
    EndReason.INVALID_NUMBER: "Write it with + and the country's code",
    EndReason.NOT_ALLOWED: "See the agent's settings and the allowed numbers: callboard phone show",
    EndReason.OVERRIDE_REFUSED: "Allow that override in the agent's security settings, or leave it out",
    EndReason.MISSING_VARIABLE: "Give the variable in the brief",
    EndReason.AUTHENTICATION: "Renew the key: 3, then k",
    EndReason.LIMIT: "End other calls, or look at the account's credit",
    EndReason.UNREACHABLE: "Check the network: callboard doctor",
    EndReason.CONNECTION_LOST: "The vendor cannot take a call up again: r begins a new one",
    EndReason.TIMEOUT: "Call again; if it stays so, look at the vendor's status page",
    EndReason.VENDOR_ERROR: "Call again in a minute",
    EndReason.PROTOCOL_ERROR: "Call again; the log in the recording says more",
    EndReason.DEVICE_LOST: "Plug it in again, or choose another one with v",
    EndReason.INTERRUPTED: "What was recorded until then is kept",
    EndReason.MAYBE_PLACED: "Look at the vendor's list of calls before you dial again",
}


def state_piece(live: LiveCall, now: int, glyphs: Glyphs) -> tuple[str, Tone]:
    """Where the call stands, with a sign and its duration."""
    length = clock_text(live.duration(now))
    detail = f", {display(live.detail)}" if live.detail and live.state is not CallState.LIVE else ""
    if live.state is CallState.LIVE:
        return f"{glyphs.ok} live {length}", Tone.OK
    if live.ended is not None:
        if live.ended.reason.well:
            return f"{glyphs.dot} ended {length}", Tone.MUTED
        return f"{glyphs.failed} ended {length}", Tone.ACT
    return f"{glyphs.states[State.SYNCING]} {live.state.value}{detail}", Tone.MOVING


def cost_text(cost: Cost | None) -> str:
    """What it cost so far; never a figure that nobody gave."""
    return UNKNOWN if cost is None else money(cost.amount, cost.currency)


def money(amount: float | None, currency: str) -> str:
    """An amount with its currency: `0.21 €`, `0.0034 $`, `512 credits`."""
    if amount is None:
        return UNKNOWN
    sign = SIGNS.get(currency.upper(), display(currency))
    if amount == int(amount) and currency.upper() not in SIGNS:
        return f"{int(amount):,} {sign}"
    return f"{amount:,.2f} {sign}" if amount >= 0.01 or amount == 0 else f"{amount:.4f} {sign}"


def echo_words(echo: str) -> str:
    """The state of echo cancelling as part of a sentence."""
    known = {"off": "echo left in", "ready": "no echo heard", "unavailable": "echo not cancelled"}
    return known.get(echo, display(echo))


def end_lines(live: LiveCall) -> tuple[str, str]:
    """How it ended, and what to do: the last advice of the call itself, else the usual one."""
    ended = live.ended
    if ended is None:
        return "", ""
    words = END_WORDS[ended.reason]
    detail = display(ended.detail)
    if detail and detail.lower() != words:
        words = f"{words}: {detail}"
    if ended.code is not None and not ended.reason.well and str(ended.code) not in detail:
        words += f" (code {ended.code})"
    return words[0].upper() + words[1:], "" if ended.reason.well else _advice(live, ended.reason)


def _advice(live: LiveCall, reason: EndReason) -> str:
    for entry in list(live.entries)[-4:][::-1]:
        if entry.who is Who.NOTICE and entry.level == "act" and entry.advice:
            return display(entry.advice)
    return END_ADVICE.get(reason, "")


def transport_words(kind: TransportKind) -> str:
    return "scripted" if kind is TransportKind.MOCK else kind.value
