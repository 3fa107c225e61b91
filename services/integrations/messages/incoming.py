"""What people write to us, as the vendors report it: read and made safe. Pure functions.

Everything here was written by strangers: texts are cut and cleaned, and whatever is not of the expected shape
is left out, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from services.integrations.messages.model import Channel, Received
from services.integrations.messages.port import text_of
from services.integrations.messages.whatsapp import is_business_scoped
from services.text import clean, clean_line

LONGEST_TEXT: Final = 8_192
"""Characters that are kept of one; WhatsApp and Twilio send half as many."""
_LONGEST_NAME: Final = 120
_LONGEST_ID: Final = 200
_KIND: Final = re.compile(r"[a-z][a-z_]{0,39}")
_DIGITS: Final = re.compile(r"[1-9][0-9]{6,14}")
_REPLIES: Final = ("button_reply", "list_reply", "nfm_reply")
_MEDIA: Final = ("image", "video", "audio", "document", "sticker")


def whatsapp_messages(value: Mapping[str, Any]) -> list[Received]:
    """The messages of one change of Meta's `messages` field.

    A user without a telephone number has an id towards the business only: `from_user_id`, or `user_id` of
    the contact; both `from` and `wa_id` are absent then.
    """
    metadata = _object(value.get("metadata"))
    recipient = _number(metadata.get("display_phone_number"))
    contacts = _objects(value.get("contacts"))
    found = []
    for message in _objects(value.get("messages")):
        wamid = _id(message.get("id"))
        if not wamid:
            continue
        contact = _writer(message, contacts)
        user = text_of(message.get("from_user_id")) or text_of(contact.get("user_id"))
        user = user if is_business_scoped(user) else ""
        profile = _object(contact.get("profile"))
        name = text_of(profile.get("name")) or text_of(profile.get("username"))
        kind = text_of(message.get("type"))
        stamp = text_of(message.get("timestamp"))
        found.append(
            Received(
                Channel.WHATSAPP,
                wamid,
                _number(message.get("from")) or user,
                user,
                clean_line(name)[:_LONGEST_NAME],
                recipient,
                kind if _KIND.fullmatch(kind) else "unknown",
                _cut(_words(kind, message)),
                _id(_object(message.get("context")).get("id")),
                int(stamp) * 1000 if re.fullmatch(r"[0-9]{1,11}", stamp) else None,
            )
        )
    return found


def twilio_message(fields: Mapping[str, str]) -> Received | None:
    """The message of Twilio's webhook for incoming ones; None for what is none, such as a delivery report."""
    sid = _id(fields.get("MessageSid") or fields.get("SmsSid"))
    # Delivery reports carry `MessageStatus`; only what came in has the status `received`.
    if not sid or fields.get("SmsStatus") != "received" or fields.get("MessageStatus"):
        return None
    sender, recipient = fields.get("From", ""), fields.get("To", "")
    by_whatsapp = sender.startswith("whatsapp:")
    media = fields.get("NumMedia", "0")
    return Received(
        Channel.WHATSAPP if by_whatsapp else Channel.SMS,
        sid,
        _party(sender),
        "",
        clean_line(fields.get("ProfileName", ""))[:_LONGEST_NAME],
        _party(recipient),
        "media" if media.isdecimal() and int(media[:3]) > 0 else "text",
        _cut(fields.get("Body", "")),
    )


def _writer(message: Mapping[str, Any], contacts: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The contact that wrote it: by number or user id; the only one there is."""
    for contact in contacts:
        for ours, theirs in (("from", "wa_id"), ("from_user_id", "user_id")):
            if text_of(message.get(ours)) and message.get(ours) == contact.get(theirs):
                return contact
    return contacts[0] if len(contacts) == 1 else {}


def _words(kind: str, message: Mapping[str, Any]) -> str:
    """The text of a message of any type, empty where it has none."""
    content = _object(message.get(kind))
    if kind == "text":
        return text_of(content.get("body"))
    if kind in _MEDIA:
        return text_of(content.get("caption")) or text_of(content.get("filename"))
    if kind == "button":
        return text_of(content.get("text"))
    if kind == "interactive":
        reply = next((_object(content.get(each)) for each in _REPLIES if each in content), {})
        return text_of(reply.get("title")) or text_of(reply.get("body"))
    if kind == "reaction":
        return text_of(content.get("emoji"))
    if kind == "location":
        place = [text_of(content.get(each)) for each in ("name", "address")]
        at = [
            str(content[each]) for each in ("latitude", "longitude") if isinstance(content.get(each), float)
        ]
        return ", ".join(each for each in (*place, *at) if each)
    if kind == "contacts":
        names = [_object(each.get("name")) for each in _objects(message.get("contacts"))]
        return ", ".join(text_of(name.get("formatted_name")) for name in names)
    if kind == "system":
        return text_of(content.get("body"))
    first = next(iter(_objects(message.get("errors"))), {})
    return text_of(first.get("title")) or text_of(first.get("message"))


def _cut(text: str) -> str:
    """A stranger's text without what could disturb a terminal, and not longer than is kept."""
    plain = clean(text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    return plain if len(plain) <= LONGEST_TEXT else plain[: LONGEST_TEXT - 1] + "…"


def _number(value: object) -> str:
    """Meta's digits, however they are written, as E.164; empty for anything else."""
    digits = re.sub(r"[ ()+-]", "", text_of(value)[:40])
    return f"+{digits}" if _DIGITS.fullmatch(digits) else ""


def _party(text: str) -> str:
    """A number, a short code or a sender's name, without the channel before it."""
    return clean_line(text.removeprefix("whatsapp:"))[:64]


def _id(value: object) -> str:
    text = text_of(value)
    return text if text.isprintable() and len(text) <= _LONGEST_ID else ""


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
