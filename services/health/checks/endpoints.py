"""Whether the hosts that agents point at can be reached: a connection, and TLS where the address says so.

Nothing is requested: a webhook or a tool must not believe that it was called. Hosts are asked once for all
agents that name them, and not again for a while. Only public addresses are tried, and the connection is made
to the very address that was looked at: what somebody wrote into an agent at a vendor must not become a way
to find out about the network this program runs in. Addresses of this machine are tried only where the
vendors are simulated on it; names that are reserved for examples (RFC 2606) never.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from services.blocking import in_daemon_thread
from services.clock import Clock

FRESH: Final = 300.0
"""Seconds for which a host that was reached is believed to be there."""
DOUBTED: Final = 60.0
"""The same for one that was not."""
TIMEOUT: Final = 8.0
AT_ONCE: Final = 8
MOST: Final = 200
"""Hosts that are looked at in one round; the others wait for the next."""
_EXAMPLES: Final = ("example", "test", "invalid", "example.com", "example.net", "example.org")


@dataclass(frozen=True, slots=True, order=True)
class Host:
    """Where a URL leads, without its path."""

    name: str
    port: int
    tls: bool

    def __str__(self) -> str:
        usual = 443 if self.tls else 80
        return self.name if self.port == usual else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Reached:
    """What was found. `ok` is None where it was not tried, `remark` says why."""

    ok: bool | None
    remark: str = ""
    at: float = 0.0


def host_of(url: str) -> Host | None:
    """The host of an address; None where there is none to be known (a template, another scheme)."""
    if "{{" in url:
        return None
    try:
        parts = urlsplit(url.strip())
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if not name or scheme not in ("http", "https", "ws", "wss") or port == 0:
        return None
    tls = scheme in ("https", "wss")
    return Host(name.rstrip("."), port or (443 if tls else 80), tls)


Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Connect = Callable[[Host, str], Awaitable[None]]


class Endpoints:
    """Remembers which hosts can be reached. Belongs to one event loop."""

    def __init__(
        self,
        clock: Clock,
        *,
        local: bool = False,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
    ) -> None:
        """`local`: whether addresses of this machine may be tried."""
        self._clock = clock
        self._local = local
        self._resolve = resolve or _resolved
        self._connect = connect or _connected
        self._known: dict[Host, Reached] = {}

    def known(self, host: Host) -> Reached:
        """What is known of a host, without asking."""
        return self._known.get(host, Reached(None, "not tried yet"))

    async def look(self, hosts: Iterable[Host]) -> None:
        """Try those of which nothing recent is known; forget all others. May be cancelled: the rest waits."""
        wanted, now = set(hosts), self._clock.monotonic()
        self._known = {host: found for host, found in self._known.items() if host in wanted}
        due = [host for host in wanted if self._due(host, now)]
        # Whoever was looked at longest ago first: a look may be given up before its end.
        due.sort(key=lambda host: (self._known[host].at if host in self._known else -math.inf, host))
        places = asyncio.Semaphore(AT_ONCE)

        async def one(host: Host) -> None:
            async with places:
                found = await self._try(host)
                self._known[host] = Reached(found.ok, found.remark, self._clock.monotonic())

        await asyncio.gather(*(one(host) for host in due[:MOST]))

    def _due(self, host: Host, now: float) -> bool:
        known = self._known.get(host)
        return known is None or now - known.at >= (DOUBTED if known.ok is False else FRESH)

    async def _try(self, host: Host) -> Reached:
        if _is_example(host.name):
            return Reached(None, "a name for examples, not tried")
        try:
            async with asyncio.timeout(TIMEOUT):
                addresses = await self._resolve(host.name, host.port)
                allowed = [each for each in addresses if is_public(each) or (self._local and _own(each))]
                if not addresses:
                    return Reached(False, "the name cannot be resolved")
                if not allowed:
                    return Reached(None, "a private address, not tried")
                await self._connect(host, allowed[0])
        except TimeoutError:
            return Reached(False, "no answer in time")
        except ssl.SSLCertVerificationError as error:
            return Reached(False, f"its certificate is not accepted: {error.verify_message or 'not valid'}")
        except ssl.SSLError:
            return Reached(False, "no TLS connection could be made")
        except socket.gaierror:
            return Reached(False, "the name cannot be resolved")
        except (OSError, ValueError) as error:
            refused = isinstance(error, ConnectionRefusedError)
            return Reached(False, "the connection was refused" if refused else "it cannot be reached")
        return Reached(True)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet at large, also where one hides inside another."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        hidden: list[Any] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _TRANSLATED:
            hidden.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        inner = [each for each in hidden if each is not None]
        if inner:
            return all(is_public(str(each)) for each in inner)
    return ip.is_global and not ip.is_multicast


_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")


def _own(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_example(name: str) -> bool:
    lowered = name.lower()
    return any(lowered == each or lowered.endswith(f".{each}") for each in _EXAMPLES)


async def _resolved(name: str, port: int) -> Sequence[str]:
    found = await in_daemon_thread(
        lambda: socket.getaddrinfo(name, port, type=socket.SOCK_STREAM), TIMEOUT, name="callboard-resolve"
    )
    return [str(each[4][0]) for each in found]


async def _connected(host: Host, address: str) -> None:
    context = await asyncio.to_thread(_trust) if host.tls else None
    _, writer = await asyncio.open_connection(
        address, host.port, ssl=context, server_hostname=host.name if host.tls else None
    )
    writer.close()
    with contextlib.suppress(OSError):  # that it ends badly says nothing about its beginning
        await writer.wait_closed()


_context: list[ssl.SSLContext] = []


def _trust() -> ssl.SSLContext:
    """The certificates that the vendors' clients trust, too; read once."""
    if not _context:
        import httpx

        _context.append(httpx.create_ssl_context(trust_env=True))
    return _context[0]
