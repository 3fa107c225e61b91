"""A change whose answer was lost: what the system itself says of it.

Nothing is sent again. A record that fits and came about at that time is taken for the change; that there is
none counts only after a while, since a search may find a new record late. Everything else a person decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.errors import Category, ServiceError
from services.integrations.crm.model import CrmRecord, RecordKind, Stored
from services.integrations.crm.port import CrmSystem
from services.integrations.effects import DIGEST, LONGEST_MS, EffectRow
from services.resilience import Subject

SURE_AFTER_MS: Final = 2 * LONGEST_MS
"""After which a record that is not found was never made: no attempt takes so long, and no search lags so."""
SKEW_MS: Final = 120_000
"""How far the system's clock may be from ours."""
MOST_READ: Final = 100


async def find_lost(system: CrmSystem, change: EffectRow, now: int, subject: Subject) -> Stored | None:
    """The record that the change made or changed, None for one that was certainly not made.

    Raises ServiceError: `cannot_tell` where neither is certain, anything else where it cannot be asked.
    """
    if DIGEST in change.request:
        raise cannot_tell(system.name, "what was to be written is not kept any more")
    if change.kind.endswith(".update"):
        return await _updated(system, change, subject)
    kind = RecordKind(change.kind.rpartition(".")[2])
    filters = _filters(system, kind, change)
    if not filters:
        raise cannot_tell(system.name, "nothing of it can be searched for")
    fitting = (await system.search(kind, "", filters, limit=MOST_READ, after="", subject=subject)).records
    if "email" in filters:
        # One address, one contact: the one that is there is what creating it would have answered.
        contact = await system.find_contact(filters["email"], subject=subject)
        if contact:
            known = next((record for record in fitting if record.id == contact), CrmRecord(kind, contact))
            earlier = known.created_at is not None and known.created_at < change.created_at - SKEW_MS
            return Stored(contact, existed=earlier, url=known.url)
        fitting = ()
    made = [record for record in fitting if _made_then(record, change)]
    if len(made) == 1:
        return Stored(made[0].id, url=made[0].url)
    if made:
        raise cannot_tell(system.name, f"{len(made)} records fit")
    if any(record.created_at is None for record in fitting):
        raise cannot_tell(system.name, "it does not say when its records were made")
    if now - change.created_at < SURE_AFTER_MS:
        raise cannot_tell(
            system.name, "it is not found, but may still be on its way; ask again in half an hour"
        )
    return None


def cannot_tell(system: str, why: str) -> ServiceError:
    """The system answered, and neither the one nor the other is certain."""
    return ServiceError(
        f"{system} cannot tell whether it was written: {why}",
        category=Category.PERMANENT,
        advice="Look into it, and decide with --done ID or --not-done",
        code="cannot_tell",
    )


async def _updated(system: CrmSystem, change: EffectRow, subject: Subject) -> Stored | None:
    """A change of a contact is done if the contact has what was given; others may have changed it since."""
    wanted = str(change.request.get("contact") or "")
    # It is found by its new address if that was changed, too.
    emails = [each for each in (str(change.request.get("email") or ""), wanted) if "@" in each]
    found: list[CrmRecord] = []
    searches: list[Mapping[str, str]] = [{"email": email} for email in emails]
    if "@" not in wanted and system.id_field:
        searches = [{system.id_field: wanted}]
    for filters in searches:
        page = await system.search(
            RecordKind.CONTACT, "", filters, limit=MOST_READ, after="", subject=subject
        )
        found += page.records
    if not found:
        raise cannot_tell(system.name, "the contact is not found")
    record = found[0]
    if _has(record, change.request):
        return Stored(record.id, url=record.url)
    if record.updated_at is not None and record.updated_at < change.created_at - SKEW_MS:
        return None
    raise cannot_tell(system.name, "the contact has other values, and was changed since")


def _filters(system: CrmSystem, kind: RecordKind, change: EffectRow) -> dict[str, str]:
    """By which fields its record is searched for: few, since a system may write others in its own way."""
    request = change.request
    if kind is RecordKind.NOTE:
        at = request.get("at")
        return {"at": system.moment(at if isinstance(at, int) else change.created_at)}
    if kind is RecordKind.DEAL:
        return {"name": str(request.get("name") or "")}
    for names in (("email",), ("phone",), ("first_name", "last_name")):
        given = {name: str(request[name]) for name in names if request.get(name)}
        if given:
            return given
    return {}


def _made_then(record: CrmRecord, change: EffectRow) -> bool:
    """Whether the record came about while the change was under way."""
    if record.created_at is None:
        return False
    return change.created_at - SKEW_MS <= record.created_at <= change.created_at + LONGEST_MS + SKEW_MS


def _has(record: CrmRecord, request: Mapping[str, Any]) -> bool:
    ours = ("email", "first_name", "last_name", "phone", "company")
    wanted = {name: str(request[name]) for name in ours if request.get(name)}
    theirs = request.get("properties") or {}
    return all(_same(record.fields.get(name), value) for name, value in wanted.items()) and all(
        _same(record.properties.get(name), str(value)) for name, value in theirs.items()
    )


def _same(one: str | None, other: str) -> bool:
    return one is not None and one.strip().casefold() == other.strip().casefold()
