"""`callboard booking availability|reserve|appointment|cancel|list|settle|execute`: at partners."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from app.commands._booking_views import (
    action_dict,
    as_dict,
    execution_dict,
    local_time,
    print_actions,
    print_bookings,
    print_slots,
    slot_dict,
)
from app.commands._integrating import actor, company_ready, keys_ready, ordering, pairs
from app.commands._names import require_company
from app.commands._run import with_services
from app.output import ExitCode, emit_json, say, say_degraded, say_error, write_line
from app.parsing import positive
from services.errors import Category, ServiceError, UsageError
from services.integrations.bookings.model import Booking, BookingKind, BookingState, Route
from services.integrations.model import EffectState, Kind
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.container import Services

S = TypeVar("S", bound=StrEnum)

EXAMPLES = """\
examples:
  callboard booking availability acme opentable --day 2027-03-01 --party 2
  callboard booking reserve acme opentable --at 2027-03-01T19:30 --party 2 --name "Ann Smith" \\
      --phone +493012345678 --email ann@example.com
  callboard booking appointment acme doctolib --service 7005 --at 2027-03-01T09:30 --name "Ann Smith"
  callboard booking list acme --state unknown
  callboard booking settle 3f9a confirmed             after a look at the partner's
  callboard booking list acme --actions --state unknown    cancellations and other orders
  callboard booking settle 81c0 done
"""
SETTLE_HELP = """\
A booking, or another order, whose answer was lost is `unknown`: it was perhaps made and is never ordered
again by itself. After a look at the partner's you say what became of it: a booking is confirmed, failed or
cancelled, any other order (`booking list --actions`) done or failed. It goes into the audit log.
"""
BOOK_HELP = """\
Books at the partner directly where an integration of its own is configured, else through the gateway
(INTEGRATION_API_URL); without any it is simulated, and says so. A booking is made at most once: with the same
--key again the first one is shown. One whose answer was lost is `unknown` until somebody settles it.
Times without an offset are the partner's own; one that is past is refused unless --anyway says it is meant.
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "booking", help="free times, reservations and appointments at partners", epilog=EXAMPLES
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    free = _at(actions, "availability", "free times, where the partner offers them")
    free.add_argument("--day", metavar="DATE", default="", help="2027-03-01 (default: the rest of today)")
    free.add_argument("--from", dest="begin", metavar="TIME", default="", help="instead of a day")
    free.add_argument("--to", dest="end", metavar="TIME", default="", help="up to before this time")
    free.add_argument("--party", metavar="N", type=positive, help="how many people come")
    free.add_argument("--service", metavar="ID", default="", help="which service or visit motive")
    free.add_argument("--practitioner", metavar="ID", default="", help="with whom")
    reserve = _at(actions, "reserve", "reserve a table", BOOK_HELP)
    reserve.add_argument("--party", metavar="N", type=positive, required=True, help="how many people come")
    visit = _at(actions, "appointment", "make an appointment", BOOK_HELP)
    visit.add_argument("--service", metavar="ID", required=True, help="which service or visit motive")
    visit.add_argument("--practitioner", metavar="ID", default="", help="with whom")
    visit.add_argument("--birth-date", metavar="DATE", default="", help="of the patient")
    for book in (reserve, visit):
        book.add_argument("--at", metavar="TIME", required=True, help="2027-03-01T19:30, or with an offset")
        book.add_argument("--name", required=True, help="first and last name")
        book.add_argument("--phone", default="", help="with + and its country code")
        book.add_argument("--email", default="", help="where the partner asks for it")
        book.add_argument("--notes", default="", help="for the partner to read")
        book.add_argument("--slot", metavar="ID", default="", help="a slot of the availability")
    execute = _at(actions, "execute", "any other action of a partner", BOOK_HELP)
    execute.add_argument("name", metavar="ACTION", help="a word that the partner or the gateway knows")
    for action in (reserve, visit, execute):
        action.add_argument(
            "--set", metavar="NAME=VALUE", action="append", default=[], help="what it takes besides"
        )
        action.add_argument("--key", metavar="KEY", default="", help="your own key: one booking for each")
        action.add_argument("--anyway", action="store_true", help="book also at a time that is past")
    listing = actions.add_parser("list", help="list bookings, the newest first")
    listing.add_argument("company", metavar="COMPANY", nargs="?")
    states = sorted({*BookingState, *(state.value for state in EffectState)})
    listing.add_argument("--state", metavar="STATE", choices=states, help=f"only these: {', '.join(states)}")
    listing.add_argument(
        "--actions", action="store_true", help="cancellations and other orders instead of bookings"
    )
    listing.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="at most so many (default 50)"
    )
    cancel = actions.add_parser("cancel", help="cancel one at its partner")
    cancel.add_argument("booking", metavar="BOOKING", help="its id, or the beginning of it")
    cancel.add_argument("--reason", default="", help="for the partner to read")
    settle = actions.add_parser(
        "settle",
        help="decide, after a look, what became of an unknown one",
        description=SETTLE_HELP,
        epilog=EXAMPLES,
    )
    settle.add_argument(
        "booking", metavar="BOOKING", help="its id or that of another order, or the beginning"
    )
    settle.add_argument(
        "outcome",
        metavar="OUTCOME",
        choices=("confirmed", "failed", "cancelled", "done"),
        help="confirmed, failed, cancelled, done",
    )
    settle.add_argument("--provider-id", metavar="ID", default="", help="the partner's own number of it")
    settle.add_argument("--cause", default="", help="how you know, for the audit log")
    for action in (listing, cancel, settle):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def _at(actions: Subparsers, name: str, text: str, description: str = "") -> ArgumentParser:
    parser = actions.add_parser(name, help=text, description=description or None, epilog=EXAMPLES)
    parser.add_argument("company", metavar="COMPANY")
    parser.add_argument("partner", metavar="PARTNER", help="see `callboard integration partners`")
    parser.add_argument("--integration", metavar="NAME", default="", help="by this one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(args: Namespace) -> int:
    actions = {
        "availability": _availability,
        "reserve": _reserve,
        "appointment": _appointment,
        "execute": _execute,
        "list": _list,
        "cancel": _cancel,
        "settle": _settle,
    }
    return with_services(args, lambda services: actions[args.action](services, args), vendors=True)


async def _availability(services: Services, args: Namespace) -> int:
    company = await company_ready(services, args, Kind.BOOKINGS)
    slots = await services.bookings.availability(
        company,
        args.partner,
        day=args.day,
        begin=args.begin,
        end=args.end,
        party_size=args.party,
        service=args.service,
        practitioner=args.practitioner,
        integration=args.integration,
        actor=actor(),
    )
    if args.json:
        told = {"company": company, "partner": args.partner, "degraded": slots.degraded}
        told |= {"age_seconds": None if slots.age is None else round(slots.age)}
        emit_json("availability", {**told, "slots": [slot_dict(slot) for slot in slots]})
    elif slots:
        print_slots(slots)
        say(f"Times are those of {slots[0].timezone}{' (simulated)' if slots[0].simulated else ''}.")
    else:
        say("Nothing is free then. Ask for another day with --day.")
    if not args.json:
        say_degraded(slots.degraded)
    return ExitCode.DONE


async def _reserve(services: Services, args: Namespace) -> int:
    booking = await services.bookings.create_reservation(
        await company_ready(services, args, Kind.BOOKINGS),
        args.partner,
        party_size=args.party,
        at=args.at,
        name=args.name,
        phone=args.phone,
        email=args.email,
        notes=args.notes,
        slot=args.slot,
        params=pairs(args.set),
        anyway=args.anyway,
        **ordering(args),
    )
    return _shown(args, booking)


async def _appointment(services: Services, args: Namespace) -> int:
    booking = await services.bookings.create_appointment(
        await company_ready(services, args, Kind.BOOKINGS),
        args.partner,
        service=args.service,
        at=args.at,
        name=args.name,
        phone=args.phone,
        email=args.email,
        birth_date=args.birth_date,
        practitioner=args.practitioner,
        notes=args.notes,
        slot=args.slot,
        params=pairs(args.set),
        anyway=args.anyway,
        **ordering(args),
    )
    return _shown(args, booking)


async def _execute(services: Services, args: Namespace) -> int:
    execution = await services.bookings.execute_integration(
        await company_ready(services, args, Kind.BOOKINGS),
        args.partner,
        args.name,
        {name: _value(text) for name, text in pairs(args.set).items()},
        anyway=args.anyway,
        **ordering(args),
    )
    if args.json:
        emit_json("execution", {"execution": execution_dict(execution)})
    else:
        how = "" if execution.route is Route.DIRECT else f" by {execution.route}"
        if execution.simulated:
            how = " (simulated: nothing was ordered)"
        write_line(f"{clean_line(args.name)} at {clean_line(args.partner)}{how}: {execution.state}")
        if execution.result:
            write_line(json.dumps(execution.result, indent=2, ensure_ascii=True, default=str))
    return _code(execution.state.value, execution.error)


async def _list(services: Services, args: Namespace) -> int:
    company = (await require_company(services, args.company)).name if args.company else ""
    if args.actions:
        return await _list_actions(services, args, company)
    state = _state_of(BookingState, args.state, "A booking")
    found = await services.bookings.list(company, state=state, limit=args.limit)
    if args.json:
        emit_json("bookings", {"bookings": [as_dict(booking) for booking in found]})
    elif found:
        print_bookings(found)
    else:
        narrowed = args.company or args.state
        there = "There is no booking yet: callboard booking reserve COMPANY PARTNER …"
        say("No booking matches." if narrowed else there)
    return ExitCode.DONE


async def _list_actions(services: Services, args: Namespace, company: str) -> int:
    state = _state_of(EffectState, args.state, "Such an order")
    company_id = await services.integrations.company_id(company) if company else None
    await services.bookings.give_up()
    found = await services.bookings.actions.list(company_id, state=state, limit=args.limit)
    if args.json:
        emit_json("booking-actions", {"actions": [action_dict(action) for action in found]})
    elif found:
        print_actions(found, services.clock.now())
    else:
        say("No such order was given." if not args.state else "No such order matches.")
    return ExitCode.DONE


def _state_of(states: type[S], word: str | None, what: str) -> S | None:
    """The state that a word means. Raises UsageError for one that these never have."""
    try:
        return states(word) if word else None
    except ValueError:
        there = ", ".join(states)
        raise UsageError(f"{what} is never {word}", advice=f"Its states: {there}", code="usage") from None


async def _cancel(services: Services, args: Namespace) -> int:
    await keys_ready(services, Kind.BOOKINGS)
    return _shown(args, await services.bookings.cancel(args.booking, reason=args.reason, actor=actor()))


async def _settle(services: Services, args: Namespace) -> int:
    more = {"cause": args.cause} if args.cause else {}
    try:
        booking = await services.bookings.get(args.booking)
    except UsageError as error:
        if error.code != "unknown_booking" or not await services.bookings.actions.list(
            beginning=args.booking.strip().lower() or "-", limit=1
        ):
            raise
        return await _settle_action(services, args)
    if args.outcome == "done":
        raise UsageError(
            f"{booking.id[:8]} is a booking", advice="Say confirmed, failed or cancelled", code="usage"
        )
    booking = await services.bookings.settle(
        booking.id, BookingState(args.outcome), provider_id=args.provider_id, actor=actor(), **more
    )
    return _shown(args, booking, settled=True)


async def _settle_action(services: Services, args: Namespace) -> int:
    if args.outcome not in ("done", "failed"):
        raise UsageError(
            f"{args.booking[:40]} is no booking but another order", advice="Say done or failed", code="usage"
        )
    action = await services.bookings.actions.settle(
        args.booking,
        done=args.outcome == "done",
        provider_id=args.provider_id,
        cause=args.cause,
        actor=actor(),
    )
    if args.json:
        emit_json("booking-action", {"action": action_dict(action)})
    else:
        write_line(f"{clean_line(action.action)} at {clean_line(action.partner)}: {action.state}")
    return ExitCode.DONE


def _shown(args: Namespace, booking: Booking, *, settled: bool = False) -> int:
    if args.json:
        emit_json("booking", {"booking": as_dict(booking)})
    else:
        what = "Table" if booking.kind is BookingKind.RESERVATION else "Appointment"
        when = "" if booking.starts_at is None else f" on {local_time(booking.starts_at, booking.timezone)}"
        number = f", number {clean_line(booking.provider_id)}" if booking.provider_id else ""
        made_up = " (simulated: nothing was booked)" if booking.simulated else ""
        whom = f" for {clean_line(booking.who)}" if booking.who else ""
        write_line(f"{what} at {clean_line(booking.partner)}{when}{whom}: {booking.state}{number}{made_up}")
        if not booking.fresh and not settled and args.action in ("reserve", "appointment"):
            say(f"It was there before, by its key: booking {booking.id[:8]}.")
    if settled:
        return ExitCode.DONE
    return _code(booking.state.value, booking.error)


def _code(state: str, error: Any) -> int:
    """Done, or what the failure of an earlier request with this key stands for."""
    if state in ("failed", "unknown", "requested", "intended"):
        if error is not None:
            say_error(ServiceError(error.message, category=Category(error.category), advice=error.advice))
        else:
            say("Another request with this key is still under way, or its process died.")
        return ExitCode.FAILED
    return ExitCode.DONE


def _value(text: str) -> Any:
    """A number or a truth where it is written like one, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text
