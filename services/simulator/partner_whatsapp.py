"""The simulated WhatsApp Business Cloud API, below `/whatsapp`; shapes: Meta's OpenAPI document v23.0.

Anybody gets a text or an approved template; its reports come by webhook only, signed with `APP_SECRET`. The
webhook is set up as at Meta, by `POST /whatsapp/{version}/{app id}/subscriptions`, and asked for its
challenge then. A recipient may be a telephone number or a user's id towards the business (BSUID); reports
about the latter carry no number.

    +15005550001  cannot get it: 131026, reported later
    +15005550003  refused: too fast, 130429
    +15005550004  outside the 24 hours: 131047, reported later      +15005550005  the same, refused at once
    +15005550012  is sent, and nothing more is heard of it
    +15005550013  gets it, and writes back

Templates: `appointment_reminder` (de, en_US; two places), `hello_world` (en_US, none), `named_greeting` (de;
the place `name`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from services.simulator.partners import Partner, Partners
from services.simulator.posting import Post, Poster
from services.simulator.telephone import Telephone
from services.simulator.wire import Json, Reply, Request, answer

PREFIX: Final = "/whatsapp"
APP_SECRET: Final = "sim-app-secret"  # noqa: S105  # guards made-up data on this machine
PHONE_NUMBER_ID: Final = "106540352242922"
BUSINESS_ID: Final = "102290129340398"

_BSUID: Final = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")
_NUMBER: Final = re.compile(r"\+?[0-9]{7,15}")
_LATER: Final = {
    "15005550001": (131026, "Message undeliverable"),
    "15005550004": (131047, "Re-engagement message"),
}
_AT_ONCE: Final = {
    "15005550003": (130429, 429, "Rate limit hit"),
    "15005550005": (131047, 400, "Re-engagement message"),
}
_SILENT: Final = "15005550012"
_TALKATIVE: Final = "15005550013"
_TEMPLATES: Final = (
    ("appointment_reminder", "de", ("1", "2"), "Ihr Termin am {{1}} um {{2}}"),
    ("appointment_reminder", "en_US", ("1", "2"), "Your appointment on {{1}} at {{2}}"),
    ("hello_world", "en_US", (), "Hello World"),
    ("named_greeting", "de", ("name",), "Guten Tag {{name}}"),
)
_SENT_MS: Final = 400
_DELIVERED_MS: Final = 900
_READ_MS: Final = 2_000
_REPLY_MS: Final = 3_000


@dataclass(slots=True)
class WhatsAppMessage:
    """One message that was taken over."""

    id: str
    recipient: str
    body: Json
    statuses: list[str] = field(default_factory=list)


class WhatsApp:
    """One business with one number."""

    def __init__(self, telephone: Telephone) -> None:
        self.sent: dict[str, WhatsAppMessage] = {}
        self.webhook = ""
        self._telephone = telephone
        self._poster = Poster()
        self.given = 0
        """How many ids were given out."""

    def recall(self, given: int) -> None:
        """Give out no id again that was given out before."""
        self.given = given

    def _next(self) -> int:
        self.given += 1
        return self.given

    async def aclose(self) -> None:
        await self._poster.aclose()

    # The business, its number and templates

    def number(self, request: Request, version: str, object_id: str) -> Reply:
        if object_id != PHONE_NUMBER_ID:
            return _missing(object_id)
        return answer({
            "id": PHONE_NUMBER_ID,
            "verified_name": "Simulated business",
            "display_phone_number": "+1 500 555 0100",
            "quality_rating": "GREEN",
        })  # fmt: skip

    def templates(self, request: Request, version: str, business: str) -> Reply:
        if business != BUSINESS_ID:
            return _missing(business)
        rows = [
            {
                "name": name,
                "language": language,
                "status": "APPROVED",
                "category": "UTILITY",
                "id": str(594425479261596 + index),
                "components": [{"type": "BODY", "text": text}],
            }
            for index, (name, language, _, text) in enumerate(_TEMPLATES)
        ]
        return answer({"data": rows, "paging": {"cursors": {"before": "MAZDZD", "after": "MjQZD"}}})

    async def subscribe(self, request: Request, version: str, app: str) -> Reply:
        """As at Meta: the address must answer with the challenge before it is taken."""
        given = request.json_object() or dict(parse_qsl(request.body.decode("utf-8", "replace")))
        url, token = str(given.get("callback_url", "")), str(given.get("verify_token", ""))
        challenge = f"{self._next():010d}"
        query = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token}
        if await self._poster.ask(url, query) != challenge:
            return failure(2200, 400, "(#2200) Callback verification failed")
        self.webhook = url
        return answer({"success": True})

    # Messages

    def send(self, request: Request, version: str, object_id: str) -> Reply:
        if object_id != PHONE_NUMBER_ID:
            return _missing(object_id)
        body = request.json_object()
        if body is None or body.get("messaging_product") != "whatsapp":
            return failure(100, 400, "(#100) The parameter messaging_product is required.")
        # If both are there, the number counts.
        recipient = str(body.get("to") or body.get("recipient") or "")
        known_as_user = not body.get("to") and bool(_BSUID.fullmatch(recipient))
        if not known_as_user and not _NUMBER.fullmatch(recipient):
            return failure(
                100, 400, "(#100) Invalid parameter", "The recipient is not a valid number or user"
            )
        digits = recipient.removeprefix("+")
        if digits in _AT_ONCE:
            code, status, text = _AT_ONCE[digits]
            return failure(code, status, f"(#{code}) {text}")
        wrong = _objection(body)
        if wrong is not None:
            return wrong
        message = WhatsAppMessage(f"wamid.SIM{self._next():028d}", recipient, body)
        self.sent[message.id] = message
        self._plan(message, digits, known_as_user)
        contact = {"user_id": recipient} if known_as_user else {"wa_id": digits}
        return answer({
            "messaging_product": "whatsapp",
            "contacts": [{"input": recipient, **contact}],
            "messages": [{"id": message.id, "message_status": "accepted"}],
        })  # fmt: skip

    def _plan(self, message: WhatsAppMessage, digits: str, known_as_user: bool) -> None:
        at = self._telephone.at
        if digits in _LATER:
            at(_SENT_MS, lambda: self._report(message, "failed", known_as_user, _LATER[digits]))
            return
        at(_SENT_MS, lambda: self._report(message, "sent", known_as_user))
        if digits != _SILENT:
            at(_DELIVERED_MS, lambda: self._report(message, "delivered", known_as_user))
            at(_READ_MS, lambda: self._report(message, "read", known_as_user))
        if digits == _TALKATIVE:
            at(_REPLY_MS, lambda: self._answer(message))

    def _answer(self, message: WhatsAppMessage) -> None:
        self.write(message.recipient, "Thanks, that suits me", reply_to=message.id)

    def write(self, sender: str, text: str, *, name: str = "Robin Example", reply_to: str = "") -> str:
        """Somebody, a number or a user's id towards the business, writes to it; the message's id."""
        message_id = f"wamid.SIM{self._next():028d}"
        by_user = bool(_BSUID.fullmatch(sender))
        digits = sender.removeprefix("+")
        contact = {"user_id": sender} if by_user else {"wa_id": digits, "user_id": f"US.{digits}"}
        told: dict[str, Any] = {
            "id": message_id,
            "timestamp": str(self._telephone.clock.now() // 1000),
            "type": "text",
            "text": {"body": text},
            **({"from_user_id": sender} if by_user else {"from": digits, "from_user_id": f"US.{digits}"}),
        }
        if reply_to:
            told["context"] = {"from": "15005550100", "id": reply_to}
        self._post({"contacts": [{"profile": {"name": name}, **contact}], "messages": [told]})
        return message_id

    def _report(
        self,
        message: WhatsAppMessage,
        status: str,
        known_as_user: bool,
        error: tuple[int, str] | None = None,
    ) -> None:
        message.statuses.append(status)
        who = {"recipient_user_id" if known_as_user else "recipient_id": message.recipient.removeprefix("+")}
        told: dict[str, Any] = {
            "id": message.id,
            "status": status,
            "timestamp": str(self._telephone.clock.now() // 1000),
            **who,
        }
        if message.body.get("biz_opaque_callback_data"):
            told["biz_opaque_callback_data"] = message.body["biz_opaque_callback_data"]
        if error is not None:
            code, text = error
            told["errors"] = [
                {"code": code, "title": text, "message": text, "error_data": {"details": f"{text}."}}
            ]
        self._post({"statuses": [told]})

    def _post(self, found: Json) -> None:
        """Tell the webhook, if one is set up."""
        if not self.webhook:
            return
        value = {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15005550100", "phone_number_id": PHONE_NUMBER_ID},
            **found,
        }
        envelope = {
            "object": "whatsapp_business_account",
            "entry": [{"id": BUSINESS_ID, "changes": [{"field": "messages", "value": value}]}],
        }
        body = json.dumps(envelope).encode()
        signature = hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-hub-signature-256": f"sha256={signature}"}
        self._poster.send(Post(self.webhook, body, headers))


def mount(partners: Partners, telephone: Telephone) -> WhatsApp:
    """Add the service; it lives in the telephone network's time."""
    store = WhatsApp(telephone)
    add = partners.router.add
    add("POST", f"{PREFIX}/*/*/messages", "write", store.send)
    add("GET", f"{PREFIX}/*/*", "account", store.number)
    add("GET", f"{PREFIX}/*/*/message_templates", "list", store.templates)
    add("POST", f"{PREFIX}/*/*/subscriptions", "write", store.subscribe)
    partners.add(Partner(PREFIX, _failure_of, store.aclose))
    return store


def failure(code: int, status: int, message: str, details: str = "") -> Reply:
    """Meta's error body."""
    error: Json = {
        "message": message,
        "type": "OAuthException",
        "code": code,
        "fbtrace_id": "AcSimulatedTrace",
    }
    if details:
        error["error_data"] = {"messaging_product": "whatsapp", "details": details}
    return answer({"error": error}, status)


def _failure_of(status: int) -> Reply:
    known = {
        401: (190, "Invalid OAuth access token - Cannot parse access token"),
        403: (10, "(#10) Application does not have permission for this action"),
        404: (100, "Unsupported get request. Object does not exist"),
        429: (130429, "(#130429) Rate limit hit"),
    }
    code, text = known.get(status, (131000, "(#131000) Something went wrong"))
    return failure(code, status, text)


def _missing(object_id: str) -> Reply:
    return failure(
        100,
        400,
        f"Unsupported request. Object with ID '{object_id}' does not exist, cannot be loaded due to missing "
        "permissions, or does not support this operation",
    )


def _objection(body: Json) -> Reply | None:
    kind = body.get("type")
    if kind == "text":
        text = body.get("text")
        if not isinstance(text, dict) or not text.get("body"):
            return failure(100, 400, "(#100) The parameter text['body'] is required.")
        return None
    if kind != "template":
        return failure(131051, 400, "(#131051) Unsupported message type")
    template = body.get("template")
    if not isinstance(template, dict):
        return failure(100, 400, "(#100) The parameter template is required.")
    language = template.get("language")
    code = str(language.get("code")) if isinstance(language, dict) else ""
    wanted = (str(template.get("name")), code)
    places = {(name, lang): names for name, lang, names, _ in _TEMPLATES}.get(wanted)
    if places is None:
        return failure(
            132001, 404, "(#132001) Template name does not exist in the translation",
            f"template name ({template.get('name')}) does not exist in {code}",
        )  # fmt: skip
    given = [
        parameter
        for component in template.get("components") or []
        if component.get("type") == "body"
        for parameter in component.get("parameters") or []
    ]
    named = [parameter.get("parameter_name") for parameter in given if parameter.get("parameter_name")]
    fits = sorted(named) == sorted(places) if named else len(given) == len(places)
    if not fits:
        return failure(
            132000, 400, "(#132000) Number of parameters does not match the expected number of params",
            f"body: number of localizable_params ({len(given)}) does not match the expected number of params "
            f"({len(places)})",
        )  # fmt: skip
    return None
