"""The words of integrations as types; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.errors import ServiceError
from services.model import ErrorInfo
from services.security import Secret

SIMULATED: Final = "simulated"
"""The adapter of a kind for which nothing is configured."""


class Kind(StrEnum):
    """What an integration is for."""

    MESSAGES = "messages"
    BOOKINGS = "bookings"
    KNOWLEDGE = "knowledge"
    CRM = "crm"
    LLM = "llm"


class Origin(StrEnum):
    """Where it was found."""

    COMPANY = "company"
    SHARED = "shared"
    ENVIRONMENT = "environment"
    BUILT_IN = "built_in"
    """Part of the program: the local knowledge base, routing by rules."""
    SIMULATION = "simulation"


UNTESTABLE: Final = "untestable"
"""The code of a probe that has nothing to ask: it says neither that it works nor that it does not."""
UNLISTED: Final = "model_not_listed"
"""The code of a probe that was answered, by an endpoint that does not list the model to be used."""


def untestable(message: str) -> ServiceError:
    """What a probe raises that can ask nothing."""
    return ServiceError(message, advice="Use it, and see what becomes of it", code=UNTESTABLE)


class EffectState(StrEnum):
    """What became of an effect. `UNKNOWN`: it may have happened; only a person may order it again."""

    INTENDED = "intended"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


GATEWAY_ADAPTERS: Final[Mapping[Kind, str]] = {
    Kind.MESSAGES: "http-messages",
    Kind.BOOKINGS: "http-bookings",
    Kind.KNOWLEDGE: "http-knowledge",
    Kind.CRM: "http-crm",
}
"""The adapter of the generic HTTP service of each kind that has one."""

BUILT_IN: Final[Mapping[Kind, str]] = {Kind.KNOWLEDGE: "local", Kind.LLM: "rules"}
"""What the program does itself where nothing is configured, with the adapter it is called by."""


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """One way of speaking to a service, as its module describes it.

    `config`: what has to or may be said besides the address, name to one sentence; names that end in `*` are
    required. `secret`: what its secret is called, empty if it has none; `more_secrets`: further ones, name to
    what it is. `default_url`: where it is unless said otherwise.
    """

    name: str
    kind: Kind
    title: str
    secret: str = ""
    secret_required: bool = True
    default_url: str = ""
    needs_url: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    more_secrets: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, tuple[str, bool]]:
        """Every config name without its mark, to its sentence and whether it is required."""
        return {name.rstrip("*"): (text, name.endswith("*")) for name, text in self.config.items()}


@dataclass(frozen=True, slots=True)
class IntegrationInfo:
    """One integration as stored or found. The secret is never part of it."""

    id: int | None
    company_id: int | None
    company: str
    """Empty for one that serves every company."""
    kind: Kind
    adapter: str
    name: str
    base_url: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    origin: Origin = Origin.COMPANY
    created_at: int = 0
    preferred_at: int = 0
    """When somebody put it before others that could do the same; the latest comes first, 0 for never."""
    simulated: bool = False
    """Whether what it does is only pretended: nothing is configured, or a simulator stands at its address."""
    before: str = ""
    """The name of the one of the same company that is taken instead of this one; empty where it is taken."""

    @property
    def secret_name(self) -> str:
        return f"integration/{self.id}"

    @property
    def policy(self) -> str:
        """The name of the policy around it, and what people call it."""
        return f"{self.name} ({self.company})" if self.company else self.name

    @property
    def check_id(self) -> str:
        """The id of its health check."""
        return f"integration:{self.id}" if self.id is not None else f"integration:{self.kind}/{self.origin}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """An integration ready for use: with its secret, which may be empty."""

    info: IntegrationInfo
    secret: Secret
    pretended: bool = False
    """Whether it is a vendor's service that stands on this machine: a simulator, as in the demo."""

    @property
    def simulated(self) -> bool:
        return self.info.adapter == SIMULATED

    @property
    def built_in(self) -> bool:
        """Whether the program does it itself: nothing outside is configured."""
        return self.info.origin is Origin.BUILT_IN


@dataclass(frozen=True, slots=True)
class IntegrationCheck:
    """The answer to "does it work?". `detail`: what was found, one line.

    Where nothing could be asked it is not `ok`, has no error, and the code `untestable`.
    """

    info: IntegrationInfo
    ok: bool
    detail: str = ""
    took_ms: int = 0
    error: ErrorInfo | None = None
    code: str = ""

    @property
    def asked(self) -> bool:
        """Whether there was something to ask."""
        return self.code != UNTESTABLE


Probe = Callable[[Resolved], Awaitable[str]]
"""Asks the other side something harmless that needs the secret; says what was found. Raises ServiceError.

What each asks is free of charge, changes nothing and counts against nobody's limits: health asks it every
minute. One that has nothing to ask raises `untestable`.
"""
