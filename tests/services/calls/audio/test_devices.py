"""Finding devices, and saying why there are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.calls.audio import devices
from services.calls.audio.devices import DeviceInfo, audio_problem, find_device, list_devices, refresh
from services.errors import ServiceError, UsageError


def device(index: int, name: str, *, inputs: int = 1, outputs: int = 1, default: bool = False) -> DeviceInfo:
    return DeviceInfo(f"ALSA:{name}", index, name, inputs, outputs, default, default, 48_000)


DESK = [
    device(0, "HDMI 0", inputs=0),
    device(1, "USB Headset: Audio (hw:1,0)"),
    device(2, "USB Camera (hw:2,0)", outputs=0),
    device(3, "default", default=True),
    device(4, "7.1 Surround", inputs=0),
]


@pytest.fixture
def desk(monkeypatch):
    monkeypatch.setattr(devices, "list_devices", lambda: list(DESK))


@pytest.mark.parametrize(
    ("wanted", "kind", "name"),
    [
        (None, "input", "default"),
        ("", "output", "default"),
        (1, "input", "USB Headset: Audio (hw:1,0)"),
        ("1", "output", "USB Headset: Audio (hw:1,0)"),
        ("headset", "input", "USB Headset: Audio (hw:1,0)"),
        ("ALSA:HDMI 0", "output", "HDMI 0"),
        ("DEFAULT", "input", "default"),
        ("camera", "input", "USB Camera (hw:2,0)"),
        ("7", "output", "7.1 Surround"),
    ],
)
def test_a_device_is_found(desk, wanted, kind, name):
    assert find_device(wanted, kind).name == name


def test_what_only_plays_is_no_microphone(desk):
    with pytest.raises(UsageError) as caught:
        find_device("HDMI", "input")
    assert caught.value.code == "unknown_device"
    assert "microphone" in caught.value.message
    assert "1 USB Headset" in caught.value.advice


def test_two_that_fit_are_named(desk):
    with pytest.raises(UsageError) as caught:
        find_device("usb", "input")
    assert caught.value.code == "ambiguous_device"
    assert "1 USB Headset" in caught.value.message
    assert "2 USB Camera" in caught.value.message


def test_without_a_default_the_first_one_is_used(monkeypatch):
    monkeypatch.setattr(devices, "list_devices", lambda: [device(4, "only")])
    assert find_device(None, "input").index == 4


def problem(found: list[DeviceInfo], monkeypatch, **environ: str) -> ServiceError:
    monkeypatch.setattr(devices, "_in_wsl", lambda: False)
    error = audio_problem(environ=environ, devices=lambda: found)
    assert error is not None
    return error


def test_no_problem_with_both():
    assert audio_problem(environ={}, devices=lambda: list(DESK)) is None


def test_no_microphone(monkeypatch):
    error = problem([device(0, "HDMI", inputs=0)], monkeypatch)
    assert (error.code, error.message) == ("no_device", "This machine has no microphone")
    assert "text" in error.advice


def test_no_loudspeaker(monkeypatch):
    assert problem([device(0, "Camera", outputs=0)], monkeypatch).message.endswith("no loudspeaker")


def test_no_device_over_ssh(monkeypatch):
    error = problem([], monkeypatch, SSH_CONNECTION="10.0.0.1 1 10.0.0.2 22")
    assert "SSH" in error.message
    assert "text" in error.advice


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ALSA's way to a sound server")
def test_no_device_although_a_sound_server_runs(monkeypatch, tmp_path):
    (tmp_path / "pulse").mkdir()
    (tmp_path / "pulse" / "native").touch()
    for surroundings in ({"PULSE_SERVER": "unix:/x"}, {"XDG_RUNTIME_DIR": str(tmp_path)}):
        assert "libasound2-plugins" in problem([], monkeypatch, **surroundings).advice
    assert "libasound2" not in problem([], monkeypatch, XDG_RUNTIME_DIR=str(tmp_path / "none")).advice


def test_no_device_in_wsl(monkeypatch):
    monkeypatch.setattr(devices, "_in_wsl", lambda: True)
    error = audio_problem(environ={}, devices=list)
    assert error is not None
    assert "Windows Subsystem" in error.message


def test_no_library(monkeypatch):
    class Missing:
        def find_spec(self, name, *rest):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    error = audio_problem(environ={})
    assert error is not None
    assert error.code == "no_audio_library"
    assert "PortAudio" in error.message
    assert error.advice


def test_the_machines_devices(room):
    found = {each.name: each for each in list_devices()}
    assert {"fake_mic", "fake_speaker", "default"} <= set(found)
    assert found["fake_mic"].id == "ALSA:fake_mic"
    assert found["default"].default_input
    assert found["default"].default_output
    assert find_device("speaker", "output").name == "fake_speaker"
    assert audio_problem() is None


def test_what_was_plugged_in_is_seen_after_a_refresh(room):
    before = room.configuration.read_text()
    line = f'pcm.fake_headset {{ type pulse server "{room.desk.address}" hint {{ show on }} }}\n'
    try:
        room.configuration.write_text(before + line)
        assert "fake_headset" in {each.name for each in refresh()}
    finally:
        room.configuration.write_text(before)
    assert "fake_headset" not in {each.name for each in refresh()}


CRASHING = """
from services.calls.audio.devices import audio_problem
problem = audio_problem()
print(problem.code if problem else "no problem")
"""


def test_a_configuration_that_makes_portaudio_abort_is_survived(tmp_path):
    """Without a device in ALSA's configuration PortAudio's own assertion ends the process."""
    empty = tmp_path / "asound.conf"
    empty.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", CRASHING],
        cwd=Path(__file__).parents[4],
        env={**os.environ, "ALSA_CONFIG_PATH": str(empty)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("no_audio", "no_audio_library", "no_device")
