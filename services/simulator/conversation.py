"""What a simulated agent says and does: a script, and a brain that plays it.

No input or output, no clock: the same script, seed and words of the user give the same steps, whichever wire
carries them. A script is a JSON object:

    {"greeting": "Hello {{customer_name}}!",
     "turns": [{"hear": "open|hours", "heard": "When are you open?", "before": "One moment.",
                "tool": {"name": "check_availability", "arguments": {}, "where": "server"|"client"|"mcp",
                         "result": any, "needs_approval": false, "took_ms": 120, "error": false,
                         "timeout_ms": 5000, "on_error": "said when it failed"},
                "say": "We open at eight. {result}", "frame": {…}, "end": true, "delay_ms": 0,
                "hang": {"how": "end"|"close"|"crash"|"stall"|"garbage"|"huge"|"wrong_format",
                         "code": 1000, "reason": "", "ms": 0, "at_ms": 300}}],
     "fallback": "…" or ["…", "…"], "interruptible": true, "vad": true, "ping_every_ms": 2000, …}

* `greeting` is said first; with "" the agent waits for the user, without it the agent's own is said.
* `hear` is a regular expression, searched without regard to case. A turn without it answers what no other
  turn matches: once, in order. After that come the fallbacks.
* `heard` is what the n-th spoken turn of the user "was": nothing here understands speech.
* `before` is said before the tool (or list of tools), `say` after it; `{result}` is what the last one gave.
* `frame` is a vendor's frame sent as it is, to show what a client does with unknown ones.

The other members are the fields of `Script`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from services.errors import UsageError

Where = Literal["client", "server", "mcp"]
How = Literal["end", "close", "crash", "stall", "garbage", "huge", "wrong_format"]

_WHERE = ("client", "server", "mcp")
_HOW = ("end", "close", "crash", "stall", "garbage", "huge", "wrong_format")
_VARIABLE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Say:
    """Words of the agent. `parts` joined are `text`: the pieces it streams in."""

    text: str
    parts: tuple[str, ...]
    pause_ms: int = 0

    def with_result(self, result: object) -> Say:
        """`{result}` replaced by what a tool gave back."""
        if "{result}" not in self.text:
            return self
        text = self.text.replace("{result}", str(result))
        return Say(text, split_parts(text, random.Random(text)), self.pause_ms)


@dataclass(frozen=True, slots=True)
class UseTool:
    """A tool call. `result` and `is_error` are for server and MCP tools; a client's come from the client."""

    name: str
    arguments: dict[str, Any]
    where: Where = "server"
    result: object = None
    needs_approval: bool = False
    took_ms: int = 120
    is_error: bool = False
    timeout_ms: int = 5000
    on_error: str = ""
    """Said instead of the next words when the tool failed."""
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class Correct:
    """After an interruption: what was to be said, and what was really said."""

    original: str
    corrected: str


@dataclass(frozen=True, slots=True)
class Send:
    """A vendor's frame, sent as it is."""

    frame: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hang:
    """A way to end or to break.

    `end` closes as the vendor does after the last word, `close` at once with `code` and `reason`, `crash`
    cuts the connection, `stall` sends nothing for `ms`, `garbage` sends half a JSON object, `huge` a frame
    of 16 MiB, `wrong_format` sends all later audio in another format than the announced one. With
    `at_ms` ≥ 0 it strikes inside the next words, after that many milliseconds of their audio.
    """

    how: How
    code: int = 1000
    reason: str = ""
    ms: int = 0
    at_ms: int = -1


Step = Say | UseTool | Send | Hang


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer of the agent, and what it answers."""

    hear: str = ""
    heard: str = ""
    before: str = ""
    tools: tuple[UseTool, ...] = ()
    say: str = ""
    frame: dict[str, Any] | None = None
    hang: Hang | None = None
    end: bool = False
    delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """How one conversation goes. Durations in milliseconds."""

    greeting: str | None = None
    """None: what the agent's configuration says; "": nothing, the agent waits."""
    turns: tuple[Turn, ...] = ()
    fallback: tuple[str, ...] = ("I am not sure I understood. Could you say that again?",)
    hang: Hang | None = None
    """Happens with the greeting: inside it with `at_ms`, else after it."""
    frames: tuple[dict[str, Any], ...] = ()
    """Vendor frames sent after the greeting as they are."""
    mcp: tuple[dict[str, Any], ...] = ()
    """MCP servers: `{"id": "…", "connected": true, "tools": 3}`."""
    interruptible: bool = True
    correction: bool = True
    """An interruption is followed by what was really said."""
    vad: bool = True
    """VAD scores are sent while audio comes in, to agents that want them."""
    ping_every_ms: int = 2000
    think_ms: int = 120
    """From the end of the user's words to the agent's."""
    silence_ms: int = 500
    """Silence that ends a spoken turn of the user."""
    chunk_ms: int = 100
    lead_ms: int = 200
    """Audio is sent at the pace it is heard, this much ahead."""
    pace: int = 1
    """How many times faster than it is heard."""
    voice: str = "tones"
    approval_timeout_ms: int = 5000
    max_duration_ms: int = 0
    """0: what the agent's configuration says."""

    @classmethod
    def parse(cls, data: object) -> Script:
        """Read a JSON object. Raises `UsageError` naming the member that is wrong."""
        if not isinstance(data, Mapping):
            raise _wrong("script", "is an object", data)
        given = dict(data)
        values: dict[str, Any] = {}
        for name, default in _PLAIN.items():
            if name in given:
                values[name] = _plain(name, given.pop(name), default)
        if not 20 <= values.get("chunk_ms", 100) <= 250:
            raise _wrong("chunk_ms", "is 20 to 250", values["chunk_ms"])
        if not values.get("pace", 1):
            raise _wrong("pace", "is 1 or more", 0)
        if values.get("voice", "tones") not in ("tones", "espeak"):
            raise _wrong("voice", "is tones or espeak", values["voice"])
        if "turns" in given:
            items = _list("turns", given.pop("turns"))
            values["turns"] = tuple(_turn(f"turns[{index}]", item) for index, item in enumerate(items))
        if "fallback" in given:
            fallback = given.pop("fallback")
            texts = [fallback] if isinstance(fallback, str) else _list("fallback", fallback)
            values["fallback"] = tuple(str(text) for text in texts)
        for name in ("frames", "mcp"):
            if name in given:
                items = _list(name, given.pop(name))
                values[name] = tuple(_object(f"{name}[{index}]", item) for index, item in enumerate(items))
        if given.get("hang") is not None:
            values["hang"] = _hang("hang", given["hang"])
        given.pop("hang", None)
        if given:
            raise _wrong(min(given), "is not known")
        return cls(**values)

    @classmethod
    def default(cls, agent_name: str, language: str = "en", client_tools: Collection[str] = ()) -> Script:
        """A receptionist: opening hours, a booking, good-bye. German for `de`, else English.

        The booking is a client tool where the agent has it as one (`client_tools`), else the server's.
        """
        words = _RECEPTION["de" if language.lower().startswith("de") else "en"]
        where: Where = "client" if "book_appointment" in client_tools else "server"
        slot = {"slot_id": "slot_1430", "name": "Alex Example"}
        return cls(
            greeting=words["greeting"].format(name=agent_name),
            turns=(
                Turn(hear=words["bye_words"], say=words["bye"], end=True),
                Turn(
                    hear=words["book_words"],
                    before=words["moment"],
                    tools=(
                        UseTool(
                            "book_appointment",
                            slot,
                            where,
                            {"booking_id": "B-1042", "at": "14:30"},
                            on_error=words["not_booked"],
                        ),
                    ),
                    say=words["booked"],
                ),
                Turn(
                    hear=words["hours_words"],
                    tools=(
                        UseTool(
                            "check_availability",
                            {"date": "2026-05-28", "service": "check-up"},
                            result={"slots": ["10:15", "14:30"]},
                        ),
                    ),
                    say=words["hours"],
                ),
            ),
            fallback=(words["fallback"], words["again"], words["offer"]),
        )


class Brain:
    """Plays one script once. `variables` fill `{{name}}` in everything it says; unknown ones stay."""

    def __init__(self, script: Script, seed: int = 0, variables: Mapping[str, object] | None = None) -> None:
        self.script = script
        self._rng = random.Random(seed)
        self._variables = dict(variables or {})
        self._heard = [turn.heard for turn in script.turns if turn.heard]
        self._waiting = [turn for turn in script.turns if not turn.hear]
        self._missed = 0

    def greeting(self) -> list[Step]:
        """What happens before the user said anything."""
        steps = self._say(self.script.greeting or "")
        steps = _placed(self.script.hang, steps)
        return [*steps, *(Send(frame) for frame in self.script.frames)]

    def on_user(self, text: str) -> list[Step]:
        """The answer to what the user said or typed."""
        for turn in self.script.turns:
            if turn.hear and re.search(turn.hear, text, re.IGNORECASE):
                return self._play(turn)
        if self._waiting:
            return self._play(self._waiting.pop(0))
        texts = self.script.fallback
        self._missed += 1
        return self._say(texts[(self._missed - 1) % len(texts)]) if texts else []

    def heard(self, number: int, duration_ms: int = 1400) -> str:
        """Transcript of the `number`-th spoken turn of the user (from 0)."""
        if number < len(self._heard):
            return self._heard[number]
        return f"(spoken, {duration_ms / 1000:.1f} s)"

    def words(self, text: str, pause_ms: int = 0) -> Say:
        """`text` as something to say, variables filled in."""
        filled = fill(text, self._variables)
        return Say(filled, split_parts(filled, self._rng), pause_ms)

    def _say(self, text: str, pause_ms: int = 0) -> list[Step]:
        return [self.words(text, pause_ms)] if text else []

    def _play(self, turn: Turn) -> list[Step]:
        steps: list[Step] = []
        pause = turn.delay_ms
        if turn.before:
            steps += self._say(turn.before, pause)
            pause = 0
        for tool in turn.tools:
            steps.append(replace(tool, pause_ms=pause))
            pause = 0
        if turn.frame is not None:
            steps.append(Send(turn.frame))
        steps += _placed(turn.hang, self._say(turn.say, pause))
        if turn.end:
            steps.append(Hang("end"))
        return steps


def interrupted(text: str, share: float) -> Correct:
    """`text` as it was really said when only `share` (0 to 1) of it was heard: whole words and “…”."""
    words = re.findall(r"\S+\s*", text)
    kept = "".join(words[: int(len(words) * max(0.0, min(1.0, share)))]).rstrip()
    return Correct(text, text if kept == text.rstrip() else f"{kept}…")


def fill(text: str, variables: Mapping[str, object]) -> str:
    """`{{name}}` replaced by the variable of that name; one that is not given stays."""
    return _VARIABLE.sub(lambda match: str(variables.get(match[1], match[0])), text)


def variables_in(*texts: str) -> list[str]:
    """Names of the variables that `texts` use, each once, in order."""
    return list(dict.fromkeys(match[1] for text in texts for match in _VARIABLE.finditer(text)))


def split_parts(text: str, rng: random.Random) -> tuple[str, ...]:
    """`text` in pieces of one to four words; joined they are `text`."""
    words = re.findall(r"\s*\S+\s*", text)
    parts: list[str] = []
    while words:
        size = rng.randint(1, 4)
        parts.append("".join(words[:size]))
        del words[:size]
    return tuple(parts)


def _placed(hang: Hang | None, steps: list[Step]) -> list[Step]:
    """A hang inside the words stands before them, any other after them."""
    if hang is None:
        return steps
    return [hang, *steps] if hang.at_ms >= 0 else [*steps, hang]


# Reading a script.

_PLAIN: dict[str, Any] = {
    "greeting": "", "interruptible": True, "correction": True, "vad": False, "voice": "", "ping_every_ms": 0,
    "think_ms": 0, "silence_ms": 0, "chunk_ms": 0, "lead_ms": 0, "pace": 0, "approval_timeout_ms": 0,
    "max_duration_ms": 0,
}  # fmt: skip
_TURN: dict[str, Any] = {"hear": "", "heard": "", "before": "", "say": "", "end": True, "delay_ms": 0}
_TOOL: dict[str, Any] = {
    "name": "", "where": "", "needs_approval": True, "took_ms": 0, "timeout_ms": 0, "on_error": "",
}  # fmt: skip
_HANG: dict[str, Any] = {"how": "", "code": 0, "reason": "", "ms": 0, "at_ms": 0}


def _wrong(where: str, what: str, given: object = None) -> UsageError:
    shown = "" if given is None else f", not {str(given)[:60]!r}"
    return UsageError(f"“{where}” in a conversation script {what}{shown}", code="wrong_script")


def _plain(where: str, value: object, like: Any) -> Any:
    """`value` when it is of the kind of `like`."""
    if isinstance(like, bool):
        if isinstance(value, bool):
            return value
        raise _wrong(where, "is true or false", value)
    if isinstance(like, int):
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= -1:
            return int(value)
        raise _wrong(where, "is a number of 0 or more", value)
    if isinstance(value, str):
        return value
    raise _wrong(where, "is text", value)


def _list(where: str, value: object) -> Sequence[object]:
    if isinstance(value, list | tuple):
        return value
    raise _wrong(where, "is a list", value)


def _object(where: str, value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    raise _wrong(where, "is an object", value)


def _members(where: str, value: object, known: Mapping[str, Any], others: Collection[str]) -> dict[str, Any]:
    """The members of an object: the plain ones checked, none that is unknown."""
    found = {key: item for key, item in _object(where, value).items() if item is not None}
    for key in found:
        if key not in known and key not in others:
            raise _wrong(f"{where}.{key}", "is not known")
    return {
        key: _plain(f"{where}.{key}", item, known[key]) if key in known else item
        for key, item in found.items()
    }


def _turn(where: str, value: object) -> Turn:
    found = _members(where, value, _TURN, ("tool", "frame", "hang"))
    try:
        re.compile(found.get("hear", ""))
    except re.error as error:
        raise _wrong(f"{where}.hear", f"is no regular expression ({error})") from error
    tool = found.pop("tool", ())
    tools = tool if isinstance(tool, list | tuple) else [tool]
    found["tools"] = tuple(_tool(f"{where}.tool", item) for item in tools)
    if "frame" in found:
        found["frame"] = _object(f"{where}.frame", found["frame"])
    if "hang" in found:
        found["hang"] = _hang(f"{where}.hang", found["hang"])
    return Turn(**found)


def _tool(where: str, value: object) -> UseTool:
    found = _members(where, value, _TOOL, ("arguments", "result", "error"))
    if not found.get("name"):
        raise _wrong(f"{where}.name", "is missing")
    if found.setdefault("where", "server") not in _WHERE:
        raise _wrong(f"{where}.where", "is client, server or mcp", found["where"])
    found["arguments"] = _object(f"{where}.arguments", found.get("arguments", {}))
    found["is_error"] = bool(found.pop("error", False))
    return UseTool(**found)


def _hang(where: str, value: object) -> Hang:
    found = _members(where, value, _HANG, ())
    if found.get("how") not in _HOW:
        raise _wrong(f"{where}.how", "is one of " + ", ".join(_HOW), found.get("how"))
    return Hang(**{**found, "how": cast(How, found["how"])})


_RECEPTION: dict[str, dict[str, str]] = {
    "en": {
        "greeting": "Hello, this is {name}. How can I help you today?",
        "bye_words": r"\b(bye|goodbye|tschüss|tschüs|that is all|that's all)\b",
        "bye": "Thank you for calling. Goodbye!",
        "book_words": r"\b(book|booking|appointment|reserve|termin|buchen)\b",
        "moment": "One moment, please.",
        "booked": "Your appointment at half past two is booked. Is there anything else?",
        "not_booked": "I am sorry, the booking did not work. May I take a message instead?",
        "hours_words": r"\b(open|opening|hours|close|closed|availab\w*|free|öffnungszeiten|geöffnet)\b",
        "hours": "We are open Monday to Friday from eight to six. There is a free slot at half past two.",
        "fallback": "I see. Would you like to know our opening hours, or shall I book an appointment?",
        "again": "I am not sure I understood. Could you say that again?",
        "offer": "Let me take a message, and a colleague will call you back.",
    },
    "de": {
        "greeting": "Guten Tag, hier ist {name}. Was kann ich für Sie tun?",
        "bye_words": r"\b(tschüss|tschüs|wiedersehen|wiederhören|das war alles|bye|goodbye)\b",
        "bye": "Vielen Dank für Ihren Anruf. Auf Wiederhören!",
        "book_words": r"\b(termin|buchen|buchung|reservier\w*|book|appointment)\b",
        "moment": "Einen Moment, bitte.",
        "booked": "Ihr Termin um halb drei ist eingetragen. Kann ich noch etwas für Sie tun?",
        "not_booked": "Das hat leider nicht geklappt. Darf ich eine Nachricht aufnehmen?",
        "hours_words": r"\b(offen|öffnungszeit\w*|geöffnet|auf|wann|frei|hours|open)\b",
        "hours": "Wir sind Montag bis Freitag von acht bis achtzehn Uhr da, und um halb drei ist etwas frei.",
        "fallback": "Verstehe. Möchten Sie unsere Öffnungszeiten wissen, oder soll ich einen Termin buchen?",
        "again": "Das habe ich nicht verstanden. Können Sie es bitte wiederholen?",
        "offer": "Ich nehme gern eine Nachricht auf, dann ruft Sie jemand zurück.",
    },
}
