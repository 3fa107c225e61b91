"""The health screen without a screen: words, figures, the filter, panels and folds, the past in columns."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from screens.glyphs import ASCII, UNICODE, Tone
from screens.health_board import Fold, HealthBoard
from screens.health_dialogs import parse_minutes
from screens.health_filter import parse_health_filter
from screens.health_history import bins
from screens.health_lines import why_pieces
from screens.health_words import (
    Part,
    Standing,
    age_words,
    breaker_words,
    budget_words,
    copy_text,
    countdown,
    figure,
    fit_parts,
    parts_of,
    percent,
    prober_words,
    spark_text,
    standing_of,
    strip_pieces,
    tightest,
)
from screens.textfit import width_of
from services.errors import UsageError
from services.health.model import CheckKind, CheckView, HealthState, HealthView, HistoryPoint, Overall
from services.resilience import BreakerState, BreakerView, Budget, Level
from tests.support.fake_health import (
    DEGRADED,
    DOWN,
    HOUR,
    MAINTENANCE,
    NOON,
    PENDING,
    UP,
    agents,
    beats,
    check,
    healthy,
    never_probed,
    outage,
)

ZONE = "Europe/Berlin"


def text_of(view: CheckView, width: int = 200, elapsed: float = 0.0) -> str:
    parts = parts_of(view, NOON, ZONE, elapsed)
    return "".join(text for text, _ in fit_parts(parts, width, UNICODE))


# -- words ----------------------------------------------------------------------------------------


def test_uptime_is_never_rounded_up() -> None:
    assert percent(1.0, UNICODE) == "100 %"
    assert percent(0.99999, UNICODE) == "99.9 %"
    assert percent(0.987, UNICODE) == "98.7 %"
    assert percent(0.0, UNICODE) == "0.0 %"
    assert percent(None, UNICODE) == "—"
    assert percent(None, ASCII) == "-"


def test_figures_and_countdowns() -> None:
    assert [figure(ms, UNICODE) for ms in (None, 0.4, 210.2, 1240, 12_345)] == [
        "—",
        "0 ms",
        "210 ms",
        "1,240 ms",
        "12.3 s",
    ]
    assert [countdown(seconds) for seconds in (0.2, 11.5, 99, 125)] == ["1 s", "12 s", "99 s", "2 min 05 s"]


def test_the_age_moves_in_steps() -> None:
    ages = [age_words(NOON - seconds * 1000, NOON) for seconds in (0, 4, 5, 9, 59, 60, 7200, 400_000)]
    assert ages == [
        "checked just now",
        "checked just now",
        "checked 5 s ago",
        "checked 5 s ago",
        "checked 55 s ago",
        "checked 1 min ago",
        "checked 2 h ago",
        "checked 4 d ago",
    ]
    assert age_words(None, NOON) == "not checked yet"


def test_a_breaker_counts_down_and_then_tries() -> None:
    shut = BreakerView(BreakerState.OPEN, reopens_in=12.0)
    assert breaker_words(shut, 0.0) == ("open 12 s", Tone.ACT)
    assert breaker_words(shut, 4.2)[0] == "open 8 s"
    assert breaker_words(shut, 12.5)[0] == "tries next"
    assert breaker_words(BreakerView(BreakerState.HALF_OPEN), 0.0) == ("half open", Tone.LOOK)
    assert breaker_words(BreakerView(BreakerState.CLOSED), 0.0) == ("closed", Tone.MUTED)


def test_the_tightest_budget_is_told() -> None:
    minute, hour = Budget(Level.ACCOUNT, "minute", 60, 6), Budget(Level.ACCOUNT, "hour", 1000, 950)
    assert tightest([minute, hour, Budget(Level.USER, "day", 0, 0)]) is hour
    assert tightest([]) is None
    assert tightest([Budget(Level.ACCOUNT, "burst", 10, 0)]) is None
    assert budget_words(minute) == ("54/60 left this minute", Tone.MUTED)
    assert budget_words(hour) == ("50/1,000 left this hour", Tone.LOOK)
    assert budget_words(Budget(Level.AGENT, "burst", 10, 12)) == ("an agent: 0/10 left this second", Tone.ACT)


def test_how_a_check_stands() -> None:
    view = check("agent:1", CheckKind.AGENT, "Reception")
    assert standing_of(view) is Standing.FINE
    assert standing_of(replace(view, state=DOWN)) is Standing.DOWN
    assert standing_of(replace(view, state=DOWN, held_by="Retell")) is Standing.HELD
    assert standing_of(replace(view, state=MAINTENANCE, held_by="Retell")) is Standing.MAINTENANCE
    assert standing_of(replace(view, state=PENDING, failures=1)) is Standing.FAILING
    assert standing_of(never_probed(view)) is Standing.UNCHECKED


def test_every_state_has_a_word() -> None:
    view = check("x", CheckKind.PROVIDER, "Retell", message="it answers 503")
    assert text_of(replace(view, state=DOWN)) == "down since 10:00 · it answers 503"
    assert text_of(replace(view, state=DEGRADED)) == "degraded since 10:00 · it answers 503"
    assert text_of(replace(view, state=PENDING, failures=1)) == "failing, 1 of 2 · it answers 503"
    assert text_of(replace(view, state=MAINTENANCE, maintenance_until=NOON + HOUR)).startswith(
        "maintenance until 14:00"
    )
    assert text_of(replace(view, held_by="Redis")) == "waits for Redis"
    assert text_of(replace(never_probed(view), probing=False)) == "not checked yet"
    assert text_of(never_probed(view)) == "checking"
    assert text_of(replace(view, simulated=True)) == "simulated · it answers 503"
    shut = BreakerView(BreakerState.OPEN, reopens_in=12.0)
    assert text_of(replace(view, state=DOWN, breaker=shut), elapsed=2) == (
        "down since 10:00 · breaker open 10 s · it answers 503"
    )


def test_narrow_lines_keep_the_word_and_the_countdown() -> None:
    shut = BreakerView(BreakerState.OPEN, reopens_in=12.0)
    view = check("x", CheckKind.PROVIDER, "Retell", DOWN, message="it answers 503", breaker=shut)
    assert text_of(view, 30) == "down · breaker open 12 s"
    assert text_of(view, 10) == "down"
    assert text_of(view, 48) == "down · breaker open 12 s · it answers 503"


def test_parts_fit_and_break_at_words_only() -> None:
    chance = random.Random(5)
    words = ["the", "webhook", "of", "this", "agent", "answers", "slowly", "certificate", "expires"]
    for _ in range(400):
        parts = [
            Part(
                " ".join(chance.choices(words, k=chance.randrange(1, 7))),
                short=chance.choice(("", "down")),
                rank=chance.randrange(4),
                flows=chance.random() < 0.5,
            )
            for _ in range(chance.randrange(1, 5))
        ]
        width = chance.randrange(14, 90)
        text = "".join(piece for piece, _ in fit_parts(parts, width, UNICODE))
        assert width_of(text) <= width
        for said in text.split(" · "):
            whole = [part for part in parts if said in (part.text, part.short)]
            assert whole or said.endswith("…")
            if not whole:
                start = said.removesuffix("…")
                source = next(part.text for part in parts if part.text.startswith(start))
                # At a word's end, unless the word alone was longer than what there was room for.
                assert source[len(start) : len(start) + 1] == " " or " " not in start


def test_strips_and_sparks_end_at_now() -> None:
    view = beats((UP, 3), (DEGRADED, 2), (DOWN, 1), (MAINTENANCE, 1), (PENDING, 1))
    assert strip_pieces(view, 10, UNICODE) == [
        ("  ", Tone.MUTED),
        ("●●●", Tone.OK),
        ("▲▲", Tone.LOOK),
        ("✗", Tone.ACT),
        ("‖○", Tone.MUTED),
    ]
    assert "".join(text for text, _ in strip_pieces(view, 4, ASCII)) == "^x=o"
    assert strip_pieces((), 3, UNICODE) == [("   ", Tone.MUTED)]
    steady = [replace(beat, took_ms=200.0) for beat in beats((UP, 7))]
    assert spark_text([*steady, replace(steady[0], took_ms=600.0)], 9, UNICODE) == " ▃▃▃▃▃▃▃█"
    assert spark_text(view[5:6], 3, UNICODE) == "   "


def test_who_probes_is_said_where_it_is_not_this_process() -> None:
    view = HealthView(Overall.HEALTHY, "", (), NOON - 5_000, True, "this process")
    assert prober_words(view, NOON)[0] == ""
    other = replace(view, started=False, prober="another process (host, 4711)")
    assert prober_words(other, NOON) == ("by another process (host, 4711)", Tone.MUTED)
    assert prober_words(replace(other, checked_at=NOON - HOUR), NOON) == (
        "nobody checks by itself",
        Tone.LOOK,
    )
    assert prober_words(replace(other, prober=""), NOON)[1] is Tone.LOOK


def test_a_copied_line_has_everything() -> None:
    retell = outage().checks[0]
    text = copy_text(replace(retell, last_error="an older one", last_error_advice="renew it"), NOON, ZONE)
    assert text.splitlines() == [
        "Retell (acme): down since 12:52, breaker open 12 s, Retell answers 503",
        "What to do: Nothing to do here: it is tried again by itself; see status.retellai.com",
        "Last error at 12:59: an older one",
        "What to do then: renew it",
    ]


# -- the filter -----------------------------------------------------------------------------------


def found(typed: str, view: HealthView) -> list[str]:
    wanted = parse_health_filter(typed)
    return [each.name for each in view.checks if wanted.matches(each)]


def test_the_language_of_the_filter() -> None:
    view = outage()
    assert found("state:down", view) == ["Retell"]
    assert found("state:deg kind:agents", view) == ["Outbound DE 42"]
    assert len(found("state:held", view)) == 31
    assert found("kind:integration !state:fine", view) == ["Twilio SMS"]
    assert found("kind:system disk", view) == ["disk"]
    assert found("hub company:acme", view) == ["HubSpot"]
    assert found("vendor:eleven kind:provider", view) == ["ElevenLabs"]
    assert 0 < len(found("vendor:eleven kind:agent", view)) < 42
    assert found("!vendor:retell kind:provider", view) == ["ElevenLabs"]
    assert found("state:trouble", view) == ["Retell", "Outbound DE 42"]
    assert len(found("state:", view)) == len(view.checks)
    assert not parse_health_filter("  ! ")
    for typed, advice in (("state:sleepy", "maintenance"), ("kind:toaster", "orchestrator")):
        with pytest.raises(UsageError) as error:
            parse_health_filter(typed)
        assert advice in error.value.advice


# -- panels ---------------------------------------------------------------------------------------


def test_trouble_is_first_and_the_many_are_folded() -> None:
    board = HealthBoard()
    panels = {panel.key: panel for panel in board.panels(outage())}
    assert list(panels) == ["provider", "agent", "integration", "orchestrator", "system"]
    assert panels["provider"].items == ("provider:acme/retell", "provider:acme/elevenlabs")
    held = Fold(CheckKind.AGENT, Standing.HELD, "Retell")
    fine = Fold(CheckKind.AGENT, Standing.FINE)
    assert panels["agent"].items == ("agent:42", held, fine)
    assert [text for text, _ in panels["agent"].summary] == [
        "1 degraded",
        "31 held back by Retell",
        "10 fine",
    ]
    assert [text for text, _ in panels["system"].summary] == ["all 4 fine"]
    assert panels["integration"].items[0] == "integration:3"
    board.toggle(fine)
    items = board.panels(outage())[1].items
    assert items[:3] == ("agent:42", held, fine)
    assert len(items) == 13
    assert board.fold_of("agent:33") == fine
    assert board.fold_of("agent:42") is None
    assert board.fold_of("nobody") is None


def test_few_are_not_folded_and_a_filter_unfolds() -> None:
    board = HealthBoard()
    assert len(board.panels(healthy(3))[1].items) == 3
    board.filter = parse_health_filter("kind:agent")
    (panel,) = board.panels(healthy(500))
    assert len(panel.items) == board.matching == 500


def test_agents_held_by_several_causes_have_a_fold_each() -> None:
    board = HealthBoard()
    checks = (*agents(6, held_by="Retell"), *agents(5, held_by="ElevenLabs", first=7))
    (panel,) = board.panels(HealthView(Overall.DEGRADED, "", checks, NOON))
    assert {item.held_by for item in panel.items if isinstance(item, Fold)} == {"Retell", "ElevenLabs"}
    assert [text for text, _ in panel.summary] == ["11 held back"]


# -- the past -------------------------------------------------------------------------------------


def point(start: int, length: int, up: int = 10, down: int = 0, p95: float | None = 100.0) -> HistoryPoint:
    return HistoryPoint(start, length, up, 0, down, 0, p95, p95)


def test_periods_go_into_the_columns_they_touch() -> None:
    short = [point(n * 10, 10, down=n) for n in range(10)]
    drawn = bins(short, 0, 100, 5)
    assert [each.down for each in drawn] == [1, 5, 9, 13, 17]
    assert [each.probes for each in drawn] == [21, 25, 29, 33, 37]
    long = bins([point(0, 50, p95=300.0), point(50, 50)], 0, 100, 4)
    assert [each.p95_ms for each in long] == [300.0, 300.0, 100.0, 100.0]
    assert [each.probes for each in bins([point(-100, 50), point(200, 10)], 0, 100, 4)] == [0, 0, 0, 0]
    assert bins([], 0, 100, 0) == []


def test_a_column_is_as_bad_as_its_worst() -> None:
    (one,) = bins([point(0, 10), point(10, 10, up=0, down=10, p95=None)], 0, 20, 1)
    assert (one.share, one.tone, one.p95_ms) == (0.5, Tone.ACT, 100.0)
    (none,) = bins([], 0, 20, 1)
    assert (none.share, none.height, none.tone) == (None, None, Tone.MUTED)


# -- how long -------------------------------------------------------------------------------------


def test_how_long_maintenance_lasts() -> None:
    texts = ("90", "45 min", "2h", "2 h", "1 d 12 h", "1,5 h", "1 day", "30 minutes")
    assert [parse_minutes(text) for text in texts] == [90, 45, 120, 120, 2160, 90, 1440, 30]
    for wrong in ("", "soon", "0", "-5", "31 d", "2 weeks", "1 h and a bit"):
        with pytest.raises(UsageError):
            parse_minutes(wrong)


def test_a_state_is_not_forgotten() -> None:
    board = HealthBoard()
    for state in HealthState:
        view = check("system:x", CheckKind.SYSTEM, "x", state, failures=1)
        (panel,) = board.panels(HealthView(Overall.HEALTHY, "", (view,), NOON))
        assert panel.items == ("system:x",)


def test_maintenance_says_until_when_and_what_it_is_like_meanwhile() -> None:
    retell = outage().checks[0]
    view = replace(retell, state=MAINTENANCE, maintenance_until=NOON + 26 * HOUR)
    assert text_of(view, 28) == "maintenance until Mar 02"
    assert text_of(view, 60).startswith("maintenance until Mar 02 · breaker open 12 s")
    tonight = replace(view, maintenance_until=NOON + 13 * HOUR)
    assert text_of(tonight, 28) == "maintenance until 02:00"
    why = "".join(text for text, _ in why_pieces(view, NOON, ZONE, 0.0, UNICODE, 80))
    assert why.strip().startswith("‖ Retell · maintenance until Mar 02 15:00 · Retell answers 503")
