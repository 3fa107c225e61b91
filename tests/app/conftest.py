from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from app.cli import main
from app.schemas import document
from tests.app.fakes import FakeServices


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one object it must be, checked against the contract it names."""
        parsed: dict[str, Any] = json.loads(self.out)
        assert next(iter(parsed)) == "schema"
        kind = parsed["schema"].removeprefix("callboard.").removesuffix("/1")
        jsonschema.Draft202012Validator(document(kind)).validate(parsed)
        return parsed


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
def callboard(services, monkeypatch, capsys):
    """Run the command line in this process on the fake services; none of them is left open."""
    monkeypatch.setattr("app.commands._run.open_services", lambda *, demo: services)

    def call(*words: str) -> Result:
        opened = services.closed
        code = main(words)
        assert services.closed <= opened + 1
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return call
