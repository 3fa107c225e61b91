"""Every test runs with a data folder of its own and without the developer's settings, colours and keyring."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.environment import LEAKING, keep, scrubbed
from tests.support.fake_time import FakeTime

# Textual reads some of these once, when it is imported: they have to go before the first test module is.
for _name in [name for name in os.environ if not keep(name)]:
    del os.environ[_name]
# A shell that starts a test run in the background has it ignore Ctrl-C, and so would the programs under test.
# The same goes for one that lets them outlive it (nohup).
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if "textual.constants" in sys.modules:  # a pytest plug-in was faster
    importlib.reload(sys.modules["textual.constants"])
# A busy machine is no failure: how long an example takes is for the benchmarks to say.
settings.register_profile("callboard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("callboard")


@pytest.fixture(autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary `CALLBOARD_HOME`, and a keyring that keeps nothing. Returns that home."""
    home = tmp_path_factory.mktemp("home", numbered=True)
    for name in LEAKING:
        monkeypatch.delenv(name, raising=False)
    for name, value in scrubbed(home).items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()
