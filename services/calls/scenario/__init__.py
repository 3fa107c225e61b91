"""Scripts of conversations: reading them, and the ones that come with the program.

Light to import; reading one loads YAML and pydantic, so it belongs into a thread.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.calls.scenario.model import Scenario

DEFAULT = "reception"
EXAMPLES = ("reception", "booking", "trouble")
"""The scenarios of the package."""
OTHERS = ("suite", "brief")
"""Further examples: a suite of tests, a brief."""

__all__ = ["DEFAULT", "EXAMPLES", "default_scenario", "example_text", "load_scenario", "parse_scenario"]


def load_scenario(path: Path) -> Scenario:
    """A scenario file. Blocking. Raises UsageError naming file, line, path and what is expected."""
    from services import yaml_files
    from services.calls.scenario.model import Scenario
    from services.text import clean_line

    scenario = parse_scenario(yaml_files.read_text(path), clean_line(path.name)).at(path.parent)
    _check_sounds(scenario, path)
    assert isinstance(scenario, Scenario)  # noqa: S101  # for the type
    return scenario


def parse_scenario(text: str, name: str) -> Scenario:
    """The text of a scenario; `name` is what messages call it. Raises UsageError."""
    from services import yaml_files
    from services.calls.scenario.model import Scenario

    data, lines = yaml_files.parse(text, name)
    return yaml_files.validate(Scenario, data, lines, name, example="callboard scenarios example")


def default_scenario() -> Scenario:
    """A reception desk that understands German and English."""
    return parse_scenario(example_text(DEFAULT), f"{DEFAULT}.yaml")


def example_text(name: str) -> str:
    """The YAML of an example. Raises UsageError for another name."""
    from services.errors import UsageError

    if name not in (*EXAMPLES, *OTHERS):
        raise UsageError(
            f"There is no example {name}",
            advice="There is " + ", ".join((*EXAMPLES, *OTHERS)),
            code="unknown_example",
        )
    file = resources.files("services.calls.scenario") / "examples" / f"{name}.yaml"
    return file.read_text(encoding="utf-8")


def _check_sounds(scenario: Scenario, path: Path) -> None:
    """Every WAV file that a step names is there."""
    from services.calls.scenario.model import AgentStep, ToolStep
    from services.errors import UsageError
    from services.text import clean_line

    waiting = [*scenario.steps, *(step for answer in scenario.answers for step in answer.steps)]
    while waiting:
        step = waiting.pop()
        if isinstance(step, ToolStep):
            waiting += step.on_failure
        if isinstance(step, AgentStep) and step.wav and not (path.parent / step.wav).is_file():
            raise UsageError(
                f"{clean_line(path.name)}: the sound {clean_line(step.wav)} is not there", code="no_file"
            )
