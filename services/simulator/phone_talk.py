"""A scripted telephone conversation: the agent's brain on one end, a list of sentences on the other.

It follows one call of the network: begins when the call is answered, plays in the network's time, and ends
the call when the agent or the callee has had enough. A `Record`, each vendor's own, is told what happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from services.simulator.conversation import Brain, Hang, Say, Script, Send, Step, UseTool
from services.simulator.telephone import LineCall, Telephone

WORD_MS: Final = 240
"""A word and the gap after it, as `speech.tones` has them."""
_BREATH_MS: Final = 600
"""Before the callee speaks."""
_END_MS: Final = 300

_LINES: Final = {
    "en": ("Hello, when are you open?", "I would like to book an appointment.", "That is all, goodbye."),
    "de": ("Hallo, wann haben Sie geöffnet?", "Ich möchte einen Termin buchen.", "Das war alles, tschüss."),
}


class Record(Protocol):
    """What a vendor writes down of a call. Nothing here may block."""

    def begin(self) -> None:
        """The call was answered."""

    def agent(self, text: str, *, first: bool, done: bool, waited_ms: int) -> None:
        """The agent has said `text` so far; `first` opens an utterance, `waited_ms` after the user's."""

    def user(self, text: str) -> None:
        """The callee has said this."""

    def tool(self, tool_id: str, tool: UseTool, *, done: bool) -> None:
        """A tool is called, then answers."""

    def over(self, call: LineCall) -> None:
        """The call has ended; its `status` and `ended_by` say how."""


def lines_of(script: Script, language: str) -> tuple[str, ...]:
    """What the callee says: the script's `heard` texts, else a short visit at the reception."""
    heard = tuple(turn.heard for turn in script.turns if turn.heard)
    return heard or _LINES["de" if language.lower().startswith("de") else "en"]


def failed(tool: UseTool) -> bool:
    """Whether a tool gives an error: a client's tool does, since no client is on the line."""
    return tool.is_error or tool.where == "client"


class PhoneTalk:
    """One conversation. Give `follow` to the network as the call's listener."""

    def __init__(self, telephone: Telephone, brain: Brain, lines: Sequence[str], record: Record) -> None:
        self.call: LineCall | None = None
        self._telephone = telephone
        self._brain = brain
        self._lines = deque(lines)
        self._record = record
        self._steps: deque[Step] = deque()
        self._tools = 0
        self._waited_ms = 0
        self._speaking = False
        self._turn = 0
        """Grows when what was waited for is no longer wanted."""

    def follow(self, call: LineCall) -> None:
        """The network's listener: the call has another status."""
        self.call = call
        if call.status == "in-progress":
            self._record.begin()
            self._play(self._brain.greeting())
        elif call.over:
            self._turn += 1
            self._record.over(call)

    def hang_up(self, by: str) -> bool:
        """End the call from one of its ends; False when it was over."""
        return self.call is not None and self._telephone.hang_up(self.call, by)

    def respond(self, context: str) -> None:
        """The agent speaks about `context`: at once when nobody does, else after what it says now."""
        self._steps.extend(self._brain.on_user(context))
        if not self._speaking and self.call is not None and self.call.status == "in-progress":
            self._turn += 1
            self._next()

    def _play(self, steps: Sequence[Step]) -> None:
        self._steps.extend(steps)
        self._next()

    def _later(self, delay_ms: int, action: Callable[[], None]) -> None:
        """`action`, unless the talk has taken another turn by then."""
        turn = self._turn
        self._telephone.at(delay_ms, lambda: action() if turn == self._turn else None)

    def _next(self) -> None:
        if not self._steps:
            self._speaking = False
            self._listen()
            return
        self._speaking = True
        step = self._steps.popleft()
        if isinstance(step, Say):
            pause = step.pause_ms + self._brain.script.think_ms
            self._waited_ms = pause
            self._later(pause, lambda: self._utter(step, 0))
        elif isinstance(step, UseTool):
            self._later(step.pause_ms, lambda: self._use(step))
        elif isinstance(step, Hang):
            self._break(step)
        elif isinstance(step, Send):
            self._next()  # a frame of another wire

    def _utter(self, words: Say, index: int) -> None:
        """The part at `index`, then the others, each when it has been spoken."""
        parts = words.parts or (words.text,)
        done = index + 1 == len(parts)
        said = "".join(parts[: index + 1]).strip()
        self._record.agent(said, first=index == 0, done=done, waited_ms=self._waited_ms)
        spoken_ms = len(parts[index].split()) * WORD_MS
        self._later(spoken_ms, self._next if done else lambda: self._utter(words, index + 1))

    def _use(self, tool: UseTool) -> None:
        self._tools += 1
        tool_id = f"tool_call_{self._tools:04d}"
        self._record.tool(tool_id, tool, done=False)
        self._later(tool.took_ms, lambda: self._used(tool_id, tool))

    def _used(self, tool_id: str, tool: UseTool) -> None:
        self._record.tool(tool_id, tool, done=True)
        following = self._steps[0] if self._steps else None
        if isinstance(following, Say):
            excuse = tool.on_error if failed(tool) else ""
            self._steps[0] = self._brain.words(excuse) if excuse else following.with_result(tool.result)
        self._next()

    def _break(self, step: Hang) -> None:
        if step.how == "stall":
            self._later(step.ms, self._next)
        else:
            self._later(_END_MS, lambda: self._leave("agent" if step.how == "end" else "error"))

    def _leave(self, by: str) -> None:
        self.hang_up(by)

    def _listen(self) -> None:
        if not self._lines:
            self._later(_BREATH_MS, lambda: self._leave("callee"))
            return
        line = self._lines[0]
        self._later(_BREATH_MS + len(line.split()) * WORD_MS, lambda: self._hear(line))

    def _hear(self, line: str) -> None:
        self._lines.popleft()
        self._record.user(line)
        self._play(self._brain.on_user(line))
