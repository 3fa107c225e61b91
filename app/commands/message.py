"""`callboard message send|list|keep|show|resend|follow`: messages to people, sent at most once each."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from app.commands._message_views import (
    NOT_KEPT,
    STYLES,
    as_dict,
    heard,
    inbound_dict,
    print_inbound,
    print_message,
    state_of,
)
from app.commands._names import find_agent, require_company
from app.commands._run import with_services
from app.commands._secrets import ask, can_ask, unlocked
from app.output import (
    ExitCode,
    ago,
    emit_json,
    is_terminal,
    iso,
    paint,
    plural,
    print_table,
    say,
    write_line,
)
from app.parsing import positive
from services.errors import Category, ServiceError, UsageError
from services.integrations.messages.model import Channel, MessageState, Template
from services.text import clean_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.parsing import Subparsers
    from services.container import Services
    from services.integrations.messages import MessageRow

LONGEST_BODY = 1_000_000
CALL_SECONDS = 7_200.0
STDIN_SECONDS = 86_400.0
EXAMPLES = """\
examples:
  callboard message send acme sms +493012345678 --body "Your table is ready"
  callboard message send acme email ann@example.com --subject "Your appointment" < letter.txt
  callboard message send acme whatsapp +493012345678 --template reminder --lang de --param 1=Monday
  callboard message send acme phone +493012345678 --agent "Front desk" --body "The car is ready"
  callboard message send acme sms +493012345678 --body "Hello" --key order-4711 --wait 60
  callboard message list --state failed
  callboard message show 3f9a                       an id may be shortened
  callboard message resend 3f9a                     the same again, as a new message
  callboard message list acme --inbound             what people wrote (WhatsApp, SMS; see `serve`)
  callboard message keep acme --days 30             for how long texts are kept
"""
KEEP_HELP = """\
For how long texts are kept: those of messages, sent and received, with subjects and the values of templates;
and what orders say of people: notes and contacts written to a CRM, names, numbers and notes of bookings (from
the time they were for). What is older is deleted by `callboard serve` and the console, at their start and
every six hours; whom it reached or was about, when, by what and what became of it stays, and so does a digest
by which its key is still known. Without an option it is shown. Unless a
company has its own number of days, the setting messages_keep_days counts. The transcripts of calls have a
retention of their own: calls_keep_days, and callboard company keep.
"""
SEND_HELP = """\
Sends by the company's integration for the channel, else a shared one, else the service named in
COMMUNICATIONS_API_URL; without any it is simulated, and says so. A message is sent at most once: with the
same --key again the first one is shown. One whose answer was lost is `unknown` and not sent again by itself.
An e-mail ends at `sent`: whether it came back stands in the sender's mailbox, which is not read.
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "message", help="send SMS, e-mail, WhatsApp, calls and chat, and follow them", epilog=EXAMPLES
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    send = actions.add_parser("send", help="send one message", description=SEND_HELP, epilog=EXAMPLES)
    send.add_argument("company", metavar="COMPANY")
    send.add_argument("channel", metavar="CHANNEL", choices=[each.value for each in Channel])
    send.add_argument("to", metavar="TO", help="a number (+49…), an address, a user's id, a chat")
    send.add_argument("--body", metavar="TEXT", help="the text; else it is read from standard input")
    send.add_argument("--subject", metavar="TEXT", default="", help="of an e-mail")
    send.add_argument(
        "--template", metavar="NAME", help="an approved text (WhatsApp), a content SID (Twilio)"
    )
    send.add_argument(
        "--lang", metavar="CODE", default="", help="the template's language, such as de or en_US"
    )
    send.add_argument(
        "--param", metavar="NAME=VALUE", action="append", default=[], help="a place of the template"
    )
    send.add_argument("--agent", metavar="AGENT", help="who sends it; by phone, who calls")
    send.add_argument("--integration", metavar="NAME", default="", help="send by this one")
    send.add_argument("--key", metavar="KEY", default="", help="your own key: one message for each")
    send.add_argument(
        "--wait", metavar="SECONDS", type=positive, help="follow it for so long before returning"
    )
    send.add_argument("--yes", action="store_true", help="do not ask before a phone call")
    send.add_argument("--json", action="store_true", help="print one JSON object")
    listing = actions.add_parser("list", help="list messages, the newest first")
    listing.add_argument("company", metavar="COMPANY", nargs="?")
    listing.add_argument("--inbound", action="store_true", help="what people wrote, not what was sent")
    listing.add_argument("--channel", choices=[each.value for each in Channel], help="only these")
    listing.add_argument("--state", choices=[each.value for each in MessageState], help="only these")
    listing.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="at most so many (default 50)"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    keep = actions.add_parser(
        "keep", help="for how long texts of messages are kept", description=KEEP_HELP, epilog=EXAMPLES
    )
    keep.add_argument("company", metavar="COMPANY", nargs="?")
    days = keep.add_mutually_exclusive_group()
    days.add_argument("--days", type=positive, metavar="N", help="delete its texts after so many days")
    days.add_argument("--forever", action="store_true", help="never delete its texts")
    days.add_argument("--default", action="store_true", help="as the setting messages_keep_days says")
    keep.add_argument("--json", action="store_true", help="print one JSON object")
    _about(actions, "show", "one message with everything that became known of it")
    resend = _about(
        actions, "resend", "send the same again as a new message; asks if the first may have arrived"
    )
    resend.add_argument("--yes", action="store_true", help="do not ask")
    follow = _about(actions, "follow", "ask its provider until it is at its end")
    follow.add_argument(
        "--for",
        dest="seconds",
        type=positive,
        default=300,
        metavar="SECONDS",
        help="at most so long (default 300)",
    )


def _about(actions: Subparsers, name: str, text: str) -> ArgumentParser:
    parser = actions.add_parser(name, help=text)
    parser.add_argument("message", metavar="MESSAGE", help="the id, or the beginning of it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: Namespace) -> int:
    work = {
        "send": _send,
        "list": _list,
        "keep": _keep,
        "show": _show,
        "resend": _resend,
        "follow": _follow,
    }[args.action]
    outside = args.action in ("send", "resend", "follow")
    return with_services(args, lambda services: work(services, args), vendors=outside)


async def _send(services: Services, args: Namespace) -> int:
    company = await require_company(services, args.company)
    channel = Channel(args.channel)
    template = _template(args)
    body = await _body(args, optional=template is not None or channel is Channel.PHONE)
    agent = find_agent(await services.agents.cards(), args.agent).id if args.agent else None
    await unlocked(services)

    async def order(confirmed: bool) -> MessageRow:
        return await services.messages.send_message(
            company.name,
            channel,
            args.to,
            body=body,
            subject=args.subject,
            template=template,
            agent_id=agent,
            integration=args.integration,
            idempotency_key=args.key,
            actor=_actor(),
            confirmed=confirmed,
        )

    row = await _confirmed(order, args)
    return await _told(services, row, args)


async def _confirmed(order: Callable[[bool], Awaitable[MessageRow]], args: Namespace) -> MessageRow:
    """The order, after a person's yes where a phone call needs one."""
    try:
        return await order(bool(args.yes))
    except ServiceError as error:
        if error.code != "not_confirmed" or not can_ask():
            raise
    say("This calls for real: Twilio and the agent's vendor charge for every minute.")
    if ask("Type yes to call: ").strip().lower() != "yes":
        raise ServiceError("Nobody was called", advice="Run the command again", code="not_confirmed")
    return await order(True)


async def _told(services: Services, row: MessageRow, args: Namespace) -> int:
    """Follow it for as long as was asked for (a phone call to its end), show it, and its exit code."""
    wait = float(args.wait or 0) if "wait" in args else 0.0
    if row.channel is Channel.PHONE and row.followed:
        wait = CALL_SECONDS  # closing the program would hang up
    if wait and row.followed:
        row = await _followed(services, row, wait, quiet=args.json)
    if args.json:
        emit_json("message", await _document(services, row))
    else:
        state = paint(state_of(row), STYLES.get(state_of(row), ""))
        whom = f"{row.channel} to {clean_line(row.recipient)} by {clean_line(row.integration)}"
        write_line(f"{row.id[:8]}  {state}  {whom}")
        if row.followed and not wait:
            say(f"What becomes of it: callboard message follow {row.id[:8]}    (or leave it to `serve`)")
    return _code(row)


async def _followed(services: Services, row: MessageRow, seconds: float, *, quiet: bool) -> MessageRow:
    """The message at its end, or when the time is over; each change is narrated."""
    shown = None
    async for now in services.messages.follow(row.id, seconds=seconds):
        row = now
        told = f"{row.state.value}{f': {clean_line(row.remark)}' if row.remark else ''}"
        if not quiet and told != shown:
            say(told)
        shown = told
    return row


def _code(row: MessageRow) -> int:
    """What became of it, on standard error where something is to be done, as an exit code."""
    if row.simulated:
        remark = clean_line(row.remark)
        told = remark.removeprefix("Simulated: ")
        why = told if told != remark else "it went to a simulator, nobody got it"
        say(f"{paint('SIMULATED:', 'yellow', sys.stderr)} {why}")
    if row.error is not None:
        say(f"{paint('error:', 'red', sys.stderr)} {clean_line(row.error.message)}")
        if row.error.advice:
            say(f"{paint('  try:', 'cyan', sys.stderr)} {clean_line(row.error.advice)}")
    if row.state is MessageState.FAILED:
        denied = row.error is not None and row.error.category == Category.AUTHENTICATION
        return ExitCode.DENIED if denied else ExitCode.FAILED
    if row.state is MessageState.UNKNOWN:
        say(f"It is not known whether it was sent. Look again with: callboard message follow {row.id[:8]}")
        return ExitCode.FAILED
    if row.state is MessageState.QUEUED:
        say("It is being handed over, or the program that did was killed: that is settled after 3 minutes.")
        return ExitCode.FAILED
    return ExitCode.DONE


async def _list(services: Services, args: Namespace) -> int:
    company = (await require_company(services, args.company)).name if args.company else None
    if args.inbound:
        return await _inbound(services, args, company)
    rows = await services.messages.list(
        company,
        channel=Channel(args.channel) if args.channel else None,
        state=MessageState(args.state) if args.state else None,
        limit=args.limit,
    )
    if args.json:
        emit_json("messages", {"messages": [as_dict(row) for row in rows]})
        return ExitCode.DONE
    if not rows:
        narrowed = company or args.channel or args.state
        say("No message matches." if narrowed else "No message yet: callboard message send")
        return ExitCode.DONE
    now = services.clock.now()
    print_table(
        ("MESSAGE", "SENT", "COMPANY", "CHANNEL", "TO", "BY", "STATE", "REMARK"),
        [
            (
                row.id[:8],
                ago(row.created_at, now),
                row.company,
                row.channel.value,
                row.recipient,
                row.integration,
                state_of(row),
                row.error.message if row.error else row.remark,
            )
            for row in rows
        ],
        styles=STYLES,
    )
    return ExitCode.DONE


async def _inbound(services: Services, args: Namespace, company: str | None) -> int:
    """What people wrote."""
    if args.state:
        raise UsageError(
            "Only what was sent has a state", advice="Leave --state or --inbound out", code="usage"
        )
    channel = Channel(args.channel) if args.channel else None
    rows = await services.messages.received(company, channel=channel, limit=args.limit)
    if args.json:
        emit_json("inbound-messages", {"messages": [inbound_dict(row) for row in rows]})
        return ExitCode.DONE
    if not rows:
        narrowed = company or args.channel
        say("No message matches." if narrowed else "Nobody wrote yet. `callboard serve` takes what comes in.")
        return ExitCode.DONE
    now = services.clock.now()
    print_table(
        ("MESSAGE", "SENT", "COMPANY", "CHANNEL", "FROM", "NAME", "BY", "TEXT"),
        [
            (
                row.id[:8],
                ago(row.sent_at, now),
                row.company,
                row.channel.value,
                row.sender,
                row.sender_name,
                row.integration,
                heard(row),
            )
            for row in rows
        ],
        styles={NOT_KEPT: "dim"},
    )
    return ExitCode.DONE


async def _keep(services: Services, args: Namespace) -> int:
    company = (await require_company(services, args.company)).name if args.company else None
    texts = services.messages.texts
    if args.days or args.forever or args.default:
        if company is None:
            raise UsageError("Whose texts is not said", advice="Name the company", code="usage")
        days = None if args.default else 0 if args.forever else args.days
        kept = [await texts.set(company, days, actor=_actor())]
    else:
        kept = await texts.of(company)
    if args.json:
        told = [{"company": each.company, "days": each.days or None, "own": each.own} for each in kept]
        emit_json("message-retention", {"companies": told})
        return ExitCode.DONE
    for each in kept:
        how_long = f"for {plural(each.days, 'day')}" if each.days else "for ever"
        why = "" if each.own else " (as the setting messages_keep_days says)"
        write_line(f"{clean_line(each.company)} keeps texts of messages and orders {how_long}{why}.")
    if not kept:
        say("There is no company yet: callboard company add NAME")
    return ExitCode.DONE


async def _show(services: Services, args: Namespace) -> int:
    try:
        row = await services.messages.get(args.message)
    except UsageError as error:
        if error.code != "unknown_message" or not await _show_inbound(services, args):
            raise
        return ExitCode.DONE
    if args.json:
        emit_json("message", await _document(services, row))
        return ExitCode.DONE
    print_message(row, await services.messages.events(row.id))
    return ExitCode.DONE


async def _show_inbound(services: Services, args: Namespace) -> bool:
    """Show one that came in; whether there is one of that id."""
    wanted = args.message.strip().lower()
    found = await services.messages.received(beginning=wanted, limit=2) if wanted else []
    if len(found) != 1:
        return False
    row = found[0]
    if args.json:
        emit_json("inbound-message", {"message": inbound_dict(row)})
        return True
    print_inbound(row)
    return True


async def _resend(services: Services, args: Namespace) -> int:
    before = await services.messages.get(args.message)
    if before.state is not MessageState.FAILED and not args.yes:
        why = f"The first one is {before.state}: the recipient may get it twice"
        if not can_ask():
            raise UsageError(why, advice="Add --yes if that is what you want", code="not_confirmed")
        say(f"{why}.")
        if ask("Type yes to send it again: ").strip().lower() != "yes":
            say("Nothing was sent.")
            return ExitCode.FAILED
    await unlocked(services)

    async def order(confirmed: bool) -> MessageRow:
        return await services.messages.resend(before.id, actor=_actor(), confirmed=confirmed)

    return await _told(services, await _confirmed(order, args), args)


async def _follow(services: Services, args: Namespace) -> int:
    row = await services.messages.get(args.message)
    await unlocked(services)
    await services.messages.settle()
    row = await _followed(services, row, float(args.seconds), quiet=args.json)
    if args.json:
        emit_json("message", await _document(services, row))
    elif row.followed:
        say("It is not at its end yet. `callboard serve` and the console go on following it.")
    return _code(row)


async def _document(services: Services, row: MessageRow) -> dict[str, Any]:
    steps = [
        {"at": iso(event.at), "state": event.state.value, "source": event.source, "detail": event.detail}
        for event in await services.messages.events(row.id)
    ]
    return {"message": as_dict(row), "events": steps}


def _template(args: Namespace) -> Template | None:
    parameters: dict[str, str] = {}
    for given in args.param:
        name, equals, value = given.partition("=")
        if not equals or not name.strip() or name.strip() in parameters:
            raise UsageError(
                f"--param {clean_line(given)[:60]!r} is not NAME=VALUE, or names a place twice",
                advice="Such as --param 1=Monday --param 2=nine",
                code="bad_param",
            )
        parameters[name.strip()] = value
    if args.template is None:
        if parameters or args.lang:
            raise UsageError(
                "--param and --lang belong to a template",
                advice="Name it with --template",
                code="no_template",
            )
        return None
    return Template(args.template.strip(), args.lang.strip(), parameters)


async def _body(args: Namespace, *, optional: bool) -> str:
    """The text of the option, else of standard input when something is piped in."""
    if args.body is not None:
        return str(args.body)
    if optional:
        return ""
    if is_terminal(sys.stdin):
        raise UsageError("There is no text", advice="Give it with --body, or pipe it in", code="no_body")
    from services.blocking import in_daemon_thread

    # A thread that does not keep the program from ending: Ctrl-C works while nothing comes.
    text = await in_daemon_thread(lambda: sys.stdin.read(LONGEST_BODY + 1), STDIN_SECONDS)
    if len(text) > LONGEST_BODY:
        raise UsageError(
            f"Standard input holds more than {LONGEST_BODY:,} characters",
            advice="Send a shorter text",
            code="too_long",
        )
    return text.removesuffix("\n").removesuffix("\r")


def _actor() -> str:
    from services.companies.service import actor

    name: str = actor()
    return name
