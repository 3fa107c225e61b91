"""The `callboard` command: finds the command that is meant, imports only that, and ends with its exit code.

`--help` and `--version` answer from this file alone. Everything else is imported when it is needed,
argparse included: the help of the whole program is a table, each command's help is its own module's.

Exit codes (`app.output.ExitCode`): 0 all done, 1 failed, 2 wrong usage, 3 some failed, 4 conflict or
blocked by drift, 5 not allowed or not authenticated. 130 is Ctrl-C, 141 a reader that went away.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from services.errors import ServiceError

PRODUCT = "callboard"
INTERRUPTED = 130
READER_GONE = 141

# name, module, one line for the help of the whole program
COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("sync", "app.commands.sync", "bring the mirror up to date with the vendors"),
    ("agents", "app.commands.agents", "list and show agents from the mirror, with no network"),
    ("company", "app.commands.company", "add, list and remove companies"),
    ("connection", "app.commands.connection", "add, test, rotate and remove a company's vendor keys"),
    ("call", "app.commands.call", "talk to an agent: by voice, typed, by phone, or against a script"),
    ("calls", "app.commands.calls", "list, show, export and delete past calls"),
    ("scenarios", "app.commands.scenarios", "test agents with scripted conversations"),
    ("phone", "app.commands.phone", "a company's Twilio account and the numbers it may dial"),
    ("integration", "app.commands.integration", "services for messages, bookings, CRM and more: add, test"),
    ("booking", "app.commands.booking", "free times, reservations and appointments at partners"),
    ("crm", "app.commands.crm", "contacts, deals and notes of a company's CRM"),
    ("message", "app.commands.message", "send SMS, e-mail, WhatsApp, calls and chat, and follow them"),
    ("knowledge", "app.commands.knowledge", "documents a company's agents may know, and searching them"),
    ("route", "app.commands.route", "decide which agent a request is for"),
    ("health", "app.commands.health", "how everything stands; alerts, maintenance, incidents"),
    ("runs", "app.commands.runs", "list past sync runs and what each did"),
    ("audit", "app.commands.audit", "list who changed what, and when"),
    ("serve", "app.commands.serve", "run the schedule, the health checks and the HTTP API without a screen"),
    ("simulator", "app.commands.simulator", "serve both vendors' agent APIs on this machine, with faults"),
    ("doctor", "app.commands.doctor", "check this machine and say what to do about each problem"),
    ("config", "app.commands.config", "show the settings, where they come from and what is allowed"),
    ("schema", "app.commands.schema", "print the JSON Schema of what --json prints"),
)

HELP = """\
usage: callboard [--demo] [COMMAND ...]

The terminal operations console for voice-AI agents. Without a command it opens the console.

commands:
{commands}

options:
  --demo        work on the demo company, served by the simulator on this machine
  --version     print the version
  -h, --help    print this help; `callboard COMMAND --help` for one command

examples:
  callboard                            open the console
  callboard company add acme           a company, then its key, read from a prompt:
  callboard connection add acme retell
  callboard sync                       sync every company; exit code 3 when some agents failed
  callboard agents list --json         the mirror for a program, with no network
  callboard call "Front desk"          talk to an agent

exit codes: 0 all done, 1 failed, 2 wrong usage, 3 some failed, 4 conflict or blocked by drift,
5 not allowed or not authenticated
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code and never raises for anything an operator can cause."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    foreign = _foreign_package()
    if foreign:
        print(foreign, file=sys.stderr)
        return 1
    try:
        code = _dispatch(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _give_up_output()
        return READER_GONE
    except OSError as error:
        _give_up_output()
        print(f"error: The output could not be written: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    return code


def _foreign_package() -> str:
    """A message when `app`, `screens` or `services` is somebody else's package, else nothing.

    The three names are generic: another distribution that brings one of them merges its files into
    ours, and a folder of that name in the current directory shadows ours under `python -m`. Only a
    marker inside the packages tells, a path does not.
    """
    for name in ("app", "screens", "services"):
        try:
            package = __import__(name)
        except Exception as error:
            package, where = None, str(error)
        else:
            where = str(getattr(package, "__file__", None) or list(getattr(package, "__path__", [])))
        if getattr(package, "__product__", None) != PRODUCT:
            return (
                f"error: the Python package `{name}` that was found is not Callboard's ({where})\n"
                "  try: install Callboard in an environment of its own (pipx install callboard), "
                "and start it with `callboard`, not from a folder that has a package of that name"
            )
    return ""


def _dispatch(words: list[str]) -> int:
    """Take the program's own options off, then open the console or run the command."""
    demo, rest = _take_demo(words)
    if rest[:1] == ["help"]:
        rest = [*rest[1:2], "--help"]
    first = rest[0] if rest else ""
    if first in ("-h", "--help"):
        width = max(len(name) for name, _, _ in COMMANDS)
        table = "\n".join(f"  {name:<{width}}   {summary}" for name, _, summary in COMMANDS)
        print(HELP.format(commands=table), end="")
        return 0
    if first in ("-V", "--version"):
        from app import __version__

        print(f"callboard {__version__}")
        return 0
    return _guarded(first, rest, demo)


def _take_demo(words: list[str]) -> tuple[bool, list[str]]:
    """`--demo` may stand before or after the command (not after a bare `--`)."""
    end = words.index("--") if "--" in words else len(words)
    rest = [word for word in words[:end] if word != "--demo"]
    return len(rest) < end, rest + words[end:]


def _guarded(name: str, words: list[str], demo: bool) -> int:
    """Run it, with every failure turned into one clear message and its exit code."""
    from services.errors import ServiceError

    try:
        return _run_command(name, words, demo) if name else _open_console(demo)
    except ServiceError as error:
        return _report(error, words, demo)
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except OSError as error:
        cause = error.strerror or str(error)
        what = f"{cause}: {error.filename}" if error.filename else cause
        advice = "Check the free space and the permissions of that place; `callboard doctor` lists ours"
        return _report(ServiceError(what, advice=advice, code="os_error"), words, demo)
    except Exception as error:
        from app.crash import report_crash

        return _report(report_crash(error), words, demo)


def _report(error: ServiceError, words: list[str], demo: bool) -> int:
    from app.output import emit_error_json, exit_code_for, say_error

    if demo:
        import re

        # What is advised is to be done in the demo, too.
        error.advice = re.sub(r"\bcallboard (?=[a-z])", "callboard --demo ", error.advice)
    code = exit_code_for(error)
    if "--json" in words:
        events = words[:1] == ["serve"] or "--watch" in words
        emit_error_json(error, code, one_line=events)
    say_error(error)
    return int(code)


def _run_command(name: str, words: list[str], demo: bool) -> int:
    """Import the command's module, let it read its words and run it."""
    from app.parsing import CommandParser, unknown_command, unknown_words

    found = [module for known, module, _ in COMMANDS if known == name]
    if not found:
        raise unknown_command(name, [known for known, _, _ in COMMANDS])
    import importlib

    module: ModuleType = importlib.import_module(found[0])
    parser = CommandParser(prog="callboard", add_help=False)
    module.add_parser(parser.add_subparsers(dest="command", metavar="COMMAND"))
    try:
        args, extra = parser.parse_known_args(words)
    except SystemExit as stop:  # argparse ends so after --help
        return stop.code if isinstance(stop.code, int) else 0
    if extra:
        raise unknown_words(name, extra)
    args.demo = demo or bool(getattr(args, "demo", False))
    return int(module.run(args))


def _open_console(demo: bool) -> int:
    """The console, which needs a terminal on both ends; of the demo company while there is no other."""
    from app.terminal import prepare_environment, terminal_problem
    from services.errors import UsageError

    problem = terminal_problem(sys.stdin, sys.stdout)
    if problem:
        raise UsageError(
            problem,
            advice="Open it in a terminal, or use a command, such as `callboard agents list`",
            code="no_terminal",
        )
    from app.paths import paths_from
    from app.settings import load_settings

    prepare_environment(os.environ, load_settings(paths_from(os.environ), os.environ).fps)
    from app.console import run_console
    from app.runtime import has_company, open_services

    demo = demo or not has_company()
    return run_console(lambda: open_services(demo=demo))


def _give_up_output() -> None:
    """Standard output takes no more: keep the interpreter from trying again at its end."""
    import contextlib

    with open(os.devnull, "w") as nowhere, contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
