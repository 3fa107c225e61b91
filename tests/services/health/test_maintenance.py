from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import UsageError
from services.health.maintenance import check_scope, covers, next_span, running, span_at, until, validate
from services.health.model import CheckKind, CheckSpec, Window

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    """Epoch milliseconds of a local time; `fold` of an autumn hour by a trailing `*`."""
    moment = datetime.fromisoformat(text.rstrip("*")).replace(tzinfo=zone, fold=int(text.endswith("*")))
    return round(moment.timestamp() * 1000)


async def nothing():
    raise NotImplementedError


RETELL = CheckSpec("provider:acme/retell", CheckKind.PROVIDER, "Retell", nothing, company="Acme")
DISK = CheckSpec("system:disk", CheckKind.SYSTEM, "disk", nothing)
NIGHTLY = Window(1, "*", timezone="Europe/Berlin", cron="30 2 * * *", minutes=60)


def test_an_absolute_window_has_a_beginning_and_an_end() -> None:
    window = Window(1, "*", starts_at=1000, ends_at=2000)
    assert span_at(window, 999) is None
    assert span_at(window, 1000).end == 2000
    assert span_at(window, 1999) is not None
    assert span_at(window, 2000) is None
    assert next_span(window, 0).start == 1000
    assert next_span(window, 1500) is None


def test_a_cron_window_runs_in_its_zone() -> None:
    assert span_at(NIGHTLY, at("2026-01-15 02:29")) is None
    span = span_at(NIGHTLY, at("2026-01-15 03:00"))
    assert (span.start, span.end) == (at("2026-01-15 02:30"), at("2026-01-15 03:30"))
    assert span_at(NIGHTLY, at("2026-01-15 03:30")) is None
    # The same wall-clock time in summer, an hour earlier in UTC.
    assert span_at(NIGHTLY, at("2026-07-15 02:30")).start == at("2026-07-15 02:30")


def test_a_beginning_that_the_clock_skips_comes_after_the_gap() -> None:
    """On 29 March 2026 Berlin's clock goes from 02:00 to 03:00."""
    assert span_at(NIGHTLY, at("2026-03-29 01:59")) is None
    span = span_at(NIGHTLY, at("2026-03-29 03:10"))
    assert span.start == at("2026-03-29 03:00")
    assert span.end - span.start == 60 * 60_000


def test_a_beginning_that_comes_twice_counts_once() -> None:
    """On 25 October 2026 Berlin's clock goes from 03:00 back to 02:00."""
    first, second = at("2026-10-25 02:30"), at("2026-10-25 02:30*")
    assert second - first == 3_600_000
    assert span_at(NIGHTLY, first).start == first
    assert span_at(NIGHTLY, second - 1).start == first
    assert span_at(NIGHTLY, second) is None


@given(st.integers(min_value=at("2026-01-01 00:00"), max_value=at("2027-12-31 00:00")))
def test_every_moment_is_in_a_span_that_holds_it(now: int) -> None:
    span = span_at(NIGHTLY, now)
    if span is not None:
        assert span.start <= now < span.end
        assert span.end - span.start == 60 * 60_000
        local = datetime.fromtimestamp(span.start / 1000, BERLIN)
        assert (local.hour, local.minute) in ((2, 30), (3, 0))
    following = next_span(NIGHTLY, now)
    assert following.start > now
    assert span_at(NIGHTLY, following.start).start == following.start


def test_who_is_covered() -> None:
    for scope in ("*", "provider", "provider:acme/retell", "company:acme"):
        assert covers(Window(1, scope), RETELL)
    for scope in ("*", "system", "system:disk"):
        assert covers(Window(1, scope), DISK)
    for scope in ("company:", "company:globex", "provider:acme", "agent"):
        assert not covers(Window(1, scope), DISK)
        assert not covers(Window(1, scope), RETELL)


def test_of_several_windows_the_longest_counts() -> None:
    windows = [Window(1, "*", starts_at=0, ends_at=100), Window(2, "provider", starts_at=0, ends_at=200)]
    spans = running(windows, 50)
    assert until(spans, RETELL) == 200
    assert until(spans, DISK) == 100
    assert until(running(windows, 150), DISK) is None


@pytest.mark.parametrize(
    "window",
    [
        Window(0, "", starts_at=0, ends_at=1),
        Window(0, "*"),
        Window(0, "*", starts_at=2, ends_at=1),
        Window(0, "*", cron="sometimes", minutes=5),
        Window(0, "*", cron="* * * * * *", minutes=5),
        Window(0, "*", cron="@daily", minutes=5),
        Window(0, "*", cron="0 3 * * *"),
        Window(0, "*", cron="0 3 * * *", minutes=100_000),
        Window(0, "*", cron="0 3 * * *", minutes=5, starts_at=0, ends_at=1),
        Window(0, "*", starts_at=0, ends_at=1, timezone="Mars/Olympus"),
    ],
)
def test_what_cannot_be_is_refused(window: Window) -> None:
    with pytest.raises(UsageError):
        validate(window)


@pytest.mark.parametrize(
    ("line", "minutes", "ends"),
    [
        ("* * * * *", 1, False),
        ("* * * * mon-sat", 1, True),
        ("*/10 * * * *", 10, False),
        ("*/10 * * * *", 9, True),
        ("0 3 * * *", 1440, False),
        ("0 3 * * *", 1439, True),
        ("0 0 1 1 *", 2880, True),
    ],
)
def test_a_window_that_would_never_end_is_refused(line: str, minutes: int, ends: bool) -> None:
    window = Window(0, "*", cron=line, minutes=minutes)
    if ends:
        validate(window)
        return
    with pytest.raises(UsageError, match="it would not end"):
        validate(window)


def test_six_fields_are_answered_with_five() -> None:
    with pytest.raises(UsageError, match="it has 6 fields") as refused:
        validate(Window(0, "*", cron="* * * * * *", minutes=5))
    assert "Give five fields" in refused.value.advice


def test_a_scope_that_names_nothing_is_told_what_comes_nearest() -> None:
    check_scope("agent", [RETELL])
    check_scope("company:ACME", [RETELL])
    with pytest.raises(UsageError) as told:
        check_scope("provider:acme/retel", [RETELL])
    assert "provider:acme/retell" in told.value.advice
