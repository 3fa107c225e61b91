"""Retell's monitor socket: who watches a live call reads its transcript while it is spoken.

    /v2/monitor-call/{call}     Authorization: Bearer KEY, or the subprotocols `bearer`, KEY

Frames: `transcript_snapshot` first, then `transcript_updated` (items to merge by `id`), `call_ended` last.
Close codes: 1000 `call_ended`; 4004 the call is not live yet; others from 4000 on refuse for good. The vendor
publishes those only as a range; here 4000 is an unknown call, 4001 a wrong key, 4003 a call whose transcript
is not kept, 4029 a sixth watcher.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

from services.simulator.retell_calls import MAX_WATCHERS, RetellCall, RetellCalls, Watcher
from services.simulator.sockets import Socket, SocketRoutes

NOT_LIVE = 4004
UNKNOWN, WRONG_KEY, NOT_KEPT, TOO_MANY = 4000, 4001, 4003, 4029
ENDED = "call_ended"
_PRIVATE = ("basic_attributes_only", "everything_except_pii")


class RetellMonitor:
    """Serves the socket for all calls. `allowed` says whether an API key does."""

    def __init__(self, calls: RetellCalls, allowed: Callable[[str], bool]) -> None:
        self._calls = calls
        self._allowed = allowed

    def add_routes(self, sockets: SocketRoutes) -> None:
        sockets.add("/v2/monitor-call/*", self._serve)

    async def _serve(
        self, socket: Socket, ids: list[str], query: dict[str, str], headers: Mapping[bytes, bytes], /
    ) -> None:
        offered = socket.subprotocols
        by_protocol = len(offered) > 1 and offered[0] == "bearer"
        given = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        await socket.accept("bearer" if by_protocol else "")
        if not self._allowed(offered[1] if by_protocol else given):
            await socket.close(WRONG_KEY, "unauthorized")
            return
        call = self._calls.get(ids[0])
        if call is None:
            await socket.close(UNKNOWN, "call not found")
        elif call.over:
            await self._past(socket, call)
        elif not call.live:
            await socket.close(NOT_LIVE, "call is not live")
        elif call.storage in _PRIVATE:
            await socket.close(NOT_KEPT, "transcript is not available")
        elif len(call.watchers) >= MAX_WATCHERS:
            await socket.close(TOO_MANY, "too many watchers")
        else:
            await self._show(socket, call)

    async def _past(self, socket: Socket, call: RetellCall) -> None:
        """A call that is over: its end and nothing else."""
        await socket.send_text(json.dumps(self._calls.ended_frame(call)))
        await socket.close(1000, ENDED)

    async def _show(self, socket: Socket, call: RetellCall) -> None:
        watcher = self._calls.watch(call)
        # Reading notices that the watcher went away; what it says does not matter.
        gone = asyncio.create_task(self._until_gone(socket, call, watcher))
        try:
            async for frame in watcher:
                await socket.send_text(json.dumps(frame, ensure_ascii=False))
            if call.over:
                await socket.close(1000, ENDED)
        finally:
            self._calls.unwatch(call, watcher)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _until_gone(self, socket: Socket, call: RetellCall, watcher: Watcher) -> None:
        try:
            while True:
                await socket.receive()
        finally:
            self._calls.unwatch(call, watcher)
