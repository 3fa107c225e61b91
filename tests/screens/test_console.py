"""The app itself: what nobody expected, the end, the clipboard; and the terminal around it."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import pty
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
from textual.pilot import Pilot

from app.console import Callboard
from app.terminal import SteadyFile, flush_interval, prepare_environment, terminal_problem, watch_hangup
from screens.dialogs import UnlockDialog
from services.errors import ServiceError, VaultLocked
from services.events import HealthChanged, ScheduleChanged
from tests.support.console import console, home, opened, screen_lines, screen_text, settled, until
from tests.support.fake_services import FakeSecrets, FakeServices

SECRET = "key_live_0123456789abcdef0123"


async def test_a_crash_leaves_a_report_without_local_variables(tmp_path: Path) -> None:
    app = Callboard(FakeServices())

    def crash() -> None:
        key = SECRET
        print(len(key) // 0)

    async def run() -> None:
        async with app.run_test() as pilot:
            await pilot.pause()
            app.call_later(crash)
            await pilot.pause()
            await pilot.pause()

    with pytest.raises(ZeroDivisionError):
        await run()
    assert app.failure is not None
    reports = list((tmp_path / "logs").glob("crash-*.txt"))
    assert len(reports) == 1
    text = reports[0].read_text()
    assert "ZeroDivisionError" in text
    assert SECRET not in text
    assert str(reports[0]) in app.failure.advice
    assert app.return_code == 1


async def test_what_was_frozen_may_be_collected_after_the_end() -> None:
    async with opened(FakeServices()) as pilot:
        await until(pilot, lambda: gc.get_freeze_count() > 0)
    assert gc.get_freeze_count() == 0


async def test_what_a_start_leaves_behind_is_not_kept_for_good() -> None:
    class Left:
        itself: Left

    gc.disable()  # as the command does until the first picture
    try:
        left = Left()
        left.itself = left
        gone = weakref.ref(left)
        del left
        async with opened(FakeServices()) as pilot:
            await until(pilot, lambda: gc.get_freeze_count() > 0)
            assert gone() is None
            assert gc.isenabled()
    finally:
        gc.enable()


async def test_a_failing_worker_is_never_silent() -> None:
    async with opened(FakeServices()) as pilot:
        app = console(pilot)

        async def fail() -> None:
            raise ServiceError("the disk is full", advice="Make room on it")

        app.perform(fail)
        await until(pilot, lambda: "the disk is full" in screen_text(pilot))
        assert "Make room on it" in screen_text(pilot)
        app.run_worker(fail(), exit_on_error=False)
        await settled(pilot)
        assert app.is_running


async def test_what_stands_there_is_not_said_twice() -> None:
    async with opened(FakeServices()) as pilot:
        app = console(pilot)
        for _ in range(3):
            app.tell("the disk is full", "Make room on it", failed=True)
        app.tell("the disk is full", failed=True)
        await settled(pilot)
        assert len(app._notifications) == 2
        assert screen_text(pilot).count("Make room on it") == 1


AWAY = ServiceError("db.example cannot be reached: Connection refused", advice="Check that the server runs")


async def away(services: FakeServices, pilot: Pilot[str], gone: bool) -> None:
    """Let the database go or come back, and the console look twice."""
    services.agents.failure = AWAY if gone else None
    pulse = console(pilot)._pulse
    for _ in range(2):
        pulse._poll()
        await settled(pilot)
        await until(pilot, lambda: pulse._polling is not None and pulse._polling.done())


@pytest.mark.parametrize(("width", "since"), [(80, "✗ stale 13:00"), (120, "✗ stale since 13:00")])
async def test_a_database_that_is_away_is_told_once_and_what_was_read_is_marked_stale(
    width: int, since: str
) -> None:
    services = FakeServices()
    async with opened(services, (width, 30)) as pilot:
        reads = list(home(pilot).board.shown)
        await away(services, pilot, gone=True)
        await until(pilot, lambda: since in screen_lines(pilot)[0])
        assert "acme" in screen_lines(pilot)[0] or width < 100
        assert home(pilot).board.shown == reads
        assert "Check that the server runs" in screen_lines(pilot)[-2]
        assert len(console(pilot)._notifications) == 1
        console(pilot).clear_notifications()
        services.bus.publish(HealthChanged())
        await settled(pilot)
        await away(services, pilot, gone=True)
        assert since in screen_lines(pilot)[0]
        assert len(console(pilot)._notifications) == 0
        await away(services, pilot, gone=False)
        await until(pilot, lambda: "stale" not in screen_lines(pilot)[0])
        assert "last sync" in screen_lines(pilot)[-2]


async def test_a_database_that_comes_late_starts_what_works_by_itself() -> None:
    class Late(FakeServices):
        async def warm(self) -> None:
            await self.agents.cards()

    services = Late()
    services.agents.failure = AWAY
    app = Callboard(services)
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await until(pilot, lambda: "cannot be reached" in screen_text(pilot))
        await away(services, pilot, gone=True)
        assert not services.started
        await away(services, pilot, gone=False)
        await until(pilot, lambda: services.started and app.live.board.loaded)


async def test_markup_in_remote_text_stays_text() -> None:
    async with opened(FakeServices()) as pilot:
        console(pilot).tell("[red]not markup[/red] [/]")
        await until(pilot, lambda: "[red]not markup[/red] [/]" in screen_text(pilot))


async def test_a_store_that_locks_itself_is_shown_locked() -> None:
    services = FakeServices(secrets=FakeSecrets("encrypted file"))
    async with opened(services) as pilot:
        services.secrets.locked = True
        console(pilot).tell_error(VaultLocked("The keys are locked", advice="Press ctrl+u"))
        await until(pilot, lambda: home(pilot).live.secret_locked)


class SlowServices(FakeServices):
    """Whose heavy part is loaded when the test says so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.warmed = asyncio.Event()
        self.opened = 0

    async def warm(self) -> None:
        await self.warmed.wait()

    async def open_secrets(self) -> FakeSecrets:
        self.opened += 1
        return self.secrets


def seen_early(*, locked: bool) -> SlowServices:
    services = SlowServices(
        secrets=FakeSecrets("encrypted file", locked=locked), glance=("encrypted file", locked)
    )
    services.next_sync = services.clock.now() + 3_600_000
    return services


async def test_the_first_picture_is_complete_before_anything_heavy_is_loaded() -> None:
    services = seen_early(locked=False)
    app = Callboard(services)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: app.live.board.loaded and "1 Agents" in screen_text(pilot))
        await pilot.pause()
        early = screen_text(pilot)
        assert "encrypted file" in early.splitlines()[0]
        assert "next sync" in early.splitlines()[0]
        assert not services.started
        drawn: list[object] = []
        display = app._display
        app._display = lambda screen, update: (drawn.append(update), display(screen, update))  # type: ignore[method-assign, assignment, func-returns-value]
        services.warmed.set()
        await until(pilot, lambda: services.started)
        services.bus.publish(ScheduleChanged(services.next_sync))
        await settled(pilot)
        assert screen_text(pilot) == early
        assert not [update for update in drawn if update is not None]


async def test_a_key_that_needs_the_locked_store_asks_even_before_the_store_is_loaded() -> None:
    services = seen_early(locked=True)
    app = Callboard(services)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: "encrypted file, locked" in screen_text(pilot))
        assert services.opened == 0
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, UnlockDialog))
        services.warmed.set()


async def test_a_store_that_does_not_open_is_not_shown_as_if_it_did() -> None:
    class Broken(SlowServices):
        async def open_secrets(self) -> FakeSecrets:
            raise ServiceError("The keyring is silent", advice="Wake it")

    services = Broken(glance=("keyring", False), next_sync=FakeServices().clock.now() + 3_600_000)
    app = Callboard(services)
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, lambda: "keyring" in screen_lines(pilot)[0])
        services.warmed.set()
        await until(pilot, lambda: "The keyring is silent" in screen_text(pilot))
        await until(pilot, lambda: "keyring" not in screen_lines(pilot)[0])
        assert "next sync" not in screen_lines(pilot)[0]


async def test_what_was_copied_can_be_shown() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("y", "ctrl+y")
        await until(pilot, lambda: "Copied text" in screen_text(pilot))
        assert home(pilot).board.shown[0].agent_id in screen_text(pilot)


async def test_ending_stops_every_task() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        app = console(pilot)
        await pilot.press("q")
        await pilot.pause()
    assert not app._pulse._tasks
    assert not services.bus._listeners


def test_the_environment_before_textual() -> None:
    environ = {"SSH_CONNECTION": "1 2 3 4", "TERM": "xterm"}
    prepare_environment(environ)
    assert environ["TEXTUAL_FPS"] == "15"
    assert flush_interval(environ) == 0.1
    local: dict[str, str] = {"TERM": "dumb"}
    prepare_environment(local)
    assert "TEXTUAL_FPS" not in local
    assert local["NO_COLOR"] == "1"
    assert flush_interval(local) == 0.05
    chosen = {"SSH_TTY": "x"}
    prepare_environment(chosen, fps=5)
    assert chosen["TEXTUAL_FPS"] == "5"


def test_no_terminal_is_one_sentence() -> None:
    problem = terminal_problem(io.StringIO(), io.StringIO())
    assert problem == "The console needs a terminal, and standard input is not one"
    assert terminal_problem(None, None) is not None


def test_a_hang_up_is_noticed() -> None:
    master, slave = pty.openpty()
    lost = threading.Event()
    stop = watch_hangup(slave, lost.set)
    try:
        assert not lost.is_set()
        os.close(master)
        assert lost.wait(10)
    finally:
        stop()
        stop()
        os.close(slave)


def test_writing_to_a_dead_terminal_is_no_error() -> None:
    class Dead:
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        flush = fileno = write

    file = SteadyFile(Dead())
    assert file.write("abc") == 3


def test_opening_imports_nothing_heavy() -> None:
    heavy = (
        "httpx",
        "sqlmodel",
        "sqlalchemy",
        "pydantic",
        "keyring",
        "apscheduler",
        "cryptography",
        "textual.widgets._data_table",
    )
    code = f"import sys, app.console; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_terminal_module_is_light() -> None:
    code = "import sys, app.terminal; print([name for name in ('textual', 'asyncio') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
