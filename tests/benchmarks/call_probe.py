"""Opens the console on a call of 2,000 lines that goes on: levels that move, five messages a second.

    python call_probe.py RESULT.json [SPOKEN]

Like probe.py; SIGUSR1 begins a measurement, SIGUSR2 ends it and writes the result.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import sys
from pathlib import Path
from typing import Any

LINES = 2_000
EVERY = 0.2
"""Seconds between two messages."""


def main() -> int:
    from app.terminal import prepare_environment

    prepare_environment(os.environ)
    from tests.benchmarks.probe import Watch

    watch = Watch(Path(sys.argv[1]))
    watch.install()
    from app import console
    from services.calls.messages import AgentSpeech, ToolEnded, ToolStarted, UserSpeech
    from tests.support.fake_calls import FakeLevels, FakeSession, answer
    from tests.support.fake_services import FakeServices

    class Moving(FakeSession):
        """Levels that differ at each look."""

        looks = itertools.count()

        def meters(self) -> FakeLevels:
            at = next(self.looks)
            bars = tuple(abs(math.sin((at + each) / 3)) for each in range(24))
            return FakeLevels(bars, bars[::-1], -20.0 - at % 9, -30.0 + at % 7)

        def now_ms(self) -> int:
            return self.at

    def fill(session: FakeSession) -> None:
        session.begin()
        for number in range(LINES):
            match number % 4:
                case 0:
                    session.send(
                        UserSpeech(f"Frage {number}: hätten Sie am Donnerstag noch etwas frei?"), after=900
                    )
                case 1:
                    session.send(ToolStarted(f"t{number}", "check_availability", {"day": "thu"}), after=100)
                    session.send(ToolEnded(f"t{number}", '{"slots": ["09:00", "09:30"]}'), after=210)
                case _:
                    answer(
                        session,
                        number,
                        f"Antwort {number}, die so lang ist, dass sie gebrochen wird. " * 2,
                        700,
                    )

    async def feed(session: FakeSession) -> None:
        text = "Ich hätte gern einen Termin am Donnerstag gegen neun Uhr in der Praxis Weber"
        words = text.split()
        for turn in itertools.count():
            for count in range(1, len(words) + 1):
                said = " ".join(words[:count])
                final = count == len(words)
                session.send(
                    UserSpeech(said, final) if turn % 2 else AgentSpeech(said, final, event_id=10_000 + turn),
                    after=round(EVERY * 1000),
                )
                await asyncio.sleep(EVERY)

    class Watched(console.Callboard):
        tasks: list[Any]

        def started(self) -> None:
            super().started()
            session = Moving()
            fill(session)
            services.calls.call(session)
            from screens.calling import open_call

            open_call(self.screen, session)  # type: ignore[arg-type]
            loop = asyncio.get_running_loop()
            self.tasks = [loop.create_task(watch.tick()), loop.create_task(feed(session))]

        async def on_unmount(self) -> None:
            for task in self.tasks:
                task.cancel()
            await super().on_unmount()

    services = FakeServices()
    console.Callboard = Watched  # type: ignore[misc]
    return console.run_console(lambda: services)  # type: ignore[arg-type, return-value]


if __name__ == "__main__":
    sys.exit(main())
