"""`callboard phone set|test|show|remove|allow|disallow|numbers`: a company's Twilio account and allow-list.

The auth token comes from a prompt, standard input or a named variable, never from an argument.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from app.commands import _secrets
from app.commands._names import require_company
from app.commands._run import with_services
from app.commands._secrets import checked_key, confirm_removal, read_key, unlocked
from app.output import ExitCode, emit_json, say, say_error, write_line
from services.errors import Category, ServiceError, UsageError
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.calls.telephony import TelephonyInfo
    from services.container import Services

EXAMPLES = """\
examples:
  callboard phone set acme                                  asks for the account SID and the auth token
  pass show twilio | callboard phone set acme AC0123… --key-stdin
  callboard phone allow acme +493012345678 '+4940*'         these may be called without a question
  callboard phone numbers acme
"""
SET_HELP = """\
The auth token is read from a prompt, from standard input (--key-stdin) or from a variable (--key-env), tested
with one cheap request, and only then stored in the keyring or the encrypted file.
"""
ALLOW_HELP = """\
With a list, only numbers on it are called. Without one, any number is, but each call has to be confirmed.
A number is written with + and its country code; a beginning ends with *.
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "phone",
        help="a company's Twilio account and the numbers it may dial",
        description="Phone calls are placed by the agents' vendors, over a Twilio number imported there. "
        "With access to the Twilio account Callboard shows how a call stands and can hang it up.",
        epilog=EXAMPLES,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    put = _action(actions, "set", "store or replace the Twilio account", SET_HELP)
    put.add_argument("account_sid", metavar="ACCOUNT_SID", nargs="?", help="AC and 32 letters and digits")
    put.add_argument("--base-url", metavar="URL", help="another address than Twilio's own")
    source = put.add_mutually_exclusive_group()
    source.add_argument("--key-stdin", action="store_true", help="read the token from standard input")
    source.add_argument("--key-env", metavar="VAR", help="read the token from this environment variable")
    put.add_argument("--no-test", action="store_true", help="store the token without asking Twilio")
    _action(actions, "test", "ask Twilio whether the stored token works")
    _action(actions, "show", "the account and the list, without the token")
    remove = _action(actions, "remove", "forget the Twilio account and its token; the list stays")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    for name, text in (("allow", "put numbers on the list"), ("disallow", "take numbers off the list")):
        change = _action(actions, name, text, ALLOW_HELP)
        change.add_argument("rules", metavar="NUMBER", nargs="+", help="+493012345678, or +4930*")
    _action(actions, "numbers", "list the Twilio account's own numbers")


def _action(actions: Subparsers, name: str, text: str, description: str = "") -> ArgumentParser:
    parser = actions.add_parser(name, help=text, description=description or None)
    parser.add_argument("company", metavar="COMPANY")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: Namespace) -> int:
    actions = {
        "set": _set,
        "test": _test,
        "show": _show,
        "remove": _remove,
        "allow": _allow,
        "disallow": _disallow,
        "numbers": _numbers,
    }
    return with_services(args, lambda services: actions[args.action](services, args), vendors=True)


async def _set(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    sid = _account_sid(args.account_sid)
    token = _token(args)
    await unlocked(services)
    if not await _token_may_be_stored(services, args, sid, token):
        return ExitCode.FAILED
    info = await services.telephony.set(company.name, sid, token, base_url=args.base_url)
    if args.json:
        emit_json("phone", {"phone": as_dict(info)})
    else:
        store = await services.open_secrets()
        write_line(
            f"Stored the Twilio account of {clean_line(info.company)}; its token is in the {store.label}."
        )
        if not info.allowed:
            say("Next: callboard phone allow COMPANY NUMBER    (without a list every call is asked about)")
    return ExitCode.DONE


def _account_sid(given: str | None) -> str:
    from services.calls.telephony.twilio import checked_account_sid

    if given:
        return checked_account_sid(given)
    if not _secrets.can_ask():
        raise UsageError(
            "There is no terminal to ask for the account SID on",
            advice="Give it after the company: callboard phone set COMPANY ACCOUNT_SID",
            code="no_account_sid",
        )
    return checked_account_sid(_secrets.ask("Twilio account SID: "))


def _token(args: Namespace) -> str:
    if args.key_stdin or args.key_env is not None or not _secrets.can_ask():
        return read_key("Twilio", from_stdin=args.key_stdin, variable=args.key_env)
    return checked_key(_secrets.ask_hidden("Twilio auth token (not shown): "), "What was entered")


async def _token_may_be_stored(services: Services, args: Namespace, sid: str, token: str) -> bool:
    """Test the token unless told not to.

    A token Twilio refuses raises its error. Where Twilio could not be asked, somebody at a terminal may
    decide; without one it raises, too.
    """
    if args.no_test:
        return True
    try:
        account = await services.telephony.test_account(sid, token, args.base_url)
    except UsageError:
        raise
    except ServiceError as error:
        failure = error
    else:
        say(f"The token works: {clean_line(account.name)} ({clean_line(account.status)}).")
        return True
    refused = failure.category is Category.AUTHENTICATION
    if refused or args.key_stdin or args.json or not _secrets.can_ask():
        advice = f"{failure.advice}; nothing was stored" if failure.advice else "Nothing was stored"
        if not refused:
            advice += " (--no-test stores the token untested)"
        raise ServiceError(failure.message, category=failure.category, advice=advice, code=failure.code)
    say_error(failure)
    question = "The token could not be tested. Store it all the same? [y/N] "
    if _secrets.ask(question).strip().lower() in ("y", "yes"):
        return True
    say("Nothing was stored.")
    return False


async def _test(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    await unlocked(services)
    account = await services.telephony.test(company.name)
    if args.json:
        found = {"company": company.name, "account": account.name, "status": account.status}
        emit_json("phone-test", found)
    else:
        write_line(
            f"{clean_line(company.name)}: works, {clean_line(account.name)} ({clean_line(account.status)})"
        )
    return ExitCode.DONE


async def _show(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    return _shown(await services.telephony.show(company.name), args)


async def _remove(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    info = await services.telephony.show(company.name)
    what = f"the Twilio account {info.account_sid or ''} of {clean_line(company.name)} with its token"
    if info.has_account and not confirm_removal(what, company.name, yes=args.yes):
        return ExitCode.FAILED
    await unlocked(services)
    info = await services.telephony.remove(company.name)
    if args.json:
        emit_json("phone", {"phone": as_dict(info)})
    else:
        write_line(f"Removed the Twilio account of {clean_line(company.name)}.")
    return ExitCode.DONE


async def _allow(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    return _shown(await services.telephony.allow(company.name, args.rules), args)


async def _disallow(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    info = await services.telephony.disallow(company.name, args.rules)
    code = _shown(info, args)
    if not info.allowed and not args.json:
        say("The list is empty now: any number may be called, but each call has to be confirmed.")
    return code


def _shown(info: TelephonyInfo, args: Namespace) -> int:
    if args.json:
        emit_json("phone", {"phone": as_dict(info)})
        return ExitCode.DONE
    account = f"{info.account_sid} at {info.base_url}" if info.has_account else "none"
    write_line(f"Twilio account  {account}")
    write_line("may be called   " + (", ".join(info.allowed) or "any number, after a confirmation"))
    return ExitCode.DONE


async def _numbers(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    await unlocked(services)
    numbers = await services.telephony.numbers(company.name)
    if args.json:
        emit_json("phone-numbers", {"company": company.name, "numbers": numbers})
    elif numbers:
        for number in numbers:
            write_line(clean_line(number))
    else:
        say("The Twilio account has no number yet.")
    return ExitCode.DONE


def as_dict(info: TelephonyInfo) -> dict[str, Any]:
    """The documented JSON of a company's telephony; never its token."""
    return {
        "company": info.company,
        "account_sid": info.account_sid or None,
        "base_url": info.base_url if info.has_account else None,
        "allowed": list(info.allowed),
    }
