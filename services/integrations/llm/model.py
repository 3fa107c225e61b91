"""What is asked of a language model, what comes back, and what the orchestrator makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from services.model import ErrorInfo
from services.resilience import because


@dataclass(frozen=True, slots=True)
class Question:
    """One question whose answer is a JSON object of `schema` (JSON Schema, all members required)."""

    system: str
    user: str
    schema: Mapping[str, Any]
    name: str = "answer"
    """What the answer is called, letters and underscores."""
    earlier: tuple[tuple[str, str], ...] = ()
    """What was answered and replied before: pairs of the model's text and ours, oldest first."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written, None where the endpoint does not say."""

    tokens_in: int | None = None
    tokens_out: int | None = None

    def __add__(self, other: Usage) -> Usage:
        return Usage(_sum(self.tokens_in, other.tokens_in), _sum(self.tokens_out, other.tokens_out))


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer. `data` is the JSON object, or None where `text` holds none."""

    text: str
    data: Mapping[str, Any] | None
    model: str
    usage: Usage = Usage()
    refusal: str = ""
    """Why the model would not answer, in its words; empty when it did."""
    cut: bool = False
    """Whether the answer breaks off because it became too long."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of a million tokens; None where none is set."""

    tokens_in: float | None = None
    tokens_out: float | None = None
    currency: str = "USD"

    def cost(self, usage: Usage) -> float | None:
        """What this cost; None rather than a guess where a price or a count is missing."""
        total = 0.0
        for price, tokens in ((self.tokens_in, usage.tokens_in), (self.tokens_out, usage.tokens_out)):
            if price is None or tokens is None:
                return None
            total += price * tokens / 1_000_000
        return round(total, 9)


class DecisionSource(StrEnum):
    """Who decided. `NONE`: there was nobody to decide for, the company has no agents."""

    MODEL = "model"
    RULES = "rules"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent a request may go to. `id` is what the model answers with; `agent_row` is the mirror's."""

    id: str
    agent_row: int
    agent_id: str
    """The vendor's id."""
    name: str
    purpose: str = ""
    """The beginning of its prompt."""
    language: str = ""
    functions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to "who?". `candidate` is None where nobody fits."""

    candidate: Candidate | None
    reason: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """One stored decision. Times in epoch milliseconds, costs in `currency`, None where unknown."""

    id: str
    company: str
    at: int
    actor: str
    request: str
    agent_row: int | None
    agent_name: str
    agent_id: str
    """The vendor's id of the agent; empty when it is gone or there is none."""
    reason: str
    confidence: float | None
    source: DecisionSource
    model: str
    tokens_in: int | None
    tokens_out: int | None
    cost: float | None
    currency: str
    took_ms: int
    simulated: bool
    """Whether the model that was asked is a simulation, as in the demo."""
    error: ErrorInfo | None
    """Why the model did not decide; where it did, why it had not all of the documents. None when all is
    well, and without a model."""
    integration: str = field(default="", compare=False)
    """The name of the language model's integration that was asked; known only of a decision just made."""

    @property
    def degraded(self) -> str:
        """Why the decision is less than it could be, in words; empty when all is well."""
        if self.error is None:
            return ""
        by_rules = self.source is DecisionSource.RULES
        instead = "rules instead of the model" if by_rules else "not all of the company's documents"
        return because(instead, self.error.message)


@dataclass(frozen=True, slots=True)
class OrchestratorStats:
    """How decisions went lately. Shares are from 0 to 1, None without decisions."""

    endpoint: str
    """The name of the language model's integration; empty without one."""
    simulated: bool
    """Whether the model is a simulation, as in the demo."""
    decisions: int = 0
    """In the last 24 hours."""
    success_share: float | None = None
    """Decided by the model."""
    fallback_share: float | None = None
    """Decided by the rules."""
    p95_ms: int | None = None
    tokens_today: int = 0
    cost_today: Mapping[str, float] = field(default_factory=dict)
    """By currency; decisions without a known cost are not in it."""
    cost_unknown_today: int = 0
    """Decisions of a model whose cost is not known."""
    last: DecisionRow | None = None
