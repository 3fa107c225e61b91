"""`callboard connection add|list|test|rotate|remove`: a company's access to its vendors.

Keys come from a prompt, standard input or a named variable, never from an argument: arguments are
visible to every process of the machine and stay in the shell's history.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from app.commands._names import require_company
from app.commands._run import with_services
from app.commands._secrets import ask, can_ask, confirm_removal, read_key, unlocked
from app.output import (
    ExitCode,
    emit_json,
    exit_code_of_failures,
    iso,
    plural,
    print_table,
    say,
    say_error,
    write_line,
)
from services.errors import Category, ServiceError, UsageError
from services.model import Provider
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.companies import ConnectionCheck
    from services.container import Services
    from services.model import ConnectionInfo

VENDORS = tuple(provider.value for provider in Provider)
EXAMPLES = """\
examples:
  callboard connection add acme retell                       asks for the key, without showing it
  callboard connection add acme elevenlabs --residency eu --key-env ELEVENLABS_API_KEY
  pass show retell | callboard connection rotate acme retell --key-stdin
  callboard connection test acme --json
"""
KEY_HELP = """\
The key is read from a prompt, from standard input (--key-stdin) or from a variable (--key-env), tested
with one cheap request, and only then stored in the keyring or the encrypted file.
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "connection", help="add, test, rotate and remove a company's vendor keys", epilog=EXAMPLES
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add a vendor's key to a company", description=KEY_HELP)
    _company(add)
    _vendor(add)
    add.add_argument("--base-url", metavar="URL", help="another address than the vendor's own")
    add.add_argument("--residency", metavar="REGION", help="the vendor's data region, such as eu")
    listing = actions.add_parser("list", help="list connections, without their keys")
    listing.add_argument("--company", metavar="NAME", help="only this company's")
    test = actions.add_parser("test", help="ask the vendor whether the stored key works")
    _company(test)
    _vendor(test, nargs="?")
    rotate = actions.add_parser("rotate", help="replace a stored key", description=KEY_HELP)
    _company(rotate)
    _vendor(rotate)
    remove = actions.add_parser(
        "remove",
        help="remove a connection, its key and its agents' mirror",
        description="Remove a connection, its stored key and the mirror of its agents. "
        "Nothing changes at the vendor. Asks for the company's name on a terminal.",
    )
    _company(remove)
    _vendor(remove)
    remove.add_argument("--yes", action="store_true", help="do not ask")
    for action in (add, rotate):
        source = action.add_mutually_exclusive_group()
        source.add_argument("--key-stdin", action="store_true", help="read the key from standard input")
        source.add_argument("--key-env", metavar="VAR", help="read the key from this environment variable")
        action.add_argument("--no-test", action="store_true", help="store the key without asking the vendor")
    for action in (add, listing, test, rotate, remove):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def _company(parser: ArgumentParser) -> None:
    parser.add_argument("company", metavar="COMPANY")


def _vendor(parser: ArgumentParser, nargs: str | None = None) -> None:
    parser.add_argument("vendor", metavar="VENDOR", choices=VENDORS, nargs=nargs, help=" or ".join(VENDORS))


def run(args: Namespace) -> int:
    actions = {"add": _add, "list": _list, "test": _test, "rotate": _rotate, "remove": _remove}
    return with_services(args, lambda services: actions[args.action](services, args), vendors=True)


async def _add(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    vendor = Provider(args.vendor)
    if any(item.provider is vendor for item in await services.companies.connections(company.name)):
        raise UsageError(
            f"{company.name} has a {vendor} connection already",
            advice=f"Replace its key with `callboard connection rotate {company.name} {vendor}`",
            code="connection_exists",
        )
    key = read_key(vendor, from_stdin=args.key_stdin, variable=args.key_env)
    await unlocked(services)
    if not await _key_may_be_stored(services, args, vendor, key, args.base_url, args.residency):
        return ExitCode.FAILED
    connection = await services.companies.add_connection(
        company.name, vendor, key=key, base_url=args.base_url, residency=args.residency
    )
    return await _stored(services, args, connection, "Added")


async def _rotate(services: Services, args: Namespace) -> int:
    connection = await _require(services, args)
    key = read_key(connection.provider, from_stdin=args.key_stdin, variable=args.key_env)
    await unlocked(services)
    if not await _key_may_be_stored(
        services, args, connection.provider, key, connection.base_url, connection.residency
    ):
        return ExitCode.FAILED
    await services.companies.rotate(connection.company, connection.provider, key=key)
    return await _stored(services, args, connection, "Replaced the key of")


async def _stored(services: Services, args: Namespace, connection: ConnectionInfo, done: str) -> int:
    if args.json:
        emit_json("connection", {"connection": as_dict(connection)})
        return ExitCode.DONE
    store = await services.open_secrets()
    write_line(
        f"{done} {clean_line(connection.company)} · {connection.provider}; the key is in the {store.label}."
    )
    if done == "Added":
        say("Next: callboard sync    (or open the console: callboard)")
    return ExitCode.DONE


async def _key_may_be_stored(
    services: Services,
    args: Namespace,
    vendor: Provider,
    key: str,
    base_url: str | None,
    residency: str | None,
) -> bool:
    """Test the key unless told not to.

    A key the vendor refuses raises its error. Where the vendor could not be asked, somebody at a
    terminal may decide; without one it raises, too.
    """
    if args.no_test:
        return True
    check = await services.companies.test_key(vendor, key=key, base_url=base_url, residency=residency)
    if check.ok:
        say(f"The key works: {clean_line(check.account)} ({check.took_ms} ms).")
        return True
    error = _error_of(check)
    if error.category is Category.AUTHENTICATION or args.key_stdin or args.json or not can_ask():
        advice = f"{error.advice}; nothing was stored" if error.advice else "Nothing was stored"
        if error.category is not Category.AUTHENTICATION:
            advice += " (--no-test stores the key untested)"
        raise ServiceError(error.message, category=error.category, advice=advice, code=error.code)
    say_error(error)
    if ask("The key could not be tested. Store it all the same? [y/N] ").strip().lower() in ("y", "yes"):
        return True
    say("Nothing was stored.")
    return False


async def _list(services: Services, args: Namespace) -> int:
    company = (await require_company(services, args.company)).name if args.company else None
    connections = await services.companies.connections(company)
    if args.json:
        emit_json("connections", {"connections": [as_dict(item) for item in connections]})
    elif connections:
        print_table(
            ("COMPANY", "VENDOR", "REGION", "AGENTS", "LAST SYNC", "BASE URL"),
            [
                (
                    item.company,
                    item.provider,
                    item.residency,
                    str(item.agents),
                    iso(item.last_sync_at) or "never",
                    item.base_url,
                )
                for item in connections
            ],
            right=(3,),
        )
    else:
        say("There is no connection yet: callboard connection add COMPANY VENDOR")
    return ExitCode.DONE


async def _test(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    connections = [await _require(services, args)] if args.vendor else []
    connections = connections or list(await services.companies.connections(company.name))
    if not connections:
        raise _no_connection(company.name, None)
    await unlocked(services)
    checks = [(item, await services.companies.test(item.company, item.provider)) for item in connections]
    if args.json:
        emit_json("connection-test", {"checks": [_check_dict(item, check) for item, check in checks]})
    for item, check in checks:
        where = f"{clean_line(item.company)} · {item.provider}"
        if check.ok and not args.json:
            write_line(f"{where}: works, {clean_line(check.account)} ({check.took_ms} ms)")
        elif not check.ok:
            if not args.json:
                write_line(f"{where}: {check.code.replace('_', ' ')}")
            say_error(_error_of(check))
    failed = [check.error.category if check.error else "" for _, check in checks if not check.ok]
    return exit_code_of_failures(failed, len(checks) - len(failed))


async def _remove(services: Services, args: Namespace) -> int:
    connection = await _require(services, args)
    what = (
        f"the connection {clean_line(connection.company)} · {connection.provider} with its key, "
        f"and the mirror and history of {plural(connection.agents, 'agent')}"
    )
    if not confirm_removal(what, connection.company, yes=args.yes):
        return ExitCode.FAILED
    await unlocked(services)
    await services.companies.remove_connection(connection.company, connection.provider)
    if args.json:
        emit_json("connection", {"connection": as_dict(connection)})
    else:
        write_line(f"Removed {clean_line(connection.company)} · {connection.provider}.")
    return ExitCode.DONE


async def _require(services: Services, args: Namespace) -> ConnectionInfo:
    company = await require_company(services, args.company)
    for connection in await services.companies.connections(company.name):
        if connection.provider == args.vendor:
            return connection
    raise _no_connection(company.name, args.vendor)


def _no_connection(company: str, vendor: str | None) -> UsageError:
    return UsageError(
        f"{company} has no {vendor + ' ' if vendor else ''}connection",
        advice=f"Add one with `callboard connection add {company} {vendor or 'VENDOR'}`",
        code="unknown_connection",
    )


def _error_of(check: ConnectionCheck) -> ServiceError:
    if check.error is None:
        return ServiceError("The vendor could not be asked", code=check.code)
    return ServiceError(
        check.error.message,
        category=Category(check.error.category),
        advice=check.error.advice,
        code=check.code,
    )


def _check_dict(connection: ConnectionInfo, check: ConnectionCheck) -> dict[str, Any]:
    return {
        "company": connection.company,
        "provider": connection.provider.value,
        "ok": check.ok,
        "code": check.code,
        "account": check.account,
        "took_ms": check.took_ms,
        "error": check.error.as_dict() if check.error else None,
    }


def as_dict(connection: ConnectionInfo) -> dict[str, Any]:
    """The documented JSON of a connection; never its key."""
    return {
        "company": connection.company,
        "provider": connection.provider.value,
        "base_url": connection.base_url,
        "residency": connection.residency,
        "created_at": iso(connection.created_at),
        "last_sync_at": iso(connection.last_sync_at),
        "agents": connection.agents,
    }
