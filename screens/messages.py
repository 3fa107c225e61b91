"""Messages as the activity shows them: what was sent and what came in, and all that is known of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from screens.glyphs import Glyphs, Tone
from screens.textfit import display, sentence
from screens.when import exact, moment
from screens.widgets.table import Column, Row

if TYPE_CHECKING:
    from services.integrations.messages import InboundRow, MessageEventRow, MessageRow

COLUMNS = (
    Column("when", 12),
    Column("who", 20),
    Column("over", 8),
    Column("state", 21),
    Column("text"),
    Column("remark", rank=1),
    Column("company", 14, rank=2),
    Column("by", 12, rank=3),
)
"""At 80 columns who, how and what became of it stay; what is left out stands below the table."""
NOTHING = "No message was sent and none came in: callboard message send"
_TONES = {
    "queued": Tone.MOVING,
    "sending": Tone.MOVING,
    "delivered": Tone.OK,
    "read": Tone.OK,
    "failed": Tone.ACT,
    "unknown": Tone.LOOK,
}
NOT_KEPT = "not kept any more"


def row_of(message: MessageRow | InboundRow, glyphs: Glyphs, now: int, zone: str) -> Row:
    """One line. Its key is whether it came in, and its id."""
    sent = sent_of(message)
    if sent is None:
        inbound: InboundRow = message  # type: ignore[assignment]  # it is one of the two
        cells = (
            (moment(inbound.received_at, now, zone), Tone.PLAIN),
            (f"from {inbound.sender}", Tone.PLAIN),
            (inbound.channel.value, Tone.MUTED),
            ("received", Tone.OK),
            (_heard(inbound), Tone.PLAIN),
            (inbound.sender_name, Tone.MUTED),
            (inbound.company, Tone.MUTED),
            (inbound.integration, Tone.MUTED),
        )
        return Row((True, inbound.id), cells)
    cells = (
        (moment(sent.created_at, now, zone), Tone.PLAIN),
        (f"to {sent.recipient}", Tone.PLAIN),
        (sent.channel.value, Tone.MUTED),
        (state_words(sent), _TONES.get(sent.state.value, Tone.PLAIN)),
        (_said(sent), Tone.PLAIN),
        (
            sentence(sent.error.message, sent.error.advice) if sent.error is not None else sent.remark,
            Tone.ACT if sent.error is not None else Tone.MUTED,
        ),
        (sent.company, Tone.MUTED),
        (sent.integration, Tone.MUTED),
    )
    return Row((False, sent.id), cells)


def sent_of(message: MessageRow | InboundRow) -> MessageRow | None:
    """The message if it is one that was sent; None for one that came in."""
    return message if hasattr(message, "state") else None  # type: ignore[return-value]  # only sent ones have one


def at_of(message: MessageRow | InboundRow) -> int:
    """By when it stands in the list, epoch milliseconds."""
    sent = sent_of(message)
    return sent.created_at if sent is not None else message.received_at  # type: ignore[union-attr]  # see above


def state_words(message: MessageRow) -> str:
    """The state; what was only simulated never reads as done."""
    return f"{message.state.value} (simulated)" if message.simulated else message.state.value


def whole(message: MessageRow | InboundRow, steps: Sequence[MessageEventRow], zone: str) -> str:
    """All that is known of a message, its steps and its text."""
    sent = sent_of(message)
    if sent is None:
        inbound: InboundRow = message  # type: ignore[assignment]  # it is one of the two
        user = f" ({inbound.sender_user})" if inbound.sender_user not in ("", inbound.sender) else ""
        facts = [
            ("message", inbound.id),
            ("company", inbound.company or "not known: the integration serves all of them"),
            ("from", f"{inbound.sender}{user}"),
            ("calls itself", inbound.sender_name),
            ("to", f"{inbound.recipient} by {inbound.channel}"),
            ("by", inbound.integration),
            ("sent", exact(inbound.sent_at, zone)),
            ("received", exact(inbound.received_at, zone)),
            ("what", "" if inbound.kind == "text" else inbound.kind),
            ("their id", inbound.provider_id),
            ("answers", inbound.reply_to),
        ]
        return _page(facts, [], inbound.body, inbound.text_removed_at, zone)
    template = sent.template
    facts = [
        ("message", sent.id),
        ("company", sent.company),
        ("to", f"{sent.recipient} by {sent.channel}"),
        ("from", sent.sender),
        ("by", f"{sent.integration} ({sent.adapter})"),
        ("state", state_words(sent) + (", followed" if sent.followed else "")),
        ("remark", sent.remark),
        ("error", sentence(sent.error.message, sent.error.advice) if sent.error is not None else ""),
        ("their id", sent.provider_id),
        ("again of", sent.resend_of),
        ("subject", sent.subject),
        ("template", f"{template.name} {template.language} {dict(template.parameters)}" if template else ""),
    ]
    told = [
        f"{exact(step.at, zone)}  {step.state.value:<9}  {step.source:<6}  {display(step.detail)}".rstrip()
        for step in steps
    ]
    return _page(facts, told, sent.body, sent.text_removed_at, zone)


def _page(
    facts: Sequence[tuple[str, str]], steps: Sequence[str], text: str, removed_at: int | None, zone: str
) -> str:
    label = max(len(name) for name, _ in facts) + 2
    parts = ["\n".join(f"{name.ljust(label)}{display(value)}" for name, value in facts if value)]
    parts += ["\n".join(steps)] if steps else []
    if removed_at is not None:
        parts.append(f"The text is not kept any more; it was deleted at {exact(removed_at, zone)}.")
    elif text:
        parts.append("\n".join(display(line) for line in text.splitlines()))
    return "\n\n".join(parts)


def _said(message: MessageRow) -> str:
    if message.text_removed_at is not None:
        return NOT_KEPT
    text = ": ".join(part for part in (message.subject, message.body) if part)
    return text or (f"template {message.template.name}" if message.template is not None else "")


def _heard(message: InboundRow) -> str:
    if message.text_removed_at is not None:
        return NOT_KEPT
    return message.body if message.kind == "text" else f"[{message.kind}] {message.body}".rstrip()
