"""Customer relations for agents, workflows and people: one way in, whichever system is behind it.

A change is preceded by an intent and made at most once for its key; a search only asks.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.integrations.crm.adapters import HUBSPOT
from services.integrations.crm.http_crm import HttpCrm
from services.integrations.crm.hubspot import HubSpot
from services.integrations.crm.model import (
    ContactData,
    CrmPage,
    DealData,
    NoteData,
    RecordKind,
    Stored,
    Written,
)
from services.integrations.crm.port import CrmSystem
from services.integrations.crm.simulated import SimulatedCrm
from services.integrations.effects import Deed, EffectRow, Effects, Intent, is_uncertain
from services.integrations.kept import KeptClients
from services.integrations.model import Kind, Resolved
from services.integrations.registry import IntegrationService
from services.resilience import Policies, RateLimiter, Subject
from services.text import clean_line

EFFECT: Final = "crm"
"""Effects of a CRM are below this kind: `crm.contact`, `crm.update`, `crm.deal`, `crm.note`."""
MOST_FOUND: Final = 200
_AMOUNT: Final = re.compile(r"-?\d{1,15}(\.\d{1,6})?")
_EMAIL: Final = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")


class CrmService:
    """Contacts, deals and notes. `company` is a company's name.

    Belongs to one event loop; `aclose` ends it.
    """

    def __init__(
        self,
        integrations: IntegrationService,
        effects: Effects,
        policies: Policies,
        clock: Clock,
        *,
        limiter: RateLimiter | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._integrations = integrations
        self._effects = effects
        self._policies = policies
        self._clock = clock
        self._limiter = limiter
        self._timeout = timeout
        self._clients: KeptClients[HubSpot | HttpCrm] = KeptClients()
        self._simulated = SimulatedCrm()

    async def create_contact(
        self,
        company: str,
        contact: ContactData,
        *,
        integration: str = "",
        agent_id: str | None = None,
        idempotency_key: str = "",
        actor: str = "",
    ) -> Written:
        """Create a contact. One whose e-mail address is there already is returned as `existed`, unchanged.

        Raises UsageError for what cannot be a contact, ServiceError when the system refuses or is away.
        """
        _check_contact(contact)
        who = contact.email or f"{contact.first_name} {contact.last_name}".strip() or contact.phone
        return await self._write(
            company,
            integration,
            agent_id,
            actor,
            RecordKind.CONTACT,
            Intent(f"{EFFECT}.contact", idempotency_key, who, actor=actor, request=_request(contact)),
            lambda system, row, subject: system.create_contact(contact, key=row.id, subject=subject),
        )

    async def update_contact(
        self,
        company: str,
        contact_id: str,
        contact: ContactData,
        *,
        integration: str = "",
        agent_id: str | None = None,
        idempotency_key: str = "",
        actor: str = "",
    ) -> Written:
        """Change what is given of a contact; `contact_id` is the system's id or an e-mail address."""
        contact_id = contact_id.strip()
        if not contact_id:
            raise UsageError("Which contact is not said", advice="Give its id or its e-mail address")
        _check_contact(contact)
        request = {**_request(contact), "contact": contact_id}
        return await self._write(
            company,
            integration,
            agent_id,
            actor,
            RecordKind.CONTACT,
            Intent(f"{EFFECT}.update", idempotency_key, contact_id, actor=actor, request=request),
            lambda system, row, subject: system.update_contact(
                contact_id, contact, key=row.id, subject=subject
            ),
        )

    async def create_deal(
        self,
        company: str,
        deal: DealData,
        *,
        integration: str = "",
        agent_id: str | None = None,
        idempotency_key: str = "",
        actor: str = "",
    ) -> Written:
        """Create a deal; its `contact_id` may be an e-mail address, which is looked up first."""
        if not deal.name.strip():
            raise UsageError("A deal needs a name", advice="Give it with --name", code="missing_value")
        if deal.amount and not _AMOUNT.fullmatch(deal.amount):
            raise UsageError(
                f"{clean_line(deal.amount)!r} is no amount", advice="Write it as 1250.00", code="bad_value"
            )
        contact_id = await self._contact(company, integration, deal.contact_id, agent_id, actor)
        linked = replace(deal, contact_id=contact_id)
        request = {**_request(deal), "contact": deal.contact_id, "closes_at": deal.closes_at}
        return await self._write(
            company,
            integration,
            agent_id,
            actor,
            RecordKind.DEAL,
            Intent(f"{EFFECT}.deal", idempotency_key, deal.name, actor=actor, request=request),
            lambda system, row, subject: system.create_deal(linked, key=row.id, subject=subject),
        )

    async def create_note(
        self,
        company: str,
        note: NoteData,
        *,
        integration: str = "",
        agent_id: str | None = None,
        idempotency_key: str = "",
        actor: str = "",
    ) -> Written:
        """Write a note on a contact (its id or e-mail address), a deal, or both."""
        if not note.body.strip():
            raise UsageError("A note needs a text", advice="Give it with --body", code="missing_value")
        if not note.contact_id and not note.deal_id:
            raise UsageError(
                "A note belongs to a contact or a deal",
                advice="Give one with --contact or --deal",
                code="missing_value",
            )
        contact_id = await self._contact(company, integration, note.contact_id, agent_id, actor)
        linked = replace(note, contact_id=contact_id)
        request: dict[str, Any] = {"body": note.body, "at": note.at, "properties": dict(note.properties)}
        request |= {"contact": note.contact_id, "deal": note.deal_id}
        return await self._write(
            company,
            integration,
            agent_id,
            actor,
            RecordKind.NOTE,
            Intent(
                f"{EFFECT}.note",
                idempotency_key,
                note.contact_id or note.deal_id,
                actor=actor,
                request=request,
            ),
            lambda system, row, subject: system.create_note(
                linked, now=row.created_at, key=row.id, subject=subject
            ),
        )

    async def search(
        self,
        company: str,
        kind: RecordKind,
        query: str = "",
        *,
        filters: Mapping[str, str] | None = None,
        limit: int = 20,
        after: str = "",
        integration: str = "",
        agent_id: str | None = None,
        actor: str = "",
    ) -> CrmPage:
        """Records that hold the words of `query` and whose fields equal `filters`. Raises ServiceError."""
        if not 1 <= limit <= MOST_FOUND:
            raise UsageError(
                f"{limit} is no number of records", advice=f"Ask for 1 to {MOST_FOUND}", code="bad_value"
            )
        _, system = await self._system(company, integration)
        return await system.search(
            kind,
            query.strip(),
            dict(filters or {}),
            limit=limit,
            after=after,
            subject=_subject(company, agent_id, actor),
        )

    async def probe(self, resolved: Resolved) -> str:
        """Ask an integration whether it works; one line of what it said. Raises ServiceError."""
        return await self._client(resolved).probe()

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def _write(
        self,
        company: str,
        integration: str,
        agent_id: str | None,
        actor: str,
        kind: RecordKind,
        intent: Intent,
        change: Callable[[CrmSystem, EffectRow, Subject], Awaitable[Stored]],
    ) -> Written:
        company_id, system = await self._system(company, integration)
        subject = _subject(company, agent_id, actor)

        async def perform(row: EffectRow) -> Deed:
            stored = await change(system, row, subject)
            result = {"existed": stored.existed, "url": stored.url, "system": system.name}
            return Deed(stored.id, result, system is self._simulated)

        try:
            row = await self._effects.once(replace(intent, company_id=company_id), perform)
        except ServiceError as error:
            if not is_uncertain(error):
                raise
            failure = ServiceError(
                f"{error.message}; whether the {kind} was written is not known",
                category=error.category,
                advice=f"Look into {system.name} before writing it again",
                code="unknown_outcome",
            )
        else:
            return _written(kind, row)
        raise failure

    async def _contact(
        self, company: str, integration: str, contact: str, agent_id: str | None, actor: str
    ) -> str:
        """A contact's id, looked up where an e-mail address is given. Raises UsageError for none."""
        contact = contact.strip()
        if "@" not in contact:
            return contact
        _, system = await self._system(company, integration)
        found = await system.find_contact(contact, subject=_subject(company, agent_id, actor))
        if not found:
            raise UsageError(
                f"{system.name} has no contact with the address {clean_line(contact)}",
                advice="Create it first: callboard crm contact",
                code="unknown_contact",
            )
        return found

    async def _system(self, company: str, integration: str) -> tuple[int, CrmSystem]:
        company_id = await self._integrations.company_id(company)
        resolved = await self._integrations.resolve(Kind.CRM, company_id, name=integration)
        if resolved.simulated:
            return company_id, self._simulated
        return company_id, self._client(resolved)

    def _client(self, resolved: Resolved) -> HubSpot | HttpCrm:
        def make() -> HubSpot | HttpCrm:
            policy = self._policies.of(resolved.info.policy, limiter=self._limiter)
            client = HubSpot if resolved.info.adapter == HUBSPOT else HttpCrm
            return client(resolved, policy, self._clock, timeout=self._timeout)

        return self._clients.of(resolved, make)


def _subject(company: str, agent_id: str | None, actor: str) -> Subject:
    return Subject(account=company, agent=agent_id or "", user=actor)


def _check_contact(contact: ContactData) -> None:
    if contact.email and not _EMAIL.fullmatch(contact.email):
        raise UsageError(
            f"{clean_line(contact.email)!r} is no e-mail address",
            advice="Write it as ann@example.com",
            code="bad_value",
        )
    if not contact.fields() and not contact.properties:
        raise UsageError(
            "Nothing is said about the contact",
            advice="Give --email, --first-name, --phone or another field",
            code="missing_value",
        )


def _request(data: ContactData | DealData) -> dict[str, Any]:
    return {**data.fields(), "properties": dict(data.properties)}


def _written(kind: RecordKind, row: EffectRow) -> Written:
    return Written(
        kind,
        row.provider_id,
        row.state.value,
        bool(row.result.get("existed")),
        row.simulated,
        str(row.result.get("system") or ""),
        str(row.result.get("url") or ""),
        row.id,
        row.fresh,
    )
