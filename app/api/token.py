"""The API's bearer token: where it comes from, how one is made, and which addresses need one."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from app.settings import IN_FILE, TOKEN_VARIABLE, secret_from
from services.errors import ServiceError, UsageError
from services.security import Secret

if TYPE_CHECKING:
    from services.container import Services
    from services.security import SecretStore

NAME: Final = "api/token"
"""Under which the secret store keeps it."""
SHORTEST: Final = 20
"""Characters; a token is no password that somebody remembers."""


def token_of(environ: Mapping[str, str]) -> Secret | None:
    """The environment's token. Raises UsageError for one that is no use."""
    found = secret_from(environ, TOKEN_VARIABLE)
    if found is None:
        return None
    source = TOKEN_VARIABLE if environ.get(TOKEN_VARIABLE) else f"the file of {TOKEN_VARIABLE}{IN_FILE}"
    return Secret(_checked(found, f"The token in {source}"))


async def find_token(environ: Mapping[str, str], store: SecretStore | None) -> Secret | None:
    """The token in force: the environment's, else the one in the secret store, where one is open."""
    token = token_of(environ)
    if token is None and store is not None:
        kept = await store.get(NAME)
        token = Secret(kept) if kept else None
    return token


async def make_token(services: Services, store: SecretStore, actor: str) -> Secret:
    """A new token, kept in the secret store in place of the one before; noted in the audit log."""
    from services.storage.journal import record

    before = await store.get(NAME)
    token = Secret(secrets.token_urlsafe(32))
    await store.set(NAME, token.reveal())
    action = "api.token.rotate" if before else "api.token.add"
    at = services.clock.now()
    database = await services.open_database()
    await database.write(lambda session: record(session, at=at, actor=actor, action=action, subject="API"))
    return token


def _checked(token: str, source: str) -> str:
    wrong = ""
    if len(token) < SHORTEST:
        wrong = f"is shorter than {SHORTEST} characters"
    elif not token.isascii() or not token.isprintable() or " " in token:
        wrong = "holds white space or characters that a header cannot carry"
    if wrong:
        raise UsageError(
            f"{source} is no use: it {wrong}",
            advice="callboard serve --new-token makes a good one",
            code="bad_token",
        )
    return token


async def addresses_of(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """Every address that a host name stands for. Raises UsageError for a name that stands for none."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(
            f"{host!r} is neither an address nor a name that can be found",
            advice="Use 127.0.0.1 for this machine only, or 0.0.0.0 for every network it is in",
            code="bad_host",
        ) from None
    return list(dict.fromkeys((family, str(address[0])) for family, *_, address in found))


def needs_token(addresses: list[tuple[socket.AddressFamily, str]]) -> bool:
    """Whether others than this machine can reach one of these addresses."""
    return not all(_is_loopback(address) for _, address in addresses)


def refuse_public(host: str) -> ServiceError:
    """The error of an address that others reach while nothing is asked of them."""
    return UsageError(
        f"Other machines can reach {host}, and no token is set",
        advice="Make one with callboard serve --new-token, or listen on 127.0.0.1 behind a reverse proxy",
        code="no_token",
    )


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)
