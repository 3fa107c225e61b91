"""The simulated Twilio account's messages: `/2010-04-01/Accounts/{sid}/Messages…`, on the network's clock.

Shapes: Twilio's OpenAPI document of 2026-04. Most magic numbers are Twilio's own for testing; what happens to
a message on its way (from 0010 on) is ours:

    to +15005550001  refused: not a valid number (21211)     from +15005550007  refused: not owned (21606)
       +15005550002  refused: no way there (21612)                +15005550008  refused: queue full (21611)
       +15005550003  refused: no permission (21408)          any other that is not owned: 21606
       +15005550004  refused: blocked by STOP (21610)
       +15005550009  refused: takes no SMS (21614)
       +15005550010  undelivered, out of reach (30003)
       +15005550011  undelivered, filtered by the carrier (30007)
       +15005550012  is sent, and nothing more is heard of it
       everybody else gets it: queued, sending, sent, delivered

A `StatusCallback` on this machine is told every step, signed with the auth token.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode

from services.simulator.options import ACCOUNT_SID
from services.simulator.posting import Post, Poster
from services.simulator.telephone import E164, OWNED, Telephone
from services.simulator.wire import Json, Reply, Request, Router, answer

_MESSAGES: Final = "/2010-04-01/Accounts/*/Messages"
_SENDING_MS: Final = 300
_SENT_MS: Final = 600
_DELIVERED_MS: Final = 1_500
_LONGEST: Final = 1_600
_PRICE: Final = "-0.00750"
_SERVICE: Final = re.compile(r"MG[0-9a-f]{32}")

_REFUSED: Final[dict[int, tuple[int, str]]] = {
    20404: (404, "The requested resource {} was not found"),
    21211: (400, "Invalid 'To' Phone Number: {}"),
    21212: (400, "Invalid From Number (caller ID): {}"),
    21408: (400, "Permission to send an SMS has not been enabled for the region indicated by the 'To' "
                 "number: {}"),
    21602: (400, "Message body is required."),
    21603: (400, "A 'From' phone number is required."),
    21604: (400, "A 'To' phone number is required."),
    21606: (400, "The 'From' phone number provided ({}) is not a valid message-capable Twilio phone number "
                 "for this destination/account."),
    21610: (400, "Attempt to send to unsubscribed recipient"),
    21611: (429, "This 'From' number has exceeded the maximum number of queued messages"),
    21612: (400, "Message cannot be sent with the current combination of 'To' ({}) and/or 'From' parameters"),
    21614: (400, "'To' number: {}, is not a mobile number"),
    21617: (400, "The concatenated message body exceeds the 1600 character limit"),
}  # fmt: skip
_TO: Final = {
    "+15005550001": 21211,
    "+15005550002": 21612,
    "+15005550003": 21408,
    "+15005550004": 21610,
    "+15005550009": 21614,
}
_FROM: Final = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}
_LOST: Final = {"+15005550010": 30003, "+15005550011": 30007}
_SILENT: Final = "+15005550012"
_OVER: Final = ("delivered", "undelivered")


@dataclass(slots=True)
class Sms:
    """One message. `status` is Twilio's word; times are epoch milliseconds of the network's clock."""

    sid: str
    to: str
    sender: str
    service: str
    body: str
    callback: str
    created_at: int
    changed_at: int
    status: str = "queued"
    sent_at: int | None = None
    error_code: int | None = None


class TwilioMessages:
    """The messages of the account. `page` cuts a page of a list in Twilio's form."""

    def __init__(
        self,
        router: Router,
        telephone: Telephone,
        key: str,
        page: Callable[[Request, str, list[Json]], Reply],
    ) -> None:
        self.sent: dict[str, Sms] = {}
        self._telephone = telephone
        self._key = key
        self._page = page
        self._poster = Poster()
        router.add("POST", f"{_MESSAGES}.json", "write", self._create)
        router.add("GET", f"{_MESSAGES}.json", "list", self._list)
        router.add("GET", f"{_MESSAGES}/*", "detail", self._get)

    def recall(self, rows: list[Json]) -> None:
        """Have these messages, as they were before; what was on its way goes on from here."""
        for row in rows:
            sms = Sms(**row)
            self.sent[sms.sid] = sms
            if sms.status not in _OVER:
                self._plan(sms)

    async def aclose(self) -> None:
        await self._poster.aclose()

    def _create(self, request: Request, account: str) -> Reply:
        if account != ACCOUNT_SID:
            return _refuse(20404, request.path)
        form = dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
        to, sender, service = form.get("To", ""), form.get("From", ""), form.get("MessagingServiceSid", "")
        code = _objection(form, to, sender, service)
        if code:
            return _refuse(code, sender if code in (21212, 21606) else to)
        now = self._telephone.clock.now()
        body = form.get("Body", "")
        if form.get("ContentSid"):
            values = json.loads(form.get("ContentVariables") or "{}")
            body = " ".join([form["ContentSid"], *(str(value) for value in values.values())])
        sid = self._telephone.new_id("SM")
        while sid in self.sent:  # equal seeds give equal ids, also to what came before
            sid = self._telephone.new_id("SM")
        sms = Sms(
            sid,
            to,
            sender,
            service,
            body,
            form.get("StatusCallback", ""),
            now,
            now,
        )
        self.sent[sms.sid] = sms
        self._plan(sms)
        return answer(self._json(sms), 201)

    def _list(self, request: Request, account: str) -> Reply:
        if account != ACCOUNT_SID:
            return _refuse(20404, request.path)
        self._telephone.settle()
        query = request.query
        rows = [
            self._json(sms)
            for sms in reversed(self.sent.values())
            if query.get("To") in (None, "", sms.to) and query.get("From") in (None, "", sms.sender)
        ]
        return self._page(request, "messages", rows)

    def _get(self, request: Request, account: str, name: str) -> Reply:
        self._telephone.settle()
        sms = self.sent.get(name.removesuffix(".json")) if account == ACCOUNT_SID else None
        return _refuse(20404, request.path) if sms is None else answer(self._json(sms))

    def _plan(self, sms: Sms) -> None:
        at = self._telephone.at
        at(_SENDING_MS, lambda: self._become(sms, "sending"))
        if sms.to in _LOST:
            at(_DELIVERED_MS, lambda: self._become(sms, "undelivered", _LOST[sms.to]))
            return
        at(_SENT_MS, lambda: self._become(sms, "sent"))
        if sms.to != _SILENT:
            at(_DELIVERED_MS, lambda: self._become(sms, "delivered"))

    def _become(self, sms: Sms, status: str, error_code: int | None = None) -> None:
        now = self._telephone.clock.now()
        sms.status, sms.error_code, sms.changed_at = status, error_code, now
        if status == "sent":
            sms.sent_at = now
            sms.sender = sms.sender or OWNED[0]
        if sms.callback:
            self._report(sms)

    def _report(self, sms: Sms) -> None:
        fields = {
            "AccountSid": ACCOUNT_SID,
            "ApiVersion": "2010-04-01",
            "From": sms.sender,
            "MessageSid": sms.sid,
            "MessageStatus": sms.status,
            "SmsSid": sms.sid,
            "SmsStatus": sms.status,
            "To": sms.to,
            **({"ErrorCode": str(sms.error_code)} if sms.error_code else {}),
        }
        signed = sms.callback + "".join(name + fields[name] for name in sorted(fields))
        made = hmac.new(self._key.encode(), signed.encode(), hashlib.sha1).digest()
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-twilio-signature": base64.b64encode(made).decode(),
        }
        self._poster.send(Post(sms.callback, urlencode(fields).encode(), headers))

    def _json(self, sms: Sms) -> Json:
        uri = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{sms.sid}"
        over = sms.status in _OVER
        return {
            "account_sid": ACCOUNT_SID,
            "api_version": "2010-04-01",
            "body": sms.body,
            "date_created": _date(sms.created_at),
            "date_sent": _date(sms.sent_at),
            "date_updated": _date(sms.changed_at),
            "direction": "outbound-api",
            "error_code": sms.error_code,
            "error_message": None,
            "from": sms.sender or None,
            "messaging_service_sid": sms.service or None,
            "num_media": "0",
            "num_segments": str(-(-len(sms.body) // 153) if len(sms.body) > 160 else 1),
            "price": _PRICE if over else None,
            "price_unit": "USD",
            "sid": sms.sid,
            "status": sms.status,
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": sms.to,
            "uri": f"{uri}.json",
        }


def _objection(form: dict[str, str], to: str, sender: str, service: str) -> int:
    """Twilio's code for why this cannot be sent; 0 when it can."""
    if not to:
        return 21604
    if not sender and not service:
        return 21603
    if not form.get("Body") and not form.get("ContentSid"):
        return 21602
    if len(form.get("Body", "")) > _LONGEST:
        return 21617
    if not E164.fullmatch(to):
        return 21211
    if to in _TO:
        return _TO[to]
    if service:
        return 0 if _SERVICE.fullmatch(service.lower().replace("mg", "MG", 1)) else 21606
    if sender in _FROM:
        return _FROM[sender]
    named = bool(re.fullmatch(r"[A-Za-z0-9 ]{1,11}", sender)) and any(char.isalpha() for char in sender)
    return 0 if sender in OWNED or named else 21606


def _refuse(code: int, about: str) -> Reply:
    status, text = _REFUSED[code]
    return answer(
        {
            "code": code,
            "message": text.format(about),
            "more_info": f"https://www.twilio.com/docs/errors/{code}",
            "status": status,
        },
        status,
    )


def _date(moment: int | None) -> str | None:
    return None if moment is None else format_datetime(dt.datetime.fromtimestamp(moment // 1000, dt.UTC))
