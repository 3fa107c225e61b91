"""One PulseAudio for all tests that need devices, and sounds that can be told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pulse import PulseServer, fake_devices, running_pulse


@dataclass(frozen=True)
class Room:
    """The machine as PortAudio sees it: `fake_mic` and `fake_speaker` at the desk, `default` at the spare."""

    desk: PulseServer
    spare: PulseServer
    configuration: Path


@pytest.fixture(scope="session")
def furnished() -> Iterator[Room]:
    with (
        running_pulse("mic", "speaker") as desk,
        running_pulse("spare") as spare,
        fake_devices(desk, spare) as configuration,
    ):
        yield Room(desk, spare, configuration)


@pytest.fixture
def room(furnished: Room) -> Iterator[Room]:
    """The same, with everything plugged in again afterwards."""
    yield furnished
    furnished.desk.plug("mic")
    furnished.desk.plug("speaker")
    furnished.spare.plug("spare")
