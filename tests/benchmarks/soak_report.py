"""What a soak finds: how fast states followed, numbers taken meanwhile, errors that nobody else hears."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.measuring import Figure, percentile

MOST_QUEUED: Final = 250
MOST_TASKS: Final = 500
MOST_FILES: Final = 400
"""Three for each place in flight: the client's end, and both ends of the proxy."""
MOST_GROWTH_MB: Final = 40.0


@dataclass
class Follow:
    """How fast the states followed one kind of fault, in seconds."""

    seen: list[float] = field(default_factory=list)
    over: list[float] = field(default_factory=list)


@dataclass
class Report:
    """What a soak found. `broken`: promises that were not kept, in words."""

    seconds: float
    interval: float
    figures: list[Figure] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    follows: dict[str, Follow] = field(default_factory=dict)
    requests: dict[str, dict[str, int]] = field(default_factory=dict)
    syncs: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        def times(found: list[float]) -> dict[str, float]:
            return {"median": round(percentile(found, 50), 2), "most": round(max(found), 2)} if found else {}

        return {
            "seconds": round(self.seconds),
            "interval": self.interval,
            "kept": not self.broken,
            "broken": self.broken,
            "notes": self.notes,
            "figures": [figure.as_dict() for figure in self.figures],
            "faults": {
                name: {"times": len(each.seen), "seen": times(each.seen), "over": times(each.over)}
                for name, each in sorted(self.follows.items())
            },
            "requests": self.requests,
            "syncs": dict(self.syncs),
            "load_average": [round(load, 2) for load in os.getloadavg()],
        }


class Ears:
    """Hears what otherwise only a log would: errors logged, tasks that ended unheard."""

    def __init__(self) -> None:
        self.heard: Counter[str] = Counter()
        self._handler = _Handler(self.heard)

    def __enter__(self) -> Ears:
        logging.getLogger().addHandler(self._handler)
        asyncio.get_running_loop().set_exception_handler(self._unheard)
        return self

    def __exit__(self, *_: object) -> None:
        gc.collect()
        logging.getLogger().removeHandler(self._handler)
        asyncio.get_running_loop().set_exception_handler(None)

    def _unheard(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.heard[f"{context.get('message')}: {context.get('exception')!r}"] += 1


class _Handler(logging.Handler):
    def __init__(self, heard: Counter[str]) -> None:
        super().__init__(logging.ERROR)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard[f"{record.name}: {record.getMessage()}"[:300]] += 1


@dataclass
class Samples:
    """Numbers taken while it runs."""

    queued: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)


def stack_of(task: asyncio.Task[Any]) -> str:
    """Where a task stands, innermost last."""
    frames = [f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}" for frame in task.get_stack()]
    return f"{task.get_name()}: {' '.join(frames)}"


def memory_mb(pid: int | str = "self") -> float:
    """The resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def figures_of(samples: Samples) -> list[Figure]:
    quarter = len(samples.memory_mb) // 4
    before = samples.memory_mb[quarter] if samples.memory_mb else 0.0
    after = samples.memory_mb[-1] if samples.memory_mb else 0.0
    return [
        Figure("requests that waited for a place, most", max(samples.queued), "requests", MOST_QUEUED),
        Figure("tasks, most", max(samples.tasks), "tasks", MOST_TASKS),
        Figure("memory, growth after the first quarter", after - before, "MB", MOST_GROWTH_MB),
        Figure("memory at the end", after, "MB"),
        Figure("open files, most", max(samples.files), "files", MOST_FILES),
        Figure("services: loop late, p99 of samples", percentile(samples.late_ms, 99), "ms"),
    ]
