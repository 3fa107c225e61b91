"""What ElevenLabs' socket adds between the line and the session, each way, while both sides speak.

From the peer's write to `AgentAudio` in the session's hands, and from `send_audio` to the bytes at the peer;
the machine's loopback and the peer's wake-up are in it. `CALLBOARD_TEST_SOCKET_SECONDS` is the length (10).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.measuring import Figure, percentile, unmet

SECONDS = float(os.environ.get("CALLBOARD_TEST_SOCKET_SECONDS", "10"))
FORMATS = ("pcm_16000", "pcm_48000", "ulaw_8000")
TARGET_MS = 10.0
"""Of the 40 ms that the whole way may take, devices included."""


async def talk(fmt: str) -> tuple[list[float], list[float], float]:
    """Milliseconds of every frame towards us and away from us, and the share of a core that took."""
    from services.calls.access import VendorAccess
    from services.calls.messages import Connected
    from services.calls.model import Brief
    from services.calls.transport import AgentAudio
    from services.calls.transports.elevenlabs_socket import ElevenLabsSocket
    from services.model import Provider

    peer = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("socket_peer.py")),
        fmt,
        str(SECONDS),
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    assert peer.stdout is not None
    port = int(await peer.stdout.readline())
    access = VendorAccess(Provider.ELEVENLABS, f"http://127.0.0.1:{port}", "key-0123456789")
    transport = ElevenLabsSocket(access, "agent_1", public=True)
    heard: list[float] = []
    said: list[float] = []
    await transport.open(Brief())

    async def hear() -> None:
        async for event in transport.events():
            if isinstance(event, AgentAudio):
                heard.append(time.monotonic())

    async def say(rate: int) -> None:
        pcm = bytes(range(1, 161)) * (rate // 50 * 2 // 160)
        began = time.monotonic()
        while not transport.over:
            said.append(time.monotonic())
            await transport.send_audio(pcm)
            await asyncio.sleep(max(0.0, began + len(said) * 0.02 - time.monotonic()))

    connected = transport._reader.connected
    assert isinstance(connected, Connected)
    worked = time.process_time()
    began = time.monotonic()
    try:
        tasks = [asyncio.create_task(hear()), asyncio.create_task(say(connected.input_rate))]
        told = json.loads(await peer.stdout.readline())
        share = (time.process_time() - worked) / (time.monotonic() - began) * 100
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
    finally:
        await transport.close()
        await peer.wait()
    inward = [(ours - theirs) * 1000 for theirs, ours in zip(told["sent"], heard, strict=False)]
    outward = [(theirs - ours) * 1000 for ours, theirs in zip(said, told["arrived"], strict=False)]
    assert len(inward) > SECONDS * 40, len(inward)
    assert len(outward) > SECONDS * 40, len(outward)
    assert min(inward) > 0, "frames are matched by their order"
    assert min(outward) > 0, "frames are matched by their order"
    return inward, outward, share


async def measure(_: Path) -> list[Figure]:
    figures = []
    for fmt in FORMATS:
        inward, outward, share = await talk(fmt)
        figures += [
            Figure(f"socket to session, {fmt}, p95", percentile(inward, 95), "ms", TARGET_MS),
            Figure(f"socket to session, {fmt}, p50", percentile(inward, 50), "ms"),
            Figure(f"session to socket, {fmt}, p95", percentile(outward, 95), "ms", TARGET_MS),
            Figure(f"session to socket, {fmt}, p50", percentile(outward, 50), "ms"),
            Figure(f"cpu of the socket both ways, {fmt}", share, "% of a core", 10),
        ]
    return figures


@pytest.mark.benchmark
async def test_socket_delay(tmp_path):
    assert not unmet(await measure(tmp_path))
