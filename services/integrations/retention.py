"""What orders say of people, deleted for its age: notes and contacts of a CRM, guests of bookings.

An order stays with everything else that is known of it: what it was, when, whom it was about, by what, and
what became of it. A digest of its words stays, too, so that its idempotency key still stands for the same
request. Functions run in their caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from sqlmodel import Session, col, or_, select

from services.integrations.effects import DIGEST, NOT_SENT, EffectState, digest_of
from services.storage.tables import Booking, Effect

_ORDER: Final = ("action", "party_size", "service", "practitioner", "at", "slot")
"""What is kept of a booking's request."""
_WAY: Final = ("route", "integration", "timezone")
_OUTCOME: Final = ("state", "starts_at", "existed", "url", "system", NOT_SENT)
"""What is kept of a result: a partner's own fields may well name people."""


def remove_words(session: Session, company_id: int | None, before: int, limit: int) -> int:
    """Delete what some older orders of a company (None: of no company) say of people; of how many.

    A booking is as old as the time it was for. What is under way keeps its words.
    """
    mine = col(Effect.company_id).is_(None) if company_id is None else col(Effect.company_id) == company_id
    kinds = or_(
        col(Effect.kind) == "booking",
        col(Effect.kind).startswith("booking."),
        col(Effect.kind).startswith("crm."),
    )
    over = or_(col(Booking.starts_at).is_(None), col(Booking.starts_at) < before)
    query = (
        select(Effect, Booking)
        .join(Booking, col(Booking.effect_id) == col(Effect.id), isouter=True)
        .where(
            mine,
            kinds,
            over,
            col(Effect.created_at) < before,
            Effect.state != EffectState.INTENDED.value,
            col(Effect.request).not_like(f'%"{DIGEST}": "%'),
        )
        .limit(limit)
    )
    found = session.exec(query).all()
    for effect, booking in found:
        request = json.loads(effect.request)
        kept = _only(request, _ORDER) if effect.kind.startswith("booking") else {}
        effect.request = _json({**kept, DIGEST: digest_of(request)})
        effect.result = _json(_only(json.loads(effect.result), _OUTCOME))
        session.add(effect)
        if booking is not None:
            booking.who = ""
            booking.request = _json(_only(json.loads(booking.request), (*_ORDER, *_WAY)))
            booking.result = _json(_only(json.loads(booking.result), _OUTCOME))
            session.add(booking)
    return len(found)


def _only(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, sort_keys=True)
