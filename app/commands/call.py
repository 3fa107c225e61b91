"""`callboard call`: talk to an agent without a screen: by voice, typed, by phone, or against a script.

Lines on standard input are what the user says (text), each sent when the agent has answered the one
before; on a terminal they are sent at once. `/end`, `/mute`, `/mark NOTE`, `/inform TEXT`, `/approve`
and `/deny` do what the keys of the call screen do. Ctrl-C hangs up; twice ends the process.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands._call_report import Printer
from app.commands._demo import agents_there
from app.commands._names import find_agent
from app.commands._run import on_first_signal, with_services
from app.commands._secrets import ask, can_ask, unlocked
from app.commands._stdin import StdinLines
from app.output import ExitCode, is_terminal, say, say_error, write_line
from services.calls.model import EndReason, TransportKind
from services.errors import ServiceError, UsageError
from services.text import clean_line

if TYPE_CHECKING:
    from app.parsing import Subparsers
    from services.calls.model import Brief
    from services.calls.service import CallRequest, Preparation
    from services.calls.session import CallSession
    from services.container import Services

ANSWER_SECONDS = 30.0
"""How long a line waits for the agent's answer before the next one is sent."""
QUIET_SECONDS = 0.6
"""How long the agent must have nothing more to say before a scripted line is sent."""
DESCRIPTION = """\
Talk to an agent: by microphone, over WebRTC, by phone, typed, or against a script (mock, which needs no
agent). The call is recorded in a folder of its own; `callboard calls` lists and shows them.
"""
EXAMPLES = """\
examples:
  callboard call "Front desk"                              by voice where there is a microphone, else typed
  callboard call "Front desk" --transport text             typed; works over SSH
  printf 'Hello\\nBye\\n' | callboard call "Front desk" --transport text --json
  callboard call --transport mock --scenario desk.yaml     a dry run, no network
  callboard call "Front desk" --brief brief.yaml --data leads.csv --row 3 --check
  callboard call "Front desk" --transport phone --to +4930123456

exit codes: 0 the conversation ended as it should, 1 it failed, 2 wrong usage or number, 3 it is not known
whether the phone call was placed, 4 busy, no answer, refused or not allowed, 5 the key was refused
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("call", help="talk to an agent", description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("agent", nargs="?", metavar="AGENT", help="vendor id, name or part of it")
    parser.add_argument("--transport", choices=[kind.value for kind in TransportKind], help="how to talk")
    parser.add_argument("--scenario", metavar="FILE", type=Path, help="what a mock plays (YAML)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of a mock's chances")
    brief = parser.add_argument_group("what the agent is told")
    brief.add_argument(
        "--brief",
        metavar="FILE",
        type=Path,
        help="prompt, knowledge, variables (YAML; `callboard scenarios example brief` prints one)",
    )
    brief.add_argument("--data", metavar="FILE", type=Path, help="the subject's data (JSON, YAML, CSV)")
    brief.add_argument("--row", metavar="N|KEY=VALUE", help="which row of a table")
    brief.add_argument("--var", action="append", default=[], metavar="K=V", help="a dynamic variable")
    brief.add_argument("--check", action="store_true", help="show what would be used, and do not call")
    brief.add_argument("--anyway", action="store_true", help="call although a part would be refused")
    phone = parser.add_argument_group("by phone")
    phone.add_argument("--to", metavar="NUMBER", default="", help="the number to dial, such as +4930123456")
    phone.add_argument("--from", metavar="NUMBER", default="", dest="from_number", help="one of your numbers")
    phone.add_argument("--yes", action="store_true", help="dial without asking")
    audio = parser.add_argument_group("audio")
    audio.add_argument("--list-devices", action="store_true", help="list microphones and loudspeakers")
    audio.add_argument("--input-device", metavar="NAME", default="", help="part of a microphone's name")
    audio.add_argument("--output-device", metavar="NAME", default="", help="part of a loudspeaker's name")
    audio.add_argument("--no-aec", action="store_true", help="no echo cancellation (with headphones)")
    audio.add_argument("--no-audio", action="store_true", help="no devices: silence in, nothing heard")
    audio.add_argument("--play", metavar="WAV", type=Path, help="this file instead of the microphone")
    parser.add_argument(
        "--say", action="append", default=[], metavar="TEXT", help="what the user says, in turn"
    )
    parser.add_argument("--max-seconds", type=float, metavar="N", help="hang up after so long")
    parser.add_argument("--tools", metavar="FILE", type=Path, help="client tools: a Python file's functions")
    parser.add_argument("--json", action="store_true", help="print every event as a JSON line")


def run(args: Namespace) -> int:
    if args.list_devices:
        return with_services(args, lambda services: _devices(services, args))
    return with_services(args, lambda services: _call(services, args), vendors=args.transport != "mock")


async def _devices(services: Services, args: Namespace) -> int:
    from app.output import emit_json, print_table

    found = await services.calls.devices()
    if args.json:
        listed = [
            {
                "id": each.id,
                "name": each.name,
                "inputs": each.inputs,
                "outputs": each.outputs,
                "rate": each.rate,
            }
            for each in found
        ]
        emit_json("devices", {"devices": listed})
        return ExitCode.DONE
    if not found:
        raise await _no_audio(services)
    print_table(
        ("DEVICE", "MICROPHONE", "LOUDSPEAKER", "RATE"),
        [
            (
                each.name,
                ("default" if each.default_input else "yes") if each.inputs else "",
                ("default" if each.default_output else "yes") if each.outputs else "",
                f"{each.rate} Hz",
            )
            for each in found
        ],
        right=(3,),
    )
    return ExitCode.DONE


async def _no_audio(services: Services) -> ServiceError:
    problem = await services.calls.audio_problem()
    message, _, advice = problem.partition(". ")
    return ServiceError(
        message or "No audio device", advice=advice or "Use --transport text", code="no_device"
    )


async def _call(services: Services, args: Namespace) -> int:
    request = await _request(services, args)
    preparation = await services.calls.prepare(request)
    _narrate(preparation, args)
    if args.check:
        return ExitCode.BLOCKED if preparation.refused else ExitCode.DONE
    why = dict(preparation.available).get(request.transport, "")
    if why and not (args.no_audio or args.play):
        message, _, advice = why.partition(". ")
        raise ServiceError(
            f"{preparation.target.name} cannot be called over {request.transport}: {message}",
            advice=advice or "Use --transport text, which needs no audio",
            code="not_offered",
        )
    if preparation.needs_confirmation:
        request = _confirmed(request, preparation, args)
    session = await services.calls.start(request)
    return await _talk(session, args)


async def _request(services: Services, args: Namespace) -> CallRequest:
    from services.calls.opening import WITH_DEVICES
    from services.calls.service import CallRequest

    if args.tools is not None:
        from dataclasses import replace

        services.calls.options = replace(services.calls.options, client_tools=args.tools)
    row = None
    if args.agent:
        await agents_there(services)
        row = find_agent(await services.agents.cards(), args.agent).id
    if args.transport:
        kind = TransportKind(args.transport)
    elif args.to:
        kind = TransportKind.PHONE
    elif args.scenario or row is None:
        kind = TransportKind.MOCK
    else:
        kind = await services.calls.default_transport(row)
    if row is None and (kind is not TransportKind.MOCK or not (args.scenario or args.transport)):
        raise UsageError(
            "Which agent is to be called?",
            advice='callboard call "Front desk"; callboard agents list shows all',
            code="no_agent",
        )
    if kind is TransportKind.PHONE and not args.to:
        raise UsageError("A phone call needs a number", advice="Add --to +4930123456", code="no_number")
    if args.max_seconds is not None and not args.max_seconds > 0:
        raise UsageError("--max-seconds is a number above 0", advice="Leave it out for no limit")
    if args.play is not None:
        from services.calls.virtual_audio import pcm_of

        await asyncio.to_thread(pcm_of, args.play, 16_000)  # a wrong file is told before anybody is called
    if args.to and kind is not TransportKind.PHONE:
        raise UsageError(f"--to is for a phone call, not {kind}", advice="Use --transport phone")
    if row is not None and kind is not TransportKind.MOCK:
        await unlocked(services)
    return CallRequest(
        agent_row=row,
        transport=kind,
        brief=await _brief(args),
        scenario=args.scenario,
        number=args.to,
        from_number=args.from_number,
        input_device=args.input_device,
        output_device=args.output_device,
        echo=not args.no_aec,
        seed=args.seed,
        devices=kind in WITH_DEVICES and not args.no_audio,
        play=args.play,
        confirmed=args.yes,
        anyway=args.anyway,
    )


async def _brief(args: Namespace) -> Brief:
    from app.commands._brief import brief_of

    return await brief_of(args)


def _narrate(preparation: Preparation, args: Namespace) -> None:
    """The brief's parts and the warnings, on standard error (as data with --check)."""
    show = write_line if args.check and not args.json else say
    if args.check and args.json:
        from app.output import emit_json

        parts = [
            {"name": part.name, "size": part.size, "use": part.use, "why": part.why}
            for part in preparation.parts
        ]
        emit_json(
            "call-check",
            {"parts": parts, "refused": preparation.refused, "warnings": list(preparation.warnings)},
        )
        return
    for part in preparation.parts:
        if args.check or part.use != "used":
            why = clean_line(part.why)
            show(f"{part.use:<8} {part.name}, {part.size:,} characters" + (f"  {why}" if why else ""))
    for warning in preparation.warnings:
        show(f"note: {clean_line(warning)}")
    if args.check and not preparation.parts:
        show("There is no brief: the agent is called as it is.")


def _confirmed(request: CallRequest, preparation: Preparation, args: Namespace) -> CallRequest:
    """Ask before dialling. Raises ServiceError when nobody said yes."""
    from dataclasses import replace

    if not args.yes:
        if not can_ask():
            raise UsageError(
                "A number is dialled only after a yes, and nobody is there to ask",
                advice="Add --yes if this call is meant",
                code="not_confirmed",
            )
        say(preparation.needs_confirmation)
        if ask("Type yes to dial: ").lower() != "yes":
            raise ServiceError("Nothing was dialled", code="not_confirmed")
    return replace(request, confirmed=True)


async def _talk(session: CallSession, args: Namespace) -> int:
    """Print what happens, say what is to be said, and wait for the end."""
    tasks: list[asyncio.Task[None]] = []

    def alone() -> None:
        tasks.append(asyncio.create_task(session.end(detail="nobody reads the output"), name="hang up"))

    printer = Printer(session, args.json, alone)
    session.subscribe_messages(printer)
    tasks.append(asyncio.create_task(_speak(session, args), name="lines"))
    if args.max_seconds:
        tasks.append(asyncio.create_task(_limit(session, args.max_seconds), name="limit"))

    def hang_up(_number: signal.Signals) -> None:
        say("Hanging up. (Once more ends the program at once.)")
        tasks.append(asyncio.create_task(session.end(), name="hang up"))

    with on_first_signal(hang_up, "SIGINT", "SIGTERM", "SIGHUP"):
        ended = await session.wait()
        await session.settled()
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, ServiceError):
            say_error(result)
    return printer.finish(ended)


async def _limit(session: CallSession, limit: float) -> None:
    await asyncio.sleep(limit)
    await session.end(EndReason.OPERATOR_ENDED, f"hung up after {limit:g} s")


async def _speak(session: CallSession, args: Namespace) -> None:
    """Say the lines of the command line, then those of standard input."""
    await _answered(session, first=True)
    for text in args.say:
        await _say(session, text)
        await _answered(session)
    if not session.capabilities.text and not is_terminal(sys.stdin):
        return
    typed = StdinLines()
    at_once = is_terminal(sys.stdin)
    async for line in typed:
        await _obey(session, line.strip())
        if not at_once:
            await _answered(session)
    by_text = session.kind is TransportKind.TEXT or session.kind is TransportKind.MOCK
    if by_text and not at_once:
        await session.end(EndReason.COMPLETED, "everything was said")


async def _obey(session: CallSession, line: str) -> None:
    """One line of input: a command with a slash, or something to say."""
    word, _, rest = line.partition(" ")
    waiting = session.live.waiting_approval
    try:
        if word == "/end":
            await session.end()
        elif word == "/mute":
            await session.mute(not session.live.muted)
        elif word == "/mark":
            await session.mark(rest)
        elif word == "/inform":
            await session.inform(rest)
        elif word in ("/approve", "/deny"):
            if waiting is None:
                say("Nothing waits for a yes or a no.")
            else:
                await session.approve(waiting.tool_id, word == "/approve")
        elif word.startswith("/") and not rest:
            say(f"There is no {clean_line(word)}. Known: /end /mute /mark /inform /approve /deny")
        elif line:
            await _say(session, line, scripted=not is_terminal(sys.stdin))
    except ServiceError as error:
        say_error(error)


async def _say(session: CallSession, text: str, *, scripted: bool = True) -> None:
    try:
        await session.say(text)
    except ServiceError as error:
        say_error(error)
        if scripted and error.code == "limited":
            # Without this line the rest of the script would be another conversation.
            await session.end(EndReason.LIMIT, "our own limits have no room for what was to be said")


async def _answered(session: CallSession, *, first: bool = False) -> None:
    """Until the agent has answered what was said last (or greeted) and is quiet for a moment."""
    news = asyncio.Event()
    unsubscribe = session.subscribe_messages(lambda _t, _message: news.set())
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while session.live.ended is None:
                news.clear()
                try:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await news.wait()
                except TimeoutError:
                    if _has_answered(session, first):
                        return
    except TimeoutError:
        return
    finally:
        unsubscribe()


def _has_answered(session: CallSession, first: bool) -> bool:
    from services.calls.live import Who

    if session.live.live_at is None or session.live.agent_speaking:
        return False
    for entry in reversed(session.live.entries):
        if not entry.final:
            return False
        if entry.who is Who.AGENT:
            return True
        if entry.who is Who.USER:
            return False
    # Nothing was said yet: an agent may wait for the user to begin.
    return first and session.now_ms() - session.live.live_at > 2_000
