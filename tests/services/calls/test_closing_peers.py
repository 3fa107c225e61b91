"""A peer connection is closed by two at once: by us, and by aiortc when the other side leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiortc import RTCPeerConnection

from services.calls.webrtc_peer import closed
from services.simulator.webrtc_audio import hang_up


@pytest.mark.parametrize("close", [closed, hang_up])
async def test_to_be_cancelled_while_closing_breaks_no_other_closing(
    close: Callable[[RTCPeerConnection], Awaitable[None]],
) -> None:
    peer, other = await connected()
    first = asyncio.create_task(peer.close())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(close(peer))
    await asyncio.sleep(0)
    assert not first.done()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await first
    await other.close()


async def connected() -> tuple[RTCPeerConnection, RTCPeerConnection]:
    caller, callee = RTCPeerConnection(), RTCPeerConnection()
    up = asyncio.Event()
    channel = caller.createDataChannel("control")
    channel.on("open", up.set)
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(caller.localDescription)
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(callee.localDescription)
    async with asyncio.timeout(10):
        await up.wait()
    return caller, callee
