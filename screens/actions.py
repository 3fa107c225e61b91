"""The one table of everything the operator can do. Bindings, key line, help and palette are made from it.

An action's id is the name of the method that does it (`action_<id>` on its screen, or on the app where
the place is `everywhere`) and the id of its binding. A screen answers through `available` whether the
action makes sense now; the key line and the palette show only those that do.
"""

from __future__ import annotations

from textual.binding import Binding, BindingType

from screens.action import Action as Action
from screens.call_actions import CALL as CALL
from screens.call_actions import CALL_ACTIONS
from screens.call_actions import CALLS as CALLS
from screens.call_actions import REPLAY as REPLAY
from screens.health_actions import CHECK as CHECK
from screens.health_actions import HEALTH as HEALTH
from screens.health_actions import HEALTH_ACTIONS

EVERYWHERE = "everywhere"
AGENTS = "agents"
COMPANIES = "companies"
ACTIVITY = "activity"
DETAIL = "detail"
PLACES = (AGENTS, DETAIL, CALLS, CALL, REPLAY, COMPANIES, HEALTH, CHECK, ACTIVITY, EVERYWHERE)

ACTIONS: tuple[Action, ...] = (
    # -- agents -----------------------------------------------------------------------------------
    Action("sync", ("s",), "sync", "Sync the marked agents, or this one.", "Sync", AGENTS, 10),
    Action("sync_all", ("S",), "all", "Sync every agent of every company.", "Sync", AGENTS, 11),
    Action("force", ("f",), "force", "Read the marked agents, or this one, in any case.", "Sync", AGENTS, 30),
    Action(
        "force_all",
        ("F",),
        "force all",
        "Read every agent again, whatever the lists say.",
        "Sync",
        AGENTS,
        60,
    ),
    Action("resume", ("r",), "resume", "Go on with the sync that was cancelled.", "Sync", AGENTS, 9),
    Action(
        "filter",
        ("slash",),
        "filter",
        "Text, vendor: status: drift: company:, ! inverts.",
        "Find",
        AGENTS,
        20,
    ),
    Action("order", ("o",), "order", "Next order: name, status, age, vendor, company.", "Find", AGENTS, 40),
    Action("mark", ("space",), "mark", "Mark or unmark this agent.", "Choose", AGENTS, 25),
    Action("mark_all", ("a",), "mark all", "Mark everything shown, or nothing.", "Choose", AGENTS, 55),
    Action(
        "open", ("enter",), "open", "Overview, configuration and history of the agent.", "Choose", AGENTS, 15
    ),
    Action("call", ("c",), "call", "Talk to this agent: microphone, text, phone.", "Call", AGENTS, 14),
    Action("copy", ("y",), "copy", "Copy the error, or the vendor's id of the agent.", "Choose", AGENTS, 50),
    Action(
        "break_agent",
        ("B",),
        "break/mend",
        "Let the vendor fail for this agent, or mend it.",
        "Demo",
        AGENTS,
        45,
    ),
    Action("edit_agent", ("E",), "edit", "Change this agent at the vendor.", "Demo", AGENTS, 46),
    Action(
        "back", ("escape",), "back", "Cancel the sync, or drop the filter or the marks.", "Choose", AGENTS, 12
    ),
    Action("left", ("left", "h"), "left", "One card to the left.", "Move", AGENTS, 0, False),
    Action("right", ("right", "l"), "right", "One card to the right.", "Move", AGENTS, 0, False),
    Action("up", ("up", "k"), "up", "One row up.", "Move", AGENTS, 0, False),
    Action("down", ("down", "j"), "down", "One row down.", "Move", AGENTS, 0, False),
    Action("page_up", ("pageup",), "page up", "One screen up.", "Move", AGENTS, 0, False),
    Action("page_down", ("pagedown",), "page down", "One screen down.", "Move", AGENTS, 0, False),
    Action("first", ("home", "g"), "first", "To the first agent.", "Move", AGENTS, 0, False),
    Action("last", ("end", "G"), "last", "To the last agent.", "Move", AGENTS, 0, False),
    # -- one agent --------------------------------------------------------------------------------
    Action("close", ("escape", "q"), "back", "Leave the agent.", "Agent", DETAIL, 10),
    Action(
        "next_tab",
        ("tab", "right_square_bracket"),
        "next tab",
        "Overview, configuration, history.",
        "Agent",
        DETAIL,
        12,
    ),
    Action(
        "previous_tab",
        ("shift+tab", "left_square_bracket"),
        "previous tab",
        "The tab before.",
        "Agent",
        DETAIL,
    ),
    Action("search", ("slash",), "search", "Search the configuration.", "Agent", DETAIL, 14),
    Action("next_match", ("n",), "next", "The next place found.", "Agent", DETAIL, 16),
    Action("previous_match", ("N",), "previous", "The place found before.", "Agent", DETAIL, 17),
    Action(
        "copy_detail", ("y",), "copy", "Copy the error, the id, or the configuration.", "Agent", DETAIL, 20
    ),
    Action("sync_one", ("s",), "sync", "Sync this agent.", "Agent", DETAIL, 30),
    Action("force_one", ("f",), "force", "Read this agent in any case.", "Agent", DETAIL, 32),
    Action("scroll_up", ("up", "k"), "up", "One line up.", "Move", DETAIL, 0, False),
    Action("scroll_down", ("down", "j"), "down", "One line down.", "Move", DETAIL, 0, False),
    Action("scroll_page_up", ("pageup",), "page up", "One screen up.", "Move", DETAIL, 0, False),
    Action(
        "scroll_page_down", ("pagedown", "space"), "page down", "One screen down.", "Move", DETAIL, 0, False
    ),
    Action("scroll_first", ("home", "g"), "top", "To the top.", "Move", DETAIL, 0, False),
    Action("scroll_last", ("end", "G"), "bottom", "To the bottom.", "Move", DETAIL, 0, False),
    *CALL_ACTIONS,
    # -- companies --------------------------------------------------------------------------------
    Action("add_company", ("a",), "add company", "Add a company.", "Companies", COMPANIES, 10),
    Action(
        "add_connection",
        ("c",),
        "connect",
        "Connect the company to a vendor with a key.",
        "Companies",
        COMPANIES,
        12,
    ),
    Action(
        "test_connection", ("t",), "test", "Ask the vendor whether the key works.", "Companies", COMPANIES, 14
    ),
    Action(
        "rotate_key", ("k",), "new key", "Replace the key of this connection.", "Companies", COMPANIES, 16
    ),
    Action(
        "remove",
        ("d",),
        "remove",
        "Remove this company or connection; asks first.",
        "Companies",
        COMPANIES,
        18,
    ),
    Action("row_up", ("up",), "up", "One line up.", "Move", COMPANIES, 0, False),
    Action("row_down", ("down", "j"), "down", "One line down.", "Move", COMPANIES, 0, False),
    Action("rows_up", ("pageup",), "page up", "One screen up.", "Move", COMPANIES, 0, False),
    Action("rows_down", ("pagedown",), "page down", "One screen down.", "Move", COMPANIES, 0, False),
    Action("first_row", ("home", "g"), "first", "To the first line.", "Move", COMPANIES, 0, False),
    Action("last_row", ("end", "G"), "last", "To the last line.", "Move", COMPANIES, 0, False),
    Action("home", ("escape", "q"), "agents", "Back to the agents.", "Companies", COMPANIES, 30),
    *HEALTH_ACTIONS,
    # -- activity ---------------------------------------------------------------------------------
    Action(
        "open_row",
        ("enter",),
        "open",
        "What a sync did about each agent; all of a line.",
        "Activity",
        ACTIVITY,
        10,
    ),
    Action(
        "switch_list",
        ("tab",),
        "next list",
        "On to the messages, the audit log, the sync runs.",
        "Activity",
        ACTIVITY,
        12,
    ),
    Action("copy_row", ("y",), "copy", "Copy this line, with the whole error.", "Activity", ACTIVITY, 14),
    Action("filter", ("slash",), "filter", "Words, or column:word.", "Activity", ACTIVITY, 16),
    Action("row_up", ("up", "k"), "up", "One line up.", "Move", ACTIVITY, 0, False),
    Action("row_down", ("down", "j"), "down", "One line down.", "Move", ACTIVITY, 0, False),
    Action("rows_up", ("pageup",), "page up", "One screen up.", "Move", ACTIVITY, 0, False),
    Action("rows_down", ("pagedown",), "page down", "One screen down.", "Move", ACTIVITY, 0, False),
    Action("first_row", ("home", "g"), "first", "To the first line.", "Move", ACTIVITY, 0, False),
    Action("last_row", ("end", "G"), "last", "To the last line.", "Move", ACTIVITY, 0, False),
    Action(
        "leave",
        ("escape", "q"),
        "back",
        "Drop the filter, back to the runs, to the agents.",
        "Activity",
        ACTIVITY,
        30,
    ),
    # -- everywhere -------------------------------------------------------------------------------
    Action("go_agents", ("1",), "agents", "The agents.", "Everywhere", EVERYWHERE),
    Action("go_calls", ("2",), "calls", "Calls that were made, and live ones.", "Everywhere", EVERYWHERE),
    Action("go_companies", ("3",), "companies", "Companies and their connections.", "Everywhere", EVERYWHERE),
    Action("go_health", ("4",), "health", "Is everything well, and if not, why.", "Everywhere", EVERYWHERE),
    Action(
        "go_activity",
        ("5",),
        "activity",
        "Syncs that ran, messages, the audit log.",
        "Everywhere",
        EVERYWHERE,
    ),
    Action("go_call", ("0",), "live call", "To the call that goes on.", "Everywhere", EVERYWHERE, 7),
    Action(
        "go_to",
        ("colon", "ctrl+p"),
        "go to",
        "Type where to go or what to do.",
        "Everywhere",
        EVERYWHERE,
        70,
        False,
    ),
    Action(
        "unlock",
        ("ctrl+u",),
        "unlock",
        "Open the encrypted keys with their passphrase.",
        "Everywhere",
        EVERYWHERE,
        8,
    ),
    Action(
        "switch_theme",
        ("ctrl+t",),
        "light/dark",
        "Switch between the light and the dark theme.",
        "Everywhere",
        EVERYWHERE,
    ),
    Action(
        "show_text",
        ("ctrl+y",),
        "show copied",
        "Show the copied text, to select it by hand.",
        "Everywhere",
        EVERYWHERE,
    ),
    Action("help", ("question_mark", "f1"), "keys", "The keys of this screen.", "Everywhere", EVERYWHERE, 1),
    Action("quit", ("ctrl+q", "q", "ctrl+c"), "quit", "Leave Callboard.", "Everywhere", EVERYWHERE, 80),
)

BY_ID: dict[str, Action] = {action.binding_id: action for action in ACTIONS}


def actions_of(place: str) -> list[Action]:
    """The actions of one place, in the order of the table."""
    return [action for action in ACTIONS if action.place == place]


def bindings_of(place: str) -> list[BindingType]:
    """The bindings of one place, for a `BINDINGS` class attribute."""
    return [
        Binding(
            ",".join(action.keys),
            action.id,
            action.label,
            show=False,
            id=action.binding_id,
            tooltip=action.help,
        )
        for action in actions_of(place)
    ]


def by_method(place: str, method: str) -> Action | None:
    """The action a method of a place stands for."""
    return BY_ID.get(f"{place}.{method}") or BY_ID.get(f"{EVERYWHERE}.{method}")
