"""Routes requests to the agent that should handle them: by a language model, else by rules that say so."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlmodel import Session

from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.events import DecisionsChanged, EventBus
from services.integrations.knowledge import KnowledgeService
from services.integrations.llm import decisions, rules
from services.integrations.llm.candidates import candidates_of
from services.integrations.llm.clients import LlmClient, LlmClients
from services.integrations.llm.endpoints import Endpoints
from services.integrations.llm.model import (
    Candidate,
    Choice,
    DecisionRow,
    DecisionSource,
    OrchestratorStats,
    Reply,
    Usage,
)
from services.integrations.llm.prompt import answer_of, repaired, routing_question
from services.integrations.model import Kind, Resolved
from services.integrations.registry import IntegrationService
from services.resilience import Fallback, Policies, RateLimiter, Result, RetryOptions, Subject
from services.resilience.retry import Sleep
from services.security import redact
from services.storage import Database
from services.storage.tables import Company, LlmDecision
from services.text import clean, clean_line

KEPT_REQUEST: Final = 2_000
"""Characters of a request that are stored."""
MOST_SHOWN: Final = 1_000
TIMEOUT: Final = 20.0
"""Seconds one attempt of a model may take: somebody waits for where they are sent."""
RETRY: Final = RetryOptions(attempts=3, first_wait=0.3, longest_wait=3.0, budget=20.0)
_PASSAGES: Final = 3


@dataclass(slots=True)
class _Spent:
    """What asking a model took so far."""

    usages: list[Usage] = field(default_factory=list)
    model: str = ""

    @property
    def usage(self) -> Usage:
        if not self.usages:
            return Usage()
        total = self.usages[0]
        for usage in self.usages[1:]:
            total = total + usage
        return total


@dataclass(frozen=True, slots=True)
class _Outcome:
    choice: Choice
    source: DecisionSource
    spent: _Spent
    cost: float | None = None
    currency: str = ""
    by: str = ""
    """The name of the integration that was asked; empty without one."""
    error: ServiceError | None = None
    """Why the model did not decide; where it did, why it had not all of the documents."""


class Orchestrator:
    """Decides which agent a request is for, and remembers why.

    The model is the company's integration of the kind `llm`, called through its policy and under the limits
    of the company and the actor. Where there is none, or it fails, is refused, or answers with nothing usable
    twice, rules decide: the decision then says so, and why. `knowledge` gives passages to those who want
    them; `timezone` is where "today" begins; `simulated`: what is configured is the demo's.
    """

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        integrations: IntegrationService,
        policies: Policies,
        bus: EventBus,
        clock: Clock,
        *,
        knowledge: Callable[[], KnowledgeService] | None = None,
        limiter: RateLimiter | None = None,
        sleep: Sleep = asyncio.sleep,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        timezone: str = "UTC",
        simulated: bool = False,
        user_agent: str = "callboard",
    ) -> None:
        self._open_database = open_database
        self._integrations = integrations
        self._bus = bus
        self._clock = clock
        self._knowledge = knowledge
        self._new_id = new_id
        self._timezone = timezone
        self._simulated = simulated
        self._endpoints = Endpoints(
            policies,
            clock,
            limiter=limiter,
            timeout=TIMEOUT,
            retry_options=RETRY,
            user_agent=user_agent,
            sleep=sleep,
        )
        self._clients = LlmClients(self._endpoints)

    async def aclose(self) -> None:
        await self._endpoints.aclose()

    async def route(
        self,
        company: str,
        request: str,
        *,
        context: str | None = None,
        actor: str = "",
        with_knowledge: bool = False,
        integration: str = "",
    ) -> DecisionRow:
        """Decide, store the decision, return it.

        Raises UsageError for an unknown company or integration, and for an empty request. `integration`: the
        name of the language model's, else the one that is taken of several. `context`: what else is known of
        who asks (data, like the request). `with_knowledge`: passages of the company's documents that fit the
        request help to decide.
        """
        # No key that this program holds leaves it in somebody's words, nor is it stored.
        asked = redact(clean(request)).strip()
        if not asked:
            raise UsageError(
                "The request is empty", advice='Give one: callboard route "…"', code="no_request"
            )
        company_id = await self._integrations.company_id(company)
        if integration:
            await self._where(company_id, integration)
        database = await self._open_database()

        def read(session: Session) -> tuple[str, list[Candidate]]:
            row = session.get(Company, company_id)
            return (row.name if row else company), candidates_of(session, company_id)

        company, candidates = await database.read(read)
        started = self._clock.monotonic()
        told = redact(clean(context or "")).strip()
        outcome = await self._decide(
            company, company_id, candidates, asked, told, with_knowledge, actor, integration
        )
        took = round((self._clock.monotonic() - started) * 1000)
        return await self._store(database, company_id, company, asked, actor, outcome, took)

    async def decisions(self, company: str | None = None, limit: int = 50) -> list[DecisionRow]:
        """Decisions, newest first; of every company when none is named."""
        company_id = await self._integrations.company_id(company) if company is not None else None
        count = max(1, min(MOST_SHOWN, limit))
        database = await self._open_database()
        return await database.read(lambda session: decisions.latest(session, company_id, count))

    async def stats(self, company: str | None = None) -> OrchestratorStats:
        """How it went lately, for a company or for all."""
        company_id = await self._integrations.company_id(company) if company is not None else None
        where = await self._where(company_id)
        now = self._clock.now()

        def read(session: Session) -> tuple[decisions.Tally, DecisionRow | None]:
            last = decisions.latest(session, company_id, 1)
            return decisions.tally(session, company_id, now, self._timezone), (last[0] if last else None)

        tally, last = await (await self._open_database()).read(read)
        decided = tally.by_model + tally.by_rules
        return OrchestratorStats(
            endpoint="" if where.built_in else where.info.policy,
            simulated=self._simulated and not where.built_in,
            decisions=tally.decisions,
            success_share=tally.by_model / decided if decided else None,
            fallback_share=tally.by_rules / decided if decided else None,
            p95_ms=tally.p95_ms,
            tokens_today=tally.tokens_today,
            cost_today=tally.cost_today,
            cost_unknown_today=tally.cost_unknown_today,
            last=last,
        )

    async def probe(self, where: Resolved) -> str:
        """Ask a language model's endpoint which models it has. Raises ServiceError."""
        return await self._clients.probe(where)

    async def _where(self, company_id: int | None, name: str = "") -> Resolved:
        return await self._integrations.resolve(Kind.LLM, company_id, name=name)

    async def _decide(
        self,
        company: str,
        company_id: int,
        candidates: Sequence[Candidate],
        request: str,
        context: str,
        with_knowledge: bool,
        actor: str,
        integration: str,
    ) -> _Outcome:
        spent = _Spent()
        if not candidates:
            nobody = Choice(None, "The company has no agents yet")
            return _Outcome(nobody, DecisionSource.NONE, spent)

        async def by_rules(error: ServiceError) -> Choice:
            return _by_rules(candidates, request, "by rules instead of the model")

        rules_instead = Fallback(function=by_rules)
        try:
            where = await self._where(company_id, integration)
            if where.built_in:
                choice = _by_rules(candidates, request, "by rules, because no language model is configured")
                return _Outcome(choice, DecisionSource.RULES, spent)
            client = await self._clients.open(where)
        except ServiceError as error:  # its key is missing, an option is wrong
            result = await rules_instead.instead_of(error)
            return _Outcome(result.value, DecisionSource.RULES, spent, error=result.reason)
        documents = await self._passages(company, request) if with_knowledge else Result(())
        subject = Subject(account=company, user=actor)
        result = await client.policy.call(
            lambda: _by_model(client, candidates, request, context, documents.value, subject, spent),
            rules_instead,
        )
        return _Outcome(
            result.value,
            DecisionSource.RULES if result.degraded else DecisionSource.MODEL,
            spent,
            client.prices.cost(spent.usage),
            client.prices.currency,
            where.info.name,
            result.reason or documents.reason,
        )

    async def _passages(self, company: str, request: str) -> Result[tuple[str, ...]]:
        """What the company's documents say about it; a knowledge base that is down keeps nobody waiting."""
        nothing: Fallback[tuple[str, ...]] = Fallback.to(())
        if self._knowledge is None:
            return Result(())
        try:
            answer = await self._knowledge().search(company, request, limit=_PASSAGES)
        except ServiceError as error:
            return await nothing.instead_of(error)
        return Result(tuple(f"{hit.title}: {hit.text}" for hit in answer.hits), reason=answer.failure)

    async def _store(
        self,
        database: Database,
        company_id: int,
        company: str,
        request: str,
        actor: str,
        outcome: _Outcome,
        took: int,
    ) -> DecisionRow:
        choice, usage, error = outcome.choice, outcome.spent.usage, outcome.error
        agent = choice.candidate
        decision_id, now = self._new_id(), self._clock.now()

        def write(session: Session) -> DecisionRow:
            row = LlmDecision(
                id=decision_id,
                company_id=company_id,
                at=now,
                actor=actor,
                request=request[:KEPT_REQUEST],
                agent_row=agent.agent_row if agent else None,
                agent_name=agent.name if agent else "",
                reason=redact(choice.reason),
                confidence=choice.confidence,
                source=outcome.source.value,
                model=outcome.spent.model,
                tokens_in=usage.tokens_in,
                tokens_out=usage.tokens_out,
                cost=outcome.cost,
                currency=outcome.currency if outcome.cost is not None else "",
                took_ms=took,
                simulated=self._simulated and bool(outcome.spent.model),
                error_category=error.category.value if error else None,
                error_message=redact(error.message) if error else None,
                error_advice=redact(error.advice) if error else None,
            )
            decisions.add(session, row)
            session.flush()
            return decisions.as_row(row, company, agent.agent_id if agent else "")

        stored = await database.write(write)
        self._bus.publish(DecisionsChanged())
        return replace(stored, integration=outcome.by)


async def _by_model(
    client: LlmClient,
    candidates: Sequence[Candidate],
    request: str,
    context: str,
    passages: Sequence[str],
    subject: Subject,
    spent: _Spent,
) -> Choice:
    """What the model decides, with one more try where its answer is none. Raises ServiceError."""
    spent.model = client.model
    question = routing_question(candidates, request, context=context, passages=passages)
    problem = ""
    for _ in range(2):
        reply = await client.ask(question, subject=subject)
        spent.usages.append(reply.usage)
        spent.model = reply.model
        if reply.refusal or reply.cut:
            raise _no_answer(client, reply)
        found = answer_of(reply.data, candidates)
        if isinstance(found, Choice):
            return found
        problem, question = found, repaired(question, reply.text, found)
    raise ServiceError(
        f"{client.name} answered twice with nothing usable: {problem[:1].lower()}{problem[1:].rstrip('.')}",
        advice="Choose a model that can follow a JSON schema",
        code="bad_answer",
    )


def _no_answer(client: LlmClient, reply: Reply) -> ServiceError:
    if reply.cut:
        return ServiceError(
            f"The answer of {client.name} was cut off because it became too long",
            advice="Add the integration with a higher max_tokens",
            code="cut_off",
        )
    why = clean_line(reply.refusal)[:200].rstrip(".")
    return ServiceError(
        f"{client.name} refused to answer: {why}",
        advice="Put the request in other words, or choose the agent yourself",
        code="refused_by_model",
    )


def _by_rules(candidates: Sequence[Candidate], request: str, how: str) -> Choice:
    choice = rules.choose(candidates, request)
    return replace(choice, reason=f"{choice.reason}; decided {how}")
