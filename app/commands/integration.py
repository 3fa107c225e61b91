"""`callboard integration add|list|test|rotate|enable|disable|prefer|remove|adapters|partners`.

Secrets come from a prompt, standard input or a named variable, never from an argument.
"""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from app.commands._integrating import actor, pairs
from app.commands._names import require_company
from app.commands._run import with_services
from app.commands._secrets import ask, can_ask, confirm_removal, read_key, unlocked
from app.output import (
    ExitCode,
    emit_json,
    exit_code_of_failures,
    iso,
    print_table,
    say,
    say_error,
    write_line,
)
from services.errors import Category, ServiceError, UsageError
from services.integrations.model import AdapterInfo, IntegrationCheck, IntegrationInfo, Kind, Origin
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services

EXAMPLES = """\
examples:
  callboard integration adapters                                what can be added, and what each needs
  callboard integration add hubspot --company acme              asks for the token, without showing it
  pass show opentable | callboard integration add opentable --company acme --key-stdin \\
      --set rid=1038007 --set client_id=acme --set timezone=America/New_York
  callboard integration test                                    all of them
  callboard integration test hubspot --company acme             a number or a name
  callboard integration prefer "Local model"                    of several, this one is taken
  callboard integration partners --explain                      how to add a booking partner without code
"""
ADD_HELP = """\
Without --company it serves every company that has none of its own. The secret is read from a prompt, from
standard input (--key-stdin) or from a variable (--key-env), and tested before anything is stored: what does
not work is not stored, unless you say so when you are asked, or with --anyway. Some services cannot be asked
without doing something; those are stored untested, and it says so.
"""
PREFER_HELP = """\
Of several that could do the same for a company (two language models, two CRMs, two accounts for SMS) one is
taken: the company's own before one for every company, among those the one that was preferred last, else the
oldest. `integration list` shows which. A single order may name another with --integration.
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "integration",
        help="services for messages, bookings, CRM, knowledge and LLM: add, test, switch off",
        epilog=EXAMPLES,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add one", description=ADD_HELP, epilog=EXAMPLES)
    add.add_argument("adapter", metavar="ADAPTER", help="see `callboard integration adapters`")
    add.add_argument("--company", metavar="NAME", default="", help="for this company alone")
    add.add_argument("--name", metavar="NAME", default="", help="what to call it (default: the adapter)")
    add.add_argument("--url", metavar="URL", default="", help="another address than the service's own")
    add.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="an option of it")
    untested = add.add_mutually_exclusive_group()
    untested.add_argument("--no-test", action="store_true", help="store it without asking the service")
    untested.add_argument("--anyway", action="store_true", help="store it also if it does not work")
    listing = actions.add_parser("list", help="what is used for what, and what is simulated")
    listing.add_argument("--company", metavar="NAME", help="only what this company uses")
    test = actions.add_parser("test", help="ask whether one works, or all")
    test.add_argument("wanted", metavar="INTEGRATION", nargs="?", help="its number or name; all without one")
    rotate = _about(actions, "rotate", "replace its secret")
    rotate.add_argument("--secret", metavar="NAME", default="", help="one of its further secrets")
    _about(actions, "enable", "switch it on again")
    _about(actions, "disable", "switch it off, as if it were not there")
    _about(actions, "prefer", "take it before others that could do the same", PREFER_HELP)
    remove = _about(actions, "remove", "forget it and its secrets")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    adapters = actions.add_parser("adapters", help="what can be added, and what each needs")
    adapters.add_argument("--kind", choices=[kind.value for kind in Kind], help="only these")
    partners = actions.add_parser("partners", help="booking partners and their mapping files")
    partners.add_argument("partner", metavar="PARTNER", nargs="?", help="all that is known of one")
    partners.add_argument("--explain", action="store_true", help="describe the mapping file")
    for action in (add, rotate):
        source = action.add_mutually_exclusive_group()
        source.add_argument("--key-stdin", action="store_true", help="read the secret from standard input")
        source.add_argument("--key-env", metavar="VAR", help="read the secret from this variable")
    for action in (add, listing, test, adapters, partners):
        action.add_argument("--json", action="store_true", help="print one JSON object")
    _of_company(test)


def _about(actions: Subparsers, name: str, text: str, description: str = "") -> ArgumentParser:
    parser = actions.add_parser(name, help=text, description=description or None, epilog=EXAMPLES)
    parser.add_argument(
        "wanted", metavar="INTEGRATION", help="its number or name, as `integration list` shows it"
    )
    _of_company(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _of_company(parser: ArgumentParser) -> None:
    parser.add_argument("--company", metavar="NAME", default="", help="where several companies use the name")


def run(args: Namespace) -> int:
    actions = {
        "add": _add,
        "list": _list,
        "test": _test,
        "rotate": _rotate,
        "enable": _switch,
        "disable": _switch,
        "prefer": _prefer,
        "remove": _remove,
        "adapters": _adapters,
        "partners": _partners,
    }
    return with_services(args, lambda services: actions[args.action](services, args), vendors=True)


async def _add(services: Services, args: Namespace) -> int:
    how = await asyncio.to_thread(services.integrations.adapter, args.adapter)
    company = (await require_company(services, args.company)).name if args.company else ""
    given = pairs(args.set)
    for name, (text, required) in how.options().items():
        if required and not given.get(name) and can_ask() and not args.key_stdin:
            given[name] = ask(f"{name} ({text}): ").strip()
    secret = _secret(args, how)
    if secret:
        await unlocked(services)
    draft = await services.integrations.draft(
        args.adapter, name=args.name, company=company, base_url=args.url, config=given, secret=secret
    )
    found = await _tried(services, args, draft, secret)
    if found is None:
        say("Nothing was stored.")
        return ExitCode.FAILED
    info = await services.integrations.add(
        args.adapter,
        name=args.name,
        company=company,
        base_url=args.url,
        config=given,
        secret=secret,
        actor=actor(),
    )
    if args.json:
        emit_json("integration", {"integration": as_dict(info)})
    else:
        whose = clean_line(info.company) or "every company"
        write_line(f"Added {clean_line(info.name)} ({info.kind}) for {whose}, number {info.id}.")
    say(found)
    return ExitCode.DONE


async def _tried(services: Services, args: Namespace, draft: IntegrationInfo, secret: str) -> str | None:
    """What a test of what is to be stored says, in words; None when somebody then decides not to store it.

    One that does not work raises its error, unless `--anyway` was given or somebody at a terminal insists.
    """
    if args.no_test:
        return "Stored untested; to test it: callboard integration test"
    check = await services.integrations.try_out(draft, secret)
    if check.ok:
        return f"It works: {clean_line(check.detail)} ({check.took_ms} ms)."
    if not check.asked:
        return f"Stored; this kind cannot be asked: {clean_line(check.detail)}."
    error = _error_of(check)
    if not args.anyway:
        if args.key_stdin or args.json or not can_ask():
            nothing = "nothing was stored (--anyway stores it all the same)"
            advice = f"{error.advice}; {nothing}" if error.advice else nothing
            raise ServiceError(error.message, category=error.category, advice=advice, code=error.code)
        say_error(error)
        answer = ask("It does not work as it is. Store it all the same? [y/N] ")
        return "Stored; it does not work yet." if answer.strip().lower() in ("y", "yes") else None
    say_error(error)
    return "Stored all the same; it does not work yet."


async def _meant(services: Services, args: Namespace) -> IntegrationInfo:
    """The integration that is meant. Raises UsageError for none, and for several of one name."""
    company = (await require_company(services, args.company)).name if args.company else ""
    return await services.integrations.find(args.wanted, company)


def _secret(args: Namespace, how: AdapterInfo) -> str:
    if args.key_stdin or args.key_env is not None:
        if not how.secret:
            raise UsageError(
                f"{how.title} has no secret", advice="Leave --key-stdin and --key-env out", code="usage"
            )
        return read_key(how.title, from_stdin=args.key_stdin, variable=args.key_env)
    if how.secret and how.secret_required:
        return read_key(f"{how.title} {how.secret}:", from_stdin=False, variable=None)
    return ""


async def _rotate(services: Services, args: Namespace) -> int:
    info = await _meant(services, args)
    secret = read_key(info.name, from_stdin=args.key_stdin, variable=args.key_env)
    await unlocked(services)
    info = await services.integrations.set_secret(info.id or 0, secret, name=args.secret, actor=actor())
    return _told(args, info, "Replaced the secret of")


async def _switch(services: Services, args: Namespace) -> int:
    on = args.action == "enable"
    info = await services.integrations.enable((await _meant(services, args)).id or 0, on, actor=actor())
    return _told(args, info, "Switched on" if on else "Switched off")


async def _prefer(services: Services, args: Namespace) -> int:
    info = await services.integrations.prefer((await _meant(services, args)).id or 0, actor=actor())
    return _told(args, info, "From now on of its kind comes first:")


async def _remove(services: Services, args: Namespace) -> int:
    info = await _meant(services, args)
    if not confirm_removal(
        f"the integration {clean_line(info.name)} with its secrets", info.name, yes=args.yes
    ):
        return ExitCode.FAILED
    await unlocked(services)
    await services.integrations.remove(info.id or 0, actor=actor())
    return _told(args, info, "Removed")


def _told(args: Namespace, info: IntegrationInfo, done: str) -> int:
    if args.json:
        emit_json("integration", {"integration": as_dict(info)})
    else:
        write_line(f"{done} {clean_line(info.name)} ({info.kind}).")
    return ExitCode.DONE


async def _list(services: Services, args: Namespace) -> int:
    company = (await require_company(services, args.company)).name if args.company else None
    found = await services.integrations.list(company)
    if args.json:
        emit_json("integrations", {"integrations": [as_dict(info) for info in found]})
        return ExitCode.DONE
    print_table(
        ("ID", "KIND", "NAME", "ADAPTER", "COMPANY", "STATE", "URL"),
        [
            (
                "" if info.id is None else str(info.id),
                info.kind,
                info.name,
                info.adapter,
                info.company or ("all" if info.id is not None else ""),
                _state(info),
                info.base_url,
            )
            for info in found
        ],
        styles={"simulated": "yellow", "on (simulated)": "yellow", "off": "dim"},
    )
    if any(info.origin is Origin.SIMULATION for info in found):
        say("What is simulated does nothing: callboard integration adapters lists what can be added.")
    return ExitCode.DONE


def _state(info: IntegrationInfo) -> str:
    if info.origin is Origin.SIMULATION:
        return "simulated"
    if info.origin is Origin.BUILT_IN:
        return "built in"
    if info.origin is Origin.ENVIRONMENT:
        return "environment"
    if not info.enabled:
        return "off"
    states = [
        "simulated" if info.simulated else "",
        f"{clean_line(info.before)} is taken instead" if info.before else "",
    ]
    told = ", ".join(word for word in states if word)
    return f"on ({told})" if told else "on"


async def _test(services: Services, args: Namespace) -> int:
    if args.wanted is not None:
        asked = [await _meant(services, args)]
    else:
        asked = [info for info in await services.integrations.list() if info.enabled]
    if any(info.id is not None for info in asked):
        await unlocked(services)
    checks = [await services.integrations.check(info) for info in asked]
    if args.json:
        emit_json("integration-test", {"checks": [_check_dict(check) for check in checks]})
    for check in checks:
        pretended = check.info.simulated and check.info.id is not None
        name = clean_line(check.info.policy) + (" (simulated)" if pretended else "")
        if not check.asked:
            if not args.json:
                write_line(f"{name}: cannot be asked: {clean_line(check.detail)}")
        elif check.ok and not args.json:
            outside = check.info.origin not in (Origin.SIMULATION, Origin.BUILT_IN)
            took = f" ({check.took_ms} ms)" if outside else ""
            write_line(f"{name}: {clean_line(check.detail)}{took}")
        elif not check.ok:
            if not args.json:
                write_line(f"{name}: {check.code.replace('_', ' ') or 'failed'}")
            say_error(_error_of(check))
    failed = [check.error.category if check.error else "" for check in checks if check.asked and not check.ok]
    return exit_code_of_failures(failed, len(checks) - len(failed))


async def _adapters(services: Services, args: Namespace) -> int:
    kind = Kind(args.kind) if args.kind else None
    found = await asyncio.to_thread(services.integrations.adapters, kind)
    if args.json:
        emit_json("adapters", {"adapters": [_adapter_dict(how) for how in found]})
        return ExitCode.DONE
    for how in found:
        write_line(f"{how.name}    {how.kind}    {clean_line(how.title)}")
        secret = f"secret: {how.secret}{'' if how.secret_required else ' (if it wants one)'}"
        address = "needs --url" if how.needs_url and not how.default_url else how.default_url
        write_line(
            f"    {'; '.join(filter(None, (secret if how.secret else '', address))) or 'needs nothing'}"
        )
        for name, (text, required) in how.options().items():
            write_line(f"    --set {name}=…{' (required)' if required else ''}    {clean_line(text)}")
        for name, text in how.more_secrets.items():
            write_line(f"    rotate --secret {name}    {clean_line(text)}")
    return ExitCode.DONE


async def _partners(services: Services, args: Namespace) -> int:
    from services.integrations.bookings.mapping import explain

    if args.explain:
        write_line(await asyncio.to_thread(explain))
        return ExitCode.DONE
    catalogue = services.bookings.partners
    if args.partner:
        await asyncio.to_thread(catalogue.require, args.partner)
    entries = await asyncio.to_thread(catalogue.entries)
    problems = catalogue.problems()
    wanted = [entry for entry in entries if args.partner in (None, entry.partner.partner)]
    if args.json:
        told = [{"message": error.message, "advice": error.advice} for error in problems]
        emit_json("partners", {"partners": [_partner_dict(entry) for entry in wanted], "problems": told})
    elif args.partner:
        _show_partner(wanted[0])
    else:
        print_table(
            ("PARTNER", "TITLE", "OFFERS", "FILE"),
            [
                (
                    entry.partner.partner,
                    entry.partner.title,
                    ", ".join(_offers(entry)),
                    entry.file or "built in",
                )
                for entry in wanted
            ],
        )
    for error in problems if not args.partner else []:
        say_error(error)
    return ExitCode.PARTIAL if problems and not args.partner else ExitCode.DONE


def _show_partner(entry: Any) -> None:
    partner = entry.partner
    write_line(f"{clean_line(partner.title)} ({partner.partner}), {entry.file or 'built in'}")
    write_line(f"offers      {', '.join(_offers(entry))}")
    write_line(f"address     {partner.base_url}")
    write_line(f"documented  {clean_line(partner.documented)}")
    write_line(f"assumed     {clean_line(partner.assumed)}")
    for name, text in partner.settings.items():
        required = " (required)" if name.endswith("*") else ""
        write_line(f"--set {name.rstrip('*')}=…{required}    {clean_line(text)}")


def _offers(entry: Any) -> list[str]:
    return [word for word in entry.partner.operations if word != "probe"]


def _error_of(check: IntegrationCheck) -> ServiceError:
    if check.error is None:
        return ServiceError("The service could not be asked", code=check.code)
    return ServiceError(
        check.error.message,
        category=Category(check.error.category),
        advice=check.error.advice,
        code=check.code,
    )


def as_dict(info: IntegrationInfo) -> dict[str, Any]:
    """The documented JSON of an integration; never its secret."""
    return {
        "id": info.id,
        "company": info.company,
        "kind": info.kind.value,
        "adapter": info.adapter,
        "name": info.name,
        "base_url": info.base_url,
        "config": dict(info.config),
        "enabled": info.enabled,
        "origin": info.origin.value,
        "simulated": info.simulated,
        "before": info.before or None,
        "created_at": iso(info.created_at or None),
    }


def _check_dict(check: IntegrationCheck) -> dict[str, Any]:
    return {
        "id": check.info.id,
        "name": check.info.policy,
        "kind": check.info.kind.value,
        "ok": check.ok if check.asked else None,
        "simulated": check.info.simulated,
        "code": check.code,
        "detail": check.detail,
        "took_ms": check.took_ms,
        "error": check.error.as_dict() if check.error else None,
    }


def _adapter_dict(how: AdapterInfo) -> dict[str, Any]:
    return {
        "name": how.name,
        "kind": how.kind.value,
        "title": how.title,
        "secret": how.secret,
        "secret_required": how.secret_required,
        "more_secrets": dict(how.more_secrets),
        "default_url": how.default_url,
        "needs_url": how.needs_url,
        "options": [
            {"name": name, "required": required, "text": text}
            for name, (text, required) in how.options().items()
        ],
    }


def _partner_dict(entry: Any) -> dict[str, Any]:
    partner = entry.partner
    return {
        "partner": partner.partner,
        "title": partner.title,
        "file": entry.file,
        "operations": _offers(entry),
        "base_url": partner.base_url,
        "documented": clean_line(partner.documented),
        "assumed": clean_line(partner.assumed),
        "settings": [
            {"name": name.rstrip("*"), "required": name.endswith("*"), "text": text}
            for name, text in partner.settings.items()
        ],
    }
