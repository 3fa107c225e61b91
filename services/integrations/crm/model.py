"""The words of customer relations as types. Times are epoch milliseconds, UTC. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.integrations.model import EffectState
from services.model import ErrorInfo


class RecordKind(StrEnum):
    """What a record is."""

    CONTACT = "contact"
    DEAL = "deal"
    NOTE = "note"


Properties = Mapping[str, str]
"""Fields that only the system itself knows, by its own names."""


@dataclass(frozen=True, slots=True)
class ContactData:
    """A person, as far as it is known; an empty field is not sent."""

    email: str = ""
    first_name: str = ""
    last_name: str = ""
    phone: str = ""
    company: str = ""
    properties: Properties = field(default_factory=dict)

    def fields(self) -> dict[str, str]:
        return {
            name: getattr(self, name)
            for name in ("email", "first_name", "last_name", "phone", "company")
            if getattr(self, name)
        }


@dataclass(frozen=True, slots=True)
class DealData:
    """Business that may come about. `amount`: a decimal number as text; `closes_at`: when it is expected."""

    name: str
    amount: str = ""
    stage: str = ""
    pipeline: str = ""
    closes_at: int | None = None
    contact_id: str = ""
    """Whose it is."""
    properties: Properties = field(default_factory=dict)

    def fields(self) -> dict[str, str]:
        given = {"name": self.name, "amount": self.amount, "stage": self.stage, "pipeline": self.pipeline}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True, slots=True)
class NoteData:
    """Something worth remembering about a contact, a deal, or both."""

    body: str
    at: int | None = None
    """When it was; now unless said."""
    contact_id: str = ""
    deal_id: str = ""
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CrmRecord:
    """One record as the system has it. `fields` by our names, `properties` all of it by the system's own."""

    kind: RecordKind
    id: str
    fields: Mapping[str, str] = field(default_factory=dict)
    properties: Properties = field(default_factory=dict)
    url: str = ""
    created_at: int | None = None
    updated_at: int | None = None


@dataclass(frozen=True, slots=True)
class CrmPage:
    """What a search found. `after`: where the next page begins; empty at the end."""

    records: tuple[CrmRecord, ...] = ()
    total: int | None = None
    after: str = ""
    simulated: bool = False
    system: str = ""
    """Who was asked, for people."""
    degraded: str = ""
    """Why it is an earlier answer, and from when; empty when the system was asked just now."""
    age: float | None = None
    """Seconds since that answer; None when the system was asked just now."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a system answered to a change. `existed`: it was there before, and nothing was changed."""

    id: str
    existed: bool = False
    url: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a change. `id` is the system's, empty while it is not known."""

    kind: RecordKind
    id: str
    state: str
    """Its effect's: `done`, `failed`, `unknown`, or `intended` while another one performs it."""
    existed: bool
    simulated: bool
    system: str
    url: str
    effect_id: str
    fresh: bool
    """Whether this request did it; False for one whose key was used before."""


@dataclass(frozen=True, slots=True)
class Change:
    """One stored change: what was to be written, and what became of it."""

    id: str
    company: str
    what: str
    """`create` or `update`."""
    kind: RecordKind
    target: str
    """Whom or what it is about, for people: an address, a name."""
    state: EffectState
    record_id: str
    """The system's id of the record; empty while it is not known."""
    system: str
    simulated: bool
    error: ErrorInfo | None
    created_at: int
    updated_at: int
