"""Requests around live calls against the simulated Retell: a listener, a stop, an error's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.calls.access import VendorAccess
from services.calls.messages import AgentSpeech, Connected, Cost, VendorLatency
from services.calls.model import Brief, EndReason
from services.calls.retell_live import Gateway, RetellLive, figures_of
from services.calls.transports.retell_gateway import GatewayTimes, RetellGateway
from services.calls.webrtc_peer import Peer
from services.errors import Category, ServiceError
from services.model import Provider
from tests.services.calls.transports.contract import Heard
from tests.support.simulator import running_simulator
from tests.support.webrtc_caller import level
from tests.support.webrtc_talk import LONG, QUICK, audio_threads


class Account:
    def __init__(self, access: VendorAccess, agent_id: str) -> None:
        self.access, self.agent_id = access, agent_id
        self.live = RetellLive(access)


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    async with running_simulator(agents=4, seed=7) as simulator:
        await simulator.script({**QUICK, "greeting": LONG})
        agent = (await simulator.agents("retell"))[0]
        found = Account(VendorAccess(Provider.RETELL, simulator.retell_url, simulator.key), agent["agent_id"])
        yield found
        await found.live.aclose()
    assert audio_threads() == []


async def test_a_listener_hears_the_call_and_a_stop_ends_it(account: Account):
    transport = RetellGateway(account.access, account.agent_id, times=GatewayTimes(settle=0.4))
    heard = Heard(transport)
    await transport.open(Brief())
    await heard.until(lambda event: isinstance(event, AgentSpeech))
    call_id = heard.of(Connected)[0].conversation_id  # type: ignore[union-attr]

    seat = await account.live.listen(call_id)
    assert seat.transport == "gateway"
    gateway = Gateway(account.access, call_id, seat.access_token, seat.participant_id)
    peer = Peer(seat.ice_servers, lambda text: None, microphone=False)
    try:
        session_id, answer = await gateway.join(await peer.offer())
        await peer.accept(answer)
        await peer.connected(10)
        async with asyncio.timeout(10):
            async for pcm in peer.frames():
                if level(pcm) > 1000:
                    break
        await gateway.leave(session_id)
    finally:
        await peer.aclose()
        await gateway.aclose()

    await account.live.stop(call_id)
    ended = await heard.end()
    await transport.close()
    assert (ended.reason, ended.by) == (EndReason.OPERATOR_ENDED, "operator")
    assert ended.detail == "stopped at Retell"


async def test_somebody_else_in_our_place(account: Account):
    transport = RetellGateway(account.access, account.agent_id)
    heard = Heard(transport)
    await transport.open(Brief())
    await heard.until(lambda event: isinstance(event, AgentSpeech))
    call = transport._call
    assert call is not None
    gateway = Gateway(account.access, call.call_id, call.access_token)
    peer = Peer((), lambda text: None)
    try:
        await peer.accept((await gateway.join(await peer.offer()))[1])
        await peer.connected(10)
        ended = await heard.end()
    finally:
        await transport.close()
        await peer.aclose()
        await gateway.aclose()
    assert ended.reason is EndReason.CONNECTION_LOST
    assert "in our place" in ended.detail


async def test_a_wrong_token_is_not_told_as_a_wrong_key(account: Account):
    call = await account.live.create_web_call(account.agent_id)
    assert call.access_token not in repr(call)
    gateway = Gateway(account.access, call.call_id, "another-token-000")
    try:
        with pytest.raises(ServiceError) as caught:
            await gateway.join("v=0")
    finally:
        await gateway.aclose()
    assert caught.value.category is Category.AUTHENTICATION
    assert caught.value.code == "refused"
    assert "access token" in caught.value.message


async def test_an_offer_that_is_none(account: Account):
    call = await account.live.create_web_call(account.agent_id)
    gateway = Gateway(account.access, call.call_id, call.access_token)
    try:
        with pytest.raises(ServiceError) as caught:
            await gateway.join("nonsense")
    finally:
        await gateway.aclose()
    assert caught.value.code == "invalid_request"


async def test_requests_for_calls_that_do_not_exist(account: Account):
    for request in (
        account.live.call("call_nowhere"),
        account.live.listen("call_nowhere"),
        account.live.stop("call_nowhere"),
        account.live.steer("call_nowhere", "It rains"),
        account.live.take_over("call_nowhere", "somebody"),
    ):
        with pytest.raises(ServiceError) as caught:
            await request
        assert caught.value.code == "not_found"


async def test_what_acts_is_sent_once(account: Account):
    calls = 0

    async def sleep(seconds: float) -> None:
        nonlocal calls
        calls += 1

    live = RetellLive(VendorAccess(Provider.RETELL, "http://127.0.0.1:9", "a-key-000000"), sleep=sleep)
    for request in (live.create_web_call("agent_1"), live.stop("call_1"), live.steer("call_1", "x")):
        with pytest.raises(ServiceError):
            await request
    assert calls == 0
    await live.aclose()


def test_figures_of_a_call():
    found = figures_of(
        {
            "call_cost": {"combined_cost": 123.4},
            "latency": {"e2e": {"p50": 800}, "llm": {"p50": None}, "tts": "?", "of_tomorrow": {"p50": 1}},
        }
    )
    assert found == [Cost(1.234, "USD", final=True), VendorLatency({"e2e": 800.0})]


@pytest.mark.parametrize(
    "data", [{}, {"call_cost": None, "latency": []}, {"call_cost": {"combined_cost": True}}]
)
def test_figures_that_are_not_there(data: dict[str, object]):
    assert figures_of(data) == []
