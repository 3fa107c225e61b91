"""Requests that steer the simulator itself, served on every port below `/__`.

    GET    /__stats                  counts of requests: in all, by vendor, kind, route and status
    POST   /__stats/reset
    GET    /__faults                 POST {"fault": SPEC} or the bare SPEC    DELETE = switch off
                                     ?target=… of GET and DELETE: a vendor, a partner or an agent (id or name)
    GET    /__agents                 id, name and vendor of every agent
    POST   /__agents/{id}/edit       {"part": "engine"|"agent"|"tool", "set": {…}}, both optional
    DELETE /__agents/{id}
    POST   /__script                 {"agent": id or name, "script": {…}, "times": 1}: what the next
                                     conversations play; no agent = any, no times = always    DELETE = none
    GET    /__usage                  POST {"provider": "elevenlabs", "set": {"character_count": 9}}: what the
                                     account says of its limits    DELETE = as it is
    GET    /__phone                  POST {"speed": 20}, {"advance_ms": 5000}, {"number": "+1…", "outcome": …}
                                     DELETE; see `telephone`
    GET    /__conversations          every conversation so far: state, frames, audio, transcript, end

`{id}` is an id or a name. Errors are `{"error": text}` with 400 or 404.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from services.errors import UsageError
from services.simulator.conversation import Script
from services.simulator.conversations import Conversations
from services.simulator.faults import FaultBoard
from services.simulator.partners import PARTNERS
from services.simulator.stats import Counter
from services.simulator.wire import Json, Reply, Request, answer

if TYPE_CHECKING:
    from services.simulator.elevenlabs import ElevenLabsVendor
    from services.simulator.partners import Partners
    from services.simulator.retell import RetellVendor
    from services.simulator.telephone import Telephone
    from services.simulator.twilio import TwilioAccount

PARTS = ("engine", "agent", "tool")


class Control:
    """Answers control requests; shares the vendors, the faults and the counters with the server."""

    def __init__(
        self,
        vendors: Sequence[RetellVendor | ElevenLabsVendor | TwilioAccount | Partners],
        faults: FaultBoard,
        total: Counter,
        counters: dict[str, Counter],
        resolve: Callable[[str], Sequence[str]],
        conversations: Conversations,
        telephone: Telephone,
    ) -> None:
        self._vendors = vendors
        self._faults = faults
        self._total = total
        self._counters = counters
        self._resolve = resolve
        self._conversations = conversations
        self._telephone = telephone

    def answer(self, request: Request) -> Reply:
        """Answer a request whose path begins with `/__`."""
        parts = request.path.strip("/").split("/")
        match (request.method, *parts):
            case ("GET", "__stats"):
                return answer(self.stats())
            case ("POST", "__stats", "reset"):
                for counter in (self._total, *self._counters.values()):
                    counter.reset()
                return answer({"reset": True})
            case ("GET", "__faults"):
                return self._of_target(request, lambda target: {"faults": self._faults.as_list(target)})
            case ("POST", "__faults"):
                return self._add_fault(request)
            case ("DELETE", "__faults"):
                return self._of_target(request, lambda target: {"cleared": self._faults.clear(target)})
            case ("GET", "__agents"):
                return answer({"agents": self._agents()})
            case ("POST", "__agents", target, "edit"):
                return self._edit(unquote(target), request)
            case ("DELETE", "__agents", target):
                return self._remove(unquote(target))
            case ("GET" | "POST" | "DELETE", "__usage"):
                return self._usage(request)
            case ("GET" | "POST" | "DELETE" as method, "__phone"):
                shown = self._telephone.control(method, request.json_object())
                return _error(400, shown) if isinstance(shown, str) else answer(shown)
            case ("POST", "__script"):
                return self._set_script(request)
            case ("DELETE", "__script"):
                return answer({"cleared": self._conversations.clear_scripts()})
            case ("GET", "__conversations"):
                return answer({"conversations": self._conversations.as_list()})
        return _error(404, "there is no such control request")

    def stats(self) -> Json:
        """Totals at the top, and the same for each vendor under its name."""
        vendors = {str(name): counter.as_dict() for name, counter in self._counters.items()}
        return {**self._total.as_dict(), **vendors}

    def _agents(self) -> list[Json]:
        return [
            {"provider": str(vendor.provider), "agent_id": agent_id, "name": name}
            for vendor in self._vendors
            if vendor.provider != PARTNERS
            for agent_id, name in vendor.names()
        ]

    def _add_fault(self, request: Request) -> Reply:
        body = request.json_object()
        spec = body.get("fault") if body else request.body.decode("utf-8", "replace")
        try:
            fault = self._faults.add(str(spec or ""))
        except UsageError as error:
            return _error(400, error.message)
        return answer({"fault": fault.spec}, 201)

    def _of_target(self, request: Request, work: Callable[[str], Json]) -> Reply:
        try:
            return answer(work(request.query.get("target", "")))
        except UsageError as error:
            return _error(404, error.message)

    def _edit(self, target: str, request: Request) -> Reply:
        body = request.json_object()
        patch = {} if body is None else body.get("set", {})
        part = "engine" if body is None else body.get("part", "engine")
        if body is None or not isinstance(patch, dict) or part not in PARTS:
            return _error(400, "the body is {“part”: “engine”, “agent” or “tool”, “set”: {…}}, both optional")
        agent_id = next(iter(self._resolve(target)), "")
        for vendor in self._vendors:
            if any(agent_id == known for known, _ in vendor.names()):
                changed = vendor.edit(agent_id, part, patch)
                return answer(changed) if changed else _error(404, f"agent “{target}” has no {part} to edit")
        return _error(404, f"there is no agent “{target}”")

    def _remove(self, target: str) -> Reply:
        for agent_id in self._resolve(target):
            if any(vendor.remove(agent_id) for vendor in self._vendors):
                return answer({"removed": agent_id})
        return _error(404, f"there is no agent “{target}”")

    def _usage(self, request: Request) -> Reply:
        accounts = {
            str(vendor.provider): vendor.usage for vendor in self._vendors if hasattr(vendor, "usage")
        }
        if request.method == "DELETE":
            for usage in accounts.values():
                usage.clear()
        elif request.method == "POST":
            body = request.json_object() or {}
            usage, said = accounts.get(str(body.get("provider"))), body.get("set")
            if usage is None or not isinstance(said, dict):
                return _error(400, f"the body is {{“provider”: {' or '.join(accounts)}, “set”: {{…}}}}")
            usage.update(said)
        return answer(accounts)

    def _set_script(self, request: Request) -> Reply:
        body = request.json_object()
        times = (body or {}).get("times")
        if not body or not (times is None or (type(times) is int and times > 0)):
            return _error(400, "the body is {“agent”: id or name, “script”: {…}, “times”: 1}")
        target = str(body.get("agent") or "")
        agent_ids = self._resolve(target) if target else []
        if target and not agent_ids:
            return _error(404, f"there is no agent “{target}”")
        try:
            script = Script.parse(body.get("script"))
        except UsageError as error:
            return _error(400, error.message)
        self._conversations.set_script(script, agent_ids, times)
        return answer({"agents": list(agent_ids), "times": times}, 201)


def _error(status: int, text: str) -> Reply:
    return answer({"error": text}, status)
