"""What the database's own errors mean to an operator."""

from __future__ import annotations

import psycopg
import pytest

from services.errors import Category, ServiceError
from services.storage import DatabaseLocation
from services.storage.failures import explain

PLACE = DatabaseLocation.from_url("postgresql://op:secret@db.example:5432/calls")
CONNECTING = 'connection failed: connection to server at "10.0.0.7", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (f"{CONNECTING}Connection refused\n\tIs the server running on that host?", "Connection refused"),
        (f"{CONNECTING}FATAL:  the database system is starting up", "the database system is starting up"),
        (
            "consuming input failed: server closed the connection unexpectedly\n\tThis probably means",
            "server closed the connection unexpectedly",
        ),
        ("couldn't get a connection after 30.00 sec", "couldn't get a connection after 30.00 sec"),
        ("connection failed: ", "connection failed:"),
        ("", "no answer"),
    ],
)
def test_a_server_that_is_away_is_one_short_sentence(said: str, reason: str) -> None:
    told = explain(psycopg.OperationalError(said), PLACE)
    assert isinstance(told, ServiceError)
    assert (told.code, told.category) == ("database_unreachable", Category.TRANSIENT)
    assert told.message == f"postgresql://db.example:5432/calls cannot be reached: {reason}"
