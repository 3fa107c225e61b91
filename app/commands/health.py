"""`callboard health`: how everything stands that the agents depend on, and who is told when it does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from app.commands import _health, _health_settings
from app.commands._health_explained import EXPLAINED
from app.commands._names import require_company
from app.commands._run import on_first_signal, with_services
from app.commands._secrets import can_ask, unlocked
from app.output import (
    ExitCode,
    emit_json,
    is_terminal,
    iso,
    local,
    paint,
    print_table,
    safe_json,
    say,
    write_line,
)
from app.parsing import positive
from services.errors import UsageError
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services
    from services.health.model import CheckView, HealthView, Incident, Overall

EXAMPLES = """\
examples:
  callboard health                          probe everything once and say how it is
  callboard health --kind provider --json
  callboard health --watch                  until Ctrl-C; lines of what changed where nobody looks
  callboard health incidents
  callboard health explain                  how states, breakers, limits and alerts come about
  callboard health maintenance add provider:acme/retell --for 2h --reason "key rotation"
  callboard health maintenance add company:acme --cron '0 3 * * sun' --for 90m --timezone Europe/Berlin
  callboard health alerts add webhook https://example.com/hook
  callboard health rules set provider:acme/retell --failures 3 --slow 1500

exit codes: 0 healthy, 3 degraded, 1 unhealthy, 2 wrong usage; --watch ends with 0. With --company or
--kind it is that of what was asked for, and of what that waits for: agents whose vendor is down are not well
"""
KINDS = ("provider", "agent", "integration", "orchestrator", "system")
REDRAW = 1.0
"""Seconds between two looks at a terminal, so that countdowns move."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "health",
        help="how everything stands that the agents depend on; alerts, maintenance, incidents",
        description="Probes connections, agents, integrations and the program's own parts, says how each is "
        "and what to do. What fails is probed again until it is certain.",
        epilog=EXAMPLES,
    )
    _options(parser)
    parser.add_argument("--watch", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("--company", metavar="NAME", help="only what this company has")
    parser.add_argument("--kind", choices=KINDS, metavar="KIND", help=f"only one of {', '.join(KINDS)}")
    parser.add_argument("--all", action="store_true", help="list agents that are fine, too")
    actions = parser.add_subparsers(dest="action", metavar="[ACTION]")
    incidents = actions.add_parser("incidents", help="what was wrong, newest first")
    incidents.add_argument("--check", metavar="CHECK", help="only of this check, such as system:database")
    incidents.add_argument("--limit", type=positive, default=50, metavar="N", help="at most so many (50)")
    _options(incidents)
    _health_settings.add_parsers(actions, _options)
    actions.add_parser("explain", help="how states, breakers, limits and alerts come about")


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    if args.action is not None:
        _refuse_idle_options(args)
    if args.action == "explain":
        write_line(EXPLAINED)
        return ExitCode.DONE
    if args.action == "incidents":
        return with_services(args, lambda services: _incidents(services, args))
    if args.action is not None:
        return with_services(args, lambda services: _health_settings.run(services, args))
    look = _watch if args.watch else _once
    return with_services(args, lambda services: look(services, args), vendors=True)


def _refuse_idle_options(args: Namespace) -> None:
    """Options of the look at everything do nothing for its actions: say so, rather than ignore them."""
    given = {"--watch": args.watch, "--all": args.all}
    if args.action != "alerts":  # which has a kind and a company of its own
        given |= {"--kind": args.kind, "--company": args.company}
    idle = [option for option, value in given.items() if value]
    if idle:
        raise UsageError(
            f"{' and '.join(idle)} {'are' if len(idle) > 1 else 'is'} nothing for health {args.action}",
            advice=f"Leave it out; `callboard health {args.action} --help` lists what there is",
            code="idle_option",
        )


async def _once(services: Services, args: Namespace) -> int:
    await _ready(services, args)
    # The first look says what there is; without it an unknown filter would probe nothing and be healthy.
    await services.health.check_now([])
    wanted = _shown(services.health.view(), args)
    if len(wanted) > 20 and not args.json:
        say(f"Probing {len(wanted)} things…")
    view = await services.health.check_now(_with_causes(services.health.view(), wanted), confirm=True)
    checks = _shown(view, args)
    overall, reason = _verdict(services, view, checks, args)
    if args.json:
        emit_json(
            "health",
            {
                "overall": overall.value,
                "reason": reason,
                "checked_at": iso(view.checked_at),
                "prober": view.prober,
                "checks": [_health.check_dict(check) for check in checks],
            },
        )
    else:
        every, zone = args.all or args.kind == "agent", services.options.timezone
        for line in _health.panels(overall, reason, checks, every=every, zone=zone):
            write_line(line)
    return exit_code(overall)


def _with_causes(view: HealthView, wanted: Sequence[CheckView]) -> list[str]:
    """These and everything they hang on: whether they are to blame cannot be told without a look at it."""
    known = {check.id: check for check in view.checks}
    found = dict.fromkeys(check.id for check in wanted)
    ahead = list(found)
    while ahead:
        for parent in known[ahead.pop()].depends_on:
            if parent in known and parent not in found:
                found[parent] = None
                ahead.append(parent)
    return list(found)


def exit_code(overall: Overall) -> ExitCode:
    """Healthy 0, degraded 3, unhealthy 1."""
    codes = {"healthy": ExitCode.DONE, "degraded": ExitCode.PARTIAL, "unhealthy": ExitCode.FAILED}
    return codes[overall.value]


async def _ready(services: Services, args: Namespace) -> None:
    if args.company:
        args.company = (await require_company(services, args.company)).name
    # A locked store is a finding like any other where nobody can be asked.
    if can_ask() and await services.companies.connections():
        await unlocked(services)


def _shown(view: HealthView, args: Namespace) -> list[CheckView]:
    return [
        check
        for check in view.checks
        if (not args.kind or check.kind.value == args.kind)
        and (not args.company or check.company == args.company)
    ]


def _verdict(
    services: Services, view: HealthView, checks: Sequence[CheckView], args: Namespace
) -> tuple[Overall, str]:
    """Of everything, or of what was asked for and what that waits for."""
    if not args.kind and not args.company:
        return view.overall, view.reason
    return services.health.judge([check.id for check in checks])


# -- watching ---------------------------------------------------------------------------------------


async def _watch(services: Services, args: Namespace) -> int:
    from services.events import HealthChanged

    await _ready(services, args)
    stop, changed = asyncio.Event(), asyncio.Event()
    drawn = _Redrawn(services, args) if is_terminal(sys.stdout) and not args.json else _Lines(services, args)
    unsubscribe = services.bus.subscribe(HealthChanged, lambda _: changed.set())

    def end(_: object) -> None:
        stop.set()
        changed.set()

    try:
        with on_first_signal(end, "SIGINT", "SIGTERM", "SIGHUP"):
            await services.health.start()
            if not services.health.view().started and not args.json:
                say(f"{services.health.view().prober or 'Nobody'} probes; this one shows what is found.")
            while not stop.is_set():
                changed.clear()
                drawn.show(services.health.view())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REDRAW):
                        await changed.wait()
    finally:
        unsubscribe()
        await services.health.aclose()
    return ExitCode.DONE


class _Redrawn:
    """The panels, drawn over themselves on a terminal."""

    def __init__(self, services: Services, args: Namespace) -> None:
        self._services = services
        self._args = args
        self._lines: list[str] = []

    def show(self, view: HealthView) -> None:
        import shutil

        checks = _shown(view, self._args)
        overall, reason = _verdict(self._services, view, checks, self._args)
        height = shutil.get_terminal_size((80, 24)).lines - 2
        every, zone = self._args.all or self._args.kind == "agent", self._services.options.timezone
        lines = _health.panels(overall, reason, checks, every=every, zone=zone, height=height)
        lines.append(paint("  Ctrl-C ends", "dim"))
        if lines == self._lines:
            return
        up = f"\x1b[{len(self._lines)}A\r" if self._lines else ""
        sys.stdout.write(up + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        sys.stdout.flush()
        self._lines = lines


class _Lines:
    """One line (or JSON object) for every check whose state changed; at first for each that is not well."""

    def __init__(self, services: Services, args: Namespace) -> None:
        self._services = services
        self._args = args
        self._known: dict[str, tuple[str, str]] = {}

    def show(self, view: HealthView) -> None:
        checks = _shown(view, self._args)
        overall, reason = _verdict(self._services, view, checks, self._args)
        now, zone = self._services.clock.now(), self._services.options.timezone
        for check in checks:
            state = (check.state.value, check.held_by)
            before = self._known.get(check.id)
            if before == state:
                continue
            self._known[check.id] = state
            if before is None and check.state.value == "pending" and not check.failures:
                continue
            if self._args.json:
                shown = {"overall": overall.value, "reason": reason, "check": _health.check_dict(check)}
                document = {"schema": "callboard.health-event/1", "at": iso(now), **shown}
                write_line(safe_json(json.dumps(document)))
            elif before is not None or check.state.value != "up":
                write_line(_health.changed_line(check, now, zone))
        sys.stdout.flush()


# -- incidents --------------------------------------------------------------------------------------


async def _incidents(services: Services, args: Namespace) -> int:
    found = await services.health.incidents(args.limit, args.check)
    if args.check and not found:
        await services.health.check_now([])  # says what there is, probes nothing
        known = [check.id for check in services.health.view().checks]
        if args.check not in known:
            near = get_close_matches(args.check, known, n=1, cutoff=0.5)
            raise UsageError(
                f"There is no check {clean_line(args.check)}, and none had an incident",
                advice=f"Did you mean {near[0]}?" if near else "callboard health --all --json lists them",
                code="unknown_check",
            )
    if args.json:
        emit_json("health-incidents", {"incidents": [_health.incident_dict(each) for each in found]})
    elif not found:
        say("There was no incident.")
    else:
        rows = [
            (
                local(each.started_at, services.options.timezone),
                "still" if each.ended_at is None else _lasted(each.ended_at - each.started_at),
                each.state.value,
                each.name,
                f"held back by {each.cause}" if each.cause else each.message,
                _told(each),
            )
            for each in found
        ]
        print_table(("STARTED", "LASTED", "STATE", "WHAT", "WHY", "ALERT"), rows, styles=_health.STYLES)
        if any(each.repeats is not None for each in found):
            say("repetition: nobody is told again of what was told of shortly before.")
    return ExitCode.DONE


def _told(incident: Incident) -> str:
    if incident.alerted_at is not None:
        return "told"
    return "repetition" if incident.repeats is not None else ""


def _lasted(milliseconds: int) -> str:
    from app.output import seconds

    hours, rest = divmod(milliseconds, 3_600_000)
    return f"{hours} h {rest // 60_000} min" if hours else seconds(milliseconds)
