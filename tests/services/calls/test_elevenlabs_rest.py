"""ElevenLabs' REST parts: requests through the SDK, failures in words, hosts."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.calls import elevenlabs_rest
from services.calls.access import VendorAccess
from services.calls.elevenlabs_aftermath import messages_of, read_aftermath
from services.calls.elevenlabs_rest import ElevenLabsRest, livekit_url, websocket_base
from services.calls.messages import Cost, Notice, VendorLatency
from services.clock import SystemClock
from services.errors import Category, ServiceError
from services.model import Provider
from services.resilience import Policies, RetryOptions
from tests.support.rawserver import RawServer, Reply, Seen, raw_server, reply

KEY = "sk_0123456789abcdefghij"


def access(base_url: str, residency: str = "global") -> VendorAccess:
    return VendorAccess(Provider.ELEVENLABS, base_url, KEY, residency)


async def failure(answer: Reply, **options: Any) -> ServiceError:
    """What becomes of an answer to the request for a signed URL."""
    async with raw_server(lambda _: answer) as server:
        with pytest.raises(ServiceError) as caught:
            await ElevenLabsRest(access(server.url), **options).signed_url("agent_1")
    return caught.value


@pytest.mark.parametrize(
    ("base", "residency", "socket", "livekit"),
    [
        (
            "https://api.elevenlabs.io",
            "global",
            "wss://api.elevenlabs.io",
            "wss://livekit.rtc.elevenlabs.io",
        ),
        (
            "https://api.us.elevenlabs.io",
            "us",
            "wss://api.us.elevenlabs.io",
            "wss://livekit.rtc.elevenlabs.io",
        ),
        (
            "https://api.eu.residency.elevenlabs.io/",
            "eu",
            "wss://api.eu.residency.elevenlabs.io",
            "wss://livekit.rtc.eu.residency.elevenlabs.io",
        ),
        (
            "https://api.in.residency.elevenlabs.io",
            "global",
            "wss://api.in.residency.elevenlabs.io",
            "wss://livekit.rtc.in.residency.elevenlabs.io",
        ),
        (
            "https://gateway.example.com/eleven",
            "eu",
            "wss://gateway.example.com/eleven",
            "wss://livekit.rtc.eu.residency.elevenlabs.io",
        ),
        ("http://127.0.0.1:8123", "eu", "ws://127.0.0.1:8123", "ws://127.0.0.1:8123"),
    ],
)
def test_hosts_of_every_residency(base: str, residency: str, socket: str, livekit: str) -> None:
    assert websocket_base(access(base, residency)) == socket
    assert livekit_url(access(base, residency)) == livekit


async def test_a_signed_url_is_asked_for_with_the_key() -> None:
    url = "ws://127.0.0.1:1/v1/convai/conversation?agent_id=agent_1&conversation_signature=s"
    async with raw_server(lambda _: reply({"signed_url": url})) as server:
        rest = ElevenLabsRest(access(server.url))
        assert await rest.signed_url("agent_1", branch="b", environment="staging") == url
    (seen,) = server.seen
    assert seen.path == "/v1/convai/conversation/get-signed-url"
    assert seen.query == {"agent_id": "agent_1", "branch_id": "b", "environment": "staging"}
    assert seen.headers["xi-api-key"] == KEY


@pytest.mark.parametrize("url", ["https://x/y", "ws://elsewhere.example/x", "", 7])
async def test_an_address_that_is_no_secure_socket_is_refused(url: object) -> None:
    caught = await failure(reply({"signed_url": url}))
    assert caught.code == "wrong_shape"
    assert "elsewhere" not in caught.message


async def test_a_token_and_its_conversation() -> None:
    async with raw_server(lambda _: reply({"token": "jwt", "conversation_id": "conv_1"})) as server:
        assert await ElevenLabsRest(access(server.url)).token("agent_1") == ("jwt", "conv_1")
    assert server.seen[0].path == "/v1/convai/conversation/token"


async def test_a_conversation_keeps_members_the_sdk_does_not_know() -> None:
    data = {
        "conversation_id": "conv_1",
        "status": "done",
        "metadata": {"cost": 3, "start_time_unix_secs": 1, "brand_new": [1]},
        "transcript": [],
    }
    async with raw_server(lambda _: reply(data)) as server:
        found = await ElevenLabsRest(access(server.url)).conversation("conv_1")
    assert found["metadata"]["brand_new"] == [1]
    assert server.seen[0].path == "/v1/convai/conversations/conv_1"


async def test_a_recording_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "vendor.mp3"
    body = bytes(range(256)) * 500
    async with raw_server(lambda _: reply(body=body, content_type="audio/mpeg")) as server:  # type: ignore[arg-type]
        rest = ElevenLabsRest(access(server.url))
        assert await rest.conversation_audio("conv_1", target) == len(body)
    assert target.read_bytes() == body
    target.unlink()
    broken = Reply(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\nabc", then="close")
    async with raw_server(lambda _: broken) as server:
        with pytest.raises(ServiceError):
            await ElevenLabsRest(access(server.url)).conversation_audio("conv_1", target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply({"detail": {"status": "invalid_api_key", "message": "no"}}, status=401), "wrong_key"),
        (reply({"detail": "nope"}, status=403), "missing_permission"),
        (reply({"detail": {"status": "agent_not_found", "message": "gone"}}, status=404), "not_found"),
        (reply({"detail": [{"loc": ["query", "x"], "msg": "bad"}]}, status=422), "invalid_request"),
        (reply({"detail": {"status": "quota_exceeded"}}, status=400), "quota_exceeded"),
        (reply(body="<html>Log in</html>", status=404), "html"),
        (reply(status=302, location="https://login.example/"), "redirect"),
        (reply(body="{]", status=200), "wrong_shape"),
        (reply({"other": 1}), "wrong_shape"),
        (reply([1]), "wrong_shape"),
    ],
)
async def test_refusals_in_words(answer: Reply, code: str) -> None:
    caught = await failure(answer)
    assert caught.code == code
    assert caught.message
    assert KEY not in caught.message + caught.advice


async def test_a_key_that_the_vendor_repeats_is_masked() -> None:
    caught = await failure(reply({"detail": {"message": f"key {KEY} is wrong"}}, status=400))
    assert KEY not in caught.message
    assert "is wrong" in caught.message
    assert caught.__cause__ is None
    assert caught.__context__ is None


async def test_a_busy_vendor_is_asked_once_more() -> None:
    answers = [reply({}, status=503, retry_after="0"), reply({"token": "t", "conversation_id": "c"})]
    async with raw_server(lambda _: answers.pop(0)) as server:
        assert (await ElevenLabsRest(access(server.url)).token("agent_1"))[0] == "t"
    assert len(server.seen) == 2


async def test_it_goes_through_the_policy_of_its_connection() -> None:
    policy = Policies(SystemClock()).of("ElevenLabs (acme)", retry_options=RetryOptions(first_wait=0.001))
    busy = reply({"detail": {"status": "system_busy", "message": "busy"}}, status=503)
    async with raw_server(lambda _: busy) as server:
        rest = ElevenLabsRest(replace(access(server.url), policy=policy))
        for _ in range(5):
            with pytest.raises(ServiceError, match="503"):
                await rest.token("agent_1")
        assert len(server.seen) == 10
        with pytest.raises(ServiceError) as caught:
            await rest.token("agent_1")
        assert len(server.seen) == 10
    assert caught.value.code == "breaker_open"
    assert (policy.stats.calls, policy.stats.failures, policy.stats.refused_by_breaker) == (6, 5, 1)


async def test_no_answer_in_time() -> None:
    caught = await failure(Reply(b"", then="hang"), seconds=0.3)
    assert caught.category is Category.TIMEOUT


async def test_nobody_listens() -> None:
    async with raw_server(lambda _: reply({})) as server:
        pass
    with pytest.raises(ServiceError) as caught:
        await ElevenLabsRest(access(server.url)).token("agent_1")
    assert caught.value.code == "unreachable"


async def test_cancelled_its_thread_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, left = asyncio.Event(), threading.Event()
    run = elevenlabs_rest._run

    def watched(work: Any) -> Any:
        try:
            return run(work)
        finally:
            left.set()

    async def arrive() -> None:
        arrived.set()

    monkeypatch.setattr(elevenlabs_rest, "_run", watched)
    async with raw_server(lambda _: Reply(b"", then="hang", before=arrive)) as server:
        task = asyncio.create_task(ElevenLabsRest(access(server.url)).token("agent_1"))
        await asyncio.wait_for(arrived.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert left.is_set()


# -- afterwards ---------------------------------------------------------------------------------------


DONE = {
    "status": "done",
    "metadata": {
        "cost": 120,
        "cost_fiat": 0.02,
        "termination_reason": "Max duration exceeded",
        "warnings": ["The voice is deprecated."],
    },
    "transcript": [
        {"role": "user", "message": "hi"},
        {
            "role": "agent",
            "source_event_id": 4,
            "conversation_turn_metrics": {
                "metrics": {
                    "convai_llm_service_ttfb": {"elapsed_time": 0.31},
                    "convai_tts_service_ttfb": {"elapsed_time": 0.12},
                    "brand_new": {"elapsed_time": 1},
                }
            },
        },
    ],
}


def test_cost_latency_and_the_vendors_word_for_the_end() -> None:
    assert messages_of(DONE) == [
        VendorLatency({"llm": 310.0, "tts": 120.0, "brand_new": 1000.0}, 4),
        Cost(0.02, "USD", True),
        Notice("ElevenLabs about the end: Max duration exceeded"),
        Notice("ElevenLabs warns: The voice is deprecated.", "look"),
    ]
    assert messages_of({"status": "processing", "metadata": {"cost": 5}}) == [Cost(5.0, "credits", False)]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"metadata": 1, "transcript": 2},
        {"metadata": {"cost": "x", "cost_fiat": None, "warnings": {}}, "transcript": [None, {"role": 1}]},
        {"transcript": [{"conversation_turn_metrics": {"metrics": {"a": 1, "b": {"elapsed_time": "c"}}}}]},
    ],
)
def test_an_odd_object_tells_nothing(data: dict[str, Any]) -> None:
    assert messages_of(data) == []


async def no_wait(_: float) -> None:
    """The looks come at once."""


async def looked(*answers: Reply) -> tuple[list[Any], RawServer]:
    rest = list(answers)

    def handler(_: Seen) -> Reply:
        return rest.pop(0) if len(rest) > 1 else rest[0]

    async with raw_server(handler) as server:
        found = await read_aftermath(ElevenLabsRest(access(server.url)), "conv_1", sleep=no_wait)
    return found, server


async def test_the_vendor_is_asked_until_it_has_counted_up() -> None:
    early = json.loads(json.dumps(DONE)) | {"status": "processing"}
    found, server = await looked(reply({}, status=404), reply(early), reply(DONE))
    assert Cost(0.02, "USD", True) in found
    assert len(server.seen) == 3


async def test_a_vendor_that_never_counts_up_is_not_asked_for_ever() -> None:
    early = json.loads(json.dumps(DONE)) | {"status": "processing"}
    found, server = await looked(reply(early))
    assert Cost(0.02, "USD", False) in found
    assert len(server.seen) == 5


async def test_a_refusal_ends_the_looking() -> None:
    found, server = await looked(reply({}, status=401))
    assert found == []
    assert len(server.seen) == 1
