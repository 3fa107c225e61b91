"""`callboard serve` as a program: what it prints, how it ends, and who goes on when it is killed."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta

import httpx
import jsonschema
import pytest

from app.cli import main
from app.paths import Paths
from app.schemas import document
from services.events import EventBus
from services.schedule import Scheduler, SchedulerOptions, ledger
from services.storage import Database, DatabaseLocation, Reader
from services.storage.tables import Effect, Firing
from tests.support.program import CALLBOARD, callboard, connect, real_environment
from tests.support.scheduling import FakeSync, ManualTimer, until
from tests.support.servers import unavailable
from tests.support.simulator import running_simulator
from tests.support.world import FakeClock

DAY = 86_400_000
AN_HOUR_AGO = f"{datetime.now(UTC) - timedelta(hours=1):%H:%M}"


@pytest.fixture
def home(own_environment):
    return own_environment


def daily_an_hour_ago():
    """Settings with one schedule, whose next due time is far enough away not to come during a test."""
    return {
        "CALLBOARD_HEALTH": "off",
        "CALLBOARD_HOURLY_SYNC": "off",
        "CALLBOARD_DAILY_SYNC": AN_HOUR_AGO,
        "CALLBOARD_TIMEZONE": "UTC",
    }


@asynccontextmanager
async def serving(home, *words, **environment):
    """`callboard serve` as a child process, killed at the end if it is still there."""
    process = await asyncio.create_subprocess_exec(
        *(*CALLBOARD, "serve", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=real_environment(home, **{**daily_an_hour_ago(), **environment}),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def connected(home, simulator):
    """A company with two connections to the simulator, and daily syncs that were missed."""
    await asyncio.to_thread(connect, home, simulator)
    database = await Database.open(location(home))
    long_ago = int(time.time() * 1000) - 3 * DAY
    row = Firing(
        id="sync:daily:earlier", schedule="daily", due_at=long_ago, claimed_by="t", claimed_at=long_ago
    )
    row.finished_at = long_ago
    await database.write(lambda session: session.add(row))
    await database.aclose()


def location(home):
    return DatabaseLocation(path=Paths(home).database_file)


def firings(home):
    """Newest first: claimed by, finished at, result."""
    with closing(Reader(location(home))) as reader:
        return reader.rows("SELECT claimed_by, finished_at, result, id FROM firing ORDER BY due_at DESC")


def sync_runs(home):
    with closing(Reader(location(home))) as reader:
        return reader.rows("SELECT status, cause FROM sync_run ORDER BY started_at")


async def line(process):
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode().rstrip("\n")


async def test_a_missed_sync_is_made_up_and_told_in_one_line(home):
    async with running_simulator(agents=4) as simulator:
        await connected(home, simulator)
        async with serving(home) as process:
            text = await line(process)
            assert "daily schedule" in text
            assert "done: 4 created" in text
            process.send_signal(signal.SIGTERM)
            out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (0, b"")
    said = err.decode()
    assert str(Paths(home).log_dir) in said
    assert "Daily schedule, next: " in said
    assert "This process runs the schedule." in said
    assert said.endswith("Stopped.\n")
    assert sync_runs(home) == [("done", "daily schedule")]


async def test_json_lines_keep_their_contract(home):
    async with running_simulator(agents=4) as simulator:
        await connected(home, simulator)
        async with serving(home, "--json") as process:
            events = [json.loads(await line(process)) for _ in range(3)]
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(process.communicate(), 60)
    events += [json.loads(text) for text in out.decode().splitlines()]
    assert [event["event"] for event in events] == ["started", "role", "run", "stopped"]
    for event in events:
        assert event["schema"] == "callboard.serve-event/1"
        jsonschema.Draft202012Validator(document("serve-event")).validate(event)
    assert events[2]["counts"]["created"] == 4
    assert (process.returncode, err) == (0, b"")


async def test_it_ends_during_a_sync_and_records_that(home):
    async with running_simulator(agents=8) as simulator:
        await connected(home, simulator)
        await simulator.fault("hang:detail")
        async with serving(home) as process:
            await until(lambda: bool(sync_runs(home)), 60)
            process.send_signal(signal.SIGTERM)
            out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    assert b"cancelled" in out
    assert sync_runs(home) == [("cancelled", "daily schedule")]
    _, finished, result, _ = firings(home)[0]
    assert result.startswith("cancelled")
    assert finished is not None
    with closing(Reader(location(home))) as reader:
        assert reader.rows("SELECT owner FROM lease") == []


async def test_killed_in_the_middle_another_takes_over_and_repeats_nothing(home):
    async with running_simulator(agents=8) as simulator:
        await connected(home, simulator)
        await simulator.fault("hang:detail")
        async with serving(home) as process:
            await until(lambda: bool(sync_runs(home)), 60)
            process.kill()
            await process.wait()
    [(dead, finished, _, taken), *_] = firings(home)
    assert finished is None
    clock = FakeClock(int(time.time() * 1000))
    database = await Database.open(location(home))
    sync = FakeSync()

    async def opened():
        return database

    heir = Scheduler(
        opened,
        sync,
        EventBus(),
        clock,
        SchedulerOptions(hourly=False, daily=AN_HOUR_AGO, renew_seconds=3600),
        make_timer=ManualTimer,
    )
    await heir.start()
    assert not heir.holder  # the dead one's lease has not expired
    clock.advance(seconds=20)
    await heir.check()
    assert heir.holder
    clock.advance(seconds=61)
    await heir.check()
    row = next(row for row in firings(home) if row[3] == taken)
    assert (row[0], row[2]) == (dead, ledger.ABANDONED)
    clock.advance(hours=24)
    await heir.check()
    await until(lambda: not heir.busy)
    [newest, *_] = firings(home)
    assert (newest[2], newest[3] == taken, len(sync.requests)) == ("done: 1 unchanged", False, 1)
    await heir.aclose()
    await database.aclose()


async def test_a_second_one_stands_by_and_takes_over_when_the_first_ends(home):
    async with serving(home, "--json") as first:
        assert [json.loads(await line(first))["event"] for _ in range(2)] == ["started", "role"]
        async with serving(home, "--json") as second:
            assert json.loads(await line(second))["event"] == "started"
            assert json.loads(await line(second))["active"] is False
            first.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(first.wait(), 60) == 0
            assert json.loads(await line(second))["active"] is True  # at its next look, every 5 s
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 60) == 0


def test_with_every_schedule_off_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("CALLBOARD_HOURLY_SYNC", "off")
    monkeypatch.setenv("CALLBOARD_DAILY_SYNC", "off")
    monkeypatch.setenv("CALLBOARD_HEALTH", "off")
    assert main(["serve"]) == 2
    assert "hourly_sync" in capsys.readouterr().err


async def test_without_the_passphrase_it_ends_at_once(home):
    async with running_simulator(agents=2) as simulator:
        await connected(home, simulator)
    async with serving(home, CALLBOARD_PASSPHRASE="") as process:
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 5
    assert b"passphrase" in err


# -- the HTTP API ---------------------------------------------------------------------------------

TOKEN = "canary-token-9f8e7d6c5b4a3210"


def api(home):
    """No schedule, no health checks: the API alone."""
    return {"CALLBOARD_DAILY_SYNC": "off", "CALLBOARD_API_TOKEN": TOKEN}


async def listening_url(process):
    """Where it listens, once it says so."""
    while True:
        event = json.loads(await line(process))
        if event["event"] == "listening":
            jsonschema.Draft202012Validator(document("serve-event")).validate(event)
            return event["urls"][0], event["token"]


async def asked(url, path, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=url, headers=headers) as client:
        return await client.get(path)


async def ended(process):
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_api_answers_until_a_signal(home, number):
    async with serving(home, "--port", "0", "--json", **api(home)) as process:
        url, has_token = await listening_url(process)
        assert has_token
        assert (await asked(url, "/livez")).json() == {"status": "alive"}
        assert (await asked(url, "/readyz")).json() == {"status": "ready"}
        assert (await asked(url, "/health/agents")).status_code == 401
        assert (await asked(url, "/health/agents", TOKEN)).json()["schema"] == "callboard.api.agents/1"
        assert "callboard_health" in (await asked(url, "/metrics", TOKEN)).text
        process.send_signal(number)
        code, out, err = await ended(process)
    assert code == 0
    assert json.loads(out.splitlines()[-1])["event"] == "stopped"
    assert TOKEN not in out + err
    log = (Paths(home).log_dir / "access.log").read_text()
    assert "GET /health/agents 401" in log
    assert "GET /health/agents 200" in log
    assert all(TOKEN not in path.read_text(errors="replace") for path in Paths(home).log_dir.iterdir())


async def test_a_signal_that_comes_twice_at_once_is_one(home):
    """Who ends a process and its group sends two; what was begun is ended all the same."""
    async with serving(home, "--port", "0", "--json", **api(home)) as process:
        await listening_url(process)
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.001)
        code, out, _ = await ended(process)
    assert code == 0
    assert json.loads(out.splitlines()[-1])["event"] == "stopped"


async def test_an_address_of_ipv6_as_it_stands_in_a_url(home):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        unavailable("IPv6 on this machine")
    async with serving(home, "--port", "0", "--host", "[::1]", "--json", **api(home)) as process:
        url, _ = await listening_url(process)
        assert url.startswith("http://[::1]:")
        assert (await asked(url, "/livez")).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


async def test_it_says_where_it_listens_and_that_there_is_no_token(home):
    async with serving(home, "--port", "0", **{**api(home), "CALLBOARD_API_TOKEN": ""}) as process:
        said = ""
        while "no token is set" not in said:
            said += (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
        assert re.search(r"The HTTP API listens on http://127\.0\.0\.1:\d+\n", said)
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
async def test_a_public_address_needs_a_token(home, host):
    environment = {**api(home), "CALLBOARD_API_TOKEN": ""}
    async with serving(home, "--port", "0", "--host", host, **environment) as process:
        code, out, err = await ended(process)
    assert (code, out) == (2, "")
    assert "no token is set" in err
    assert "--new-token" in err


async def test_a_public_address_with_a_token(home):
    async with serving(home, "--port", "0", "--host", "0.0.0.0", "--json", **api(home)) as process:
        url, _ = await listening_url(process)
        assert (await asked(url.replace("0.0.0.0", "127.0.0.1"), "/livez")).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


async def test_a_port_that_is_taken(home):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        async with serving(home, "--port", port, **api(home)) as process:
            code, out, err = await ended(process)
        assert (code, out) == (1, "")
        async with serving(home, "--port", port, "--json", **api(home)) as process:
            _, out, _ = await ended(process)
    assert f"127.0.0.1:{port} is in use by another program" in err
    assert "No company" not in err
    assert json.loads(out)["error"]["code"] == "port_busy"
    assert out.count("\n") == 1, "a log collector takes one object a line"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--port", "99999"], "is no port"),
        (["--port", "http"], "is no port"),
        (["--host", "127.0.0.1"], "--port turns on"),
        (["--port", "0", "--host", "no such host"], "neither an address nor a name"),
        (["--port", "0", "--public-url", "callboard.example.com"], "must be an address"),
        (["--port", "0", "--public-url", "https://user@x.example"], "must be an address"),
    ],
)
def test_wrong_use(words, told, monkeypatch, capsys):
    monkeypatch.setenv("CALLBOARD_SECRET_STORE", "file")
    assert main(["serve", *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "told"), [("tiny-9x", "is shorter than"), ("with white space in between", "white space")]
)
def test_a_token_that_is_no_use(token, told, monkeypatch, capsys):
    monkeypatch.setenv("CALLBOARD_API_TOKEN", token)
    assert main(["serve", "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert token not in err


def test_a_token_of_a_file_that_is_no_use_is_told_as_one_of_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "token").write_text("tiny-9x\n")
    monkeypatch.delenv("CALLBOARD_API_TOKEN", raising=False)
    monkeypatch.setenv("CALLBOARD_API_TOKEN_FILE", str(tmp_path / "token"))
    assert main(["serve", "--port", "0"]) == 2
    assert "The token in the file of CALLBOARD_API_TOKEN_FILE is no use" in capsys.readouterr().err


async def test_a_new_token_is_printed_once_kept_and_used(home):
    made = callboard(home, "serve", "--new-token")
    token = made.out.strip()
    assert (made.code, len(token) >= 40, token in made.err) == (0, True, False)
    assert token not in (home / "data" / "secrets.json").read_text()
    again = callboard(home, "serve", "--new-token", "--json")
    jsonschema.Draft202012Validator(document("api-token")).validate(again.json)
    newer = again.json["token"]
    environment = {**api(home), "CALLBOARD_API_TOKEN": ""}
    async with serving(home, "--port", "0", "--json", **environment) as process:
        url, has_token = await listening_url(process)
        assert has_token
        assert (await asked(url, "/metrics", token)).status_code == 401
        assert (await asked(url, "/metrics", newer)).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0
    entries = callboard(home, "audit", "--json").json["entries"]
    assert [entry["action"] for entry in entries] == ["api.token.rotate", "api.token.add"]
    assert not any(secret in json.dumps(entries) for secret in (token, newer))


async def test_secrets_from_files(home, tmp_path):
    passphrase, token = tmp_path / "passphrase", tmp_path / "token"
    passphrase.write_text("correct horse\n")
    token.write_text(TOKEN + "\n")
    assert callboard(home, "serve", "--new-token").code == 0  # makes the store, under that passphrase
    environment = {
        **api(home),
        "CALLBOARD_API_TOKEN": "",
        "CALLBOARD_PASSPHRASE": "",
        "CALLBOARD_API_TOKEN_FILE": str(token),
        "CALLBOARD_PASSPHRASE_FILE": str(passphrase),
    }
    async with serving(home, "--port", "0", "--json", **environment) as process:
        url, _ = await listening_url(process)
        assert (await asked(url, "/metrics", TOKEN)).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0
    for name in ("CALLBOARD_API_TOKEN_FILE", "CALLBOARD_PASSPHRASE_FILE"):
        async with serving(home, "--port", "0", **{**environment, name: str(tmp_path / "absent")}) as process:
            code, _, err = await ended(process)
        assert (code, f"The file that {name} names cannot be read" in err) == (2, True)


async def test_a_token_in_a_locked_store_needs_the_passphrase(home):
    assert callboard(home, "serve", "--new-token").code == 0
    environment = {**api(home), "CALLBOARD_API_TOKEN": "", "CALLBOARD_PASSPHRASE": ""}
    async with serving(home, "--port", "0", **environment) as process:
        code, _, err = await ended(process)
    assert (code, "passphrase" in err) == (5, True)


async def test_a_service_manager_is_told(home, tmp_path):
    address = tmp_path / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(address))
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "200000"}
        async with serving(home, "--port", "0", **api(home), **environment) as process:
            told = [(await asyncio.to_thread(manager.recv, 4096)).decode() for _ in range(4)]
            process.send_signal(signal.SIGTERM)
            assert (await ended(process))[0] == 0
        manager.settimeout(5)
        while told[-1] != "STOPPING=1":
            told.append(manager.recv(4096).decode())
    assert re.fullmatch(r"READY=1\nSTATUS=http://127\.0\.0\.1:\d+", told[0])
    assert told[1:4] == ["WATCHDOG=1"] * 3


def test_the_unit_is_one_that_systemd_takes(tmp_path, capsys):
    assert main(["serve", "--print-unit"]) == 0
    text = capsys.readouterr().out
    assert "@CALLBOARD@" not in text
    if shutil.which("systemd-analyze") is None:
        unavailable("systemd-analyze is not installed")
    unit = tmp_path / "callboard.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


async def test_orders_that_a_killed_program_left_are_given_up(home):
    database = await Database.open(location(home))
    long_ago = int(time.time() * 1000) - DAY

    def leave(session):
        session.add(
            Effect(
                id="e1", kind="crm.contact", key="k", target="ann", actor="ann", state="intended",
                created_at=long_ago, updated_at=long_ago,
            )
        )  # fmt: skip

    await database.write(leave)
    async with serving(home):
        for _ in range(200):
            state = await database.read(lambda session: session.get(Effect, "e1").state)
            if state == "unknown":
                break
            await asyncio.sleep(0.1)
    await database.aclose()
    assert state == "unknown"
