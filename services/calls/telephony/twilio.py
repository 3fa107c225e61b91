"""Twilio's REST API, as far as phone calls need it: the account, its numbers, one call's status, hanging up.

Twilio never places a call for this program: the agents' vendors do. Source: Twilio's OpenAPI document of
2026-04 (`/2010-04-01/Accounts/{sid}/…`, HTTP Basic, form-encoded bodies, RFC 2822 times).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.http.client import Call, Http, HttpOptions, segment
from services.http.wire import parse
from services.resilience import Policy
from services.security import Secret

T = TypeVar("T")

BASE_URL: Final = "https://api.twilio.com"
OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""The statuses after which nothing changes any more."""

_SID: Final = re.compile(r"AC[0-9a-fA-F]{32}")
_ROOT: Final = "/2010-04-01/Accounts"
_MOST_NUMBERS: Final = 1000


@dataclass(frozen=True, slots=True)
class TwilioAccount:
    """Whose credentials these are; `status` is `active`, `suspended` or `closed`."""

    name: str
    status: str


@dataclass(frozen=True, slots=True)
class TwilioCall:
    """A call as Twilio sees it. `created_at` in epoch milliseconds (whole seconds), `seconds` talked."""

    sid: str
    status: str
    from_number: str
    to_number: str
    created_at: int | None
    seconds: int | None
    price: float | None
    """What it cost, positive; None until Twilio has counted."""
    currency: str

    @property
    def over(self) -> bool:
        return self.status in OVER


def checked_account_sid(text: str) -> str:
    """An account SID. Raises `UsageError` for what cannot be one."""
    sid = text.strip()
    if not _SID.fullmatch(sid):
        raise UsageError(
            "That is not a Twilio account SID",
            advice="Copy the account SID (AC and 32 letters and digits) from the Twilio console",
            code="bad_account_sid",
        )
    return sid


class TwilioClient:
    """One Twilio account. Belongs to one event loop; `aclose` ends it. Methods raise `ServiceError` only."""

    def __init__(
        self,
        account_sid: str,
        token: Secret,
        *,
        clock: Clock,
        base_url: str = BASE_URL,
        timeout: float = 15.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        policy: Policy | None = None,
    ) -> None:
        """`policy`: what its requests go through; one of its own when None."""
        self._sid = checked_account_sid(account_sid)
        self._http = Http(
            HttpOptions(
                vendor="Twilio",
                base_url=base_url,
                key=token,
                user=self._sid,
                clock=clock,
                timeout=timeout,
                user_agent="callboard",
                sleep=sleep,
                policy=policy,
            )
        )

    def __repr__(self) -> str:
        return f"TwilioClient({self._sid})"

    async def aclose(self) -> None:
        await self._http.aclose()

    async def check(self) -> TwilioAccount:
        """Whose credentials these are. Codes of refusal: `wrong_key`, `unreachable`, …

        Asked although the breaker may be open; an answer closes it.
        """
        data = await self._read(Call("GET", f"{_ROOT}/{self._sid}.json"), attempts=2, insist=True)
        name = data.get("friendly_name")
        return TwilioAccount(str(name or self._sid), str(data.get("status") or "unknown"))

    async def numbers(self) -> list[str]:
        """The account's own numbers, E.164."""
        found: list[str] = []
        for page in range(_MOST_NUMBERS // 100):
            query: dict[str, str | int | None] = {"PageSize": 100, "Page": page}
            data = await self._read(Call("GET", f"{self._path}/IncomingPhoneNumbers.json", query))
            rows = data.get("incoming_phone_numbers")
            for row in rows if isinstance(rows, list) else []:
                if isinstance(row, dict) and isinstance(row.get("phone_number"), str):
                    found.append(row["phone_number"])
            if not data.get("next_page_uri"):
                break
        return found

    async def call(self, sid: str) -> TwilioCall:
        """One call as it stands. A single attempt: whoever polls tries again anyway."""
        return _call(await self._read(Call("GET", self._call_path(sid)), attempts=1))

    async def hang_up(self, sid: str) -> TwilioCall:
        """End a call, whether it rings or is answered; one that is over stays as it is.

        Asked again like a read, and whatever the breaker says: ending twice ends once.
        """
        order = Call("POST", self._call_path(sid), form={"Status": "completed"})
        try:
            return _call(await self._read(order, insist=True))
        except ServiceError as error:
            if error.code != "invalid_request":
                raise
        return await self.call(sid)  # Twilio refuses (21220) to end what has ended

    async def newest_calls(self, *, to: str, from_number: str, limit: int = 20) -> list[TwilioCall]:
        """The newest calls between two numbers, newest first.

        Not narrowed by `StartTime`: a call that is still queued has none.
        """
        query: dict[str, str | int | None] = {"To": to, "From": from_number, "PageSize": limit}
        data = await self._read(Call("GET", f"{self._path}/Calls.json", query))
        rows = data.get("calls")
        return [_call(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    @property
    def _path(self) -> str:
        return f"{_ROOT}/{self._sid}"

    def _call_path(self, sid: str) -> str:
        return f"{self._path}/Calls/{segment(sid, 'a call')}.json"

    async def _read(self, call: Call, *, attempts: int = 3, insist: bool = False) -> dict[str, Any]:
        try:
            return await self._http.read(call, _object, attempts=attempts, insist=insist)
        except ServiceError as error:
            failure = error
        if failure.code == "wrong_key":
            raise ServiceError(
                "Twilio refused the account SID or its token",
                category=Category.AUTHENTICATION,
                advice="Copy both from the Twilio console and store them with: callboard phone set COMPANY",
                code="wrong_key",
            )
        raise failure


def _object(text: str) -> dict[str, Any]:
    data = parse(text).data
    if isinstance(data, dict):
        return data
    raise ServiceError("It is not a JSON object", category=Category.TRANSIENT, code="wrong_shape")


def _call(data: dict[str, Any]) -> TwilioCall:
    return TwilioCall(
        sid=str(data.get("sid") or ""),
        status=str(data.get("status") or ""),
        from_number=str(data.get("from") or ""),
        to_number=str(data.get("to") or ""),
        created_at=_time(data.get("date_created")),
        seconds=_whole(data.get("duration")),
        price=_price(data.get("price")),
        currency=str(data.get("price_unit") or ""),
    )


def _time(value: object) -> int | None:
    try:
        return int(parsedate_to_datetime(str(value)).timestamp() * 1000) if value else None
    except (ValueError, TypeError, OverflowError):
        return None


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else None


def _price(value: object) -> float | None:
    """Twilio writes what it takes as a negative number in a text."""
    try:
        return abs(float(value)) if isinstance(value, str) else None
    except ValueError:
        return None
