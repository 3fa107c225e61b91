"""What a vendor's answer or a broken connection means, in words an operator can act on.

Messages name the vendor, and the host where the address may be what is wrong; never a header or the
key. They begin with what a card has room for. Sources of the bodies: the vendors' specs and SDKs (Retell
`error_message`, `message` or `error`; ElevenLabs `detail` as object, list or text).
"""

from __future__ import annotations

import datetime as dt
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from services.errors import Category, ServiceError
from services.text import clean_line

CONNECT_TIMEOUT: Final = 10.0
"""Seconds a connection may take to come about, unless a whole attempt may take less."""

_PERMISSION: Final = re.compile(r"permissions?[\s:]+['\"`]?([A-Za-z][\w.:-]*_[\w.:-]*\w)", re.IGNORECASE)
_ABSENT: Final = re.compile(
    r"\bnot found\b|\b(cannot|could not|can't) find\b|\bdoes not exist\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is spoken to: the vendor's name, the host (with a port if one is given), the base URL's scheme."""

    vendor: str
    host: str
    scheme: str

    def __str__(self) -> str:
        return f"{self.vendor} ({self.host})"


@dataclass(frozen=True, slots=True)
class Explained:
    """What an error body says: the vendor's own sentence (may be empty) and its code words."""

    text: str = ""
    words: tuple[str, ...] = ()


def explain_body(data: Any) -> Explained:
    """The vendor's own words out of an error body of any of the known shapes."""
    if not isinstance(data, dict):
        return Explained(_short(data) if isinstance(data, str) else "")
    detail = data.get("detail", data)
    if isinstance(detail, str):
        return Explained(_short(detail))
    if isinstance(detail, list):
        return Explained("; ".join(filter(None, map(_invalid_field, detail[:3]))))
    if not isinstance(detail, dict):
        return Explained()
    text = _first_text(detail, "error_message", "message", "error")
    if isinstance(detail.get("error"), dict) and not text:
        return explain_body(detail["error"])
    words = (detail.get(name) for name in ("status", "code", "type"))
    return Explained(_short(text), tuple(word for word in words if isinstance(word, str)))


def _first_text(members: dict[str, Any], *names: str) -> str:
    return next((members[name] for name in names if isinstance(members.get(name), str)), "")


def _invalid_field(item: Any) -> str:
    if not isinstance(item, dict):
        return ""
    where = item.get("loc")
    path = ".".join(str(part) for part in where) if isinstance(where, list) else ""
    return _short(": ".join(filter(None, (path, str(item.get("msg", ""))))))


def _short(text: str) -> str:
    line = clean_line(text[:2000])
    return line if len(line) <= 240 else line[:239] + "…"


def web_page(peer: Peer, status: int) -> ServiceError:
    """The error of a web page where JSON belongs: nothing it says is the vendor's API speaking.

    Above all a 404 that is a page must not pass for a deleted agent, nor a firewall's 403 for a wrong key.
    """
    answered = "answered" if status < 300 else f"answered {status} {_reason(status)}".rstrip()
    return ServiceError(
        f"{peer} {answered} with a web page instead of JSON",
        advice="Check the base URL; a firewall or the network's login page in between answers like this too",
        code="html",
    )


def from_status(peer: Peer, status: int, headers: Mapping[str, str], data: Any, now: int) -> ServiceError:
    """The error of an answer with a status of 300 or more. `now` in epoch milliseconds."""
    said = explain_body(data)
    because = f": {said.text.rstrip('.')}" if said.text else ""
    wait = retry_after(headers, now)
    if 300 <= status < 400:
        return _redirected(peer, headers.get("location", ""))
    if "quota_exceeded" in said.words:
        return ServiceError(
            f"{peer.vendor} says the quota of this account is used up{because}",
            advice=f"Raise the quota or the plan at {peer.vendor}, or wait for the next period",
            code="quota_exceeded",
        )
    if {"missing_permissions", "missing_permission"} & set(said.words):
        return _missing_permission(peer, because, said.text)
    if status == 401:
        return ServiceError(
            f"{peer.vendor} refused the key{because}",
            category=Category.AUTHENTICATION,
            advice=f"Create or copy a valid API key at {peer.vendor} and rotate this connection's key",
            code="wrong_key",
        )
    if status == 403:
        return _missing_permission(peer, because, said.text)
    if status == 429:
        return _too_many(peer, because, wait)
    if status == 408 or status >= 500:
        return ServiceError(
            f"{peer.vendor} answered {status} {_reason(status)}{because}".rstrip(),
            category=Category.TIMEOUT if status in (408, 504) else Category.TRANSIENT,
            advice=f"Try again in a few minutes; if it stays, look at the status page of {peer.vendor}",
            code="server_error",
            retry_after=wait,
        )
    if status in (400, 422) and _ABSENT.search(said.text):
        # Retell answers 422 as well as 404 for an asset it does not find (its spec documents both).
        status = 404
    return _refused(peer, status, because)


def _refused(peer: Peer, status: int, because: str) -> ServiceError:
    if status == 402:
        return ServiceError(
            f"{peer.vendor} wants a payment first{because}",
            advice=f"Set up billing for this account at {peer.vendor}",
            code="payment_required",
        )
    if status in (404, 410):
        return ServiceError(
            f"{peer.vendor} does not know what was asked for{because}",
            advice=f"It was deleted at {peer.vendor}, or the base URL or the key belongs elsewhere",
            code="not_found",
        )
    if status in (400, 422):
        return ServiceError(
            f"{peer.vendor} did not accept the request{because}",
            advice="Check that the base URL is this vendor's API and that the program is up to date",
            code="invalid_request",
        )
    return ServiceError(
        f"{peer.vendor} answered {status} {_reason(status)}{because}".rstrip(),
        category=Category.TRANSIENT if status in (409, 425) else Category.PERMANENT,
        advice="Check that the base URL is this vendor's API",
        code="refused",
    )


def _missing_permission(peer: Peer, because: str, text: str) -> ServiceError:
    found = _PERMISSION.search(text)
    name = f" the permission {found[1]}" if found else " a permission"
    return ServiceError(
        f"The key lacks{name} at {peer.vendor}{because}",
        category=Category.AUTHENTICATION,
        advice=f"Give the key{name} at {peer.vendor}, or use another key",
        code="missing_permission",
    )


def _too_many(peer: Peer, because: str, wait: float | None) -> ServiceError:
    when = f", retry in {spell_seconds(wait)}" if wait else ""
    return ServiceError(
        f"{peer.vendor} answered 429 too many requests{when}{because}",
        category=Category.RATE_LIMIT,
        advice=f"Wait {spell_seconds(wait) if wait else 'a minute'} and sync again",
        code="rate_limited",
        retry_after=wait,
    )


def _redirected(peer: Peer, location: str) -> ServiceError:
    try:
        target = urlsplit(location)
        to = _short(f"{target.scheme}://{target.hostname}" if target.hostname else target.path or "")
    except ValueError:
        to = ""
    return ServiceError(
        f"{peer} answered with a redirect{f' to {to}' if to else ''}, which is not followed with a key",
        advice="Check the base URL; a login page of the network in between answers like this too",
        code="redirect",
    )


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return ""


def spell_seconds(seconds: float) -> str:
    """Seconds for people: `40 s`, `5 min`, `2 h`."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"


def retry_after(headers: Mapping[str, str], now: int) -> float | None:
    """The seconds to wait by `retry-after-ms`, else by `retry-after` (seconds or an HTTP date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        if re.fullmatch(r"\d{1,15}(\.\d{0,15})?", value):
            return float(value) * unit
        if name == "retry-after":
            try:
                at = parsedate_to_datetime(value)
                # HTTP dates are UTC, also where the zone is written as "-0000" or left out.
                at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)
                return max(0.0, at.timestamp() - now / 1000)
            except (ValueError, TypeError, OverflowError):
                return None
    return None


# Broken connections


def from_transport(peer: Peer, exc: BaseException, timeout: float) -> ServiceError:
    """The error of a request that got no whole answer."""
    causes = tuple(_causes(exc))
    if isinstance(exc, (httpx.TimeoutException, TimeoutError)):
        connecting = isinstance(exc, httpx.ConnectTimeout)
        what = "could not be reached" if connecting else "did not answer completely"
        timeout = min(CONNECT_TIMEOUT, timeout) if connecting else timeout
        return ServiceError(
            f"{peer} {what} within {spell_seconds(timeout)}",
            category=Category.TIMEOUT,
            advice="Check the network and try again; a longer request timeout helps on slow lines",
            code="timeout",
        )
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _tls(peer, cause)
    if isinstance(exc, httpx.ProxyError):
        return _unreachable(peer, "the proxy refused", "Check the proxy settings (HTTPS_PROXY)")
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return _unreachable(
                peer,
                "its name could not be resolved (DNS)",
                "Check the host name in the base URL and that this machine is online",
            )
        if isinstance(cause, ConnectionRefusedError):
            return _unreachable(
                peer,
                "nothing listens there (connection refused)",
                "Check the host and port of the base URL, and that the server runs",
            )
    if isinstance(exc, httpx.ConnectError):
        return _unreachable(peer, "no connection came about", "Check the network, VPN and firewall")
    if isinstance(exc, (httpx.NetworkError, httpx.RemoteProtocolError, httpx.DecodingError, OSError)):
        return ServiceError(
            f"{peer.vendor} broke the connection off before the answer was complete",
            category=Category.TRANSIENT,
            advice="Try again; if it stays, check the network in between",
            code="connection_lost",
        )
    return ServiceError(
        f"The request to {peer.vendor} could not be made",
        advice="Check the base URL and the key for stray characters",
        code="bad_request",
    )


def _unreachable(peer: Peer, why: str, advice: str) -> ServiceError:
    return ServiceError(
        f"{peer} cannot be reached: {why}", category=Category.TRANSIENT, advice=advice, code="unreachable"
    )


def _tls(peer: Peer, exc: ssl.SSLError) -> ServiceError:
    if isinstance(exc, ssl.SSLCertVerificationError):
        why = clean_line(str(getattr(exc, "verify_message", "") or "not trusted"))
        return ServiceError(
            f"The certificate of {peer} cannot be trusted: {why}",
            advice="Check the clock and the base URL; behind an inspecting proxy set SSL_CERT_FILE",
            code="certificate",
        )
    return ServiceError(
        f"No secure connection (TLS) to {peer} came about",
        advice="Check that the port of the base URL speaks https",
        code="tls",
    )


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The exception and everything behind it, groups of parallel connection attempts included."""
    todo: list[BaseException | None] = [exc]
    seen: set[int] = set()
    while todo:
        current = todo.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        todo += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            todo += current.exceptions
