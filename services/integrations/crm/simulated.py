"""A customer-relations system that is not there: it takes everything, finds what it took, and says so.

What it holds is what it was told: the stored effects, so that every process finds the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from services.integrations.crm.model import (
    ContactData,
    CrmPage,
    CrmRecord,
    DealData,
    NoteData,
    RecordKind,
    Stored,
)
from services.integrations.effects import EffectRow
from services.resilience import Subject

NAME: Final = "Simulated CRM"
_NO_FIELDS: Final = ("properties", "contact", "deal", "at", "closes_at")


class SimulatedCrm:
    """One e-mail address a contact, each account apart.

    `history` gives the simulated changes of an account, the oldest first.
    """

    name = NAME
    id_field = ""

    def __init__(self, history: Callable[[str], Awaitable[Sequence[EffectRow]]]) -> None:
        self._history = history

    async def create_contact(self, contact: ContactData, *, key: str, subject: Subject) -> Stored:
        known = await self.find_contact(contact.email, subject=subject) if contact.email else ""
        return Stored(known, existed=True) if known else Stored(_new_id(key))

    async def update_contact(
        self, contact_id: str, contact: ContactData, *, key: str, subject: Subject
    ) -> Stored:
        by_email = await self.find_contact(contact_id, subject=subject) if "@" in contact_id else ""
        # One that it never heard of it takes as well: nothing depends on it.
        return Stored(by_email or contact_id)

    async def find_contact(self, email: str, *, subject: Subject) -> str:
        for found, record in (await self._records(subject.account)).items():
            if record.fields.get("email", "").casefold() == email.casefold():
                return found
        return ""

    async def create_deal(self, deal: DealData, *, key: str, subject: Subject) -> Stored:
        return Stored(_new_id(key))

    async def create_note(self, note: NoteData, *, now: int, key: str, subject: Subject) -> Stored:
        return Stored(_new_id(key))

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
            for record in (await self._records(subject.account)).values()
            if record.kind is kind
            and all(record.fields.get(name) == value for name, value in filters.items())
            and all(any(word in value.casefold() for value in record.fields.values()) for word in words)
        ]
        begin = int(after) if after.isdecimal() else 0
        end = begin + limit
        following = str(end) if len(found) > end else ""
        return CrmPage(tuple(found[begin:end]), len(found), following, simulated=True, system=self.name)

    def moment(self, at: int) -> str:
        return str(at)

    async def probe(self) -> str:
        return "Simulated: nothing is asked"

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _records(self, account: str) -> dict[str, CrmRecord]:
        records: dict[str, CrmRecord] = {}
        # What was made before what was changed: in one millisecond both may have happened.
        history = sorted(await self._history(account), key=lambda effect: effect.kind.endswith(".update"))
        for effect in history:
            given = _fields(effect)
            known = records.get(effect.provider_id)
            if effect.result.get("existed"):
                continue
            if effect.kind.endswith(".update") and known is not None:
                fields = {**known.fields, **given}
                records[known.id] = replace(
                    known, fields=fields, properties=fields, updated_at=effect.created_at
                )
                continue
            word = effect.kind.rpartition(".")[2]
            kind = RecordKind.CONTACT if word == "update" else RecordKind(word)
            records[effect.provider_id] = CrmRecord(
                kind, effect.provider_id, given, given, "", effect.created_at, effect.created_at
            )
        return records


def _fields(effect: EffectRow) -> dict[str, str]:
    """What a change said of its record, by our names and those of its own."""
    request = effect.request
    given = {name: value for name, value in request.items() if name not in _NO_FIELDS}
    if not effect.kind.endswith(".update"):
        given |= {"contact_id": request.get("contact"), "deal_id": request.get("deal")}
    return {name: str(value) for name, value in {**given, **request.get("properties", {})}.items() if value}


def _new_id(key: str) -> str:
    return f"SIM-{hashlib.sha256(key.encode()).hexdigest()[:8].upper()}"
