"""The demo's switch, on a simulator that another process started: what it breaks, finds and mends."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from services.demo import INTEGRATIONS, Demo
from tests.support.simulator import RunningSimulator, running_simulator


def demo_on(simulator: RunningSimulator, folder: Path) -> Demo:
    demo = Demo(folder, ("false",))
    names = ("retell", "elevenlabs", "twilio", "partners")
    told = {name: getattr(simulator, f"{name}_url") for name in names}
    demo.announcement.write_text(json.dumps({**told, "key": simulator.key}), encoding="utf-8")
    return demo


async def status(url: str) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).status_code


async def test_every_service_of_the_demo_is_broken_and_mended_alone(tmp_path: Path) -> None:
    async with running_simulator(agents=2) as simulator:
        demo = demo_on(simulator, tmp_path)
        places = await demo.partner_addresses()
        urls = {one.service: f"{places[name]}/x" for name, one in INTEGRATIONS.items()}
        urls |= {"retell": f"{simulator.retell_url}/x", "elevenlabs": f"{simulator.elevenlabs_url}/x"}
        for service in urls:
            await demo.break_service(service, "503")
            assert {name for name, url in urls.items() if await status(url) == 503} == {service}
            assert await demo.faults_of(service) == [f"503:{service}"]
            await demo.mend_service(service)
            assert await status(urls[service]) != 503
        await demo.aclose()


async def test_what_was_broken_from_the_command_line_is_found_and_mended(tmp_path: Path) -> None:
    async with running_simulator(agents=2) as simulator:
        demo = demo_on(simulator, tmp_path)
        agent = (await simulator.agents("retell"))[0]["agent_id"]
        for spec in ("hang:partners", f"500:{agent}", "429:retell:25%", "503:list"):
            await simulator.fault(spec)
        assert await demo.faults_of("hubspot") == ["hang:partners", "503:list"]
        assert await demo.faults_of("twilio") == ["503:list"]
        assert await demo.faults_of("retell") == ["429:retell:25%", "503:list"]
        await demo.mend_service("hubspot")
        await demo.mend_service("retell")
        assert [fault["fault"] for fault in await simulator.faults()] == [f"500:{agent}"]


def test_checks_are_known_by_what_they_watch(tmp_path: Path) -> None:
    demo = Demo(tmp_path, ("false",))
    assert demo.service_of("provider:Harbour Dental/retell", "Retell") == "retell"
    assert demo.service_of("integration:3", "SMS") == "twilio"
    assert demo.service_of("integration:9", "My own") == ""
    assert demo.service_of("system:disk", "HubSpot") == ""
