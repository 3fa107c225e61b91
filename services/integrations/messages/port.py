"""What every way of sending offers to the service, and what they share in checking what is to be sent."""

from __future__ import annotations

from typing import Final, Protocol

from services.errors import ServiceError, UsageError
from services.integrations.messages.model import Channel, MessageRow, Order, Report
from services.model import ErrorInfo
from services.resilience import Subject, advice_of
from services.security import redact
from services.text import clean_line

MOST_CHARACTERS: Final = {
    Channel.SMS: 1_600,  # Twilio refuses longer ones (21617)
    Channel.WHATSAPP: 4_096,  # the Cloud API's limit of text.body
    Channel.EMAIL: 1_000_000,
    Channel.PHONE: 4_000,
    Channel.CHAT: 100_000,
}


class MessageAdapter(Protocol):
    """One integration, ready for use. Belongs to one event loop. Errors are `ServiceError`."""

    async def checked(self, order: Order) -> Order:
        """The order as it would be sent, its recipient in canonical form. Raises UsageError."""
        ...

    async def send(self, order: Order) -> Report:
        """Hand it over, once. What `effects.is_uncertain` says of a failure must be true."""
        ...

    async def look(self, message: MessageRow) -> Report | None:
        """What the provider says now; None where it cannot be asked, and so never will be."""
        ...

    async def find(self, message: MessageRow, taken: frozenset[str]) -> Report | None:
        """The message whose answer was lost; None when it was certainly never taken over.

        `taken` are the provider's ids of other messages. Raises ServiceError with code `cannot_tell`
        where the provider cannot say.
        """
        ...

    async def probe(self) -> str:
        """One free authenticated request for a health check; what to say of it, in a few words.

        Counts against nobody's limits. Raises ServiceError, `untestable` where there is nothing to ask.
        """
        ...

    async def aclose(self) -> None: ...


def cannot_tell(provider: str, why: str = "") -> ServiceError:
    """Nobody can say whether a message whose answer was lost was sent.

    `why`: what the provider said when it was asked; empty for one that cannot be asked.
    """
    return ServiceError(
        f"{provider} {why}" if why else f"{provider} cannot be asked whether the message was taken over",
        advice="Ask the recipient; to send it again: callboard message resend",
        code="cannot_tell",
    )


def subject_of(order: Order) -> Subject:
    """Under whose limits a message is sent."""
    agent = str(order.agent_row) if order.agent_row is not None else ""
    return Subject(account=order.company, agent=agent, user=order.actor)


def error_info(error: ServiceError) -> ErrorInfo:
    """A failure as it is stored: without secrets, never without advice."""
    return ErrorInfo(error.category.value, redact(error.message), redact(advice_of(error)))


def require_text(order: Order, *, templates: bool = False) -> None:
    """There is something to say, and not too much. Raises UsageError."""
    if order.template is not None:
        if not templates:
            raise UsageError(
                f"Templates are not for {order.channel} messages",
                advice="Give the text itself",
                code="no_templates",
            )
        if not order.template.name.strip():
            raise UsageError("The template has no name", advice="Give it with --template", code="no_template")
    elif not order.body.strip():
        raise UsageError(
            "There is nothing to send: the text is empty",
            advice="Give the text, or pipe it in",
            code="no_body",
        )
    most = MOST_CHARACTERS[order.channel]
    if len(order.body) > most:
        raise UsageError(
            f"The text has {len(order.body):,} characters; {order.channel} takes {most:,} at most",
            advice="Shorten it, or send several messages",
            code="too_long",
        )


def refuse_subject(order: Order) -> None:
    """Only some ways have a subject; silently dropping one would lose words. Raises UsageError."""
    if order.subject:
        raise UsageError(
            f"A message by {order.channel} has no subject",
            advice="Leave it out, or put it into the text",
            code="no_subject",
        )


def one_line(text: str, what: str, longest: int = 256) -> str:
    """The text, if it is one printable line. Raises UsageError."""
    plain = text.strip()
    if not plain or len(plain) > longest or not plain.isprintable():
        raise UsageError(
            f"{clean_line(text)[:60]!r} cannot be {what}",
            advice=f"It is one line of at most {longest} characters",
            code="bad_recipient",
        )
    return plain


def phone_number(text: str) -> str:
    """E.164. Raises UsageError."""
    from services.calls.telephony.numbers import parse_number

    try:
        return parse_number(text)
    except ServiceError as error:
        failure = UsageError(error.message, advice=error.advice, code=error.code)
    raise failure


def text_of(value: object) -> str:
    """A text or whole number as text; empty for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)
