"""kill -9 in the middle of a sync: every agent is as it was or as it is, and the next sync repairs all."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

from tests.support.program import CALLBOARD, callboard, connect, real_environment
from tests.support.simulator import RunningSimulator, running_simulator

SEED = 20261120
ROUNDS = 5
KILLS_A_ROUND = 3
AGENTS = 16


def database(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(home / "data" / "callboard.db")


def digests(home: Path) -> dict[str, str]:
    """Every agent's bundle; reads also prove that what the mirror points at is there and is whole."""
    with database(home) as connection:
        rows = connection.execute(
            "SELECT a.remote_id, b.digest, b.content, a.status"
            " FROM agent a LEFT JOIN bundle b ON b.id = a.remote_bundle_id"
        ).fetchall()
    for remote_id, digest, content, status in rows:
        assert status in ("pending", "synced"), f"{remote_id} is stuck in {status}"
        assert (digest is None) == (status == "pending"), f"{remote_id} is {status} without a bundle"
        for part in json.loads(content) if content else ():
            json.loads(part["text"])
    return {remote_id: digest for remote_id, digest, *_ in rows}


def sound(home: Path) -> bool:
    with database(home) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def kill_somewhere(home: Path, chance: random.Random) -> None:
    """Start a forced sync and kill it: between its start and its first outcome, or after a random outcome."""
    lines = chance.choice((0, *range(AGENTS)))
    seen = 0
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*CALLBOARD, "sync", "--force", "--verbose"],
        env=real_environment(home, CALLBOARD_CONCURRENCY="2", PYTHONUNBUFFERED="1"),
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    while seen < lines and (data := os.read(reading, 4096)):
        seen += data.count(b"\n")
    # Not a wait for anything: it spreads the kill over what happens between two outcomes.
    time.sleep(chance.random() * (0.02 if lines else 0.9))
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.close(reading)


async def edit_all(simulator: RunningSimulator, generation: int) -> None:
    for agent in await simulator.agents():
        field = "general_prompt" if agent["provider"] == "retell" else "first_message"
        try:
            await simulator.edit(agent["agent_id"], **{field: f"Generation {generation}."})
        except ValueError:  # an engine without such a field
            await simulator.edit(agent["agent_id"], part="agent")


async def test_killed_at_random_moments(own_environment):
    home = own_environment
    chance = random.Random(SEED)
    async with running_simulator(agents=AGENTS, latency_ms=12) as simulator:
        connect(home, simulator)
        for _ in range(KILLS_A_ROUND):
            kill_somewhere(home, chance)
            if (home / "data" / "callboard.db").exists():
                assert sound(home)
        assert callboard(home, "sync", "--json").code == 0
        old = digests(home)
        assert len(old) == AGENTS
        mixed = 0
        for generation in range(ROUNDS):
            await edit_all(simulator, generation)
            found = []
            for _ in range(KILLS_A_ROUND):
                kill_somewhere(home, chance)
                assert sound(home)
                found.append(digests(home))
            ended = callboard(home, "sync", "--force", "--json")
            assert ended.code == 0, ended
            assert ended.json["counts"]["failed"] == 0
            new = digests(home)
            for state in found:
                assert state.keys() == old.keys()
                assert {
                    agent for agent, digest in state.items() if digest not in (old[agent], new[agent])
                } == set()
                mixed += 0 < sum(state[agent] == new[agent] != old[agent] for agent in state) < AGENTS
            assert all(old[agent] != new[agent] for agent in old)
            old = new
        assert mixed, "no kill fell into the middle of a sync: the moments prove nothing"
        agents = callboard(home, "agents", "list", "--json").json["agents"]
        assert {agent["status"] for agent in agents} == {"synced"}


async def test_a_killed_run_is_found_interrupted(own_environment):
    home = own_environment
    async with running_simulator(agents=6, latency_ms=5) as simulator:
        connect(home, simulator)
        await simulator.fault("hang:elevenlabs:detail")
        process = subprocess.Popen(  # noqa: ASYNC220  # the simulator has a loop of its own
            [*CALLBOARD, "sync"],
            env=real_environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while (await simulator.stats())["in_flight"] == 0 or not await _running(home):
            assert time.monotonic() < end
        process.kill()
        process.wait()
        await simulator.clear_faults()
        with database(home) as connection:  # as if it had happened an hour ago
            connection.execute("UPDATE sync_run SET heartbeat_at = heartbeat_at - 3600000")
        assert callboard(home, "sync", "--json").code == 0
        runs = callboard(home, "runs", "--json").json["runs"]
        assert [run["status"] for run in runs] == ["done", "interrupted"]
        assert runs[1]["ended_at"] is not None
        assert len(digests(home)) == 6


async def _running(home: Path) -> bool:
    try:
        with database(home) as connection:
            return bool(connection.execute("SELECT 1 FROM sync_run WHERE status = 'running'").fetchall())
    except sqlite3.OperationalError:
        return False
