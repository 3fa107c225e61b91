"""The vendors on loopback: stateful, schema-true, with faults on demand.

`SimulatorOptions` and the fault grammar are light; `Simulator` brings a web server and loads it on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.simulator.faults import FAULT_HELP, Fault, parse_fault
from services.simulator.options import ACCOUNT_SID, DEFAULT_KEY, LIMITED_SUFFIX, SimulatorOptions

if TYPE_CHECKING:
    from services.simulator.server import Simulator

__all__ = [
    "ACCOUNT_SID",
    "DEFAULT_KEY",
    "FAULT_HELP",
    "LIMITED_SUFFIX",
    "Fault",
    "Simulator",
    "SimulatorOptions",
    "parse_fault",
]


def __getattr__(name: str) -> Any:
    if name == "Simulator":
        from services.simulator.server import Simulator

        return Simulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
