"""Reading a recording back, and what is derived from its messages: transcript, latencies, tools.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.calls.live import Entry, LiveCall, Who
from services.calls.messages import Ended, Message, decode, encode
from services.calls.model import CallRow
from services.calls.recording import BRIEF, EVENTS, META, TRACKS
from services.calls.wave_file import mend
from services.text import clean_line

Timed = tuple[int, Message]

LABELS: Mapping[Who, str] = {
    Who.AGENT: "agent",
    Who.USER: "you",
    Who.TOOL: "tool",
    Who.CONTEXT: "told",
    Who.MARK: "mark",
    Who.NOTICE: "note",
}


@dataclass(frozen=True, slots=True)
class Recording:
    """A stored call, whole. Paths of tracks are None where no audio was kept or made."""

    row: CallRow
    brief: Mapping[str, Any]
    messages: tuple[Timed, ...]
    you: Path | None
    agent: Path | None
    folder: Path | None

    @property
    def length_ms(self) -> int:
        """From the first to the last moment, the tracks included."""
        last = self.messages[-1][0] if self.messages else 0
        tracks = [info.length_ms for path in (self.you, self.agent) if path and (info := mend(path))]
        return max([last, *tracks])

    def fold(self, until_ms: int | None = None) -> LiveCall:
        """The picture of the call at a moment, or at its end."""
        return folded(self.messages, until_ms)


def folded(messages: Iterable[Timed], until_ms: int | None = None) -> LiveCall:
    """Every message up to a moment folded into one picture, without a bound on its lines."""
    live = LiveCall(bounded=False)
    for t, message in messages:
        if until_ms is not None and t > until_ms:
            break
        live.apply(t, message)
    return live


def read_messages(folder: Path) -> tuple[Timed, ...]:
    """The messages of a recording in order of time. A last line that a kill cut off is left out."""
    found: list[Timed] = []
    try:
        with open(folder / EVENTS, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    data = json.loads(line)
                except ValueError:
                    continue
                message = decode(data) if isinstance(data, dict) else None
                t = data.get("t", 0) if message is not None else None
                if message is not None and isinstance(t, int):
                    found.append((t, message))
    except OSError:
        return ()
    return tuple(sorted(found, key=lambda each: each[0]))


def load(row: CallRow) -> Recording:
    """The recording of a stored call; whatever is missing from its folder reads as empty."""
    folder = Path(row.folder) if row.folder else None
    if folder is None or not folder.is_dir():
        return Recording(row, {}, (), None, None, None)
    tracks = {name: folder / file for name, file in TRACKS.items()}
    return Recording(
        row,
        _read_json(folder / BRIEF),
        read_messages(folder),
        tracks["you"] if mend(tracks["you"]) else None,
        tracks["agent"] if mend(tracks["agent"]) else None,
        folder,
    )


def write_derived(folder: Path, live: LiveCall, *, transcript: bool) -> None:
    """Write `transcript.txt`, `tools.json` (where they are kept) and `latency.csv`. Raises OSError."""
    _write(folder / "latency.csv", latency_csv(live))
    if transcript:
        _write(folder / "transcript.txt", transcript_text(live.entries))
        _write(folder / "tools.json", json.dumps(tool_calls(live.entries), ensure_ascii=False, indent=1))


def complete(folder: Path, t: int, ended: Ended, ended_at: int) -> None:
    """Write the end into a recording whose program was killed: its last event, and in its metadata.

    Raises OSError.
    """
    line = json.dumps({"t": t, **encode(ended)}, ensure_ascii=False)
    with open(folder / EVENTS, "r+b") as file:
        content = file.read()
        torn = len(content) - (content.rfind(b"\n") + 1)
        file.truncate(len(content) - torn)
        file.seek(0, 2)
        file.write(line.encode() + b"\n")
    meta = {
        **_read_json(folder / META),
        "ended_at": ended_at,
        "reason": ended.reason.value,
        "detail": ended.detail,
        "by": ended.by,
    }
    _write(folder / META, json.dumps(meta, ensure_ascii=False, indent=1) + "\n")


def transcript_text(entries: Iterable[Entry]) -> str:
    """The transcript for people, a line each: time, who, what; what was cut off is said so."""
    return "".join(
        f"{clock_text(entry.t)}  {LABELS[entry.who]:<5}  {entry_text(entry)}\n" for entry in entries
    )


def entry_text(entry: Entry) -> str:
    """One line's words, with everything that is known about it; safe to print and to paste."""
    if entry.who is Who.TOOL:
        arguments = ", ".join(f"{_short(key)}={_short(value)}" for key, value in entry.arguments.items())
        outcome = (
            "" if entry.ok is None else f" -> {'' if entry.ok else 'failed: '}{_short(entry.result or '')}"
        )
        took = f"  ({entry.took_ms} ms)" if entry.took_ms is not None else ""
        return f"{_short(entry.text)}({arguments}){outcome}{took}"
    text = _short(entry.text)
    if entry.cut:
        words = entry.words_spoken
        known = f", {words[0]} of {words[1]} words spoken" if words else ""
        text += f"  (cut off{known})"
    if entry.latency_ms is not None:
        text += f"  ({entry.latency_ms} ms)"
    if entry.who is Who.NOTICE and entry.advice:
        text += f" · {_short(entry.advice)}"
    return text


def clock_text(ms: int) -> str:
    """A moment in a call: `02:14`, `1:02:14`."""
    seconds = max(0, ms) // 1000
    hours, rest = divmod(seconds, 3600)
    plain = f"{rest // 60:02}:{rest % 60:02}"
    return f"{hours}:{plain}" if hours else plain


def latency_csv(live: LiveCall) -> str:
    """The latency table: a row per answer, times in milliseconds."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["turn", "at_ms", "latency_ms"])
    table.writerows([turn.turn, turn.t, turn.ms] for turn in live.latencies)
    return out.getvalue()


def tool_calls(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Every tool call with its arguments, answer and duration."""
    return [
        {
            "at_ms": entry.t,
            "name": entry.text,
            "where": entry.where,
            "arguments": dict(entry.arguments),
            "result": entry.result,
            "ok": entry.ok,
            "took_ms": entry.took_ms,
        }
        for entry in entries
        if entry.who is Who.TOOL
    ]


def entry_json(entry: Entry) -> dict[str, Any]:
    """A transcript line as a JSON object, without what is empty."""
    data: dict[str, Any] = {"t": entry.t, "who": LABELS[entry.who], "text": entry.text}
    for name in (
        "cut",
        "spoken",
        "latency_ms",
        "typed",
        "result",
        "ok",
        "took_ms",
        "level",
        "advice",
        "approval",
    ):
        value = getattr(entry, name)
        if value not in (None, "", False):
            data[name] = value
    if entry.who is Who.TOOL:
        data["arguments"] = dict(entry.arguments)
        data["where"] = entry.where
        data["ok"] = entry.ok
    return data


def transcript_csv(entries: Sequence[Entry]) -> str:
    """The transcript as a table."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["at_ms", "who", "text", "spoken", "cut_off", "latency_ms", "result", "ok", "took_ms"])
    for entry in entries:
        table.writerow(
            [
                entry.t,
                LABELS[entry.who],
                entry.text,
                entry.spoken or "",
                "yes" if entry.cut else "",
                entry.latency_ms if entry.latency_ms is not None else "",
                entry.result or "",
                "" if entry.ok is None else ("yes" if entry.ok else "no"),
                entry.took_ms if entry.took_ms is not None else "",
            ]
        )
    return out.getvalue()


def read_meta(folder: Path) -> dict[str, Any]:
    """`call.json` of a recording; empty when it cannot be read."""
    return _read_json(folder / META)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return clean_line(text)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace")
    path.chmod(0o600)
