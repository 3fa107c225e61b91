"""Checks of what is beyond the machine: vendor hosts over TLS, proxies, the clock, the time zone.

Each host is asked once (HEAD, without a key); network and clock share the answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from services.blocking import in_daemon_thread
from services.clock import Clock
from services.health.doctor import Finding, Level

HOST_SECONDS = 3.0
TOLERATED_SECONDS = 30
"""A Date header has whole seconds and a slow line adds some; vendors refuse signatures minutes off."""
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Host:
    """An address to try; `used` when something configured depends on it, so that its absence is a failure.

    `tcp://HOST:PORT` is connected to, everything else is asked over HTTP.
    """

    name: str
    url: str
    used: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    host: Host
    problem: str = ""
    advice: str = ""
    ahead: float | None = None
    """Seconds that the host's clock is ahead of ours."""


class Network:
    """The hosts and the checks on them. `environ` gives the proxies to report."""

    def __init__(
        self,
        hosts: Sequence[Host],
        environ: Mapping[str, str],
        clock: Clock,
        *,
        time_limit: float = HOST_SECONDS,
    ) -> None:
        self._hosts = hosts
        self._environ = environ
        self._clock = clock
        self._time_limit = time_limit
        self._asking: asyncio.Task[list[_Answer]] | None = None

    async def hosts(self) -> Sequence[Finding]:
        """One finding for each host, and one for the proxies where some are set."""
        findings = [_finding(answer) for answer in await self._answers()]
        proxies = {name: self._environ.get(name) or self._environ.get(name.lower()) for name in _PROXIES}
        seen = [f"{name}={without_user(value)}" for name, value in proxies.items() if value]
        if seen:
            advice = "If a host cannot be reached, check these first"
            findings.append(Finding("proxy", Level.OK, ", ".join(seen), advice))
        return findings

    async def clock(self) -> Sequence[Finding]:
        """This machine's clock against the Date headers of the hosts that answered."""
        offsets = sorted(answer.ahead for answer in await self._answers() if answer.ahead is not None)
        if not offsets:
            advice = "Run doctor again when a vendor can be reached"
            return [Finding("clock", Level.WARN, "unknown: no host to compare it with answered", advice)]
        ahead = offsets[len(offsets) // 2]
        if abs(ahead) <= TOLERATED_SECONDS:
            return [Finding("clock", Level.OK, "right to within half a minute")]
        direction = "slow" if ahead > 0 else "fast"
        advice = (
            "Turn on time synchronisation (timedatectl set-ntp true); TLS and the daily sync depend on it"
        )
        level = Level.FAIL if abs(ahead) > 300 else Level.WARN
        return [Finding("clock", level, f"{abs(ahead):.0f} seconds {direction}", advice)]

    async def zone(self, name: str) -> Sequence[Finding]:
        """Whether the time zone database has the configured zone, and what time it is there."""
        return await in_daemon_thread(lambda: [_zone(name, self._clock)], self._time_limit)

    async def aclose(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _answers(self) -> list[_Answer]:
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all(), name="doctor-network")
        # Two checks wait for it: one that is given up must not take it from the other.
        return await asyncio.shield(self._asking)

    async def _ask_all(self) -> list[_Answer]:
        return list(await asyncio.gather(*(self._ask(host) for host in self._hosts)))

    async def _ask(self, host: Host) -> _Answer:
        try:
            # The name server is asked without a limit of its own: the thread is given up a little later.
            return await in_daemon_thread(
                lambda: _head(host, self._clock, self._time_limit), self._time_limit + 0.5
            )
        except TimeoutError:
            return _Answer(host, *_SILENT)


_SILENT = ("no answer in time", "Check the network, the name server and the firewall")


def _finding(answer: _Answer) -> Finding:
    name = f"network: {answer.host.name}"
    target = without_user(answer.host.url)
    if not answer.problem:
        return Finding(name, Level.OK, f"{target} reached")
    level = Level.FAIL if answer.host.used else Level.WARN
    return Finding(name, level, f"{target}: {answer.problem}", answer.advice)


def _head(host: Host, clock: Clock, time_limit: float) -> _Answer:
    """Ask with the library that the clients use: same proxies, same trusted certificates."""
    import httpx

    parts = urlsplit(host.url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    try:
        if parts.scheme == "tcp":
            socket.create_connection((parts.hostname or "", parts.port or 0), time_limit).close()
            return _Answer(host)
        with httpx.Client(timeout=time_limit, trust_env=not local) as client:
            before = clock.now()
            answer = client.head(host.url)
            middle = (before + clock.now()) / 2000
    except (httpx.TimeoutException, TimeoutError):
        return _Answer(host, *_SILENT)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return _Answer(host, *_explain(error))
    stamp = answer.headers.get("date", "")
    try:
        # Half a second: the header leaves the fraction out.
        ahead = parsedate_to_datetime(stamp).timestamp() + 0.5 - middle if stamp else None
    except (TypeError, ValueError, OverflowError):
        ahead = None
    return _Answer(host, ahead=ahead)


def _explain(error: BaseException) -> tuple[str, str]:
    text, cause = str(error), error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
        text += f" {cause}"
    lowered = text.lower()
    if "certificate" in lowered:
        return (
            "its TLS certificate is not trusted",
            "Check the clock; behind an inspecting proxy, point SSL_CERT_FILE to its certificate authority",
        )
    if "ssl" in lowered or "tls" in lowered:
        return "no TLS connection could be made", "Check the address (https?) and proxies on the way"
    if "getaddrinfo" in lowered or "name or service" in lowered or "resolution" in lowered:
        return "the name cannot be resolved", "Check the network and the name server, and the spelling"
    if "refused" in lowered:
        return "the connection was refused", "Check the address and the port, and whether the server runs"
    return "cannot be reached", "Check the network, the proxies and the address"


def without_user(url: str) -> str:
    """The URL without the name and password it may carry."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]


def _zone(name: str, clock: Clock) -> Finding:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    try:
        there = datetime.fromtimestamp(clock.now() / 1000, ZoneInfo(name))
    except (KeyError, ValueError, OSError):
        return Finding(
            "time zone",
            Level.FAIL,
            f"this machine's time zone database has no {name}",
            "Install it (Debian, Ubuntu: apt install tzdata; or pip install tzdata), or correct timezone",
        )
    return Finding("time zone", Level.OK, f"{name}, {there:%H:%M} there now")
