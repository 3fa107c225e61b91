"""Client tools: Python callables that an agent may call during a conversation."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.clock import Clock
from services.text import clean_line

Tool: TypeAlias = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool gave, as the text that goes to the agent."""

    text: str
    ok: bool
    took_ms: int


class ToolBox:
    """The tools of one program. A plain function runs in a thread, a coroutine function on the loop."""

    def __init__(self, clock: Clock, *, timeout: float = 20.0) -> None:
        """`timeout` in seconds, after which the agent is told that the tool did not answer."""
        self._clock = clock
        self._timeout = timeout
        self._tools: dict[str, Tool] = {}
        self._about: dict[str, str] = {}

    def register(self, name: str, tool: Tool, *, description: str = "") -> None:
        """Offer a tool under the name the agent's configuration uses; replaces one of the same name."""
        self._tools[name] = tool
        self._about[name] = description

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._tools))

    def describe(self, name: str) -> str:
        return self._about.get(name, "")

    async def run(self, name: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Call it. Never raises for what a tool does: its failure is the answer."""
        started = self._clock.monotonic()
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self.names) or "none"
            return ToolAnswer(
                f"no client tool {clean_line(name)!r} is registered here (known: {known})", False, 0
            )
        try:
            async with asyncio.timeout(self._timeout):
                if inspect.iscoroutinefunction(tool):
                    value = await tool(dict(arguments))
                else:
                    value = await asyncio.to_thread(tool, dict(arguments))
                    if inspect.isawaitable(value):
                        value = await value
            text, ok = as_text(value), True
        except TimeoutError:
            text, ok = f"the tool did not answer within {self._timeout:g} s", False
        except Exception as error:
            text, ok = f"{type(error).__name__}: {clean_line(str(error))}"[:2000], False
        return ToolAnswer(text, ok, round((self._clock.monotonic() - started) * 1000))


def as_text(value: object) -> str:
    """A tool's result as the protocol's string: a string as it is, anything else as JSON.

    Also what is falsy: 0 is "0", an empty string stays empty, None is "null".
    """
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        return str(value)
