"""What a vendor's answer or a broken connection means, in words an operator can act on.

Messages name the vendor, and the host where the address may be what is wrong; never a header or the
key. They begin with what a card has room for. What a vendor's error body means is in
`services.resilience.bodies`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from services.errors import Category, ServiceError
from services.resilience.bodies import (
    explain,
    explain_body,
    reason_phrase,
    retry_after,
    shorten,
    spell_seconds,
)
from services.text import clean_line

__all__ = [
    "CONNECT_TIMEOUT",
    "Peer",
    "explain_body",
    "from_status",
    "from_transport",
    "retry_after",
    "spell_seconds",
    "web_page",
]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds a connection may take to come about, unless a whole attempt may take less."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is spoken to: the vendor's name, the host (with a port if one is given), the base URL's scheme."""

    vendor: str
    host: str
    scheme: str
    dialect: str = ""
    """Whose error bodies it speaks; empty for those of the vendor (see `services.resilience.bodies`)."""

    def __str__(self) -> str:
        return f"{self.vendor} ({self.host})"


def web_page(peer: Peer, status: int) -> ServiceError:
    """The error of a web page where JSON belongs: nothing it says is the vendor's API speaking.

    Above all a 404 that is a page must not pass for a deleted agent, nor a firewall's 403 for a wrong key.
    """
    answered = "answered" if status < 300 else f"answered {status} {reason_phrase(status)}".rstrip()
    return ServiceError(
        f"{peer} {answered} with a web page instead of JSON",
        advice="Check the base URL; a firewall or the network's login page in between answers like this too",
        code="html",
    )


def from_status(peer: Peer, status: int, headers: Mapping[str, str], data: object, now: int) -> ServiceError:
    """The error of an answer with a status of 300 or more. `now` in epoch milliseconds."""
    if 300 <= status < 400:
        return _redirected(peer, headers.get("location", ""))
    return explain(peer.vendor, status, data, headers, dialect=peer.dialect, now=now).error()


def _redirected(peer: Peer, location: str) -> ServiceError:
    try:
        target = urlsplit(location)
        to = shorten(f"{target.scheme}://{target.hostname}" if target.hostname else target.path or "")
    except ValueError:
        to = ""
    return ServiceError(
        f"{peer} answered with a redirect{f' to {to}' if to else ''}, which is not followed with a key",
        advice="Check the base URL; a login page of the network in between answers like this too",
        code="redirect",
    )


# Broken connections


def from_transport(
    peer: Peer, exc: BaseException, timeout: float, *, by_setting: bool = True
) -> ServiceError:
    """The error of a request that got no whole answer. `by_setting`: whether another timeout may be set."""
    causes = tuple(_causes(exc))
    if isinstance(exc, (httpx.TimeoutException, TimeoutError)):
        connecting = isinstance(exc, httpx.ConnectTimeout)
        what = "could not be reached" if connecting else "did not answer completely"
        timeout = min(CONNECT_TIMEOUT, timeout) if connecting else timeout
        return ServiceError(
            f"{peer} {what} within {spell_seconds(timeout)}",
            category=Category.TIMEOUT,
            advice="Check the network and try again; a longer request timeout helps on slow lines"
            if by_setting
            else "Check the network, and the vendor's status page; who asked had no more time to wait",
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
