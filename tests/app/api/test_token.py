"""Where the token comes from, how one is made, and what a service manager hears."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from app.api.systemd import Notifier
from app.api.token import NAME, find_token, make_token, token_of
from app.paths import Paths
from app.settings import read_settings, secret_from
from services.errors import UsageError
from services.security import MemoryStore, redact
from services.storage import DatabaseLocation

GOOD = "unit-token-0123456789abcdef"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "secret"


@pytest.mark.parametrize(("text", "secret"), [("a b\n", "a b"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")])
def test_a_secret_in_a_file_ends_before_its_last_line_end(file, text, secret):
    file.write_bytes(text.encode())
    assert secret_from({"X_FILE": str(file)}, "X") == secret


def test_the_variable_goes_before_the_file(file):
    assert secret_from({"X": "direct", "X_FILE": str(file)}, "X") == "direct"
    assert secret_from({"X": "", "X_FILE": ""}, "X") is None
    assert secret_from({}, "X") is None


def test_a_file_that_gives_no_secret(file):
    with pytest.raises(UsageError, match=r"cannot be read"):
        secret_from({"X_FILE": str(file)}, "X")
    file.write_bytes(b"\n")
    with pytest.raises(UsageError, match="is empty"):
        secret_from({"X_FILE": str(file)}, "X")
    file.write_bytes(b"canary\xff")
    with pytest.raises(UsageError) as caught:
        secret_from({"X_FILE": str(file)}, "X")
    assert "canary" not in f"{caught.value.message}{caught.value.advice}"


def test_the_variables_are_known_and_no_settings(tmp_path):
    environ = {f"CALLBOARD_{name}": "x" for name in ("API_TOKEN", "API_TOKEN_FILE", "PASSPHRASE_FILE")}
    assert read_settings(Paths(tmp_path), environ).problems == ()


async def test_the_environment_goes_before_the_store():
    store = MemoryStore()
    assert await find_token({}, None) is None
    assert await find_token({}, store) is None
    await store.set(NAME, "kept-token-0123456789abc")
    assert (await find_token({}, store)).reveal() == "kept-token-0123456789abc"
    assert (await find_token({"CALLBOARD_API_TOKEN": GOOD}, store)).reveal() == GOOD


@pytest.mark.parametrize("token", ["tiny-9x", "x" * 19, "with white space inside", "täglich-wechselnd-0123"])
def test_tokens_that_are_refused_are_not_repeated(token):
    with pytest.raises(UsageError) as caught:
        token_of({"CALLBOARD_API_TOKEN": token})
    assert caught.value.code == "bad_token"
    assert token not in str(caught.value)


async def test_a_made_token_is_masked_in_every_log(tmp_path):
    from services.container import ServiceOptions, Services

    location = DatabaseLocation(path=tmp_path / "callboard.db")
    services = Services(ServiceOptions(database=location, secrets_file=tmp_path / "secrets.json"))
    try:
        store = MemoryStore()
        first = await make_token(services, store, "operator")
        second = await make_token(services, store, "operator")
        entries = [(entry.action, entry.actor, entry.subject) for entry in await services.agents.audit()]
    finally:
        await services.aclose()
    assert await store.get(NAME) == second.reveal() != first.reveal()
    assert redact(f"got {first.reveal()} and {second.reveal()}") == "got **** and ****"
    assert entries == [("api.token.rotate", "operator", "API"), ("api.token.add", "operator", "API")]


async def test_notifying_an_abstract_socket():
    name = f"callboard-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        await notifier.ready("here")
        await notifier.aclose()
        assert [manager.recv(100) for _ in range(2)] == [b"READY=1\nSTATUS=here", b"STOPPING=1"]


async def test_the_watchdog_of_another_process_is_not_fed():
    before = len(asyncio.all_tasks())
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    notifier = Notifier(environ)
    await notifier.ready("here")
    assert len(asyncio.all_tasks()) == before
    await notifier.aclose()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
async def test_nobody_to_notify(environ):
    notifier = Notifier({**environ, "WATCHDOG_USEC": "1000"})
    await notifier.ready("here")
    await notifier.aclose()
