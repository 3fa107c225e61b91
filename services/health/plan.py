"""What is to be watched: checks, and groups of checks that are read together."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.health.board import BEATS
from services.health.model import CheckKind, CheckSpec, Reading, Rule
from services.health.runner import Job, Readings


@dataclass(frozen=True, slots=True)
class Group:
    """Checks that one question answers. `run` brings the readings of all of them; times in seconds."""

    name: str
    interval: float
    run: Callable[[], Awaitable[Readings]] = field(repr=False, compare=False)
    timeout: float = 60.0


class Plan:
    """Everything that is watched."""

    def __init__(
        self, specs: Iterable[CheckSpec], groups: Iterable[Group], rules: Mapping[str, Rule] | None = None
    ) -> None:
        self.rules = dict(rules or {})
        self._all = tuple(specs)
        self._groups = {group.name: group for group in groups}
        self._specs = {spec.id: spec for spec in self._ruled()}
        self.own = frozenset(spec.id for spec in self._all if spec.local is not None and not spec.elsewhere)
        """What is measured here even while another process probes."""

    def _ruled(self) -> Iterator[CheckSpec]:
        for spec in self._all:
            rule = self.rules.get(spec.id)
            if rule is None and spec.kind is CheckKind.SYSTEM:
                rule = self.rules.get(spec.id.partition("@")[0])  # one for all machines
            if rule is None:
                yield spec
            elif rule.enabled:
                yield dataclasses.replace(
                    spec,
                    interval=rule.interval or spec.interval,
                    failure_threshold=rule.failure_threshold or spec.failure_threshold,
                    slow_ms=spec.slow_ms if rule.slow_ms is None else rule.slow_ms or None,
                )

    def with_rules(self, rules: Mapping[str, Rule]) -> Plan:
        """The same with what operators changed."""
        return Plan(self._all, self._groups.values(), rules) if rules or self.rules else self

    def changed(self, change: Callable[[CheckSpec], Iterable[CheckSpec]]) -> Plan:
        """The same with other checks in place of each."""
        return Plan([each for spec in self._all for each in change(spec)], self._groups.values(), self.rules)

    @property
    def unruled(self) -> Sequence[CheckSpec]:
        """Everything there is to watch, also what an operator switched off."""
        return self._all

    @property
    def specs(self) -> Sequence[CheckSpec]:
        return tuple(self._specs.values())

    def spec(self, check_id: str) -> CheckSpec | None:
        return self._specs.get(check_id)

    def group_of(self, job_id: str) -> Group | None:
        """The group that this job reads; None for the job of one check."""
        return self._groups.get(job_id)

    def jobs(self) -> list[Job]:
        """One job for each check that is probed alone, one for each group that has checks."""
        found, members = [], dict[str, list[str]]()
        for spec in self._specs.values():
            if spec.elsewhere:
                continue
            if spec.group in self._groups:
                members.setdefault(spec.group, []).append(spec.id)
            else:
                found.append(Job(spec.id, spec.interval, spec.timeout, _alone(spec), (spec.id,)))
        for name, check_ids in members.items():
            group = self._groups[name]
            found.append(Job(name, group.interval, group.timeout, group.run, tuple(check_ids)))
        return found

    def jobs_of(self, check_ids: Iterable[str]) -> list[str]:
        """The jobs that bring readings of these checks."""
        found: dict[str, None] = {}
        for check_id in check_ids:
            spec = self._specs.get(check_id)
            if spec is not None and not spec.elsewhere:
                found[spec.group if spec.group in self._groups else check_id] = None
        return list(found)

    def kept_beats(self) -> dict[str, int]:
        """How many stored probes of each check are read at the start: of groups little is kept."""
        return {spec.id: 0 if spec.group else BEATS for spec in self._specs.values()}


class Catalog(Protocol):
    """Says what is to be watched, from the state of the database."""

    async def build(self) -> Plan:
        """Raises ServiceError when the database cannot be read."""


@dataclass(frozen=True, slots=True)
class FixedCatalog:
    """A catalogue that never changes."""

    specs: tuple[CheckSpec, ...] = ()
    groups: tuple[Group, ...] = ()

    async def build(self) -> Plan:
        return Plan(self.specs, self.groups)


def _alone(spec: CheckSpec) -> Callable[[], Awaitable[list[tuple[str, Reading]]]]:
    async def run() -> list[tuple[str, Reading]]:
        return [(spec.id, await spec.probe())]

    return run
