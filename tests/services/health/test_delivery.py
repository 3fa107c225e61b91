"""Alerts over real sockets, a real mail server and real processes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from aiosmtpd.controller import Controller
from sqlmodel import select

from services.errors import Category, ServiceError, UsageError
from services.events import AlertRaised, EventBus
from services.health.alerts import AlertDesk, wants
from services.health.delivery import MOST_OUTPUT, Sender, letter, signature, variables
from services.health.model import Alert, Channel, CheckKind, HealthState
from services.resilience import Policies
from services.security import MemoryStore
from services.storage import Database, DatabaseLocation
from services.storage.tables import AlertChannel, Audit
from tests.support.fake_time import FakeTime
from tests.support.rawserver import raw_server, reply
from tests.support.scheduling import until
from tests.support.servers import free_port

CANARY = "canary-4f1c88e2"
ROOT = Path(__file__).resolve().parents[3]
ALERT = Alert(
    key="provider:acme/retell/1000/down",
    check_id="provider:acme/retell",
    name="Retell",
    kind=CheckKind.PROVIDER,
    company="acme",
    state=HealthState.DOWN,
    text="Retell is down: 503; 31 agents hang on it",
    message="503",
    advice="Wait for the vendor",
    at=1_800_000_000_000,
    started_at=1_799_999_940_000,
    dependents=31,
)


class Bench:
    """A desk with a clock that only waiting moves."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.time = FakeTime()
        self.secrets = MemoryStore()
        self.bus = EventBus()
        self.policies = Policies(self.time, sleep=self.time.sleep, rng=random.Random(1))
        self.sender = Sender(self.policies, self.time, command_seconds=5.0)
        self.desk = AlertDesk(
            self.open_database, self.open_secrets, self.policies, self.bus, self.time, sender=self.sender
        )

    async def open_database(self) -> Database:
        return self.database

    async def open_secrets(self) -> MemoryStore:
        return self.secrets

    async def told(self, *channels: Channel, alert: Alert = ALERT) -> None:
        """Deliver, and wait for the end of it."""
        self.desk.deliver(alert, channels)
        await asyncio.gather(*self.desk._tasks.values())

    async def channel(self, number: int) -> Channel:
        return next(each for each in await self.desk.channels() if each.id == number)


@pytest.fixture
async def bench(tmp_path):
    database = await Database.open(DatabaseLocation(path=tmp_path / "callboard.db"))
    made = Bench(database)
    yield made
    await made.desk.aclose()
    await database.aclose()


# -- webhook --------------------------------------------------------------------------------------


async def test_a_webhook_is_signed_and_says_everything(bench) -> None:
    async with raw_server(lambda seen: reply({})) as server:
        channel = await bench.desk.add("webhook", f"{server.url}/hook/{CANARY}", secret="s3cret-key-of-it")
        await bench.told(channel)
    (seen,) = server.seen
    told = json.loads(seen.body)
    assert (told["type"], told["text"], told["check"]) == ("health.down", ALERT.text, ALERT.check_id)
    signed = f"{seen.headers['webhook-id']}.{seen.headers['webhook-timestamp']}.".encode() + seen.body
    expected = base64.b64encode(hmac.new(b"s3cret-key-of-it", signed, hashlib.sha256).digest()).decode()
    assert seen.headers["webhook-signature"] == f"v1,{expected}"
    # The whole address is a secret: neither shown nor in the database.
    assert CANARY not in repr(channel)
    rows = await bench.database.read(
        lambda session: repr([session.exec(select(AlertChannel)).all(), session.exec(select(Audit)).all()])
    )
    assert CANARY not in rows
    assert "s3cret" not in rows
    assert (await bench.channel(channel.id)).sent_at is not None


def test_a_key_of_the_specification_is_base64() -> None:
    """The example of the Standard Webhooks specification."""
    found = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_webhook_is_tried_again_with_the_same_id(bench) -> None:
    answers = iter([reply(status=503), reply(status=429, retry_after="7"), reply({})])
    async with raw_server(lambda seen: next(answers)) as server:
        channel = await bench.desk.add("webhook", server.url)
        await bench.told(channel)
    assert len(server.seen) == 3
    assert len({seen.headers["webhook-id"] for seen in server.seen}) == 1
    assert any(wait >= 7 for wait in bench.time.slept)


@pytest.mark.parametrize(("status", "category"), [(400, "permanent"), (403, "authentication")])
async def test_a_refusal_is_not_repeated_and_is_remembered(bench, status, category) -> None:
    async with raw_server(lambda seen: reply(status=status)) as server:
        channel = await bench.desk.add("webhook", f"{server.url}/{CANARY}")
        with pytest.raises(ServiceError) as told:
            await bench.desk.test(channel.id)
        await bench.told(channel)
    assert told.value.category == category
    assert CANARY not in repr((told.value.message, told.value.advice, told.value.__cause__))
    assert len(server.seen) == 2
    assert (await bench.channel(channel.id)).last_error == f"127.0.0.1 answered the alert with {status}"


async def test_a_test_says_that_it_is_one(bench) -> None:
    """A receiver that closes tickets at a recovery does not take it for one."""
    async with raw_server(lambda seen: reply({})) as server:
        channel = await bench.desk.add("webhook", server.url)
        await bench.desk.test(channel.id)
    (seen,) = server.seen
    assert json.loads(seen.body)["type"] == "health.test"
    alert = replace(ALERT, state=HealthState.UP, ended_at=ALERT.at, test=True, text="This is a test")
    assert variables(alert)["CALLBOARD_ALERT_TYPE"] == "health.test"
    assert letter(alert).startswith("This is a test.\n\nSent 20")
    assert "Until" not in letter(alert)


async def test_nobody_there_is_an_error_in_words(bench) -> None:
    async with raw_server(lambda seen: reply({})) as server:
        channel = await bench.desk.add("webhook", f"{server.url}/{CANARY}")
    await bench.told(channel)
    assert (await bench.channel(channel.id)).last_error == "127.0.0.1 could not be reached"


# -- e-mail ---------------------------------------------------------------------------------------


class Mailbox:
    def __init__(self) -> None:
        self.mails: list[tuple[list[str], str]] = []

    async def handle_DATA(self, server, session, envelope) -> str:
        self.mails.append((envelope.rcpt_tos, envelope.content.decode()))
        return "250 OK"


async def test_an_e_mail_reaches_a_mail_server(bench) -> None:
    box = Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    await asyncio.to_thread(controller.start)
    try:
        config = {"host": "127.0.0.1", "port": str(port), "tls": "none", "from": "callboard@example.com"}
        channel = await bench.desk.add("email", "ops@example.com", config=config)
        await bench.told(channel)
    finally:
        await asyncio.to_thread(controller.stop)
    ((to, text),) = box.mails
    assert to == ["ops@example.com"]
    assert "Subject: [Callboard] Retell is down" in text
    assert "What to do: Wait for the vendor" in text
    assert (await bench.channel(channel.id)).last_error == ""


# -- command --------------------------------------------------------------------------------------


def python(code: str) -> dict[str, object]:
    return {"argv": [sys.executable, "-c", code]}


async def test_a_command_gets_the_alert_in_its_environment(bench, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", CANARY)
    target = tmp_path / "told"
    code = f"import os, json; open({str(target)!r}, 'w').write(json.dumps(dict(os.environ)))"
    channel = await bench.desk.add("command", "", config=python(code))
    await bench.told(channel)
    environ = json.loads(await asyncio.to_thread(target.read_text))
    assert environ["CALLBOARD_ALERT_TEXT"] == ALERT.text
    assert environ["CALLBOARD_ALERT_STATE"] == "down"
    assert CANARY not in repr(environ)


async def test_a_command_may_run_this_program(bench, tmp_path, monkeypatch) -> None:
    """In the same installation, and although there are variables of ours that are no settings."""
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path / "home"))
    target = tmp_path / "told"
    ours = [sys.executable, "-P", "-m", "app", "health", "incidents", "--json"]
    code = (
        f"import os, subprocess; done = subprocess.run({ours!r}, capture_output=True, text=True, "
        f"env={{**os.environ, 'PYTHONPATH': {str(ROOT)!r}}}); "
        f"open({str(target)!r}, 'w').write(done.stdout + done.stderr); raise SystemExit(done.returncode)"
    )
    sender = Sender(bench.policies, bench.time, command_seconds=60.0)
    channel = await bench.desk.add("command", "", config=python(code))
    await sender.send(channel, "", ALERT)
    assert json.loads(await asyncio.to_thread(target.read_text))["incidents"] == []
    assert (tmp_path / "home" / "data" / "callboard.db").is_file()


async def test_a_command_has_no_shell(bench, tmp_path) -> None:
    target = tmp_path / "made"
    channel = await bench.desk.add("command", f"/bin/echo ok; touch {target}")
    await bench.told(channel)
    assert not target.exists()


async def test_a_command_that_fails_says_why_and_how_much_it_said_is_bounded(bench) -> None:
    code = f"import sys; print('no pager today'); print('x' * {50 * MOST_OUTPUT}); sys.exit(3)"
    channel = await bench.desk.add("command", "", config=python(code))
    await bench.told(channel)
    error = (await bench.channel(channel.id)).last_error
    assert "ended with code 3: no pager today" in error
    assert len(error) < 500


async def test_a_command_that_does_not_end_is_stopped_with_what_it_started(bench, tmp_path) -> None:
    mark = tmp_path / "child"
    code = f"""if True:
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(mark)!r}, "w").write(str(child.pid))
        time.sleep(600)"""
    sender = Sender(bench.policies, bench.time, command_seconds=6.0)
    channel = await bench.desk.add("command", "", config=python(code))
    with pytest.raises(ServiceError) as told:
        await sender.send(channel, "", ALERT)
    assert told.value.category is Category.TIMEOUT
    child = int(await asyncio.to_thread(mark.read_text))
    await until(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# -- channels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "target", "config"),
    [
        ("pager", "", {}),
        ("webhook", "", {}),
        ("webhook", "ftp://example.com", {}),
        ("webhook", "http://example.com/in-clear", {}),
        ("email", "nobody", {"integration": "mail"}),
        ("email", "ops@example.com", {}),
        ("email", "ops@example.com", {"host": "mail.example.com", "from": "a@example.com", "tls": "none"}),
        ("command", "", {}),
        ("command", "/no/such/program", {}),
        ("bell", "", {"volume": "11"}),
    ],
)
async def test_a_channel_that_cannot_work_is_refused(bench, kind, target, config) -> None:
    with pytest.raises(UsageError):
        await bench.desk.add(kind, target, config=config)
    assert await bench.desk.channels() == []


async def test_a_channel_goes_with_its_secret(bench) -> None:
    channel = await bench.desk.add("webhook", "https://example.com/a/b", actor="maria")
    assert channel.target == "https://example.com/…"
    assert await bench.secrets.get(channel.secret_name)
    await bench.desk.remove(channel.id, "maria")
    assert await bench.secrets.get(channel.secret_name) is None
    with pytest.raises(UsageError):
        await bench.desk.remove(channel.id, "maria")


async def test_bell_and_desktop_are_the_consoles(bench) -> None:
    raised: list[AlertRaised] = []
    bench.bus.subscribe(AlertRaised, raised.append)
    bell = await bench.desk.add("bell", "", least=HealthState.DOWN)
    await bench.told(bell)
    await bench.told(bell, alert=_degraded())
    await bench.told()
    assert [(each.bell, each.desktop) for each in raised] == [(True, False), (False, False), (False, False)]
    assert raised[0].text == ALERT.text


def _degraded(**changes) -> Alert:
    return replace(ALERT, state=HealthState.DEGRADED, worst=HealthState.DEGRADED, **changes)


def test_who_wants_what() -> None:
    everything, grave = Channel(1, "bell"), Channel(2, "bell", least=HealthState.DOWN)
    acme, globex = Channel(3, "bell", company="acme"), Channel(4, "bell", company="globex")
    off = Channel(5, "bell", enabled=False)
    channels = (everything, grave, acme, globex, off)
    assert [each.id for each in channels if wants(each, ALERT)] == [1, 2, 3]
    assert [each.id for each in channels if wants(each, _degraded())] == [1, 3]
    over = _degraded(ended_at=1)
    # Who was not told of it is not told of its end.
    assert not wants(grave, over)


async def test_a_slow_channel_keeps_nobody_waiting(bench) -> None:
    gate, sent = asyncio.Event(), []

    class Slow:
        async def send(self, channel: Channel, secret: str, alert: Alert) -> None:
            if channel.id == 1:
                await gate.wait()
            sent.append(channel.id)

    bench.desk._sender = Slow()
    slow, quick = Channel(1, "webhook"), Channel(2, "webhook")
    for _ in range(150):
        bench.desk.deliver(ALERT, [slow, quick])
        await asyncio.sleep(0)
    await until(lambda: len(sent) >= 100)
    assert set(sent) == {2}
    assert len(bench.desk._waiting[1]) <= 100
    gate.set()
    await asyncio.gather(*bench.desk._tasks.values())
