"""One table of actions: bindings, key line, help and palette cannot disagree."""

from __future__ import annotations

from collections import Counter

import pytest
from textual.widget import Widget

from app.console import Callboard
from screens.actions import ACTIONS, BY_ID, CHECK, DETAIL, EVERYWHERE, PLACES, actions_of
from screens.activity import ActivityScreen
from screens.agents import AgentsScreen
from screens.call import CallScreen
from screens.calls import CallsScreen
from screens.companies import CompaniesScreen
from screens.detail import DetailPane
from screens.frame import Frame
from screens.health import HealthScreen
from screens.health_detail import CheckPane
from screens.help import help_rows
from screens.palette import ActionProvider
from screens.replay import ReplayScreen
from tests.support.console import console, home, opened, screen_text, settled, until
from tests.support.fake_calls import conversation, wants_approval, with_history
from tests.support.fake_health import outage
from tests.support.fake_services import FakeServices

OWNERS: dict[str, type] = {
    "agents": AgentsScreen,
    DETAIL: DetailPane,
    "calls": CallsScreen,
    "call": CallScreen,
    "replay": ReplayScreen,
    "companies": CompaniesScreen,
    "health": HealthScreen,
    CHECK: CheckPane,
    "activity": ActivityScreen,
    EVERYWHERE: Callboard,
}


def test_every_action_is_bound_where_it_belongs_and_has_a_method() -> None:
    assert set(OWNERS) == set(PLACES)
    for place, owner in OWNERS.items():
        bound = {binding.id: binding for binding in owner.BINDINGS}  # type: ignore[attr-defined]
        assert list(bound) == [action.binding_id for action in actions_of(place)]
        for action in actions_of(place):
            assert bound[action.binding_id].key == ",".join(action.keys)
            assert bound[action.binding_id].action == action.id
            assert callable(getattr(owner, f"action_{action.id}")), action.binding_id


def test_ids_are_unique_and_no_place_has_a_key_twice() -> None:
    assert len(BY_ID) == len(ACTIONS)
    for place in PLACES:
        keys = Counter(key for action in actions_of(place) for key in action.keys)
        assert [key for key, count in keys.items() if count > 1] == []


def test_words_fit_where_they_are_shown() -> None:
    for action in ACTIONS:
        assert action.help.endswith("."), action.binding_id
        assert len(action.help) <= 51, f"{action.binding_id}: the help screen is narrow"
        assert len("  ".join(action.shown_keys)) <= 17, action.binding_id
        assert len(action.label) <= 14, action.binding_id


async def at(place: str, pilot: object) -> Frame:
    from textual.pilot import Pilot

    assert isinstance(pilot, Pilot)
    app = console(pilot)
    if place == DETAIL:
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.focused, DetailPane))
    elif place in ("call", "replay"):
        services = app.services
        assert isinstance(services, FakeServices)
        if place == "call":
            session = services.calls.call()
            conversation(session)
            wants_approval(session)
            await until(pilot, lambda: app.live.calls)
            await pilot.press("0")
        else:
            with_history(services.calls)
            await pilot.press("2")
            await until(pilot, lambda: "Outbound Surveys" in screen_text(pilot))
            await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, CallScreen | ReplayScreen))
    elif place == CHECK:
        services = app.services
        assert isinstance(services, FakeServices)
        services.health.shown = outage()
        await pilot.press("4", "enter")
        await until(pilot, lambda: isinstance(app.focused, CheckPane))
    elif place != "agents":
        await pilot.press({"calls": "2", "companies": "3", "health": "4", "activity": "5"}[place])
    await settled(pilot)
    frame = app.screen
    assert isinstance(frame, Frame)
    return frame


@pytest.mark.parametrize(
    "place", ["agents", DETAIL, "calls", "call", "replay", "companies", "health", CHECK, "activity"]
)
async def test_key_line_help_and_palette_show_what_the_keys_do(place: str) -> None:
    async with opened(FakeServices(demo=object()), (140, 40)) as pilot:
        frame = await at(place, pilot)
        valid = {action.binding_id for action, _ in frame.valid_actions()}
        active = {bound.binding.id for bound in frame.active_bindings.values() if bound.binding.id in BY_ID}
        rows = help_rows(frame)
        assert {action.binding_id for action, available in rows if available} <= valid
        assert {action.binding_id for action, _ in rows} >= {
            action.binding_id for action in actions_of(place)
        }
        assert {action.binding_id for action in actions_of(place) if action.binding_id in valid} <= active
        for _, _, method in frame.hints():
            shown = {action.id for action, _ in frame.valid_actions()}
            assert method in shown
        offered = {action.binding_id for _, action, _ in ActionProvider(frame).actions()}
        assert offered == {name for name in valid if BY_ID[name].palette}


async def test_the_palette_does_what_the_key_does() -> None:
    services = FakeServices()
    async with opened(services) as pilot:
        await pilot.press("colon", *"force all")
        await until(pilot, lambda: "Read every agent again" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: services.sync.requests)
        assert services.sync.requests[0].force
        assert not services.sync.requests[0].agent_ids


async def test_the_palette_finds_agents() -> None:
    async with opened(FakeServices()) as pilot:
        wanted = home(pilot).board.shown[30]
        await pilot.press("slash", *"vendor:zzz", "escape")
        await pilot.press("ctrl+p", *wanted.name)
        await until(pilot, lambda: f"Agent: {wanted.name}" in screen_text(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: home(pilot).grid.current is wanted)


async def test_help_lists_the_keys_of_the_screen() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: "Keys of agents" in screen_text(pilot))
        assert "Sync every agent of every company." in screen_text(pilot)
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, AgentsScreen)


async def test_q_quits_from_home_and_ctrl_c_too() -> None:
    for key in ("q", "ctrl+q", "ctrl+c"):
        async with opened(FakeServices()) as pilot:
            await pilot.press(key)
            await pilot.pause()
            assert pilot.app.return_code == 0
            assert not pilot.app.is_running or pilot.app._exit


def test_a_widget_is_no_action_owner_by_accident() -> None:
    for owner in OWNERS.values():
        own = {name.removeprefix("action_") for name in vars(owner) if name.startswith("action_")}
        known = {action.id for action in ACTIONS}
        assert own <= known, own - known
    assert issubclass(DetailPane, Widget)
