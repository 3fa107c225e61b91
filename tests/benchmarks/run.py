"""`python tests/benchmarks/run.py [NAME …]`: every figure, with its target, as one JSON object.

NAME is a part of a module's name (`sync`, `start`, …); without one all run but the long ones, which have to
be named: `soak` (ten minutes of bad weather; see `soak.py`, which can also do it in less). The exit code is 0
whether or not the targets are met: it is 1 only when something could not be measured.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "test_start",
    "test_sync_speed",
    "test_resilience",
    "test_console_load",
    "test_call_screen",
    "test_at_rest",
    "test_audio",
    "test_socket_delay",
    "test_health",
    "test_health_agents",
    "test_api",
)
LONG = ("soak",)
"""Run only when asked for."""


def main(names: list[str]) -> int:
    sys.path.insert(0, str(ROOT))
    from tests.benchmarks.measuring import cores
    from tests.support.environment import keep, scrubbed

    for name in [name for name in os.environ if not keep(name)]:
        del os.environ[name]
    figures, failed, took = [], {}, {}
    wanted = [name for name in (*MODULES, *LONG) if any(part in name for part in names)] if names else MODULES
    for module in wanted:
        with tempfile.TemporaryDirectory(prefix="callboard-bench-") as folder:
            os.environ.update(scrubbed(Path(folder)))
            started = time.monotonic()
            try:
                measured = asyncio.run(
                    importlib.import_module(f"tests.benchmarks.{module}").measure(Path(folder))
                )
                figures += [figure.as_dict() for figure in measured]
            except Exception:
                failed[module] = traceback.format_exc()
            took[module] = round(time.monotonic() - started, 1)
    print(
        json.dumps(
            {
                "cores": cores(),
                "python": platform.python_version(),
                "machine": platform.machine(),
                "load_average": [round(load, 2) for load in os.getloadavg()],
                "seconds": took,
                "met": all(figure["met"] is not False for figure in figures) and not failed,
                "figures": figures,
                "failed": failed,
            },
            indent=2,
            ensure_ascii=False,
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
