"""`callboard simulator`: the vendors' and Twilio's APIs on this machine, and switches of a running one.

A simulator that a person starts leaves its addresses in `simulator.json` in the data folder, the demo
company leaves those of its own in the demo folder; the control commands find the newest living one there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.output import ExitCode, say, write_line
from services.errors import ServiceError, UsageError
from services.simulator import (
    ACCOUNT_SID,
    DEFAULT_KEY,
    FAULT_HELP,
    LIMITED_SUFFIX,
    SimulatorOptions,
    parse_fault,
)
from services.text import clean_line

if TYPE_CHECKING:
    import asyncio

    from app.parsing import Subparsers
    from services.simulator import Simulator

STATE_FILE = "simulator.json"
DEFAULT_AGENTS = 24
EXAMPLES = f"""\
{FAULT_HELP}
examples:
  callboard simulator --agents 65 --latency 100
  callboard simulator --fault 429:retry-after=2:x3 --fault 'truncate:Booking Bot'
and, while it runs:
  callboard simulator fault '500:Reception DE'
  callboard simulator fault 503:retell hang:hubspot       # a vendor, a partner; all partners: hang:partners
  callboard simulator edit 'Reception DE'
  callboard simulator clear retell                        # what strikes Retell; without a name everything
with --demo before it, for the demo that is open: callboard --demo simulator fault 503:retell
"""


def add_parser(subparsers: Subparsers) -> None:
    """The options that start a simulator, and the commands for a running one."""
    text = "serve both vendors' agent APIs on this machine, with faults on demand"
    parser = subparsers.add_parser("simulator", help=text, description=text, epilog=EXAMPLES)
    port = "(default: 0, the system chooses)"
    parser.add_argument("--retell", metavar="PORT", type=_port, default=0, help=f"port of Retell {port}")
    parser.add_argument(
        "--elevenlabs", metavar="PORT", type=_port, default=0, help=f"port of ElevenLabs {port}"
    )
    parser.add_argument("--twilio", metavar="PORT", type=_port, default=0, help=f"port of Twilio {port}")
    parser.add_argument(
        "--partners", metavar="PORT", type=_port, default=0, help=f"port of CRM, messages, LLM, … {port}"
    )
    parser.add_argument(
        "--agents",
        metavar="N",
        type=_count,
        default=DEFAULT_AGENTS,
        help=f"agents of both vendors together (default: {DEFAULT_AGENTS})",
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, default=1, help="which made-up agents; equal seeds, equal agents"
    )
    parser.add_argument(
        "--latency", metavar="MS", type=_milliseconds, default=0.0, help="answer every request MS later"
    )
    parser.add_argument(
        "--fault", metavar="FAULT", action="append", default=[], help="switch a fault on; may be repeated"
    )
    parser.add_argument(
        "--announce",
        choices=("text", "json"),
        default="text",
        help="how to say where it listens; json is one line on standard output",
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input ends")
    parser.add_argument("--state-file", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="for a running simulator")
    fault = _add_action(actions, "fault", "switch faults on", epilog=FAULT_HELP)
    fault.add_argument("spec", metavar="FAULT", nargs="+")
    clear = _add_action(actions, "clear", "switch faults off: every one, or those of some targets")
    clear.add_argument("target", metavar="TARGET", nargs="*", help="a vendor, a partner, or an agent")
    _add_action(actions, "stats", "how many requests it answered, and how many at once")
    _add_action(actions, "agents", "list its agents")
    edit = _add_action(actions, "edit", "change an agent as a person in the vendor's dashboard would")
    edit.add_argument("agent", metavar="AGENT", help="the agent's id or name")
    edit.add_argument(
        "--part",
        choices=("engine", "agent", "tool"),
        default="engine",
        help="what to change (default: engine)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, SIGTERM or the end of standard input; or steer a running simulator."""
    if args.action is None:
        import asyncio

        return asyncio.run(_serve(args))
    action = {"fault": _fault, "clear": _clear, "stats": _stats, "agents": _agents, "edit": _edit}[
        args.action
    ]
    url = _address(args)
    return action(url, args)


def _add_action(actions: Subparsers, name: str, text: str, *, epilog: str = "") -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text, epilog=epilog)
    parser.add_argument("--url", help="where it listens; any port will do (default: the one started last)")
    # A default here would overwrite what was given before the action.
    parser.add_argument("--state-file", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


# Serving


async def _serve(args: argparse.Namespace) -> int:
    import asyncio

    from services.simulator import Simulator

    ports = [port for port in (args.retell, args.elevenlabs, args.twilio, args.partners) if port]
    if twice := [port for port in ports if ports.count(port) > 1]:
        raise UsageError(f"Port {twice[0]} was given twice", advice="give each its own port")
    options = SimulatorOptions(
        agents=args.agents,
        seed=args.seed,
        latency_ms=args.latency,
        faults=tuple(args.fault),
        retell_port=args.retell,
        elevenlabs_port=args.elevenlabs,
        twilio_port=args.twilio,
        partners_port=args.partners,
        memory=args.memory,
    )
    stop = asyncio.Event()
    _stop_on_signals(stop)
    if args.exit_with_parent:
        _stop_at_end_of_input(stop)
    simulator = Simulator(options)
    await simulator.start()
    try:
        with _announced(args, simulator):
            await stop.wait()
    finally:
        await simulator.stop()
    return ExitCode.DONE


def _stop_on_signals(stop: asyncio.Event) -> None:
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None:
            # Not every platform's loop has signal handlers; Ctrl-C then arrives as KeyboardInterrupt.
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop.set)


def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    """Watch standard input from a thread: it may be a pipe, a terminal or a file."""
    import asyncio
    import threading

    loop = asyncio.get_running_loop()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, name="end-of-input", daemon=True).start()


@contextlib.contextmanager
def _announced(args: argparse.Namespace, simulator: Simulator) -> Iterator[None]:
    """Say where it listens: `--announce json` to whoever reads the line, otherwise in the state file too."""
    state = {
        "retell": simulator.retell_url,
        "elevenlabs": simulator.elevenlabs_url,
        "twilio": simulator.twilio_url,
        "partners": simulator.partners_url,
        "key": simulator.options.key,
        "pid": os.getpid(),
    }
    file: Path | None = args.state_file
    if args.announce == "json":
        write_line(json.dumps(state))
    else:
        file = file or _state_files(demo=False)[0]
        faults = "".join(f"\n  fault       {spec}" for spec in args.fault)
        write_line(
            f"Simulating {args.agents} agents (seed {args.seed}). Ctrl+C stops it.\n"
            f"  Retell      {simulator.retell_url}\n"
            f"  ElevenLabs  {simulator.elevenlabs_url}\n"
            f"  Twilio      {simulator.twilio_url}  (account {ACCOUNT_SID}; its token is the key)\n"
            f"  partners    {simulator.partners_url}\n"
            f"  key         {DEFAULT_KEY}  ({DEFAULT_KEY}{LIMITED_SUFFIX} lacks every permission){faults}"
        )
    sys.stdout.flush()
    if file is not None:
        _write_state(file, state)
    try:
        yield
    finally:
        if file is not None and _read_state(file).get("pid") == os.getpid():
            file.unlink(missing_ok=True)


# Steering


def _fault(url: str, args: argparse.Namespace) -> int:
    for spec in args.spec:
        parse_fault(spec)
    for spec in args.spec:
        _control(url, "POST", "/__faults", {"fault": spec})
        say(f"Switched on: {spec}")
    return ExitCode.DONE


def _clear(url: str, args: argparse.Namespace) -> int:
    from urllib.parse import quote

    count = 0
    for target in args.target or [""]:
        about = f"?target={quote(target, safe='')}" if target else ""
        count += _control(url, "DELETE", f"/__faults{about}")["cleared"]
    say(f"Switched off: {count} fault{'' if count == 1 else 's'}")
    return ExitCode.DONE


def _stats(url: str, args: argparse.Namespace) -> int:
    stats = _control(url, "GET", "/__stats")
    for title in ("all", "retell", "elevenlabs", "twilio", "partners"):
        part = stats.get(title, stats)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(part["by_kind"].items()))
        write_line(
            f"{title:<12}{part['requests']:>7} requests  {part['max_in_flight']:>4} at once at most  "
            f"{part['in_flight']:>4} now  {part['faults']:>5} faults  {kinds}".rstrip()
        )
    for fault in _control(url, "GET", "/__faults")["faults"]:
        left = "" if fault["left"] is None else f", {fault['left']} left"
        write_line(f"fault       {clean_line(fault['fault'])}  (struck {fault['struck']}{left})")
    return ExitCode.DONE


def _agents(url: str, args: argparse.Namespace) -> int:
    for agent in _control(url, "GET", "/__agents")["agents"]:
        write_line(f"{agent['provider']:<12}{agent['agent_id']:<36}{clean_line(agent['name'])}")
    return ExitCode.DONE


def _edit(url: str, args: argparse.Namespace) -> int:
    from urllib.parse import quote

    changed = _control(url, "POST", f"/__agents/{quote(args.agent, safe='')}/edit", {"part": args.part})
    say("Changed: " + ", ".join(f"{name} {value}" for name, value in changed.items()))
    return ExitCode.DONE


def _address(args: argparse.Namespace) -> str:
    """Where the simulator to steer listens. Raises UsageError for a wrong URL, ServiceError for none."""
    if args.url:
        return _http(str(args.url).rstrip("/"))
    files = [args.state_file] if args.state_file else _state_files(demo=args.demo)
    living = [(file.stat().st_mtime, state) for file in files if _alive(state := _read_state(file))]
    if not living and args.demo:
        raise ServiceError(
            "The demo is not open",
            advice="open it in another terminal: callboard --demo",
            code="no_simulator",
        )
    if not living:
        raise ServiceError(
            "No simulator is running on this machine that was started here",
            advice="start one with `callboard simulator`, or say where it listens with --url",
            code="no_simulator",
        )
    return _http(str(max(living, key=lambda found: found[0])[1]["retell"]))


def _http(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"“{url}” is not a URL", advice="write it as http://127.0.0.1:PORT")
    return url


def _control(url: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One control request. Raises UsageError when it is refused, ServiceError when nobody answers."""
    import urllib.error
    import urllib.request

    data = None if body is None else json.dumps(body).encode()
    # No proxy: it is a program on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url + path, data=data, method=method)  # noqa: S310 - http: _address
        with opener.open(request, timeout=10) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        known = "`callboard simulator fault --help` lists vendors and partners, `simulator agents` the agents"
        raise UsageError(_refusal(error.read()), advice=known) from None
    except (OSError, ValueError):
        answer = None
    if not isinstance(answer, dict):
        raise ServiceError(
            f"No simulator answers at {url}",
            advice="start one with `callboard simulator`, or say where it listens with --url",
            code="no_simulator",
        )
    return answer


def _refusal(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return "what answers there is not a simulator"


# The file with the addresses


def _state_files(*, demo: bool) -> list[Path]:
    """Where a running simulator may have left its addresses: a person's first, then the demo's."""
    from app.paths import paths_from

    paths = paths_from(os.environ)
    files = [paths.data_dir / STATE_FILE, paths.demo_dir / STATE_FILE]
    return files[1:] if demo else files


def _write_state(file: Path, state: dict[str, Any]) -> None:
    """Without it the control commands need `--url`; that is no reason not to run."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(json.dumps(state), encoding="utf-8")
    except OSError as error:
        say(f"note: {file} was not written ({error.strerror}); use --url with the control commands")


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _alive(state: dict[str, Any]) -> bool:
    """Whether the process that wrote the file still runs (one of another user counts)."""
    pid = state.get("pid")
    if not isinstance(pid, int) or pid <= 0 or not isinstance(state.get("retell"), str):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


# Reading the command line


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds from 0 on")
    return value
