"""The grammar of faults, and what each one does on a real socket."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from services.errors import UsageError
from services.model import Provider
from services.simulator import FAULT_HELP, parse_fault
from tests.support.simulator import RunningSimulator, running_simulator

LIST = "/v2/list-agents"


def test_a_fault_is_read_with_its_parts_in_any_order() -> None:
    fault = parse_fault("429:x3:retell:retry-after=2:25%:list")
    assert (fault.kind, fault.status, fault.provider, fault.route_kind) == (
        "429",
        429,
        Provider.RETELL,
        "list",
    )
    assert (fault.count, fault.probability, fault.options) == (3, 0.25, {"retry-after": "2"})
    assert parse_fault("500:Reception DE").target == "Reception DE"
    assert parse_fault("drop:agent_1:at=body").options == {"at": "body"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "no kind"),
        ("trunkate", "did you mean truncate"),
        ("200", "no kind"),
        ("500:x0", "never strike"),
        ("500:0%", "probability"),
        ("500:101%", "probability"),
        ("429:retry-after=soon", "is a number"),
        ("500:retry-after=2", "no option “retry-after”"),
        ("drop:at=end", "start or body"),
        ("500::x2", "empty"),
        ("500:agent_1:agent_2", "two targets"),
    ],
)
def test_a_wrong_fault_says_what_is_wrong(spec: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_fault(spec)


async def test_status_faults_with_and_without_retry_after(
    simulator: RunningSimulator, retell: httpx.AsyncClient, elevenlabs: httpx.AsyncClient
) -> None:
    await simulator.fault("429:retell:retry-after=2:x1")
    first, second = await retell.post(LIST), await retell.post(LIST)
    assert (first.status_code, first.headers["retry-after"], second.status_code) == (429, "2", 200)
    await simulator.fault("429")
    response = await elevenlabs.get("/v1/convai/agents")
    assert response.status_code == 429
    assert "retry-after" not in response.headers
    assert response.json()["detail"]["status"] == "too_many_concurrent_requests"
    assert (await retell.post(LIST)).status_code == 429
    await simulator.clear_faults()
    assert (await retell.post(LIST)).status_code == 200


async def test_a_fault_for_one_agent_leaves_the_others_alone(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    broken, fine = [agent["agent_id"] for agent in await simulator.agents("retell")][:2]
    await simulator.fault("500:Reception DE")
    assert (await retell.get(f"/get-agent/{broken}")).status_code == 500
    assert (await retell.get(f"/get-agent/{fine}")).status_code == 200
    assert (await retell.post(LIST)).status_code == 200
    assert (await simulator.stats())["faults"] == 1


PARTNER_PATHS = {
    "hubspot": "/hubspot/crm/v3/objects/contacts",
    "whatsapp": "/whatsapp/v23.0/1",
    "openai": "/llm/v1/models",
    "anthropic": "/llm/anthropic/v1/models",
    "opentable": "/opentable/inventory",
    "toast": "/toast/restaurants/v1/restaurants/x",
    "doctolib": "/doctolib/agendas",
    "knowledge": "/knowledge/documents",
    "crm": "/crm/contacts",
    "bookings": "/bookings/partners",
    "messages-gateway": "/messages-gateway/messages",
}
"""A path of every partner, whether or not anything is there."""


async def answers(simulator: RunningSimulator) -> dict[str, int]:
    """What each partner answers a stranger: 503 where the fault strikes."""
    async with httpx.AsyncClient(base_url=simulator.partners_url) as client:
        return {name: (await client.get(path)).status_code for name, path in PARTNER_PATHS.items()}


@pytest.mark.parametrize(
    ("target", "struck"),
    [
        ("partners", set(PARTNER_PATHS)),
        ("llm", {"openai", "anthropic"}),
        ("HubSpot", {"hubspot"}),
        *((name, {name}) for name in PARTNER_PATHS),
    ],
)
async def test_partners_fail_together_or_each_alone(
    simulator: RunningSimulator, retell: httpx.AsyncClient, target: str, struck: set[str]
) -> None:
    await simulator.fault(f"503:{target}")
    assert {name for name, status in (await answers(simulator)).items() if status == 503} == struck
    assert (await retell.post(LIST)).status_code == 200
    assert (await retell.delete(f"/__faults?target={target}")).json() == {"cleared": 1}
    assert 503 not in (await answers(simulator)).values()


async def test_the_help_names_every_partner(simulator: RunningSimulator) -> None:
    for name in PARTNER_PATHS:
        assert name in FAULT_HELP
    with pytest.raises(ValueError, match="did you mean “partners”"):
        await simulator.fault("hang:partner")


async def test_a_vendor_is_mended_and_its_agents_stay_broken(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    agent_id = (await simulator.agents("retell"))[0]["agent_id"]
    for spec in ("503:retell", "503:retell:list", "503:elevenlabs", f"500:retell:{agent_id}"):
        await simulator.fault(spec)
    of_retell = (await retell.get("/__faults?target=retell")).json()["faults"]
    assert [fault["fault"] for fault in of_retell] == ["503:retell", "503:retell:list"]
    assert (await retell.delete("/__faults?target=Retell")).json() == {"cleared": 2}
    assert [fault["fault"] for fault in await simulator.faults()] == [
        "503:elevenlabs",
        f"500:retell:{agent_id}",
    ]
    refused = await retell.delete("/__faults?target=nobody")
    assert (refused.status_code, "nobody" in refused.json()["error"]) == (404, True)


async def test_bodies_that_are_no_good(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    good = await retell.post(LIST)
    for spec in ("truncate:x1", "html:x1", "shape:x1", "reorder:x1"):
        await simulator.fault(spec)
    truncated = await retell.post(LIST)
    assert good.content.startswith(truncated.content)
    with pytest.raises(json.JSONDecodeError):
        truncated.json()
    page = await retell.post(LIST)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await retell.post(LIST)).json() == ["unexpected"]
    reordered = await retell.post(LIST)
    assert reordered.json() == good.json()
    assert reordered.content != good.content


async def test_connections_that_break(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    await simulator.fault("drop:x1")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await retell.post(LIST)
    await simulator.fault("drop:at=body:x1")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await retell.post(LIST)
    assert (await retell.post(LIST)).status_code == 200
    assert (await simulator.stats())["by_status"] == {"dropped": 2, "200": 1}


async def test_a_hanging_request_ends_with_the_simulator() -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        async with running_simulator(agents=1, faults=("hang:retell",)) as simulator:
            headers = {"authorization": f"Bearer {simulator.key}"}
            waiting = asyncio.create_task(client.post(simulator.retell_url + LIST, headers=headers))
            while (await simulator.stats())["in_flight"] == 0:
                assert not waiting.done()
        with pytest.raises(httpx.TransportError):
            await waiting


async def test_a_slow_body_arrives_in_pieces(simulator: RunningSimulator, retell: httpx.AsyncClient) -> None:
    whole = await retell.post(LIST)
    await simulator.fault("slow:ms=200")
    async with retell.stream("POST", LIST) as response:
        pieces = [piece async for piece in response.aiter_raw()]
    assert len(pieces) > 2
    assert b"".join(pieces) == whole.content


async def test_revoked_keys_and_missing_permissions(
    simulator: RunningSimulator, retell: httpx.AsyncClient, elevenlabs: httpx.AsyncClient
) -> None:
    await simulator.fault("revoke:retell")
    await simulator.fault("permission:elevenlabs")
    assert (await retell.get("/get-api-key-info")).status_code == 401
    response = await elevenlabs.get("/v1/convai/agents?page_size=1")
    assert (response.status_code, response.json()["detail"]["status"]) == (401, "missing_permissions")


async def test_faults_are_cleared_for_one_agent_or_all(
    simulator: RunningSimulator, retell: httpx.AsyncClient
) -> None:
    agent_id = (await simulator.agents("retell"))[0]["agent_id"]
    for spec in (f"500:{agent_id}", "429:x9", "404:Booking Bot"):
        await simulator.fault(spec)
    cleared = await retell.delete(f"/__faults?target={agent_id}")
    assert cleared.json() == {"cleared": 1}
    assert [fault["fault"] for fault in await simulator.faults()] == ["429:x9", "404:Booking Bot"]
    await simulator.clear_faults()
    assert await simulator.faults() == []


async def test_an_unknown_target_names_the_nearest(simulator: RunningSimulator) -> None:
    with pytest.raises(ValueError, match="did you mean “Reception DE”"):
        await simulator.fault("500:Receptoin DE")
    with pytest.raises(UsageError, match="no object “nobody”"):
        async with running_simulator(agents=2, faults=("500:nobody",)):
            pass


async def test_latency_holds_many_requests_at_once() -> None:
    async with running_simulator(agents=4, latency_ms=300) as simulator:
        headers = {"authorization": f"Bearer {simulator.key}"}
        async with httpx.AsyncClient(base_url=simulator.retell_url, headers=headers) as client:
            await asyncio.gather(*(client.post(LIST) for _ in range(20)))
        stats = await simulator.stats()
    assert stats["requests"] == stats["retell"]["requests"] == 20
    assert stats["max_in_flight"] > 10
    assert stats["by_kind"] == {"list": 20}


async def test_stats_count_by_kind_and_can_be_reset(
    simulator: RunningSimulator, retell: httpx.AsyncClient, elevenlabs: httpx.AsyncClient
) -> None:
    agent_id = (await simulator.agents("retell"))[0]["agent_id"]
    await retell.post(LIST)
    await retell.get(f"/get-agent/{agent_id}")
    await retell.get(f"/list-agent-versions/{agent_id}")
    await elevenlabs.get("/v1/convai/agents")
    stats = await simulator.stats()
    assert stats["by_kind"] == {"list": 2, "detail": 1, "versions": 1}
    assert stats["elevenlabs"]["by_route"] == {"GET /v1/convai/agents": 1}
    assert (await elevenlabs.get("/__stats")).json() == stats
    await simulator.reset_stats()
    assert (await simulator.stats())["requests"] == 0
