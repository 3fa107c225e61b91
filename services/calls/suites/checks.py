"""Whether what happened in a turn is what was expected."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.calls.suites.judge import MeaningJudge
from services.calls.suites.model import Expectation, Latency, Means, NoTool, Reply, ReplyNot, Tool

SHOWN = 200


@dataclass(slots=True)
class ToolCall:
    """A tool the agent called in a turn."""

    name: str
    arguments: Mapping[str, Any]
    ok: bool | None = None
    """None while it runs."""
    where: str = "server"


@dataclass(frozen=True, slots=True)
class TurnFacts:
    """What happened in a turn."""

    replies: tuple[str, ...]
    tools: tuple[ToolCall, ...]
    latency_ms: int | None


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation, whether it held, and what there was instead."""

    what: str
    ok: bool
    detail: str = ""
    final: bool = False
    """Nothing that is still to come can repair it."""


async def check(expectation: Expectation, facts: TurnFacts, judge: MeaningJudge) -> Check:
    """Compare one expectation with a turn. Raises ServiceError where the judge cannot say."""
    match expectation:
        case Reply():
            found = any(_matches(expectation.reply, text) for text in _texts(facts))
            return Check(f"reply matches /{expectation.reply}/", found, "" if found else _said(facts))
        case ReplyNot():
            bad = next((text for text in facts.replies if _matches(expectation.reply_not, text)), None)
            detail = "" if bad is None else f"it said {_short(bad)}"
            return Check(f"no reply matches /{expectation.reply_not}/", bad is None, detail, final=True)
        case Means():
            judgement = await judge.judge("\n".join(facts.replies), expectation.means)
            ok = judgement.score >= expectation.threshold
            detail = f"{judgement.score:.2f} of {expectation.threshold:.2f} by the {judge.label}"
            if not ok:
                detail += f"; {judgement.why}; {_said(facts)}"
            return Check(f"means {_short(expectation.means)}", ok, detail)
        case Tool():
            return _tool(expectation, facts)
        case NoTool():
            called = [call.name for call in facts.tools if expectation.no_tool in ("*", call.name)]
            detail = "" if not called else f"it called {', '.join(called)}"
            return Check(f"tool {expectation.no_tool} is not called", not called, detail, final=True)
        case Latency():
            most, took = expectation.latency_ms.max, facts.latency_ms
            if took is None:
                return Check(f"answers within {most} ms", False, "there was no answer")
            return Check(f"answers within {most} ms", took <= most, f"it took {took} ms", final=True)


def _tool(expectation: Tool, facts: TurnFacts) -> Check:
    wanted = json.dumps(expectation.arguments, ensure_ascii=False) if expectation.arguments else ""
    what = f"tool {expectation.tool} is called" + (f" with {_short(wanted)}" if wanted else "")
    if expectation.ok is not None:
        what += " and succeeds" if expectation.ok else " and fails"
    for call in facts.tools:
        if (
            call.name == expectation.tool
            and includes(call.arguments, expectation.arguments)
            and (expectation.ok is None or call.ok is expectation.ok)
        ):
            return Check(what, True)
    if not facts.tools:
        return Check(what, False, "no tool was called")
    calls = "; ".join(
        f"{call.name} {json.dumps(dict(call.arguments), ensure_ascii=False, default=str)}"
        + ("" if call.ok is not False else " failed")
        for call in facts.tools
    )
    detail = f"called were: {_short(calls)}"
    if expectation.arguments and any(
        call.name == expectation.tool and not call.arguments and call.where == "server"
        for call in facts.tools
    ):
        detail += "; ElevenLabs tells no arguments of a server tool during the call: expect its name only"
    return Check(what, False, detail)


def includes(given: object, wanted: object) -> bool:
    """Whether `wanted` is in `given`: members of objects at least, lists item by item, texts as patterns."""
    if isinstance(wanted, Mapping):
        return isinstance(given, Mapping) and all(
            name in given and includes(given[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(given, Sequence)
            and not isinstance(given, str)
            and len(given) == len(wanted)
            and all(includes(one, other) for one, other in zip(given, wanted, strict=True))
        )
    if isinstance(wanted, str):
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)
        try:
            return wanted == text or re.search(wanted, text, re.IGNORECASE) is not None
        except re.error:
            return False
    if isinstance(wanted, bool) or isinstance(given, bool):
        return wanted is given
    return wanted == given


def _texts(facts: TurnFacts) -> list[str]:
    return [*facts.replies, " ".join(facts.replies)]


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _said(facts: TurnFacts) -> str:
    return f"it said {_short(' / '.join(facts.replies))}" if facts.replies else "it said nothing"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")
