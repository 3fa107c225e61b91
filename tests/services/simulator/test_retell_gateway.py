"""Web calls of the simulated Retell: joined over WebRTC with aiortc, created with the vendor's SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from retell import AsyncRetell

from services.clock import SystemClock
from services.simulator import speech, webrtc
from services.simulator.retell import RetellVendor
from services.simulator.wire import Request
from tests.support.simulator import RunningSimulator
from tests.support.webrtc_caller import RATE, Caller, pitches, until

QUICK = {"think_ms": 20, "silence_ms": 200}
LONG = "One two three four five six seven eight nine ten eleven twelve"


class WebCall:
    """A web call as its user's program sees it."""

    def __init__(self, http: httpx.AsyncClient, created: dict[str, Any]) -> None:
        self.http, self.id = http, created["call_id"]
        self.headers = {"authorization": f"Bearer {created['access_token']}"}
        self.base = f"/webrtc-proxy/{self.id}/v1/webrtc/sessions"
        self.caller = Caller()
        self.session = ""

    async def join(self) -> None:
        body = {"identity": "client", "sdp": await self.caller.offer()}
        reply = await self.http.post(self.base, json=body, headers=self.headers)
        assert reply.status_code == 201, reply.text
        self.session = f"{self.base}/{reply.json()['session_id']}"
        await self.caller.take(reply.json()["sdp"])

    async def detail(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get(f"/v2/get-call/{self.id}")).json()
        return found

    async def reaches(self, status: str, seconds: float = 10.0) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                found = await self.detail()
                if found["call_status"] == status:
                    return found
                await asyncio.sleep(0.02)

    async def says(self, role: str, count: int = 1) -> list[dict[str, Any]]:
        """The items of a role, once there are `count`."""
        async with asyncio.timeout(10):
            while True:
                items = (await self.detail())["transcript_with_tool_calls"]
                found = [item for item in items if item["role"] == role]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.02)


async def set_script(http: httpx.AsyncClient, **script: Any) -> None:
    reply = await http.post("/__script", json={"script": {**QUICK, **script}})
    assert reply.status_code == 201, reply.text


async def an_agent(simulator: RunningSimulator) -> str:
    return (await simulator.agents("retell"))[0]["agent_id"]


@contextlib.asynccontextmanager
async def web_call(
    simulator: RunningSimulator, http: httpx.AsyncClient, **fields: Any
) -> AsyncIterator[WebCall]:
    body = {"agent_id": await an_agent(simulator), **fields}
    reply = await http.post("/v3/create-web-call", json=body)
    assert reply.status_code == 201, reply.text
    call = WebCall(http, reply.json())
    try:
        yield call
    finally:
        await call.caller.close()


async def test_a_spoken_call_with_the_vendors_sdk(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await set_script(
        retell,
        greeting="Hello {{name}} there",
        turns=[
            {"heard": "When are you open?", "say": "From eight to six", "end": True,
             "tool": {"name": "check_availability", "arguments": {"day": 1}, "result": "free", "took_ms": 5}},
        ],
    )  # fmt: skip
    sdk = AsyncRetell(api_key=simulator.key, base_url=simulator.retell_url)
    created = await sdk.call.create_web_call(
        agent_id=await an_agent(simulator),
        retell_llm_dynamic_variables={"name": "Alex"},
        metadata={"ticket": 7},
    )
    assert (created.transport, created.ice_servers) == ("gateway", [])
    call = WebCall(retell, created.to_dict())
    await call.join()
    hello = [speech.pitch(word) for word in ("Hello", "Alex", "there")]
    await until(lambda: len(pitches(bytes(call.caller.heard))) >= 3, "the greeting")
    assert pitches(bytes(call.caller.heard)) == pytest.approx(hello, abs=4)
    assert call.caller.messages == ['{"type": "status", "state": "open"}']

    await until(lambda: not call.caller.loud(100), "silence")
    call.caller.heard.clear()
    call.caller.say(speech.tones("when are you open", RATE))
    await until(lambda: '{"type": "status", "state": "ended"}' in call.caller.messages, "the end")
    answer = [speech.pitch(word) for word in ("From", "eight", "to", "six")]
    assert pitches(bytes(call.caller.heard)) == pytest.approx(answer, abs=4)

    found = await sdk.call.retrieve(created.call_id)
    assert found.disconnection_reason == "agent_hangup"
    roles = [item.role for item in found.transcript_with_tool_calls or []]
    assert roles == ["agent", "user", "tool_call_invocation", "tool_call_result", "agent"]
    assert found.transcript == "Agent: Hello Alex there\nUser: When are you open?\nAgent: From eight to six\n"
    assert found.latency is not None
    assert found.latency.e2e is not None
    assert found.latency.e2e.values == [220.0]
    assert found.call_cost is not None
    assert found.call_cost.combined_cost > 0
    assert found.metadata == {"ticket": 7}
    log = (await retell.get("/__conversations")).json()["conversations"]
    assert (log[-1]["transport"], log[-1]["end_reason"]) == ("gateway", "agent_hangup")
    assert log[-1]["audio_ms"] > 700
    await call.caller.close()
    await sdk.close()


async def test_speaking_over_the_agent_stops_it(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await set_script(retell, greeting=LONG, turns=[{"heard": "Stop", "say": "Yes"}])
    async with web_call(simulator, retell) as call:
        await call.join()
        await until(lambda: len(pitches(bytes(call.caller.heard))) >= 2, "two words")
        call.caller.say(speech.tones("please stop", RATE))
        agent = await call.says("agent", 2)
        assert agent[0]["metadata"]["interrupt_id"] == 1
        assert agent[0]["content"].endswith("…")
        assert LONG.startswith(agent[0]["content"].rstrip("…"))
        assert 2 <= len(agent[0]["content"].split()) < 8
        await until(
            lambda: speech.pitch("Yes") in near(pitches(bytes(call.caller.heard)), "Yes"), "the answer"
        )
        assert len(pitches(bytes(call.caller.heard))) < 9  # of twelve words and one
        reply = await retell.delete(call.session, headers=call.headers)
        assert reply.status_code == 204
        assert (await call.reaches("ended"))["disconnection_reason"] == "user_hangup"


def near(found: list[int], word: str) -> list[int]:
    """`found` with what is as good as the word's pitch replaced by it."""
    wanted = speech.pitch(word)
    return [wanted if abs(pitch - wanted) <= 4 else pitch for pitch in found]


async def test_an_agent_that_may_not_be_interrupted_goes_on(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    greeting = "One two three four five six"
    await set_script(retell, greeting=greeting, interruptible=False, turns=[{"heard": "x", "say": "Yes"}])
    async with web_call(simulator, retell) as call:
        await call.join()
        call.caller.say(speech.tones("please stop", RATE))
        agent = await call.says("agent", 2)
        assert [item["content"] for item in agent] == [greeting, "Yes"]


async def test_the_line_can_be_stopped_and_steered(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await set_script(retell, greeting="", turns=[{"hear": "premium", "say": "As a premium customer"}])
    async with web_call(simulator, retell) as call:
        early = await retell.patch(f"/v2/update-live-call/{call.id}", json={"call_control": {}})
        assert early.status_code == 422
        await call.join()
        await call.reaches("ongoing")
        control = {"additional_context": "They are premium.", "trigger_response": True}
        body = {"call_control": control, "fields_to_override": {"metadata": {"a": 1}}}
        reply = await retell.patch(f"/v2/update-live-call/{call.id}", json=body)
        assert reply.json() == {"success": True}
        assert (await call.says("injected"))[0]["content"] == "They are premium."
        assert (await call.says("agent"))[0]["content"].startswith("As a")
        assert (await retell.post(f"/v2/stop-call/{call.id}")).status_code == 200
        found = await call.reaches("ended")
        assert (found["disconnection_reason"], found["metadata"]) == ("manual_stopped", {"a": 1})
        await until(lambda: call.caller.messages[-1:] == ['{"type": "status", "state": "ended"}'], "the end")
        assert (await retell.post(f"/v2/stop-call/{call.id}")).status_code == 422


async def test_listening_and_taking_over(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    await set_script(retell, greeting=LONG)
    async with web_call(simulator, retell) as call:
        assert (await retell.post(f"/v2/listen-live-call/{call.id}")).status_code == 422
        await call.join()
        await call.reaches("ongoing")
        ticket = (await retell.post(f"/v2/listen-live-call/{call.id}")).json()
        listener = Caller(speaks=False)
        headers = {"authorization": f"Bearer {ticket['access_token']}"}
        body = {"identity": ticket["participant_id"], "sdp": await listener.offer()}
        joined = await retell.post(call.base, json=body, headers=headers)
        assert joined.status_code == 201, joined.text
        await listener.take(joined.json()["sdp"])
        await until(lambda: len(pitches(bytes(listener.heard))) >= 2, "the listener hears the agent")

        stranger = await retell.post(f"/v2/take-over-live-call/{call.id}", json={"participant_id": "x"})
        assert stranger.status_code == 400
        taken = await retell.post(
            f"/v2/take-over-live-call/{call.id}", json={"participant_id": ticket["participant_id"]}
        )
        assert taken.json() == {"success": True}
        assert (await call.reaches("ended"))["disconnection_reason"] == "call_take_over"

        transceiver = listener.peer.getTransceivers()[0]
        transceiver.direction = "sendrecv"
        transceiver.sender.replaceTrack(listener.microphone)
        session = f"{call.base}/{joined.json()['session_id']}"
        answer = await retell.patch(
            session, content=await listener.offer(), headers={**headers, "content-type": "application/sdp"}
        )
        assert answer.headers["content-type"] == "application/sdp"
        await listener.take(answer.text)
        call.caller.heard.clear()
        listener.say(speech.tones("operator", RATE))
        wanted = speech.pitch("operator")
        await until(
            lambda: wanted in near(pitches(bytes(call.caller.heard)), "operator"), "the operator is heard"
        )
        await retell.delete(session, headers=headers)
        await until(lambda: call.caller.messages[-1:] == ['{"type": "status", "state": "ended"}'], "the end")
        await listener.close()


async def test_who_may_join(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    async with web_call(simulator, retell) as call:
        offer = {"identity": "client", "sdp": await call.caller.offer()}
        assert (await retell.post(call.base, json=offer)).status_code == 401  # the API key is no token
        reply = await retell.post(call.base, json={**offer, "identity": "other"}, headers=call.headers)
        assert reply.status_code == 403
        reply = await retell.post(call.base, json={**offer, "sdp": "v=0 nonsense"}, headers=call.headers)
        assert reply.status_code == 400
        unknown = "/webrtc-proxy/call_none/v1/webrtc/sessions"
        assert (await retell.post(unknown, json=offer, headers=call.headers)).status_code == 404
        assert (await retell.delete(f"{call.base}/sess_none", headers=call.headers)).status_code == 404
        await call.join()
        line = next(
            line for line in call.caller.peer.localDescription.sdp.splitlines() if "a=candidate" in line
        )
        trickle = {"candidate": {"candidate": line[2:], "sdpMid": "0", "sdpMLineIndex": 0}}
        assert (await retell.patch(call.session, json=trickle, headers=call.headers)).status_code == 204
        assert (await retell.patch(call.session, json={}, headers=call.headers)).status_code == 400
        await retell.post(f"/v2/stop-call/{call.id}")
        await call.reaches("ended")
        await until(lambda: call.caller.peer.connectionState == "closed", "the gateway hung up")
        assert (await retell.post(call.base, json=offer, headers=call.headers)).status_code == 409


async def test_a_second_session_of_the_caller_replaces_the_first(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await set_script(retell, greeting="", turns=[{"heard": "Hi", "say": "Hello again"}])
    async with web_call(simulator, retell) as call:
        await call.join()
        # The call begins with the connection; what is said on the control channel needs that, too.
        await until(lambda: '{"type": "status", "state": "open"}' in call.caller.messages, "the channel")
        await call.reaches("ongoing")
        first, call.caller = call.caller, Caller()
        await call.join()
        await until(lambda: '{"type": "status", "state": "replaced"}' in first.messages, "the replacement")
        await first.close()
        call.caller.say(speech.tones("hello", RATE))
        assert (await call.says("agent"))[0]["content"]
        await until(lambda: call.caller.loud(), "the agent on the new line")


async def test_a_crash_leaves_no_farewell(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    await set_script(retell, greeting=LONG, hang={"how": "crash", "at_ms": 300})
    async with web_call(simulator, retell) as call:
        await call.join()
        await until(lambda: call.caller.peer.connectionState in ("closed", "failed"), "the line breaks")
        assert call.caller.messages == ['{"type": "status", "state": "open"}']
        assert (await call.reaches("error"))["disconnection_reason"] == "error_unknown"


async def test_a_call_lasts_no_longer_than_it_may(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    await set_script(retell, greeting=LONG, max_duration_ms=400)
    async with web_call(simulator, retell) as call:
        await call.join()
        found = await call.reaches("ended")
        assert found["disconnection_reason"] == "max_duration_reached"
        assert found["transcript_object"][0]["content"].endswith("…")


async def test_a_caller_whose_track_falls_silent_has_finished(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    """No more packets mean silence: a muted client sends none."""
    await set_script(retell, greeting="", turns=[{"heard": "Hi", "say": "Hello"}])
    async with web_call(simulator, retell) as call:
        await call.join()
        await call.reaches("ongoing")
        call.caller.say(speech.tones("one two three", RATE))
        await until(lambda: len(call.caller.microphone.queue) < 9600, "most was sent")
        call.caller.peer.getSenders()[0].replaceTrack(None)
        assert (await call.says("user"))[0]["content"] == "Hi"
        assert (await call.says("agent"))[0]["content"] == "Hello"


async def test_nobody_joins() -> None:
    vendor = RetellVendor(2, 1, "key", "limited", SystemClock())
    vendor.live.gateway.join_ms = 20
    agent_id = vendor.names()[0][0]
    route, _ = vendor.router.find("POST", "/v3/create-web-call")
    assert route is not None
    body = json.dumps({"agent_id": agent_id}).encode()
    created = json.loads((await route.handler(Request("POST", "/v3/create-web-call", body=body))).body)
    call = vendor.calls.get(created["call_id"])
    assert call is not None
    assert created["expires_at"] == call.created + 20
    await until(lambda: call.over, "the end of waiting")
    shown = vendor.calls.detail(call)
    assert (shown["call_status"], shown["disconnection_reason"]) == ("error", "error_user_not_joined")
    assert "duration_ms" not in shown
    await vendor.aclose()


async def test_without_aiortc_the_routes_say_so(
    simulator: RunningSimulator, retell: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webrtc, "installed", lambda: False)
    reply = await retell.post("/v3/create-web-call", json={"agent_id": await an_agent(simulator)})
    assert reply.status_code == 501
    assert "webrtc" in reply.json()["message"]
    assert (await retell.post("/v2/list-agents", json={})).status_code == 200
