"""Customer relations for agents, workflows and people: one way in, whichever system is behind it.

A change is preceded by an intent and made at most once for its key; a search only asks.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Unpack

from services.clock import Clock
from services.errors import UsageError
from services.integrations.crm.adapters import HUBSPOT
from services.integrations.crm.http_crm import HttpCrm
from services.integrations.crm.hubspot import HubSpot
from services.integrations.crm.lost import cannot_tell, find_lost
from services.integrations.crm.model import (
    Change,
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
from services.integrations.effects import (
    DIGEST,
    Deed,
    EffectRow,
    Effects,
    EffectState,
    Intent,
    given_up_after,
)
from services.integrations.kept import KeptClients
from services.integrations.model import Kind, Resolved
from services.integrations.orders import Asking, Ordering, again, subject_of, unsure
from services.integrations.registry import IntegrationService
from services.resilience import Fallback, Policies, Policy, RateLimiter, Subject
from services.text import clean_line

EFFECT: Final = "crm"
"""Effects of a CRM are below this kind: `crm.contact`, `crm.update`, `crm.deal`, `crm.note`."""
MOST_FOUND: Final = 200
MOST_SIMULATED: Final = 1_000
REMEMBERED: Final = 900.0
"""Seconds for which what a search found stands in while the system does not answer."""
"""The latest changes that the simulation remembers."""
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
        self._simulated = SimulatedCrm(self._told)

    async def create_contact(
        self,
        company: str,
        contact: ContactData,
        **how: Unpack[Ordering],
    ) -> Written:
        """Create a contact. One whose e-mail address is there already is returned as `existed`, unchanged.

        Raises UsageError for what cannot be a contact, ServiceError when the system refuses or is away.
        """
        _check_contact(contact)
        who = contact.email or f"{contact.first_name} {contact.last_name}".strip() or contact.phone
        return await self._write(
            company,
            how,
            RecordKind.CONTACT,
            f"{EFFECT}.contact",
            who,
            _request(contact),
            lambda system, row, subject: system.create_contact(contact, key=row.id, subject=subject),
        )

    async def update_contact(
        self,
        company: str,
        contact_id: str,
        contact: ContactData,
        **how: Unpack[Ordering],
    ) -> Written:
        """Change what is given of a contact; `contact_id` is the system's id or an e-mail address."""
        contact_id = contact_id.strip()
        if not contact_id:
            raise UsageError("Which contact is not said", advice="Give its id or its e-mail address")
        _check_contact(contact)
        request = {**_request(contact), "contact": contact_id}
        return await self._write(
            company,
            how,
            RecordKind.CONTACT,
            f"{EFFECT}.update",
            contact_id,
            request,
            lambda system, row, subject: system.update_contact(
                contact_id, contact, key=row.id, subject=subject
            ),
        )

    async def create_deal(
        self,
        company: str,
        deal: DealData,
        **how: Unpack[Ordering],
    ) -> Written:
        """Create a deal; its `contact_id` may be an e-mail address, which is looked up first."""
        if not deal.name.strip():
            raise UsageError("A deal needs a name", advice="Give it with --name", code="missing_value")
        if deal.amount and not _AMOUNT.fullmatch(deal.amount):
            raise UsageError(
                f"{clean_line(deal.amount)!r} is no amount", advice="Write it as 1250.00", code="bad_value"
            )
        contact_id = await self._contact(company, deal.contact_id, how)
        linked = replace(deal, contact_id=contact_id)
        request = {**_request(deal), "contact": deal.contact_id, "closes_at": deal.closes_at}
        return await self._write(
            company,
            how,
            RecordKind.DEAL,
            f"{EFFECT}.deal",
            deal.name,
            request,
            lambda system, row, subject: system.create_deal(linked, key=row.id, subject=subject),
        )

    async def create_note(
        self,
        company: str,
        note: NoteData,
        **how: Unpack[Ordering],
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
        contact_id = await self._contact(company, note.contact_id, how)
        linked = replace(note, contact_id=contact_id)
        request: dict[str, Any] = {"body": note.body, "at": note.at, "properties": dict(note.properties)}
        request |= {"contact": note.contact_id, "deal": note.deal_id}
        return await self._write(
            company,
            how,
            RecordKind.NOTE,
            f"{EFFECT}.note",
            note.contact_id or note.deal_id,
            request,
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
        **how: Unpack[Asking],
    ) -> CrmPage:
        """Records that hold the words of `query` and whose fields equal `filters`. Raises ServiceError.

        While the system does not answer, what it answered to the same question a moment ago, marked so.
        """
        if not 1 <= limit <= MOST_FOUND:
            raise UsageError(
                f"{limit} is no number of records", advice=f"Ask for 1 to {MOST_FOUND}", code="bad_value"
            )
        company_id, resolved, system = await self._system(company, how)
        words, wanted = query.strip(), dict(filters or {})
        subject = subject_of(company, how)

        async def ask() -> CrmPage:
            return await system.search(kind, words, wanted, limit=limit, after=after, subject=subject)

        if resolved.simulated:
            return await ask()
        question = ("search", company_id, kind, words, frozenset(wanted.items()), limit, after)
        found = await self._policy(resolved).call(ask, Fallback(key=question, max_age=REMEMBERED))
        return replace(
            found.value,
            simulated=found.value.simulated or resolved.pretended,
            degraded=found.why(""),
            age=found.age if found.degraded else None,
        )

    async def changes(
        self, company: str = "", *, state: EffectState | None = None, limit: int = 50
    ) -> list[Change]:
        """What was changed, the newest first. What a process that died left behind becomes `unknown`."""
        company_id = await self._integrations.company_id(company) if company else None
        await self.give_up()
        rows = await self._effects.recent(EFFECT, company_id=company_id, state=state, limit=limit)
        return [_change(row) for row in rows]

    async def give_up(self) -> int:
        """Make `unknown` what a process that died left behind; how many changes."""
        return len(await self._effects.give_up(EFFECT, older_than_ms=given_up_after(self._timeout)))

    async def change(self, change_id: str) -> Change:
        """One change by its id or the unique beginning of it. Raises UsageError."""
        return _change(await self._row(change_id))

    async def settle(
        self,
        change_id: str,
        *,
        done: bool | None = None,
        record_id: str = "",
        cause: str = "",
        actor: str = "",
    ) -> Change:
        """Decide what became of a change whose answer was lost.

        By a person's word: `done`, with the record's id in the system, or not done. Without it the system is
        asked, and the change stays as it is where that cannot tell: raises ServiceError then. Raises
        UsageError for what is decided already.
        """
        row = await self._row(change_id)
        if row.state not in (EffectState.INTENDED, EffectState.UNKNOWN):
            raise UsageError(
                f"Change {row.id[:8]} is decided already: {row.state}",
                advice="List those that are not: callboard crm list --state unknown",
                code="effect_settled",
            )
        if done is None:
            asked, deed = await self._looked_up(row, actor)
            found = f"as {deed.provider_id}" if deed is not None else "not"
            cause = cause or f"{asked} was asked: it is {found} there"
        else:
            deed = Deed(record_id, {"system": row.integration}) if done else None
            cause = cause or f"looked it up in {row.integration or 'the CRM'}"
        state = EffectState.FAILED if deed is None else EffectState.DONE
        return _change(
            replace(
                await self._effects.settle(row.id, state, cause=cause, actor=actor, deed=deed),
                company=row.company,
            )
        )

    async def _looked_up(self, row: EffectRow, actor: str) -> tuple[str, Deed | None]:
        """Who was asked of a change and what it found. Raises ServiceError where nobody can tell."""
        now = self._clock.now()
        if row.state is EffectState.INTENDED and now - row.updated_at < given_up_after(self._timeout):
            raise UsageError(
                f"Change {row.id[:8]} may still be under way",
                advice="Ask again in a few minutes",
                code="under_way",
            )
        resolved = await again(
            self._integrations, Kind.CRM, row.company_id, row.integration_id, row.integration
        )
        system = self._of(resolved)
        if resolved.simulated:
            return system.name, None  # what was only pretended never happened
        subject = subject_of(row.company, {"actor": actor})
        stored = await find_lost(system, row, now, subject)
        if stored is not None and row.kind in (f"{EFFECT}.deal", f"{EFFECT}.note"):
            others = await self._effects.recent(
                row.kind, company_id=row.company_id, state=EffectState.DONE, limit=MOST_SIMULATED
            )
            if any(other.provider_id == stored.id for other in others):
                # The same twice, and one of them came through.
                raise cannot_tell(system.name, f"{stored.id} is another change's")
        if stored is None:
            return system.name, None
        return system.name, _deed(system, stored, simulated=resolved.pretended)

    async def _row(self, change_id: str) -> EffectRow:
        wanted = change_id.strip().lower()
        found = await self._effects.recent(EFFECT, beginning=wanted, limit=2) if wanted else []
        if len(found) != 1:
            what = "Several changes begin" if found else "There is no change that begins"
            raise UsageError(
                f"{what} with {clean_line(change_id)!r}",
                advice="List them: callboard crm list",
                code="unknown_change",
            )
        return found[0]

    async def probe(self, resolved: Resolved) -> str:
        """Ask an integration whether it works; one line of what it said. Raises ServiceError."""
        return await self._client(resolved).probe()

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def _write(
        self,
        company: str,
        how: Ordering,
        kind: RecordKind,
        effect: str,
        target: str,
        request: Mapping[str, Any],
        change: Callable[[CrmSystem, EffectRow, Subject], Awaitable[Stored]],
    ) -> Written:
        company_id, resolved, system = await self._system(company, how)
        info = resolved.info
        subject = subject_of(company, how)
        key, actor = how.get("idempotency_key", ""), how.get("actor", "")
        made_up = resolved.simulated or resolved.pretended
        intent = Intent(effect, key, target, company_id, actor, request, info.id, info.name, made_up)
        begun: list[str] = []

        async def perform(row: EffectRow) -> Deed:
            begun.append(row.id)
            stored = await change(system, row, subject)
            return _deed(system, stored, simulated=made_up)

        def look() -> str:
            return f"Ask {system.name}, or decide: callboard crm settle {begun[0][:8]}" if begun else ""

        row = await unsure(self._effects.once(intent, perform), f"the {kind} was written", look)
        return _written(kind, row)

    async def _contact(self, company: str, contact: str, how: Asking) -> str:
        """A contact's id, looked up where an e-mail address is given. Raises UsageError for none."""
        contact = contact.strip()
        if "@" not in contact:
            return contact
        _, _, system = await self._system(company, how)
        found = await system.find_contact(contact, subject=subject_of(company, how))
        if not found:
            raise UsageError(
                f"{system.name} has no contact with the address {clean_line(contact)}",
                advice="Create it first: callboard crm contact",
                code="unknown_contact",
            )
        return found

    async def _system(self, company: str, how: Asking) -> tuple[int, Resolved, CrmSystem]:
        company_id = await self._integrations.company_id(company)
        resolved = await self._integrations.resolve(Kind.CRM, company_id, name=how.get("integration", ""))
        return company_id, resolved, self._of(resolved)

    def _of(self, resolved: Resolved) -> CrmSystem:
        return self._simulated if resolved.simulated else self._client(resolved)

    async def _told(self, account: str) -> list[EffectRow]:
        """What the simulation was told by a company, the oldest first."""
        company_id = await self._integrations.company_id(account)
        rows = await self._effects.recent(
            EFFECT, company_id=company_id, state=EffectState.DONE, limit=MOST_SIMULATED
        )
        own = (row for row in reversed(rows) if row.simulated and row.integration_id is None)
        return [row for row in own if DIGEST not in row.request]

    def _client(self, resolved: Resolved) -> HubSpot | HttpCrm:
        def make() -> HubSpot | HttpCrm:
            client = HubSpot if resolved.info.adapter == HUBSPOT else HttpCrm
            return client(resolved, self._policy(resolved), self._clock, timeout=self._timeout)

        return self._clients.of(resolved, make)

    def _policy(self, resolved: Resolved) -> Policy:
        return self._policies.of(resolved.info.policy, limiter=self._limiter)


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


def _deed(system: CrmSystem, stored: Stored, *, simulated: bool) -> Deed:
    result = {"existed": stored.existed, "url": stored.url, "system": system.name}
    return Deed(stored.id, result, simulated)


def _change(row: EffectRow) -> Change:
    word = row.kind.rpartition(".")[2]
    return Change(
        row.id,
        row.company,
        "update" if word == "update" else "create",
        RecordKind.CONTACT if word == "update" else RecordKind(word),
        row.target,
        row.state,
        row.provider_id,
        str(row.result.get("system") or row.integration),
        row.simulated,
        row.error if row.state in (EffectState.FAILED, EffectState.UNKNOWN) else None,
        row.created_at,
        row.updated_at,
    )
