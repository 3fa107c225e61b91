"""Small disks of one's own: read-only ones, full ones."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers import unavailable


@contextlib.contextmanager
def small_disk(place: Path, size: str = "4m") -> Iterator[Path]:
    """An empty disk of this size at `place`. Without the right to mount the test is skipped (fails in CI)."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "callboard-test", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The folder, not writable for anybody, root included, until the block ends."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(disk: Path, leave: int = 0) -> Path:
    """Write until the disk is full, then give `leave` bytes back; returns the file that fills it."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    if leave:
        size = ballast.stat().st_size
        with open(ballast, "r+b") as file:
            file.truncate(max(0, size - leave))
    return ballast


def _mount(*words: str) -> None:
    program = shutil.which("mount")
    if program is None:
        unavailable("mount is not installed")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"mounting is not permitted here: {done.stderr.strip()}")
