"""A customer-relations system that is not there: it takes everything, finds what it took, and says so.

It forgets at the end of the process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from services.integrations.crm.model import (
    ContactData,
    CrmPage,
    CrmRecord,
    DealData,
    NoteData,
    RecordKind,
    Stored,
)
from services.resilience import Subject

NAME = "Simulated CRM"


class SimulatedCrm:
    """Records in memory, one e-mail address a contact, each account apart."""

    name = NAME

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], CrmRecord] = {}

    async def create_contact(self, contact: ContactData, *, key: str, subject: Subject) -> Stored:
        known = await self.find_contact(contact.email, subject=subject) if contact.email else ""
        if known:
            return Stored(known, existed=True)
        return self._add(RecordKind.CONTACT, {**contact.fields(), **contact.properties}, key, subject)

    async def update_contact(
        self, contact_id: str, contact: ContactData, *, key: str, subject: Subject
    ) -> Stored:
        by_email = await self.find_contact(contact_id, subject=subject) if "@" in contact_id else ""
        place = (subject.account, by_email or contact_id)
        known = self._records.get(place)
        given = {**contact.fields(), **contact.properties}
        if known is None:
            # What was made by an earlier process is not there any more: nothing depends on it.
            self._records[place] = CrmRecord(RecordKind.CONTACT, place[1], given, given)
        else:
            fields = {**known.fields, **given}
            self._records[place] = replace(known, fields=fields, properties=fields)
        return Stored(place[1])

    async def find_contact(self, email: str, *, subject: Subject) -> str:
        for (account, found), record in self._records.items():
            if account == subject.account and record.fields.get("email", "").casefold() == email.casefold():
                return found
        return ""

    async def create_deal(self, deal: DealData, *, key: str, subject: Subject) -> Stored:
        given = {**deal.fields(), **({"contact_id": deal.contact_id} if deal.contact_id else {})}
        return self._add(RecordKind.DEAL, {**given, **deal.properties}, key, subject)

    async def create_note(self, note: NoteData, *, now: int, key: str, subject: Subject) -> Stored:
        given = {"body": note.body, "contact_id": note.contact_id, "deal_id": note.deal_id}
        return self._add(RecordKind.NOTE, {**given, **note.properties}, key, subject)

    async def search(
        self,
        kind: RecordKind,
        query: str,
        filters: Mapping[str, str],
        *,
        limit: int,
        after: str,
        subject: Subject,
    ) -> CrmPage:
        words = query.casefold().split()
        found = [
            record
            for (account, _), record in self._records.items()
            if account == subject.account
            and record.kind is kind
            and all(record.fields.get(name) == value for name, value in filters.items())
            and all(any(word in value.casefold() for value in record.fields.values()) for word in words)
        ]
        begin = int(after) if after.isdecimal() else 0
        end = begin + limit
        following = str(end) if len(found) > end else ""
        return CrmPage(tuple(found[begin:end]), len(found), following, simulated=True, system=self.name)

    async def probe(self) -> str:
        return "Simulated: nothing is asked"

    async def aclose(self) -> None:
        """Nothing is open."""

    def _add(self, kind: RecordKind, given: Mapping[str, str], key: str, subject: Subject) -> Stored:
        found = f"SIM-{hashlib.sha256(key.encode()).hexdigest()[:8].upper()}"
        fields = {name: value for name, value in given.items() if value}
        self._records[subject.account, found] = CrmRecord(kind, found, fields, fields)
        return Stored(found)
