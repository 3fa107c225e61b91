"""A suite of scenario tests, as it is written in YAML.

    name: Reception
    agent: Front desk                  # whom to test; --agent comes before it
    transport: text                    # mock or text
    tests:
      - name: Opening hours
        steps:
          - expect: [{reply: "hello|hi"}]            # the greeting
          - say: When are you open?
            expect:
              - reply: "eight"                       # a regular expression, case does not count
              - reply_not: "sorry"
              - means: We open at eight in the morning
                threshold: 0.5
              - tool: check_availability
                arguments: {week: this}              # these at least; a text is a regular expression
              - latency_ms: {max: 2000}
          - say: Bye
        end: agent_ended

What a test leaves out comes from the suite. Files are found from the suite's folder. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from services import yaml_files
from services.calls.model import EndReason
from services.calls.scenario.model import Ms, Scalar, regex
from services.errors import UsageError
from services.yaml_files import Strict

MOST_TESTS = 1_000
MOST_REPEATS = 100


def _pattern(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a regular expression is expected")
    return regex(value)


class Reply(Strict):
    """Something the agent said matches."""

    reply: Annotated[str, BeforeValidator(_pattern)]


class ReplyNot(Strict):
    """Nothing the agent said matches."""

    reply_not: Annotated[str, BeforeValidator(_pattern)]


class Means(Strict):
    """Something the agent said means this, in the eyes of the judge."""

    means: Annotated[str, Field(min_length=1)]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5


class Tool(Strict):
    """A tool was called, with at least these arguments; a text among them is a regular expression.

    ElevenLabs tells only the name of a server tool during the call, Retell and client tools everything.
    """

    tool: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    ok: bool | None = None


class NoTool(Strict):
    """No tool of this name was called; `*` is any."""

    no_tool: Annotated[str, Field(min_length=1)]


class Bound(Strict):
    max: Annotated[int, Field(ge=1)]


class Latency(Strict):
    """From the user's words to the first of the agent's."""

    latency_ms: Bound


_KINDS: Mapping[str, type[Strict]] = {
    "reply": Reply,
    "reply_not": ReplyNot,
    "means": Means,
    "tool": Tool,
    "no_tool": NoTool,
    "latency_ms": Latency,
}


def _kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next((f"expect:{name}" for name in _KINDS if name in value), None)
    return next((f"expect:{name}" for name, model in _KINDS.items() if type(value) is model), None)


Expectation: TypeAlias = Annotated[
    Annotated[Reply, Tag("expect:reply")]
    | Annotated[ReplyNot, Tag("expect:reply_not")]
    | Annotated[Means, Tag("expect:means")]
    | Annotated[Tool, Tag("expect:tool")]
    | Annotated[NoTool, Tag("expect:no_tool")]
    | Annotated[Latency, Tag("expect:latency_ms")],
    Discriminator(
        _kind,
        custom_error_type="unknown_step",
        custom_error_message="an expectation has one of the keys " + ", ".join(_KINDS),
    ),
]


class TestStep(Strict):
    """A turn of the user and what must hold of the answer; without `say`, of what the agent says unasked."""

    __test__ = False

    say: str = ""
    inform: str = ""
    """Told to the agent in the background, before the turn."""
    expect: list[Expectation] = Field(default_factory=list)
    within: Ms | None = None
    """How long the answer may take; by default `answer_ms`."""

    @model_validator(mode="after")
    def _does_something(self) -> TestStep:
        if not self.say and not self.inform and not self.expect:
            raise ValueError("say, inform or expect is expected")
        return self


class Common(Strict):
    """What a suite and each of its tests may say."""

    agent: str = ""
    transport: Literal["mock", "text"] | None = None
    scenario: str = ""
    """Mock: the file it plays; without one the built-in reception desk."""
    brief: str = ""
    data: str = ""
    row: str | int | None = None
    variables: dict[str, Scalar] = Field(default_factory=dict)
    tools: dict[str, Any] = Field(default_factory=dict)
    """What client tools answer."""
    approve: bool | None = None
    """Whether tools that ask may run; by default yes."""
    seed: int | None = None
    repeat: Annotated[int, Field(ge=1, le=MOST_REPEATS)] | None = None
    timeout: Annotated[int, Field(ge=100, le=3_600_000)] | None = None
    """For the whole conversation; by default 120 s."""
    answer_ms: Annotated[int, Field(ge=50, le=600_000)] | None = None
    """For the agent's answer; by default 20 s."""
    quiet_ms: Annotated[int, Field(ge=10, le=60_000)] | None = None
    """So long the agent must add nothing before its answer is complete; by default 1 s."""
    greeting_ms: Annotated[int, Field(ge=0, le=60_000)] | None = None
    """So long a greeting is waited for before the first turn; by default 3 s."""

    @field_validator("row", mode="before")
    @classmethod
    def _number_or_text(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | None):
            raise ValueError("a row's number or key=value is expected")  # noqa: TRY004  # for pydantic
        return value


class Test(Common):
    """One conversation."""

    __test__ = False

    name: Annotated[str, Field(min_length=1, max_length=200)]
    steps: Annotated[list[TestStep], Field(min_length=1, max_length=200)]
    end: EndWord | None = None
    """How the call must end; without it we hang up after the last step."""
    hold: Annotated[int, Field(ge=1)] | None = None
    """Of `repeat` conversations so many must hold; by default all."""

    @model_validator(mode="after")
    def _can_hold(self) -> Test:
        if self.hold is not None and self.repeat is not None and self.hold > self.repeat:
            raise ValueError(f"hold: {self.hold} of {self.repeat} cannot hold")
        return self


class SuiteFile(Common):
    """The whole file."""

    name: str = ""
    tests: Annotated[list[Test], Field(min_length=1, max_length=MOST_TESTS)]

    @field_validator("tests")
    @classmethod
    def _names_differ(cls, tests: list[Test]) -> list[Test]:
        names = [test.name for test in tests]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two tests are named {twice!r}")
        return tests


def _end_word(value: Any) -> str:
    known = [reason.value for reason in EndReason]
    if value not in known:
        from difflib import get_close_matches

        near = get_close_matches(str(value), known, n=1)
        raise ValueError(f"did you mean {near[0]}?" if near else "one of: " + ", ".join(known))
    return str(value)


EndWord: TypeAlias = Annotated[str, BeforeValidator(_end_word)]
Test.model_rebuild()
SuiteFile.model_rebuild()


class Plan(Strict):
    """One test with everything it takes from its suite."""

    suite: str
    file: str
    folder: Path
    name: str
    agent: str
    transport: str
    scenario: Path | None
    brief: Path | None
    data: Path | None
    row: str | int | None
    variables: dict[str, Any]
    tools: dict[str, Any]
    approve: bool
    seed: int
    repeat: int
    hold: int
    timeout: int
    answer_ms: int
    quiet_ms: int
    greeting_ms: int
    steps: list[TestStep]
    end: str | None


def load_suite(path: Path, *, agent: str = "", transport: str = "") -> list[Plan]:
    """The tests of a file. Blocking. Raises UsageError naming file, line, path and what is expected.

    `agent` and `transport` come before what the file says.
    """
    suite = yaml_files.read_model(SuiteFile, path, example="callboard scenarios example suite")
    found = [_plan(suite, test, path, agent, transport) for test in suite.tests]
    for plan in found:
        for wanted in (plan.scenario, plan.brief, plan.data):
            if wanted is not None and not wanted.is_file():
                raise UsageError(
                    f"{path.name}: {plan.name} names the file {wanted.name}, which is not there",
                    code="no_file",
                )
    return found


def _plan(suite: SuiteFile, test: Test, path: Path, agent: str, transport: str) -> Plan:
    def pick(name: str, default: Any) -> Any:
        own = getattr(test, name)
        if own not in (None, "", {}):
            return own
        of_suite = getattr(suite, name)
        return of_suite if of_suite not in (None, "", {}) else default

    def file(name: str) -> Path | None:
        value = pick(name, "")
        return path.parent / value if value else None

    scenario = file("scenario")
    who = agent or pick("agent", "")
    kind = transport or pick("transport", "mock" if scenario is not None or not who else "text")
    repeat = pick("repeat", 1)
    return Plan(
        suite=suite.name or path.stem,
        file=path.name,
        folder=path.parent,
        name=test.name,
        agent=who,
        transport=kind,
        scenario=scenario if kind == "mock" else None,
        brief=file("brief"),
        data=file("data"),
        row=pick("row", None),
        variables={**suite.variables, **test.variables},
        tools={**suite.tools, **test.tools},
        approve=bool(pick("approve", True)),
        seed=pick("seed", 0),
        repeat=repeat,
        hold=min(test.hold or repeat, repeat),
        timeout=pick("timeout", 120_000),
        answer_ms=pick("answer_ms", 20_000),
        quiet_ms=pick("quiet_ms", 1_000),
        greeting_ms=pick("greeting_ms", 3_000),
        steps=test.steps,
        end=test.end,
    )
