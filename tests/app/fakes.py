"""Services that answer from lists, for the commands' own logic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from services.agents import AgentEvent, AuditRow, BundleView
from services.companies.service import ConnectionCheck
from services.errors import Category, ServiceError
from services.events import AgentSettled, EventBus, SyncFinished, SyncPlanned, SyncStarted
from services.model import (
    AgentCard,
    CompanyInfo,
    ConnectionInfo,
    Drift,
    ErrorInfo,
    Outcome,
    OutcomeRow,
    Provider,
    RunStatus,
    SyncReport,
    SyncRunInfo,
    SyncStatus,
)
from services.security import MemoryStore

NOW = 1_760_000_000_000
MINUTE = 60_000
WRONG_KEY = ErrorInfo("authentication", "Retell refused the key", "Enter the right one")
DOWN = ErrorInfo("transient", "Retell could not be reached", "Check the network")


def card(id: int = 1, **changes: Any) -> AgentCard:  # noqa: A002
    return replace(
        AgentCard(
            id=id,
            company="acme",
            connection_id=1,
            provider=Provider.RETELL,
            agent_id=f"agent_{id:04}",
            name=f"Agent {id}",
            status=SyncStatus.SYNCED,
            drift=Drift.IN_SYNC,
            release="v3 published",
            voice="Nova",
            language="en-US",
            model="gpt-5",
            function_count=2,
            checked_at=NOW - 4 * MINUTE,
            changed_at=NOW - 9 * MINUTE,
            gone_at=None,
        ),
        **changes,
    )


def outcome(id: int, result: Outcome, error: ErrorInfo | None = None) -> OutcomeRow:  # noqa: A002
    return OutcomeRow("acme", Provider.RETELL, f"agent_{id:04}", f"Agent {id}", result, error, agent_row=id)


def report(*rows: OutcomeRow, errors: tuple[OutcomeRow, ...] = (), **changes: Any) -> SyncReport:
    failed = sum(row.outcome is Outcome.FAILED for row in rows) + len(errors)
    status = RunStatus.PARTIAL if failed else RunStatus.DONE
    plain = SyncReport("run1", status, tuple(rows), errors, requests=5, duration_ms=812, started_at=NOW)
    return replace(plain, **changes)


@dataclass
class FakeClock:
    at: int = NOW

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / 1000


@dataclass
class FakeAgents:
    items: list[AgentCard] = field(default_factory=list)
    bundles: dict[int, BundleView] = field(default_factory=dict)
    synced_at: int | None = NOW - 4 * MINUTE
    past: list[SyncRunInfo] = field(default_factory=list)
    outcomes: list[OutcomeRow] = field(default_factory=list)
    events: list[AgentEvent] = field(default_factory=list)
    entries: list[AuditRow] = field(default_factory=list)

    async def cards(self) -> list[AgentCard]:
        return list(self.items)

    async def company_names(self) -> list[str]:
        return sorted({item.company for item in self.items})

    async def bundle(self, id: int) -> BundleView | None:  # noqa: A002
        return self.bundles.get(id)

    async def history(self, id: int, limit: int = 50) -> list[AgentEvent]:  # noqa: A002
        return self.events[:limit]

    async def runs(self, limit: int = 50) -> list[SyncRunInfo]:
        return self.past[:limit]

    async def run_outcomes(self, run_id: str) -> list[OutcomeRow]:
        return self.outcomes

    async def audit(self, limit: int = 200) -> list[AuditRow]:
        return self.entries[:limit]

    async def last_sync_at(self) -> int | None:
        return self.synced_at


@dataclass
class FakeCompanies:
    companies: list[CompanyInfo] = field(default_factory=list)
    links: list[ConnectionInfo] = field(default_factory=list)
    check: ConnectionCheck = field(default_factory=lambda: ConnectionCheck(True, "Acme Ltd", "ok", None, 12))
    checks: dict[Provider, ConnectionCheck] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    tested: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    async def list(self) -> list[CompanyInfo]:
        return self.companies

    async def add(self, name: str) -> CompanyInfo:
        self.companies.append(CompanyInfo(len(self.companies) + 1, name, NOW))
        return self.companies[-1]

    async def remove(self, name: str) -> None:
        self.removed.append(name)

    async def connections(self, company: str | None = None) -> Any:
        return [link for link in self.links if company in (None, link.company)]

    async def add_connection(
        self,
        company: str,
        provider: Provider,
        *,
        key: str,
        base_url: str | None = None,
        residency: str | None = None,
    ) -> ConnectionInfo:
        link = ConnectionInfo(
            9, 1, company, provider, base_url or "https://vendor.example", residency or "global", NOW
        )
        self.links.append(link)
        self.keys[f"{company}/{provider}"] = key
        return link

    async def rotate(self, company: str, provider: Provider, *, key: str) -> None:
        self.keys[f"{company}/{provider}"] = key

    async def remove_connection(self, company: str, provider: Provider) -> None:
        self.removed.append(f"{company}/{provider}")

    async def test(self, company: str, provider: Provider) -> ConnectionCheck:
        return self.checks.get(provider, self.check)

    async def test_key(self, provider: Provider, *, key: str, **where: str | None) -> ConnectionCheck:
        self.tested.append(key)
        return self.check


@dataclass
class FakeSync:
    bus: EventBus
    result: SyncReport = field(default_factory=report)
    requests: list[Any] = field(default_factory=list)
    before_end: Callable[[], None] | None = None

    async def run(self, request: Any) -> SyncReport:
        self.requests.append(request)
        rows = self.result.outcomes
        self.bus.publish(SyncStarted("run1", "all", "operator", False))
        self.bus.publish(SyncPlanned("run1", 1, len(rows), len(rows), ()))
        for row in rows:
            self.bus.publish(AgentSettled("run1", row))
        if self.before_end:
            self.before_end()
        self.bus.publish(SyncFinished("run1", self.result))
        return self.result

    def cancel(self, run_id: str | None = None) -> bool:
        return True


class LockedStore(MemoryStore):
    kind = "file"
    label = "encrypted file"

    def __init__(self, passphrase: str = "right", *, is_new: bool = False) -> None:
        super().__init__()
        self.locked = True
        self.is_new = is_new
        self.passphrase = passphrase

    async def unlock(self, passphrase: str) -> None:
        if self.is_new:
            self.passphrase = passphrase
        if passphrase != self.passphrase:
            raise ServiceError("wrong", category=Category.AUTHENTICATION, code="wrong_passphrase")
        self.locked = False


class FakeServices:
    """What `app.runtime.open_services` would give."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bus = EventBus()
        self.stale_after_ms = 60 * MINUTE
        self.demo = None
        self.agents = FakeAgents()
        self.companies = FakeCompanies()
        self.sync = FakeSync(self.bus)
        self.store: MemoryStore = MemoryStore()
        self.closed = 0

    async def open_secrets(self) -> MemoryStore:
        return self.store

    async def aclose(self) -> None:
        self.closed += 1

    def with_company(self, *vendors: Provider) -> FakeServices:
        self.companies.companies.append(CompanyInfo(1, "acme", NOW, len(vendors), 2))
        for number, vendor in enumerate(vendors, 1):
            link = ConnectionInfo(number, 1, "acme", vendor, "https://vendor.example", "global", NOW, NOW, 2)
            self.companies.links.append(link)
        return self
