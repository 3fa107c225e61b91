"""What the commands on integrations share."""

from __future__ import annotations

import getpass
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.commands._names import require_company
from app.commands._secrets import unlocked
from services.errors import UsageError
from services.integrations.model import Kind

if TYPE_CHECKING:
    from services.container import Services
    from services.integrations.orders import Ordering


async def keys_ready(services: Services, kind: Kind, company: str | None = None) -> None:
    """Unlock the secret store if an integration of this kind is stored, and only then."""
    stored = await services.integrations.list(company)
    if any(info.id is not None and info.kind is kind for info in stored):
        await unlocked(services)


async def company_ready(services: Services, args: Namespace, kind: Kind) -> str:
    """The name of the company that is meant, with the keys of its integrations of this kind unlocked."""
    company = await require_company(services, args.company)
    await keys_ready(services, kind, company.name)
    return company.name


def ordering(args: Namespace) -> Ordering:
    """Who orders, as the words of a command say it: `--integration`, `--key`."""
    return {"integration": args.integration, "idempotency_key": args.key, "actor": actor()}


def actor() -> str:
    """Who works at this terminal, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "cli"


def pairs(given: Sequence[str], option: str = "--set") -> dict[str, str]:
    """`NAME=VALUE` words as a dictionary. Raises UsageError."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                f"{option} {each!r} is not NAME=VALUE",
                advice=f"Write it as {option} {name.strip() or 'name'}=VALUE",
                code="usage",
            )
        found[name.strip()] = value
    return found
