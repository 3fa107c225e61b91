"""What a simulator is started with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_KEY = "sim-key"
"""Opens both vendors. It guards nothing: the simulator holds made-up data on loopback only."""

LIMITED_SUFFIX = "-limited"
"""The key with this suffix is known to both vendors but lacks every permission."""

ACCOUNT_SID = "AC" + "5ca1ab1e" * 4
"""The simulated Twilio account; its auth token is the simulator's key."""


@dataclass(frozen=True, slots=True)
class SimulatorOptions:
    """Ports of 0 are chosen by the system; `agents` counts both vendors together, an odd one is Retell's."""

    agents: int = 24
    seed: int = 1
    latency_ms: float = 0
    faults: tuple[str, ...] = ()
    retell_port: int = 0
    elevenlabs_port: int = 0
    twilio_port: int = 0
    partners_port: int = 0
    host: str = "127.0.0.1"
    key: str = DEFAULT_KEY
    join_ms: int = 30_000
    """How long a Retell web call waits for its user."""
    memory: Path | None = None
    """The file in which its CRM and its messages are remembered until the next start; None for nowhere."""
