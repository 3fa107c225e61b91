"""The services as the screens see them, in memory: seeded agents, a sync that tests drive event by event."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.agents import AgentEvent, AuditRow, BundlePart, BundleView, LiveSync, SyncRequest
from services.errors import Category, ServiceError, UsageError
from services.events import (
    AgentReading,
    AgentsChanged,
    AgentSettled,
    CompaniesChanged,
    Event,
    EventBus,
    SyncFinished,
    SyncPlanned,
    SyncStarted,
)
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
from tests.support.fake_calls import FakeCalls
from tests.support.fake_health import FakeHealth

NOON = 1_772_366_400_000
"""2026-03-01 12:00:00 UTC: what time it is in tests."""
MINUTE = 60_000
HOUR = 60 * MINUTE

_FIRST = (
    "Reception",
    "Booking",
    "Outbound",
    "Support",
    "Billing",
    "Survey",
    "Night Desk",
    "Triage",
    "Concierge",
)
_SECOND = ("DE", "EN", "Bot", "Line", "Agent", "Paris", "Night", "Clinic", "Weber", "Surveys", "Zürich")
_VOICES = ("Marissa", "Charlotte", "Adrian", "Cimo", "Brynne", "Anthony")
_LANGUAGES = ("de-DE", "en-US", "fr-FR", "es-419", "pt-BR")
_MODELS = ("gpt-5.1", "gemini-2.5-flash", "claude-5-sonnet", "gpt-5-mini")


class FrozenClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now: int = NOON) -> None:
        self.at = now

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.at / 1000


def seeded_cards(count: int = 42, *, seed: int = 7, companies: Sequence[str] = ("acme",)) -> list[AgentCard]:
    """Agents in every state, the same ones for the same arguments."""
    chance = random.Random(seed)
    return [_card(number, chance, companies) for number in range(1, count + 1)]


def _card(number: int, chance: random.Random, companies: Sequence[str]) -> AgentCard:
    provider = chance.choice(list(Provider))
    name = f"{chance.choice(_FIRST)} {chance.choice(_SECOND)}" + (f" {number}" if number > 12 else "")
    status, drift, error = SyncStatus.SYNCED, Drift.IN_SYNC, None
    checked: int | None = NOON - chance.randrange(2, 55) * MINUTE
    match number % 14:
        case 3:
            status = SyncStatus.ERROR
            drift = Drift.UNKNOWN
            error = ErrorInfo(
                "rate_limit", "Retell answered 429, too many requests", "Wait 40 s, or lower the concurrency"
            )
        case 5:
            drift = Drift.REMOTE_AHEAD
            checked = NOON - 3 * HOUR
        case 8:
            drift = Drift.LOCAL_AHEAD
        case 9:
            status, drift, checked = SyncStatus.PENDING, Drift.UNKNOWN, None
        case 12:
            drift = Drift.CONFLICT
    retell = provider is Provider.RETELL
    return AgentCard(
        id=number,
        company=companies[number % len(companies)],
        connection_id=1 if retell else 2,
        provider=provider,
        agent_id=f"agent_{number:04d}{chance.randrange(16**8):08x}",
        name=name,
        status=status,
        drift=drift,
        release=""
        if checked is None
        else (f"v{chance.randrange(1, 30)} published" if retell else "main branch"),
        voice="" if checked is None else chance.choice(_VOICES),
        language="" if checked is None else chance.choice(_LANGUAGES),
        model="" if checked is None else chance.choice(_MODELS),
        function_count=None if checked is None else chance.randrange(0, 12),
        checked_at=checked,
        changed_at=None if checked is None else checked - chance.randrange(1, 400) * HOUR,
        gone_at=NOON - 26 * HOUR if number % 40 == 20 else None,
        error=error,
    )


def bundle_text(card: AgentCard, prompt: str = "You are Marissa.\nSpeak German.\nBe brief.") -> str:
    """A wire document like a vendor's."""
    return json.dumps(
        {
            "agent_id": card.agent_id,
            "agent_name": card.name,
            "voice_id": card.voice,
            "general_prompt": prompt,
            "tools": [
                {
                    "name": "book",
                    "url": "https://example.test/book",
                    "headers": {"Authorization": "Bearer s3cr3t"},
                }
            ],
            "api_key": "key_s3cr3t",
        }
    )


@dataclass
class FakeSettings:
    stale_after: int = 60
    timezone: str = "Europe/Berlin"
    theme: str = "auto"
    ascii: bool = False
    mouse: bool = True


class FakeAgents:
    """The mirror as a dictionary."""

    def __init__(self, cards: Sequence[AgentCard]) -> None:
        self.rows = {card.id: card for card in cards}
        self.failure: ServiceError | None = None
        self.elsewhere = False
        self.prompt = "You are Marissa.\nSpeak German.\nBe brief."
        self.run_rows: list[SyncRunInfo] = []
        self.outcome_rows: dict[str, list[OutcomeRow]] = {}
        self.audit_rows: list[AuditRow] = []
        self.connections = 2 if cards else 0
        self.bundle_reads = 0

    async def cards(self) -> list[AgentCard]:
        if self.failure is not None:
            raise self.failure
        return list(self.rows.values())

    async def cards_of(self, ids: Sequence[int], /) -> list[AgentCard]:
        return [self.rows[agent] for agent in ids if agent in self.rows]

    async def bundle(self, agent: int, /) -> BundleView | None:
        self.bundle_reads += 1
        card = self.rows[agent]
        if card.function_count is None:
            return None
        part = BundlePart("agent", card.agent_id, bundle_text(card, self.prompt))
        return BundleView((part,), "d1ce" * 16, NOON - HOUR, (("voice", card.voice), ("voice speed", "1.05")))

    async def history(self, agent: int, /, limit: int = 50) -> list[AgentEvent]:
        card = self.rows[agent]
        return [
            AgentEvent(
                NOON - MINUTE, Outcome.UNCHANGED, "schedule", "nothing new in the list", None, "run-2"
            ),
            AgentEvent(
                NOON - HOUR,
                Outcome.FAILED if card.error else Outcome.UPDATED,
                "operator",
                "agent, engine",
                card.error,
                "run-1",
            ),
        ][:limit]

    async def runs(self, limit: int = 50) -> list[SyncRunInfo]:
        return self.run_rows[:limit]

    async def run_outcomes(self, run_id: str, /) -> list[OutcomeRow]:
        return self.outcome_rows.get(run_id, [])

    async def audit(self, limit: int = 50) -> list[AuditRow]:
        return self.audit_rows[:limit]

    async def last_sync_at(self) -> int | None:
        return NOON - 4 * MINUTE if self.rows else None

    async def connection_count(self) -> int:
        return self.connections

    async def changed_elsewhere(self) -> bool:
        if self.failure is not None:
            raise self.failure
        was, self.elsewhere = self.elsewhere, False
        return was


class FakeSync:
    """A sync that stands still after its plan; `settle` and `finish` move it, as a test wants."""

    def __init__(self, services: FakeServices) -> None:
        self._services = services
        self.active: LiveSync | None = None
        self.requests: list[SyncRequest] = []
        self.broken: set[int] = set()
        self.rows: list[OutcomeRow] = []
        self.ids: list[int] = []

    def _publish(self, event: Event) -> None:
        if self.active is not None:
            self.active.apply(event)
        self._services.bus.publish(event)

    def start(self, request: SyncRequest, /) -> str:
        run = request.resume or f"run-{len(self.requests) + 10}"
        self.requests.append(request)
        self.active, self.rows = LiveSync(run), []
        self.ids = list(request.agent_ids or self._services.agents.rows)
        self._publish(SyncStarted(run, request.scope, request.cause, request.force))
        self._publish(SyncPlanned(run, 1, len(self.ids), len(self.ids), tuple(self.ids)))
        for agent in self.ids[:6]:
            self._publish(AgentReading(run, agent))
        return run

    def settle(self, count: int = 1, outcome: Outcome = Outcome.UNCHANGED) -> None:
        """Let the next agents come to their end; broken ones fail."""
        assert self.active is not None
        agents = self._services.agents
        for agent in self.ids[len(self.rows) : len(self.rows) + count]:
            card = agents.rows[agent]
            error = None
            if agent in self.broken:
                error = ErrorInfo("transient", "Retell answered 500 for this agent", "Try again in a minute")
                card = replace(card, status=SyncStatus.ERROR, error=error)
            else:
                card = replace(
                    card,
                    status=SyncStatus.SYNCED,
                    drift=Drift.IN_SYNC,
                    error=None,
                    checked_at=self._services.clock.now(),
                )
            agents.rows[agent] = card
            row = OutcomeRow(
                card.company,
                card.provider,
                card.agent_id,
                card.name,
                Outcome.FAILED if error else outcome,
                error,
                agent,
            )
            self.rows.append(row)
            self._publish(AgentReading(self.active.run_id, agent))
            self._publish(AgentSettled(self.active.run_id, row))
            self._publish(AgentsChanged((agent,)))

    def finish(self, status: RunStatus | None = None, errors: tuple[OutcomeRow, ...] = ()) -> None:
        """End the run the way its outcomes say, or as told."""
        assert self.active is not None
        failed = any(row.outcome is Outcome.FAILED for row in self.rows)
        status = status or (RunStatus.PARTIAL if failed else RunStatus.DONE)
        self._publish(
            SyncFinished(self.active.run_id, SyncReport(self.active.run_id, status, tuple(self.rows), errors))
        )

    def cancel(self, run_id: str | None = None, /) -> bool:
        if self.active is None or self.active.finished:
            return False
        self.finish(RunStatus.CANCELLED)
        return True


@dataclass
class FakeCheck:
    ok: bool
    account: str = ""
    code: str = "ok"
    error: ErrorInfo | None = None
    took_ms: int = 120


class FakeCompanies:
    """Companies in memory. The key `good` works, `weak` lacks a permission, `far` cannot be reached."""

    def __init__(self, services: FakeServices, names: Sequence[str]) -> None:
        self._services = services
        self.rows = {name: CompanyInfo(number, name, NOON) for number, name in enumerate(names, 1)}
        self.links: dict[tuple[str, Provider], ConnectionInfo] = {}
        self.keys: dict[tuple[str, Provider], str] = {}
        for name in names:
            for provider in Provider:
                self._link(name, provider, f"https://{provider.value}.example", "global", "good")

    def _link(
        self, company: str, provider: Provider, base_url: str, residency: str, key: str
    ) -> ConnectionInfo:
        info = ConnectionInfo(
            len(self.links) + 1,
            self.rows[company].id,
            company,
            provider,
            base_url,
            residency,
            NOON,
            NOON - 4 * MINUTE,
            21,
        )
        self.links[company, provider] = info
        self.keys[company, provider] = key
        return info

    async def list(self) -> list[CompanyInfo]:
        return [
            replace(row, connections=sum(company == row.name for company, _ in self.links), agents=21)
            for row in self.rows.values()
        ]

    async def add(self, name: str, /) -> CompanyInfo:
        if name in self.rows:
            raise UsageError(f"There is a company {name} already", advice="Choose another name")
        self.rows[name] = CompanyInfo(len(self.rows) + 1, name, NOON)
        self._services.bus.publish(CompaniesChanged())
        return self.rows[name]

    async def remove(self, name: str, /) -> None:
        del self.rows[name]
        self.links = {pair: link for pair, link in self.links.items() if pair[0] != name}
        self._services.bus.publish(CompaniesChanged())

    async def connections(self, company: str | None = None) -> Sequence[ConnectionInfo]:
        return [link for link in self.links.values() if company in (None, link.company)]

    async def add_connection(
        self,
        company: str,
        provider: Provider,
        /,
        *,
        key: str,
        base_url: str | None = None,
        residency: str | None = None,
    ) -> ConnectionInfo:
        link = self._link(
            company, provider, base_url or "https://default.example", residency or "global", key
        )
        self._services.bus.publish(CompaniesChanged())
        return link

    async def rotate(self, company: str, provider: Provider, /, *, key: str) -> ConnectionInfo:
        self.keys[company, provider] = key
        return self.links[company, provider]

    async def remove_connection(self, company: str, provider: Provider, /) -> None:
        del self.links[company, provider]
        self._services.bus.publish(CompaniesChanged())

    async def test(self, company: str, provider: Provider, /) -> FakeCheck:
        return await self.test_key(provider, key=self.keys[company, provider])

    async def test_key(
        self, provider: Provider, /, *, key: str, base_url: str | None = None, residency: str | None = None
    ) -> FakeCheck:
        await asyncio.sleep(0)
        wrong = {
            "weak": (
                "missing_permission",
                "authentication",
                "The key lacks the permission convai_read",
                "Give it that permission at the vendor",
            ),
            "far": (
                "unreachable",
                "transient",
                "api.example could not be reached",
                "Check the network and the base URL",
            ),
        }
        if key == "good":
            return FakeCheck(True, "acme workspace")
        code, category, message, advice = wrong.get(
            key,
            (
                "wrong_key",
                "authentication",
                "The vendor does not know this key",
                "Copy it again from the dashboard",
            ),
        )
        return FakeCheck(False, "", code, ErrorInfo(category, message, advice))


@dataclass
class FakeSecrets:
    label: str = "keyring (Secret Service)"
    locked: bool = False
    passphrase: str = "open sesame"
    is_new: bool = False

    async def unlock(self, passphrase: str, /) -> None:
        if self.is_new:
            self.passphrase, self.is_new = passphrase, False
        if passphrase != self.passphrase:
            raise ServiceError(
                "The passphrase is wrong",
                advice="Type it again",
                category=Category.AUTHENTICATION,
                code="wrong_passphrase",
            )
        self.locked = False


class FakeDemoControl:
    """The fault switch, noting what was switched."""

    def __init__(self, services: FakeServices) -> None:
        self._services = services
        self.edited: list[int] = []
        self.faults: list[str] = []

    def service_of(self, check_id: str, name: str, /) -> str:
        kind, _, what = check_id.partition(":")
        return {"provider": what.rpartition("/")[2], "integration": name.lower()}.get(kind, "")

    async def faults_of(self, service: str, /) -> list[str]:
        return [fault for fault in self.faults if fault.endswith(f":{service}")]

    async def break_service(self, service: str, fault: str, /) -> None:
        self.faults.append(f"{fault}:{service}")

    async def mend_service(self, service: str, /) -> None:
        self.faults = [fault for fault in self.faults if not fault.endswith(f":{service}")]

    async def break_agent(self, card: AgentCard, /) -> None:
        self._services.sync.broken.add(card.id)

    async def mend_agent(self, card: AgentCard, /) -> None:
        self._services.sync.broken.discard(card.id)

    async def edit_agent(self, card: AgentCard, /) -> None:
        self.edited.append(card.id)


class FakeMessages:
    """Messages that a test puts there."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.inbound: list[Any] = []
        self.steps: dict[str, list[Any]] = {}

    async def list(self, company: str | None = None, *, limit: int = 50) -> list[Any]:
        return self.sent[:limit]

    async def received(self, company: str | None = None, *, limit: int = 50) -> list[Any]:
        return self.inbound[:limit]

    async def events(self, message_id: str, /) -> list[Any]:
        return self.steps.get(message_id, [])


@dataclass
class FakeServices:
    """Fits `screens.ports.Services`."""

    cards: list[AgentCard] = field(default_factory=seeded_cards)
    demo: Any = None
    settings: FakeSettings = field(default_factory=FakeSettings)
    secrets: FakeSecrets = field(default_factory=FakeSecrets)
    company_names: Sequence[str] = ("acme",)
    glance: tuple[str, bool] | None = None
    next_sync: int | None = None

    def __post_init__(self) -> None:
        self.clock = FrozenClock()
        self.bus = EventBus()
        self.agents = FakeAgents(self.cards)
        self.sync = FakeSync(self)
        self.companies = FakeCompanies(self, self.company_names)
        self.demo_control = FakeDemoControl(self)
        self.calls = FakeCalls(self.bus)
        self.messages = FakeMessages()
        self.health = FakeHealth(self.bus, self.clock)
        self.real: Callable[[], FakeServices] | None = None
        self.started = False
        self.closed = False

    async def warm(self) -> None: ...

    def secrets_at_a_glance(self) -> tuple[str, bool] | None:
        return self.glance

    def next_sync_at_a_glance(self) -> int | None:
        return self.next_sync

    async def open_secrets(self) -> FakeSecrets:
        return self.secrets

    async def start_background(self) -> None:
        self.started = True

    async def aclose(self) -> None:
        self.closed = True
