"""WebSockets on the simulator's ports: opening, closing, breaking, large messages, faults, stopping."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.model import Provider
from services.simulator import Simulator, SimulatorOptions
from services.simulator.sockets import Closed, Socket
from services.simulator.wire import Reply, Request

Seen = dict[str, Any]


class Server:
    """A simulator in this loop, with the sockets and requests a test adds."""

    def __init__(self) -> None:
        self.simulator = Simulator(SimulatorOptions(agents=4))
        self.vendor = self.simulator._vendors[Provider.RETELL]
        self.seen: Seen = {}

    @property
    def url(self) -> str:
        return self.simulator.retell_url.replace("http://", "ws://")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    await made.simulator.start()
    yield made
    await made.simulator.stop()


async def echo(socket: Socket, ids: list[str], query: dict[str, str], headers: Mapping[bytes, bytes]) -> None:
    await socket.accept()
    while True:
        message = await socket.receive()
        await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))


async def closed(client: Any) -> tuple[int, str]:
    with contextlib.suppress(ConnectionClosed):
        async for _ in client:
            pass
    return client.close_code, client.close_reason


async def test_ids_query_headers_and_subprotocol(server: Server) -> None:
    async def handler(
        socket: Socket, ids: list[str], query: dict[str, str], headers: Mapping[bytes, bytes]
    ) -> None:
        await socket.accept(socket.subprotocols[-1])
        await socket.send_text(f"{ids} {query} {headers[b'x-who'].decode()}")
        await socket.close(4004, "not live")

    server.vendor.sockets.add("/talk/*/now", handler)
    url = f"{server.url}/talk/abc/now?a=1"
    async with connect(
        url,
        subprotocols=["one", "two"],
        additional_headers={"x-who": "me"},
        proxy=None,  # type: ignore[list-item]
    ) as client:
        assert client.subprotocol == "two"
        assert await client.recv() == "['abc'] {'a': '1'} me"
        assert await closed(client) == (4004, "not live")


async def test_messages_of_more_than_16_mib_go_both_ways(server: Server) -> None:
    server.vendor.sockets.add("/echo", echo)
    async with connect(f"{server.url}/echo", max_size=None, proxy=None) as client:
        text = "x" * (17 * 1024 * 1024)
        await client.send(text)
        assert await client.recv() == text
        await client.send(b"\0\1")
        assert await client.recv() == b"\0\1"


async def test_the_handler_learns_how_the_client_closed(server: Server) -> None:
    ended = asyncio.get_running_loop().create_future()

    async def handler(socket: Socket, *_: Any) -> None:
        await socket.accept()
        try:
            await socket.receive()
        except Closed as error:
            ended.set_result((error.code, error.reason))
            raise

    server.vendor.sockets.add("/talk", handler)
    async with connect(f"{server.url}/talk", proxy=None) as client:
        await client.close(3001, "enough")
    assert await asyncio.wait_for(ended, 5) == (3001, "enough")


async def test_a_broken_connection_has_no_close_frame(server: Server) -> None:
    async def handler(socket: Socket, *_: Any) -> None:
        await socket.accept()
        socket.abort()
        with pytest.raises(Closed):
            await socket.send_text("too late")
        server.seen["sent"] = True

    server.vendor.sockets.add("/talk", handler)
    async with connect(f"{server.url}/talk", proxy=None) as client:
        code, _ = await closed(client)
    assert code == 1006
    assert server.seen == {"sent": True}


async def test_refusals(server: Server) -> None:
    async def handler(socket: Socket, *_: Any) -> None:
        await socket.refuse(Reply(403, b'{"no":"way"}'))

    server.vendor.sockets.add("/talk", handler)
    for path, status in (("/talk", 403), ("/nowhere", 404)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url + path, proxy=None)
        assert refused.value.response.status_code == status
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{server.url}/talk", proxy=None)
    assert refused.value.response.body == b'{"no":"way"}'


async def test_faults_strike_the_opening(server: Server) -> None:
    server.vendor.sockets.add("/echo", echo)
    for spec, expected in (("503:call:x1", InvalidStatus), ("drop:call:x1", Exception)):
        server.simulator._faults.add(spec)
        with pytest.raises(expected):
            await connect(f"{server.url}/echo", proxy=None)
    async with connect(f"{server.url}/echo", proxy=None) as client:
        await client.send("on")
        assert await client.recv() == "on"
    stats = server.simulator._control.stats()["retell"]
    assert stats["by_kind"] == {"call": 3}
    assert stats["by_status"] == {"503": 1, "dropped": 1, "open": 1}
    assert stats["in_flight"] == 0


async def test_a_handler_that_breaks_closes_with_1011(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(socket: Socket, *_: Any) -> None:
        await socket.accept()
        raise RuntimeError("the simulator's own mistake")

    server.vendor.sockets.add("/talk", handler)
    async with connect(f"{server.url}/talk", proxy=None) as client:
        assert (await closed(client))[0] == 1011
    assert "the simulator's own mistake" in caplog.text


async def test_stopping_ends_every_conversation_and_leaves_no_task() -> None:
    server = Server()
    before = asyncio.all_tasks()
    cleaned: list[str] = []

    async def handler(socket: Socket, *_: Any) -> None:
        await socket.accept()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    server.vendor.sockets.add("/talk", handler)
    await server.simulator.start()
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connect(f"{server.url}/talk", proxy=None)) for _ in range(3)
        ]
        await server.simulator.stop()
        assert [(await closed(client))[0] for client in clients] == [1012] * 3
    assert cleaned == ["up"] * 3
    assert asyncio.all_tasks() == before


async def test_async_handlers_answer_with_any_type_and_public_ones_without_a_key(server: Server) -> None:
    async def handler(request: Request, call_id: str) -> Reply:
        await asyncio.sleep(0)
        return Reply(201, request.body + call_id.encode(), b"application/sdp")

    server.vendor.router.add("POST", "/offer/*", "call", handler, public=True)
    server.vendor.router.add("POST", "/closed/*", "call", handler)
    async with httpx.AsyncClient(base_url=server.simulator.retell_url, trust_env=False) as client:
        response = await client.post("/offer/7", content=b"v=0 ")
        assert (response.status_code, response.text) == (201, "v=0 7")
        assert response.headers["content-type"] == "application/sdp"
        assert (await client.post("/closed/7")).status_code == 401
