"""Makes the README's picture from the program itself: the demo, with one agent broken at the vendor.

.venv/bin/python tests/screens/make_pictures.py
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from pathlib import Path

PICTURE = Path(__file__).parent / "pictures" / "agents.svg"
SIZE = (120, 34)


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


def without_fonts(svg: str) -> str:
    """The picture without the fonts it would load from the network."""
    return re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(CALLBOARD_HOME=home, COLORTERM="truecolor", TERM="xterm-256color")
        os.environ.pop("NO_COLOR", None)
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(without_fonts(asyncio.run(agents_screen())), encoding="utf-8")


if __name__ == "__main__":
    main()
