"""Requests at a fixed rate, whether or not the answers keep up: run as a process of its own.

`python -m tests.benchmarks.api_load PORT PATH RATE SECONDS`, the token on standard input. A request's time is
counted from the moment it was due, so that a server that stalls is charged for everything that waited.
Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

CONNECTIONS = 32


class Load:
    """One run: connections that stay open, and a queue of due times in front of them."""

    def __init__(self, port: int, path: str, token: str) -> None:
        self.port = port
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        self.request = (head + (f"Authorization: Bearer {token}\r\n" if token else "") + "\r\n").encode()
        self.due: asyncio.Queue[float | None] = asyncio.Queue()
        self.took: list[float] = []
        self.statuses: dict[str, int] = {}
        self.size = 0

    async def connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while (due := await self.due.get()) is not None:
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            self.took.append(time.perf_counter() - due)
            status = lines[0].split()[1].decode()
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.size = length
        writer.close()

    async def run(self, rate: float, seconds: float) -> None:
        async with asyncio.TaskGroup() as connections:
            for _ in range(CONNECTIONS):
                connections.create_task(self.connection())
            await asyncio.sleep(0.2)
            started = time.perf_counter()
            for number in range(int(rate * seconds)):
                due = started + number / rate
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                self.due.put_nowait(due)
            for _ in range(CONNECTIONS):
                self.due.put_nowait(None)


def main() -> None:
    port, path, rate, seconds = sys.argv[1:]
    load = Load(int(port), path, sys.stdin.read().strip())
    asyncio.run(load.run(float(rate), float(seconds)))
    print(json.dumps({"took": load.took, "statuses": load.statuses, "size": load.size}))


if __name__ == "__main__":
    main()
