"""Suites over real connections: typed conversations with both vendors' simulated agents, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.calls.access import VendorAccess
from services.calls.model import Brief
from services.calls.suites.model import Plan, load_suite
from services.calls.suites.runner import Status, run_suites
from services.calls.transport import Transport
from services.calls.transports.elevenlabs_socket import ElevenLabsSocket
from services.calls.transports.retell_text import RetellText
from services.clock import SystemClock
from services.model import Provider
from tests.services.calls.transports.contract import nothing_left
from tests.support.simulator import RunningSimulator, running_simulator

SCRIPT = {
    "greeting": "Hello, this is the desk.",
    "think_ms": 5,
    "turns": [
        {"hear": "bye", "say": "Good bye.", "end": True},
        {"hear": "crash", "hang": {"how": "crash"}},
        {
            "hear": "book",
            "tool": {
                "name": "check_availability",
                "arguments": {"day": "Monday"},
                "result": "ten",
                "took_ms": 10,
            },
            "say": "At {result} on Monday.",
        },
    ],
    "fallback": "We open at eight.",
}
SUITE = """
quiet_ms: 300
answer_ms: 8000
transport: text
tests:
  - name: hours
    repeat: 3
    steps:
      - expect: [{reply: ^hello}]
      - say: When are you open?
        expect: [{reply: eight}, {latency_ms: {max: 7000}}]
  - name: tools
    steps:
      - say: Please book
        expect: [{tool: check_availability, ok: true}, {reply: "at ten"}]
      - say: bye
    end: agent_ended
  - name: wrong
    answer_ms: 1500
    steps: [{say: "When are you open?", expect: [{reply: nine}]}]
"""


class Starts:
    """Typed conversations with one simulated agent."""

    def __init__(self, simulator: RunningSimulator, provider: Provider, agent_id: str) -> None:
        url = simulator.retell_url if provider is Provider.RETELL else simulator.elevenlabs_url
        self.access = VendorAccess(provider, url, simulator.key)
        self.agent_id = agent_id

    async def __call__(self, plan: Plan, brief: Brief, seed: int) -> Transport:
        if self.access.provider is Provider.RETELL:
            return RetellText(self.access, self.agent_id)
        return ElevenLabsSocket(self.access, self.agent_id, text_only=True, public=False)


@pytest.fixture(params=list(Provider))
async def starts(request: pytest.FixtureRequest) -> AsyncIterator[Starts]:
    async with running_simulator(agents=6, seed=7) as simulator:
        agents = await simulator.agents(request.param)
        await simulator.script(SCRIPT)
        yield Starts(simulator, request.param, agents[1]["agent_id"])


async def test_a_suite_with_simulated_agents(starts: Starts, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    before = asyncio.all_tasks()
    results = await run_suites(load_suite(tmp_path / "s.yaml"), starts, clock=SystemClock(), jobs=5)
    await nothing_left(before)
    shown = [(run.problems, run.transcript) for result in results for run in result.runs]
    assert [result.status for result in results] == [Status.PASSED, Status.PASSED, Status.FAILED], shown
    assert results[0].passed == 3
    assert all(run.steps[1].latency_ms is not None for run in results[0].runs)
    assert results[2].runs[0].problems[0].startswith("step 1 (“When are you open?”): reply matches /nine/")


async def test_what_a_vendor_does_not_tell_is_not_held_to_be_true(starts: Starts, tmp_path: Path) -> None:
    """ElevenLabs tells no arguments of a server tool; the test fails and says why."""
    (tmp_path / "s.yaml").write_text(
        """
quiet_ms: 200
answer_ms: 1500
transport: text
tests:
  - name: arguments
    steps: [{say: Please book, expect: [{tool: check_availability, arguments: {day: mon}}]}]
"""
    )
    (result,) = await run_suites(load_suite(tmp_path / "s.yaml"), starts, clock=SystemClock())
    if starts.access.provider is Provider.RETELL:
        assert result.status is Status.PASSED, result.runs
    else:
        assert result.status is Status.FAILED
        assert "tells no arguments" in result.runs[0].problems[0]


async def test_a_wrong_key_is_an_error_not_a_failure(starts: Starts, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SUITE)
    (plan, *_) = load_suite(tmp_path / "s.yaml")
    starts.access = VendorAccess(starts.access.provider, starts.access.base_url, "not-the-key-0000")
    (result,) = await run_suites(
        [plan.model_copy(update={"repeat": 1, "hold": 1})], starts, clock=SystemClock()
    )
    assert result.status is Status.ERROR
    assert "key" in result.runs[0].problems[0]
    assert "not-the-key" not in str(result)
