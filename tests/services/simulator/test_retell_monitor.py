"""The monitor socket of the simulated Retell: transcript of a live call, and who may watch."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from services.simulator import Simulator, SimulatorOptions, speech
from tests.services.simulator.test_retell_gateway import set_script, web_call
from tests.support.simulator import RunningSimulator
from tests.support.webrtc_caller import RATE, until


def monitor(simulator: RunningSimulator, call_id: str, key: str = "", **options: Any) -> connect:
    url = simulator.retell_url.replace("http", "ws") + f"/v2/monitor-call/{call_id}"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return connect(url, additional_headers=headers, proxy=None, **options)


async def closing(socket: ClientConnection) -> tuple[int, str, list[dict[str, Any]]]:
    """Close code and reason, and the frames before."""
    frames = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            frames.append(json.loads(await socket.recv()))
    return socket.close_code or 0, socket.close_reason or "", frames


async def test_a_live_transcript_from_snapshot_to_end(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    tool = {"name": "check_availability", "arguments": {"day": 1}, "result": {"free": True}, "took_ms": 5}
    turn = {"heard": "Are you open?", "tool": tool, "say": "Yes we are", "end": True}
    await set_script(retell, greeting="Hello", turns=[turn])
    async with web_call(simulator, retell) as call:
        await call.join()
        await call.says("agent")
        async with monitor(simulator, call.id, simulator.key) as socket:
            first = json.loads(await socket.recv())
            assert (first["type"], first["pre_session_transcripts"]) == ("transcript_snapshot", [])
            assert [item["content"] for item in first["transcripts"]] == ["Hello"]
            call.caller.say(speech.tones("are you open", RATE))
            code, reason, frames = await closing(socket)
        assert (code, reason) == (1000, "call_ended")
        assert frames[-1]["type"] == "call_ended"
        assert frames[-1]["disconnection_reason"] == "agent_hangup"
        items = {item["id"]: item for item in first["transcripts"]}
        for frame in frames[:-1]:
            assert frame["type"] == "transcript_updated"
            items.update({item["id"]: item for item in frame["transcripts"]})
        merged = sorted(items.values(), key=lambda item: item["time_sec"])
        roles = [item["role"] for item in merged]
        assert roles == ["agent", "user", "tool_call_invocation", "tool_call_result", "agent"]
        assert json.loads(merged[2]["arguments"]) == {"day": 1}
        assert (merged[3]["tool_call_id"], merged[3]["successful"]) == (merged[2]["tool_call_id"], True)
        assert json.loads(merged[3]["content"]) == {"free": True}
        assert [word["word"] for word in merged[4]["words"]] == ["Yes", "we", "are"]
        assert merged[1]["words"][0]["start"] == merged[1]["time_sec"]
        frame_ended = frames[-1]["event_timestamp"]
        assert (await call.detail())["end_timestamp"] == frame_ended


async def test_before_the_call_and_after_it(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    await set_script(retell, greeting="Hello there", hang={"how": "close", "reason": "inactivity"})
    async with web_call(simulator, retell) as call:
        async with monitor(simulator, call.id, simulator.key) as socket:
            assert (await closing(socket))[0] == 4004
        await call.join()
        await call.reaches("ended")
        async with monitor(simulator, call.id, simulator.key) as socket:
            code, reason, frames = await closing(socket)
        assert (code, reason) == (1000, "call_ended")
        assert [frame["disconnection_reason"] for frame in frames] == ["inactivity"]
        async with monitor(simulator, "call_none", simulator.key) as socket:
            assert (await closing(socket))[0] == 4000


async def test_who_may_watch(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    await set_script(retell, greeting="")
    async with web_call(simulator, retell) as call:
        await call.join()
        await call.reaches("ongoing")
        for key in ("", "wrong", simulator.limited_key):
            async with monitor(simulator, call.id, key) as socket:
                assert (await closing(socket))[:2] == (4001, "unauthorized")
        async with monitor(simulator, call.id, subprotocols=["bearer", simulator.key]) as socket:
            assert socket.subprotocol == "bearer"
            assert json.loads(await socket.recv())["type"] == "transcript_snapshot"
        async with monitor(simulator, call.id, subprotocols=["bearer", "wrong"]) as socket:
            assert (await closing(socket))[0] == 4001
        storage = {"fields_to_override": {"data_storage_setting": "everything_except_pii"}}
        assert (await retell.patch(f"/v2/update-live-call/{call.id}", json=storage)).status_code == 200
        async with monitor(simulator, call.id, simulator.key) as socket:
            assert (await closing(socket))[0] == 4003


async def test_five_watch_and_a_sixth_is_refused_until_one_leaves(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await set_script(retell, greeting="")
    async with web_call(simulator, retell) as call:
        await call.join()
        await call.reaches("ongoing")
        sockets = [await monitor(simulator, call.id, simulator.key) for _ in range(5)]
        for socket in sockets:
            await socket.recv()
        sixth = await monitor(simulator, call.id, simulator.key)
        assert (await closing(sixth))[0] == 4029
        await sockets.pop().close()
        again: list[ClientConnection] = []

        async def admitted() -> bool:
            socket = await monitor(simulator, call.id, simulator.key)
            again.append(socket)
            try:
                await socket.recv()
            except ConnectionClosed:
                return False
            return True

        while not await admitted():
            assert len(again) < 100
        for socket in [*sockets, *again]:
            await socket.close()


async def test_frames_nobody_expects(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    """A script's huge frame goes out on the monitor, its own frames on the control channel."""
    await set_script(
        retell, greeting="Hi", turns=[{"heard": "x", "frame": {"type": "news"}, "hang": {"how": "huge"}}]
    )
    async with web_call(simulator, retell) as call:
        await call.join()
        await call.says("agent")
        async with monitor(simulator, call.id, simulator.key, max_size=None) as socket:
            await socket.recv()
            call.caller.say(speech.tones("go on", RATE))
            sizes = []
            while not sizes or sizes[-1] < 1 << 20:
                sizes.append(len(await socket.recv()))
            assert sizes[-1] > 16 * 1024 * 1024
        await until(lambda: '{"type": "news"}' in call.caller.messages, "the odd message")


async def test_the_simulator_stops_with_a_call_and_watchers() -> None:
    served = Simulator(SimulatorOptions(agents=2))
    await served.start()
    running = RunningSimulator(served.retell_url, served.elevenlabs_url, "", served.options.key)
    headers = {"authorization": f"Bearer {running.key}"}
    async with httpx.AsyncClient(base_url=running.retell_url, headers=headers, trust_env=False) as http:
        await set_script(http, greeting="One two three four five six")
        async with web_call(running, http) as call:
            await call.join()
            await call.says("agent")
            socket = await monitor(running, call.id, running.key)
            await socket.recv()
            caller = call.caller
            await served.stop()
            assert (await closing(socket))[0] == 1012
            await until(lambda: caller.peer.connectionState == "closed", "the line is closed")
    assert asyncio.all_tasks() == {asyncio.current_task()}
