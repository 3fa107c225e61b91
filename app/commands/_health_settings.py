"""`callboard health maintenance|alerts|rules`: what operators decide about the watching."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from app.commands import _health, _secrets
from app.commands._secrets import checked_key, unlocked
from app.output import ExitCode, emit_json, is_terminal, local, print_table, say, span, write_line
from services.errors import ServiceError, UsageError
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services
    from services.health.model import Channel, Rule, RuleChanges, Window

SCOPE_HELP = "a check's id, a kind (provider, agent, …), company:NAME, or * for everything"
ALERT_HELP = """\
kinds and their targets
  bell, desktop   none: the terminal of every open console rings, or its desktop shows a message
  webhook URL     POST of JSON, with a `text` that Slack and Mattermost show; signed (Standard Webhooks)
  email ADDRESS   over an smtp integration (--set integration=NAME), or --set host=… --set from=…
  command 'PROGRAM ARGUMENT …'   run without a shell; the alert is in variables CALLBOARD_ALERT_…;
                                 exit code 75: try again later
A webhook's address and every password are kept in the secret store.
"""
_DURATION = re.compile(r"(?:(\d+)\s*d)?\s*(?:(\d+)\s*h)?\s*(?:(\d+)\s*m(?:in)?)?")

RULES = {"interval": "interval", "failures": "failure_threshold", "slow": "slow_ms"}
"""The options of a rule, and what they are in it."""

Options = Callable[[ArgumentParser], None]


def add_parsers(actions: Subparsers, options: Options) -> None:
    maintenance = actions.add_parser("maintenance", help="times in which things may fail without an alert")
    verbs = maintenance.add_subparsers(dest="verb", required=True, metavar="ACTION")
    add = verbs.add_parser("add", help="plan maintenance; without --from it begins now")
    add.add_argument("scope", metavar="SCOPE", help=SCOPE_HELP)
    add.add_argument("--for", dest="duration", metavar="TIME", help="how long, such as 90m or 2h30m")
    add.add_argument("--from", dest="start", metavar="WHEN", help="2026-12-01 03:00, in --timezone")
    add.add_argument("--until", dest="end", metavar="WHEN", help="the end, in place of --for")
    add.add_argument("--cron", default="", metavar="LINE", help="again and again, such as '0 3 * * sun'")
    add.add_argument("--timezone", metavar="ZONE", help="such as Europe/Berlin; the setting timezone else")
    add.add_argument("--reason", default="", metavar="TEXT")
    options(add)
    options(verbs.add_parser("list", help="every window"))
    end = verbs.add_parser("end", help="end a window, or take back one that is planned or recurs")
    end.add_argument("id", type=int, metavar="NUMBER")
    options(end)
    _alert_parsers(actions, options)
    rules = actions.add_parser("rules", help="what is changed about single checks")
    verbs = rules.add_subparsers(dest="verb", required=True, metavar="ACTION")
    options(verbs.add_parser("list", help="every rule"))
    put = verbs.add_parser("set", help="change how a check is probed; what is not named stays as it is")
    put.add_argument("check", metavar="CHECK", help="its id, such as provider:acme/retell")
    switch = put.add_mutually_exclusive_group()
    switch.add_argument("--off", action="store_true", help="do not watch it at all")
    switch.add_argument("--on", action="store_true", help="watch it again")
    put.add_argument(
        "--interval", type=float, metavar="SECONDS", help="seconds between two probes; one may take 2/5 of it"
    )
    put.add_argument(
        "--failures",
        type=int,
        metavar="N",
        help="failed probes in a row until it is down: within N intervals, at least two",
    )
    put.add_argument("--slow", type=float, metavar="MS", help="from this time on degraded; 0 is never")
    put.add_argument(
        "--default",
        action="append",
        default=[],
        choices=(*RULES, "all"),
        metavar="NAME",
        help=f"take back {', '.join(RULES)} or all; may be repeated",
    )
    options(put)


def _alert_parsers(actions: Subparsers, options: Options) -> None:
    alerts = actions.add_parser("alerts", help="who is told", description=ALERT_HELP)
    verbs = alerts.add_subparsers(dest="verb", required=True, metavar="ACTION")
    add = verbs.add_parser("add", help="tell over one more channel", description=ALERT_HELP)
    add.add_argument("kind", metavar="KIND", help="bell, desktop, webhook, email or command")
    add.add_argument("target", metavar="TARGET", nargs="?", default="")
    add.add_argument("--company", default="", metavar="NAME", help="only alerts of this company")
    add.add_argument("--least", choices=("degraded", "down"), default="degraded", help="the mildest told of")
    add.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of the kind")
    add.add_argument("--key-stdin", action="store_true", help="read its password or signing key from stdin")
    add.add_argument("--key-env", metavar="VAR", help="read it from this environment variable")
    options(add)
    options(verbs.add_parser("list", help="every channel, and whether the latest alert arrived"))
    for name, text in (("remove", "forget a channel"), ("test", "send a test and say whether it arrived")):
        one = verbs.add_parser(name, help=text)
        one.add_argument("id", type=int, metavar="NUMBER")
        options(one)


async def run(services: Services, args: Namespace) -> int:
    work = {
        ("maintenance", "add"): _add_window,
        ("maintenance", "list"): _list_windows,
        ("maintenance", "end"): _end_window,
        ("alerts", "add"): _add_channel,
        ("alerts", "list"): _list_channels,
        ("alerts", "remove"): _remove_channel,
        ("alerts", "test"): _test_channel,
        ("rules", "list"): _list_rules,
        ("rules", "set"): _set_rule,
    }
    return await work[args.action, args.verb](services, args)


# -- maintenance ------------------------------------------------------------------------------------


async def _add_window(services: Services, args: Namespace) -> int:
    zone = args.timezone or services.options.timezone
    minutes = duration(args.duration) if args.duration else 0
    start = moment(args.start, zone) if args.start else None
    end = moment(args.end, zone) if args.end else None
    if not args.cron and not minutes and end is None:
        raise UsageError("When does the maintenance end?", advice="Give --for 2h, or --until", code="no_end")
    if minutes and end is not None:
        raise UsageError("Give either --for or --until", code="usage")
    added = await services.health.add_maintenance(
        args.scope,
        starts_at=start,
        ends_at=end,
        cron=args.cron,
        minutes=minutes,
        timezone=zone,
        reason=args.reason,
    )
    return _told_window(args, added, f"Maintenance {added.id} of {clean_line(added.scope)}: {_when(added)}.")


async def _list_windows(services: Services, args: Namespace) -> int:
    found = await services.health.maintenance()
    if args.json:
        emit_json("health-maintenance", {"windows": [_health.window_dict(each) for each in found]})
    elif not found:
        say("No maintenance is planned: callboard health maintenance add")
    else:
        rows = [(str(each.id), each.scope, _when(each), each.reason, each.actor) for each in found]
        print_table(("NUMBER", "OF", "WHEN", "REASON", "BY"), rows, right=(0,))
    return ExitCode.DONE


async def _end_window(services: Services, args: Namespace) -> int:
    ended = await services.health.end_maintenance(args.id)
    return _told_window(args, ended, f"The maintenance of {clean_line(ended.scope)} is over.")


def _told_window(args: Namespace, window: Window, text: str) -> int:
    if args.json:
        emit_json("health-maintenance", {"windows": [_health.window_dict(window)]})
    else:
        write_line(text)
    return ExitCode.DONE


def _when(window: Window) -> str:
    if window.cron:
        return f"{window.cron} in {window.timezone}, {window.minutes} min each time"
    named = "" if window.timezone in ("", "UTC") else f" ({window.timezone})"
    return span(window.starts_at or 0, window.ends_at or 0, window.timezone) + named


def duration(text: str) -> int:
    """Minutes of `90m`, `2h`, `1d 4h 30min`. Raises UsageError."""
    found = _DURATION.fullmatch(text.strip().lower())
    days, hours, minutes = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = (days * 24 + hours) * 60 + minutes
    if not total:
        raise UsageError(
            f"{clean_line(text)!r} is no length of time", advice="Give one such as 90m, 2h or 1d12h"
        )
    return total


def moment(text: str, zone: str) -> int:
    """Epoch milliseconds of `2026-12-01 03:00` in the zone, or with an offset. Raises UsageError."""
    from services.schedule.due import zone_of

    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{clean_line(text)!r} is no time", advice="Give one such as '2026-12-01 03:00'"
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=zone_of(zone))
    return round(found.timestamp() * 1000)


# -- alerts -----------------------------------------------------------------------------------------


async def _add_channel(services: Services, args: Namespace) -> int:
    from services.health.model import HealthState

    secret = _secret(args)
    if args.kind in ("webhook", "email"):
        await unlocked(services)
    added = await services.health.add_alert(
        args.kind,
        args.target,
        company=args.company,
        config=options_of(args.set),
        least=HealthState(args.least),
        secret=secret,
    )
    if not args.json and args.kind not in ("bell", "desktop"):
        say(f"Try it: callboard health alerts test {added.id}")
    return _told_channel(args, added, f"Alerts go to channel {added.id}: {_named(added)}.")


def _secret(args: Namespace) -> str:
    if args.key_stdin or args.key_env is not None:
        what = "signing key" if args.kind == "webhook" else "password"
        return _secrets.read_key(what, from_stdin=args.key_stdin, variable=args.key_env)
    if args.kind == "email" and any(word.startswith("user=") for word in args.set) and _secrets.can_ask():
        return checked_key(_secrets.ask_hidden("Password at the mail server (not shown): "), "What was typed")
    return ""


def options_of(words: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` words as a mapping. Raises UsageError."""
    found: dict[str, Any] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise UsageError(f"{clean_line(word)!r} is not NAME=VALUE", code="usage")
        found[name.strip()] = value
    return found


async def _list_channels(services: Services, args: Namespace) -> int:
    found, zone = await services.health.alerts(), services.options.timezone
    if args.json:
        emit_json("health-alerts", {"channels": [_health.channel_dict(each) for each in found]})
    elif not found:
        say("Nobody is told but who looks at a console: callboard health alerts add")
    else:
        rows = [
            (
                str(each.id),
                each.kind,
                each.target,
                each.company or "all",
                each.least.value,
                each.last_error or (f"arrived {local(each.sent_at, zone)}" if each.sent_at else ""),
            )
            for each in found
        ]
        print_table(("NUMBER", "KIND", "TARGET", "COMPANY", "FROM", "LATEST"), rows, right=(0,))
    return ExitCode.DONE


async def _remove_channel(services: Services, args: Namespace) -> int:
    gone = await services.health.remove_alert(args.id)
    return _told_channel(args, gone, f"Nobody is told over {_named(gone)} any more.")


async def _test_channel(services: Services, args: Namespace) -> int:
    await unlocked(services)
    tested = await services.health.test_alert(args.id)
    if tested.kind in ("bell", "desktop"):
        return _told_channel(args, tested, _ring(tested))
    return _told_channel(args, tested, f"The test alert was handed over to {_named(tested)}.")


def _ring(channel: Channel) -> str:
    """Do at this terminal what an alert does at those of open consoles; says what was done.

    Raises ServiceError where nobody could notice: no channel is tested by that.
    """
    from app.alerts import notification

    screen = next((stream for stream in (sys.stderr, sys.stdout) if is_terminal(stream)), None)
    if screen is None:
        raise ServiceError(
            f"Nothing was tried: {_named(channel)} is for terminals, and this command has none",
            advice="Run it at a terminal; an alert is told at those of open consoles",
            code="no_terminal",
        )
    rings = channel.kind == "bell"
    screen.write("\a" if rings else notification("Callboard: this is a test alert", os.environ))
    screen.flush()
    if rings:
        return "The bell of this terminal was rung; an alert rings those of open consoles."
    return (
        "This terminal was asked to show a message on its desktop, which some never do; "
        "an alert asks those of open consoles."
    )


def _told_channel(args: Namespace, channel: Channel, text: str) -> int:
    if args.json:
        emit_json("health-alerts", {"channels": [_health.channel_dict(channel)]})
    else:
        write_line(text)
    return ExitCode.DONE


def _named(channel: Channel) -> str:
    return clean_line(f"{channel.kind} {channel.target}")


# -- rules ------------------------------------------------------------------------------------------


async def _list_rules(services: Services, args: Namespace) -> int:
    found = await services.health.rules()
    if not args.json and not found:
        say("Every check is probed in its own way: callboard health rules set")
        return ExitCode.DONE
    return _told_rules(args, found)


async def _set_rule(services: Services, args: Namespace) -> int:
    return _told_rules(args, [await services.health.set_rule(args.check, **_changes(args))])


def _changes(args: Namespace) -> RuleChanges:
    """What the command line says of a rule. Raises UsageError where that is nothing, or both ways at once."""
    given: dict[str, Any] = {
        member: getattr(args, name) for name, member in RULES.items() if getattr(args, name) is not None
    }
    back = set(RULES) if "all" in args.default else set(args.default)
    if "all" in args.default and not args.off:
        given["enabled"] = True
    for name in back:
        if getattr(args, name) is not None:
            raise UsageError(
                f"--{name} and --default {'all' if 'all' in args.default else name} contradict each other",
                code="usage",
            )
        given[RULES[name]] = None
    if args.off or args.on:
        given["enabled"] = args.on
    if not given:
        raise UsageError(
            f"What is to be another way with {clean_line(args.check)}?",
            advice="Give --off, --interval, --failures or --slow; --default all takes back what was changed",
            code="no_change",
        )
    return cast("RuleChanges", given)


def _told_rules(args: Namespace, rules: list[Rule]) -> int:
    if args.json:
        emit_json("health-rules", {"rules": [_health.rule_dict(each) for each in rules]})
    else:
        rows = [
            (
                each.check_id,
                "watched" if each.enabled else "off",
                "" if each.interval is None else f"{each.interval:g} s",
                "" if each.failure_threshold is None else str(each.failure_threshold),
                "" if each.slow_ms is None else f"{each.slow_ms:g} ms" if each.slow_ms else "never",
            )
            for each in rules
        ]
        print_table(("CHECK", "STATE", "INTERVAL", "FAILURES", "SLOW"), rows)
    return ExitCode.DONE
