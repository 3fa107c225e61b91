"""A scenario: what a mock conversation does, as it is written in YAML. `examples/` shows whole ones.

    name: Reception
    language: de
    answers:                       # what the agent does when the user says something
      - when: "hours|open"         # a regular expression, case does not count
        steps: [{agent: "We open at eight."}]
    fallback: ["Could you say that again?"]
    steps:                         # the course of the call
      - agent: "Hello, how can I help?"
      - user: "I need an appointment."        # said by the mock, unless somebody types within `wait`
        wait: 3000
      - tool: find_slot
        result: {day: Monday}
      - listen: true               # from here on by the answers, until one of them ends the call

A step is an object whose kind is its first key: agent, user, listen, tool, state, pause, quality, latency,
cost, notice, fail or end. Times are milliseconds; one that may vary is a pair, `[200, 600]`, drawn from the
seed.
`{{name}}` is a variable of the brief (or of the scenario), `{result}` what the last tool gave.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    field_validator,
    model_validator,
)

from services.yaml_files import Strict

MOST_STEPS = 1_000
MOST_MS = 3_600_000
_PAIR = "a number of milliseconds or a pair [least, most] is expected"


def _span(value: Any) -> tuple[float, float]:
    """A number or a pair of numbers as least and most."""
    if isinstance(value, tuple):
        return value
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or any(isinstance(each, bool) or not isinstance(each, int | float) for each in pair):
        raise ValueError(_PAIR)
    least, most = float(pair[0]), float(pair[1])
    if not 0 <= least <= most <= MOST_MS:
        raise ValueError(f"0 ≤ least ≤ most ≤ {MOST_MS} is expected")
    return least, most


def _texts(value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
        raise ValueError("text or a list of texts is expected")
    return found


def _until(value: Any) -> bool | str:
    if value is not True and not isinstance(value, str):
        raise ValueError("true, or a regular expression, is expected")
    return regex(value) if isinstance(value, str) else True


def regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _scalar(value: Any) -> str | int | float | bool:
    if isinstance(value, str | int | float | bool):
        return value
    raise ValueError("text, a number, true or false is expected")


Span: TypeAlias = Annotated[tuple[float, float], BeforeValidator(_span)]
Scalar: TypeAlias = Annotated[Any, BeforeValidator(_scalar)]
Ms: TypeAlias = Annotated[int, Field(ge=0, le=MOST_MS)]


class Interruption(Strict):
    """The user speaks over the agent."""

    word: Annotated[int, Field(ge=1)]
    """After how many words."""
    user: Annotated[str, Field(min_length=1)]
    """What the user says."""


class AgentStep(Strict):
    """The agent says something."""

    agent: Annotated[list[str], Field(min_length=1), BeforeValidator(_texts)]
    """The words; of several, one is drawn."""
    delay: Span | None = None
    """Before the first word; by default the drawn vendor latency, else `think`."""
    stream: bool = True
    """The text comes in pieces."""
    word_ms: Annotated[int, Field(ge=0, le=2000)] | None = None
    wav: str = ""
    """A 16-bit WAV file that is heard instead of tones, from the scenario's folder."""
    interrupted: Interruption | None = None
    interruptible: bool | None = None


class UserStep(Strict):
    """The user says something: whoever types or speaks within `wait`, else the mock by itself."""

    user: Annotated[str, Field(min_length=1)]
    delay: Span = (0.0, 0.0)
    wait: Ms = 0
    """How long the operator has to say something else instead."""
    stream: bool = True


class ListenStep(Strict):
    """The user's turns are answered by `answers`; with a text for `listen`, until one matches that regex."""

    listen: Annotated[bool | str, BeforeValidator(_until)]
    silence: Ms = 0
    """After so long without a turn the listening is over; 0: never."""


class ToolStep(Strict):
    """The agent calls a tool. A client tool's answer comes from this program."""

    tool: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    where: Literal["client", "server", "mcp"] = "server"
    result: Any = None
    took: Span = (120.0, 400.0)
    ok: bool = True
    approval: bool = False
    """MCP: the operator is asked first."""
    timeout: Ms = 30_000
    """How long an answer or an approval is waited for."""
    failed: str = ""
    """Said when the tool failed, was refused or did not answer; then the steps behind `on_failure` follow."""
    on_failure: list[Step] = Field(default_factory=list)


class StateStep(Strict):
    """The line changes: while `reconnecting` nothing is heard. Without `lasts` the state stays."""

    state: Literal["queued", "ringing", "live", "reconnecting"]
    lasts: Span = (0.0, 0.0)
    detail: str = ""


class PauseStep(Strict):
    """Nothing happens."""

    pause: Span


class QualityFigures(Strict):
    """What is known of the line."""

    round_trip: Span | None = None
    jitter: Span | None = None
    loss: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percent."""


class QualityStep(Strict):
    quality: QualityFigures


class LatencyStep(Strict):
    """The vendor's figures by stage, now."""

    latency: dict[str, Span]


class CostStep(Strict):
    cost: Annotated[float, Field(ge=0)]
    currency: str = ""
    final: bool = False


class NoticeStep(Strict):
    notice: Annotated[str, Field(min_length=1)]
    level: Literal["info", "look", "act"] = "info"
    advice: str = ""


class FailStep(Strict):
    """The call ends badly."""

    fail: Literal[
        "busy", "no_answer", "declined", "cancelled", "limit", "unreachable", "connection_lost", "timeout",
        "vendor_error", "protocol_error", "override_refused", "missing_variable", "not_allowed",
    ]  # fmt: skip
    detail: str = ""
    code: int | None = None
    delay: Span = (0.0, 0.0)


class EndStep(Strict):
    """The call ends well."""

    end: Literal["agent", "callee", "completed", "max_duration"]
    detail: str = ""
    delay: Span = (0.0, 0.0)


_KINDS: Mapping[str, type[Strict]] = {
    "agent": AgentStep,
    "user": UserStep,
    "listen": ListenStep,
    "tool": ToolStep,
    "state": StateStep,
    "pause": PauseStep,
    "quality": QualityStep,
    "latency": LatencyStep,
    "cost": CostStep,
    "notice": NoticeStep,
    "fail": FailStep,
    "end": EndStep,
}
# `cost` and `quality` are also members elsewhere, never of another step; the first match counts.


def _kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next((f"step:{name}" for name in _KINDS if name in value), None)
    return next((f"step:{name}" for name, model in _KINDS.items() if type(value) is model), None)


Step: TypeAlias = Annotated[
    Annotated[AgentStep, Tag("step:agent")]
    | Annotated[UserStep, Tag("step:user")]
    | Annotated[ListenStep, Tag("step:listen")]
    | Annotated[ToolStep, Tag("step:tool")]
    | Annotated[StateStep, Tag("step:state")]
    | Annotated[PauseStep, Tag("step:pause")]
    | Annotated[QualityStep, Tag("step:quality")]
    | Annotated[LatencyStep, Tag("step:latency")]
    | Annotated[CostStep, Tag("step:cost")]
    | Annotated[NoticeStep, Tag("step:notice")]
    | Annotated[FailStep, Tag("step:fail")]
    | Annotated[EndStep, Tag("step:end")],
    Discriminator(
        _kind,
        custom_error_type="unknown_step",
        custom_error_message="a step has one of the keys " + ", ".join(_KINDS),
    ),
]


BeforeLive: TypeAlias = Annotated[
    Annotated[StateStep, Tag("step:state")] | Annotated[FailStep, Tag("step:fail")],
    Discriminator(
        _kind, custom_error_type="unknown_step", custom_error_message="state or fail is expected here"
    ),
]


class Answer(Strict):
    """What the agent does when the user's words match."""

    when: Annotated[str, Field(min_length=1)]
    """A regular expression, searched without regard to case. A named group becomes a variable."""
    steps: Annotated[list[Step], Field(min_length=1)]
    once: bool = False

    @field_validator("when")
    @classmethod
    def _is_regex(cls, value: str) -> str:
        return regex(value)


class QualityPlan(QualityFigures):
    """Figures of the line, again and again."""

    every: Annotated[int, Field(ge=100, le=MOST_MS)] = 5_000


class CostPlan(Strict):
    per_minute: Annotated[float, Field(ge=0)]
    currency: str = "USD"


class RefusePlan(Strict):
    """The call does not come about."""

    message: Annotated[str, Field(min_length=1)]
    advice: str = ""
    code: str = ""
    category: Literal["transient", "permanent", "rate_limit", "timeout", "authentication"] = "permanent"


class Scenario(Strict):
    """The whole file."""

    name: str = ""
    agent: str = ""
    language: str = ""
    """These three are for people."""
    seed: int = 0
    audio: Literal["none", "tones", "espeak"] = "none"
    """Whether the agent has a voice: tones made from its words, or espeak-ng's where it is installed."""
    rate: Literal[8000, 16000, 24000, 48000] = 16000
    """Hz, of the agent's voice and of the microphone."""
    interruptible: bool = True
    think: Span = (250.0, 700.0)
    """From the end of the user's turn to the agent's first word, where no latency is planned."""
    word_ms: Annotated[int, Field(ge=0, le=2000)] = 120
    """How long a word takes to come, without audio."""
    variables: dict[str, Scalar] = Field(default_factory=dict)
    connecting: Span = (50.0, 200.0)
    refuse: RefusePlan | None = None
    states: list[BeforeLive] = Field(default_factory=list)
    """Before it is live: queued, ringing; a `fail` there means that nobody answered."""
    latency: dict[str, Span] = Field(default_factory=dict)
    """The vendor's figures drawn for every answer, by stage (asr, llm, tts, …); their sum is the delay."""
    quality: QualityPlan | None = None
    cost: CostPlan | None = None
    max_duration: Ms = 0
    """0: no limit."""
    answers: list[Answer] = Field(default_factory=list)
    fallback: Annotated[list[str], BeforeValidator(_texts)] = Field(default_factory=list)
    heard: Annotated[list[str], BeforeValidator(_texts)] = Field(default_factory=list)
    """What the user's spoken turns were, one after the other: a mock understands no speech."""
    steps: Annotated[list[Step], Field(max_length=MOST_STEPS)] = Field(default_factory=list)

    _folder: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _does_something(self) -> Scenario:
        if not self.steps and not self.answers and self.refuse is None:
            raise ValueError("steps or answers are expected: nothing would happen")
        return self

    @property
    def folder(self) -> Path | None:
        """Where the file was: its WAV files are found from there."""
        return self._folder

    def at(self, folder: Path) -> Scenario:
        """The same, read from a file in this folder."""
        self._folder = folder
        return self


for _model in (ToolStep, Answer, Scenario):
    _model.model_rebuild()
