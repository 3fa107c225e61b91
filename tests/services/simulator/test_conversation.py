"""Scripts and the brain that plays them; no clock, no wire."""

from __future__ import annotations

from typing import Any

import pytest

from services.clock import SystemClock
from services.errors import UsageError
from services.model import Provider
from services.simulator.conversation import (
    Brain,
    Hang,
    Say,
    Script,
    Send,
    UseTool,
    fill,
    interrupted,
    variables_in,
)
from services.simulator.conversations import PROCESSING_MS, Conversations


def texts(steps: list[Any]) -> list[str]:
    return [step.text for step in steps if isinstance(step, Say)]


def test_turns_answer_what_they_hear_the_others_come_in_order_then_the_fallbacks() -> None:
    script = Script.parse(
        {
            "turns": [
                {"hear": "hours?$", "say": "Eight to six."},
                {"say": "First."},
                {"say": "Second."},
            ],
            "fallback": ["Pardon?", "Once more?"],
        }
    )
    brain = Brain(script)
    said = [texts(brain.on_user(text)) for text in ("A", "Your HOURS", "B", "hour", "C", "D", "E")]
    answers = ["First.", "Eight to six.", "Second.", "Eight to six.", "Pardon?", "Once more?", "Pardon?"]
    assert said == [[answer] for answer in answers]


def test_a_whole_turn_has_its_order() -> None:
    turn = {
        "before": "Moment.",
        "tool": [{"name": "a", "where": "client"}, {"name": "b", "where": "mcp", "error": True}],
        "frame": {"type": "news"},
        "say": "Done, {{name}}: {result}",
        "hang": {"how": "stall", "ms": 2000},
        "end": True,
        "delay_ms": 30,
    }
    steps = Brain(Script.parse({"turns": [turn]}), variables={"name": "Zoë"}).on_user("go")
    kinds = [type(step) for step in steps]
    assert kinds == [Say, UseTool, UseTool, Send, Say, Hang, Hang]
    assert isinstance(steps[0], Say)
    assert steps[0].pause_ms == 30
    assert isinstance(steps[2], UseTool)
    assert steps[2].is_error
    assert isinstance(steps[4], Say)
    assert steps[4].with_result(7).text == "Done, Zoë: 7"
    assert steps[-1] == Hang("end")


def test_a_hang_inside_the_words_stands_before_them() -> None:
    hang = {"how": "crash", "at_ms": 300}
    greeting = Brain(Script.parse({"greeting": "Hi.", "hang": hang})).greeting()
    assert [type(step) for step in greeting] == [Hang, Say]
    greeting = Brain(Script.parse({"greeting": "Hi.", "hang": {**hang, "at_ms": -1}})).greeting()
    assert [type(step) for step in greeting] == [Say, Hang]


def test_the_parts_are_the_text_and_depend_on_the_seed_only() -> None:
    text = "We are  open Monday to Friday,\nfrom eight to six; on Saturdays until noon."
    one, again, other = (Brain(Script(), seed).words(text) for seed in (1, 1, 2))
    assert "".join(one.parts) == text
    assert one == again
    assert one.parts != other.parts
    assert len(one.parts) > 2


def test_what_was_heard_comes_from_the_script() -> None:
    brain = Brain(Script.parse({"turns": [{"heard": "Hello"}, {"hear": "x"}, {"heard": "Bye"}]}))
    assert [brain.heard(number, 1449) for number in range(3)] == ["Hello", "Bye", "(spoken, 1.4 s)"]


@pytest.mark.parametrize("language", ["en", "de", "fr"])
def test_the_receptionist(language: str) -> None:
    script = Script.default("Front desk", language, {"book_appointment"})
    brain = Brain(script)
    assert "Front desk" in texts(brain.greeting())[0]
    hours = brain.on_user("Wann haben Sie geöffnet? When are you open?")
    assert [step.name for step in hours if isinstance(step, UseTool)] == ["check_availability"]
    booking = [step for step in brain.on_user("Termin / appointment, please") if isinstance(step, UseTool)]
    assert [(tool.name, tool.where) for tool in booking] == [("book_appointment", "client")]
    assert brain.on_user("Tschüss!")[-1] == Hang("end")
    assert Script.default("x", language).turns[1].tools[0].where == "server"


@pytest.mark.parametrize(
    ("script", "place"),
    [
        ([], "script"),
        ({"greetings": "x"}, "greetings"),
        ({"greeting": 5}, "greeting"),
        ({"interruptible": 1}, "interruptible"),
        ({"chunk_ms": 10}, "chunk_ms"),
        ({"pace": 0}, "pace"),
        ({"voice": "alto"}, "voice"),
        ({"turns": {}}, "turns"),
        ({"turns": [{"say": "a"}, {"hear": "("}]}, r"turns\[1\].hear"),
        ({"turns": [{"sayy": "a"}]}, r"turns\[0\].sayy"),
        ({"turns": [{"tool": {}}]}, r"turns\[0\].tool.name"),
        ({"turns": [{"tool": {"name": "a", "where": "moon"}}]}, r"turns\[0\].tool.where"),
        ({"turns": [{"hang": {"how": "explode"}}]}, r"turns\[0\].hang.how"),
        ({"hang": {"how": "end", "why": "x"}}, "hang.why"),
        ({"frames": ["text"]}, r"frames\[0\]"),
    ],
)
def test_a_wrong_script_is_refused_by_the_place_that_is_wrong(script: Any, place: str) -> None:
    with pytest.raises(UsageError, match=place):
        Script.parse(script)


def test_what_was_really_said() -> None:
    text = "One two three four."
    assert interrupted(text, 0.5).corrected == "One two…"
    assert interrupted(text, 0).corrected == "…"
    assert interrupted(text, 1.7).corrected == text


def test_variables() -> None:
    text = "Hi {{ name }}, {{name}} of {{company}}"
    assert variables_in(text, "{{x}}") == ["name", "company", "x"]
    assert fill(text, {"name": "Zoë"}) == "Hi Zoë, Zoë of {{company}}"


class Clock(SystemClock):
    time = 1_000_000

    def now(self) -> int:
        return self.time


def test_the_states_of_a_conversation() -> None:
    clock = Clock()
    talks = Conversations(clock)
    talk = talks.create("conv_1", Provider.ELEVENLABS, "agent_1", "A", "socket")
    states = [talk.state]
    talk.begin()
    states.append(talk.state)
    clock.time += 5000
    talk.finish(1000)
    states.append(talk.state)
    clock.time += PROCESSING_MS
    talk.finish(1006, "too late", failed=True)
    states.append(talk.state)
    assert states == ["initiated", "in-progress", "processing", "done"]
    assert (talk.duration_ms, talk.end_code) == (5000, 1000)


def test_scripts_are_taken_by_agent_and_as_often_as_said() -> None:
    talks = Conversations(SystemClock())
    talks.set_script(Script(greeting="always"))
    talks.set_script(Script(greeting="twice"), ["agent_1"], 2)
    taken = [talks.take_script(agent, "A")[0].greeting for agent in ("agent_1", "agent_2", *["agent_1"] * 2)]
    assert taken == ["twice", "always", "twice", "always"]
    assert talks.clear_scripts() == 1
    script, chosen = talks.take_script("agent_1", "Front desk")
    assert not chosen
    assert "Front desk" in (script.greeting or "")
