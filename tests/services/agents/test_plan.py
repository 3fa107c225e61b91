"""Which agents a sync reads: the rules, and properties that hold for every mirror and every list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.agents.plan import (
    Action,
    Listed,
    Mirrored,
    Rules,
    Step,
    Verdict,
    certain_reads,
    decide,
    needs_sync,
    plan,
)
from services.model import SyncStatus

HOUR = 3_600_000
NOW = 1_790_000_000_000


def mirrored(remote_id: str = "a", **changes: object) -> Mirrored:
    values: dict[str, object] = {
        "id": 1,
        "remote_id": remote_id,
        "name": "Reception",
        "status": SyncStatus.SYNCED,
        "marker": "read",
        "checked_at": NOW - 60_000,
        "gone_at": None,
        "digest": "d1",
        "has_bundle": True,
    }
    return Mirrored(**{**values, **changes})  # type: ignore[arg-type]


def decision(agent: Mirrored | None, verdict: Verdict = Verdict.SILENT, **rules: object) -> Action:
    values: dict[str, object] = {"now": NOW, "stale_after_ms": HOUR}
    return decide(Listed("a", "Reception"), agent, verdict, Rules(**{**values, **rules})).action  # type: ignore[arg-type]


def test_a_new_agent_is_read() -> None:
    assert decision(None) is Action.READ


def test_a_silent_list_makes_a_stale_agent_cost_a_read_and_a_fresh_one_nothing() -> None:
    assert decision(mirrored(checked_at=NOW - HOUR)) is Action.READ
    assert decision(mirrored(checked_at=NOW - HOUR + 1)) is Action.FRESH


def test_a_list_with_times_decides_without_reading_however_stale_the_agent_is() -> None:
    assert decision(mirrored(checked_at=NOW - 50 * HOUR), Verdict.SAME) is Action.VERIFIED
    assert decision(mirrored(checked_at=NOW), Verdict.CHANGED) is Action.READ


def test_force_reads_what_the_list_would_have_spared() -> None:
    assert decision(mirrored(), Verdict.SAME, force=True) is Action.READ


def test_an_agent_whose_last_read_failed_is_read_even_when_fresh() -> None:
    assert decision(mirrored(marker="", status=SyncStatus.ERROR), Verdict.SAME) is Action.READ


def test_an_agent_that_came_back_is_read() -> None:
    assert decision(mirrored(gone_at=NOW - HOUR), Verdict.SAME) is Action.READ


def test_a_failed_listing_alone_costs_no_read_afterwards() -> None:
    """The listing's failure marks the card, but the mirror was right and its marker stayed."""
    assert decision(mirrored(status=SyncStatus.ERROR)) is Action.FRESH


def test_a_clock_that_was_set_back_counts_as_stale() -> None:
    assert needs_sync(mirrored(checked_at=NOW + HOUR), Rules(now=NOW, stale_after_ms=HOUR))


def test_a_resumed_forced_run_reads_only_what_the_first_part_left() -> None:
    started = NOW - 120_000
    done = mirrored(checked_at=started + 1)
    left = mirrored(checked_at=started - 1)
    assert decision(done, force=True, settled_since=started) is Action.FRESH
    assert decision(left, force=True, settled_since=started) is Action.READ


def test_missing_agents_are_gone_once_and_only_in_scope() -> None:
    rules = Rules(now=NOW, stale_after_ms=HOUR)
    known = {"a": mirrored("a"), "b": mirrored("b"), "c": mirrored("c", gone_at=NOW - HOUR)}
    steps = plan({"a": Listed("a", "A")}, known, {}, rules)
    assert [(step.remote_id, step.action) for step in steps] == [("a", Action.FRESH), ("b", Action.GONE)]
    assert plan({}, known, {}, rules, only=frozenset("a")) == [
        Step("a", "Reception", Action.GONE, "no longer at the vendor", known["a"])
    ]


agents = st.builds(
    mirrored,
    remote_id=st.sampled_from("abcdef"),
    status=st.sampled_from([SyncStatus.SYNCED, SyncStatus.ERROR, SyncStatus.PENDING]),
    marker=st.sampled_from(["", "read"]),
    checked_at=st.none() | st.integers(NOW - 3 * HOUR, NOW + HOUR),
    gone_at=st.none() | st.just(NOW - HOUR),
    has_bundle=st.booleans(),
)
mirrors = st.dictionaries(st.sampled_from("abcdef"), agents).map(
    lambda found: {
        key: mirrored(
            key, **{n: getattr(a, n) for n in ("status", "marker", "checked_at", "gone_at", "has_bundle")}
        )
        for key, a in found.items()
    }
)
lists = st.sets(st.sampled_from("abcdefgh")).map(
    lambda ids: {one: Listed(one, one.upper()) for one in sorted(ids)}
)
verdicts = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(Verdict))
rules = st.builds(
    Rules,
    now=st.just(NOW),
    stale_after_ms=st.integers(1, 2 * HOUR),
    force=st.booleans(),
    settled_since=st.none() | st.integers(NOW - HOUR, NOW),
)


@given(lists, mirrors, verdicts, rules)
def test_every_agent_gets_one_decision_and_none_is_lost(
    listed: dict[str, Listed], known: dict[str, Mirrored], said: dict[str, Verdict], rule: Rules
) -> None:
    steps = plan(listed, known, said, rule)
    ids = [step.remote_id for step in steps]
    assert len(ids) == len(set(ids))
    alive = {key for key, agent in known.items() if agent.gone_at is None}
    assert set(ids) == set(listed) | (alive - set(listed))


@given(lists, mirrors, verdicts, rules)
def test_nothing_is_called_right_without_evidence(
    listed: dict[str, Listed], known: dict[str, Mirrored], said: dict[str, Verdict], rule: Rules
) -> None:
    for step in plan(listed, known, said, rule):
        if step.action is Action.VERIFIED:
            assert said[step.remote_id] is Verdict.SAME
        if step.action in (Action.VERIFIED, Action.FRESH):
            assert step.mirrored is not None
            assert step.mirrored.has_bundle
            assert step.mirrored.marker
        if step.action is Action.FRESH and rule.settled_since is None:
            assert not needs_sync(known[step.remote_id], rule)


@given(lists, mirrors, verdicts, rules)
def test_force_never_reads_less(
    listed: dict[str, Listed], known: dict[str, Mirrored], said: dict[str, Verdict], rule: Rules
) -> None:
    def read(force: bool) -> set[str]:
        forced = Rules(rule.now, rule.stale_after_ms, force, rule.settled_since)
        return {step.remote_id for step in plan(listed, known, said, forced) if step.action is Action.READ}

    assert read(False) <= read(True)


@given(lists, mirrors, rules)
def test_certain_reads_are_never_more_than_a_silent_list_brings(
    listed: dict[str, Listed], known: dict[str, Mirrored], rule: Rules
) -> None:
    """Counted before the list is there: exactly the known agents that are read if the list has them all."""
    everybody = {remote_id: Listed(remote_id, remote_id) for remote_id in known}
    steps = plan({**listed, **everybody}, known, {}, rule)
    read = [step for step in steps if step.action is Action.READ and step.mirrored is not None]
    assert certain_reads(known, rule) == (len(read) if known else None)
