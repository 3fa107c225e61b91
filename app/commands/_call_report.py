"""What `callboard call` prints of a call, and the exit code that its end stands for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from app.output import ExitCode, is_terminal, paint, safe_json, say, seconds, write_line
from services.calls.model import END_WORDS, EndReason
from services.text import clean_line

if TYPE_CHECKING:
    from services.calls.messages import Ended, Message
    from services.calls.session import CallSession

EXIT_CODES: Mapping[EndReason, ExitCode] = {
    EndReason.INVALID_NUMBER: ExitCode.USAGE,
    EndReason.MAYBE_PLACED: ExitCode.PARTIAL,
    EndReason.AUTHENTICATION: ExitCode.DENIED,
    **dict.fromkeys(
        (
            EndReason.BUSY,
            EndReason.NO_ANSWER,
            EndReason.DECLINED,
            EndReason.CANCELLED,
            EndReason.NOT_ALLOWED,
            EndReason.OVERRIDE_REFUSED,
            EndReason.MISSING_VARIABLE,
        ),
        ExitCode.BLOCKED,
    ),
}


class Printer:
    """What is printed of a call: JSON lines, or the transcript as it becomes final.

    `alone` is called once when nobody reads the output any more.
    """

    def __init__(self, session: CallSession, as_json: bool, alone: Callable[[], None]) -> None:
        self._session = session
        self._json = as_json
        self._alone = alone
        self._closed: BrokenPipeError | None = None
        self._shown: set[int] = set()
        if as_json:
            self._line({"t": 0, "kind": "call", "folder": str(session.folder), "agent": session.target.name})
        else:
            say(f"Calling {clean_line(session.target.name)} over {session.kind}. Ctrl-C hangs up.")

    def __call__(self, t: int, message: Message) -> None:
        if self._closed is not None:
            return
        try:
            if self._json:
                from services.calls.messages import encode

                self._line({"t": t, **encode(message)})
            else:
                self._transcript()
        except BrokenPipeError as error:
            self._closed = error
            self._alone()

    def _transcript(self) -> None:
        from services.calls.archive import LABELS, clock_text, entry_text
        from services.calls.live import Who

        for entry in list(self._session.live.entries)[-24:]:
            if entry.final and entry.n not in self._shown:
                self._shown.add(entry.n)
                if entry.who is Who.USER and entry.typed and is_terminal(sys.stdin):
                    continue  # it stands there already
                label = paint(f"{LABELS[entry.who]:<5}", "cyan" if entry.who is Who.AGENT else "dim")
                write_line(f"{clock_text(entry.t)}  {label}  {clean_line(entry_text(entry))}")
        sys.stdout.flush()

    def finish(self, ended: Ended) -> int:
        """The summary; returns the exit code. Raises BrokenPipeError when nobody reads it."""
        if self._closed is not None:
            raise self._closed
        session, live = self._session, self._session.live
        code = exit_code_of(ended.reason)
        p50, p95 = live.latency_percentile(0.5), live.latency_percentile(0.95)
        lasted = live.duration(session.now_ms())
        if self._json:
            self._line(
                {
                    "t": session.now_ms(),
                    "kind": "summary",
                    "reason": ended.reason.value,
                    "detail": ended.detail,
                    "by": ended.by,
                    "duration_ms": lasted,
                    "turns": live.agent_turns,
                    "interruptions": live.interruptions,
                    "p50_ms": p50,
                    "p95_ms": p95,
                    "folder": str(session.folder),
                    "exit_code": int(code),
                }
            )
            return code
        self._transcript()
        detail = f": {clean_line(ended.detail)}" if ended.detail else ""
        say(
            f"{END_WORDS[ended.reason].capitalize()}{detail} · {seconds(lasted)} · {live.agent_turns} answers"
            + (f" · p50 {p50:,} ms, p95 {p95:,} ms" if p50 is not None and p95 is not None else "")
        )
        say(f"recording: {session.folder}")
        return code

    def _line(self, data: Mapping[str, Any]) -> None:
        document = {"schema": "callboard.call-event/1", "call": self._session.id, **data}
        write_line(safe_json(json.dumps(document, ensure_ascii=True, default=str)))
        sys.stdout.flush()


def exit_code_of(reason: EndReason) -> ExitCode:
    """The exit code an end stands for."""
    if reason.well:
        return ExitCode.DONE
    return EXIT_CODES.get(reason, ExitCode.FAILED)
