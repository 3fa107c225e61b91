"""The commands as real processes, on a real database and secret file, against the simulator over sockets."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from app.schemas import document
from tests.support.environment import child_environment
from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.terminal import Terminal, wait_all_gone

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-P", "-m", "app")
PATIENCE = 60


def environment(home: Path, **more: str) -> dict[str, str]:
    ours = {"CALLBOARD_SECRET_STORE": "file", "CALLBOARD_PASSPHRASE": "open sesame", "PYTHONPATH": str(ROOT)}
    return child_environment(home, **{**ours, **more})


async def callboard(
    home: Path, *words: str, stdin: str = "", code: int = 0, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; checks its exit code, and that nothing in it shows the key or a traceback."""
    done = await asyncio.to_thread(
        subprocess.run,
        [*COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(home, **more),
        cwd=home,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


async def callboard_json(home: Path, *words: str, code: int = 0, **more: Any) -> dict[str, Any]:
    """The one object a command prints, checked against its contract."""
    done = await callboard(home, *words, "--json", code=code, **more)
    found: dict[str, Any] = json.loads(done.stdout)
    kind = found["schema"].removeprefix("callboard.").removesuffix("/1")
    jsonschema.Draft202012Validator(document(kind)).validate(found)
    return found


@asynccontextmanager
async def connected(home: Path, **options: Any) -> AsyncIterator[RunningSimulator]:
    """The company acme with a connection to both vendors of a simulator."""
    async with running_simulator(**{"agents": 8, "latency_ms": 1.0, **options}) as vendors:
        await callboard(home, "company", "add", "acme")
        for vendor, url in (("retell", vendors.retell_url), ("elevenlabs", vendors.elevenlabs_url)):
            words = ("connection", "add", "acme", vendor, "--base-url", url, "--key-stdin")
            await callboard(home, *words, stdin=f"{vendors.key}\n")
        yield vendors


async def test_from_nothing_to_a_mirror_that_works_offline(own_environment):
    home = own_environment
    assert "company add" in (await callboard(home, "sync", code=2)).stderr
    async with connected(home) as vendors:
        first = await callboard_json(home, "sync")
        assert first["counts"]["created"] == len(first["agents"]) == 8
        assert first["requests"] > 8
        second = await callboard_json(home, "sync")
        assert second["counts"]["unchanged"] == 8
        broken = first["agents"][0]
        await vendors.fault(f"truncate:{broken['agent_id']}")
        third = await callboard(home, "sync", "--force", code=3)
        assert third.stdout.splitlines()[0].startswith("failed")
        assert "try:" in third.stderr
        await vendors.clear_faults()
        checks = (await callboard_json(home, "connection", "test", "acme"))["checks"]
        assert [check["code"] for check in checks] == ["ok", "ok"]

    listed = await callboard_json(home, "agents", "list")
    assert len(listed["agents"]) == 8
    assert listed["mirror_age_ms"] >= 0
    shown = await callboard_json(home, "agents", "show", broken["agent_id"])
    assert shown["agent"]["status"] == "error"
    assert shown["history"][0]["outcome"] == "failed"
    raw = (await callboard(home, "agents", "show", broken["agent_id"], "--raw")).stdout
    documents, end = 0, 0
    while raw[end:].strip():
        _, length = json.JSONDecoder().raw_decode(raw[end:].lstrip())
        end += len(raw[end:]) - len(raw[end:].lstrip()) + length
        documents += 1
    assert documents == len(shown["bundle"]["parts"])

    runs = (await callboard_json(home, "runs"))["runs"]
    assert [run["status"] for run in runs] == ["partial", "done", "done"]
    one = await callboard_json(home, "runs", runs[0]["run_id"])
    assert one["agents"][0]["error"]["message"]
    assert (await callboard_json(home, "audit"))["entries"]
    offline = await callboard_json(home, "sync", "--force", code=1)
    assert len(offline["connections_failed"]) == 2


async def test_a_wrong_key_stores_nothing_and_a_revoked_one_is_5(own_environment):
    home = own_environment
    async with connected(home) as vendors:
        words = ("connection", "rotate", "acme", "retell", "--key-stdin")
        assert "nothing was stored" in (await callboard(home, *words, stdin="wrong", code=5)).stderr
        assert (await callboard_json(home, "sync"))["status"] == "done"
        await callboard(home, *words, "--no-test", stdin="wrong")
        check = (await callboard_json(home, "connection", "test", "acme", "retell", code=5))["checks"][0]
        assert check["code"] == "wrong_key"
        limited = await callboard(home, *words, stdin=vendors.limited_key, code=5)
        assert vendors.limited_key not in limited.stderr
        failed = await callboard_json(home, "sync", "--force", code=5)
        assert [each["provider"] for each in failed["connections_failed"]] == ["retell"]
        assert failed["connections_failed"][0]["error"]["category"] == "authentication"
    for file in home.rglob("*"):
        if file.is_file():
            assert vendors.key.encode() not in file.read_bytes(), file


async def test_the_passphrase(own_environment):
    home = own_environment
    async with connected(home):
        locked = await callboard(home, "sync", code=5, CALLBOARD_PASSPHRASE="")
        assert "CALLBOARD_PASSPHRASE" in locked.stderr
        wrong = await callboard(home, "sync", code=5, CALLBOARD_PASSPHRASE="sesame")
        assert "sesame" not in wrong.stderr
        await callboard(home, "agents", "list", CALLBOARD_PASSPHRASE="")


async def test_a_cancelled_sync_is_resumed(own_environment):
    home = own_environment
    async with connected(home, agents=40) as vendors:
        await vendors.fault("latency:detail:ms=400")
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "sync", "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(home), cwd=home,
        )  # fmt: skip
        await until_stored(home, 1)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 1, err
        report = json.loads(out)
        assert report["status"] == "cancelled"
        assert report["counts"]["created"] > 0
        assert report["counts"]["cancelled"] > 0
        await vendors.clear_faults()
        resumed = await callboard_json(home, "sync", "--resume")
        assert len((await callboard_json(home, "agents", "list"))["agents"]) == 40
        assert resumed["counts"]["created"] == 40 - report["counts"]["created"]


async def test_a_killed_sync_leaves_nothing_half_done(own_environment):
    home = own_environment
    async with connected(home, agents=40) as vendors:
        await vendors.fault("latency:detail:ms=400")
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "sync", stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
            env=environment(home), cwd=home,
        )  # fmt: skip
        await until_stored(home, 1)
        process.kill()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == -signal.SIGKILL
        await vendors.clear_faults()
        assert (await callboard_json(home, "sync"))["status"] == "done"
        agents = (await callboard_json(home, "agents", "list"))["agents"]
        assert {agent["status"] for agent in agents} == {"synced"}
        assert len(agents) == 40


async def until_stored(home: Path, count: int) -> None:
    """Wait until another process has written that many agents."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                with sqlite3.connect(f"file:{home}/data/callboard.db?mode=ro", uri=True) as database:
                    (found,) = database.execute("SELECT count(*) FROM agent").fetchone()
            except sqlite3.Error:
                found = 0
            if found >= count:
                return
            await asyncio.sleep(0.02)


async def test_a_reader_that_leaves_does_not_stop_the_sync(own_environment):
    home = own_environment
    async with connected(home) as vendors:
        await vendors.fault("latency:ms=50")
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "sync", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment(home), cwd=home, limit=1,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout._transport.close()  # type: ignore[attr-defined]  # the reading end, as `| head` would
        err = await process.stderr.read()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 141, err
        assert err == b""
        assert len((await callboard_json(home, "agents", "list"))["agents"]) == 8


async def test_at_a_terminal(own_environment):
    """Keys and passphrases are asked for without echo; a sync draws its progress and leaves a table."""
    home = own_environment
    environ = environment(home, CALLBOARD_PASSPHRASE="")
    await callboard(home, "company", "add", "acme")
    async with running_simulator(agents=6, latency_ms=100.0) as vendors:
        words = ("connection", "add", "acme", "retell", "--base-url", vendors.retell_url)
        with Terminal([*COMMAND, *words], environ) as terminal:
            terminal.wait_for("retell API key")
            terminal.send(f"{vendors.key}\r")
            terminal.wait_for("New passphrase:")
            terminal.send("open sesame\r")
            terminal.wait_for("The same again:")
            terminal.send("open sesame\r")
            assert terminal.wait_exit() == 0, terminal.text()
            assert "Added acme · retell" in terminal.text()
            assert vendors.key.encode() not in terminal.raw()
            assert b"sesame" not in terminal.raw()
        with Terminal([*COMMAND, "sync"], environ) as terminal:
            terminal.wait_for("Passphrase of the encrypted file:")
            terminal.send("open sesame\r")
            assert terminal.wait_exit() == 0, terminal.text()
            assert "syncing" in terminal.raw().decode()
            assert "syncing" not in terminal.text()
            assert "OUTCOME" in terminal.text()
            assert terminal.cooked
        with Terminal([*COMMAND, "connection", "rotate", "acme", "retell"], environ) as terminal:
            terminal.wait_for("retell API key")
            terminal.send("\x03")
            assert terminal.wait_exit() == 130
            assert terminal.cooked
        with Terminal([*COMMAND, "company", "remove", "acme"], environ) as terminal:
            terminal.wait_for("Type acme")
            terminal.send("nonsense\r")
            assert terminal.wait_exit() == 1
        with Terminal([*COMMAND, "agents", "list"], {**environ, "NO_COLOR": "1"}, columns=60) as terminal:
            assert terminal.wait_exit() == 0
            assert b"\x1b" not in terminal.raw()
            assert max(map(len, terminal.text().splitlines())) <= 60


async def test_the_demo_needs_nothing_and_leaves_nothing_running(own_environment):
    home = own_environment
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    report = await callboard_json(home, "--demo", "sync")
    assert report["counts"]["created"] == len(report["agents"]) > 0
    left = [each for each in psutil.Process().children(recursive=True) if each.pid not in before]
    wait_all_gone(left)
    listed = await callboard_json(home, "agents", "list", "--demo")
    assert len(listed["agents"]) == len(report["agents"])
    assert (await callboard_json(home, "agents", "list"))["agents"] == []


@pytest.mark.parametrize("words", [("sync",), ("agents", "list"), ("company", "list"), ()])
async def test_a_corrupt_settings_file_is_one_message(words, own_environment):
    home = own_environment
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text("stale_after = [\n")
    done = await callboard(home, *words, code=2)
    assert words == () or "config.toml" in done.stderr


async def test_a_damaged_database_is_one_message(own_environment):
    home = own_environment
    (home / "data").mkdir()
    (home / "data" / "callboard.db").write_bytes(b"this is no database, " * 500)
    for words in (("agents", "list"), ("company", "list"), ("sync",)):
        done = await callboard(home, *words, code=1)
        assert done.stderr.startswith("error: ")
        assert "try:" in done.stderr
    assert (home / "data" / "callboard.db").read_bytes().startswith(b"this is no database")
