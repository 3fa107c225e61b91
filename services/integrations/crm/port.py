"""What a customer-relations system has to offer.

An adapter maps our fields to the system's own, speaks its API through `services.integrations.credentials`
(whose `Credentials` renew themselves: a private-app token today, OAuth with a refresh token next), and turns
its refusals into ServiceError. A method that changes something is called at most once for a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from services.integrations.crm.model import (
    ContactData,
    CrmPage,
    DealData,
    NoteData,
    RecordKind,
    Stored,
)
from services.resilience import Subject


class CrmSystem(Protocol):
    """One system. Every method raises ServiceError."""

    name: str
    """What people call it."""
    id_field: str
    """By which field a search finds a record by its id; empty where it cannot."""

    def moment(self, at: int) -> str:
        """A time (epoch milliseconds) as the filter of a search has it."""
        ...

    async def create_contact(self, contact: ContactData, *, key: str, subject: Subject) -> Stored:
        """Create it, or say that one with its e-mail address is there."""
        ...

    async def update_contact(
        self, contact_id: str, contact: ContactData, *, key: str, subject: Subject
    ) -> Stored:
        """Change what is given; `contact_id` is the system's id or an e-mail address."""
        ...

    async def find_contact(self, email: str, *, subject: Subject) -> str:
        """The id of the contact with this e-mail address; empty for none."""
        ...

    async def create_deal(self, deal: DealData, *, key: str, subject: Subject) -> Stored: ...

    async def create_note(self, note: NoteData, *, now: int, key: str, subject: Subject) -> Stored: ...

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
        """Records that hold the words of `query` and whose fields (our names or its own) equal `filters`."""
        ...

    async def probe(self) -> str:
        """Something harmless that needs the secret; one line of what was found."""
        ...

    async def aclose(self) -> None: ...
