"""A Redis for tests: a real `redis-server` of our own on loopback, with a password, that can be killed.

Import the fixtures into a `conftest.py` or a test module, then ask for `redis_url` (one server for the whole
test run, emptied for each test) or `own_redis` (one server for this test, to be stopped and started):

    from tests.support.redis import own_redis, redis_server, redis_url  # noqa: F401

Without the program the test is skipped, and fails where every server has to be there.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.servers import free_port, need

PASSWORD = "redis-canary-password"

# One server in a test run, however many modules import the fixture.
_started: list[RedisServer] = []


class RedisServer:
    """A server in a folder of its own, at the same address each time it is started."""

    def __init__(self) -> None:
        self._program = need("redis-server")[0]
        self._folder = Path(tempfile.mkdtemp(prefix="cb-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://:{PASSWORD}@{self._folder}/redis.sock?db=0"

    def start(self) -> None:
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self._folder / "redis.sock"),
            "requirepass": PASSWORD,
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
            "logfile": str(self._folder / "log"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([self._program, *words])
        deadline = time.monotonic() + 30
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((self._folder / "log").read_text(), pytrace=False)
                time.sleep(0.01)

    def client(self) -> redis.Redis:
        """A client of the tests' own, blocking."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=10)

    def kill(self) -> None:
        """End it without warning: connections are reset and everything is forgotten."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """It stays reachable and answers nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=30)
            self._process = None


@contextlib.contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A server that has started; `unavailable` without the program."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def redis_server() -> RedisServer:
    """The server of this test run, which ends with it."""
    if not _started:
        stack = contextlib.ExitStack()
        _started.append(stack.enter_context(running_redis()))
        atexit.register(stack.close)
    return _started[0]


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an empty database, with a password in it."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server of this test's own."""
    with running_redis() as server:
        yield server
