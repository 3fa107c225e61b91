"""What a transport needs to reach a vendor."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.calls.model import CallTarget
from services.companies.service import actor
from services.model import Provider
from services.resilience import OnWait, Policy, Subject


@dataclass(frozen=True, slots=True)
class VendorAccess:
    """A company's way to one vendor: base URL without a trailing slash, and the key, which is never shown."""

    provider: Provider
    base_url: str
    key: str = field(repr=False)
    residency: str = "global"
    policy: Policy | None = field(default=None, repr=False, compare=False)
    """What requests go through; None where there is no connection whose policy it could be."""
    subject: Subject | None = field(default=None, compare=False)
    """On whose behalf it is used."""

    async def take(self, times: int = 1, *, on_wait: OnWait | None = None) -> None:
        """Count acts that the vendor charges for, a conversation or a typed turn, against the limits.

        Raises ServiceError (`limited`); with `on_wait` room that comes soon is waited for instead.
        """
        if self.policy is not None and self.subject is not None:
            for _ in range(times):
                await self.policy.take(self.subject, on_wait=on_wait)


def subject_of(target: CallTarget) -> Subject:
    """Whose limits a conversation counts against: the company's, the agent's, and of who sits here."""
    return Subject(account=target.company, agent=target.agent_id, user=actor())
