"""Without the optional packages: a plain sentence with the install line, and nothing else breaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.calls.access import VendorAccess
from services.calls.messages import Ended
from services.calls.model import Brief
from services.calls.transport import Transport
from services.calls.transports.elevenlabs_livekit import ElevenLabsLivekit
from services.calls.transports.retell_gateway import RetellGateway
from services.calls.webrtc import load, webrtc_problem
from services.errors import ServiceError
from services.model import Provider

ROOT = Path(__file__).parents[3]
OURS = ("webrtc_peer", "webrtc_audio", "livekit_room")
INSTALL = "pip install 'callboard[webrtc]'"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra had never been installed."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("aiortc", "av", "livekit"):
            monkeypatch.delitem(sys.modules, name)
    for name in ("aiortc", "av", "livekit", "livekit.rtc"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in OURS:
        monkeypatch.delitem(sys.modules, f"services.calls.{name}", raising=False)
        package = sys.modules["services.calls"]
        monkeypatch.delattr(package, name, raising=False)


def transports() -> list[Transport]:
    # Nothing listens there: the packages are asked for before the vendor is.
    retell = VendorAccess(Provider.RETELL, "http://127.0.0.1:9", "a-key-that-opens-nothing")
    eleven = VendorAccess(Provider.ELEVENLABS, "http://127.0.0.1:9", "a-key-that-opens-nothing")
    return [RetellGateway(retell, "agent_1"), ElevenLabsLivekit(eleven, "agent_1")]


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize("number", [0, 1])
async def test_a_call_says_what_to_install(number: int):
    transport = transports()[number]
    with pytest.raises(ServiceError) as caught:
        await transport.open(Brief())
    error = caught.value
    assert error.code == "webrtc_missing"
    assert error.message == "Calls over WebRTC need packages that are not installed"
    assert INSTALL in error.advice
    events = [event async for event in transport.events()]
    assert isinstance(events[-1], Ended)
    assert "not installed" in events[-1].detail


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize("provider", list(Provider))
def test_it_is_known_beforehand(provider: Provider):
    assert INSTALL in webrtc_problem(provider)


@pytest.mark.parametrize("provider", list(Provider))
def test_installed_is_no_problem(provider: Provider):
    assert webrtc_problem(provider) == ""


async def test_native_code_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "native_code_of_elsewhere.py").write_text("raise OSError('wrong ELF class')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ServiceError) as caught:
        await load("native_code_of_elsewhere")
    assert caught.value.code == "webrtc_missing"
    assert "cannot be loaded" in caught.value.message
    assert "ELF" not in caught.value.message


async def test_a_mistake_of_ours_is_not_told_as_a_missing_package():
    with pytest.raises(ModuleNotFoundError):
        await load("services.calls.no_such_module")


def test_choosing_a_transport_loads_no_native_code():
    """Neither asking what is available nor making a transport loads what only a call needs."""
    program = (
        "import sys\n"
        "import services.calls.transports.retell_gateway, services.calls.transports.retell_monitor\n"
        "import services.calls.transports.elevenlabs_livekit\n"
        "from services.calls.webrtc import webrtc_problem\n"
        "from services.model import Provider\n"
        "assert not any(webrtc_problem(each) for each in Provider)\n"
        "print([n for n in ('aiortc', 'av', 'livekit.rtc', 'elevenlabs', 'jinja2') if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
