"""Faults on demand: their grammar, and which of them strike a request.

A fault is written `KIND[:TARGET…][:OPTION…]`, parts in any order after the kind. See `FAULT_HELP`.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from services.errors import UsageError
from services.model import Provider

FAULT_HELP = """\
FAULT = KIND[:TARGET...][:OPTION...]      e.g.  500:"Reception DE"   429:retry-after=2:x3   slow:list

kinds
  429              rate limited; with retry-after=SECONDS the header is sent, otherwise not
  400 ... 599      that status with the vendor's own error body (500, 503, 404, ...)
  latency          answer later by ms=MILLISECONDS (default 1000); adds to --latency
  slow             trickle the body out over ms=MILLISECONDS (default 3000)
  hang             accept the request and never answer
  drop             close the connection: at=start (before any answer, the default) or at=body
  truncate         a complete answer whose JSON stops half-way
  html             200 with a web page instead of JSON
  shape            200 with JSON of another shape
  reorder          the same JSON with its keys reversed and 1.0 written as 1
  revoke           the key is revoked
  permission       the key lacks a permission

targets (all must fit; none = every request)
  retell, elevenlabs, twilio, partners        one vendor; all partners together
  hubspot, whatsapp, openai, anthropic, llm,  one partner (llm: both vendors of language models)
    opentable, toast, doctolib, knowledge,
    crm, bookings, messages-gateway
  list, detail, versions, account, write, call  one kind of request
  usage                                       what is left of quota and concurrency
  call                                        joining a conversation
  agent_..., llm_..., tool_..., or a NAME     requests for that object; an agent's name stands for its id

options
  xN               strike N times, then stop, e.g. x3
  N%               strike with this probability, e.g. 25%
"""

_VENDORS = (*Provider, "twilio", "partners")
ROUTE_KINDS = ("list", "detail", "versions", "account", "usage", "write", "call")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "429": ("retry-after",),
    "latency": ("ms",),
    "slow": ("ms",),
    "drop": ("at",),
}
KINDS = (
    "429", "500", "latency", "slow", "hang", "drop", "truncate", "html", "shape", "reorder", "revoke",
    "permission",
)  # fmt: skip
_STATUS = re.compile(r"[45]\d\d")
_COUNT = re.compile(r"x(\d+)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


@dataclass(frozen=True, slots=True)
class Fault:
    """A parsed fault. `status` is 0 unless the kind is a status; `target` is an id or an agent's name."""

    spec: str
    kind: str
    status: int = 0
    provider: str | None = None
    route_kind: str = ""
    target: str = ""
    count: int | None = None
    probability: float = 1.0
    options: dict[str, str] = field(default_factory=dict)

    def seconds(self, default_ms: float) -> float:
        """The `ms` option in seconds."""
        return float(self.options.get("ms", default_ms)) / 1000


def _wrong(spec: str, what: str) -> UsageError:
    return UsageError(
        f"fault “{spec}”: {what}",
        advice="write KIND[:TARGET][:OPTION], e.g. 500:AGENT, 429:retry-after=2, drop:list:x3",
        code="wrong_fault",
    )


def parse_fault(spec: str) -> Fault:
    """Read a fault. Raises `UsageError` naming what is wrong and the nearest thing that would be right."""
    kind, *parts = (part.strip() for part in spec.strip().split(":"))
    kind = kind.lower()
    status = int(kind) if _STATUS.fullmatch(kind) else 0
    if not status and kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"did you mean {near[0]}?" if near else "known are 400 to 599, " + ", ".join(KINDS[2:])
        raise _wrong(spec, f"there is no kind “{kind}”; {hint}")
    provider: str | None = None
    route_kind = target = ""
    count: int | None = None
    probability = 1.0
    options: dict[str, str] = {}
    for part in parts:
        lowered = part.lower()
        if not part:
            raise _wrong(spec, "a part between two colons is empty")
        if match := _COUNT.fullmatch(lowered):
            count = int(match[1])
            if count == 0:
                raise _wrong(spec, "x0 would never strike")
        elif match := _PERCENT.fullmatch(lowered):
            probability = float(match[1]) / 100
            if not 0 < probability <= 1:
                raise _wrong(spec, "a probability is more than 0 % and at most 100 %")
        elif "=" in part:
            name, _, value = lowered.partition("=")
            options[name] = _checked_option(spec, kind, name, value)
        elif lowered in _VENDORS:
            provider = lowered
        elif lowered in ROUTE_KINDS:
            route_kind = lowered
        elif target:
            raise _wrong(spec, f"it has two targets, “{target}” and “{part}”")
        else:
            target = part
    return Fault(spec.strip(), kind, status, provider, route_kind, target, count, probability, options)


def _checked_option(spec: str, kind: str, name: str, value: str) -> str:
    allowed = _OPTIONS.get(kind, ())
    if name not in allowed:
        what = f"{kind} takes {', '.join(allowed)}" if allowed else f"{kind} takes no such option"
        raise _wrong(spec, f"there is no option “{name}”; {what}")
    if name == "at":
        if value not in ("start", "body"):
            raise _wrong(spec, f"at is start or body, not “{value}”")
    elif not re.fullmatch(r"\d+(\.\d+)?", value):
        raise _wrong(spec, f"{name} is a number, not “{value}”")
    return value


@dataclass(slots=True)
class ActiveFault:
    """A fault that is switched on. `ids` are the objects its target stands for; empty = any."""

    fault: Fault
    ids: frozenset[str]
    left: int | None
    struck: int = 0

    def as_dict(self) -> dict[str, object]:
        return {"fault": self.fault.spec, "left": self.left, "struck": self.struck}


Resolver = Callable[[str], Sequence[str]]
"""Turns a target (id or name) into ids; empty when there is no such object."""


class FaultBoard:
    """The faults that are switched on, asked once for every request."""

    def __init__(self, seed: int, resolve: Resolver, names: Callable[[], Iterable[str]]) -> None:
        self._rng = random.Random(seed)
        self._resolve = resolve
        self._names = names
        self._active: list[ActiveFault] = []

    def add(self, spec: str) -> Fault:
        """Switch a fault on. Raises `UsageError` for a wrong spec or an unknown target."""
        fault = parse_fault(spec)
        ids: frozenset[str] = frozenset()
        if fault.target:
            ids = frozenset(self._resolve(fault.target))
            if not ids:
                raise _wrong(spec, self._unknown(fault.target))
        self._active.append(ActiveFault(fault, ids, fault.count))
        return fault

    def clear(self, target: str = "") -> int:
        """Switch every fault off, or those of one vendor, partner or object (id or name); returns how many.

        A target may also be a fault as it was written. Faults of a vendor's agents are the agents' own: they
        stay when those of the vendor go. Raises `UsageError` for a target that there is not.
        """
        meant = self._about(target)
        count = len(meant)
        self._active = [active for active in self._active if active not in meant]
        return count

    def as_list(self, target: str = "") -> list[dict[str, object]]:
        """Those that are switched on: all, or those of one target as `clear` means it."""
        return [active.as_dict() for active in self._about(target)]

    def _about(self, target: str) -> list[ActiveFault]:
        exactly = [active for active in self._active if active.fault.spec == target.strip()]
        if exactly or not target:
            return exactly or self._active
        if target.lower() in _VENDORS:
            vendor = target.lower()
            return [each for each in self._active if not each.ids and each.fault.provider == vendor]
        ids = frozenset(self._resolve(target))
        if not ids:
            raise UsageError(self._unknown(target), code="wrong_fault")
        return [active for active in self._active if not active.ids.isdisjoint(ids)]

    def _unknown(self, target: str) -> str:
        near = difflib.get_close_matches(target, [*_VENDORS, *ROUTE_KINDS, *self._names()], 1, 0.4)
        return f"there is no object “{target}”" + (f"; did you mean “{near[0]}”?" if near else "")

    def strike(self, provider: str, route_kind: str, ids: Sequence[str]) -> list[Fault]:
        """The faults that hit this request: every latency, and the first of the others."""
        if not self._active:
            return []
        hits: list[Fault] = []
        decided = False
        for active in self._active:
            fault = active.fault
            delays = fault.kind == "latency"
            if (decided and not delays) or not self._fits(active, provider, route_kind, ids):
                continue
            if fault.probability < 1 and self._rng.random() >= fault.probability:
                continue
            active.struck += 1
            if active.left is not None:
                active.left -= 1
            decided = decided or not delays
            hits.append(fault)
        self._active = [active for active in self._active if active.left != 0]
        return hits

    @staticmethod
    def _fits(active: ActiveFault, provider: str, route_kind: str, ids: Sequence[str]) -> bool:
        fault = active.fault
        return (
            (fault.provider is None or fault.provider == provider)
            and (not fault.route_kind or fault.route_kind == route_kind)
            and (not active.ids or not active.ids.isdisjoint(ids))
        )
