"""The web framework is loaded only where the API is served."""

from __future__ import annotations

from tests.app.test_import_hygiene import HEAVY, TERMINAL, modules_after

OF_THE_API = {"fastapi", "prometheus_client", "starlette", "uvicorn"}


def test_help(own_environment):
    loaded = modules_after("from app.cli import main\nassert main(['serve', '--help']) == 0", own_environment)
    assert not loaded & {*HEAVY, *TERMINAL, *OF_THE_API}


def test_the_unit(own_environment):
    code = "from app.cli import main\nassert main(['serve', '--print-unit']) == 0"
    assert not modules_after(code, own_environment) & {*HEAVY, *TERMINAL, *OF_THE_API}


def test_serving_the_schedule_alone(own_environment):
    code = """\
import os, signal
from app.commands import _serve_report
_serve_report.Reporter.changed = lambda self: os.kill(os.getpid(), signal.SIGTERM)
from app.cli import main
assert main(['serve']) == 0
"""
    loaded = modules_after(code, own_environment)
    assert "apscheduler" in loaded
    assert not loaded & {*TERMINAL, *OF_THE_API}
