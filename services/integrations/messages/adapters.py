"""The ways of sending that can be configured: what each needs, and which channel it serves. Light."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.integrations.messages.model import Channel
from services.integrations.model import AdapterInfo, Kind

TWILIO_SMS: Final = "twilio-sms"
SMTP: Final = "smtp"
WHATSAPP: Final = "whatsapp"
PHONE: Final = "phone"
CHAT: Final = "chat-webhook"
GATEWAY: Final = "http-messages"

ADAPTERS: Final[tuple[AdapterInfo, ...]] = (
    AdapterInfo(
        TWILIO_SMS,
        Kind.MESSAGES,
        "SMS by Twilio",
        secret="auth token",  # noqa: S106  # what it is called
        default_url="https://api.twilio.com",
        config={
            "account_sid*": "The account SID: AC and 32 letters and digits",
            "from": "The sender, a number of the account in international form or a sender name",
            "messaging_service": "The messaging service that chooses the sender: MG and 32 characters",
            "status_callback": "The public address of /webhooks/twilio/messages, where Twilio reports to",
        },
        more_secrets={"shared_key": "shared key, where Twilio signs its reports with one (SHA-256)"},
    ),
    AdapterInfo(
        SMTP,
        Kind.MESSAGES,
        "E-mail by SMTP",
        secret="password",  # noqa: S106
        secret_required=False,
        config={
            "host*": "The mail server",
            "from*": 'The sender: name@example.com, or "Name <name@example.com>"; bounces go there',
            "port": "Its port; 587 for starttls, 465 for implicit",
            "tls": "starttls (the default), implicit, or none for a server on this machine",
            "user": "The account at the mail server; without one nobody logs in",
            "reply_to": "Where answers go, if not to the sender",
            "ca_file": "A file with the certificates to trust, for a mail server with one of its own",
        },
    ),
    AdapterInfo(
        WHATSAPP,
        Kind.MESSAGES,
        "WhatsApp Cloud API",
        secret="access token",  # noqa: S106
        default_url="https://graph.facebook.com",
        config={
            "phone_number_id*": "The id of the sending number in the WhatsApp manager, digits only",
            "version": "The version of the Graph API; v23.0 unless said otherwise",
        },
        more_secrets={
            "app_secret": "app secret, with which Meta signs its reports",
            "verify_token": "verify token, which Meta repeats when the webhook is set up",
        },
    ),
    AdapterInfo(
        PHONE,
        Kind.MESSAGES,
        "Phone call by an agent",
        config={
            "from": "The number to call from; else the vendor's own choice",
            "variable": "The agent's variable that gets the text; message unless said otherwise",
        },
    ),
    AdapterInfo(
        CHAT,
        Kind.MESSAGES,
        "Chat by webhook",
        secret="signing secret",  # noqa: S106
        secret_required=False,
        needs_url=True,
    ),
    AdapterInfo(
        GATEWAY,
        Kind.MESSAGES,
        "Messages by an HTTP service",
        secret="API key",  # noqa: S106
        secret_required=False,
        needs_url=True,
    ),
)

OF_CHANNEL: Final[Mapping[Channel, str]] = {
    Channel.SMS: TWILIO_SMS,
    Channel.EMAIL: SMTP,
    Channel.WHATSAPP: WHATSAPP,
    Channel.PHONE: PHONE,
    Channel.CHAT: CHAT,
}
"""The adapter made for each channel; the HTTP service and the simulation serve all of them."""


def serves(adapter: str, channel: Channel) -> bool:
    """Whether messages of this channel can go this way."""
    return adapter in (OF_CHANNEL[channel], GATEWAY)


def can_be_asked(adapter: str) -> bool:
    """Whether its provider says, when asked, what became of a message."""
    return adapter in (TWILIO_SMS, PHONE, GATEWAY)
