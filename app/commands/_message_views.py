"""How messages, sent and received, look on the command line: in words and as documented JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.output import iso, paint, write_line
from services.integrations.messages.model import MessageState
from services.text import clean_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.integrations.messages import InboundRow, MessageEventRow, MessageRow

NOT_KEPT = "(not kept any more)"
STYLES = {
    MessageState.DELIVERED.value: "green",
    MessageState.READ.value: "green",
    MessageState.FAILED.value: "red",
    MessageState.UNKNOWN.value: "yellow",
}


def state_of(row: MessageRow) -> str:
    """The state in words; what was only simulated never reads as done."""
    return f"{row.state.value} (simulated)" if row.simulated else row.state.value


def print_message(row: MessageRow, events: Sequence[MessageEventRow]) -> None:
    """One message that was sent, its steps and its text."""
    template = row.template
    facts = [
        ("message", row.id),
        ("company", row.company),
        ("to", f"{row.recipient} by {row.channel}"),
        ("from", row.sender),
        ("by", f"{row.integration} ({row.adapter})"),
        ("state", state_of(row) + (", followed" if row.followed else "")),
        ("remark", row.remark),
        ("error", row.error.message if row.error else ""),
        ("try", row.error.advice if row.error else ""),
        ("their id", row.provider_id),
        ("again of", row.resend_of),
        ("subject", row.subject),
        ("template", f"{template.name} {template.language} {dict(template.parameters)}" if template else ""),
    ]
    _print_facts(facts)
    write_line()
    for event in events:
        detail = f"  {clean_line(event.detail)}" if event.detail else ""
        write_line(f"{iso(event.at)}  {event.state.value:<9}  {event.source:<6}{detail}".rstrip())
    _print_text(row.body, row.text_removed_at)


def _print_facts(facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, value in facts if value) + 1
    for name, value in facts:
        if value:
            write_line(f"{paint(f'{name:<{max(width, 10)}}', 'dim')}{clean_line(value)}")


def _print_text(text: str, removed_at: int | None) -> None:
    if removed_at is not None:
        write_line()
        write_line(paint(f"The text is not kept any more; it was deleted at {iso(removed_at)}.", "dim"))
    elif text:
        write_line()
        for line in text.splitlines():
            write_line(clean_line(line))


def print_inbound(row: InboundRow) -> None:
    """One message that came in."""
    user = f" ({row.sender_user})" if row.sender_user not in ("", row.sender) else ""
    _print_facts(
        [
            ("message", row.id),
            ("company", row.company or "not known: the integration serves all of them"),
            ("from", f"{row.sender}{user}"),
            ("calls itself", row.sender_name),
            ("to", f"{row.recipient} by {row.channel}"),
            ("by", row.integration),
            ("sent", iso(row.sent_at) or ""),
            ("received", iso(row.received_at) or ""),
            ("what", "" if row.kind == "text" else row.kind),
            ("their id", row.provider_id),
            ("answers", row.reply_to),
        ]
    )
    _print_text(row.body, row.text_removed_at)


def heard(row: InboundRow) -> str:
    """The text on one line; of what is no text what it is, too."""
    if row.text_removed_at is not None:
        return NOT_KEPT
    text = clean_line(row.body)
    return text if row.kind == "text" else f"[{row.kind}] {text}".rstrip()


def as_dict(row: MessageRow) -> dict[str, Any]:
    """The documented JSON of a message."""
    return {
        "id": row.id,
        "company": row.company,
        "channel": row.channel.value,
        "adapter": row.adapter,
        "integration": row.integration,
        "agent": row.agent_row,
        "to": row.recipient,
        "sender": row.sender,
        "subject": row.subject,
        "body": row.body,
        "template": row.template.as_dict() if row.template else None,
        "state": row.state.value,
        "followed": row.followed,
        "simulated": row.simulated,
        "remark": row.remark,
        "provider_id": row.provider_id,
        "resend_of": row.resend_of or None,
        "error": row.error.as_dict() if row.error else None,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "text_removed_at": iso(row.text_removed_at),
    }


def inbound_dict(row: InboundRow) -> dict[str, Any]:
    """The documented JSON of a message that came in."""
    return {
        "id": row.id,
        "company": row.company or None,
        "channel": row.channel.value,
        "integration": row.integration,
        "from": row.sender,
        "user": row.sender_user or None,
        "name": row.sender_name,
        "to": row.recipient,
        "kind": row.kind,
        "body": row.body,
        "reply_to": row.reply_to or None,
        "provider_id": row.provider_id,
        "sent_at": iso(row.sent_at),
        "received_at": iso(row.received_at),
        "text_removed_at": iso(row.text_removed_at),
    }
