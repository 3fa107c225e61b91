"""Whether this machine reaches anything at all: what everything that leaves it hangs on.

Without it a machine that is off its network is an outage of every vendor at once. Nobody else is asked but
the hosts that are watched anyway, and these only whether they take a connection; behind a proxy it is the
proxy.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from services.blocking import in_daemon_thread
from services.health.checks.endpoints import Host, host_of
from services.health.model import HealthState, Reading
from services.http.addresses import is_loopback

NETWORK: Final = "system:network"
MOST: Final = 8
"""Hosts that are tried."""
SECONDS: Final = 3.0
ADVICE: Final = "Check the network of this machine: cable, wireless, VPN, name server"
_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that nobody has (RFC 5737, RFC 3849); nothing is sent to them."""


class Try(Enum):
    """What became of trying one host."""

    REACHED = "reached"
    NO_NAME = "no such name"
    NO_NAME_SERVER = "no name server"
    SILENT = "silent"


class NetworkProbe:
    """Tries the hosts of `urls`. `routed`: whether the machine has a way to anywhere."""

    def __init__(
        self,
        urls: Callable[[], Awaitable[Sequence[str]]],
        environ: Mapping[str, str],
        *,
        attempt: Callable[[Host], Awaitable[Try]] | None = None,
        routed: Callable[[], bool] | None = None,
    ) -> None:
        self._urls = urls
        self._environ = environ
        self._attempt = attempt or _attempt
        self._routed = routed or _routed

    async def __call__(self) -> Reading:
        proxy = next((value for name in _PROXIES if (value := self._environ.get(name))), "")
        hosts = _hosts([proxy]) if proxy else _hosts(await self._urls())
        if not hosts:
            return Reading(HealthState.UP, "nothing beyond this machine is watched")
        tries = await asyncio.gather(*(self._attempt(host) for host in hosts))
        reached = tries.count(Try.REACHED)
        facts = (("machine", socket.gethostname()), ("tried", ", ".join(str(host) for host in hosts)))
        if reached:
            words = "reaches the proxy" if proxy else f"reaches {reached} of {len(hosts)} hosts"
            return Reading(HealthState.UP, words, facts=facts)
        reason = self._reason(tries, proxy)
        if reason is None:
            # The fault may as well be that one host's: its own check tells.
            return Reading(HealthState.UP, "only one host is watched, and it does not answer", facts=facts)
        return Reading(HealthState.DOWN, reason, ADVICE, "transient", facts=facts)

    def _reason(self, tries: Sequence[Try], proxy: str) -> str | None:
        if not self._routed():
            return "This machine has no network"
        if all(one is Try.NO_NAME_SERVER for one in tries):
            return "No name can be resolved: the name server does not answer"
        if len(tries) > 1 and Try.SILENT not in tries:
            return "No name can be resolved"
        if proxy:
            return "The proxy cannot be reached"
        return f"None of {len(tries)} hosts can be reached" if len(tries) > 1 else None


def leaves(url: str) -> bool:
    """Whether what has this address is beyond this machine; an empty one is a vendor's own."""
    return not is_loopback(urlsplit(url).hostname or "")


def _hosts(urls: Sequence[str]) -> list[Host]:
    found = {host_of(url) for url in urls if leaves(url)}
    return sorted(host for host in found if host is not None)[:MOST]


async def _attempt(host: Host) -> Try:
    try:
        addresses = await in_daemon_thread(
            lambda: socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM),
            SECONDS,
            name="callboard-resolve",
        )
    except socket.gaierror as error:
        # A name server's answer; but without any network, some systems say it of every name.
        return Try.NO_NAME_SERVER if error.errno == socket.EAI_AGAIN else Try.NO_NAME
    except TimeoutError:
        return Try.NO_NAME_SERVER
    except (OSError, ValueError):
        return Try.SILENT
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(str(addresses[0][4][0]), host.port)
    except ConnectionRefusedError:
        return Try.REACHED
    except OSError:  # no answer in time, too
        return Try.SILENT
    writer.close()
    return Try.REACHED


def _routed() -> bool:
    """Whether a packet would know where to go; none is sent."""
    for family, address in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
        except OSError:
            continue
        return True
    return False
