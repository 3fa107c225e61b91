"""The live call: what is seen of it, what every key does, that it goes on without its screen."""

from __future__ import annotations

import random

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from screens.agents import AgentsScreen
from screens.call import CallScreen
from screens.call_dialogs import DeviceDialog
from screens.glyphs import Tone
from screens.replay import ReplayScreen
from services.calls.live import Area
from services.calls.messages import (
    AgentCorrected,
    AgentSpeech,
    Cost,
    Notice,
    StateChanged,
    ToolEnded,
    ToolStarted,
    Typed,
    UserSpeech,
    VendorLatency,
)
from services.calls.model import CallState, Capabilities, EndReason, TransportKind
from services.errors import Category, ServiceError
from tests.support.calling import call_screen, drawn, in_call, services_of
from tests.support.console import console, opened, screen_lines, screen_text, until
from tests.support.fake_calls import (
    TYPED,
    FakeLevels,
    FakeSession,
    conversation,
    refused,
    wants_approval,
    with_history,
)
from tests.support.fake_services import FakeServices

WIDE, NARROW = (140, 40), (80, 24)


async def test_everything_of_a_call_is_seen() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        conversation(await in_call(pilot))
        await drawn(pilot)
        text = screen_text(pilot)
        for words in (
            "Reception DE   ● live 00:23   microphone   echo cancelled",
            "last 1,952 ms   p50 760   p95 1,952   cost 0.21 €",
            "00:03 agent  Guten Tag, Praxis Weber, wie kann ich helfen?",
            "cut off, 6 of 13",
            "check_availability(day=thu, people=1) →",
            "312 ms",
            "offers three slots",
            "neun ist g",
            "-18 dB",
            "-22 dB",
            "p50 760 ms   p95 1,952 ms",
            "asr 120  llm 430  tts 180  network 90",
            "Jabra Evolve",
            "42 ms",
            "6 ms   loss 0 %",
            "2 you, 3 agent   cut off 1",
            "0.21 € so far",
        ):
            assert words in text, words


async def test_what_nobody_told_is_a_dash_and_not_a_zero() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        session.begin()
        await drawn(pilot)
        text = screen_text(pilot)
        assert "last —   p50 —   p95 —   cost —" in text
        assert "round trip   —" in text
        assert "jitter       —   loss —" in text
        assert "no turn yet" in text
        assert "the vendor gives no stages" in text


async def test_at_80_by_24_the_panel_is_a_strip_and_tab_shows_it() -> None:
    async with opened(FakeServices(), NARROW) as pilot:
        conversation(await in_call(pilot))
        await drawn(pilot)
        lines = screen_lines(pilot)
        assert len(lines) == 24
        assert all(len(line) <= 80 for line in lines)
        assert " you " in lines[2]
        assert "-18 dB" in lines[2]
        assert "round trip" not in screen_text(pilot)
        await pilot.press("tab")
        await until(pilot, lambda: "round trip   42 ms" in screen_text(pilot))
        assert "Guten Tag" not in screen_text(pilot)
        await pilot.press("tab")
        await until(pilot, lambda: "Guten Tag" in screen_text(pilot))


async def test_a_partial_becomes_final_in_its_place() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        session.begin()
        session.send(UserSpeech("neun i", final=False), after=1_000)
        await drawn(pilot)
        assert "neun i" in screen_text(pilot)
        session.send(UserSpeech("neun ist gut"), after=400)
        await drawn(pilot)
        assert screen_text(pilot).count("neun") == 1
        assert "neun ist gut" in screen_text(pilot)


async def test_the_levels_move_and_nothing_else_is_painted() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        conversation(session)
        await drawn(pilot)
        screen = call_screen(pilot)
        painted: list[str] = []
        for widget in (screen.bar, screen.transcript, screen.plot, screen.facts, screen.meters, screen.keys):
            original = widget.refresh

            def note(
                *regions: object, _name: str = type(widget).__name__, _do: object = original, **more: object
            ):  # type: ignore[no-untyped-def]
                painted.append(_name)
                return _do(*regions, **more)  # type: ignore[operator]

            widget.refresh = note  # type: ignore[method-assign]
        await pilot.pause(0.3)
        assert painted == []
        session.levels = FakeLevels(input_db=-40.0, input_bars=(0.9, 0.1))
        await until(pilot, lambda: "-40 dB" in screen_text(pilot))
        assert set(painted) == {"Meters"}


# -- the operator -------------------------------------------------------------------------------------


async def test_keys_do_what_they_say() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        session.begin()
        await pilot.press("m")
        await until(pilot, lambda: session.live.muted)
        await drawn(pilot)
        assert "muted" in screen_text(pilot)
        assert "m unmute" in screen_lines(pilot)[-1]
        await pilot.press("m", "x", "p")
        await until(pilot, lambda: session.live.push_to_talk)
        await drawn(pilot)
        assert "closed, space opens it" in screen_text(pilot)
        await pilot.press("space")
        await until(pilot, lambda: session.live.held)
        await drawn(pilot)
        assert "open, space closes it" in screen_text(pilot)
        await pilot.press("space", "p", "e")
        await until(pilot, lambda: session.live.ended)
        assert session.done == [
            ("mute", True),
            ("mute", False),
            ("mark", ""),
            ("push_to_talk", True),
            ("talk", True),
            ("talk", False),
            ("push_to_talk", False),
            ("end", None),
        ]


async def test_typing_stays_open_and_keys_are_letters_there() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot, FakeSession(capabilities=TYPED, kind=TransportKind.TEXT))
        session.begin()
        await pilot.press("t", *"mend", "enter", *"q2", "enter")
        await until(pilot, lambda: ("say", "q2") in session.done)
        assert [each for each in session.done if each[0] == "say"] == [("say", "mend"), ("say", "q2")]
        assert ("activity", None) in session.done
        await drawn(pilot)
        assert "no audio passes through here" in screen_text(pilot)
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, CallScreen)
        assert call_screen(pilot).entry is None
        assert not call_screen(pilot).is_available("mute")
        await pilot.press("i", *"it rains", "enter")
        await until(pilot, lambda: ("inform", "it rains") in session.done)
        await drawn(pilot)
        assert "told   it rains" in screen_text(pilot)
        await pilot.press("X", *"odd", "enter")
        await until(pilot, lambda: ("mark", "odd") in session.done)


async def test_what_the_limits_refuse_stands_in_the_line_again() -> None:
    class Limited(FakeSession):
        async def say(self, text: str, /) -> None:
            if self.done:
                raise ServiceError(
                    "Retell (acme) was not asked: this agent has used up what it may ask within one minute",
                    category=Category.RATE_LIMIT,
                    advice="Wait, or raise limit_minute in the settings",
                    code="limited",
                )
            await super().say(text)

    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot, Limited(capabilities=TYPED, kind=TransportKind.TEXT))
        session.begin()
        session.activity = nothing  # type: ignore[method-assign]
        await pilot.press("t", *"one", "enter", *"two", "enter")
        await until(pilot, lambda: "this agent has used up" in screen_text(pilot))
        entry = call_screen(pilot).entry
        assert entry is not None
        await until(pilot, lambda: entry.query_one(Input).value == "two")
        assert session.done == [("say", "one")]


async def nothing() -> None:
    """Typing tells nobody."""


async def test_a_tool_waits_for_a_yes() -> None:
    async with opened(FakeServices(), NARROW) as pilot:
        session = await in_call(pilot)
        conversation(session)
        await drawn(pilot)
        assert not call_screen(pilot).is_available("approve")
        wants_approval(session)
        await drawn(pilot)
        assert "Let book_appointment run?  with day=thu, time=09:00" in screen_text(pilot)
        assert screen_lines(pilot)[-1].startswith(" a allow  d deny")
        await pilot.press("a")
        await until(pilot, lambda: ("approve", ("m1", True)) in session.done)
        await drawn(pilot)
        assert "Let book_appointment run?" not in screen_text(pilot)


async def test_another_device_during_the_call() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        session.begin()
        await pilot.press("v")
        await until(
            pilot, lambda: isinstance(pilot.app.screen, DeviceDialog) and "HDMI" in screen_text(pilot)
        )
        assert screen_text(pilot).count("in use") == 2
        await pilot.press("down", "enter")
        await until(pilot, lambda: ("switch", ("built-in", None)) in session.done)


async def test_no_device_is_said() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        services_of(pilot).calls.found = ()
        session = await in_call(pilot)
        session.begin()
        await pilot.press("v")
        await until(pilot, lambda: "There is no audio device" in screen_text(pilot))
        assert "typing works without" in screen_text(pilot)


# -- reading ------------------------------------------------------------------------------------------


def transcript_lines(pilot: Pilot[str]) -> list[str]:
    """The transcript at 80 by 24, without its scroll bar."""
    return [line[:79].rstrip() for line in screen_lines(pilot)[4:21]]


def talk(session: FakeSession, count: int) -> None:
    for number in range(count):
        session.send(Typed(f"message {number}"), after=1_000)


async def test_it_follows_its_end_only_while_the_operator_is_there() -> None:
    async with opened(FakeServices(), NARROW) as pilot:
        session = await in_call(pilot)
        session.begin()
        talk(session, 60)
        await drawn(pilot)
        assert "message 59" in screen_text(pilot)
        await pilot.press("pageup")
        await drawn(pilot)
        before = transcript_lines(pilot)
        assert "message 59" not in screen_text(pilot)
        for number in range(3):
            session.send(Typed(f"new {number}"), after=1_000)
        await drawn(pilot)
        assert transcript_lines(pilot) == before
        assert "3 new below, f follows" in screen_text(pilot)
        await pilot.press("f")
        await drawn(pilot)
        assert "new 2" in screen_text(pilot)
        assert "new below" not in screen_text(pilot)
        session.send(Typed("and on"), after=1_000)
        await drawn(pilot)
        assert "and on" in screen_text(pilot)


async def test_nothing_moves_when_the_oldest_lines_go_or_a_line_above_grows() -> None:
    async with opened(FakeServices(), NARROW) as pilot:
        session = await in_call(pilot)
        session.begin()
        talk(session, 1_990)
        session.send(AgentSpeech("short", final=False, event_id=9), after=1_000)
        talk(session, 30)
        await drawn(pilot)
        await pilot.press("up")
        await drawn(pilot)
        before = transcript_lines(pilot)
        session.send(AgentSpeech("long " * 60, event_id=9))
        session.send(Typed("pushes one out"))
        await drawn(pilot)
        assert transcript_lines(pilot) == before


async def test_painting_only_what_changed_leaves_nothing_old_behind() -> None:
    chance = random.Random(11)
    async with opened(FakeServices(), NARROW) as pilot:
        session = await in_call(pilot)
        session.begin()
        transcript = call_screen(pilot).transcript
        for step in range(90):
            words = " ".join(
                ["words", "that", "make", "lines", "of", "any", "length"][: chance.randrange(1, 8)]
            )
            match chance.randrange(7):
                case 0:
                    session.send(UserSpeech(words * chance.randrange(1, 9), chance.random() < 0.4), after=300)
                case 1 | 2:
                    text = words * chance.randrange(1, 12)
                    session.send(AgentSpeech(text, chance.random() < 0.4, step // 4), after=300)
                case 3:
                    session.send(AgentCorrected(words * 9, words, step // 4))
                case 4:
                    session.send(ToolStarted(f"t{step // 5}", "look", {"at": words}))
                case 5:
                    session.send(ToolEnded(f"t{step // 5}", words * chance.randrange(1, 9)))
                case 6:
                    await pilot.press(chance.choice(["up", "up", "down", "pageup", "pagedown", "f", "home"]))
            await drawn(pilot)
            painted = screen_lines(pilot)
            transcript._strips.clear()
            transcript.refresh()
            await drawn(pilot)
            assert screen_lines(pilot) == painted, step


async def test_the_cursor_and_copying() -> None:
    async with opened(FakeServices(), NARROW) as pilot:
        session = await in_call(pilot)
        conversation(session)
        await drawn(pilot)
        await pilot.press("y")
        assert console(pilot).copied == "neun ist g"
        await pilot.press("up", "up", "y")
        assert "▸00:15 mark   offers three slots" in screen_text(pilot)
        assert console(pilot).copied == "offers three slots"
        await pilot.press("Y")
        assert len(console(pilot).copied.splitlines()) == len(session.live.entries)
        await pilot.press("down", "down")
        assert call_screen(pilot).transcript.following


async def test_searching() -> None:
    async with opened(FakeServices(), NARROW) as pilot:
        session = await in_call(pilot)
        session.begin()
        talk(session, 100)
        await drawn(pilot)
        await pilot.press("slash", *"message 1", "enter")
        await drawn(pilot)
        assert "11 of 11 found" in screen_text(pilot)
        assert "message 19" in screen_text(pilot)
        await pilot.press("n")
        await drawn(pilot)
        assert "1 of 11 found" in screen_text(pilot)
        assert "message 1" in screen_text(pilot)
        await pilot.press("N", "N")
        await drawn(pilot)
        assert "10 of 11 found" in screen_text(pilot)
        await pilot.press("escape")
        await drawn(pilot)
        assert "found" not in screen_text(pilot)
        await pilot.press("slash", *"zzz")
        await drawn(pilot)
        assert "nothing found" in screen_text(pilot)


async def test_another_width_breaks_the_lines_anew() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        conversation(await in_call(pilot))
        await drawn(pilot)
        await pilot.resize_terminal(80, 24)
        await drawn(pilot)
        assert "neun ist g" in screen_text(pilot)
        assert all(len(line) <= 80 for line in screen_lines(pilot))
        await pilot.resize_terminal(140, 40)
        await drawn(pilot)
        assert "neun ist g" in screen_text(pilot)
        assert "round trip" in screen_text(pilot)


async def test_control_characters_and_wide_letters_keep_the_columns() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        session.begin()
        session.send(AgentSpeech("\x1b[2Jevil\u202e 漢字かな 👩‍👩‍👧 " * 9, event_id=1), after=100)
        await drawn(pilot)
        strips = pilot.app.screen._compositor.render_strips()
        assert {strip.cell_length for strip in strips} == {140}
        assert "\x1b" not in screen_text(pilot)


# -- the end ------------------------------------------------------------------------------------------


async def test_an_end_with_an_error_says_why_and_what_to_do() -> None:
    async with opened(FakeServices(), NARROW) as pilot:
        session = await in_call(pilot)
        refused(session)
        await drawn(pilot)
        text = " ".join(screen_text(pilot).split())
        assert "✗ The agent does not allow an override: Override for field 'prompt' is not allowed" in text
        assert "(code 1008)" in text
        assert "→ Allow it under Security in the agent's settings, or leave the system prompt out" in text
        assert "✗ ended 00:00" in text
        assert screen_lines(pilot)[-1].startswith(" r call again  o replay  esc back")
        assert not call_screen(pilot).is_available("say")


@pytest.mark.parametrize("reason", list(EndReason))
async def test_every_end_has_words(reason: EndReason) -> None:
    from screens.call_words import end_lines

    session = FakeSession()
    session.begin()
    session.hang_up(reason)
    words, advice = end_lines(session.live)
    assert words
    assert bool(advice) is not reason.well or reason in (EndReason.DECLINED, EndReason.CANCELLED)


async def test_nothing_beats_after_the_end_but_late_figures_are_shown() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        conversation(session)
        session.hang_up(EndReason.AGENT_ENDED)
        await drawn(pilot)
        screen = call_screen(pilot)
        timer = screen._timer
        assert timer is not None
        await until(pilot, lambda: not timer._active.is_set(), "the timer to rest")
        session.send(Cost(0.34, "EUR", True))
        await until(pilot, lambda: "0.34 €" in screen_text(pilot))
        assert "so far" not in screen_text(pilot)


async def test_after_the_end_again_and_replay() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot, FakeSession("old1"))
        with_history(services_of(pilot).calls)
        conversation(session)
        session.hang_up(EndReason.AGENT_ENDED)
        await drawn(pilot)
        assert "The agent ended the call" in screen_text(pilot)
        await pilot.press("o")
        await until(pilot, lambda: isinstance(pilot.app.screen, ReplayScreen))
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, AgentsScreen)
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        session.begin()
        session.hang_up(EndReason.CONNECTION_LOST)
        await drawn(pilot)
        await pilot.press("r")
        await until(pilot, lambda: "Call Reception DE" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: services_of(pilot).calls.requests)
        await until(pilot, lambda: call_screen(pilot).session is not session)
        assert len(pilot.app.screen_stack) == 2


# -- in the background --------------------------------------------------------------------------------


async def test_the_call_goes_on_without_its_screen_and_is_seen_everywhere() -> None:
    async with opened(FakeServices(), NARROW) as pilot:
        session = await in_call(pilot)
        session.begin()
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, AgentsScreen)
        assert session.live.ended is None
        assert session.listeners == 0
        session.at += 134_000
        await until(pilot, lambda: "● live 02:14 Reception DE" in screen_lines(pilot)[0])
        session.send(AgentSpeech("said meanwhile", event_id=1))
        await pilot.press("5")
        await until(pilot, lambda: "● live 02:14" in screen_lines(pilot)[0])
        await pilot.press("0")
        await until(pilot, lambda: "said meanwhile" in screen_text(pilot))
        await pilot.press("escape")
        session.hang_up(EndReason.CONNECTION_LOST)
        await until(pilot, lambda: "Reception DE: The connection was lost" in screen_text(pilot))
        await until(pilot, lambda: "live" not in screen_lines(pilot)[0])
        assert not console(pilot).is_available("go_call")


async def test_leaving_the_program_ends_the_call_properly() -> None:
    for key in ("ctrl+c", "ctrl+q"):
        async with opened(FakeServices()) as pilot:
            session = await in_call(pilot)
            session.begin()
            await pilot.press(key)
            await pilot.pause()
            assert session.done == [("end", None)]
            assert pilot.app._exit


async def test_states_before_it_is_live() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot, FakeSession(kind=TransportKind.PHONE, capabilities=Capabilities()))
        await drawn(pilot)
        assert "Calling Reception DE" in screen_text(pilot)
        session.send(StateChanged(CallState.RINGING, "+49 30 1234567"))
        await drawn(pilot)
        assert "◐ ringing, +49 30 1234567" in screen_text(pilot)
        session.send(Notice("The line is slow", "look", "Wait"))
        await drawn(pilot)
        assert "Calling Reception DE" not in screen_text(pilot)
        assert not call_screen(pilot).is_available("say")
        assert call_screen(pilot).is_available("end_call")


async def test_ascii_and_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    services = FakeServices()
    services.settings.ascii = True
    async with opened(services, WIDE) as pilot:
        session = await in_call(pilot)
        conversation(session)
        wants_approval(session)
        await drawn(pilot)
        text = screen_text(pilot).replace("ä", "").replace("€", "").replace("▊", "")
        assert text.isascii(), sorted({letter for letter in text if not letter.isascii()})
        assert "f      check_availability(day=thu, people=1) ->" in text


async def test_slow_turns_are_amber() -> None:
    async with opened(FakeServices(), WIDE) as pilot:
        session = await in_call(pilot)
        conversation(session)
        session.send(VendorLatency({f"stage {number}": 100.0 for number in range(9)}))
        await drawn(pilot)
        screen = call_screen(pilot)
        rows = screen.plot.rows(44)
        assert {tone for _, tone in rows[0][0]} >= {Tone.LOOK}
        assert len(rows) == 6
        assert Area.LATENCY in set(Area)
