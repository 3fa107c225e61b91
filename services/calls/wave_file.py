"""WAV files that are complete at any moment: written while a call runs, readable after a kill."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

HEADER = 44
MOST_BYTES = 0xFFFF_FFFF - HEADER
"""A WAV file's size field has 32 bits: 37 hours at 16 kHz."""


def _header(rate: int, data_bytes: int) -> bytes:
    size = min(data_bytes, MOST_BYTES)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + size,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        rate,
        rate * 2,
        2,
        16,
        b"data",
        size,
    )


class WaveWriter:
    """One mono 16-bit track on the call's time axis. Blocking: for the recorder's thread."""

    def __init__(self, path: Path, rate: int) -> None:
        self.rate = rate
        self.bytes = 0
        self._file: BinaryIO = open(  # noqa: SIM115  # closed by `close`
            os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600), "wb"
        )
        self._file.write(_header(rate, 0))

    def write(self, pcm: bytes, at_ms: float, *, slack_ms: float = 60.0) -> None:
        """Append audio that began `at_ms` after the call's start; a gap longer than the slack is silence."""
        start = int(at_ms * self.rate / 1000) * 2
        if start - self.bytes > slack_ms * self.rate / 1000 * 2:
            self._silence(start - self.bytes)
        self._append(pcm)

    def _silence(self, count: int) -> None:
        block = bytes(64 * 1024)
        while count > 0:
            piece = block[: min(count, len(block))]
            self._append(piece)
            count -= len(piece)

    def _append(self, pcm: bytes) -> None:
        if self.bytes + len(pcm) <= MOST_BYTES:
            self._file.write(pcm)
            self.bytes += len(pcm)

    def settle(self) -> None:
        """Make what was written so far a whole file."""
        self._file.seek(0)
        self._file.write(_header(self.rate, self.bytes))
        self._file.seek(0, os.SEEK_END)
        self._file.flush()

    def close(self) -> None:
        try:
            self.settle()
        finally:
            self._file.close()


@dataclass(frozen=True, slots=True)
class WaveInfo:
    """What a track holds: rate in Hz, length in milliseconds."""

    rate: int
    length_ms: int


def mend(path: Path) -> WaveInfo | None:
    """Correct a header that a kill left behind; None (and nothing changed) for a file that is not ours."""
    try:
        with open(path, "r+b") as file:
            head = file.read(HEADER)
            if len(head) < HEADER or head[:4] != b"RIFF" or head[36:40] != b"data":
                return None
            rate = int(struct.unpack_from("<I", head, 24)[0])
            size = (os.fstat(file.fileno()).st_size - HEADER) // 2 * 2
            if struct.unpack_from("<I", head, 40)[0] != min(size, MOST_BYTES):
                file.seek(0)
                file.write(_header(rate, size))
    except OSError:
        return None
    return WaveInfo(rate, size * 1000 // (rate * 2) if rate else 0)


def read_track(path: Path, start_ms: int = 0, length_ms: int | None = None) -> tuple[bytes, int]:
    """PCM of a part of a track and its rate in Hz. Blocking. A missing file reads as nothing."""
    info = mend(path)
    if info is None:
        return b"", 0
    with open(path, "rb") as file:
        file.seek(HEADER + start_ms * info.rate // 1000 * 2)
        return (
            file.read() if length_ms is None else file.read(length_ms * info.rate // 1000 * 2),
            info.rate,
        )
