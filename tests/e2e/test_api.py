"""The HTTP API of a real `callboard serve`, over real health checks of the simulated vendors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from app.api import models
from app.paths import Paths
from tests.support.program import CALLBOARD, callboard, connect, real_environment
from tests.support.simulator import running_simulator

TOKEN = "canary-e2e-token-0a1b2c3d4e5f"
PATIENCE = 60


@contextlib.asynccontextmanager
async def served(home: Path, *words: str, **environment: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a `callboard serve` that probes every second; it must end by itself at SIGTERM."""
    variables = {
        "CALLBOARD_API_TOKEN": TOKEN,
        "CALLBOARD_HEALTH_INTERVAL": "1",
        "CALLBOARD_HOURLY_SYNC": "off",
        "CALLBOARD_DAILY_SYNC": "off",
        **environment,
    }
    process = await asyncio.create_subprocess_exec(
        *(*CALLBOARD, "serve", "--port", "0", "--json", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=real_environment(home, **variables),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while (event := json.loads(await process.stdout.readline()))["event"] != "listening":
                pass
        async with httpx.AsyncClient(base_url=event["urls"][0], timeout=PATIENCE) as client:
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            yield client
        process.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert (process.returncode, b"Traceback" in err) == (0, False), err.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def told(client: httpx.AsyncClient, path: str, until: Callable[[Any], bool]) -> Any:
    """The document at this address, once it is as it should become."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await client.get(path)
            if answer.status_code != 404 and until(answer.json()):
                return answer.json()
            await asyncio.sleep(0.2)


async def test_health_follows_the_vendors(own_environment: Path) -> None:
    home = own_environment
    async with running_simulator(agents=6) as simulator:
        await asyncio.to_thread(connect, home, simulator)
        assert (await asyncio.to_thread(callboard, home, "sync")).code == 0
        async with served(home) as client:
            well = await told(
                client, "/health/", lambda told: told["kinds"]["provider"]["up"] == 2
                and told["kinds"]["agent"]["up"] + told["kinds"]["agent"]["degraded"] == 6,
            )  # fmt: skip
            models.Health.model_validate(well)
            assert well["status"] == "up"
            assert (await client.get("/readyz")).json() == {"status": "ready"}
            listed = (await client.get("/health/agents")).json()
            models.Agents.model_validate(listed)
            name = listed["agents"][0]["name"]
            found = (await client.get(f"/health/agents/{name}")).json()
            models.Agent.model_validate(found)
            assert name in {agent["name"] for agent in found["agents"]}

            await simulator.fault("503:retell")
            ill = await told(client, "/health/", lambda told: told["overall"] == "unhealthy")
            assert "Retell" in ill["reason"]
            assert (await client.get("/health/")).status_code == 503
            anonymous = await client.get("/health/", headers={"Authorization": ""})
            assert anonymous.status_code == 401  # an empty token is a wrong one
            providers = (await client.get("/health/dependencies")).json()["dependencies"]
            models.Dependencies.model_validate((await client.get("/health/dependencies")).json())
            assert {p["name"]: p["state"] for p in providers if p["kind"] == "provider"}["ElevenLabs"] == "up"
            await scraped(client, "callboard_health 2\n")

            await simulator.clear_faults()
            await told(client, "/health/", lambda told: told["kinds"]["provider"]["up"] == 2)
            for path in ("/health/", "/health/agents", "/health/dependencies", "/metrics", "/openapi.json"):
                text = (await client.get(path)).text
                assert simulator.key not in text
                assert TOKEN not in text
    logs = "".join(path.read_text(errors="replace") for path in Paths(home).log_dir.iterdir())
    assert "GET /health/ 503" in logs
    assert simulator.key not in logs
    assert TOKEN not in logs


async def scraped(client: httpx.AsyncClient, wanted: str) -> None:
    """Return once Prometheus would read this."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if wanted in (await client.get("/metrics")).text:
                return
            await asyncio.sleep(0.2)


async def test_generated_requests_over_a_socket(own_environment: Path) -> None:
    """As somebody with the OpenAPI document and no token would try it."""
    async with served(own_environment) as client:
        await told(client, "/readyz", lambda told: told["status"] == "ready")
        base = str(client.base_url)
        await asyncio.to_thread(fuzz, base)
        assert (await client.get("/livez")).status_code == 200


def fuzz(base: str) -> None:
    config = schemathesis.Config.from_dict({"generation": {"mode": "all", "with-security-parameters": False}})
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json", config=config)
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def one(case: schemathesis.Case) -> None:
            response = case.call(base_url=base)
            case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])
            assert response.status_code < 500, response.text
            public = ("/livez", "/readyz", "/health/")
            if case.path not in public and not case.path.startswith("/webhooks/"):
                assert response.status_code in (401, 404)

        one()


async def test_the_port_is_free_again_at_once_after_a_kill(own_environment: Path) -> None:
    words = [*CALLBOARD, "serve", "--json", "--port"]
    environment = real_environment(own_environment, CALLBOARD_API_TOKEN=TOKEN, CALLBOARD_HEALTH="off")
    port = "0"
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *words, port, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=environment
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                while (event := json.loads(await process.stdout.readline()))["event"] != "listening":
                    pass
            port = event["urls"][0].rpartition(":")[2]
            async with httpx.AsyncClient(base_url=event["urls"][0]) as client:
                assert (await client.get("/livez")).status_code == 200
                process.kill()
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.parametrize("words", [["--host", "0.0.0.0"], ["--host", "::"]])
def test_a_public_address_without_a_token_is_refused(own_environment: Path, words: list[str]) -> None:
    ended = callboard(own_environment, "serve", "--port", "0", *words)
    assert ended.code == 2, ended
    assert "no token is set" in ended.err
