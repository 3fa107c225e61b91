"""Any text is a scenario or a mistake in words; any scenario plays to one end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.calls.live import LiveCall
from services.calls.messages import AgentCorrected, AgentSpeech, Ended, Message, decode, encode
from services.calls.model import Brief
from services.calls.scenario import parse_scenario
from services.calls.scenario.drawing import fill, spoken, words
from services.calls.scenario.speaking import aloud, written
from services.calls.transport import AgentAudio
from services.calls.transports.mock import MockTransport
from services.errors import UsageError
from tests.services.calls.virtual_time import VirtualTime

KEYS = st.sampled_from(
    ["steps", "agent", "user", "tool", "delay", "answers", "when", "listen", "states", "audio", "x", "result"]
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@given(st.one_of(st.text(max_size=80), st.dictionaries(KEYS, JSON, max_size=4).map(json.dumps)))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_scenario_or_a_mistake_in_words(text: str) -> None:
    message = "any.yaml"
    try:
        parse_scenario(text, "any.yaml")
    except UsageError as error:
        message = error.message
    assert message.startswith("any.yaml")
    assert "\n" not in message


SPAN = st.one_of(st.integers(0, 500), st.tuples(st.integers(0, 100), st.integers(100, 500)).map(list))
TEXT = st.text("ab cd.{}\n", min_size=1, max_size=30)
SIMPLE = st.one_of(
    st.fixed_dictionaries({"agent": TEXT}, optional={"delay": SPAN, "stream": st.booleans()}),
    st.fixed_dictionaries(
        {
            "agent": TEXT,
            "interrupted": st.fixed_dictionaries({"word": st.integers(1, 6), "user": TEXT}),
        }
    ),
    st.fixed_dictionaries({"user": TEXT}, optional={"delay": SPAN, "wait": st.integers(0, 500)}),
    st.fixed_dictionaries({"pause": SPAN}),
    st.fixed_dictionaries(
        {"state": st.sampled_from(["reconnecting", "live", "ringing"])}, optional={"lasts": SPAN}
    ),
    st.fixed_dictionaries({"quality": st.fixed_dictionaries({"round_trip": SPAN})}),
    st.fixed_dictionaries({"cost": st.floats(0, 9)}),
    st.fixed_dictionaries({"notice": TEXT}),
    st.fixed_dictionaries({"latency": st.dictionaries(st.sampled_from(["llm", "tts"]), SPAN)}),
)
TOOL = st.fixed_dictionaries(
    {"tool": st.just("look")},
    optional={
        "where": st.sampled_from(["client", "server", "mcp"]),
        "approval": st.booleans(),
        "timeout": st.integers(0, 300),
        "ok": st.booleans(),
        "took": SPAN,
        "result": JSON,
        "failed": TEXT,
        "on_failure": st.lists(SIMPLE, max_size=2),
    },
)
LAST = st.one_of(
    st.fixed_dictionaries(
        {"end": st.sampled_from(["agent", "callee", "completed"])}, optional={"delay": SPAN}
    ),
    st.fixed_dictionaries({"fail": st.sampled_from(["timeout", "connection_lost"])}),
)
SCENARIOS = st.fixed_dictionaries(
    {"steps": st.lists(st.one_of(SIMPLE, TOOL, LAST), min_size=1, max_size=6)},
    optional={
        "audio": st.sampled_from(["none", "tones"]),
        "latency": st.fixed_dictionaries({"llm": SPAN}),
        "max_duration": st.integers(0, 3000),
        "interruptible": st.booleans(),
        "word_ms": st.integers(0, 50),
    },
)  # fmt: skip


@given(SCENARIOS, st.integers(0, 3), st.lists(st.integers(0, 40), max_size=3))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_scenario_plays_to_one_end(scenario: dict[str, Any], seed: int, typed: list[int]) -> None:
    """Typing after any of its messages; the picture of the call can be drawn of all of it."""

    async def play() -> list[Any]:
        time = VirtualTime()
        transport = MockTransport(
            parse_scenario(json.dumps(scenario), "any.yaml"), clock=time, seed=seed, sleep=time.sleep
        )
        seen: list[Any] = []

        async def go() -> None:
            await transport.open(Brief(first_message="Hi"))
            async for event in transport.events():
                if len(seen) in typed:
                    await transport.send_text("typed")
                seen.append(event)

        task = asyncio.create_task(go())
        await time.run(task)
        task.result()
        await transport.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return seen

    seen = asyncio.run(play())
    assert sum(isinstance(event, Ended) for event in seen) == 1
    assert isinstance(seen[-1], Ended)
    live = LiveCall()
    for t, event in enumerate(seen):
        if isinstance(event, Message):
            live.apply(t, event)
            assert decode(encode(event)) == event
        else:
            assert isinstance(event, AgentAudio)
            assert len(event.pcm) % 2 == 0
    assert all(entry.final for entry in live.entries)
    for event in seen:
        if isinstance(event, AgentCorrected):
            assert event.original.startswith(event.corrected.split(" ")[0])
    last: dict[int | None, str] = {}
    for event in seen:
        if isinstance(event, AgentSpeech):
            assert event.text.startswith(last.get(event.event_id, "")), "a partial grows"
            last[event.event_id] = event.text


@given(st.text(max_size=60))
@settings(deadline=None)
def test_words_joined_are_the_text(text: str) -> None:
    found = words(text)
    assert "".join(found) == text.rstrip() or not text.strip()
    assert len(found) == len(text.split())
    assert spoken(text, len(found)).split() == text.split()


@given(
    st.lists(st.tuples(st.just("ab "), st.integers(1, 4)), min_size=1, max_size=8),
    st.integers(0, 60_000),
    st.sampled_from([8000, 16000]),
)
@settings(deadline=None)
def test_beats_tell_everything_once(pieces: list[tuple[str, int]], size: int, rate: int) -> None:
    pcm = bytes(2 * size)
    total = sum(count for _, count in pieces)
    for beats in (aloud(pieces, pcm, rate), written(pieces, 10)):
        texts = [text for beat in beats for text in beat.texts]
        assert texts == ["".join(p for p, _ in pieces[: n + 1]) for n in range(len(pieces))]
        assert [beat.said for beat in beats] == sorted(beat.said for beat in beats)
        assert max(beat.said for beat in beats) <= total
    assert b"".join(beat.pcm for beat in aloud(pieces, pcm, rate)) == pcm


@given(JSON, st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=4)), JSON)
@settings(deadline=None)
def test_filling_keeps_the_form(value: Any, variables: dict[str, str], result: Any) -> None:
    filled = fill(value, variables, result)
    assert type(filled) is type(value)
    if isinstance(value, dict):
        assert filled.keys() == value.keys()
