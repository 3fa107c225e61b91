"""What providers report unasked: whose signature is good, and what the report says. Pure functions.

Signatures are made of the bytes as received and compared in constant time. Whatever is wrong with a request
makes a function answer no, never raise.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from services.integrations.messages.incoming import whatsapp_messages
from services.integrations.messages.model import MessageState, Received, Report
from services.integrations.messages.port import error_info, text_of
from services.resilience.bodies import explain

TOLERANCE_SECONDS: Final = 300
"""How far the time of a Standard Webhook may be from ours."""
MOST_BYTES: Final = 4 * 1024 * 1024
"""Meta sends up to 3 MB."""
_CHALLENGE: Final = re.compile(r"[\w.~-]{1,256}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a webhook is answered."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


OK: Final = Answer(200, b"ok")
NOT_SIGNED: Final = Answer(401, b"the signature is missing or wrong")
FORBIDDEN: Final = Answer(403, b"the token is wrong")
UNREADABLE: Final = Answer(400, b"the body cannot be read")
TOO_LARGE: Final = Answer(413, b"the body is too large")
NO_REPLY: Final = Answer(200, b"<Response></Response>", "text/xml; charset=utf-8")
"""To Twilio, which sends the plain text of any other answer back to whoever wrote."""
TRY_AGAIN: Final = Answer(503, b"the report could not be stored, send it again")


@dataclass(frozen=True, slots=True)
class Reported:
    """One report, and of which message: the provider's id, and ours where it is sent back."""

    report: Report
    provider_id: str = ""
    message_id: str = ""


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value, however its name is written."""
    wanted = name.lower()
    return next((value for key, value in headers.items() if key.lower() == wanted), "")


def same(one: str, other: str) -> bool:
    """Whether two secrets are equal, in constant time; two empty ones are not."""
    return bool(one) and hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


# WhatsApp


def challenge_of(query: Mapping[str, str], tokens: Iterable[str]) -> Answer:
    """The answer to Meta's question whether this address is ours: the challenge, given back as plain text."""
    given = query.get("hub.verify_token", "")
    known = [same(token, given) for token in tokens]
    challenge = query.get("hub.challenge", "")
    if query.get("hub.mode") != "subscribe" or not any(known) or not _CHALLENGE.fullmatch(challenge):
        return FORBIDDEN
    return Answer(200, challenge.encode("ascii"))


def hub_signature(secret: str, body: bytes) -> str:
    """The value of `X-Hub-Signature-256`."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def hub_signature_fits(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether Meta signed these bytes with this app secret."""
    given = header(headers, "x-hub-signature-256").strip().lower()
    return bool(secret) and same(hub_signature(secret, body), given)


def read_whatsapp(body: bytes) -> list[tuple[str, Reported | Received]] | None:
    """The status reports and messages of a batch, each with the id of our number; None for what is none.

    Everything unknown is left out. A status names its message, not its recipient: users without a telephone
    number are reported on like all others.
    """
    data = _json(body)
    if not isinstance(data, dict):
        return None
    found: list[tuple[str, Reported | Received]] = []
    for entry in _dicts(data.get("entry")):
        for change in _dicts(entry.get("changes")):
            value = change.get("value")
            if change.get("field") != "messages" or not isinstance(value, dict):
                continue
            metadata = value.get("metadata")
            number = text_of(metadata.get("phone_number_id")) if isinstance(metadata, dict) else ""
            for status in _dicts(value.get("statuses")):
                reported = _whatsapp_status(status)
                if reported is not None:
                    found.append((number, reported))
            found += [(number, message) for message in whatsapp_messages(value)]
    return found


_WHATSAPP_STATES: Final = {
    "sent": MessageState.SENT,
    "delivered": MessageState.DELIVERED,
    "read": MessageState.READ,
    "played": MessageState.READ,
    "failed": MessageState.FAILED,
}


def _whatsapp_status(status: Mapping[str, Any]) -> Reported | None:
    state = _WHATSAPP_STATES.get(text_of(status.get("status")))
    wamid = text_of(status.get("id"))
    if state is None or not wamid:
        return None
    error = None
    if state is MessageState.FAILED:
        first = next(iter(_dicts(status.get("errors"))), {})
        error = error_info(explain("WhatsApp", 0, first).error())
    stamp = text_of(status.get("timestamp"))
    at = int(stamp) * 1000 if stamp.isdecimal() and len(stamp) <= 11 else None
    report = Report(state, wamid, error=error, at=at)
    return Reported(report, wamid, text_of(status.get("biz_opaque_callback_data")))


# Twilio


def twilio_signature(key: str, url: str, fields: Iterable[tuple[str, str]], digest: str = "sha1") -> str:
    """The value of `X-Twilio-Signature`: the URL and the sorted fields, each value of a name once."""
    values: dict[str, set[str]] = {}
    for name, value in fields:
        values.setdefault(name, set()).add(value)
    text = url + "".join(name + value for name in sorted(values) for value in sorted(values[name]))
    made = hmac.new(key.encode(), text.encode("utf-8", "surrogatepass"), digest)
    return base64.b64encode(made.digest()).decode("ascii")


def twilio_signature_fits(
    token: str, shared_key: str, url: str, headers: Mapping[str, str], body: bytes
) -> bool:
    """Whether Twilio signed this request: with the auth token (SHA-1), or a shared key (SHA-256).

    The URL is tried as given, without its port and with the one of its scheme: what Twilio was told, and
    what it signs, differ in that. A JSON body is signed through `bodySHA256` in the query.
    """
    given = header(headers, "x-twilio-signature").strip()
    settings = header(headers, "x-twilio-webhooks-signature-settings")
    key, digest = token, "sha1"
    if settings:
        parts = dict(part.strip().partition("=")[::2] for part in settings.split(","))
        if parts.get("algorithm", "").upper() != "HMAC_SHA256":
            return False
        key, digest = shared_key, "sha256"
    if not key or not given:
        return False
    fields = parse_form(body)
    hashed = dict(parse_qsl(urlsplit(url).query)).get("bodySHA256", "")
    if hashed:
        fields = []
        if not same(hashlib.sha256(body).hexdigest(), hashed.lower()):
            return False
    return any(same(twilio_signature(key, each, fields, digest), given) for each in _spellings(url))


def _spellings(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return [url]
    host = f"[{host}]" if ":" in host else host
    bare = urlunsplit(parts._replace(netloc=host))
    standard = port or (443 if parts.scheme == "https" else 80)
    return list(dict.fromkeys((url, bare, urlunsplit(parts._replace(netloc=f"{host}:{standard}")))))


def parse_form(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form, in their order, repeated ones too."""
    try:
        return parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        return []


def read_twilio(fields: Mapping[str, str], query: str) -> Reported | None:
    """The report of a status callback; None for what is none. Our own id stands in the query."""
    from services.integrations.messages.twilio import report_of

    report = report_of(
        {
            "sid": fields.get("MessageSid") or fields.get("SmsSid") or "",
            "status": fields.get("MessageStatus") or fields.get("SmsStatus") or "",
            "error_code": fields.get("ErrorCode") or "",
            "error_message": fields.get("ErrorMessage") or "",
            "from": fields.get("From") or "",
        }
    )
    if report is None:
        return None
    return Reported(report, report.provider_id, dict(parse_qsl(query)).get("message", ""))


# Chat: the scheme of Standard Webhooks, both ways


def standard_signature(secret: str, message_id: str, stamp: int | str, body: bytes) -> str:
    """The value of `webhook-signature`: `v1,` and the HMAC of `id.timestamp.body`."""
    signed = f"{message_id}.{stamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(_standard_key(secret), signed, hashlib.sha256).digest()).decode()


def standard_signature_fits(secret: str, headers: Mapping[str, str], body: bytes, now: int) -> bool:
    """Whether one of the signatures is good and the time (`now` in epoch ms) is near."""
    stamp = header(headers, "webhook-timestamp").strip()
    message_id = header(headers, "webhook-id").strip()
    if not secret or not message_id or not re.fullmatch(r"[0-9]{1,12}", stamp):
        return False
    if abs(now / 1000 - int(stamp)) > TOLERANCE_SECONDS:
        return False
    wanted = standard_signature(secret, message_id, stamp, body)
    given = header(headers, "webhook-signature").split()[:20]
    return any(same(wanted, each) for each in given)


def _standard_key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            pass
    return secret.encode()


def read_chat(body: bytes) -> Reported | None:
    """A chat receiver's report: `{"id": our message's id, "state": "delivered", "detail": "…"}`."""
    from services.integrations.messages.gateway import report_of

    data = _json(body)
    if not isinstance(data, dict) or not text_of(data.get("id")):
        return None
    message_id = text_of(data["id"])
    report = report_of({**data, "id": "", "status": data.get("state") or data.get("status")})
    return None if report is None else Reported(report, message_id=message_id)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
