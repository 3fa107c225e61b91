"""The simulated Twilio REST API of one account: calls, numbers, messages (`/2010-04-01/Accounts/{sid}/…`).

Shapes: Twilio's OpenAPI document of 2026-04. Requests are form-encoded with HTTP Basic authentication
(account SID and auth token), times are RFC 2822, errors are `{code, message, more_info, status}`.

Assumed, since no source says: the sentences of the errors; that `start_time` is set when the number is
dialled; that a page of calls holds the newest first.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode

from services.simulator import words
from services.simulator.options import ACCOUNT_SID
from services.simulator.sockets import SocketRoutes
from services.simulator.telephone import OWNED, LineCall, Refused, Telephone
from services.simulator.twilio_messages import TwilioMessages
from services.simulator.wire import Json, Reply, Request, Router, answer

TWILIO: Final = "twilio"
_ACCOUNTS: Final = "/2010-04-01/Accounts"
_API_VERSION: Final = "2010-04-01"
_CALL_SID: Final = re.compile(r"CA[0-9a-f]{32}")
_PRICE_PER_MINUTE: Final = 0.014

_MESSAGES: Final[dict[int, tuple[int, str]]] = {
    20003: (401, "Authenticate"),
    20404: (404, "The requested resource {} was not found"),
    20429: (429, "Too Many Requests"),
    20500: (500, "An internal server error has occurred"),
    21201: (400, "No 'To' number is specified"),
    21205: (400, "Url parameter is required."),
    21210: (400, "The source phone number provided, {}, is not yet verified for your account. You may only "
                 "make calls from phone numbers that you've verified or purchased from Twilio."),
    21211: (400, "The phone number you are attempting to call, {}, is not valid."),
    21213: (400, "A 'From' phone number is required."),
    21214: (400, "The phone number you are attempting to call, {}, cannot be reached by Twilio."),
    21215: (400, "Account not authorized to call {}. Perhaps you need to enable some international "
                 "permissions: https://www.twilio.com/console/voice/calls/geo-permissions/low-risk"),
    21216: (400, "Account not allowed to call {}"),
    21218: (400, "Invalid parameter: {}"),
    21220: (400, "Call is not in-progress. Cannot redirect."),
    70051: (403, "Authorization Error"),
}  # fmt: skip


def failure(code: int, about: str = "", status: int = 0) -> Reply:
    """Twilio's error body: `{code, message, more_info, status}`."""
    known, text = _MESSAGES.get(code, (status, "The request failed"))
    return answer(
        {
            "code": code,
            "message": text.format(about),
            "more_info": f"https://www.twilio.com/docs/errors/{code}",
            "status": status or known,
        },
        status or known,
    )


def refusal_text(code: int, number: str) -> str:
    """Twilio's sentence for a call that is refused with this code."""
    return _MESSAGES[code][1].format(number)


class TwilioAccount:
    """One Twilio account behind one port."""

    provider = TWILIO

    def __init__(self, key: str, limited_key: str, telephone: Telephone) -> None:
        self.router = Router()
        self.sockets = SocketRoutes()
        self._key = _basic(ACCOUNT_SID, key)
        self._limited = _basic(ACCOUNT_SID, limited_key)
        self._telephone = telephone
        add = self.router.add
        add("GET", f"{_ACCOUNTS}/*", "account", self._account)
        add("GET", f"{_ACCOUNTS}/*/Calls.json", "list", self._list_calls)
        add("POST", f"{_ACCOUNTS}/*/Calls.json", "write", self._create_call)
        add("GET", f"{_ACCOUNTS}/*/Calls/*", "detail", self._get_call)
        add("POST", f"{_ACCOUNTS}/*/Calls/*", "write", self._update_call)
        add("GET", f"{_ACCOUNTS}/*/IncomingPhoneNumbers.json", "list", self._list_numbers)
        self.messages = TwilioMessages(self.router, telephone, key, self._page)

    # What every vendor offers to the server and to the control requests.

    async def aclose(self) -> None:
        """Ends what is being reported; the telephone network is stopped by its owner."""
        await self.messages.aclose()

    def refuse(self, request: Request) -> Reply | None:
        """The answer to a request whose credentials do not do, or None."""
        given = request.headers.get(b"authorization", b"")
        if given == self._key:
            return None
        return self.lacks_permission() if given == self._limited else self.revoked()

    def revoked(self) -> Reply:
        return failure(20003)

    def lacks_permission(self) -> Reply:
        return failure(70051)

    def failure(self, status: int) -> Reply:
        code = {401: 20003, 403: 70051, 404: 20404, 429: 20429}.get(status, 20500 if status >= 500 else 21218)
        return failure(code, status=status)

    def not_found(self) -> Reply:
        return failure(20404, "")

    def names(self) -> list[tuple[str, str]]:
        """It has no agents."""
        return []

    def has_object(self, object_id: str) -> bool:
        return object_id in self._telephone.calls or object_id in self.messages.sent

    def edit(self, agent_id: str, part: str, patch: Json) -> Json | None:
        """It has no agents."""
        return None

    def remove(self, agent_id: str) -> bool:
        """It has no agents."""
        return False

    # Account and numbers

    def _account(self, request: Request, name: str) -> Reply:
        if name != f"{ACCOUNT_SID}.json":
            return failure(20404, request.path)
        return answer({
            "sid": ACCOUNT_SID,
            "owner_account_sid": ACCOUNT_SID,
            "friendly_name": "Simulated account",
            "status": "active",
            "type": "Full",
            "date_created": _date(words.EPOCH_MS),
            "date_updated": _date(words.EPOCH_MS),
            "uri": f"{_ACCOUNTS}/{ACCOUNT_SID}.json",
            "subresource_uris": {"calls": f"{_ACCOUNTS}/{ACCOUNT_SID}/Calls.json"},
        })  # fmt: skip

    def _list_numbers(self, request: Request, account: str) -> Reply:
        if account != ACCOUNT_SID:
            return failure(20404, request.path)
        wanted = request.query.get("PhoneNumber", "")
        rows = [self._number(index, number) for index, number in enumerate(OWNED) if wanted in number]
        return self._page(request, "incoming_phone_numbers", rows)

    def _number(self, index: int, number: str) -> Json:
        sid = f"PN{index + 1:032x}"
        made = _date(words.EPOCH_MS)
        return {
            "sid": sid,
            "account_sid": ACCOUNT_SID,
            "friendly_name": f"Line {index + 1}",
            "phone_number": number,
            "capabilities": {"voice": True, "sms": True, "mms": False, "fax": False},
            "address_requirements": "none",
            "beta": False,
            "origin": "twilio",
            "api_version": _API_VERSION,
            "voice_url": None,
            "voice_receive_mode": "voice",
            "status": "in-use",
            "trunk_sid": None,
            "date_created": made,
            "date_updated": made,
            "uri": f"{_ACCOUNTS}/{ACCOUNT_SID}/IncomingPhoneNumbers/{sid}.json",
        }

    # Calls

    def _create_call(self, request: Request, account: str) -> Reply:
        if account != ACCOUNT_SID:
            return failure(20404, request.path)
        form = _form(request)
        to, from_ = form.get("To", ""), form.get("From", "")
        if not to:
            return failure(21201)
        if not from_:
            return failure(21213)
        if not any(form.get(name) for name in ("Url", "Twiml", "ApplicationSid")):
            return failure(21205)
        if from_ not in OWNED:
            return failure(21210, from_)
        timeout = form.get("Timeout", "60")
        if not timeout.isdecimal() or not 1 <= int(timeout) <= 600:
            return failure(21218, "Timeout")
        try:
            call = self._telephone.place(from_, to, ring_timeout_ms=int(timeout) * 1000)
        except Refused as refused:
            return failure(refused.code, to)
        return answer(self._call(call), 201)

    def _list_calls(self, request: Request, account: str) -> Reply:
        if account != ACCOUNT_SID:
            return failure(20404, request.path)
        self._telephone.settle()
        query = request.query
        since, until = query.get("StartTime>"), query.get("StartTime<")
        try:
            earliest = _moment(since) if since else None
            latest = _moment(until) if until else None
        except ValueError:
            return failure(21218, "StartTime")
        rows = [
            self._call(call)
            for call in reversed(self._telephone.calls.values())
            if query.get("To") in (None, "", call.to_number)
            and query.get("From") in (None, "", call.from_number)
            and query.get("Status") in (None, "", call.status)
            and (earliest is None or (call.dialled_at is not None and call.dialled_at >= earliest))
            and (latest is None or (call.dialled_at is not None and call.dialled_at <= latest))
        ]
        return self._page(request, "calls", rows)

    def _get_call(self, request: Request, account: str, name: str) -> Reply:
        call = self._found(account, name)
        return failure(20404, request.path) if call is None else answer(self._call(call))

    def _update_call(self, request: Request, account: str, name: str) -> Reply:
        call = self._found(account, name)
        if call is None:
            return failure(20404, request.path)
        status = _form(request).get("Status", "")
        if status not in ("completed", "canceled"):
            return failure(21218, "Status")
        # `canceled` ends only what is not answered yet and leaves a talk alone; `completed` ends both.
        if call.over:
            return failure(21220)
        if status == "completed" or call.status != "in-progress":
            self._telephone.hang_up(call, "api")
        return answer(self._call(call))

    def _found(self, account: str, name: str) -> LineCall | None:
        self._telephone.settle()
        sid = name.removesuffix(".json")
        usable = account == ACCOUNT_SID and name.endswith(".json") and _CALL_SID.fullmatch(sid)
        return self._telephone.calls.get(sid) if usable else None

    def _call(self, call: LineCall) -> Json:
        uri = f"{_ACCOUNTS}/{ACCOUNT_SID}/Calls/{call.sid}"
        talked = call.status == "completed" and call.answered_at is not None and call.ended_at is not None
        seconds = -(-((call.ended_at or 0) - (call.answered_at or 0)) // 1000) if talked else 0
        return {
            "sid": call.sid,
            "date_created": _date(call.created_at),
            "date_updated": _date(call.changed_at),
            "parent_call_sid": None,
            "account_sid": ACCOUNT_SID,
            "to": call.to_number,
            "to_formatted": call.to_number,
            "from": call.from_number,
            "from_formatted": call.from_number,
            "phone_number_sid": None,
            "status": call.status,
            "start_time": _date(call.dialled_at),
            "end_time": _date(call.ended_at),
            "duration": str(seconds) if call.over else None,
            "price": f"{-_PRICE_PER_MINUTE * -(-seconds // 60):.5f}" if talked else None,
            "price_unit": "USD",
            "direction": "outbound-api",
            "answered_by": None,
            "api_version": _API_VERSION,
            "forwarded_from": None,
            "group_sid": None,
            "caller_name": None,
            "queue_time": "0",
            "trunk_sid": None,
            "uri": f"{uri}.json",
            "subresource_uris": {
                "notifications": f"{uri}/Notifications.json",
                "recordings": f"{uri}/Recordings.json",
                "events": f"{uri}/Events.json",
            },
        }

    def _page(self, request: Request, name: str, rows: list[Json]) -> Reply:
        query = request.query
        size, number = query.get("PageSize", "50"), query.get("Page", "0")
        if not size.isdecimal() or not 1 <= int(size) <= 1000 or not number.isdecimal():
            return failure(21218, "PageSize")
        start = int(size) * int(number)
        page = rows[start : start + int(size)]

        def uri(of: int) -> str:
            return f"{request.path}?{urlencode({**query, 'PageSize': size, 'Page': of})}"

        more = len(rows) > start + int(size)
        return answer({
            name: page,
            "page": int(number),
            "page_size": int(size),
            "start": start,
            "end": start + max(0, len(page) - 1),
            "uri": uri(int(number)),
            "first_page_uri": uri(0),
            "next_page_uri": uri(int(number) + 1) if more else None,
            "previous_page_uri": uri(int(number) - 1) if int(number) else None,
        })  # fmt: skip


def _basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))


def _date(moment: int | None) -> str | None:
    """RFC 2822 in UTC, as Twilio writes times; None for one that has not come."""
    return None if moment is None else format_datetime(dt.datetime.fromtimestamp(moment // 1000, dt.UTC))


def _moment(text: str) -> int:
    """Epoch milliseconds of a query's time: a date, ISO 8601, or RFC 2822. Raises ValueError."""
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        at = parsedate_to_datetime(text)
    return int((at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp() * 1000)
