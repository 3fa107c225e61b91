"""Makes the README's pictures from the program itself: the demo with one agent broken at the vendor; a call;
the health while one vendor answers 503.

.venv/bin/python tests/screens/make_pictures.py
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from importlib import resources
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
SIZE = (120, 34)
CALL_SIZE = (120, 26)
HEALTH_SIZE = (120, 24)


async def agents_screen() -> str:
    """The agents screen as SVG, once the demo is synced and its first agent's failure is on its card."""
    from app.console import Callboard
    from app.runtime import open_services
    from services.events import SyncFinished

    services = open_services(demo=True)
    finished = asyncio.Event()
    services.bus.subscribe(SyncFinished, lambda event: finished.set())
    app = Callboard(services)
    async with app.run_test(size=SIZE) as pilot:
        for keys in ((), ("B", "f"), ("right", "S")):
            if keys:
                finished.clear()
                await pilot.press(*keys)
            await asyncio.wait_for(finished.wait(), 30)
            await pilot.pause(0.5)
        return app.export_screenshot(title="callboard")


async def call_screen() -> str:
    """A scripted call as SVG, at the moment in which a tool waits for the operator's yes."""
    from textual.widgets import Input

    from app.console import Callboard
    from app.runtime import open_services
    from services.events import SyncFinished

    services = open_services(demo=True)
    synced = asyncio.Event()
    services.bus.subscribe(SyncFinished, lambda event: synced.set())
    script = resources.files("services.calls.scenario") / "examples" / "booking.yaml"
    app = Callboard(services)
    async with app.run_test(size=CALL_SIZE) as pilot:
        await asyncio.wait_for(synced.wait(), 30)
        await pilot.press("slash", *"hotel", "enter", "c")
        await pilot.pause(1)
        await pilot.press("left")
        await pilot.pause(0.2)
        app.screen.query_one("#scenario", Input).value = str(script)
        await pilot.press("enter")
        asked = asyncio.Event()
        async with asyncio.timeout(90):
            while not services.calls.active:
                await pilot.pause(0.1)
            (session,) = services.calls.active
            session.subscribe(lambda areas: asked.set() if session.live.waiting_approval else None)
            await asked.wait()
        await pilot.pause(0.3)
        return app.export_screenshot(title="callboard")


async def health_screen() -> str:
    """The health screen as SVG: Retell has been failing for some probes, its agents wait for it."""
    import httpx

    from app.console import Callboard
    from app.runtime import open_services
    from services.events import SyncFinished
    from services.health.model import HealthState
    from services.model import Provider

    services = open_services(demo=True)
    synced = asyncio.Event()
    services.bus.subscribe(SyncFinished, lambda event: synced.set())
    app = Callboard(services)
    async with app.run_test(size=HEALTH_SIZE) as pilot:
        await asyncio.wait_for(synced.wait(), 30)
        await pilot.press("4")
        for _ in range(14):
            await services.health.check_now()
        assert services.demo is not None
        addresses = await services.demo.addresses()
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"{addresses[Provider.RETELL]}/__faults"
            (await client.post(url, json={"fault": "503:retell"})).raise_for_status()
        for _ in range(6):
            await services.health.check_now()
        async with asyncio.timeout(30):
            while not any(each.state is HealthState.DOWN for each in services.health.view().checks):
                await services.health.check_now()
        await pilot.press("home")
        await pilot.pause(1)
        return app.export_screenshot(title="callboard")


def without_fonts(svg: str) -> str:
    """The picture without the fonts it would load from the network."""
    return re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for name, take in (("agents", agents_screen), ("call", call_screen), ("health", health_screen)):
        with tempfile.TemporaryDirectory() as home:
            os.environ.update(CALLBOARD_HOME=home, COLORTERM="truecolor", TERM="xterm-256color")
            os.environ.pop("NO_COLOR", None)
            (PICTURES / f"{name}.svg").write_text(without_fonts(asyncio.run(take())), encoding="utf-8")


if __name__ == "__main__":
    main()
