"""How checks hang together: who is above and below whom, in which order they are shown. Pure.

With thousands of agents this takes a while, so it is worked out beside the event loop, from specs alone, and
then carried out on a board a part at a time (see `Board.rearrange`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.health.model import CheckKind, CheckSpec

KINDS: Final = {kind: place for place, kind in enumerate(CheckKind)}


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What is watched, and how it hangs together. Nobody changes it."""

    specs: Mapping[str, CheckSpec] = field(default_factory=dict)
    children: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By check: those that name it, whether it exists or not."""
    dependents: Mapping[str, int] = field(default_factory=dict)
    """By check: how many hang on it, directly or not."""
    twins: Mapping[str, int] = field(default_factory=dict)
    """By name: how many are called so."""
    order: Sequence[str] = ()
    """By kind, company and name; the same object while it is the same."""
    came: Sequence[str] = ()
    gone: Sequence[str] = ()
    stale: Sequence[str] = ()
    """Those whose line is another one now."""

    def ambiguous(self, spec: CheckSpec) -> bool:
        """Whether another check is called the same."""
        return bool(spec.company) and self.twins.get(spec.name, 0) > 1

    def ancestors(self, check_id: str) -> list[str]:
        """The checks it hangs on, directly or not; those that do not exist are left out."""
        found: dict[str, None] = {}
        spec = self.specs.get(check_id)
        ahead = list(spec.depends_on) if spec is not None else []
        while ahead:
            parent = ahead.pop()
            above = self.specs.get(parent)
            if parent in found or above is None or parent == check_id:
                continue
            found[parent] = None
            ahead += above.depends_on
        return list(found)

    def descendants(self, check_ids: Iterable[str]) -> list[str]:
        """The checks that hang on any of these, directly or not."""
        found: dict[str, None] = {}
        ahead = [child for check_id in check_ids for child in self.children.get(check_id, ())]
        while ahead:
            child = ahead.pop()
            if child not in found:
                found[child] = None
                ahead += self.children.get(child, ())
        return list(found)


def arrange(specs: Iterable[CheckSpec], before: Arrangement) -> Arrangement:
    """The next arrangement, and how it differs from the one before."""
    wanted = {spec.id: spec for spec in specs}
    children: dict[str, list[str]] = {}
    for spec in wanted.values():
        for parent in spec.depends_on:
            children.setdefault(parent, []).append(spec.id)
    found = Arrangement(wanted, children, twins=Counter(spec.name for spec in wanted.values()))
    dependents: Counter[str] = Counter()
    for check_id in wanted:
        dependents.update(found.ancestors(check_id))
    came = [check_id for check_id in wanted if check_id not in before.specs]
    gone = [check_id for check_id in before.specs if check_id not in wanted]
    stale, retitled = dict.fromkeys(came), [*came, *gone]
    for check_id, spec in wanted.items():
        old = before.specs.get(check_id)
        if old is None:
            continue
        if old != spec or before.dependents.get(check_id, 0) != dependents[check_id]:
            stale[check_id] = None
        named = (old.name, old.company, before.ambiguous(old))
        if named != (spec.name, spec.company, found.ambiguous(spec)):
            retitled.append(check_id)
    if before.specs:
        stale.update(dict.fromkeys(found.descendants(retitled)))
    order: Sequence[str] = sorted(wanted, key=lambda check_id: _place(wanted[check_id]))
    if order == before.order:
        order = before.order  # whoever keeps something in this order sees that it is the same
    return Arrangement(wanted, children, dict(dependents), found.twins, order, came, gone, [*stale])


def _place(spec: CheckSpec) -> tuple[int, str, str, str]:
    return KINDS[spec.kind], spec.company.casefold(), spec.name.casefold(), spec.id
