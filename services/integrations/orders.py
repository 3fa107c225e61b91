"""What the services that order something outside have in common: who orders, by what, and what is not known.

Their methods take the words of `Asking` and `Ordering` as keywords.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypedDict

from services.errors import ServiceError, UsageError
from services.integrations.effects import EffectRow, is_uncertain
from services.integrations.model import Kind, Resolved
from services.resilience import Subject

if TYPE_CHECKING:
    from services.integrations.registry import IntegrationService


class Asking(TypedDict, total=False):
    """Who asks: by which integration (its name; else the one that is found), for which agent, which user."""

    integration: str
    agent_id: str | None
    actor: str


class Ordering(Asking, total=False):
    """Who orders. The `idempotency_key` is the caller's own: one effect for each."""

    idempotency_key: str


def subject_of(company: str, how: Asking) -> Subject:
    """Under whose limits something is done."""
    return Subject(account=company, agent=how.get("agent_id") or "", user=how.get("actor", ""))


async def unsure(doing: Awaitable[EffectRow], what: str, look: Callable[[], str]) -> EffectRow:
    """What it gives. A failure after which it may have been done says so, with `look()` as its advice.

    An empty advice says that nothing was ordered yet.
    """
    try:
        return await doing
    except ServiceError as error:
        advice = look()
        if not advice or not is_uncertain(error):
            raise
        failure = ServiceError(
            f"{error.message}; whether {what} is not known",
            category=error.category,
            advice=advice,
            code="unknown_outcome",
        )
    # Raised here, so that the first failure does not hang on it.
    raise failure


async def again(
    integrations: IntegrationService,
    kind: Kind,
    company_id: int | None,
    integration_id: int | None,
    name: str,
    adapter: str = "",
) -> Resolved:
    """The integration by which something was ordered, with its secret; one that is not stored by its name.

    `adapter` is given where it is known, and then counts instead of the name. Raises UsageError when it is
    gone or another one stands in its place, ServiceError without its secret.
    """
    stored = (await integrations.get(integration_id)).name if integration_id is not None else ""
    resolved = await integrations.resolve(kind, company_id, name=stored, adapter=adapter)
    found = resolved.info
    same = found.adapter == adapter if adapter else integration_id is not None or found.name == name
    if found.id != integration_id or not same:
        raise UsageError(
            f"The integration {name} is not there any more",
            advice="Nothing more can be learnt of what went by it",
            code="unknown_integration",
        )
    return resolved
