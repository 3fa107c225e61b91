"""A PostgreSQL for tests: the server that `CALLBOARD_TEST_POSTGRES_URL` names, or one of our own.

Import both fixtures into a `conftest.py` or a test module, then ask for `postgres_url`:

    from tests.support.postgres import postgres_server, postgres_url  # noqa: F401

Without either server the test is skipped, and fails where every server has to be there.
"""

from __future__ import annotations

import atexit
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from tests.support.servers import running_postgres, wait_until_ready

URL_VARIABLE = "CALLBOARD_TEST_POSTGRES_URL"

# One server in a test run, however many modules import the fixture.
_started: list[str] = []


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The address of a server on which databases may be created; ours ends with the test run."""
    if not _started:
        url = os.environ.get(URL_VARIABLE, "")
        if not url:
            stack = ExitStack()
            url = stack.enter_context(running_postgres()).url
            atexit.register(stack.close)
        wait_until_ready(url)
        _started.append(url)
    return _started[0]


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The address of an empty database of this test's own, dropped after it."""
    name = f"callboard_test_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
