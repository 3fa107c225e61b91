from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.health.board import BEATS, Board
from services.health.model import CheckKind, CheckSpec, HealthState, HealthView, Overall, Reading
from services.health.overall import judge, judge_part

UP = Reading(HealthState.UP, "fine")
DOWN = Reading(HealthState.DOWN, "503 since then", "Wait")
DEGRADED = Reading(HealthState.DEGRADED, "almost full")
UNKNOWN = Reading(HealthState.PENDING, "not known")
NOW = 1_800_000_000_000


async def nothing() -> Reading:
    return UP


def spec(check_id: str, *depends_on: str, **changes) -> CheckSpec:
    kind = CheckKind(check_id.partition(":")[0])
    return replace(CheckSpec(check_id, kind, check_id, nothing, depends_on=depends_on), **changes)


def board_of(*specs: CheckSpec) -> Board:
    board = Board()
    board.set_specs(specs)
    return board


def probe(board: Board, check_id: str, *readings: Reading, at: int = NOW) -> HealthState:
    for place, reading in enumerate(readings):
        board.apply(check_id, reading, at + 1000 * place, at + 1000 * place + 10)
    return board.standing(check_id).state


def view_of(board: Board, check_id: str):
    board.refresh(NOW)
    return next(view for view in board.views() if view.id == check_id)


def test_never_probed_is_pending() -> None:
    view = view_of(board_of(spec("provider:a")), "provider:a")
    assert view.state is HealthState.PENDING
    assert view.since is None
    assert view.uptime_24h is None


def test_it_is_down_from_the_threshold_on_and_pending_before() -> None:
    board = board_of(spec("provider:a", failure_threshold=3))
    states = [probe(board, "provider:a", DOWN, at=NOW + place * 1000) for place in range(4)]
    assert states == [HealthState.PENDING, HealthState.PENDING, HealthState.DOWN, HealthState.DOWN]
    assert probe(board, "provider:a", UP) is HealthState.UP


def test_one_good_probe_starts_the_count_anew() -> None:
    board = board_of(spec("provider:a", failure_threshold=2))
    assert probe(board, "provider:a", DOWN, UP, DOWN) is HealthState.PENDING


@given(
    st.lists(st.sampled_from([UP, DOWN, DEGRADED]), min_size=1, max_size=40),
    st.integers(min_value=1, max_value=5),
)
def test_states_follow_the_threshold_whatever_comes(readings: list[Reading], threshold: int) -> None:
    """Down exactly when the latest `threshold` readings in a row, or more, found it so."""
    board = board_of(spec("provider:a", failure_threshold=threshold))
    row = 0
    for place, reading in enumerate(readings):
        state = probe(board, "provider:a", reading, at=NOW + place * 1000)
        row = row + 1 if reading is DOWN else 0
        expected = (
            reading.state if row == 0 else HealthState.DOWN if row >= threshold else HealthState.PENDING
        )
        assert state is expected
    standing = board.standing("provider:a")
    assert len(standing.beats) == min(len(readings), BEATS)
    assert standing.tally.day.total == len(readings)
    assert standing.tally.day.down == sum(reading is DOWN for reading in readings)


def test_a_slow_answer_is_degraded_and_says_so() -> None:
    board = board_of(spec("provider:a", slow_ms=500))
    assert probe(board, "provider:a", replace(UP, took_ms=499.0)) is HealthState.UP
    assert probe(board, "provider:a", replace(UP, took_ms=2300.0)) is HealthState.DEGRADED
    assert view_of(board, "provider:a").message == "Slow: answered after 2.3 s, expected within 500 ms"


def test_what_is_not_known_is_no_probe() -> None:
    board = board_of(spec("agent:1"))
    assert probe(board, "agent:1", UNKNOWN) is HealthState.PENDING
    view = view_of(board, "agent:1")
    assert view.beats == ()
    assert view.uptime_24h is None


def test_the_last_error_stays_when_it_is_well_again() -> None:
    board = board_of(spec("provider:a"))
    probe(board, "provider:a", DOWN, UP)
    view = view_of(board, "provider:a")
    assert (view.message, view.last_error, view.last_error_advice) == ("fine", "503 since then", "Wait")


def test_maintenance_hides_a_failure_and_counts_for_nothing() -> None:
    board = board_of(spec("provider:a"), spec("agent:1", "provider:a"))
    probe(board, "provider:a", UP)
    board.set_maintenance("provider:a", NOW + 60_000, NOW)
    assert probe(board, "provider:a", DOWN, DOWN, DOWN) is HealthState.MAINTENANCE
    board.refresh(NOW)
    assert view_of(board, "provider:a").uptime_24h == 1.0
    # What hangs on it is not to blame, maintenance or not.
    assert view_of(board, "agent:1").held_by == "provider:a"
    # The failures count: it is down at once when the maintenance is over.
    board.set_maintenance("provider:a", None, NOW + 60_000)
    assert board.standing("provider:a").state is HealthState.DOWN


def test_what_hangs_on_it_is_held_by_the_first_cause() -> None:
    board = board_of(
        spec("system:secrets", failure_threshold=1),
        spec("provider:a", "system:secrets", failure_threshold=1),
        spec("agent:1", "provider:a"),
        spec("agent:2", "provider:a"),
    )
    assert view_of(board, "system:secrets").dependents == 3
    probe(board, "provider:a", DOWN)
    assert view_of(board, "agent:1").held_by == "provider:a"
    probe(board, "system:secrets", DOWN)
    assert view_of(board, "agent:1").held_by == "system:secrets"
    assert view_of(board, "provider:a").held_by == "system:secrets"
    probe(board, "system:secrets", UP)
    probe(board, "provider:a", UP)
    assert view_of(board, "agent:1").held_by == ""


def test_a_circle_of_dependencies_ends() -> None:
    board = board_of(
        spec("agent:1", "agent:2", failure_threshold=1), spec("agent:2", "agent:1", failure_threshold=1)
    )
    probe(board, "agent:1", DOWN)
    probe(board, "agent:2", DOWN)
    assert view_of(board, "agent:1").held_by == "agent:2"


def test_checks_come_and_go_and_keep_what_is_known() -> None:
    board = board_of(spec("provider:a"), spec("provider:b"))
    probe(board, "provider:a", UP)
    came, gone = board.set_specs([spec("provider:a", interval=5.0), spec("provider:c")])
    assert (came, gone) == (["provider:c"], ["provider:b"])
    assert board.standing("provider:a").state is HealthState.UP
    assert view_of(board, "provider:a").interval == 5.0
    assert board.apply("provider:b", UP, NOW, NOW) is None


def verdict(board: Board) -> tuple[Overall, str]:
    board.refresh(NOW)
    return judge(board, board.views())


def test_the_reason_names_the_cause_and_what_hangs_on_it() -> None:
    agents = [spec(f"agent:{place}", "provider:a", critical=False) for place in range(31)]
    flows = [spec(f"integration:{place}", "provider:a", critical=False) for place in range(2)]
    board = board_of(spec("provider:a", name="Retell", failure_threshold=1), *agents, *flows)
    assert verdict(board) == (Overall.HEALTHY, "")
    probe(board, "provider:a", DOWN)
    for check in (*agents, *flows):
        probe(board, check.id, DOWN, DOWN)
    assert verdict(board) == (
        Overall.UNHEALTHY,
        "Retell is down; 31 agents and 2 integrations hang on it",
    )


def test_a_part_is_judged_with_what_it_waits_for() -> None:
    board = board_of(
        spec("provider:a", name="Retell", failure_threshold=1),
        spec("provider:b", name="ElevenLabs", failure_threshold=1),
        spec("agent:1", "provider:a", critical=False),
        spec("agent:2", "provider:b", critical=False),
    )
    probe(board, "agent:1", UP)
    probe(board, "agent:2", UP)
    probe(board, "provider:b", UP)
    probe(board, "provider:a", DOWN)
    held, well = view_of(board, "agent:1"), view_of(board, "agent:2")
    assert (held.state, held.held_by, held.since) == (HealthState.WAITS, "Retell", NOW + 10)
    assert (well.state, well.held_by) == (HealthState.UP, "")
    overall, reason = judge(board, board.views())
    view = HealthView(overall, reason, tuple(board.views()), NOW)
    told = (Overall.UNHEALTHY, "Retell is down; 1 agent hangs on it")
    assert judge_part(board, view, ["agent:1"]) == told
    assert judge_part(board, view, ["agent:1", "agent:2"]) == told
    assert judge_part(board, view, ["agent:2", "agent:99"]) == (Overall.HEALTHY, "")
    board.set_maintenance("agent:1", NOW + 60_000, NOW)
    assert view_of(board, "agent:1").state is HealthState.MAINTENANCE


def test_names_that_two_have_go_with_their_company() -> None:
    board = board_of(
        spec("provider:a", name="Retell", company="acme", failure_threshold=1),
        spec("provider:b", name="Retell", company="globex", failure_threshold=1),
    )
    probe(board, "provider:b", DOWN)
    assert verdict(board)[1] == "Retell (globex) is down: 503 since then"
    probe(board, "provider:a", DOWN)
    assert verdict(board)[1] == "Retell (acme) and Retell (globex) are down"


def test_what_is_not_critical_only_degrades_the_whole() -> None:
    board = board_of(spec("integration:1", name="HubSpot", critical=False, failure_threshold=1))
    probe(board, "integration:1", DOWN)
    assert verdict(board) == (Overall.DEGRADED, "HubSpot is down: 503 since then")
    probe(board, "integration:1", DEGRADED)
    assert verdict(board) == (Overall.DEGRADED, "HubSpot is degraded: almost full")
    board.set_maintenance("integration:1", NOW + 1, NOW)
    assert verdict(board) == (Overall.HEALTHY, "")
