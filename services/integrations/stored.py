"""Integrations as they are stored: reading, checking, finding and deleting their rows.

Functions that take a session run in their caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Final

from sqlmodel import Session, col, select

from services.errors import UsageError
from services.http.addresses import normalize_base_url
from services.integrations.model import AdapterInfo, IntegrationInfo, Kind, Origin
from services.storage.journal import record
from services.storage.tables import Company, Integration
from services.text import clean_line

PREFERRED: Final = "_preferred_at"
"""In a stored configuration: when it was put before the others. No option of any adapter, and not shown."""


def checked(how: AdapterInfo, base_url: str, given: Mapping[str, Any], secret: str) -> str:
    """The address as it is stored, empty for the adapter's own. Raises UsageError for what cannot be."""
    if how.needs_url and not (base_url or how.default_url):
        raise UsageError(f"{how.title} needs an address", advice="Give it with --url", code="no_url")
    options = how.options()
    for name in given:
        if name not in options:
            advice = near_to(name, options, f"options: {', '.join(options) or 'there is none'}")
            raise UsageError(f"{how.title} has no option {name!r}", advice=advice, code="bad_option")
    for name, (text, required) in options.items():
        if required and not given.get(name):
            raise UsageError(
                f"{how.title} needs the option {name}: {text}",
                advice=f"Give it with --set {name}=…",
                code="missing_option",
            )
    if how.secret and how.secret_required and not secret.strip():
        raise UsageError(
            f"{how.title} needs its {how.secret}",
            advice="Type it when asked, or pipe it in",
            code="no_secret",
        )
    return normalize_base_url(base_url) if base_url else ""


def secret_name(info: IntegrationInfo, name: str) -> str:
    return f"{info.secret_name}/{name}" if name else info.secret_name


def taken(title: str) -> UsageError:
    return UsageError(
        f"There is an integration {title!r} already",
        advice="Give this one another name, or remove the other",
        code="taken",
    )


def delete(session: Session, integration_id: int, now: int, actor: str, cause: str = "") -> IntegrationInfo:
    row, owner = one(session, integration_id)
    info = info_of(row, owner)
    record(
        session,
        at=now,
        actor=actor,
        action="integration.remove",
        subject=info.name,
        cause=cause,
        before={"adapter": info.adapter, "url": info.base_url, "company": owner or "all"},
    )
    session.delete(row)
    return info


def near_to(name: str, known: Iterable[str], otherwise: str) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else otherwise


def company_named(session: Session, name: str) -> Company:
    rows = session.exec(select(Company)).all()
    found = next((row for row in rows if row.name.casefold() == name.strip().casefold()), None)
    if found is None:
        advice = near_to(name, [row.name for row in rows], "list them with: callboard company list")
        raise UsageError(f"There is no company {clean_line(name)!r}", advice=advice, code="unknown_company")
    return found


def one(session: Session, integration_id: int) -> tuple[Integration, str]:
    row = session.get(Integration, integration_id)
    if row is None:
        raise UsageError(
            f"There is no integration {integration_id}",
            advice="list them with: callboard integration list",
            code="unknown_integration",
        )
    owner = session.get(Company, row.company_id) if row.company_id is not None else None
    return row, owner.name if owner else ""


def meant(session: Session, wanted: str, company: str = "") -> IntegrationInfo:
    """The one of a number or a name (or `NAME (COMPANY)`). Raises UsageError for none and for several."""
    rows = session.exec(select(Integration).order_by(col(Integration.id))).all()
    names = {row.id: row.name for row in session.exec(select(Company))}
    found = [info_of(row, names.get(row.company_id, "")) for row in rows]
    if company:
        owner = company_named(session, company).name
        found = [info for info in found if info.company == owner]
    word = wanted.strip()
    numbered = [info for info in found if str(info.id) == word]
    named = [info for info in found if word.casefold() in (info.name.casefold(), info.policy.casefold())]
    fitting = numbered or named
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        advice = near_to(word, [info.name for info in found], "list them with: callboard integration list")
        raise UsageError(
            f"There is no integration {clean_line(word)}", advice=advice, code="unknown_integration"
        )
    there = ", ".join(
        f"{info.id} ({clean_line(info.company) or 'every company'}, {info.kind})" for info in fitting
    )
    raise UsageError(
        f"{len(fitting)} integrations are called {clean_line(word)}",
        advice=f"Give the number of one: {there}",
        code="ambiguous_integration",
    )


def precedence(info: IntegrationInfo) -> tuple[bool, int, int]:
    """Of several that could do the same the smallest is taken: the company's own, what somebody put first."""
    return info.company_id is None, -info.preferred_at, info.id or 0


def in_order(found: Sequence[IntegrationInfo]) -> list[IntegrationInfo]:
    """The same ones; each that is not taken because of another of its company names it as `before`."""
    first: dict[tuple[object, ...], IntegrationInfo] = {}

    def role(info: IntegrationInfo) -> tuple[object, ...]:
        # A company has one CRM and one language model; of the other kinds each adapter does something else.
        alone = info.kind in (Kind.CRM, Kind.LLM)
        return info.company_id, info.kind, "" if alone else info.adapter

    for info in sorted(found, key=precedence):
        if info.enabled:
            first.setdefault(role(info), info)
    return [
        replace(info, before=first[role(info)].name)
        if info.enabled and first[role(info)] is not info
        else info
        for info in found
    ]


def info_of(row: Integration, company: str) -> IntegrationInfo:
    config = json.loads(row.config)
    preferred_at = config.pop(PREFERRED, 0)
    return IntegrationInfo(
        id=row.id,
        company_id=row.company_id,
        company=company,
        kind=Kind(row.kind),
        adapter=row.adapter,
        name=row.name,
        base_url=row.base_url,
        config=config,
        enabled=row.enabled,
        origin=Origin.COMPANY if row.company_id is not None else Origin.SHARED,
        created_at=row.created_at,
        preferred_at=preferred_at,
    )
